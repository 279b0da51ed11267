"""The label tree."""

from collections.abc import Mapping
from typing import Any

import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from severity.core.hierarchy import Hierarchy
from severity.core.table_checks import listed
from severity.drawing import pictures
from severity.drawing.pictures import GREY, Picture, styled
from severity.figures.shared.study import ScoreStudy
from severity.figures.shared.trees import drawn_rows, too_many, too_many_caption


def draw(study: ScoreStudy) -> Picture:
    """The figure of a study."""
    return draw_tree(
        study.hierarchy, study.about["labels"], limit=study.classes, facts=study.tree_facts, unit=study.unit
    )


@styled
def draw_tree(hierarchy: Hierarchy, counts: Mapping[str, Mapping], *, limit: int, facts: str, unit: str) -> Picture:
    """The label tree from left to right, each node as far to the left as it is high.

    Two classes' lines meet at their lowest common ancestor, so that the axis shows the cost `lca_height` of confusing
    them, which is the study's cost or not.

    Args:
        hierarchy: the label tree.
        counts: for each label its number of `positives` among the test images.
        limit: the largest number of classes that is drawn.
        facts: data set and hierarchy, for the title.
        unit: name of the cost in which severity is measured.
    """
    table = _tree_table(hierarchy, counts)
    classes = len(hierarchy.classes)
    headline = f"Label tree: {facts}"
    size = f"{classes} classes, {len(table)} nodes (n: positive test images)"
    if classes > limit:
        return Picture(too_many(headline, classes, limit), table, too_many_caption(headline, classes, limit))

    step, row, top, bottom = 1.45, 0.33, 0.75, 0.75  # inches
    leaves = [_leaf_text(each) for each in table[table["height"] == 0].itertuples()]
    left = 1.2
    right = 0.25 + pictures.width(max(leaves, key=len), 8)
    highest = int(table["height"].max())
    width, height = max(left + step * highest + right, 5.5), top + row * (len(leaves) + 0.4) + bottom
    figure = Figure(figsize=(width, height))
    # One unit of the x axis is an inch, so that text can be fitted between nodes.
    axes = figure.add_axes((0, bottom / height, 1, 1 - (top + bottom) / height))
    axes.set_xlim(-left, width - left)
    axes.set_ylim(len(leaves) - 0.4, -0.8)
    x = (highest - table["height"]) * step
    for node in table.itertuples():
        _draw_node(axes, node, x, table["row"], step)
    axes.set_xticks([step * level for level in range(highest + 1)], range(highest, -1, -1))
    axes.set_yticks([])
    axes.grid(axis="x", linestyle=":")
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_bounds(0, step * highest)
    note = "Height of the node (in brackets): edges to the farthest class below it. Deciding one class below it for another "
    note += "costs that" if unit == "lca_height" else f"costs what {unit} says, not this height (plots/scores/cost)"
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
            "row": drawn_rows(hierarchy),
            "label": labels,
            "positives": pandas.array(positives, dtype="Int64"),
        }
    )


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
