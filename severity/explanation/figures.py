"""Pictures of single cases: what was decided and what is true, the heatmap of each, and what the layers see."""

import math
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke

from severity.core.hierarchy import Hierarchy
from severity.drawing.pictures import (
    BLUE,
    GREY,
    NOT_AVAILABLE,
    SKY,
    VERMILLION,
    Picture,
    bare,
    number,
    styled,
    title,
    width,
    wrap,
)
from severity.explanation.explained_images import Case
from severity.explanation.explanation import Explanation, Maps

COLUMNS = 4  # panels a row
PANEL, CAPTION, BOXED, ROW = 2.6, 0.6, 0.25, 0.27  # inches: a panel, what is written about it and about a box, a node
KINDS = {"least": "Least severe mistake", "most": "Most severe mistake", "chosen": "Chosen image"}
# What colours say, hatches say on a grey print.
PATHS = {
    "both paths": {"facecolor": GREY},
    "path to the decision": {"facecolor": BLUE, "hatch": "//"},
    "path to a truth": {"facecolor": VERMILLION, "hatch": ".."},
}
# A heatmap is transparent where it is low, so that the image shows; lines say what colours say.
OPAQUE = 0.65
LEVELS = {0.25: ":", 0.5: "--", 0.75: "-"}


@styled
def draw_case(
    case: Case,
    *,
    image: numpy.ndarray,
    boxes: pandas.DataFrame,
    steps: pandas.DataFrame,
    explained: Explanation,
    hierarchy: Hierarchy,
    facts: str,
    unit: str,
) -> Picture:
    """One case: the image, the probabilities on the paths to its classes, and the heatmap of each class.

    Args:
        image: (S, S) uint8.
        boxes: label, left, top, right, bottom as shares of the square image; may have no row.
        steps: as `severity.explanation.explained_images.steps` gives them; the table of the picture.
        explained: what `severity.explanation.explanation.explain` says of the case.
        hierarchy: the label tree.
        facts: run and decision rule, for the title.
        unit: name of the cost in which severity is measured.
    """
    nodes, cams = _union(steps, hierarchy), explained.cams
    lines = math.ceil((1 + len(cams)) / COLUMNS)
    boxed = int(explained.inside.groupby("label").size().max()) if len(explained.inside) else 0
    heights = 0.9 + ROW * len(nodes), 0.55 + (PANEL + CAPTION + BOXED * boxed) * lines
    figure = Figure(figsize=(0.4 + PANEL * COLUMNS, 0.7 + sum(heights)), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.06)
    above, below = figure.subfigures(2, 1, height_ratios=heights)
    _draw_nodes(above.subplots(), nodes)
    first, *panels = below.subplots(lines, COLUMNS).ravel()
    _draw_image(first, image, boxes)
    first.set_title("the image as the network gets it")
    for axes, cam, heatmap in zip(panels, cams.to_dict("records"), explained.heatmaps, strict=False):
        _draw_image(axes, image, boxes)
        _draw_heatmap(axes, heatmap)
        axes.set_title(wrap(f"{cam['role']}: {cam['label']}", PANEL, 9))
        inside = explained.inside[explained.inside["label"] == cam["label"]]
        axes.set_xlabel(_caption(cam, inside), fontsize=7, loc="left")
    for axes in panels[len(cams) :]:
        axes.set_axis_off()
    _draw_scale(below, cams.iloc[0])
    truth = ", ".join(hierarchy.classes[label] for label in case.truth) or "n/a"
    outcome = f"decision: {hierarchy.classes[case.decision]}; severity {number(case.severity)} ({unit}); truth: {truth}"
    title(figure, _headline(case), f"{facts}; {outcome}")
    caption = (
        f"{_headline(case)} ({facts}): {outcome}. Probabilities on the paths to the classes, and their Grad-CAM "
        "heatmaps."
    )
    return Picture(figure, steps, caption)


def _headline(case: Case) -> str:
    kind, _, place = case.name.partition("_")
    return f"{KINDS[kind]} {place}: {case.id}"


def _union(steps: pandas.DataFrame, hierarchy: Hierarchy) -> pandas.DataFrame:
    """One row a node of any path, below its parent: node, depth, probability, given_parent, path (a key of PATHS)."""
    decided = set(steps.loc[steps["role"] != "truth", "node"])
    true = set(steps.loc[steps["role"] != "decision", "node"])
    both, decision, truth = PATHS
    nodes = steps.drop_duplicates("node").set_index("node")
    nodes = nodes.loc[[hierarchy.names[node] for node in hierarchy.top_down if hierarchy.names[node] in nodes.index]]
    path = [both if node in decided & true else decision if node in decided else truth for node in nodes.index]
    return nodes.assign(path=path).reset_index()


def _draw_image(axes: Axes, image: numpy.ndarray, boxes: pandas.DataFrame) -> None:
    bare(axes)
    axes.imshow(image, cmap="gray", vmin=0, vmax=255)
    outline = [withStroke(linewidth=3, foreground="black")]
    for box in boxes.itertuples():
        # The centre of the first pixel is at 0, so its edge at -0.5.
        left, top = box.left * len(image) - 0.5, box.top * len(image) - 0.5
        size = (box.right - box.left) * len(image), (box.bottom - box.top) * len(image)
        axes.add_patch(Rectangle((left, top), *size, fill=False, edgecolor=SKY, linewidth=1.5, path_effects=outline))
        axes.text(left, top, box.label, va="bottom", fontsize=7, color=SKY, path_effects=outline, clip_on=True)


