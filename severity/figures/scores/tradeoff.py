"""Error against severity, of every configuration under every rule."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from severity.core.runs import Run
from severity.core.table_checks import listed
from severity.drawing import pictures
from severity.drawing.pictures import GREY, NOT_AVAILABLE, Picture, styled
from severity.figures.shared.labels import SEED
from severity.figures.shared.study import ScoreStudy
from severity.metrics import catalogue
from severity.metrics.catalogue import Metric
from severity.metrics.record import Record
from severity.summary import baselines, configurations

FRONT = {"color": "#C8C8C8", "linewidth": 4, "marker": "o", "markersize": 12, "solid_capstyle": "butt", "zorder": 1}
CONTEXT = {
    "color": "#999999",
    "marker": "x",
    "markersize": 4,
    "markeredgewidth": 0.8,
    "linestyle": "none",
    "zorder": 1.5,
}
TRIVIAL = {"color": "black", "marker": "x", "markersize": 7, "markeredgewidth": 1.6, "linestyle": "none", "zorder": 3.5}
ACROSS = 5  # backbones side by side


def draw(study: ScoreStudy) -> Picture:
    """The figure of a study."""
    return draw_tradeoff(
        study.common,
        study.rules,
        study.comparisons["intervals"],
        level=study.level,
        facts=study.facts,
        unit=study.unit,
    )


def pareto_front(x: numpy.ndarray, y: numpy.ndarray) -> numpy.ndarray:
    """Which points no other point beats, less being better on both axes (of a metric of which more is better, take -y).

    Point a beats point b when it is nowhere larger and somewhere smaller. Points with a NaN are not on the front.

    Args:
        x, y: (n,) floats.

    Returns:
        (n,) bools.
    """
    front = numpy.zeros(len(x), dtype=bool)
    last = (math.inf, math.inf)
    for i in numpy.lexsort((y, x)):
        if numpy.isnan(x[i]) or numpy.isnan(y[i]):
            continue
        if y[i] < last[1] or (x[i], y[i]) == last:
            front[i] = True
            last = (x[i], y[i])
    return front


@styled
def draw_tradeoff(
    records: Mapping[Run, Record],
    rules: Sequence[str],
    intervals: pandas.DataFrame,
    *,
    level: float,
    facts: str,
    unit: str,
) -> Picture:
    """Top-1 error against each metric of the catalogue that has an axis: a column a backbone.

    Args:
        records: of every run of the grid.
        rules: the decision rules to show.
        intervals: metrics/comparisons/intervals.csv.
        level: of these intervals.
        facts: data set and number of images, for the title.
        unit: name of the cost in which severity is measured.
    """
    networks, metrics = _tradeoff_table(records, rules, intervals), catalogue.drawn()
    medians, seeds = networks[networks["seed"].isna()], networks[networks["seed"].notna()]
    table = configurations.with_baselines(networks, records)
    trivial = table[table["backbone"] == catalogue.NO_IMAGE]
    backbones = list(dict.fromkeys(networks["backbone"]))
    losses, looks = pictures.loss_looks(run.loss for run in records), pictures.rule_looks(rules)
    figure, panels = _tradeoff_panels(len(backbones), len(metrics), entries=len(losses) + len(rules) + 10)
    for number, metric in enumerate(metrics):
        measure, less = metric.key, metric.better == "less"
        corners = medians[medians[f"{measure}_front"] == 1].sort_values(["top1_error", measure], ascending=[True, less])
        for column, backbone in enumerate(backbones):
            axes = panels[number][column]
            axes.plot(corners["top1_error"], corners[measure], **FRONT, drawstyle="steps-post")
            others = medians[medians["backbone"] != backbone]
            axes.plot(others["top1_error"], others[measure], **CONTEXT)
            shown = medians[medians["backbone"] == backbone]
            for loss, rows in shown.groupby("loss", sort=False):
                of_seeds = configurations.rows(seeds, {"backbone": backbone, "loss": loss})
                _draw_rules(axes, rows, of_seeds, measure, losses[loss], looks)
            missing = shown[shown[measure].isna()]
            note = "; ".join(f"{row.loss} {row.rule}" for row in missing.itertuples())
            if note:
                text = pictures.wrap(f"n/a: {note}", axes.get_figure().get_figwidth() / (2 * len(panels[0])), 7)
                axes.text(0.02, 0.02, text, transform=axes.transAxes, va="bottom", fontsize=7, **NOT_AVAILABLE)
            axes.set_title(backbone, fontsize=9, weight="bold")
        _draw_baselines(panels[number], trivial, measure)
        measured = f"cost {unit}" if metric.unit == "cost" else metric.unit
        panels[number][0].set_ylabel(f"{metric.axis}\n({measured}, mean over {metric.over})")
        for axes in panels[number][ACROSS::ACROSS]:
            axes.set_ylabel(metric.axis)
    worse = [metric.axis for metric in metrics if metric.better == "more"]
    upper = f"; of {listed(worse)} upper left" if worse else ""
    pictures.title(figure, f"Error against severity: lower left is better{upper}", facts)
    _tradeoff_legend(figure, losses, looks, level=level, several=len(backbones) > 1, seeds=not seeds.empty)
    caption = pictures.sentences(
        _tradeoff_caption(medians, facts=facts, unit=unit, level=level),
        _baselines_caption(trivial, metrics),
        baselines.warning(records),
    )
    return Picture(figure, table, caption)


def _tradeoff_table(
    records: Mapping[Run, Record], rules: Sequence[str], intervals: pandas.DataFrame
) -> pandas.DataFrame:
    """A row a configuration and rule, `seed` being blank: median over seeds, least, largest, interval, front.

    Then, where a configuration has several seeds, a row a run and rule.
    """
    keys = ["backbone", "loss", "rule"]
    metrics = catalogue.drawn()
    measures = {metric.key: metric.name for metric in (catalogue.named(catalogue.ERROR), *metrics)}
    columns = [name + end for name in measures for end in ("", "_min", "_max")]
    medians = configurations.comparison(records, rules)[[*keys, "runs", *columns]].astype(dict.fromkeys(columns, float))
    for measure, metric in measures.items():
        bounds = intervals[intervals["metric"] == metric][[*keys, "lower", "upper"]]
        bounds = bounds.rename(columns={"lower": f"{measure}_lower", "upper": f"{measure}_upper"})
        medians = medians.merge(bounds, on=keys, how="left", validate="one_to_one")
    for metric in metrics:
        values = medians[metric.key].to_numpy()
        front = pareto_front(medians["top1_error"].to_numpy(), values if metric.better == "less" else -values)
        medians[f"{metric.key}_front"] = front.astype(int)
    several = medians.groupby(["backbone", "loss"])["runs"].first() > 1
    rows = [
        {"backbone": run.backbone, "loss": run.loss, "rule": rule, "seed": run.seed}
        | {measure: record["rules"][rule][metric] for measure, metric in measures.items()}
        for run, record in records.items()
        if several[run.backbone, run.loss]
        for rule in rules
    ]
    seeds = pandas.DataFrame(rows, columns=[*keys, "seed", *measures]).astype(dict.fromkeys(measures, float))
    table = medians.assign(seed=None)
    whole = pandas.concat([table, seeds], ignore_index=True) if len(seeds) else table
    whole = whole[[*keys, "seed", "runs", *(column for column in medians if column not in (*keys, "runs"))]]
    counts = {"seed": "Int64", "runs": "Int64", **{f"{metric.key}_front": "Int64" for metric in metrics}}
    return whole.astype(counts)


def _draw_baselines(panels: Sequence[Axes], trivial: pandas.DataFrame, measure: str) -> None:
    """The decisions that look at no image: the nearest one within the panels, others where the panels reach as far.

    All panels of a measure share their axes. What lies outside them is named in a corner.
    """
    known = trivial.dropna(subset=["top1_error", measure])
    nearest = known.nsmallest(1, baselines.METRIC.key)
    for axes in panels:
        axes.plot(nearest["top1_error"], nearest[measure], **TRIVIAL)
    # Only now: limits that are set end the scaling to the data of the panels.
    (left, right), (bottom, top) = panels[0].get_xlim(), panels[0].get_ylim()
    panels[0].set_xlim(left, right)
    panels[0].set_ylim(bottom, top)
    inside = known["top1_error"].between(left, right) & known[measure].between(bottom, top)
    outside = [f"{row.rule} ({row.top1_error:.3g}, {getattr(row, measure):.3g})" for row in known[~inside].itertuples()]
    for axes in panels:
        for row in known[inside].drop(nearest.index).itertuples():
            axes.plot(row.top1_error, getattr(row, measure), **TRIVIAL)
        for names, x, y in _labels(known[inside], measure, apart=0.05 * (top - bottom)):
            look = {"textcoords": "offset points", "ha": "right", "va": "top", "fontsize": 6.5}
            axes.annotate(names, (x, y), (-5, -5), **look)
        if outside:
            words = f"outside: {'; '.join(outside)}"
            axes.text(
                0.99, 0.02, words, transform=axes.transAxes, ha="right", va="bottom", fontsize=6.5, **NOT_AVAILABLE
            )


def _labels(points: pandas.DataFrame, measure: str, *, apart: float) -> list[tuple[str, float, float]]:
    """Names and place of each label: points less than `apart` above one another share one, at the lowest of them."""
    labels: list[tuple[str, float, float]] = []
    for row in points.sort_values(measure, kind="stable").itertuples():
        y = getattr(row, measure)
        if labels and y - labels[-1][2] < apart:
            names, *place = labels[-1]
            labels[-1] = f"{names}, {row.rule}", *place
        else:
            labels.append((row.rule, row.top1_error, y))
    return labels


def _baselines_caption(trivial: pandas.DataFrame, metrics: Sequence[Metric]) -> str:
    numbers = "; ".join(
        f"{row.rule} "
        + ", ".join(
            f"{metric.heading} {pictures.number(getattr(row, metric.key))}"
            for metric in (catalogue.named(catalogue.ERROR), *metrics)
        )
        for row in trivial.itertuples()
    )
    return f"Decisions without a look at the image: {numbers}." if numbers else ""


def _tradeoff_panels(backbones: int, measures: int, *, entries: int) -> tuple[Figure, list[list[Axes]]]:
    """The figure, and for each measure its panels, one a backbone; axes of a measure are the same everywhere."""
    columns = min(backbones, ACROSS)
    blocks = math.ceil(backbones / columns)
    # One backbone: the measures side by side. Several: one below the other.
    rows, columns = (1, measures) if backbones == 1 else (measures * blocks, columns)
    width = {1: 4.4, 2: 4.4, 3: 3.6}.get(columns, 2.6)
    height = max(1.1 + (3.6 if rows <= 2 else 2.6) * rows, 1.2 + 0.185 * entries)
    figure = Figure(figsize=(2.4 + width * columns, height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    if backbones == 1:
        panels = [[axes] for axes in grid[0]]
    else:
        panels = [
            [grid[measures * (each // columns) + measure, each % columns] for each in range(backbones)]
            for measure in range(measures)
        ]
    for measure, of_measure in enumerate(panels):
        for place, axes in enumerate(of_measure):
            axes.sharex(panels[0][0])
            axes.sharey(of_measure[0])
            axes.tick_params(labelleft=place % columns == 0)
            lowest = backbones == 1 or (measure == measures - 1 and place + columns >= backbones)
            axes.tick_params(labelbottom=lowest)
            if lowest:
                axes.set_xlabel("Top-1 error (share of images)")
    for axes in grid.ravel():
        if not any(axes in of_measure for of_measure in panels):
            axes.set_axis_off()
    return figure, panels


def _draw_rules(
    axes: Axes,
    rows: pandas.DataFrame,
    seeds: pandas.DataFrame,
    measure: str,
    look: Mapping[str, Any],
    rules: Mapping[str, Mapping],
) -> None:
    """One backbone and loss: its rules joined by a line, intervals as crosses, its seeds as dots."""
    x, y, colour = rows["top1_error"], rows[measure], look["color"]
    bars = {"color": colour, "linewidth": 0.8, "zorder": 2}
    axes.hlines(y, rows["top1_error_lower"], rows["top1_error_upper"], **bars)
    axes.vlines(x, rows[f"{measure}_lower"], rows[f"{measure}_upper"], **bars)
    axes.plot(seeds["top1_error"], seeds[measure], color=colour, **SEED, zorder=2.5)
    axes.plot(x, y, color=colour, linestyle=look["linestyle"], linewidth=1.2, zorder=3)
    for rule, rule_x, rule_y in zip(rows["rule"], x, y, strict=True):
        axes.plot(rule_x, rule_y, **_marker(rules[rule]["marker"], look), zorder=4)


def _marker(marker: str, look: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "marker": marker,
        "linestyle": "none",
        "markersize": 7,
        "fillstyle": look["fillstyle"],
        "markeredgecolor": look["color"],
        "markerfacecolor": look["color"],
        "markerfacecoloralt": "white",
    }


def _tradeoff_legend(
    figure: Figure,
    losses: Mapping[str, Mapping],
    rules: Mapping[str, Mapping],
    *,
    level: float,
    several: bool,
    seeds: bool,
) -> None:
    plain = {"color": GREY, "fillstyle": "full"}
    heading = Line2D([], [], linestyle="none")
    entries = [(heading, "Loss: colour, filling, line")]
    for name, look in losses.items():
        style = _marker("o", look) | {"linestyle": look["linestyle"], "color": look["color"]}
        entries.append((Line2D([], [], **style), name))
    entries.append((heading, "Decision rule: shape"))
    entries += [(Line2D([], [], **_marker(look["marker"], plain)), name) for name, look in rules.items()]
    entries.append((heading, "Marks"))
    entries.append((Line2D([], [], color=GREY, marker="+", markersize=14, linestyle="none"), f"{level:.0%} interval"))
    if seeds:
        entries.append((Line2D([], [], color=GREY, **SEED), "one seed"))
    entries.append((Line2D([], [], **FRONT), "Pareto front of all"))
    entries.append((Line2D([], [], **TRIVIAL), "no image looked at"))
    if several:
        entries.append((Line2D([], [], **CONTEXT), "other backbones"))
    legend = figure.legend(*zip(*entries, strict=True), loc="outside right upper", handlelength=3.2, frameon=False)
    for (handle, _), text in zip(entries, legend.get_texts(), strict=True):
        if handle is heading:
            text.set_weight("bold")


def _tradeoff_caption(medians: pandas.DataFrame, *, facts: str, unit: str, level: float) -> str:
    def named(rows: pandas.DataFrame) -> str:
        return listed(f"{row.backbone}-{row.loss} {row.rule}" for row in rows.itertuples())

    metrics = catalogue.drawn()
    measured = medians[[metric.key for metric in metrics]].notna().all(axis=1)
    keys = (catalogue.ERROR, *(metric.key for metric in metrics))
    bare = medians[medians[[f"{key}_lower" for key in keys]].isna().any(axis=1) & measured]
    single = medians[medians["runs"] == 1].drop_duplicates(["backbone", "loss"])
    configurations_of_one = listed(f"{row.backbone}-{row.loss}" for row in single.itertuples())
    return pictures.sentences(
        f"Top-1 error against {_axes(metrics)} (costs in {unit}) of {facts}: medians over the seeds "
        "of each backbone, loss and decision rule, with the Pareto front of all of them.",
        f"Crosses: {level:.0%} intervals over resampled patients, of the means over seeds "
        "(metrics/comparisons/intervals.csv); markers and dots (single seeds): metrics/runs.",
        f"One seed only, no spread over seeds: {configurations_of_one}." if len(single) else "",
        *(
            f"No {metric.over.removesuffix('s')}, so no {metric.heading}: {named(missing)}."
            for metric in metrics
            if len(missing := medians[medians[metric.key].isna()])
        ),
        f"Without an interval: {named(bare)}." if len(bare) else "",
    )


def _axes(metrics: Sequence[Metric]) -> str:
    """What the vertical axes show, in words."""
    *first, last = [metric.axis[0].lower() + metric.axis[1:] for metric in metrics]
    return f"{', '.join(first)} and {last}" if first else last
