"""Figures along the label tree: the tree itself, what mistakes cost, and which mistakes are made."""

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
from severity.core.tables import listed
from severity.drawing import pictures
from severity.drawing.pictures import GREY, Picture, styled
from severity.summary import configurations

NUMBERED = 20  # up to this many classes, the matrix of mistakes has numbers
PANELS = 4  # rules whose mistakes are shown
LEVELS = 6  # up to this many costs, each has its contour
BANDS = 4  # else the contours of so many bands of equal width
SIDE = 7.0  # inches of a matrix, at most


# --- 1. The tree


@styled
def draw_tree(hierarchy: Hierarchy, counts: Mapping[str, Mapping], *, limit: int, facts: str) -> Picture:
    """The label tree from left to right, each node as far to the left as it is high.

    Two classes' lines meet at their lowest common ancestor, so that the axis shows the cost `lca_height` of confusing
    them.

    Args:
        hierarchy: the label tree.
        counts: for each label its number of `positives` among the test images.
        limit: the largest number of classes that is drawn.
        facts: data set and hierarchy, for the title.
    """
    table = _tree_table(hierarchy, counts)
    classes = len(hierarchy.classes)
    headline = f"Label tree: {facts}"
    size = f"{classes} classes, {len(table)} nodes (n: positive test images)"
    if classes > limit:
        return Picture(_too_many(headline, classes, limit), table, _too_many_told(headline, classes, limit))

    unit, row, top, bottom = 1.45, 0.33, 0.75, 0.75  # inches
    leaves = [_leaf_text(each) for each in table[table["height"] == 0].itertuples()]
    left = 1.2
    right = 0.25 + pictures.width(max(leaves, key=len), 8)
    highest = int(table["height"].max())
    width, height = max(left + unit * highest + right, 5.5), top + row * (len(leaves) + 0.4) + bottom
    figure = Figure(figsize=(width, height))
    # One unit of the x axis is an inch, so that text can be fitted between nodes.
    axes = figure.add_axes((0, bottom / height, 1, 1 - (top + bottom) / height))
    axes.set_xlim(-left, width - left)
    axes.set_ylim(len(leaves) - 0.4, -0.8)
    x = (highest - table["height"]) * unit
    for node in table.itertuples():
        _draw_node(axes, node, x, table["row"], unit)
    axes.set_xticks([unit * level for level in range(highest + 1)], range(highest, -1, -1))
    axes.set_yticks([])
    axes.grid(axis="x", linestyle=":")
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_bounds(0, unit * highest)
    note = "Height of the node (in brackets): the cost lca_height of deciding one class below it for another"
    figure.text(0.5, 0.12 / height, pictures.wrap(note, width - 0.4, 9), ha="center", va="bottom", fontsize=9)
    figure.suptitle(
        f"{pictures.wrap(headline, width - 0.4, 11)}\n{pictures.wrap(size, width - 0.4, 11)}", y=1 - 0.12 / height
    )
    empty = table.loc[table["positives"] == 0, "label"].tolist()
    caption = pictures.sentences(
        f"{headline}, {size} (data/hierarchy/hierarchy.json, metrics/runs).",
        f"{note}.",
        f"Without a positive test image: {listed(empty)}." if empty else "",
    )
    return Picture(figure, table, caption)


def _tree_table(hierarchy: Hierarchy, counts: Mapping[str, Mapping]) -> pandas.DataFrame:
    """One row a node: name, parent, height, the row in which it is drawn, label and number of positives."""
    label_of = dict(zip(hierarchy.class_nodes.tolist(), hierarchy.classes, strict=True))
    labels = [label_of.get(node, "") for node in range(len(hierarchy.names))]
    positives = [counts[label]["positives"] if label in counts else None for label in labels]
    return pandas.DataFrame(
        {
            "node": hierarchy.names,
            "parent": ["" if parent < 0 else hierarchy.names[parent] for parent in hierarchy.parents],
            "parent_index": hierarchy.parents,
            "height": hierarchy.height,
            "row": _rows(hierarchy),
            "label": labels,
            "positives": pandas.array(positives, dtype="Int64"),
        }
    )


def _rows(hierarchy: Hierarchy) -> numpy.ndarray:
    """(n,) where each node is drawn: leaves one below another, an inner node midway between its outer children.

    Siblings stand in the order of their first classes, so that the leaves follow the class order as far as no lines
    would cross.
    """
    rows = numpy.zeros(len(hierarchy.names))
    order, waiting = [], [hierarchy.root]
    while waiting:
        order.append(waiting.pop())
        children = hierarchy.children[order[-1]]
        waiting += sorted(children, key=lambda node: hierarchy.classes_below[node][0], reverse=True)
    for row, leaf in enumerate(node for node in order if not hierarchy.children[node]):
        rows[leaf] = row
    for node in reversed(order):
        if hierarchy.children[node]:
            below = rows[list(hierarchy.children[node])]
            rows[node] = (below.min() + below.max()) / 2
    return rows


