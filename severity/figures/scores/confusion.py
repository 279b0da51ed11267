"""Which mistakes one configuration makes."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from severity.core.hierarchy import Hierarchy
from severity.core.table_checks import listed
from severity.drawing import pictures
from severity.drawing.pictures import Picture, styled
from severity.figures.shared.study import ScoreStudy
from severity.figures.shared.trees import tree_order
from severity.summary import configurations

NUMBERED = 20  # up to this many classes, the matrix of mistakes has numbers
PANELS = 4  # rules whose mistakes are shown
LEVELS = 6  # up to this many costs, each has its contour
BANDS = 4  # else the contours of this many bands of equal width
SEVERAL = ". An image counts for each of its truths with its share: off the diagonal it may be decided rightly"
SIDE = 7.0  # inches of a matrix, at most


def draw(study: ScoreStudy) -> Picture:
    """The figure of a study."""
    return draw_confusion(study.chosen, study.hierarchy, study.cost, limit=study.classes, facts=study.facts)


@styled
def draw_confusion(
    records: Sequence[Mapping], hierarchy: Hierarchy, cost: numpy.ndarray, *, limit: int, facts: str
) -> Picture:
    """Shares of the decisions for each truth, a panel a rule: classes in tree order, contours where costs change.

    An image with n true classes counts 1/n in the column of each, whatever was decided, so that columns weigh the same in
    every panel.

    Args:
        records: metrics of the runs (seeds) of one backbone and loss.
        hierarchy: the label tree.
        cost: (K, K) costs, rows decisions and columns truths.
        limit: the largest number of classes that is named on the axes; above, only the groups of the tree are.
        facts: data set and number of images, for the title.
    """
    order = tree_order(hierarchy)
    classes = [hierarchy.classes[k] for k in order]
    ordered = cost[numpy.ix_(order, order)]
    rules = list(records[0]["rules"])
    counts = {rule: _counts(records, rule, classes) for rule in rules[:PANELS]}
    table = pandas.concat([_confusion_table(rule, each, ordered, classes) for rule, each in counts.items()])
    truths = {rule: each.sum(axis=0) for rule, each in counts.items()}

    side = min(max(0.31 * len(classes), 2.8), SIDE)
    named = len(classes) <= limit
    groups = _groups(hierarchy, order)
    size = min(8.0, 0.75 * 72 * side / len(classes)) if named else 7.0
    names = classes if named else [name for name, _, _ in groups]
    margin = pictures.width(max(names, key=len), size) + 0.5
    columns = min(len(counts), 2)
    lines = -(-len(counts) // columns)
    width = margin + (side + 0.25) * columns + 1.4
    figure = Figure(figsize=(max(width, 7.5), (side + 0.4 + margin) * lines + 1.3), layout="compressed")
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    norm = PowerNorm(0.5, vmin=0, vmax=1)
    colours = matplotlib.colormaps["YlGnBu"]
    levels, level_words = _levels(ordered)
    # The diagonal's own contour would cover it where cells are small.
    levels, line, box = (levels, 0.9, 2.4) if named else (numpy.maximum(levels, 1), 0.4, 1.2)
    for axes, (rule, each) in zip(panels, counts.items(), strict=False):
        _draw_confusion_of_rule(axes, each, truths[rule], norm, colours)
        _draw_costs(axes, levels, groups, line=line, box=box)
        axes.set_title(rule, weight="bold")
        places = range(len(classes)) if named else [(first + last) / 2 for _, first, last in groups]
        sums = _sums(truths[rule], groups, named)
        ticks = [f"{name} ({_digits(images)})" for name, images in zip(names, sums, strict=True)]
        legible = _legible(places, 1.25 * size / 72 * len(classes) / side)
        axes.set_xticks([places[k] for k in legible], [ticks[k] for k in legible], rotation=90, fontsize=size)
        axes.set_yticks([places[k] for k in legible], [names[k] for k in legible], fontsize=size)
        axes.set_xlabel("Truth (n)" if named else "Truth, by groups of the tree (n)")
    for axes in panels[::columns]:
        axes.set_ylabel("Decision" if named else "Decision, by groups of the tree")
    for axes in panels[len(counts) :]:
        axes.set_axis_off()
    bar = figure.colorbar(ScalarMappable(norm, colours), ax=list(panels), shrink=0.7, pad=0.02)
    bar.set_label("Share of the truth's images (root scale)")
    handles = [
        Line2D([], [], color="black", linewidth=line, label=f"the cost changes ({level_words})"),
        Line2D([], [], color="black", linewidth=box, label="group below the root"),
    ]
    if not all(each.all() for each in truths.values()):
        empty = {"facecolor": "white", "edgecolor": "#BBBBBB", "hatch": "////", "linewidth": 0}
        handles.append(Patch(**empty, label="n/a: of no image the most specific truth"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    several = any(values["by_truths"].keys() - {"1"} for values in records[0]["rules"].values())
    pictures.title(
        figure,
        f"Decision against truth: {configurations.name(records[0])}",
        f"{facts}, {_of_seeds(len(records))}{SEVERAL if several else ''}",
    )
    caption = _confusion_caption(
        records,
        [name for k, name in enumerate(classes) if not any(each[k] for each in truths.values())],
        facts=facts,
        level_words=level_words,
        several=several,
        unnamed=len(names) - len(legible),
        rest=len(rules) - len(counts),
        named=named,
        limit=limit,
    )
    return Picture(figure, table.reset_index(drop=True), caption)


def _counts(records: Sequence[Mapping], rule: str, classes: Sequence[str]) -> numpy.ndarray:
    """(K, K) images, the mean over the runs: rows decisions, columns truths."""
    place = {name: k for k, name in enumerate(classes)}
    counts = numpy.zeros((len(classes), len(classes)))
    for record in records:
        for truth, decided in record["rules"][rule]["confusion"].items():
            for decision, images in decided.items():
                counts[place[decision], place[truth]] += images / len(records)
    return counts


def _legible(places: Sequence[float], apart: float) -> list[int]:
    """Which of the labels at ascending places are written, so that none is over another: `apart` is a label's height."""
    kept: list[int] = []
    for number, place in enumerate(places):
        if not kept or place - places[kept[-1]] >= apart:
            kept.append(number)
    return kept


