"""All figures of a study, and those of its batches, training and images.

Each function draws one and returns it with the table of exactly what is drawn (see severity/drawing/pictures.py).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from severity.core import without_images
from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy
from severity.core.runs import Run
from severity.core.tables import listed
from severity.drawing import pictures
from severity.drawing.pictures import GREY, NOT_AVAILABLE, Picture, styled
from severity.figures import comparison_figures, run_figures, tree_figures
from severity.summary import configurations

CURVES = {
    "train_loss": {"linestyle": "-", "label": "train loss"},
    "validation_loss": {"linestyle": "--", "label": "validation loss"},
    "validation_macro_auroc": {"linestyle": "-.", "label": "validation AUROC (macro)"},
}
STAR = {"marker": "*", "markersize": 9, "markeredgecolor": "white", "markeredgewidth": 0.5, "linestyle": "none"}


def draw_scores(
    *,
    found: dict[Run, dict],
    comparisons: Mapping[str, pandas.DataFrame],
    level: float,
    hierarchy: Hierarchy,
    cost: numpy.ndarray,
    configuration: str,
    configurations_shown: int,
    labels: int,
    classes: int,
) -> dict[str, Picture]:
    """The figures that need no image, by the stem of their files.

    Args:
        found: metrics of every run, as `severity.summary.configurations.read_runs` gives them.
        comparisons: of metrics/comparisons the tables intervals, label_intervals and labels; level: of their intervals.
        hierarchy: the label tree.
        cost: (K, K) costs, rows decisions and columns truths.
        configuration: the backbone and loss to show in detail, as `<backbone>-<loss>`; `best` takes the one with the highest
            median validation AUROC.
        configurations_shown: how many backbones and losses the figures with a panel for each show.
        labels: how many labels, the most severe first, to show.
        classes: the largest number of classes for which tree and cost matrix are drawn.

    Raises:
        SeverityError: no run has this `configuration`, or a number is below one.
    """
    _check_numbers(configurations_shown=configurations_shown, labels=labels, classes=classes)
    common, left_out = _comparable(found)
    chosen = configurations.choose(common, configuration, "plot.configuration")
    about, images, tree_facts = _facts(chosen)
    facts = images + left_out
    colour = pictures.loss_looks(run.loss for run in found)[about["loss"]]["color"]
    of_labels = {"colour": colour, "level": level, "limit": labels, "facts": facts}
    return {
        "tradeoff": comparison_figures.draw_tradeoff(
            common, list(about["rules"]), comparisons["intervals"], level=level, facts=facts, unit=about["cost"]
        ),
        "levels": run_figures.draw_levels(common, limit=configurations_shown, facts=facts),
        "labels": comparison_figures.draw_labels(chosen, comparisons["label_intervals"], **of_labels),
        "effects": comparison_figures.draw_effects(chosen, comparisons["labels"], **of_labels),
        "confusion": tree_figures.draw_confusion(chosen, hierarchy, cost, limit=classes, facts=facts),
        "ranking": run_figures.draw_ranking(common, limit=configurations_shown, facts=facts),
        "reliability": run_figures.draw_reliability(chosen, colour=colour, facts=facts),
        "batches": draw_batches(chosen, colour=colour, facts=facts),
        "tree": tree_figures.draw_tree(hierarchy, about["labels"], limit=classes, facts=tree_facts),
        "cost": tree_figures.draw_cost(
            cost, hierarchy.classes, limit=classes, facts=f"{tree_facts}, cost {about['cost']}"
        ),
    }


def draw_images(
    *,
    found: dict[Run, dict],
    histories: pandas.DataFrame | None,
    images: numpy.ndarray,
    ids: Sequence[str],
    examples: numpy.ndarray,
    example_rows: pandas.DataFrame,
    configuration: str,
    configurations_shown: int,
    mistakes: int,
    classes: int,
) -> dict[str, Picture]:
    """The figures that want images or networks, by the stem of their files.

    Args:
        found, configuration, configurations_shown: as for `draw_scores`.
        histories: as for `draw_curves`; None where no run was trained here, which the figure then says.
        images, ids: the prepared images (N, H, W) uint8 and the id of each.
        examples, example_rows: one image a label (L, H, W) uint8, and a table with the columns label and id.
        mistakes: how many of the least and of the most severe mistakes to show.
        classes: the largest number of examples.

    Raises:
        SeverityError: no run has this `configuration`, a number is below one, or a mistake is not among the images.
    """
    _check_numbers(configurations_shown=configurations_shown, mistakes=mistakes, classes=classes)
    chosen = configurations.choose(found, configuration, "plot.configuration")
    best_run = max(chosen, key=lambda record: (record.get("validation") or {}).get("macro_auroc") or 0.0)
    about, facts, _ = _facts(chosen)
    shown = run_figures.shown_configurations(found, configurations_shown)
    return {
        "curves": pictures.left_out("curves", without_images.UNTRAINED)
        if histories is None
        else draw_curves(histories, shown, facts=about["dataset"]),
        "mistakes": draw_mistakes(best_run, images, ids, count=mistakes, facts=facts),
        "contact_sheet": draw_contact_sheet(examples, example_rows, limit=classes, facts=about["dataset"]),
    }


def _comparable(found: dict[Run, dict]) -> tuple[dict[Run, dict], str]:
    """The runs with the rules that all of them have alone, and words for titles on the rules left out."""
    records = list(found.values())
    rules = configurations.common_rules(records)
    missing = [rule for rule in configurations.known_rules(records) if rule not in rules]
    common = {run: record | {"rules": {rule: record["rules"][rule] for rule in rules}} for run, record in found.items()}
    without = [run.name for run, record in found.items() if any(rule not in record["rules"] for rule in missing)]
    return common, f"; without {listed(missing)}, which {listed(without)} cannot have" if missing else ""


def _check_numbers(**numbers: int) -> None:
    for name, value in numbers.items():
        if not isinstance(value, int) or value < 1:
            raise SeverityError(f"params.yaml: plot.{name} is {value!r}; it must be a whole number from 1 on.")


def _facts(chosen: Sequence[Mapping]) -> tuple[Mapping, str, str]:
    """The first run of a configuration, and what titles say of data and tree."""
    about = chosen[0]
    images = f"{about['dataset']}, {about['counts']['scored']:,} test images"
    return about, images, f"{about['dataset']}, hierarchy {about['hierarchy']}"


# --- 1. The batches


@styled
def draw_batches(records: Sequence[Mapping], *, colour: str, facts: str) -> Picture:
    """Mean and median severity of each batch of consecutive test images, one panel a decision rule.

    Args:
        records: metrics of the runs (seeds) of one backbone and loss; a batch's point is the median over them.
        colour: of the loss.
        facts: data set and number of images, for the title.

    Raises:
        SeverityError: the runs were not cut into the same batches.
    """
    rules = list(records[0]["rules"])
    size = records[0]["rules"][rules[0]]["batches"]["size"]
    table = pandas.concat([_batch_table(records, rule) for rule in rules], ignore_index=True)
    figure = Figure(figsize=(10.5, 1.4 + 2.4 * len(rules)), layout="constrained")
    panels = figure.subplots(len(rules), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (rule, rows) in zip(panels, table.groupby("rule", sort=False), strict=True):
        _draw_batches_of_rule(axes, rows, colour, several=len(records) > 1)
        mean, middle = (
            pictures.number(rows["severity_mean"].iloc[0]),
            pictures.number(rows["median_of_medians"].iloc[0]),
        )
        axes.set_title(f"{rule}: mean over all images {mean}, median of the batch medians {middle}", loc="left")
        axes.set_ylabel(f"Severity (cost {records[0]['cost']})")
    # Only now: a limit that is set ends the scaling to the data of the panels that follow.
    panels[0].set_ylim(bottom=min(panels[0].get_ylim()[0], -0.05))
    panels[-1].set_xlabel(f"Batch of {size} consecutive test images (the last may be smaller)")
    panels[-1].xaxis.get_major_locator().set_params(integer=True)
    batches = len(table) // len(rules)
    note = f"{facts} in {batches:,} batches; {pictures.runs(len(records))}"
    pictures.title(figure, f"Severity by batch: {configurations.name(records[0])}", note)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    last = (records[0]["counts"]["scored"] - 1) % size + 1
    caption = pictures.sentences(
        f"Mean and median severity (cost {records[0]['cost']}) of {batches:,} batches of {size} consecutive test images (the "
        f"last of {last}), of {facts}: {configurations.name(records[0])}, {pictures.runs(len(records))} (metrics/runs).",
        "Bands and bars: from minimum to maximum over the seeds, no interval over patients."
        if len(records) > 1
        else "One seed only: no spread over seeds.",
    )
    return Picture(figure, table, caption)


def _draw_batches_of_rule(axes: Axes, rows: pandas.DataFrame, colour: str, *, several: bool) -> None:
    x, many = rows["batch"], len(rows) > 60
    if several:
        band = {"color": colour, "alpha": 0.25, "linewidth": 0, "label": "min to max of the batch mean over seeds"}
        axes.fill_between(x, rows["mean_min"], rows["mean_max"], **band)
        bars = {"color": "black", "linewidth": 1, "label": "min to max of the batch median over seeds"}
        axes.vlines(x, rows["median_min"], rows["median_max"], **bars)
    whole = {"color": GREY, "zorder": 1.9}
    for column, line, label in (
        ("severity_mean", "--", "mean over all images"),
        ("median_of_medians", ":", "median of the batch medians"),
    ):
        axes.axhline(rows[column].iloc[0], linestyle=line, linewidth=1.3, label=label, **whole)
    axes.plot(x, rows["mean"], "-" if many else "o-", color=colour, linewidth=1, markersize=3.5, label="batch mean")
    axes.plot(x, rows["median"], "x", color="black", markersize=3 if many else 6, label="batch median")


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


# --- 2. The training curves


@styled
def draw_curves(histories: pandas.DataFrame, shown: Sequence[Sequence[Mapping]], *, facts: str) -> Picture:
    """Losses and validation AUROC by epoch: a column of two panels for each backbone and loss, a thin line a seed.

    Args:
        histories: columns backbone, loss, seed, epoch, train_loss, validation_loss, validation_macro_auroc (NaN where
            it does not exist) and best (1 at the epoch that was kept; the last one counts).
        shown: the configurations to show, as `severity.figures.run_figures.shown_configurations` gives them.
        facts: the data set, for the title.
    """
    curves, looks = list(CURVES), pictures.loss_looks(histories["loss"])
    wanted = [(seeds[0]["backbone"], seeds[0]["loss"]) for seeds in shown]
    configuration_of = pandas.MultiIndex.from_frame(histories[["backbone", "loss"]])
    table = histories.loc[configuration_of.isin(wanted), ["backbone", "loss", "seed", "epoch", *curves, "best"]]
    table = table.reset_index(drop=True)
    groups = list(table.groupby(["backbone", "loss"], sort=False))
    losses = table["loss"].nunique()
    # The grid's order, backbone then loss, puts a backbone in a row and a loss in a column.
    columns = losses if losses <= 6 and len(groups) <= 4 * losses else min(len(groups), 6)
    rows = math.ceil(len(groups) / columns)
    figure = Figure(figsize=(max(7.5, 0.6 + 2.3 * columns), 1.3 + 2.5 * rows), layout="constrained")
    panels = figure.subplots(2 * rows, columns, sharex=True, squeeze=False)
    spans = table["validation_macro_auroc"].min(), table["validation_macro_auroc"].max()
    for i, ((backbone, loss), configuration) in enumerate(groups):
        upper, lower = panels[2 * (i // columns), i % columns], panels[2 * (i // columns) + 1, i % columns]
        upper.set_title(pictures.wrap(f"{backbone}-{loss}", 2.1, 8), fontsize=8)
        _draw_curves_of_configuration(upper, lower, configuration, looks[loss]["color"])
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
    runs = sum(configuration["seed"].nunique() for _, configuration in groups)
    rest = run_figures.left_out(len(groups), len(configuration_of.unique()))
    pictures.title(
        figure,
        f"Training curves: {facts}",
        pictures.sentences(f"Backbones and losses: {len(groups)}; runs: {runs}, a line each.", rest),
    )
    handles = [Line2D([], [], color=GREY, **style) for style in CURVES.values()]
    handles.append(Line2D([], [], color=GREY, **STAR, label="best epoch"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    blind = [
        f"{'-'.join(names)}" for names, configuration in groups if configuration["validation_macro_auroc"].isna().all()
    ]
    caption = pictures.sentences(
        f"Losses and validation AUROC by epoch of {runs} runs on {facts}, a line each; a star marks the epoch that was kept "
        "(data/models/<run>/history.csv).",
        f"Without a validation AUROC: {listed(blind)}." if blind else "",
        rest,
    )
    return Picture(figure, table, caption)


def _draw_curves_of_configuration(upper: Axes, lower: Axes, configuration: pandas.DataFrame, colour: str) -> None:
    panels = {"train_loss": upper, "validation_loss": upper, "validation_macro_auroc": lower}
    styles = {curve: (panels[curve], {"color": colour, **style}) for curve, style in CURVES.items()}
    for _, run in configuration.groupby("seed", sort=False):
        best = run[run["best"] == 1].tail(1)
        dot = "." if len(run) == 1 else ""  # A single epoch has no line to see.
        for curve, (axes, style) in styles.items():
            axes.plot(run["epoch"], run[curve], linewidth=0.9, marker=dot, **style)
            if curve != "train_loss":
                axes.plot(best["epoch"], best[curve], **STAR, color=colour)
    for curve, (axes, style) in styles.items():
        if configuration[curve].isna().all():
            axes.text(0.5, 0.5, f"{style['label']}: n/a", transform=axes.transAxes, ha="center", **NOT_AVAILABLE)


def _limit(axes: Axes, lowest: float, highest: float) -> None:
    """The same AUROC axis in every panel; no numbers where there is no AUROC."""
    if math.isnan(lowest):
        axes.set_yticks([])
    else:
        pad = 0.06 * (highest - lowest) + 0.005
        axes.set_ylim(lowest - pad, highest + pad)


# --- 3. The mistakes


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
            pictures.bare(axes)
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
    pictures.title(figure, f"Least and most severe mistakes: {record['run']}", f"{facts}; {_mistake_counts(record)}")
    faultless = [rule for rule in record["rules"] if not record["rules"][rule]["least"]]
    caption = pictures.sentences(
        f"The least and the most severe mistakes of the run {record['run']} on {facts}, with truth, decision and severity (cost "
        f"{record['cost']}; metrics/runs/{record['run']}.json); {_mistake_counts(record)}.",
        f"No mistake under {listed(faultless)}." if faultless else "",
    )
    return Picture(figure, table, caption)


def _mistake_counts(record: Mapping) -> str:
    counts = []
    for rule in record["rules"]:
        wrong = record["rules"][rule]["top1_error"] * record["counts"]["scored"]
        counts.append(f"{round(wrong):,} by {rule}")
    return f"mistakes: {', '.join(counts)}"


def _caption(mistake: Mapping, width: float) -> str:
    # No-break spaces keep a label on one line.
    truth = ", ".join(label.replace(" ", "\u00a0") for label in mistake["truth"])
    lines = pictures.wrap(f"truth: {truth}", width, 7).split("\n")
    if len(lines) > 4:
        lines = [*lines[:3], "… (all in the CSV)"]
    lines += pictures.wrap(f"decision: {mistake['decision']}", width, 7).split("\n")
    return "\n".join([*lines, f"severity: {pictures.number(mistake['severity'])}"])


# --- 4. The contact sheet


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
        pictures.bare(axes)
    for axes, image, row in zip(panels, examples, table.itertuples(), strict=False):
        axes.set_title(pictures.wrap(row.label, width, 9))
        if pandas.isna(row.id) or row.id == "":
            axes.text(0.5, 0.5, "n/a: no positive image", transform=axes.transAxes, ha="center", **NOT_AVAILABLE)
        else:
            axes.imshow(image, cmap="gray", vmin=0, vmax=255)
            axes.set_xlabel(pictures.middle(row.id, width, 5.5), fontsize=5.5, color=GREY)
    shown = "" if len(table) == len(rows) else f", the first of {len(rows):,}"
    pictures.title(figure, f"One image a label: {facts}", f"{len(table)} labels{shown}")
    empty = table.loc[table["id"].isna() | (table["id"] == ""), "label"].tolist()
    caption = pictures.sentences(
        f"One image of each of {len(table)} labels{shown}, from {facts} (data/prepared/examples.csv).",
        f"Without a positive image: {listed(empty)}." if empty else "",
    )
    return Picture(figure, table, caption)
