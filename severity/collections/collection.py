"""One collection as its tables describe it: one row an image, the labels, and what else is known about it.

The data set's `read` returns it; the stage `read` writes it to the folder data/collection:

    images.csv       id, path: all that decoding needs to know
    table.csv        id, patient, sex, age, view, split, then one column a label: 1, 0, -1 = uncertain,
                     blank = unmentioned
    boxes.csv        id, label, left, top, right, bottom
    collection.json  labels, notes, facts
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import pandas

from severity.collections import splits
from severity.core import files, table_checks, tables
from severity.core.columns import METADATA
from severity.core.errors import SeverityError, nearest

STATES = (1.0, 0.0, -1.0)  # positive, negative, uncertain; NaN is unmentioned
UNCERTAIN = -1.0
BOX = ("id", "label", "left", "top", "right", "bottom")
REMAKE = "Remove the folder and run `dvc repro read`."


def no_boxes() -> pandas.DataFrame:
    """A table of bounding boxes without a row."""
    return pandas.DataFrame(columns=list(BOX))


@dataclass(frozen=True)
class Collection:
    """A collection as its tables describe it; no image has been opened yet."""

    # One row an image: METADATA, path (relative to the root, with forward slashes; '<file>.npy#<row>' for a row of a
    # stack), and one float column a label with the STATES or NaN. split is '' where `splits.divide` is to choose.
    table: pandas.DataFrame
    labels: tuple[str, ...]
    # Columns BOX, edges as shares of the image's width and height; an image may have none or several.
    boxes: pandas.DataFrame = field(default_factory=no_boxes)
    # What was corrected, left out or counted on the way, in words: {'ages above 120 years, taken as unknown': 16}.
    notes: dict[str, Any] = field(default_factory=dict)
    # What later stages must know of this collection, JSON-like, by subject.
    facts: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path | str) -> None:
        """Write the folder described above, whole."""
        with files.replacing(folder) as temporary:
            temporary.mkdir()
            files.write_csv(temporary / "images.csv", self.table[["id", "path"]])
            files.write_csv(temporary / "table.csv", self.table[[*METADATA, *self.labels]])
            files.write_csv(temporary / "boxes.csv", self.boxes[list(BOX)])
            content = {"labels": list(self.labels), "notes": self.notes, "facts": self.facts}
            files.write_json(temporary / "collection.json", content)

    @classmethod
    def read(cls, folder: Path | str) -> "Collection":
        """Read what `write` wrote, and check it again. Raises SeverityError."""
        folder = Path(folder)
        content = files.read_json(folder / "collection.json", "labels", "notes", "facts")
        images = read_images(folder)
        labels = tuple(content["labels"])
        table = tables.read(folder / "table.csv", METADATA, ("age", *labels), REMAKE)
        if len(table) != len(images) or (table["id"] != images["id"]).any():
            raise SeverityError(f"{folder}: table.csv and images.csv disagree. {REMAKE}")
        boxes = tables.read(folder / "boxes.csv", BOX, BOX[2:], REMAKE)
        collection = cls(table.assign(path=images["path"]), labels, boxes, content["notes"], content["facts"])
        check(collection)
        return collection


def read_images(folder: Path | str) -> pandas.DataFrame:
    """images.csv of data/collection: id and path (relative to the root) of each image, both text.

    Raises:
        SeverityError: the file is missing or another table.
    """
    return tables.read(Path(folder) / "images.csv", ("id", "path"), (), REMAKE)


def check(collection: Collection) -> None:
    """Raise SeverityError unless the collection has the form that `Collection` describes.

    Refused are, among others: no row, a duplicated id, a blank id, patient or path, a path that leaves the root, an
    unknown state or split.
    """
    table, labels = collection.table, collection.labels
    if len(labels) < 2:
        raise SeverityError(f"The data set's `read` returns the labels {list(labels)}; there must be at least two.")
    for column in (*METADATA, "path", *labels):
        if column not in table.columns:
            raise SeverityError(f"The data set's `read` returns no column {column!r}. {nearest(column, table.columns)}")
    if table.empty:
        raise SeverityError("No image is left to prepare. Widen `views` of the data set's `read` in params.yaml.")
    for column in ("id", "patient", "path"):
        blank = table.index[table[column].isna() | (table[column] == "")]
        if len(blank):
            raise SeverityError(
                f"{len(blank)} images have no {column}: rows {table_checks.listed(blank)}, counted from 0."
            )
    again = table["id"][table["id"].duplicated()]
    if len(again):
        raise SeverityError(
            f"{len(again)} images repeat the id of another: {table_checks.listed(again.unique())}. Ids must be unique."
        )
    check_paths(table["path"], "The data set's `read`")
    for column, known in (("split", ("", *splits.SPLITS)), *((label, STATES) for label in labels)):
        odd = table[column][~table[column].isin(known) & table[column].notna()]
        if len(odd):
            raise SeverityError(
                f"The data set's `read` returns {odd.iloc[0]} in column {column!r}; it may hold "
                f"{table_checks.listed(value if value != '' else 'blank' for value in known)}."
            )
    _check_boxes(collection.boxes, labels)


def outside(paths: Sequence[str]) -> numpy.ndarray:
    """(n,) bool: which paths are absolute or lead out of the folder they start from, with either kind of slash."""
    return (
        pandas.Series(paths, dtype=str)
        .str.contains(r"^(?:[/\\]|[A-Za-z]:)|(?:^|[/\\])\.\.(?:[/\\]|$)|\x00", regex=True)
        .to_numpy(dtype=bool)
    )


def check_paths(paths: Sequence[str], where: str) -> None:
    """Raise SeverityError if a path of a table from outside is absolute or leads out of the collection's root.

    Args:
        paths: with forward or backward slashes.
        where: the table they come from, for the message.
    """
    bad = outside(paths)
    if bad.any():
        raise SeverityError(
            f"{where}: the path {list(paths)[int(bad.argmax())]!r} is absolute or leads out of the collection's folder "
            f"({int(bad.sum())} such paths). Give paths relative to the root, without '..'."
        )


def _check_boxes(boxes: pandas.DataFrame, labels: tuple[str, ...]) -> None:
    if tuple(boxes.columns) != BOX:
        raise SeverityError(
            f"The data set's `read` returns boxes with the columns {list(boxes.columns)}; right: {BOX}."
        )
    unknown = boxes["label"][~boxes["label"].isin(labels)]
    if len(unknown):
        raise SeverityError(
            f"The data set's `read` returns a box of {unknown.iloc[0]!r}. {nearest(unknown.iloc[0], labels)}"
        )
    inside = (boxes["left"] >= 0) & (boxes["top"] >= 0) & (boxes["right"] <= 1) & (boxes["bottom"] <= 1)
    wrong = boxes[~inside | (boxes["left"] >= boxes["right"]) | (boxes["top"] >= boxes["bottom"])]
    if len(wrong):
        raise SeverityError(
            f"The data set's `read` returns {len(wrong)} boxes that do not lie inside their image, the first of image "
            f"{wrong['id'].iloc[0]!r}; edges are shares of width and height, from 0 to 1."
        )