def _of_seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"mean of {count} seeds"


def _digits(images: float) -> str:
    """A number of images, with a digit where shares do not add up to a whole one."""
    return f"{images:,.1f}".removesuffix(".0")


def _confusion_table(rule: str, counts: numpy.ndarray, cost: numpy.ndarray, classes: Sequence[str]) -> pandas.DataFrame:
    """A row a truth and decision that occur together."""
    truth, decision = numpy.nonzero(counts.T)
    names = numpy.array(classes, dtype=object)
    images = counts[decision, truth]
    return pandas.DataFrame(
        {
            "rule": rule,
            "truth": names[truth],
            "decision": names[decision],
            "images": images,
            "share": images / counts.sum(axis=0)[truth],
            "cost": cost[decision, truth],
        }
    )


def _levels(cost: numpy.ndarray) -> tuple[numpy.ndarray, str]:
    """(K, K) whole numbers whose changes are the contours, and in words what they are."""
    costs = numpy.unique(cost)
    if len(costs) <= LEVELS:
        return numpy.searchsorted(costs, cost), f"levels {', '.join(f'{level:.3g}' for level in costs)}"
    width = cost.max() / BANDS
    edges = ", ".join(f"{width * step:.3g}" for step in range(1, BANDS))
    # The diagonal, which costs nothing, is a level of its own.
    bands = numpy.minimum((cost / width).astype(int), BANDS - 1) + 1
    return numpy.where(cost == 0, 0, bands), f"above 0, from {edges} on"


