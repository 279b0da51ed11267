"""data/prepared: what is known of every image of data/images; written by `prepare`, read by all after it.

The folder holds

    table.csv      one row an image of data/images, in its order: id, patient, sex, age, view, split, then one column a
                   label, 1 = positive, 0 = negative, blank = masked: neither training nor scores use that cell; train
                   rows may hold numbers between (uncertain: smooth)
    boxes.csv      id, label, left, top, right, bottom: where a finding is, edges as shares of the original image
    examples.npy   (labels, 256, 256) uint8, one image a label, aspect kept; black where no image has it
    examples.csv   label, id
    summary.json   data set, counts of images, patients, targets and states by split, violations of the tree, notes and
                   facts of the collection, SHA-256 of table.csv
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import pandas

from severity.core import files, tables
from severity.core.columns import METADATA
from severity.core.errors import SeverityError, nearest

REMAKE = "Remove the folder and run `dvc repro prepare`."


@dataclass(frozen=True)
class Table:
    """table.csv: `frame` with the columns METADATA and `labels`, row i belonging to image i."""

    frame: pandas.DataFrame
    labels: tuple[str, ...]


def read_table(folder: Path | str) -> Table:
    """Read table.csv of a prepared folder. id, patient, sex, view and split are text, age and the labels float64.

    Raises:
        SeverityError: the folder is not there or not whole.
    """
    path = Path(folder) / "table.csv"
    names, images = labels(folder), read_summary(folder)["images"]
    frame = tables.read(path, (*METADATA, *names), ("age", *names), REMAKE)
    if len(frame.columns) != len(METADATA) + len(names) or len(frame) != images:
        raise SeverityError(f"{path} and summary.json next to it disagree in rows or columns. {REMAKE}")
    return Table(frame, names)


def labels(folder: Path | str) -> tuple[str, ...]:
    """The labels of a prepared folder, in its table's order. Raises SeverityError when it is not there."""
    return tuple(read_summary(folder)["counts"]["train"]["labels"])


def part(table: Table, splits: Sequence[str], classes: Sequence[str]) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The rows of some splits, in data-set order, and their labels in the order of `classes`.

    Returns:
        (n,) int64 row numbers, and (n, K) float32 labels: 1, 0, NaN = masked; train rows also between 0 and 1.

    Raises:
        SeverityError: a class is not a label of the table.
    """
    for name in classes:
        if name not in table.labels:
            raise SeverityError(
                f"The class {name!r} of the hierarchy is not a label here. {nearest(name, table.labels)}"
            )
    rows = numpy.flatnonzero(table.frame["split"].isin(splits))
    return rows, table.frame[list(classes)].to_numpy(dtype=numpy.float32)[rows]


def read_summary(folder: Path | str) -> dict[str, Any]:
    """summary.json of a prepared folder. Raises SeverityError when it is not there."""
    return files.read_json(Path(folder) / "summary.json", "images", "counts")
