"""Figures: each function draws one and returns it with the table of exactly what is drawn (see severity/drawing.py)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from severity import cells, drawing, statistics
from severity.drawing import BLUE, COLOURS, GREY, NOT_AVAILABLE, VERMILLION, Picture, styled
from severity.errors import SeverityError
from severity.hierarchy import Hierarchy
from severity.runs import Run

FILLS = ("full", "left", "bottom", "right", "top")
LINES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)), (0, (8, 2, 1, 2, 1, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "*", "h", "d", "8", "H")
RULE_MARKERS = ("o", "D", "^", "v", "P", "X")
FRONT = {"color": "#CCCCCC", "linewidth": 4, "marker": "o", "markersize": 15, "solid_capstyle": "butt"}
LEVELS = {"hd_at_1": "Hierarchical distance @1", "mistake_severity": "Mistake severity"}


def draw_scores(
    *,
    found: dict[Run, dict],
    hierarchy: Hierarchy,
    cost: numpy.ndarray,
    cell: str,
    labels: int,
    classes: int,
) -> dict[str, Picture]:
    """The figures that need no image, by the stem of their files.

    Args:
        found: metrics of every run, as `severity.cells.read_runs` gives them.
        hierarchy: the label tree.
        cost: (K, K) costs, rows decisions and columns truths.
        cell: the backbone and loss to show in detail, as `<backbone>-<loss>`; `best` takes the one with the highest
            median validation AUROC.
        labels: how many labels, the most severe first, to show.
        classes: the largest number of classes for which tree and cost matrix are drawn.

    Raises:
        SeverityError: no run has this `cell`, or a number is below one.
    """
    _check_numbers(labels=labels, classes=classes)
    chosen = cells.choose(found, cell, "plot.cell")
    about, facts, tree_facts = _facts(chosen)
    return {
        "tradeoff": draw_tradeoff(
            cells.comparison(found, cells.known_rules(found.values())), facts=facts, unit=about["cost"]
        ),
        "labels": draw_labels(chosen, limit=labels, facts=facts),
        "batches": draw_batches(chosen, facts=facts),
        "tree": draw_tree(hierarchy, about["labels"], limit=classes, facts=tree_facts),
        "cost": draw_cost(cost, hierarchy.classes, limit=classes, facts=f"{tree_facts}, cost {about['cost']}"),
    }


def draw_images(
    *,
    found: dict[Run, dict],
    histories: pandas.DataFrame,
    images: numpy.ndarray,
    ids: Sequence[str],
    examples: numpy.ndarray,
    example_rows: pandas.DataFrame,
    cell: str,
    mistakes: int,
    classes: int,
) -> dict[str, Picture]:
    """The figures that want images or trained networks, by the stem of their files.

    Args:
        found, cell: as for `draw_scores`.
        histories: as for `draw_curves`.
        images, ids: the prepared images (N, H, W) uint8 and the id of each.
        examples, example_rows: one image a label (L, H, W) uint8, and a table with the columns label and id.
        mistakes: how many of the least and of the most severe mistakes to show.
        classes: the largest number of examples.

    Raises:
        SeverityError: no run has this `cell`, a number is below one, or a mistake is not among the images.
    """
    _check_numbers(mistakes=mistakes, classes=classes)
    chosen = cells.choose(found, cell, "plot.cell")
    best_run = max(chosen, key=lambda record: record["validation"]["macro_auroc"] or 0.0)
    about, facts, _ = _facts(chosen)
    return {
        "curves": draw_curves(histories, facts=about["dataset"]),
        "mistakes": draw_mistakes(best_run, images, ids, count=mistakes, facts=facts),
        "contact_sheet": draw_contact_sheet(examples, example_rows, limit=classes, facts=about["dataset"]),
    }


def _check_numbers(**numbers: int) -> None:
    for name, value in numbers.items():
        if not isinstance(value, int) or value < 1:
            raise SeverityError(f"params.yaml: plot.{name} is {value!r}; it must be a whole number from 1 on.")


def _facts(chosen: Sequence[Mapping]) -> tuple[Mapping, str, str]:
    """The first run of a cell, and what titles say of data and tree."""
    about = chosen[0]
    images = f"{about['dataset']}, {about['counts']['scored']:,} test images"
    return about, images, f"{about['dataset']}, hierarchy {about['hierarchy']}"


def _cell(record: Mapping) -> str:
    return f"{record['backbone']}-{record['loss']}"


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
def draw_tradeoff(medians: pandas.DataFrame, *, facts: str, unit: str) -> Picture:
    """Top-1 error against hierarchical distance and against mistake severity, one marker a backbone, loss and rule.

    Args:
        medians: one row a backbone, loss and rule, with these three, `runs`, and the median, `_min` and `_max` over
            seeds of top1_error, hd_at_1 and mistake_severity (None where it does not exist).
        facts: data set and number of images, for the title.
        unit: name of the cost in which severity is measured.
    """
    columns = [name + end for name in ("top1_error", *LEVELS) for end in ("", "_min", "_max")]
    table = medians[["backbone", "loss", "rule", "runs", *columns]].astype(dict.fromkeys(columns, float))
    table = table.reset_index(drop=True)
    backbones = _cycle(table["backbone"], MARKERS)
    looks = {loss: _look(i) for i, loss in enumerate(dict.fromkeys(table["loss"]))}
    sizes = {rule: _rule_size(i) for i, rule in enumerate(dict.fromkeys(table["rule"]))}

    entries = len(backbones) + len(looks) + len(sizes) + 4
    figure = Figure(figsize=(12, max(5.0, 1.2 + 0.185 * entries)), layout="constrained")
    for axes, (measure, name) in zip(figure.subplots(1, 2), LEVELS.items(), strict=True):
        front = pareto_front(table["top1_error"].to_numpy(), table[measure].to_numpy())
        table[f"{measure}_front"] = front.astype(int)
        corners = table[front].sort_values(["top1_error", measure])
        axes.plot(corners["top1_error"], corners[measure], **FRONT, drawstyle="steps-post", zorder=1)
        for (backbone, loss), rows in table.groupby(["backbone", "loss"], sort=False):
            _draw_rules(axes, rows, measure, backbones[backbone], looks[loss], sizes)
        missing = table[table[measure].isna()]
        note = "; ".join(f"{row.backbone}-{row.loss} {row.rule}" for row in missing.itertuples())
        axes.set_title(drawing.wrap(f"n/a: {note}", 5.0, 8) if note else "", fontsize=8, **NOT_AVAILABLE)
        axes.set_xlabel("Top-1 error (share of images)")
        over = "images" if measure == "hd_at_1" else "mistakes"
        axes.set_ylabel(f"{name} (cost {unit}, mean over {over})")
    drawing.title(
        figure, "Error against severity: lower left is better", f"{facts}; a point: {_runs(table['runs'].max())}"
    )
    _tradeoff_legend(figure, backbones, looks, sizes)
    return Picture(figure, table)


def _look(i: int) -> dict[str, Any]:
    """Colour, fill and line style of the i-th loss: three differences, so that two losses never look alike in grey."""
    return {"color": COLOURS[i % len(COLOURS)], "fillstyle": FILLS[i % len(FILLS)], "linestyle": LINES[i % len(LINES)]}


def _rule_size(i: int) -> dict[str, Any]:
    """Size and filling of the i-th rule's markers: small and hollow, then larger and filled, then rings around these."""
    return {"markersize": 5 + 3 * i, "hollow": i != 1}