def _groups(hierarchy: Hierarchy, order: Sequence[int]) -> list[tuple[str, int, int]]:
    """Name, first and last row of the classes below each child of the root."""
    place = numpy.argsort(order)
    groups = []
    for node in hierarchy.children[hierarchy.root]:
        rows = place[hierarchy.classes_below[node]]
        groups.append((hierarchy.names[node], int(rows.min()), int(rows.max())))
    return sorted(groups, key=lambda group: group[1])


def _draw_confusion_of_rule(
    axes: Axes, counts: numpy.ndarray, truths: numpy.ndarray, norm: PowerNorm, colours: Any
) -> None:
    share = numpy.divide(counts, truths, out=numpy.zeros(counts.shape), where=truths > 0)
    for column in numpy.flatnonzero(truths == 0):
        axes.axvspan(column - 0.5, column + 0.5, facecolor="white", edgecolor="#BBBBBB", hatch="////", linewidth=0)
    axes.imshow(numpy.ma.masked_equal(share, 0), cmap=colours, norm=norm, interpolation="none")
    axes.grid(False)
    if len(counts) <= NUMBERED:
        for (decision, truth), value in numpy.ndenumerate(share):
            if value:
                colour = "white" if norm(value) > 0.6 else "black"
                text = f"{100 * value:.0f}" if value >= 0.005 else "<1"
                axes.text(truth, decision, text, ha="center", va="center", color=colour, fontsize=6.5)


def _draw_costs(axes: Axes, levels: numpy.ndarray, groups: Sequence[tuple], *, line: float, box: float) -> None:
    """Contours where the level of the cost changes, and a box around each group of the tree; widths in points."""
    axes.add_collection(LineCollection(_contours(levels), colors="black", linewidths=line))
    for _, first, last in groups:
        if last > first:
            corner, side = (first - 0.5, first - 0.5), last - first + 1
            axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor="black", linewidth=box))


def _contours(levels: numpy.ndarray) -> list[list[tuple[float, float]]]:
    """Edges between neighbouring cells of different levels, joined where they continue."""
    lines = []
    # A row below another: horizontal edges; of the transposed matrix, with x and y exchanged: vertical ones.
    for turned, matrix in ((False, levels), (True, levels.T)):
        for row, changes in enumerate(matrix[1:] != matrix[:-1]):
            steps = numpy.diff(numpy.concatenate([[0], changes.astype(int), [0]]))
            for start, end in zip(numpy.flatnonzero(steps == 1), numpy.flatnonzero(steps == -1), strict=True):
                edge = [(start - 0.5, row + 0.5), (end - 0.5, row + 0.5)]
                lines.append([(y, x) for x, y in edge] if turned else edge)
    return lines


def _sums(truths: numpy.ndarray, groups: Sequence[tuple], named: bool) -> list[float]:
    """Number of images of each class, or of each group."""
    return truths.tolist() if named else [truths[first : last + 1].sum() for _, first, last in groups]


def _confusion_caption(
    records: Sequence[Mapping],
    empty: Sequence[str],
    *,
    facts: str,
    level_words: str,
    several: bool,
    unnamed: int,
    rest: int,
    named: bool,
    limit: int,
) -> str:
    classes = len(records[0]["classes"])
    return pictures.sentences(
        f"Share (%) of the images of each truth (column) that were decided as each class (row), of {facts}: "
        f"{configurations.name(records[0])}, {_of_seeds(len(records))} (metrics/runs).",
        "An image with several most specific true classes counts for each of them, with one over their number: off the "
        "diagonal it may be decided rightly, as another of its classes, so that no column is a sensitivity."
        if several
        else "",
        f"Thin lines: the cost changes ({level_words}); thick boxes: groups below the root of the tree; no interval is "
        "drawn.",
        f"Of no image the most specific truth: {listed(empty)}." if empty else "",
        "" if named else f"{classes} classes, more than plot.classes = {limit}, are named in the table only.",
        f"Groups too close together to be named: {unnamed}." if unnamed else "",
        f"Rules left out: {rest}." if rest > 0 else "",
    )
