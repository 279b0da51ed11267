"""data/prepared: every image decoded and resized once, and one table beside; written by `prepare`, read by all after it.

The folder holds

    images.npy     (N, size, size) uint8, C order: numpy.load can map it into memory
    table.csv      N rows, those of images.npy: id, patient, sex, age, view, split, then one column a label,
                   1 = positive, 0 = negative, blank = masked: neither training nor scores use that cell; train rows
                   may hold numbers between (uncertain: smooth)
    rejects.csv    id, path, reason: the images that could not be read; they are in none of the other files
    examples.npy   (labels, 256, 256) uint8, one image a label, aspect kept; black where no image has it
    examples.csv   label, id
    summary.json   data set, counts of images, patients and label states by split, SHA-256 of images.npy and table.csv
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import pandas

from severity import files
from severity.errors import SeverityError, nearest

METADATA = ("id", "patient", "sex", "age", "view", "split")
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
    summary = _read_summary(folder)
    text = [name for name in METADATA if name != "age"]
    try:
        frame = pandas.read_csv(path, dtype=dict.fromkeys(text, str), keep_default_na=False, na_values=_blanks(summary))
    except FileNotFoundError:
        raise SeverityError(f"{path} is missing. {REMAKE}") from None
    names = labels(folder)
    if tuple(frame.columns) != (*METADATA, *names) or len(frame) != summary["images"]:
        raise SeverityError(f"{path} and summary.json beside it disagree in rows or columns. {REMAKE}")
    return Table(frame.astype(dict.fromkeys(("age", *names), float)), names)


def labels(folder: Path | str) -> tuple[str, ...]:
    """The labels of a prepared folder, in its table's order. Raises SeverityError when it is not there."""
    return tuple(_read_summary(folder)["counts"]["train"]["labels"])


def part(table: Table, splits: Sequence[str], classes: Sequence[str]) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The rows of some splits, in data-set order, and their labels in the order of `classes`.

    Returns:
        (n,) int64 row numbers, and (n, K) float32 labels: 1, 0, NaN = masked; train rows also between 0 and 1.

    Raises:
        SeverityError: a class is no label of the table.
    """
    for name in classes:
        if name not in table.labels:
            raise SeverityError(f"The class {name!r} of the hierarchy is no label here. {nearest(name, table.labels)}")
    rows = numpy.flatnonzero(table.frame["split"].isin(splits))
    return rows, table.frame[list(classes)].to_numpy(dtype=numpy.float32)[rows]


def open_images(folder: Path | str) -> numpy.ndarray:
    """Map images.npy of a prepared folder into memory, read-only: (N, size, size) uint8, row i belonging to table row i.

    Raises:
        SeverityError: the folder is not there or not whole.
    """
    path = Path(folder) / "images.npy"
    summary = _read_summary(folder)
    try:
        images = numpy.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise SeverityError(f"{path} is missing. {REMAKE}") from None
    except ValueError:
        raise SeverityError(f"{path} is cut off or no .npy file. {REMAKE}") from None
    size = summary["image_size"]
    if images.dtype != numpy.uint8 or images.shape != (summary["images"], size, size):
        raise SeverityError(f"{path} and summary.json beside it disagree in shape. {REMAKE}")
    return images


def _read_summary(folder: Path | str) -> dict[str, Any]:
    return files.read_json(Path(folder) / "summary.json")


def _blanks(summary: dict[str, Any]) -> dict[str, list[str]]:
    """The columns in which a blank cell is NaN; in text columns it is ''."""
    return {name: [""] for name in ("age", *summary["counts"]["train"]["labels"])}