def _draw_node(axes: Axes, node: Any, x: pandas.Series, y: pandas.Series, unit: float) -> None:
    here = x[node.Index], node.row
    if node.parent_index >= 0:
        start = x[node.parent_index], y[node.parent_index]
        axes.plot([start[0], start[0], here[0]], [start[1], here[1], here[1]], color=GREY, linewidth=1.1, zorder=3)
    axes.plot(*here, "o" if node.height else "s", color="black", markersize=4, zorder=4)
    text = f"{node.node}\u00a0({node.height})"
    if not node.height:
        axes.text(here[0] + 0.1, here[1], _leaf_text(node), va="center", fontsize=8)
    elif node.parent_index < 0:
        axes.text(
            here[0] - 0.1,
            here[1],
            pictures.wrap(text, 0.95, 7.5),
            va="center",
            ha="right",
            fontsize=7.5,
        )
    else:
        axes.text(
            here[0] - 0.07,
            here[1] - 0.07,
            pictures.wrap(text, unit - 0.1, 7.5),
            va="bottom",
            ha="right",
            fontsize=7.5,
        )


def _leaf_text(node: Any) -> str:
    known = "" if pandas.isna(node.positives) else f" (n = {node.positives:,})"
    return f"{node.label or node.node}{known}"


# --- 2. The cost matrix


