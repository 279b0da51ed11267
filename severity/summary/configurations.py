"""Configurations of the comparison: all seeds of one backbone and loss, under one decision rule. Medians, table, headline."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas

from severity.core import files
from severity.core.errors import SeverityError, nearest
from severity.core.markdown import table
from severity.core.runs import Run
from severity.summary.statistics import over_seeds

# The columns of the comparison: key in the flat files (short, since `dvc metrics show` makes a column of each), metric of
# a rule in metrics/runs, heading for people. macro_auroc belongs to the run, whatever the rule.
METRICS = {
    "top1_error": ("top1_error", "top-1 error"),
    "mistake_severity": ("mistake_severity", "mistake severity"),
    "hd_at_1": ("hierarchical_distance_at_1", "hd@1"),
    "hd_at_5": ("hierarchical_distance_at_5", "hd@5"),
    "hd_at_20": ("hierarchical_distance_at_20", "hd@20"),
    "severity_percent": ("severity_percent", "severity %"),
    "macro_auroc": (None, "macro-AUROC"),
}
HEADLINE = ("top1_error", "mistake_severity", "hd_at_1")
# The same, of runs on IRMA codes only: key, metric of a rule in the section irma, heading.
IRMA = {"irma_sum": ("sum", "IRMA score"), "irma_mean": ("mean", "IRMA error")}


def read_runs(folder: Path | str, runs: Sequence[Run], rules: Sequence[str]) -> dict[Run, dict[str, Any]]:
    """The metrics of exactly the runs that params name; other files in the folder are not looked at.

    Raises:
        SeverityError: a run has no file, or the file lacks a rule and does not say why.
    """
    found = {}
    for run in runs:
        path = Path(folder) / f"{run.name}.json"
        if not path.exists():
            raise SeverityError(f"The run {run.name} has no metrics: {path} is missing. Run `dvc repro`.")
        found[run] = files.read_json(path)
        for rule in rules:
            if rule not in found[run]["rules"] and rule not in found[run].get("not_available", ()):
                raise SeverityError(f"{path} has no metrics for the rule {rule!r}. Run `dvc repro evaluate`.")
    return found


def by_configuration(found: dict[Run, dict[str, Any]]) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """Yield backbone, loss and the metrics of all their seeds, in the order of the grid."""
    configurations: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run, metrics in found.items():
        configurations.setdefault((run.backbone, run.loss), []).append(metrics)
    for (backbone, loss), seeds in configurations.items():
        yield backbone, loss, seeds


def name(record: dict[str, Any]) -> str:
    """The name of the configuration that a run's metrics belong to: ``<backbone>-<loss>``."""
    return f"{record['backbone']}-{record['loss']}"


def rows(frame: pandas.DataFrame, record: Mapping[str, Any]) -> pandas.DataFrame:
    """The rows of a table with columns backbone and loss that are of the same configuration as a run's metrics."""
    return frame[(frame["backbone"] == record["backbone"]) & (frame["loss"] == record["loss"])]


def all_rules(found: dict[Run, dict[str, Any]], rules: Sequence[str]) -> list[str]:
    """The rules, and those that only the IRMA score knows, where runs have one."""
    scored = [metrics["irma"]["rules"] for metrics in found.values() if "irma" in metrics]
    return [*rules, *(rule for rule in (scored[0] if scored else {}) if rule not in rules)]


def medians(seeds: Sequence[dict[str, Any]], rule: str) -> dict[str, Any]:
    """One flat record of a configuration under a rule: runs, and of each metric the median, `_min` and `_max` over its seeds.

    A rule that only the IRMA score knows decides no class: what is told of decided classes is not there. Where a seed has
    no numbers for the rule (not_available), all three are None.
    """
    decides = any(rule in run["rules"] or rule in run.get("not_available", ()) for run in seeds)
    values = {
        key: [_under(run["rules"], rule, metric) if metric else run[key] for run in seeds]
        for key, (metric, _) in METRICS.items()
        if decides or not metric
    }
    if all("irma" in run for run in seeds):
        values |= {
            key: [_under(run["irma"]["rules"], rule, metric) for run in seeds] for key, (metric, _) in IRMA.items()
        }
    record: dict[str, Any] = {"runs": len(seeds)}
    for key, each in values.items():
        summary = over_seeds(each)
        record |= {key: summary["median"], f"{key}_min": summary["min"], f"{key}_max": summary["max"]}
    return record