def _draw_rules(
    axes: Axes,
    rows: pandas.DataFrame,
    measure: str,
    marker: str,
    look: Mapping[str, Any],
    sizes: Mapping[str, Mapping],
) -> None:
    """One backbone and loss: bars from min to max over seeds, and its rules joined by a line."""
    x, y, colour = rows["top1_error"], rows[measure], look["color"]
    bars = {"color": colour, "linewidth": 0.7, "alpha": 0.6, "zorder": 2}
    axes.hlines(y, rows["top1_error_min"], rows["top1_error_max"], **bars)
    axes.vlines(x, rows[f"{measure}_min"], rows[f"{measure}_max"], **bars)
    axes.plot(x, y, color=colour, linestyle=look["linestyle"], linewidth=1.2, zorder=3)
    for rule, rule_x, rule_y in zip(rows["rule"], x, y, strict=True):
        axes.plot(rule_x, rule_y, **_tradeoff_marker(marker, look, **sizes[rule]), zorder=4)


def _tradeoff_marker(marker: str, look: Mapping[str, Any], *, markersize: float, hollow: bool) -> dict[str, Any]:
    return {
        "marker": marker,
        "linestyle": "none",
        "markersize": markersize,
        "fillstyle": "none" if hollow else look["fillstyle"],
        "markeredgecolor": look["color"],
        "markerfacecolor": look["color"],
        "markerfacecoloralt": "white",
    }


