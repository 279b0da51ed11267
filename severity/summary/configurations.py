"""Configurations: all seeds of one backbone and loss, under one decision rule. Medians, table, headline."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas

from severity.core.errors import SeverityError, nearest
from severity.core.markdown import table
from severity.core.runs import Run
from severity.metrics import catalogue
from severity.metrics.catalogue import Metric
from severity.metrics.record import Record
from severity.summary.statistics import over_seeds


def by_configuration(records: Mapping[Run, Record]) -> Iterator[tuple[str, str, list[Record]]]:
    """Yield backbone, loss and the records of all their seeds, in the order of the grid."""
    configurations: dict[tuple[str, str], list[Record]] = {}
    for run, record in records.items():
        configurations.setdefault((run.backbone, run.loss), []).append(record)
    for (backbone, loss), seeds in configurations.items():
        yield backbone, loss, seeds


def name(record: Record) -> str:
    """The name of the configuration that a run's record belongs to: ``<backbone>-<loss>``."""
    return f"{record['backbone']}-{record['loss']}"


def rows(frame: pandas.DataFrame, record: Mapping[str, Any]) -> pandas.DataFrame:
    """The rows of a table with columns backbone and loss that are of the same configuration as a run's metrics."""
    return frame[(frame["backbone"] == record["backbone"]) & (frame["loss"] == record["loss"])]


def all_rules(records: Mapping[Run, Record], rules: Sequence[str]) -> list[str]:
    """The rules, and those that only the IRMA score knows, where runs have one."""
    scored = [record["irma"]["rules"] for record in records.values() if "irma" in record]
    return [*rules, *(rule for rule in (scored[0] if scored else {}) if rule not in rules)]


def medians(seeds: Sequence[Record], rule: str) -> dict[str, Any]:
    """One flat summary of a configuration under a rule: runs, and of each metric of the catalogue's table the median
    over its seeds, by its key, and `_min` and `_max`.

    A rule that only the IRMA score knows decides no class: the metrics of decided classes are not there. Where a seed
    has no numbers for the rule (not_available), all three are None.
    """
    summary: dict[str, Any] = {"runs": len(seeds)}
    for metric in catalogue.table():
        if _applies(metric, seeds, rule):
            of_seeds = over_seeds([_value(metric, record, rule) for record in seeds])
            summary |= {
                f"{metric.key}{end}": of_seeds[what] for end, what in (("", "median"), ("_min", "min"), ("_max", "max"))
            }
    return summary


def _applies(metric: Metric, seeds: Sequence[Record], rule: str) -> bool:
    """Whether a configuration can have a metric under a rule."""
    if metric.source == "irma":
        return all("irma" in record for record in seeds)
    return metric.source == "run" or any(rule in record["rules"] or rule in record["not_available"] for record in seeds)


def _value(metric: Metric, record: Record, rule: str) -> float | None:
    if metric.source == "run":
        return record[metric.name]
    rules = record["irma"]["rules"] if metric.source == "irma" else record["rules"]
    return rules[rule][metric.name] if rule in rules else None


def common_rules(records: Sequence[Record]) -> list[str]:
    """The rules for which all of these runs have numbers, in the first one's order."""
    return [rule for rule in records[0]["rules"] if all(rule in record["rules"] for record in records)]


def known_rules(records: Iterable[Record]) -> list[str]:
    """The rules for which any of these runs has numbers, in the order in which they are met."""
    return list(dict.fromkeys(rule for record in records for rule in record["rules"]))


def comparison(records: Mapping[Run, Record], rules: Sequence[str]) -> pandas.DataFrame:
    """One row a configuration and rule: backbone, loss, rule, then the columns of `medians`."""
    return pandas.DataFrame(
        [
            {"backbone": backbone, "loss": loss, "rule": rule, **medians(seeds, rule)}
            for backbone, loss, seeds in by_configuration(records)
            for rule in rules
        ]
    )


