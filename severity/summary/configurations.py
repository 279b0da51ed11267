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
from severity.summary import baselines, masked
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
    over its seeds, by its key, and `_min` and `_max`; without the metrics that are the same for every ranking
    (`catalogue.telling`).

    A rule that only the IRMA score knows decides no class: the metrics of decided classes are not there. Where a seed
    has no numbers for the rule (not_available), all three are None.
    """
    summary: dict[str, Any] = {"runs": len(seeds)}
    for metric in catalogue.telling(catalogue.table(), len(seeds[0]["classes"])):
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


def whole_table(records: Mapping[Run, Record], rules: Sequence[str]) -> pandas.DataFrame:
    """`comparison`, and below it the baselines: what a row must be better than to mean something."""
    return with_baselines(comparison(records, rules), records)


def with_baselines(networks: pandas.DataFrame, records: Mapping[Run, Record]) -> pandas.DataFrame:
    """A table of configurations, and below it a row a baseline, in the same columns."""
    every = [*networks.to_dict("records"), *baselines.rows(records).to_dict("records")]
    return pandas.DataFrame(every, columns=networks.columns).astype(networks.dtypes)


def facts(records: Iterable[Record]) -> dict[str, Any]:
    """What the numbers of a study are numbers of: collection, tree, cost, images (scored), patients (of these).

    Numbers under another collection, tree or cost cannot be subtracted from them. Where runs have not the same images, as
    external predictions may, a count is words.
    """
    records = list(records)
    known: dict[str, Any] = {
        name: ", ".join(dict.fromkeys(record[key] for record in records))
        for name, key in (("collection", "dataset"), ("tree", "hierarchy"), ("cost", "cost"))
    }
    counts = {"images": [record["counts"]["scored"] for record in records]}
    counts["patients"] = [record["patients"] for record in records if "patients" in record]
    for name, values in counts.items():
        if values:
            known[name] = values[0] if len(set(values)) == 1 else _range(values, ",")
    return known


def about(records: Mapping[Run, Record]) -> str:
    """The paragraphs over the table: whether anything was learnt, of which study and images the numbers are, which question
    they answer, what they are no test of, what is left out."""
    of_runs = list(records.values())
    known, classes = facts(of_runs), len(of_runs[0]["classes"])
    floors = {
        metric: [record["distance_floor"][str(metric.depth)] for record in of_runs]
        for metric in catalogue.table()
        if metric.depth
    }
    constant = catalogue.constant(classes)
    least = ", ".join(
        f"{metric.heading} {_range(floors[metric], '.3f')}" for metric in floors if metric not in constant
    )
    several = max(len(seeds) for _, _, seeds in by_configuration(records)) > 1
    spread = (
        "Median (smallest to largest) over its runs, one a seed" if several else "One run a configuration, no range"
    )
    parts = [
        *(f"**{warning}**\n" for warning in (baselines.warning(records), masked.remark(records)) if warning),
        f"Collection {known['collection']}, tree {known['tree']}, cost {known['cost']}: {_count(known['images'], 'test image')} "
        "with a true class"
        + (f", of {_count(known['patients'], 'patient')}" if "patients" in known else "")
        + ". Scored by the most specific true classes.\n",
        f"Question: how often and how far are the networks of each configuration wrong, under each rule? {spread}; "
        f"metrics/comparisons has means over seeds. No ranking can be below {least}. "
        + "".join(
            f"{metric.heading} is left out: with {classes} classes it is {_range(floors[metric], '.3f')} for every ranking. "
            for metric in constant
        )
        + "The numbers are described, not tested: rows that differ here may differ by chance; metrics/comparisons has "
        "intervals, and says what they are corrected for.\n",
        f"Rows of *{catalogue.NO_IMAGE}* are decisions that look at none: majority (always the most frequent class), least_risk "
        "(always the class of least mean severity on validation images), best_constant (the same on the test images), random (in "
        "expectation). A network that does not beat them "
        f'has learnt nothing (docs/methods.md, "What a row must beat"). {" ".join([*baselines.remarks(records), *baselines.constant(records)])}'.rstrip()
        + "\n",
    ]
    return "\n".join(part for part in parts if part)


def _count(number: Any, thing: str) -> str:
    """A number, or a range in words, of things."""
    return f"{number} {thing}s" if isinstance(number, str) else f"{number:,} {thing}{'' if number == 1 else 's'}"


def _range(values: Sequence[float], form: str) -> str:
    least, most = min(values), max(values)
    return f"{least:{form}}" if least == most else f"{least:{form}} to {most:{form}}"


def markdown(rows: pandas.DataFrame) -> str:
    """The table for people: "median (min to max)", numbers right-aligned, n/a where a seed lacks the metric.

    A single run has no range, and baselines have one only where runs differ in their images.
    """
    metrics = [metric for metric in catalogue.table() if metric.key in rows]
    headings = ["backbone", "loss", "rule", "runs", *(metric.heading for metric in metrics)]
    lines = []
    for row in rows.to_dict("records"):
        numbers = [spread(row, metric.key) for metric in metrics]
        lines.append([row["backbone"], row["loss"], row["rule"], str(row["runs"]), *numbers])
    return table(headings, lines, words=3)


def spread(row: Mapping[str, Any], key: str) -> str:
    """A metric of a row of the table in words: the median, and the range where there is one."""
    median, least, most = (row[f"{key}{end}"] for end in ("", "_min", "_max"))
    if median is None or pandas.isna(median):
        return "n/a"
    ranged = row["runs"] > 1 or (row["runs"] == 0 and least < most)
    return f"{median:.3f} ({least:.3f} to {most:.3f})" if ranged else f"{median:.3f}"


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


def best_seed(seeds: Sequence[Record]) -> Record:
    """Of the records of a configuration the one that is shown in detail: the highest validation macro-AUROC, the first of
    equals. Mistakes, explained decisions and report all show this seed."""
    return max(seeds, key=lambda record: record["validation"]["macro_auroc"] or 0.0)


def headline(records: Mapping[Run, Record], rules: Sequence[str]) -> dict[str, Any]:
    """The few numbers of an experiment: what they are of, the configuration chosen on validation images, its test medians,
    what the baselines have; and a warning where none of them is beaten, or where truth is masked.

    Args:
        rules: of `all_rules`, one that decides a class first.
    """
    configuration = best(records)
    seeds = [record for run, record in records.items() if (run.backbone, run.loss) == configuration]
    warnings = {"warning": baselines.warning(records), "masked": masked.remark(records)}
    summary: dict[str, Any] = {name: text for name, text in warnings.items() if text}
    summary |= {**facts(records.values()), "configuration": "-".join(configuration), "runs": len(records)}
    if all(score is None for score in validation_scores(records).values()):
        summary["chosen"] = "the first (no run has a validation macro-AUROC)"
    of_rules = {rule: medians(seeds, rule) for rule in rules}
    metrics = catalogue.headline()
    summary |= {metric.key: of_rules[rules[0]][metric.key] for metric in metrics if metric.source == "run"}
    for rule, values in of_rules.items():
        of_rule = [metric.key for metric in metrics if metric.source != "run" and metric.key in values]
        summary |= {f"{rule}_{key}": values[key] for key in of_rule}
    return summary | {f"{each.baseline}_{baselines.METRIC.key}": each.distance for each in baselines.standings(records)}
