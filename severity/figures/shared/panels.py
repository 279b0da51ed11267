"""What figures with a panel for each configuration share: which are shown, the layout, the marks of seeds."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
from matplotlib.figure import Figure

from severity.core.runs import Run
from severity.core.table_checks import listed
from severity.summary import configurations

COLUMNS = 4  # panels a row
SEED = {"marker": ".", "markersize": 4.5, "linestyle": "none", "color": "black", "markeredgecolor": "white"}
SEED |= {"markeredgewidth": 0.4}


def shown_configurations(records: Mapping[Run, dict], limit: int) -> list[list[dict]]:
    """The configurations that figures with a panel a configuration show, in the order of the grid.

    Where there are more than `limit`, those of the highest median validation macro-AUROC; configurations without one
    come last.
    """
    every = [seeds for _, _, seeds in configurations.by_configuration(records)]
    scores = [_validation(seeds) for seeds in every]
    order = sorted(
        range(len(every)), key=lambda place: -math.inf if math.isnan(scores[place]) else scores[place], reverse=True
    )
    return [every[place] for place in sorted(order[:limit])]


def _validation(seeds: Sequence[Mapping]) -> float:
    values = [(record.get("validation") or {}).get("macro_auroc") for record in seeds]
    return math.nan if None in values else float(numpy.median(values))


def left_out(shown: int, total: int) -> str:
    """How many configurations a figure does not show, as a sentence; '' for none."""
    if shown == total:
        return ""
    return f"Left out: {total - shown} of {total} backbones and losses, those of the lowest validation AUROC."


def grid(count: int, height: float, **shared: Any) -> tuple[Figure, numpy.ndarray]:
    """A figure and its panels, as many as `count`, row by row."""
    columns = next((each for each in (COLUMNS, COLUMNS - 1) if count % each == 0), min(count, COLUMNS))
    lines = math.ceil(count / columns)
    width = {1: 6.5, 2: 4.4, 3: 3.5}.get(columns, 3.0)
    figure = Figure(figsize=(0.8 + width * columns, 1.5 + height * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, **shared).ravel()
    for axes in panels[count:]:
        axes.set_axis_off()
    for number, axes in enumerate(panels[:count]):
        axes.tick_params(labelbottom=number + columns >= count, labelleft=number % columns == 0)
    return figure, panels[:count]


def of_one_seed(shown: Sequence[Sequence[Mapping]]) -> str:
    single = [configurations.name(seeds[0]) for seeds in shown if len(seeds) == 1]
    return f"One seed only, no spread over seeds: {listed(single)}." if single else ""


def whole(value: float, _: int) -> str:
    """The label of a tick on a logarithmic axis."""
    return f"{value:,.0f}" if value >= 1 else ""
