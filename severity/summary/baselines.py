"""Whether anything was learnt: the rows of decisions that look at no image, and the warning where no network beats them.

One rule, for tables, headline, figure and report. A configuration under a decision rule *beats* a baseline where

- its hd@1, the mean severity over all images, is below the baseline's in each of its seeds, and
- the mean over its seeds is below it by more than `ERRORS` standard errors of a mean over the images.

The first half asks whether another training would show the same, the second whether other images would. Both are rough,
and are not corrected for how many configurations there are: what they let pass may still be luck, what they stop has not
been shown to have learnt anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy
import pandas

from severity.core.runs import Run
from severity.core.table_checks import listed
from severity.metrics import catalogue
from severity.metrics.record import Record
from severity.summary.statistics import over_seeds

METRIC = catalogue.named("hierarchical_distance_at_1")
ERRORS = 2


@dataclass(frozen=True)
class Cell:
    """A configuration under a decision rule. distance: median over its seeds of hd@1."""

    backbone: str
    loss: str
    rule: str
    distance: float

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.backbone}-{self.loss} under {self.rule}"


@dataclass(frozen=True)
class Standing:
    """How a study stands to one baseline. distance: the baseline's hd@1, median over the runs that have it."""

    baseline: str
    distance: float
    beaten_by: tuple[Cell, ...]
    others: tuple[Cell, ...]


def names(records: Mapping[Run, Record]) -> list[str]:
    """The baselines that any run has; those that take frequencies from validation images need some."""
    return list(dict.fromkeys(name for record in records.values() for name in record["baselines"]["single_decision"]))


def standings(records: Mapping[Run, Record]) -> list[Standing]:
    """How the configurations stand to each baseline; those with a seed that lacks the rule or the baseline do not count."""
    found = []
    for baseline in names(records):
        beaten_by, others = [], []
        for (backbone, loss, rule), seeds in _cells(records).items():
            if len(_distances_of(seeds, baseline)) == len(seeds):
                cell = Cell(backbone, loss, rule, float(numpy.median(_distances(seeds, rule))))
                (beaten_by if _beats(seeds, rule, baseline) else others).append(cell)
        distance = over_seeds(_distances_of(records.values(), baseline))["median"]
        found.append(Standing(baseline, distance, tuple(beaten_by), tuple(others)))
    return found


def warning(records: Mapping[Run, Record]) -> str:
    """What stands over every table where no configuration beats a baseline; '' where each is beaten."""
    unbeaten = [each for each in standings(records) if each.others and not each.beaten_by]
    if not unbeaten:
        return ""
    cells = [cell for each in unbeaten for cell in each.others]
    best = min(cells, key=lambda cell: cell.distance)
    known = ", ".join(f"{each.baseline} ({METRIC.heading} {each.distance:.3f})" for each in unbeaten)
    return (
        f"Nothing shows that anything was learnt: no configuration under any rule is shown to beat {known}, "
        f"{'a decision' if len(unbeaten) == 1 else 'decisions'} without a look at the image, by more than {ERRORS} standard "
        f"errors and in each seed. The nearest is {best.name} ({METRIC.heading} {best.distance:.3f})."
    )


def remarks(records: Mapping[Run, Record]) -> list[str]:
    """A sentence for each baseline that some configurations beat, and others not: which do not."""
    return [
        f"Not shown to beat {each.baseline} ({METRIC.heading} {each.distance:.3f}): "
        f"{listed(cell.name for cell in each.others)}."
        for each in standings(records)
        if each.beaten_by and each.others
    ]


def constant(records: Mapping[Run, Record]) -> list[str]:
    """A sentence for each run and rule that decides the same class for every image."""
    found = []
    for run, record in records.items():
        for name, rule in record["rules"].items():
            decided = {decision for decisions in rule["confusion"].values() for decision in decisions}
            if len(decided) == 1 and rule["images"] > 1:
                found.append(f"{run.name} under {name} decides {decided.pop()} for all {rule['images']:,} images.")
    return found


def rows(records: Mapping[Run, Record]) -> pandas.DataFrame:
    """A row a baseline, with the columns of `configurations.comparison`: the backbone is `catalogue.NO_IMAGE`, runs is 0.

    All runs of the same images have the same baselines, so that the median is theirs; where external predictions lack
    images, minimum and maximum are apart.
    """
    lines = []
    for baseline in names(records):
        line: dict[str, Any] = {"backbone": catalogue.NO_IMAGE, "loss": "", "rule": baseline, "runs": 0}
        for metric in catalogue.baselines():
            values = over_seeds(_of_baseline(records.values(), baseline, metric.name))
            line |= {
                f"{metric.key}{end}": values[what] for end, what in (("", "median"), ("_min", "min"), ("_max", "max"))
            }
        lines.append(line)
    return pandas.DataFrame(lines)


def _of_baseline(records: Any, baseline: str, metric: str) -> list[float | None]:
    of_runs = [record["baselines"]["single_decision"] for record in records]
    return [each[baseline][metric] for each in of_runs if baseline in each]


def _distances_of(records: Any, baseline: str) -> list[float]:
    """hd@1 of a baseline in the runs that have it; none where the truth of all its decisions is masked."""
    return [value for value in _of_baseline(records, baseline, METRIC.name) if value is not None]


def _cells(records: Mapping[Run, Record]) -> dict[tuple[str, str, str], list[Record]]:
    """Backbone, loss and rule -> the records of all seeds, where all have numbers for the rule."""
    cells: dict[tuple[str, str, str], list[Record]] = {}
    for run, record in records.items():
        for rule in [*record["rules"], *record["not_available"]]:
            cells.setdefault((run.backbone, run.loss, rule), []).append(record)
    return {cell: seeds for cell, seeds in cells.items() if all(cell[2] in record["rules"] for record in seeds)}


def _distances(seeds: list[Record], rule: str) -> numpy.ndarray:
    return numpy.array([record["rules"][rule][METRIC.name] for record in seeds])


def _beats(seeds: list[Record], rule: str, baseline: str) -> bool:
    """The rule of the module."""
    baselines = numpy.array(_distances_of(seeds, baseline))
    below = baselines - _distances(seeds, rule)
    # The mean over seeds varies no more over the images than a single seed does on average.
    error = numpy.mean([_standard_error(record["rules"][rule]["levels"]) for record in seeds])
    return bool((below > 0).all() and below.mean() > ERRORS * error)


def _standard_error(levels: Mapping[str, int]) -> float:
    """Of the mean severity over the images: from severity -> images. Infinite for a single image."""
    severities, images = numpy.array([float(level) for level in levels]), numpy.array(list(levels.values()))
    count = images.sum()
    if count < 2:
        return numpy.inf
    mean = (severities * images).sum() / count
    return float(numpy.sqrt((images * (severities - mean) ** 2).sum() / (count - 1) / count))
