"""External predictions, as they lie in data/external_predictions: one file a run, its name that of the run.

``<backbone>-<loss>-<seed>.csv`` (or ``.csv.gz``), one row an image, columns in any order, between commas,
semicolons or tabs; between semicolons and tabs a number may have a decimal comma:

    id               the image's, as in the data set
    patient, split   optional; split is validation, test or train, blank means not stated
    prob:<class>     a number for each class: probability or logit
    node:<name>      optional: the same for nodes of the tree, groups say; beside distributions always probabilities
    true:<class>     optional: 1, 0, or blank or -1 = not known

or ``.npz`` with the arrays id, patient, split (N,) text, classes (C,) text with prob (N, C), nodes (M,) text with node (N, M),
labels (L,) text with true (N, L), NaN = not known; of these patient, split, nodes, node, labels and true are optional.
docs/external-predictions.md has more.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy
import pandas

from severity.collections.splits import SPLITS
from severity.core import archives, files, table_checks, tables
from severity.core.errors import SeverityError, nearest

PROBABILITY, NODE, TRUTH = "prob:", "node:", "true:"
SUFFIXES = (".csv", ".csv.gz", ".npz")
STATES = {"1": 1.0, "1.0": 1.0, "0": 0.0, "0.0": 0.0, "-1": numpy.nan, "-1.0": numpy.nan, "": numpy.nan}
ARRAYS, OPTIONAL = ("id", "classes", "prob"), ("patient", "split", "nodes", "node", "labels", "true")
# Arrays of names, and the numbers that they name the columns of: one comes with the other.
PAIRS = (("nodes", "node"), ("labels", "true"))


IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm", ".dicom", ".npy")


@dataclass(frozen=True)
class Sheet:
    """One file. Rows are in its order, columns too; nothing has been joined or converted."""

    path: Path
    ids: numpy.ndarray  # (N,) text
    patients: numpy.ndarray | None  # (N,) text
    split: numpy.ndarray  # (N,) text, '' where the file does not state it
    classes: tuple[str, ...]  # (C,)
    numbers: numpy.ndarray  # (N, C) float64, finite
    nodes: tuple[str, ...]  # (M,) of the tree, beside the classes; mostly none
    node_numbers: numpy.ndarray  # (N, M) float64, finite
    labels: tuple[str, ...]  # (L,) of the truth; none without truth
    truth: numpy.ndarray  # (N, L) float64: 1, 0, NaN


def stem(image: str) -> str:
    """An id without the suffix of an image file."""
    before, dot, suffix = image.rpartition(".")
    return before if before and dot + suffix.lower() in IMAGE_SUFFIXES else image


def find(folder: Path | str, name: str) -> Path:
    """The file of the run `name`. Raises SeverityError where there is none, or several."""
    candidates = [path for suffix in SUFFIXES if os.path.lexists(path := Path(folder) / f"{name}{suffix}")]
    if not candidates:
        known = [_stem(path) for path in listed(folder)]
        beside = "".join(files.beside_copy(Path(folder) / f"{name}{suffix}") for suffix in SUFFIXES)
        raise SeverityError(
            f"{folder} has no predictions of the run {name!r} of external.runs in params.yaml: no {name}.csv, .csv.gz "
            f"or .npz. {nearest(name, known)}{beside}"
        )
    if len(candidates) > 1:
        raise SeverityError(f"{folder} has {', '.join(path.name for path in candidates)}. Keep one of them.")
    return candidates[0]


def listed(folder: Path | str) -> list[Path]:
    """All files of predictions in a folder, by name."""
    return sorted(path for path in Path(folder).glob("*") if path.name.endswith(SUFFIXES) and path.is_file())


def _stem(path: Path) -> str:
    return next(path.name.removesuffix(suffix) for suffix in reversed(SUFFIXES) if path.name.endswith(suffix))


def read(path: Path | str) -> Sheet:
    """Read and check one file.

    Raises:
        SeverityError: a file, column, cell or array that is not of the form above; the message names it.
    """
    path = Path(path)
    try:
        sheet = _read_arrays(path) if path.suffix == ".npz" else _read_table(path)
    except FileNotFoundError:
        raise SeverityError(f"{path} is missing.") from None
    if not len(sheet.ids):
        raise SeverityError(f"{path} holds no image.")
    if not sheet.classes:
        raise SeverityError(f"{path} holds no class.")
    table_checks.refuse_repeats(pandas.Series(sheet.ids), "id", path)
    for what, names in (("class", sheet.classes), ("node", sheet.nodes), ("label", sheet.labels)):
        for name in names:
            if names.count(name) > 1:
                raise SeverityError(f"{path}: the {what} {name!r} is duplicated. Keep one of the columns.")
    for what, names, numbers in (("class", sheet.classes, sheet.numbers), ("node", sheet.nodes, sheet.node_numbers)):
        odd = ~numpy.isfinite(numbers)
        if odd.any():
            row, column = numpy.argwhere(odd)[0]
            raise SeverityError(
                f"{path}: the image {str(sheet.ids[row])!r} has no finite number for the {what} {names[column]!r}, but "
                f"{numbers[row, column]} ({int(odd.any(axis=1).sum())} such images). Give a number for each {what}."
            )
    return sheet


def _read_table(path: Path) -> Sheet:
    separator = tables.separator_of(path, "id")
    header = tables.header(path, separator)
    wanted = [name for name in header if name.startswith(PROBABILITY)]
    nodes = [name for name in header if name.startswith(NODE)]
    stated = [name for name in header if name.startswith(TRUTH)]
    for name in header:
        if name in ("id", "patient", "split", *wanted, *nodes, *stated):
            continue
        raise SeverityError(
            f"{path}: the column {name!r} is not known. Known: id, patient, split, {PROBABILITY}<class>, {NODE}<name>, "
            f"{TRUTH}<class>."
        )
    if not wanted:
        raise SeverityError(f"{path} has no column {PROBABILITY}<class>, one for each class.")
    frame = tables.read_text(path, ["id", *dict.fromkeys(header)], separator)
    numbers = partial(table_checks.numbers, path=path, separator=separator)
    table_checks.refuse(frame["id"] == "", frame["id"], "id", path, "is not an id")
    split = frame["split"] if "split" in header else pandas.Series("", index=frame.index)
    table_checks.refuse(~split.isin(["", *SPLITS]), split, "split", path, f"is not one of blank, {', '.join(SPLITS)}")
    return Sheet(
        path=path,
        ids=frame["id"].to_numpy(dtype=str),
        patients=frame["patient"].to_numpy(dtype=str) if "patient" in header else None,
        split=split.to_numpy(dtype=str),
        classes=tuple(name.removeprefix(PROBABILITY) for name in wanted),
        numbers=numpy.stack([numbers(frame[name], name) for name in wanted], axis=1),
        nodes=tuple(name.removeprefix(NODE) for name in nodes),
        node_numbers=_columns([numbers(frame[name], name) for name in nodes], len(frame)),
        labels=tuple(name.removeprefix(TRUTH) for name in stated),
        truth=_columns([table_checks.mapped(frame, name, STATES, path) for name in stated], len(frame)),
    )


def _columns(columns: Sequence[pandas.Series | numpy.ndarray], rows: int) -> numpy.ndarray:
    return numpy.stack(columns, axis=1).astype(numpy.float64) if columns else numpy.empty((rows, 0))


def _read_arrays(path: Path) -> Sheet:
    arrays = archives.read_npz(path)
    for name in arrays:
        if name not in (*ARRAYS, *OPTIONAL):
            raise SeverityError(f"{path}: the array {name!r} is not known. {nearest(name, (*ARRAYS, *OPTIONAL))}")
    for name in ARRAYS:
        if name not in arrays:
            raise SeverityError(f"{path}: the array {name!r} is missing. {nearest(name, arrays)}")
    for names, numbers in PAIRS:
        if (names in arrays) != (numbers in arrays):
            raise SeverityError(f"{path} has one of the arrays {names} and {numbers}; it must have both or neither.")
    images = arrays["id"].size
    given = {"split": numpy.full(images, "")} | arrays
    for names, numbers in PAIRS:
        given.setdefault(names, numpy.empty(0, dtype=str))
        given.setdefault(numbers, numpy.empty((images, 0)))
    shapes = dict.fromkeys(("id", "patient", "split"), (images,))
    for names, numbers in (("classes", "prob"), *PAIRS):
        shapes |= {names: (given[names].size,), numbers: (images, given[names].size)}
    for name, array in given.items():
        words = name not in ("prob", "node", "true")
        if array.shape != shapes[name] or (array.dtype.kind != "U" if words else array.dtype.kind not in "fiub"):
            raise SeverityError(
                f"{path}: the array {name!r} is {array.dtype} of the shape {array.shape}; it must be "
                f"{'text' if words else 'numbers'} of the shape {shapes[name]}."
            )
    truth = given["true"].astype(numpy.float64)
    truth[truth == -1] = numpy.nan
    for name, right in (
        ("true", numpy.isnan(truth) | numpy.isin(truth, (0, 1))),
        ("split", numpy.isin(given["split"], ("", *SPLITS))),
        ("id", given["id"] != ""),
    ):
        if not right.all():
            first = given[name][~right][0]
            raise SeverityError(f"{path}: the array {name!r} holds {str(first)!r} ({int((~right).sum())} such values).")
    return Sheet(
        path=path,
        ids=given["id"],
        patients=given.get("patient"),
        split=given["split"],
        classes=tuple(given["classes"].tolist()),
        numbers=given["prob"].astype(numpy.float64),
        nodes=tuple(given["nodes"].tolist()),
        node_numbers=given["node"].astype(numpy.float64),
        labels=tuple(given["labels"].tolist()),
        truth=truth,
    )