def _tradeoff_legend(
    figure: Figure, backbones: Mapping[str, str], looks: Mapping[str, Mapping], sizes: Mapping[str, Mapping]
) -> None:
    plain = {"color": GREY, "fillstyle": "full"}
    heading = Line2D([], [], linestyle="none")
    entries = [(heading, "Backbone: shape")]
    for name, marker in backbones.items():
        entries.append((Line2D([], [], **_tradeoff_marker(marker, plain, **_rule_size(1))), name))
    entries.append((heading, "Loss: colour, filling, line"))
    for name, look in looks.items():
        style = _tradeoff_marker("o", look, **_rule_size(1)) | {"linestyle": look["linestyle"], "color": look["color"]}
        entries.append((Line2D([], [], **style), name))
    entries.append((heading, "Decision rule: size"))
    for rule, size in sizes.items():
        entries.append((Line2D([], [], **_tradeoff_marker("o", plain, **size)), rule))
    entries.append((Line2D([], [], **FRONT), "Pareto front"))
    legend = figure.legend(*zip(*entries, strict=True), loc="outside center right", handlelength=3.2, frameon=False)
    for (handle, _), text in zip(entries, legend.get_texts(), strict=True):
        if handle is heading:
            text.set_weight("bold")


# --- 2. The labels


