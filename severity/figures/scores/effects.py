"""What a decision rule does to each label of one configuration."""

import math
from collections.abc import Mapping, Sequence

import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from severity.core.table_checks import listed
from severity.drawing import pictures
from severity.drawing.pictures import NOT_AVAILABLE, Picture, styled
from severity.figures.shared.labels import SEED, how_many, label_order
from severity.figures.shared.study import ScoreStudy
from severity.summary import configurations, statistics

RULES = 3  # rules whose effect on the labels is shown


def draw(study: ScoreStudy) -> Picture:
    """The figure of a study."""
    return draw_effects(
        study.chosen,
        study.comparisons["labels"],
        colour=study.colour,
        level=study.level,
        limit=study.labels,
        facts=study.facts,
    )


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
        return Picture(pictures.text_figure(headline, facts, note), table, f"{headline}. Nothing is shown: {note}.")
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
    shown = how_many(len(rows), len(order))
    pictures.title(figure, headline, f"{facts} (n: of these positive); {shown}")
    _effect_legend(figure, colour, looks[names[0]]["marker"], level=level, seeds=len(records) > 1)
    rest = len(first["rules"]) - 1 - len(names)
    return Picture(figure, table, _effect_caption(records, table, facts=facts, level=level, shown=shown, rest=rest))


def _effect_table(records: Sequence[Mapping], labels: pandas.DataFrame, shown: Sequence[str]) -> pandas.DataFrame:
    """Rows of labels.csv for the configuration, labels in the order of `shown`, with the difference of each seed."""
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
    shown = rows["verdict"].map(statistics.is_shown)
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
        (Line2D([], [], **style, markerfacecolor="white"), "none shown"),
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
        f"{table['B'].iloc[0]} (cost {records[0]['cost']}), of {shown}, of {facts}: {configurations.name(records[0])}, "
        f"mean of {len(records)} {'seed' if len(records) == 1 else 'seeds'}.",
        f"Lines: {level:.0%} intervals over resampled patients; filled: a difference is shown, the p-value corrected "
        "by Holm's method over all labels, rules and configurations (metrics/comparisons/labels.csv).",
        "One seed only: no spread over seeds." if len(records) == 1 else "Dots: single seeds (metrics/runs).",
        f"Without a positive test image: {listed(empty)}." if empty else "",
        f"Without an interval: {listed(unsure)}." if unsure else "",
        f"Rules left out: {rest}." if rest > 0 else "",
    )