def about(records: Iterable[Record]) -> str:
    """The paragraph over the table: of which images, which question it answers, what stands in it, what it is no test of."""
    records = list(records)
    images = [record["counts"]["scored"] for record in records]
    floors = {k: [record["distance_floor"][k] for record in records] for k in records[0]["distance_floor"]}
    least = ", ".join(f"hd@{k} {_range(floors[k], '.3f')}" for k in floors)
    return (
        f"Of {_range(images, ',')} test images with a true class, scored by the most specific true classes. Question: how "
        "often and how far are the networks of each configuration wrong, under each rule? Median (smallest to largest) "
        f"over its runs, one a seed; metrics/comparisons has means over them. No ranking can be below {least}. The numbers are described, not tested: rows that "
        "differ here may differ by chance; metrics/comparisons has intervals, and says what they are corrected for.\n"
    )


def _range(values: Sequence[float], form: str) -> str:
    least, most = min(values), max(values)
    return f"{least:{form}}" if least == most else f"{least:{form}} to {most:{form}}"


def markdown(rows: pandas.DataFrame) -> str:
    """The table for people: "median (min to max)", numbers right-aligned, n/a where a seed lacks the metric."""
    metrics = [metric for metric in catalogue.table() if metric.source != "irma" or metric.key in rows]
    headings = ["backbone", "loss", "rule", "runs", *(metric.heading for metric in metrics)]
    lines = []
    for row in rows.to_dict("records"):
        numbers = [_spread(*(row[f"{metric.key}{end}"] for end in ("", "_min", "_max"))) for metric in metrics]
        lines.append([row["backbone"], row["loss"], row["rule"], str(row["runs"]), *numbers])
    return table(headings, lines, words=3)


def _spread(median: float | None, least: float | None, most: float | None) -> str:
    if median is None or pandas.isna(median):
        return "n/a"
    return f"{median:.3f} ({least:.3f} to {most:.3f})"


def best(records: Mapping[Run, Record]) -> tuple[str, str]:
    """Backbone and loss of the configuration with the highest median validation macro-AUROC; the first of equals.

    Chosen on validation images, never on the test images whose numbers are then reported. Where no configuration has a
    validation macro-AUROC in all its seeds, as with external predictions of test images alone, it is the first.
    """
    scores = validation_scores(records)
    known = {configuration: score for configuration, score in scores.items() if score is not None}
    return max(known, key=known.__getitem__) if known else next(iter(scores))


def validation_scores(records: Mapping[Run, Record]) -> dict[tuple[str, str], float | None]:
    """Backbone and loss -> median validation macro-AUROC; None where a seed has none."""
    return {
        (backbone, loss): over_seeds([record["validation"]["macro_auroc"] for record in seeds])["median"]
        for backbone, loss, seeds in by_configuration(records)
    }


def choose(records: Mapping[Run, Record], configuration: str, where: str) -> list[Record]:
    """The records of all seeds of one configuration.

    Args:
        records: of every run of the grid.
        configuration: ``<backbone>-<loss>``, or ``best`` for the configuration that `best` chooses.
        where: the key of params.yaml that named it, for the message.

    Raises:
        SeverityError: no run has this backbone and loss.
    """
    if configuration == "best":
        configuration = "-".join(best(records))
    known = {f"{backbone}-{loss}": seeds for backbone, loss, seeds in by_configuration(records)}
    if configuration not in known:
        raise SeverityError(f"params.yaml: {where} is {configuration!r}. {nearest(configuration, ['best', *known])}")
    return known[configuration]


def headline(records: Mapping[Run, Record], rules: Sequence[str]) -> dict[str, Any]:
    """The few numbers of an experiment: the configuration chosen on validation images, its test medians.

    Args:
        rules: of `all_rules`, one that decides a class first.
    """
    configuration = best(records)
    seeds = [record for run, record in records.items() if (run.backbone, run.loss) == configuration]
    summary: dict[str, Any] = {"configuration": "-".join(configuration), "runs": len(records)}
    if all(score is None for score in validation_scores(records).values()):
        summary["chosen"] = "the first (no run has a validation macro-AUROC)"
    of_rules = {rule: medians(seeds, rule) for rule in rules}
    metrics = catalogue.headline()
    summary |= {metric.key: of_rules[rules[0]][metric.key] for metric in metrics if metric.source == "run"}
    for rule, values in of_rules.items():
        of_rule = [metric.key for metric in metrics if metric.source != "run" and metric.key in values]
        summary |= {f"{rule}_{key}": values[key] for key in of_rule}
    return summary