@styled
def draw_cost(cost: numpy.ndarray, classes: Sequence[str], *, limit: int, facts: str) -> Picture:
    """The cost matrix as a heat map with its numbers: rows are decisions, columns the truth.

    Args:
        cost: (K, K) floats.
        classes: (K) their names.
        limit: the largest number of classes that is drawn.
        facts: data set, hierarchy and cost, for the title.
    """
    table = pandas.DataFrame(cost, columns=list(classes))
    table.insert(0, "decision", list(classes))
    headline = f"Cost matrix: {facts}"
    if len(classes) > limit:
        return Picture(_too_many(headline, len(classes), limit), table, _too_many_told(headline, len(classes), limit))

    side = max(0.31 * len(cost), 2.5)
    margin = pictures.width(max(classes, key=len), 8)
    figure = Figure(figsize=(max(side + margin + 1.6, 5.5), side + margin + 1.2), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(cost, cmap="YlGnBu", vmin=0)
    axes.set_xticks(range(len(classes)), classes, rotation=90)
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("Truth")
    axes.set_ylabel("Decision")
    axes.grid(False)
    for (decision, truth), value in numpy.ndenumerate(cost):
        colour = "white" if value > 0.55 * cost.max() else "black"
        axes.text(truth, decision, f"{value:.2g}", ha="center", va="center", color=colour, fontsize=7)
    figure.colorbar(image, ax=axes, label="Cost of the decision", shrink=0.8)
    pictures.title(figure, headline, f"{len(classes)} classes")
    caption = f"{headline}: what deciding the class of a row costs where that of a column is true (data/cost/cost.csv)."
    return Picture(figure, table, caption)


# --- 3. Which mistakes


@styled
def draw_confusion(
    records: Sequence[Mapping], hierarchy: Hierarchy, cost: numpy.ndarray, *, limit: int, facts: str
) -> Picture:
    """Shares of the decisions for each truth, classes in the order of the tree, a panel a rule, contours where costs change.

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
    truths = {rule: each.sum(axis=0) for rule, each in counts.items()}  # Alike where one class is true of each image.

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
    levels, told = _levels(ordered)
    # The diagonal's own contour would cover it where cells are small.
    levels, line, box = (levels, 0.9, 2.4) if named else (numpy.maximum(levels, 1), 0.4, 1.2)
    for axes, (rule, each) in zip(panels, counts.items(), strict=False):
        _draw_confusion_of_rule(axes, each, norm, colours)
        _draw_costs(axes, levels, groups, line=line, box=box)
        axes.set_title(rule, weight="bold")
        places = range(len(classes)) if named else [(first + last) / 2 for _, first, last in groups]
        ticks = [f"{name} ({images:,})" for name, images in zip(names, _sums(truths[rule], groups, named), strict=True)]
        axes.set_xticks(places, ticks, rotation=90, fontsize=size)
        axes.set_yticks(places, names, fontsize=size)
        axes.set_xlabel("Truth (n)" if named else "Truth, by groups of the tree (n)")
    for axes in panels[::columns]:
        axes.set_ylabel("Decision" if named else "Decision, by groups of the tree")
    for axes in panels[len(counts) :]:
        axes.set_axis_off()
    bar = figure.colorbar(ScalarMappable(norm, colours), ax=list(panels), shrink=0.7, pad=0.02)
    bar.set_label("Share of the truth's images (root scale)")
    handles = [
        Line2D([], [], color="black", linewidth=line, label=f"the cost changes ({told})"),
        Line2D([], [], color="black", linewidth=box, label="group below the root"),
    ]
    if not all(each.all() for each in truths.values()):
        handles.append(Patch(facecolor="white", edgecolor="#BBBBBB", hatch="////", linewidth=0, label="n/a: no image"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    pictures.title(
        figure,
        f"Decision against truth: {configurations.name(records[0])}",
        f"{facts}, {pictures.summed(len(records))}",
    )
    caption = _confusion_caption(
        records, classes, truths, facts=facts, told=told, rest=len(rules) - len(counts), named=named, limit=limit
    )
    return Picture(figure, table.reset_index(drop=True), caption)


def tree_order(hierarchy: Hierarchy) -> list[int]:
    """The classes as the drawn tree has them from top to bottom, so that those of a group stand together."""
    rows = _rows(hierarchy)[hierarchy.class_nodes]
    return numpy.argsort(rows, kind="stable").tolist()


def _counts(records: Sequence[Mapping], rule: str, classes: Sequence[str]) -> numpy.ndarray:
    """(K, K) images of all runs together: rows decisions, columns truths."""
    place = {name: k for k, name in enumerate(classes)}
    found = numpy.zeros((len(classes), len(classes)), dtype=numpy.int64)
    for record in records:
        for truth, decided in record["rules"][rule]["confusion"].items():
            for decision, images in decided.items():
                found[place[decision], place[truth]] += images
    return found


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
    found = numpy.unique(cost)
    if len(found) <= LEVELS:
        return numpy.searchsorted(found, cost), f"levels {', '.join(f'{level:.3g}' for level in found)}"
    width = cost.max() / BANDS
    edges = ", ".join(f"{width * step:.3g}" for step in range(1, BANDS))
    # The diagonal, which costs nothing, is a level of its own.
    bands = numpy.minimum((cost / width).astype(int), BANDS - 1) + 1
    return numpy.where(cost == 0, 0, bands), f"above 0, from {edges} on"


def _groups(hierarchy: Hierarchy, order: Sequence[int]) -> list[tuple[str, int, int]]:
    """Name, first and last row of the classes below each child of the root."""
    place = numpy.argsort(order)
    found = []
    for node in hierarchy.children[hierarchy.root]:
        rows = place[hierarchy.classes_below[node]]
        found.append((hierarchy.names[node], int(rows.min()), int(rows.max())))
    return sorted(found, key=lambda group: group[1])


def _draw_confusion_of_rule(axes: Axes, counts: numpy.ndarray, norm: PowerNorm, colours: Any) -> None:
    truths = counts.sum(axis=0)
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


def _sums(truths: numpy.ndarray, groups: Sequence[tuple], named: bool) -> list[int]:
    """Number of images of each class, or of each group."""
    return truths.tolist() if named else [int(truths[first : last + 1].sum()) for _, first, last in groups]


def _confusion_caption(
    records: Sequence[Mapping],
    classes: Sequence[str],
    truths: Mapping[str, numpy.ndarray],
    *,
    facts: str,
    told: str,
    rest: int,
    named: bool,
    limit: int,
) -> str:
    empty = [name for k, name in enumerate(classes) if not any(each[k] for each in truths.values())]
    return pictures.sentences(
        f"Share (%) of the images of each truth (column) that were decided as each class (row), of {facts}: "
        f"{configurations.name(records[0])}, {pictures.summed(len(records))} (metrics/runs). Of several true classes an image counts for "
        "the decided one, else the nearest.",
        f"Thin lines: the cost changes ({told}); thick boxes: groups below the root of the tree; no interval is drawn.",
        f"Without an image: {listed(empty)}." if empty else "",
        "" if named else f"{len(classes)} classes, more than plot.classes = {limit}, are named in the table only.",
        f"Rules left out: {rest}." if rest > 0 else "",
    )


def _too_many(headline: str, count: int, limit: int) -> Figure:
    note = f"too many classes to draw: {count:,}, more than plot.classes = {limit:,}"
    return pictures.said(headline, note, "The table beside this file holds all.")


def _too_many_told(headline: str, count: int, limit: int) -> str:
    return (
        f"{headline}. Not drawn: {count:,} classes are more than plot.classes = {limit:,}; the table beside holds all."
    )
