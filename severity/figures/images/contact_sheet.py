"""An image of each label."""

import math

import numpy
import pandas
from matplotlib.figure import Figure

from severity.core.table_checks import listed
from severity.drawing import pictures
from severity.drawing.pictures import GREY, NOT_AVAILABLE, Picture, styled
from severity.figures.shared.study import ImageStudy


def draw(study: ImageStudy) -> Picture:
    """The figure of a study."""
    return draw_contact_sheet(study.examples, study.example_rows, limit=study.classes, facts=study.dataset)


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
