"""What figures are drawn from: the records and tables of one study."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy
import pandas

from severity.core.hierarchy import Hierarchy
from severity.core.runs import Run
from severity.core.table_checks import listed
from severity.drawing import pictures
from severity.figures.shared import panels
from severity.summary import configurations


@dataclass(frozen=True)
class Study:
    """Metrics of every run, and what section `plot` of params.yaml asks for.

    records: as `severity.metrics.record.read_runs` returns them. configuration: the backbone and loss to show in
    detail, as `<backbone>-<loss>`; `best` takes the one with the highest median validation AUROC. configurations_shown:
    how many the figures with a panel for each show. classes: the largest number of classes that is drawn.
    """

    records: Mapping[Run, dict]
    configuration: str
    configurations_shown: int
    classes: int

    @cached_property
    def chosen(self) -> list[dict[str, Any]]:
        """The records of the configuration shown in detail, one a seed. Raises SeverityError for an unknown one."""
        return configurations.choose(self.records, self.configuration, "plot.configuration")

    @property
    def about(self) -> Mapping[str, Any]:
        """The first of these records."""
        return self.chosen[0]

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return self.about["dataset"]

    @property
    def facts(self) -> str:
        """What titles say of the data."""
        return f"{self.dataset}, {self.about['counts']['scored']:,} test images"

    @property
    def tree_facts(self) -> str:
        """What titles say of the label tree."""
        return f"{self.dataset}, hierarchy {self.about['hierarchy']}"


@dataclass(frozen=True)
class ScoreStudy(Study):
    """What the figures of scores are drawn from.

    comparisons: of metrics/comparisons the tables intervals, label_intervals and labels; level: of their intervals.
    cost: (K, K) costs, rows decisions and columns truths. labels: how many labels, the most severe first, are shown.
    """

    comparisons: Mapping[str, pandas.DataFrame]
    level: float
    hierarchy: Hierarchy
    cost: numpy.ndarray
    labels: int

    @cached_property
    def common(self) -> dict[Run, dict]:
        """The records with the rules that all runs have, and no others."""
        rules = configurations.common_rules(list(self.records.values()))
        return {
            run: record | {"rules": {rule: record["rules"][rule] for rule in rules}}
            for run, record in self.records.items()
        }

    @cached_property
    def chosen(self) -> list[dict[str, Any]]:
        """As `Study.chosen`, with the rules that all runs have."""
        return configurations.choose(self.common, self.configuration, "plot.configuration")

    @property
    def rules(self) -> list[str]:
        """The rules that are drawn."""
        return list(self.about["rules"])

    @property
    def unit(self) -> str:
        """Name of the cost in which severity is measured."""
        return self.about["cost"]

    @property
    def colour(self) -> str:
        """Of the loss that is shown in detail."""
        return pictures.loss_looks(run.loss for run in self.records)[self.about["loss"]]["color"]

    @property
    def facts(self) -> str:
        """As `Study.facts`, with the rules left out because a run cannot have them."""
        missing = [rule for rule in configurations.known_rules(self.records.values()) if rule not in self.rules]
        without = [
            run.name for run, record in self.records.items() if any(rule not in record["rules"] for rule in missing)
        ]
        left_out = f"; without {listed(missing)}, which {listed(without)} cannot have" if missing else ""
        return super().facts + left_out


@dataclass(frozen=True)
class ImageStudy(Study):
    """What the figures that need images or networks are drawn from.

    histories: training curves of all runs, see `severity.figures.images.curves.draw_curves`; None where no run was
    trained here. images, ids: the prepared images (N, H, W) uint8 and the id of each. examples, example_rows: one image
    a label (L, H, W) uint8, and a table with the columns label and id. mistakes: how many of the least and of the most
    severe ones are shown.
    """

    histories: pandas.DataFrame | None
    images: numpy.ndarray
    ids: Sequence[str]
    examples: numpy.ndarray
    example_rows: pandas.DataFrame
    mistakes: int

    @property
    def best_run(self) -> Mapping[str, Any]:
        """Of the configuration that is shown in detail one seed, see `configurations.best_seed`."""
        return configurations.best_seed(self.chosen)

    @property
    def shown(self) -> list[list[dict]]:
        """The records of each configuration that has a panel."""
        return panels.shown_configurations(self.records, self.configurations_shown)
