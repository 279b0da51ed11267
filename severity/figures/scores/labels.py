"""Severity and AUROC of each label of one configuration."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from severity.core.table_checks import listed
from severity.drawing import pictures
from severity.drawing.pictures import GREY, NOT_AVAILABLE, Picture, styled
from severity.figures.shared.labels import SEED, how_many, label_order, spread
from severity.figures.shared.study import ScoreStudy
from severity.summary import configurations


def draw(study: ScoreStudy) -> Picture:
    """The figure of a study."""
    return draw_labels(
        study.chosen,
        study.comparisons["label_intervals"],
        colour=study.colour,
        level=study.level,
        limit=study.labels,
        facts=study.facts,
    )


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
    shown = how_many(len(table), len(first["labels"]))
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
            row |= spread(column, [each["rules"][rule]["labels"][label]["severity"] for each in records])
            row |= _bounds(known, (rule, label), "severity", column)
            if len(records) > 1:
                row |= {
                    f"{column}_seed_{each['seed']}": each["rules"][rule]["labels"][label]["severity"]
                    for each in records
                }
        row |= spread("auroc", [each["labels"][label]["auroc"] for each in records])
        row |= _bounds(known, (next(iter(first["rules"])), label), "auroc", "auroc")
        if len(records) > 1:
            row |= {f"auroc_seed_{each['seed']}": each["labels"][label]["auroc"] for each in records}
        rows.append(row)
    table = pandas.DataFrame(rows)
    numbers = [column for column in table if column not in ("label", "positives", "runs")]
    return table.astype(dict.fromkeys(numbers, float))


def _bounds(known: pandas.DataFrame, key: tuple[str, str], kind: str, name: str) -> dict[str, float]:
    """Both ends of an interval as two columns, NaN where it is not in the table of intervals."""
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
        f"Severity (mean cost {first['cost']} over the images on which a label is true) and AUROC of {shown}, of "
        f"{facts}: {configurations.name(first)}, {pictures.runs(len(records))}.",
        f"Lines: {level:.0%} intervals over resampled patients, of the means over seeds "
        "(metrics/comparisons/label_intervals.csv); markers and dots: metrics/runs.",
        "One seed only: no spread over seeds." if len(records) == 1 else "",
        f"Without a positive test image: {listed(empty)}." if empty else "",
        f"AUROC without an interval: {listed(table.loc[bare, 'label'])}." if bare.any() else "",
        f"Severity without an interval: {listed(table.loc[unsure, 'label'])}." if unsure.any() else "",
    )