def _draw_nodes(axes: Axes, nodes: pandas.DataFrame) -> None:
    rows = numpy.arange(len(nodes))
    for path, look in PATHS.items():
        of_path = (nodes["path"] == path).to_numpy()
        bars = {"height": 0.7, "edgecolor": "white", "linewidth": 0, **look}
        axes.barh(rows[of_path], nodes.loc[of_path, "probability"], **bars)
    for row, node in zip(rows, nodes.itertuples(), strict=True):
        share = f"  ({node.given_parent:.2g} of the node above)" if node.depth else ""
        axes.text(node.probability + 0.01, row, f"{node.probability:.3f}{share}", va="center", fontsize=7.5)
    names = ["\u2002\u2002" * node.depth + node.node for node in nodes.itertuples()]
    axes.set_yticks(rows, names, ha="left")
    axes.tick_params(axis="y", length=0, pad=72 * width(max(names, key=len), 8))
    axes.set_ylim(len(nodes) - 0.4, -0.6)
    axes.set_xlim(0, 1.4)  # Room for the text next to a full bar.
    axes.set_xticks(numpy.linspace(0, 1, 6))
    axes.set_axisbelow(True)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("Probability of the node")
    handles = [Patch(label=path, edgecolor="white", linewidth=0, **look) for path, look in PATHS.items()]
    axes.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(handles), frameon=False)


def _draw_heatmap(axes: Axes, heatmap: numpy.ndarray) -> None:
    peak = heatmap.max()
    if peak == 0:
        place = {"ha": "center", "va": "center", "transform": axes.transAxes, "backgroundcolor": "white"}
        axes.text(0.5, 0.5, "n/a: no heat", **place, **NOT_AVAILABLE)
        return
    share = heatmap / peak
    axes.imshow(share, cmap=_colours(), vmin=0, vmax=1)
    seen = [level for level in LEVELS if level > share.min()]
    lines = axes.contour(
        share, levels=seen, linestyles=[LEVELS[level] for level in seen], colors="white", linewidths=1.1
    )
    lines.set_path_effects([withStroke(linewidth=2.2, foreground="black")])


def _colours() -> ListedColormap:
    """Inferno, whose lightness rises evenly, from clear to nearly opaque."""
    colours = matplotlib.colormaps["inferno"](numpy.linspace(0, 1, 256))
    colours[:, 3] = numpy.linspace(0, OPAQUE, 256)
    return ListedColormap(colours)


def _caption(cam: Mapping[str, Any], inside: pandas.DataFrame) -> str:
    score = cam["log_posterior"]
    lines = [f"explains log p = {score:.3g} (p = {math.exp(score):.3g})", f"largest heat {number(cam['largest'])}"]
    for box in inside.itertuples():
        hit = {1.0: ", hottest place inside", 0.0: ", hottest place outside"}.get(box.hit, "")
        lines.append(f"in box {box.box}: {number(box.energy)} of heat, {box.box_area:.2g} of image{hit}")
    return "\n".join(wrap(line, PANEL, 7) for line in lines)


def _draw_scale(figure: SubFigure, cam: Mapping[str, Any]) -> None:
    shared = {"ax": figure.axes, "location": "bottom", "shrink": 0.6, "aspect": 50, "ticks": [0, *LEVELS, 1]}
    bar = figure.colorbar(ScalarMappable(cmap=_colours()), **shared)
    bar.ax.set_facecolor("0.5")  # The colours as they are over a mid grey.
    bar.ax.grid(False)
    outline = [withStroke(linewidth=2.2, foreground="black")]
    for level, line in LEVELS.items():
        bar.ax.axvline(level, color="white", linestyle=line, linewidth=1.1, path_effects=outline)
    where = f"{cam['layer']} ({cam['places']} x {cam['places']} places)"
    bar.set_label(f"Heat: Grad-CAM at {where}, as a share of the largest in its panel")


@styled
def draw_maps(case: Case, *, maps: list[Maps], facts: str) -> Picture:
    """The strongest maps of each layer for one image, a row a layer, each map on its own scale.

    Args:
        maps: as `severity.explanation.explanation.feature_maps` gives them.
        facts: run, for the title.
    """
    table = pandas.DataFrame(
        [
            (each.layer, each.of, values.shape[-1], place + 1, channel, strength, values.min(), values.max())
            for each in maps
            for place, (channel, strength, values) in enumerate(
                zip(each.channels, each.strength, each.values, strict=True)
            )
        ],
        columns=["layer", "of", "places", "place", "channel", "strength", "least", "largest"],
    )
    columns, side = max(len(each.channels) for each in maps), 1.15
    size = (max(7.5, 1.4 + side * columns), 1.2 + (side + 0.45) * len(maps))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(maps), columns, squeeze=False)
    for row, each in zip(panels, maps, strict=True):
        for axes in row:
            bare(axes)
        places = each.values.shape[-1]
        row[0].set_ylabel(f"{wrap(each.layer, 1.3, 7)}\n{places} x {places}, {each.of} maps", fontsize=7)
        for axes, channel, strength, values in zip(row, each.channels, each.strength, each.values, strict=False):
            axes.imshow(values, cmap="viridis", interpolation="nearest")
            axes.set_xlabel(f"map {channel}: {strength:.2g}\n{values.min():.2g} to {values.max():.2g}", fontsize=6)
    note = (
        f"{facts}; of each layer the maps of largest mean absolute value (next to the map's number), each on its own "
        "scale from its smallest value (dark) to its largest (bright)"
    )
    title(figure, f"Feature maps: {_headline(case)}", note)
    caption = f"{_headline(case)} ({facts}): the strongest feature maps of {len(maps)} layers."
    return Picture(figure, table, caption)
