"""Severity from batch to batch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from severity.core.errors import SeverityError
from severity.drawing import pictures
from severity.drawing.pictures import GREY, Picture, styled
from severity.figures.shared.study import ScoreStudy
from severity.summary import configurations


def draw(study: ScoreStudy) -> Picture:
    """The figure of a study."""
    return draw_batches(study.chosen, colour=study.colour, facts=study.facts)


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
        f"Mean and median severity (cost {records[0]['cost']}) of {batches:,} batches of {size} consecutive test "
        f"images (the last of {last}), of {facts}: {configurations.name(records[0])}, {pictures.runs(len(records))} "
        "(metrics/runs).",
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
            f"The runs {runs} were not cut into the same batches. Run `dvc repro` to evaluate all of them again."
        )
    columns: dict[str, Any] = {"rule": rule, "batch": numpy.arange(1, len(batches[0]["means"]) + 1)}
    for column, key in (("mean", "means"), ("median", "medians")):
        values = numpy.array([each[key] for each in batches], dtype=float)  # (runs, batches)
        columns[column] = numpy.median(values, axis=0)
        columns[f"{column}_min"], columns[f"{column}_max"] = values.min(axis=0), values.max(axis=0)
    columns["severity_mean"] = numpy.median([record["rules"][rule]["severity_mean"] for record in records])
    columns["median_of_medians"] = numpy.median([each["median_of_medians"] for each in batches])
    return pandas.DataFrame(columns)