def _under(rules: dict[str, dict[str, Any]], rule: str, metric: str) -> float | None:
    return rules[rule][metric] if rule in rules else None


def common_rules(records: Sequence[dict[str, Any]]) -> list[str]:
    """The rules for which all of these runs have numbers, in the first one's order."""
    return [rule for rule in records[0]["rules"] if all(rule in record["rules"] for record in records)]


def known_rules(records: Iterable[dict[str, Any]]) -> list[str]:
    """The rules for which any of these runs has numbers, in the order in which they are met."""
    return list(dict.fromkeys(rule for record in records for rule in record["rules"]))


def comparison(found: dict[Run, dict[str, Any]], rules: Sequence[str]) -> pandas.DataFrame:
    """One row a configuration and rule: backbone, loss, rule, then the columns of `medians`."""
    return pandas.DataFrame(
        [
            {"backbone": backbone, "loss": loss, "rule": rule, **medians(seeds, rule)}
            for backbone, loss, seeds in by_configuration(found)
            for rule in rules
        ]
    )


def markdown(rows: pandas.DataFrame) -> str:
    """The table for people: "median (min to max)", numbers right-aligned, n/a where a seed lacks the metric."""
    columns = METRICS | {key: column for key, column in IRMA.items() if key in rows}
    headings = ["backbone", "loss", "rule", "runs", *(heading for _, heading in columns.values())]
    lines = []
    for row in rows.to_dict("records"):
        numbers = [_spread(row[key], row[f"{key}_min"], row[f"{key}_max"]) for key in columns]
        lines.append([row["backbone"], row["loss"], row["rule"], str(row["runs"]), *numbers])
    return table(headings, lines, words=3)


def _spread(median: float | None, least: float | None, most: float | None) -> str:
    if median is None or pandas.isna(median):
        return "n/a"
    return f"{median:.3f} ({least:.3f} to {most:.3f})"


def best(found: dict[Run, dict[str, Any]]) -> tuple[str, str]:
    """Backbone and loss of the configuration with the highest median validation macro-AUROC; the first of equals.

    Chosen on validation images, never on the test images whose numbers are then told. Where no configuration has a validation
    macro-AUROC in all its seeds, as with external predictions of test images alone, it is the first.
    """
    scores = validation_scores(found)
    known = {configuration: score for configuration, score in scores.items() if score is not None}
    return max(known, key=known.__getitem__) if known else next(iter(scores))


def validation_scores(found: dict[Run, dict[str, Any]]) -> dict[tuple[str, str], float | None]:
    """Backbone and loss -> median validation macro-AUROC; None where a seed has none."""
    return {
        (backbone, loss): over_seeds([run["validation"]["macro_auroc"] for run in seeds])["median"]
        for backbone, loss, seeds in by_configuration(found)
    }


def choose(found: dict[Run, dict[str, Any]], configuration: str, where: str) -> list[dict[str, Any]]:
    """The metrics of all seeds of one configuration.

    Args:
        found: metrics of every run of the grid.
        configuration: ``<backbone>-<loss>``, or ``best`` for the configuration that `best` chooses.
        where: the key of params.yaml that named it, for the message.

    Raises:
        SeverityError: no run has this backbone and loss.
    """
    if configuration == "best":
        configuration = "-".join(best(found))
    known = {f"{backbone}-{loss}": seeds for backbone, loss, seeds in by_configuration(found)}
    if configuration not in known:
        raise SeverityError(f"params.yaml: {where} is {configuration!r}. {nearest(configuration, ['best', *known])}")
    return known[configuration]


def headline(found: dict[Run, dict[str, Any]], rules: Sequence[str]) -> dict[str, Any]:
    """The few numbers of an experiment: the configuration chosen on validation images, its test medians under each rule.

    Args:
        rules: of `all_rules`, one that decides a class first.
    """
    configuration = best(found)
    seeds = [metrics for run, metrics in found.items() if (run.backbone, run.loss) == configuration]
    record: dict[str, Any] = {"configuration": "-".join(configuration), "runs": len(found)}
    if all(score is None for score in validation_scores(found).values()):
        record["chosen"] = "the first (no run has a validation macro-AUROC)"
    record["macro_auroc"] = medians(seeds, rules[0])["macro_auroc"]
    for rule in rules:
        summary = medians(seeds, rule)
        record |= {f"{rule}_{metric}": summary[metric] for metric in (*HEADLINE, *IRMA) if metric in summary}
    return record
