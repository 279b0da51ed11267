"""Figures that compare: error against severity, the labels of a configuration, and what a decision rule does to each of them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from severity.core.runs import Run
from severity.core.tables import listed
from severity.drawing import pictures
from severity.drawing.pictures import GREY, NOT_AVAILABLE, Picture, styled
from severity.summary import configurations, statistics

FRONT = {"color": "#C8C8C8", "linewidth": 4, "marker": "o", "markersize": 12, "solid_capstyle": "butt", "zorder": 1}
CONTEXT = {
    "color": "#999999",
    "marker": "x",
    "markersize": 4,
    "markeredgewidth": 0.8,
    "linestyle": "none",
    "zorder": 1.5,
}
SEED = {"marker": ".", "markersize": 5, "linestyle": "none", "markeredgewidth": 0}
# What is on the vertical axes: its name in metrics/comparisons/intervals.csv, heading, what it is the mean over.
LEVELS = {
    "hd_at_1": ("hierarchical_distance_at_1", "Hierarchical distance @1", "images"),
    "mistake_severity": ("mistake_severity", "Mistake severity", "mistakes"),
}
ACROSS = 5  # backbones side by side
RULES = 3  # rules whose effect on the labels is shown


# --- 1. The trade-off


def pareto_front(x: numpy.ndarray, y: numpy.ndarray) -> numpy.ndarray:
    """Which points no other point beats, less being better on both axes.

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
    found: Mapping[Run, dict], rules: Sequence[str], intervals: pandas.DataFrame, *, level: float, facts: str, unit: str
) -> Picture:
    """Top-1 error against hierarchical distance and against mistake severity: a column a backbone.

    Args:
        found: metrics of every run of the grid.
        rules: the decision rules to show.
        intervals: metrics/comparisons/intervals.csv.
        level: of these intervals.
        facts: data set and number of images, for the title.
        unit: name of the cost in which severity is measured.
    """
    table = _tradeoff_table(found, rules, intervals)
    medians, seeds = table[table["seed"].isna()], table[table["seed"].notna()]
    backbones = list(dict.fromkeys(table["backbone"]))
    losses, looks = pictures.loss_looks(run.loss for run in found), pictures.rule_looks(rules)
    figure, panels = _tradeoff_panels(len(backbones), entries=len(losses) + len(rules) + 9)
    for number, (measure, (_, name, over)) in enumerate(LEVELS.items()):
        corners = medians[medians[f"{measure}_front"] == 1].sort_values(["top1_error", measure])
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
        panels[number][0].set_ylabel(f"{name}\n(cost {unit}, mean over {over})")
        for axes in panels[number][ACROSS::ACROSS]:
            axes.set_ylabel(f"{name}")
    pictures.title(figure, "Error against severity: lower left is better", facts)
    _tradeoff_legend(figure, losses, looks, level=level, several=len(backbones) > 1, seeds=not seeds.empty)
    return Picture(figure, table, _tradeoff_caption(medians, facts=facts, unit=unit, level=level))


def _tradeoff_table(found: Mapping[Run, dict], rules: Sequence[str], intervals: pandas.DataFrame) -> pandas.DataFrame:
    """A row a configuration and rule, `seed` being blank: medians over seeds, least, largest, interval, whether on the front.

    Then, where a configuration has several seeds, a row a run and rule.
    """
    keys = ["backbone", "loss", "rule"]
    measures = {"top1_error": "top1_error", **{measure: metric for measure, (metric, _, _) in LEVELS.items()}}
    columns = [name + end for name in measures for end in ("", "_min", "_max")]
    medians = configurations.comparison(found, rules)[[*keys, "runs", *columns]].astype(dict.fromkeys(columns, float))
    for measure, metric in measures.items():
        bounds = intervals[intervals["metric"] == metric][[*keys, "lower", "upper"]]
        bounds = bounds.rename(columns={"lower": f"{measure}_lower", "upper": f"{measure}_upper"})
        medians = medians.merge(bounds, on=keys, how="left", validate="one_to_one")
    for measure in LEVELS:
        front = pareto_front(medians["top1_error"].to_numpy(), medians[measure].to_numpy())
        medians[f"{measure}_front"] = front.astype(int)
    several = medians.groupby(["backbone", "loss"])["runs"].first() > 1
    rows = [
        {"backbone": run.backbone, "loss": run.loss, "rule": rule, "seed": run.seed}
        | {measure: record["rules"][rule][metric] for measure, metric in measures.items()}
        for run, record in found.items()
        if several[run.backbone, run.loss]
        for rule in rules
    ]
    seeds = pandas.DataFrame(rows, columns=[*keys, "seed", *measures]).astype(dict.fromkeys(measures, float))
    table = medians.assign(seed=None)
    whole = pandas.concat([table, seeds], ignore_index=True) if len(seeds) else table
    whole = whole[[*keys, "seed", "runs", *(column for column in medians if column not in (*keys, "runs"))]]
    counts = {"seed": "Int64", "runs": "Int64", **{f"{measure}_front": "Int64" for measure in LEVELS}}
    return whole.astype(counts)