@styled
def draw_labels(records: Sequence[Mapping], *, limit: int, facts: str) -> Picture:
    """Severity and AUROC of each label, side by side: is a label that is hard to see also severe to miss?

    Args:
        records: metrics of the runs (seeds) of one backbone and loss.
        limit: how many labels to show, those of the largest severity by the first rule.
        facts: data set and number of images, for the title.
    """
    first, rules = records[0], cells.common_rules(records)
    rows = []
    for label, scores in first["labels"].items():
        row = {"label": label, "positives": scores["positives"], "runs": len(records)}
        for rule in rules:
            row |= _spread(f"severity_{rule}", [each["rules"][rule]["labels"][label]["severity"] for each in records])
        rows.append(row | _spread("auroc", [each["labels"][label]["auroc"] for each in records]))
    severities = [f"severity_{rule}" for rule in rules]
    table = pandas.DataFrame(rows).sort_values(severities[0], ascending=False, kind="stable", na_position="last")
    table = table.head(limit).reset_index(drop=True)

    height = 0.14 + 0.08 * len(severities)
    figure = Figure(figsize=(10.5, 1.9 + height * len(table)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    shifts = (numpy.arange(len(severities)) - (len(severities) - 1) / 2) * 0.64 / len(severities)
    for i, (rule, column) in enumerate(zip(rules, severities, strict=True)):
        marker, colour = RULE_MARKERS[i % len(RULE_MARKERS)], COLOURS[i % len(COLOURS)]
        _draw_spread(left, table, column, shifts[i], marker, colour, hollow=i == 0, label=rule)
    _mark_missing(left, table[severities].isna().all(axis=1))
    left.set_xlabel(f"Severity where the label is true\n(mean cost {first['cost']} over its images)")
    left.set_xlim(left=min(0.0, left.get_xlim()[0]))
    _draw_spread(right, table, "auroc", 0.0, "s", "black", hollow=False, label="AUROC")
    _mark_missing(right, table["auroc"].isna())
    right.axvline(0.5, color=GREY, linestyle="--", linewidth=1, label="0.5: chance")
    right.set_xlabel("AUROC of the label")
    right.set_xlim(min(0.45, right.get_xlim()[0]), 1.02)

    left.set_yticks(range(len(table)), [f"{row.label} (n = {row.positives:,})" for row in table.itertuples()])
    left.set_ylim(len(table) - 0.4, -0.6)
    for axes in (left, right):
        axes.grid(axis="y", visible=True)
    shown = "" if len(table) == len(rows) else f"; the {len(table)} most severe of {len(rows):,} labels"
    note = f"{facts} (n: of these positive); {_runs(len(records))}{shown}"
    drawing.title(figure, f"Severity and AUROC by label: {_cell(first)}", note)
    figure.legend(loc="outside lower center", ncols=len(severities) + 2, frameon=False)
    return Picture(figure, table)


def _spread(name: str, values: Sequence[float | None]) -> dict[str, float]:
    """Median, min and max over runs as three columns, NaN where a run has no value."""
    found = statistics.over_seeds(values)
    columns = {name: found["median"], f"{name}_min": found["min"], f"{name}_max": found["max"]}
    return {column: math.nan if value is None else value for column, value in columns.items()}


def _draw_spread(
    axes: Axes, table: pandas.DataFrame, name: str, shift: float, marker: str, colour: str, *, hollow: bool, label: str
) -> None:
    rows = numpy.arange(len(table)) + shift
    axes.hlines(rows, table[f"{name}_min"], table[f"{name}_max"], color=colour, linewidth=1.2)
    face = "white" if hollow else colour
    axes.plot(table[name], rows, marker, color=colour, markerfacecolor=face, markersize=5.5, label=label)


def _mark_missing(axes: Axes, missing: pandas.Series) -> None:
    for row in numpy.flatnonzero(missing):
        axes.text(0.015, row, "n/a", transform=axes.get_yaxis_transform(), va="center", **NOT_AVAILABLE)


# --- 3. The batches


@styled
def draw_batches(records: Sequence[Mapping], *, facts: str) -> Picture:
    """Mean and median severity of each batch of consecutive test images, one panel a decision rule.

    Args:
        records: metrics of the runs (seeds) of one backbone and loss; a batch's point is the median over them.
        facts: data set and number of images, for the title.

    Raises:
        SeverityError: the runs were not cut into the same batches.
    """
    rules = cells.common_rules(records)
    size = records[0]["rules"][rules[0]]["batches"]["size"]
    table = pandas.concat([_batch_table(records, rule) for rule in rules], ignore_index=True)
    figure = Figure(figsize=(10.5, 1.4 + 2.4 * len(rules)), layout="constrained")
    panels = figure.subplots(len(rules), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (rule, rows) in zip(panels, table.groupby("rule", sort=False), strict=True):
        _draw_batches_of_rule(axes, rows, several=len(records) > 1)
        mean, middle = drawing.number(rows["severity_mean"].iloc[0]), drawing.number(rows["median_of_medians"].iloc[0])
        axes.set_title(f"{rule}: mean over all images {mean}, median of the batch medians {middle}", loc="left")
        axes.set_ylabel(f"Severity (cost {records[0]['cost']})")
    # Only now: a limit that is set ends the scaling to the data of the panels that follow.
    panels[0].set_ylim(bottom=min(panels[0].get_ylim()[0], -0.05))
    panels[-1].set_xlabel(f"Batch of {size} consecutive test images (the last may be smaller)")
    panels[-1].xaxis.get_major_locator().set_params(integer=True)
    batches = len(table) // len(rules)
    note = f"{facts} in {batches:,} batches; {_runs(len(records))}"
    drawing.title(figure, f"Severity by batch: {_cell(records[0])}", note)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return Picture(figure, table)


def _draw_batches_of_rule(axes: Axes, rows: pandas.DataFrame, *, several: bool) -> None:
    x, many = rows["batch"], len(rows) > 60
    if several:
        band = {"color": BLUE, "alpha": 0.25, "linewidth": 0, "label": "min to max of the batch mean over runs"}
        axes.fill_between(x, rows["mean_min"], rows["mean_max"], **band)
        bars = {"color": VERMILLION, "linewidth": 1, "label": "min to max of the batch median over runs"}
        axes.vlines(x, rows["median_min"], rows["median_max"], **bars)
    whole = {"color": "black", "zorder": 1.9}
    for column, line, label in (
        ("severity_mean", "--", "mean over all images"),
        ("median_of_medians", ":", "median of the batch medians"),
    ):
        axes.axhline(rows[column].iloc[0], linestyle=line, linewidth=1.3, label=label, **whole)
    axes.plot(x, rows["mean"], "-" if many else "o-", color=BLUE, linewidth=1, markersize=3.5, label="batch mean")
    axes.plot(x, rows["median"], "x", color=VERMILLION, markersize=3 if many else 6, label="batch median")


def _batch_table(records: Sequence[Mapping], rule: str) -> pandas.DataFrame:
    batches = [record["rules"][rule]["batches"] for record in records]
    if len({(each["size"], len(each["means"]), len(each["medians"])) for each in batches}) > 1:
        runs = ", ".join(record["run"] for record in records)
        raise SeverityError(
            f"The runs {runs} were not cut into the same batches. Run `dvc repro` to evaluate all anew."
        )
    columns: dict[str, Any] = {"rule": rule, "batch": numpy.arange(1, len(batches[0]["means"]) + 1)}
    for column, key in (("mean", "means"), ("median", "medians")):
        values = numpy.array([each[key] for each in batches], dtype=float)  # (runs, batches)
        columns[column] = numpy.median(values, axis=0)
        columns[f"{column}_min"], columns[f"{column}_max"] = values.min(axis=0), values.max(axis=0)
    columns["severity_mean"] = numpy.median([record["rules"][rule]["severity_mean"] for record in records])
    columns["median_of_medians"] = numpy.median([each["median_of_medians"] for each in batches])
    return pandas.DataFrame(columns)


# --- 4. The training curves


@styled
def draw_curves(histories: pandas.DataFrame, *, facts: str) -> Picture:
    """Losses and validation AUROC by epoch: a column of two panels for each backbone and loss, a thin line a seed.

    Args:
        histories: columns backbone, loss, seed, epoch, train_loss, validation_loss, validation_macro_auroc (NaN where
            it does not exist) and best (1 at the epoch that was kept; the last one counts).
        facts: the data set, for the title.
    """
    curves = ["train_loss", "validation_loss", "validation_macro_auroc"]
    table = histories[["backbone", "loss", "seed", "epoch", *curves, "best"]].reset_index(drop=True)
    groups = list(table.groupby(["backbone", "loss"], sort=False))
    losses = table["loss"].nunique()
    # The grid's order, backbone then loss, puts a backbone in a row and a loss in a column.
    columns = losses if losses <= 6 and len(groups) <= 4 * losses else min(len(groups), 6)
    rows = math.ceil(len(groups) / columns)
    figure = Figure(figsize=(max(7.5, 0.6 + 2.3 * columns), 1.3 + 2.5 * rows), layout="constrained")
    panels = figure.subplots(2 * rows, columns, sharex=True, squeeze=False)
    spans = table["validation_macro_auroc"].min(), table["validation_macro_auroc"].max()
    for i, ((backbone, loss), cell) in enumerate(groups):
        upper, lower = panels[2 * (i // columns), i % columns], panels[2 * (i // columns) + 1, i % columns]
        upper.set_title(drawing.wrap(f"{backbone}-{loss}", 2.1, 8), fontsize=8)
        _draw_curves_of_cell(upper, lower, cell)
        _limit(lower, *spans)
        if i % columns == 0:
            upper.set_ylabel("Loss")
            lower.set_ylabel("AUROC")
        if i + columns >= len(groups):
            lower.set_xlabel("Epoch")
            lower.tick_params(labelbottom=True)
            lower.xaxis.get_major_locator().set_params(integer=True)
    for i in range(len(groups), rows * columns):
        for axes in panels[2 * (i // columns) : 2 * (i // columns) + 2, i % columns]:
            axes.set_axis_off()
    figure.align_ylabels(panels[:, 0])
    runs = sum(cell["seed"].nunique() for _, cell in groups)
    drawing.title(
        figure, f"Training curves: {facts}", f"backbones and losses: {len(groups)}; runs: {runs}, a line each"
    )
    entries = [axes.get_legend_handles_labels() for axes in panels[:2, 0]]
    unique = {name: handle for handles, names in entries for handle, name in zip(handles, names, strict=True)}
    figure.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=4, frameon=False)
    return Picture(figure, table)


def _draw_curves_of_cell(upper: Axes, lower: Axes, cell: pandas.DataFrame) -> None:
    styles = {
        "train_loss": (upper, {"color": BLUE, "linestyle": "-", "label": "train loss"}),
        "validation_loss": (upper, {"color": VERMILLION, "linestyle": "--", "label": "validation loss"}),
        "validation_macro_auroc": (lower, {"color": "black", "linestyle": "-", "label": "validation AUROC (macro)"}),
    }
    star = {"marker": "*", "markersize": 9, "markeredgecolor": "white", "markeredgewidth": 0.5, "linestyle": "none"}
    for _, run in cell.groupby("seed", sort=False):
        best = run[run["best"] == 1].tail(1)
        dot = "." if len(run) == 1 else ""  # A single epoch has no line to see.
        for curve, (axes, style) in styles.items():
            axes.plot(run["epoch"], run[curve], linewidth=0.9, marker=dot, **style)
            if curve != "train_loss":
                axes.plot(best["epoch"], best[curve], **star, color=style["color"], label="best epoch")
    for curve, (axes, style) in styles.items():
        if cell[curve].isna().all():
            axes.text(0.5, 0.5, f"{style['label']}: n/a", transform=axes.transAxes, ha="center", **NOT_AVAILABLE)


def _limit(axes: Axes, lowest: float, highest: float) -> None:
    """The same AUROC axis in every panel; no numbers where there is no AUROC."""
    if math.isnan(lowest):
        axes.set_yticks([])
    else:
        pad = 0.06 * (highest - lowest) + 0.005
        axes.set_ylim(lowest - pad, highest + pad)


# --- 5. The mistakes


@styled
def draw_mistakes(record: Mapping, images: numpy.ndarray, ids: Sequence[str], *, count: int, facts: str) -> Picture:
    """The least and the most severe mistakes of one run as images, with truth, decision and severity.

    Args:
        record: metrics of the run.
        images: (N, H, W) uint8.
        ids: (N) the id of each image.
        count: how many mistakes a row.
        facts: data set and number of images, for the title.

    Raises:
        SeverityError: a mistake names an image that is not among `ids`.
    """
    rows = [(rule, end, record["rules"][rule][end][:count]) for rule in record["rules"] for end in ("least", "most")]
    columns = ["rule", "end", "place", "id", "truth", "decision", "severity"]
    table = pandas.DataFrame(
        [
            (rule, end, place + 1, each["id"], "; ".join(each["truth"]), each["decision"], each["severity"])
            for rule, end, found in rows
            for place, each in enumerate(found)
        ],
        columns=columns,
    )
    row_of = {name: row for row, name in enumerate(ids)}
    width = 2.1
    figure = Figure(figsize=(max(7.5, 0.6 + width * count), 0.9 + 2.75 * len(rows)), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.06, w_pad=0.06)
    for panels, (rule, end, found) in zip(figure.subplots(len(rows), count, squeeze=False), rows, strict=True):
        for axes in panels:
            drawing.bare(axes)
        panels[0].set_ylabel(f"{rule}\n{end} severe", fontsize=9, weight="bold")
        if not found:
            panels[0].text(0.5, 0.5, "n/a: no mistakes", transform=panels[0].transAxes, ha="center", **NOT_AVAILABLE)
        for axes, each in zip(panels, found, strict=False):
            if each["id"] not in row_of:
                raise SeverityError(
                    f"The image {each['id']!r} of the run {record['run']} is not in data/prepared/table.csv. "
                    "Predictions and prepared images belong to different data; run `dvc repro`."
                )
            axes.imshow(images[row_of[each["id"]]], cmap="gray", vmin=0, vmax=255)
            axes.set_xlabel(_caption(each, width), fontsize=7, loc="left")
    drawing.title(figure, f"Least and most severe mistakes: {record['run']}", f"{facts}; {_mistake_counts(record)}")
    return Picture(figure, table)


def _mistake_counts(record: Mapping) -> str:
    counts = []
    for rule in record["rules"]:
        wrong = record["rules"][rule]["top1_error"] * record["counts"]["scored"]
        counts.append(f"{round(wrong):,} by {rule}")
    return f"mistakes: {', '.join(counts)}"


def _caption(mistake: Mapping, width: float) -> str:
    # No-break spaces keep a label on one line.
    truth = ", ".join(label.replace(" ", "\u00a0") for label in mistake["truth"])
    lines = drawing.wrap(f"truth: {truth}", width, 7).split("\n")
    if len(lines) > 4:
        lines = [*lines[:3], "… (all in the CSV)"]
    lines += drawing.wrap(f"decision: {mistake['decision']}", width, 7).split("\n")
    return "\n".join([*lines, f"severity: {drawing.number(mistake['severity'])}"])


# --- 6. The tree


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
        return Picture(_too_many(headline, classes, limit), table)

    unit, row, top, bottom = 1.45, 0.33, 0.75, 0.75  # inches
    leaves = [_leaf_text(each) for each in table[table["height"] == 0].itertuples()]
    left = 1.2
    right = 0.25 + drawing.width(max(leaves, key=len), 8)
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
    figure.text(0.5, 0.12 / height, drawing.wrap(note, width - 0.4, 9), ha="center", va="bottom", fontsize=9)
    figure.suptitle(
        f"{drawing.wrap(headline, width - 0.4, 11)}\n{drawing.wrap(size, width - 0.4, 11)}", y=1 - 0.12 / height
    )
    return Picture(figure, table)


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
            drawing.wrap(text, 0.95, 7.5),
            va="center",
            ha="right",
            fontsize=7.5,
        )
    else:
        axes.text(
            here[0] - 0.07,
            here[1] - 0.07,
            drawing.wrap(text, unit - 0.1, 7.5),
            va="bottom",
            ha="right",
            fontsize=7.5,
        )


def _leaf_text(node: Any) -> str:
    known = "" if pandas.isna(node.positives) else f" (n = {node.positives:,})"
    return f"{node.label or node.node}{known}"


# --- 7. The contact sheet


@styled
def draw_contact_sheet(examples: numpy.ndarray, rows: pandas.DataFrame, *, limit: int, facts: str) -> Picture:
    """One example image a label.

    Args:
        examples: (L, H, W) uint8.
        rows: L rows with the columns label and id; a blank id stands for a label without a positive image.
        limit: how many labels to show.
        facts: the data set, for the title.
    """
    table = rows[["label", "id"]].head(limit).reset_index(drop=True)
    columns = min(5 if len(table) <= 20 else 10, len(table))
    lines = math.ceil(len(table) / columns)
    width = 2.0
    figure = Figure(figsize=(max(4.2, 0.2 + width * columns), 0.8 + 2.4 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in panels:
        drawing.bare(axes)
    for axes, image, row in zip(panels, examples, table.itertuples(), strict=False):
        axes.set_title(drawing.wrap(row.label, width, 9))
        if pandas.isna(row.id) or row.id == "":
            axes.text(0.5, 0.5, "n/a: no positive image", transform=axes.transAxes, ha="center", **NOT_AVAILABLE)
        else:
            axes.imshow(image, cmap="gray", vmin=0, vmax=255)
            axes.set_xlabel(drawing.middle(row.id, width, 5.5), fontsize=5.5, color=GREY)
    shown = "" if len(table) == len(rows) else f", the first of {len(rows):,}"
    drawing.title(figure, f"One image a label: {facts}", f"{len(table)} labels{shown}")
    return Picture(figure, table)


# --- 8. The cost matrix


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
        return Picture(_too_many(headline, len(classes), limit), table)

    side = max(0.31 * len(cost), 2.5)
    margin = drawing.width(max(classes, key=len), 8)
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
    drawing.title(figure, headline, f"{len(classes)} classes")
    return Picture(figure, table)


# --- What the figures share


def _cycle(names: Sequence[str], looks: Sequence[str]) -> dict[str, str]:
    return {name: looks[i % len(looks)] for i, name in enumerate(dict.fromkeys(names))}


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"median and min to max of {count} runs"


def _too_many(headline: str, count: int, limit: int) -> Figure:
    figure = Figure(figsize=(7.5, 1.6), layout="constrained")
    drawing.title(figure, headline, f"too many classes to draw: {count:,}, more than plot.classes = {limit:,}")
    figure.text(0.5, 0.3, "The table beside this file holds all.", ha="center")
    return figure
