"""The catalogue of metrics: every fact about a metric, once. What is written, compared, drawn and reported follows.

To add a metric of a single decision, add an entry to `METRICS` and, where it sums a quantity that no other metric does,
the function of that quantity to `severity.metrics.class_metrics.QUANTITIES`. This module imports nothing, so that every
stage may use it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

# The k of hierarchical distance @k.
DEPTHS = (1, 5, 20)


@dataclass(frozen=True)
class Metric:
    """One metric.

    name: in metrics/runs and in the column `metric` of metrics/comparisons. key: the short name, in the columns and
    keys of the flat files, since `dvc metrics show` makes a column of each. heading: for people, in tables. unit: what
    it is measured in. better: whether less or more of it is better.

    source: where a run's record has it. rule: under each decision rule; run: once, whatever the rule; irma: under each
    rule of the section irma, in runs on IRMA codes only.

    numerator, denominator: the metric is the sum over images of the numerator by the sum of the denominator, both names
    in `class_metrics.QUANTITIES`; a denominator of None is the number of images. A metric without a numerator is
    computed elsewhere and cannot be compared image by image; of these, only those of a run, whatever the rule, can be
    compared at all, between losses and backbones.

    table: whether metrics/table.csv, metrics/table.md and metrics/median have it. headline: whether
    metrics/headline.json has it. baseline: whether the decisions that are only there to compare with have it
    (baselines, null hierarchies). per_run: whether the report gives it for each run. depth: how many of the first classes
    of a ranking it is a mean of; 0 where it is no such mean.

    compared: its place in metrics/comparisons, from 1; None where it is not compared. milder: what the better side of a
    comparison is called. axis: what its vertical axis in the figure of error against severity says; '' where it has
    none, and only a metric that is compared can have one. over: what the numerator is averaged over, in words.
    """

    name: str
    key: str
    heading: str
    unit: Literal["share", "cost", "percent", "probability", "points"]
    better: Literal["less", "more"] = "less"
    source: Literal["rule", "run", "irma"] = "rule"
    numerator: str | None = None
    denominator: str | None = None
    table: bool = True
    headline: bool = False
    baseline: bool = False
    per_run: bool = False
    depth: int = 0
    compared: int | None = None
    milder: str = "milder"
    axis: str = ""
    over: str = "images"

    @property
    def parts(self) -> tuple[str | None, str | None]:
        """Numerator and denominator."""
        return self.numerator, self.denominator


METRICS: tuple[Metric, ...] = (
    Metric(
        name="top1_error",
        key="top1_error",
        heading="top-1 error",
        unit="share",
        numerator="top1_error",
        headline=True,
        baseline=True,
        per_run=True,
        compared=3,
        milder="errs less",
    ),
    Metric(
        name="mistake_severity",
        key="mistake_severity",
        heading="mistake severity",
        unit="cost",
        numerator="hierarchical_distance_at_1",
        denominator="top1_error",
        headline=True,
        baseline=True,
        per_run=True,
        compared=4,
        milder="milder per mistake",
        axis="Mistake severity",
        over="mistakes",
    ),
    *(
        Metric(
            name=f"hierarchical_distance_at_{k}",
            key=f"hd_at_{k}",
            heading=f"hd@{k}",
            unit="cost",
            numerator=f"hierarchical_distance_at_{k}",
            headline=k == 1,
            baseline=True,
            per_run=k in (1, 5),
            depth=k,
            compared={1: 1, 5: 2}.get(k),
            axis="Hierarchical distance @1" if k == 1 else "",
        )
        for k in DEPTHS
    ),
    # 100 x hd@1 / largest cost: it orders rows as hd@1 does, so only the single runs have it.
    Metric(
        name="severity_percent",
        key="severity_percent",
        heading="severity %",
        unit="percent",
        table=False,
        per_run=True,
    ),
    Metric(
        name="macro_auroc",
        key="macro_auroc",
        heading="macro-AUROC",
        unit="probability",
        better="more",
        source="run",
        headline=True,
        compared=5,
        milder="higher",
    ),
    Metric(name="sum", key="irma_sum", heading="IRMA score", unit="points", source="irma", headline=True),
    Metric(name="mean", key="irma_mean", heading="IRMA error", unit="points", source="irma", headline=True),
)
# The backbone of a row of a table that is no network: a decision that looks at no image. No backbone can have this name.
NO_IMAGE = "no image"
# The horizontal axis of the figure of error against severity.
ERROR = "top1_error"
# The rule in comparisons of a metric that no decision rule changes.
EVERY_RULE = "every rule"


def named(name: str) -> Metric:
    """The metric of a run or of a decision rule with this name. Raises KeyError for an unknown one."""
    return {metric.name: metric for metric in METRICS if metric.source != "irma"}[name]


def telling(metrics: Iterable[Metric], classes: int) -> list[Metric]:
    """Those of some metrics that can differ between rankings of so many classes.

    The mean over the first k of K classes is the same for every ranking where k >= K. With a single class all are.
    """
    return [metric for metric in metrics if metric.depth < max(classes, 2)]


def constant(classes: int) -> list[Metric]:
    """The metrics of the table that are the same for every ranking of so many classes, and are left out of it."""
    every = table()
    return [metric for metric in every if metric not in telling(every, classes)]


def ratios() -> list[Metric]:
    """The metrics that are one sum over images divided by another."""
    return [metric for metric in METRICS if metric.numerator]


def table() -> list[Metric]:
    """The metrics of the table of the study, in its order."""
    return [metric for metric in METRICS if metric.table]


def headline() -> list[Metric]:
    """The metrics of the headline."""
    return [metric for metric in METRICS if metric.headline]


def baselines() -> list[Metric]:
    """The metrics of decisions that are only there to compare with."""
    return [metric for metric in METRICS if metric.baseline]


def per_run() -> list[Metric]:
    """The metrics that the report gives for each run, under each rule."""
    return [metric for metric in METRICS if metric.per_run]


def compared() -> list[Metric]:
    """The metrics of metrics/comparisons, in their order there."""
    return sorted((metric for metric in METRICS if metric.compared is not None), key=lambda metric: metric.compared)


def compared_by_image() -> list[Metric]:
    """Those of them that are one sum over images divided by another, under each decision rule."""
    return [metric for metric in compared() if metric.numerator]


def compared_by_run() -> list[Metric]:
    """Those of them that a run has once, whatever the decision rule."""
    return [metric for metric in compared() if metric.source == "run"]


def drawn() -> list[Metric]:
    """The metrics on the vertical axes of the figure of error against severity."""
    return [metric for metric in compared() if metric.axis]