def _tradeoff_panels(backbones: int, *, entries: int) -> tuple[Figure, list[list[Axes]]]:
    """The figure, and for each measure its panels, one a backbone; axes of a measure are the same everywhere."""
    columns = min(backbones, ACROSS)
    blocks = math.ceil(backbones / columns)
    # One backbone: the two measures side by side. Several: one below the other.
    rows, columns = (1, 2) if backbones == 1 else (2 * blocks, columns)
    width = {1: 4.4, 2: 4.4, 3: 3.6}.get(columns, 2.6)
    height = max(1.1 + (3.6 if rows <= 2 else 2.6) * rows, 1.2 + 0.185 * entries)
    figure = Figure(figsize=(2.4 + width * columns, height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    if backbones == 1:
        panels = [[axes] for axes in grid[0]]
    else:
        panels = [
            [grid[2 * (each // columns) + measure, each % columns] for each in range(backbones)] for measure in (0, 1)
        ]
    for measure, of_measure in enumerate(panels):
        for place, axes in enumerate(of_measure):
            axes.sharex(panels[0][0])
            axes.sharey(of_measure[0])
            axes.tick_params(labelleft=place % columns == 0)
            lowest = backbones == 1 or (measure == 1 and place + columns >= backbones)
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
    if several:
        entries.append((Line2D([], [], **CONTEXT), "other backbones"))
    legend = figure.legend(*zip(*entries, strict=True), loc="outside right upper", handlelength=3.2, frameon=False)
    for (handle, _), text in zip(entries, legend.get_texts(), strict=True):
        if handle is heading:
            text.set_weight("bold")


def _tradeoff_caption(medians: pandas.DataFrame, *, facts: str, unit: str, level: float) -> str:
    def named(rows: pandas.DataFrame) -> str:
        return listed(f"{row.backbone}-{row.loss} {row.rule}" for row in rows.itertuples())

    bounds = medians[[f"{name}_lower" for name in ("top1_error", *LEVELS)]].isna().any(axis=1)
    missing = medians[medians["mistake_severity"].isna()]
    single = medians[medians["runs"] == 1].drop_duplicates(["backbone", "loss"])
    configurations_of_one = listed(f"{row.backbone}-{row.loss}" for row in single.itertuples())
    bare = medians[bounds & medians["mistake_severity"].notna()]
    return pictures.sentences(
        f"Top-1 error against hierarchical distance and mistake severity (cost {unit}) of {facts}: medians over the seeds "
        "of each backbone, loss and decision rule, with the Pareto front of all of them.",
        f"Crosses: {level:.0%} intervals over resampled patients, of the means over seeds "
        "(metrics/comparisons/intervals.csv); markers and dots (single seeds): metrics/runs.",
        f"One seed only, no spread over seeds: {configurations_of_one}." if len(single) else "",
        f"No mistake, so no mistake severity: {named(missing)}." if len(missing) else "",
        f"Without an interval: {named(bare)}." if len(bare) else "",
    )


# --- 2. The labels


def label_order(records: Sequence[Mapping]) -> list[str]:
    """The labels of a configuration as all its figures have them: most severe under the first rule first, those without any last."""
    first = next(iter(records[0]["rules"]))
    severity = pandas.Series(
        {
            label: _spread("", [each["rules"][first]["labels"][label]["severity"] for each in records])[""]
            for label in records[0]["labels"]
        },
        dtype=float,
    )
    return severity.sort_values(ascending=False, kind="stable", na_position="last").index.tolist()


@styled
def draw_labels(
    records: Sequence[Mapping], intervals: pandas.DataFrame, *, colour: str, level: float, limit: int, facts: str
) -> Picture:
    """Severity and AUROC of each label, side by side: is a label that is hard to see also severe to miss?

    Args:
        records: metrics of the runs (seeds) of one backbone and loss.
        intervals: metrics/comparisons/label_intervals.csv.
        colour: of the loss.
        level: of these intervals.
        limit: how many labels to show, those of the largest severity by the first rule.
        facts: data set and number of images, for the title.
    """
    first = records[0]
    rules = pictures.rule_looks(list(first["rules"]))
    table = _label_table(records, label_order(records)[:limit], intervals)
    severities = [f"severity_{rule}" for rule in rules]

    height = 0.14 + 0.08 * len(severities)
    figure = Figure(figsize=(10.5, 1.9 + height * len(table)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    shifts = (numpy.arange(len(severities)) - (len(severities) - 1) / 2) * 0.64 / len(severities)
    for (rule, look), column, shift in zip(rules.items(), severities, shifts, strict=True):
        _draw_estimates(left, table, column, shift, colour, look, label=rule)
    _mark_missing(left, table[severities].isna().all(axis=1))
    left.set_xlabel(f"Severity where the label is true\n(mean cost {first['cost']} over its images)")
    left.set_xlim(left=min(0.0, left.get_xlim()[0]))
    _draw_estimates(right, table, "auroc", 0.0, "black", {"marker": "s", "hollow": False}, label="AUROC")
    _mark_missing(right, table["auroc"].isna())
    right.axvline(0.5, color=GREY, linestyle="--", linewidth=1, label="0.5: chance")
    right.set_xlabel("AUROC of the label")
    right.set_xlim(min(0.45, right.get_xlim()[0]), 1.02)

    left.set_yticks(range(len(table)), [f"{row.label} (n = {row.positives:,})" for row in table.itertuples()])
    left.set_ylim(len(table) - 0.4, -0.6)
    for axes in (left, right):
        axes.grid(axis="y", visible=True)
    shown = _shown(len(table), len(first["labels"]))
    pictures.title(
        figure, f"Severity and AUROC by label: {configurations.name(first)}", f"{facts} (n: of these positive); {shown}"
    )
    figure.legend(*_with_seeds(left, right, len(records)), loc="outside lower center", ncols=6, frameon=False)
    return Picture(figure, table, _label_caption(records, table, severities, facts=facts, level=level, shown=shown))


def _label_table(records: Sequence[Mapping], labels: Sequence[str], intervals: pandas.DataFrame) -> pandas.DataFrame:
    first = records[0]
    known = configurations.rows(intervals, first).set_index(["rule", "label"])
    rows = []
    for label in labels:
        row: dict[str, Any] = {
            "label": label,
            "positives": first["labels"][label]["positives"],
            "runs": len(records),
        }
        for rule in first["rules"]:
            column = f"severity_{rule}"
            row |= _spread(column, [each["rules"][rule]["labels"][label]["severity"] for each in records])
            row |= _bounds(known, (rule, label), "severity", column)
            if len(records) > 1:
                row |= {
                    f"{column}_seed_{each['seed']}": each["rules"][rule]["labels"][label]["severity"]
                    for each in records
                }
        row |= _spread("auroc", [each["labels"][label]["auroc"] for each in records])
        row |= _bounds(known, (next(iter(first["rules"])), label), "auroc", "auroc")
        if len(records) > 1:
            row |= {f"auroc_seed_{each['seed']}": each["labels"][label]["auroc"] for each in records}
        rows.append(row)
    table = pandas.DataFrame(rows)
    numbers = [column for column in table if column not in ("label", "positives", "runs")]
    return table.astype(dict.fromkeys(numbers, float))


def _spread(name: str, values: Sequence[float | None]) -> dict[str, float]:
    """Median, min and max over runs as three columns, NaN where a run has no value."""
    found = statistics.over_seeds(values)
    columns = {name: found["median"], f"{name}_min": found["min"], f"{name}_max": found["max"]}
    return {column: math.nan if value is None else value for column, value in columns.items()}


def _bounds(known: pandas.DataFrame, key: tuple[str, str], kind: str, name: str) -> dict[str, float]:
    """Both ends of an interval as two columns, NaN where the table of intervals lacks it."""
    if key not in known.index:
        return {f"{name}_lower": math.nan, f"{name}_upper": math.nan}
    return {f"{name}_{end}": known.loc[key, f"{kind}_{end}"] for end in ("lower", "upper")}


def _draw_estimates(
    axes: Axes, table: pandas.DataFrame, name: str, shift: float, colour: str, look: Mapping[str, Any], *, label: str
) -> None:
    """Medians as markers, intervals as lines, seeds as dots just below them."""
    rows = numpy.arange(len(table)) + shift
    axes.hlines(rows, table[f"{name}_lower"], table[f"{name}_upper"], color=colour, linewidth=1.1)
    for column in table.columns[table.columns.str.startswith(f"{name}_seed_")]:
        axes.plot(table[column], rows + 0.12, color=colour, **SEED)
    axes.plot(
        table[name],
        rows,
        look["marker"],
        color=colour,
        markerfacecolor="white" if look["hollow"] else colour,
        markersize=5.5,
        label=label,
    )


def _with_seeds(left: Axes, right: Axes, runs: int) -> tuple[list, list]:
    """The legend's entries of both panels, and one for the dots of seeds where there are any."""
    handles, names = (
        one + other for one, other in zip(*(axes.get_legend_handles_labels() for axes in (left, right)), strict=True)
    )
    if runs > 1:
        handles, names = [*handles, Line2D([], [], color=GREY, **SEED)], [*names, "one seed"]
    return handles, names


def _mark_missing(axes: Axes, missing: pandas.Series) -> None:
    for row in numpy.flatnonzero(missing):
        axes.text(0.015, row, "n/a", transform=axes.get_yaxis_transform(), va="center", **NOT_AVAILABLE)


def _shown(shown: int, labels: int) -> str:
    rest = labels - shown
    return f"all {labels} labels" if not rest else f"the {shown} most severe labels, {rest:,} of {labels:,} left out"


def _label_caption(
    records: Sequence[Mapping],
    table: pandas.DataFrame,
    severities: Sequence[str],
    *,
    facts: str,
    level: float,
    shown: str,
) -> str:
    first = records[0]
    empty = [label for label, scores in first["labels"].items() if not scores["positives"]]
    bare = table["auroc"].notna() & table["auroc_lower"].isna()
    unsure = table[severities[0]].notna() & table[f"{severities[0]}_lower"].isna()
    return pictures.sentences(
        f"Severity (mean cost {first['cost']} over the images on which a label is true) and AUROC of {shown}, of {facts}: "
        f"{configurations.name(first)}, {pictures.runs(len(records))}.",
        f"Lines: {level:.0%} intervals over resampled patients, of the means over seeds "
        "(metrics/comparisons/label_intervals.csv); markers and dots: metrics/runs.",
        "One seed only: no spread over seeds." if len(records) == 1 else "",
        f"Without a positive test image: {listed(empty)}." if empty else "",
        f"AUROC without an interval: {listed(table.loc[bare, 'label'])}." if bare.any() else "",
        f"Severity without an interval: {listed(table.loc[unsure, 'label'])}." if unsure.any() else "",
    )


# --- 3. What a rule does to each label


@styled
def draw_effects(
    records: Sequence[Mapping], labels: pandas.DataFrame, *, colour: str, level: float, limit: int, facts: str
) -> Picture:
    """Severity of each label under a rule minus that under the baseline rule, with its interval: a panel a rule.

    Args:
        records: metrics of the runs (seeds) of one backbone and loss.
        labels: metrics/comparisons/labels.csv.
        colour: of the loss.
        level: of its intervals and verdicts.
        limit: how many labels to show, those of the largest severity by the first rule.
        facts: data set and number of images, for the title.
    """
    first = records[0]
    headline = f"What the decision rule does to each label: {configurations.name(first)}"
    order = label_order(records)
    table = _effect_table(records, labels, order[:limit])
    if table.empty:
        note = "evaluate.rules names no rule to compare with the baseline"
        return Picture(pictures.said(headline, facts, note), table, f"{headline}. Nothing is shown: {note}.")
    names = list(dict.fromkeys(table["A"]))
    baseline, rows = table["B"].iloc[0], order[:limit]
    looks = pictures.rule_looks(names)

    figure = Figure(figsize=(4.2 + 3.6 * len(names), 1.9 + 0.26 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, sharex=True, squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        of_rule = table[table["A"] == name].reset_index(drop=True)
        _draw_effects_of_rule(axes, of_rule, colour, looks[name]["marker"])
        axes.set_xlabel(
            f"Severity under {name} minus under {baseline}\n(cost {first['cost']}; below 0: {name} is milder)"
        )
        axes.set_title(name, weight="bold")
    images = table[table["A"] == names[0]]
    panels[0].set_yticks(
        range(len(rows)),
        [f"{row.label} (n = {row.images:,}; {row.patients:,} patients)" for row in images.itertuples()],
    )
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    shown = _shown(len(rows), len(order))
    pictures.title(figure, headline, f"{facts} (n: of these positive); {shown}")
    _effect_legend(figure, colour, looks[names[0]]["marker"], level=level, seeds=len(records) > 1)
    rest = len(first["rules"]) - 1 - len(names)
    return Picture(figure, table, _effect_caption(records, table, facts=facts, level=level, shown=shown, rest=rest))


def _effect_table(records: Sequence[Mapping], labels: pandas.DataFrame, shown: Sequence[str]) -> pandas.DataFrame:
    """Rows of labels.csv for the configuration, the labels in the order of `shown`, with the difference of each seed."""
    first = records[0]
    columns = [
        "label",
        "A",
        "B",
        "images",
        "patients",
        "seeds",
        "difference",
        "lower",
        "upper",
        "p_holm",
        "verdict",
        "note",
    ]
    rows = configurations.rows(labels, first)[columns]
    names = [rule for rule in dict.fromkeys(rows["A"]) if rule in first["rules"]][:RULES]
    rows = rows[rows["A"].isin(names) & rows["label"].isin(shown)]
    place = {label: number for number, label in enumerate(shown)}
    rows = rows.assign(place=rows["label"].map(place), rule=rows["A"].map(names.index))
    rows = rows.sort_values(["rule", "place"], kind="stable").drop(columns=["place", "rule"]).reset_index(drop=True)
    rows = rows.astype({"images": int, "patients": int})
    if len(records) > 1:
        for each in records:
            of_label = {rule: each["rules"][rule]["labels"] for rule in each["rules"]}
            rows[f"seed_{each['seed']}"] = [
                _minus(of_label[row.A][row.label]["severity"], of_label[row.B][row.label]["severity"])
                for row in rows.itertuples()
            ]
    return rows


def _minus(a: float | None, b: float | None) -> float:
    return math.nan if a is None or b is None else a - b


def _draw_effects_of_rule(axes: Axes, rows: pandas.DataFrame, colour: str, marker: str) -> None:
    axes.axvline(0, color="black", linewidth=1)
    for column in rows.columns[rows.columns.str.startswith("seed_")]:
        axes.plot(rows[column], numpy.arange(len(rows)) + 0.22, color=colour, **SEED)
    shown = ~rows["verdict"].str.startswith("no ")
    axes.hlines(rows.index, rows["lower"], rows["upper"], color=colour, linewidth=1.3)
    for chosen, face in ((shown, colour), (~shown, "white")):
        axes.plot(
            rows["difference"].where(chosen), rows.index, marker, color=colour, markerfacecolor=face, markersize=6
        )
    for row in rows.itertuples():
        if math.isnan(row.difference):
            text, style = f"n/a: {row.note}", NOT_AVAILABLE
            axes.text(0.015, row.Index, text, transform=axes.get_yaxis_transform(), va="center", fontsize=7, **style)
        elif shown[row.Index]:
            name = row.A if row.verdict.startswith("A ") else row.B
            text = f"{name} milder"
            axes.text(
                1.01, row.Index, text, transform=axes.get_yaxis_transform(), va="center", fontsize=7, weight="bold"
            )
    axes.grid(axis="y", visible=True)


def _effect_legend(figure: Figure, colour: str, marker: str, *, level: float, seeds: bool) -> None:
    style = {"color": colour, "marker": marker, "markersize": 6}
    entries = [
        (Line2D([], [], **style), f"difference shown (Holm-corrected p < {round(1 - level, 12):g})"),
        (Line2D([], [], **style, markerfacecolor="white"), "no difference shown"),
    ]
    if seeds:
        entries.append((Line2D([], [], color=colour, **SEED), "one seed"))
    figure.legend(*zip(*entries, strict=True), loc="outside lower center", ncols=3, frameon=False)


def _effect_caption(
    records: Sequence[Mapping], table: pandas.DataFrame, *, facts: str, level: float, shown: str, rest: int
) -> str:
    names = dict.fromkeys(table["A"])
    empty = list(dict.fromkeys(table.loc[table["images"] == 0, "label"]))
    unsure = list(dict.fromkeys(table.loc[table["difference"].notna() & table["lower"].isna(), "label"]))
    return pictures.sentences(
        f"Mean severity over the images on which a label is true, under {', '.join(names)} minus under "
        f"{table['B'].iloc[0]} (cost {records[0]['cost']}), of {shown}, of {facts}: {configurations.name(records[0])}, mean of "
        f"{len(records)} {'seed' if len(records) == 1 else 'seeds'}.",
        f"Lines: {level:.0%} intervals over resampled patients; filled: a difference is shown, the p-value corrected by Holm's "
        "method over all labels, rules and configurations (metrics/comparisons/labels.csv).",
        "One seed only: no spread over seeds." if len(records) == 1 else "Dots: single seeds (metrics/runs).",
        f"Without a positive test image: {listed(empty)}." if empty else "",
        f"Without an interval: {listed(unsure)}." if unsure else "",
        f"Rules left out: {rest}." if rest > 0 else "",
    )
