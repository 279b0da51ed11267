"""Your own images: a folder with a table of labels, or with a folder for each class. No code is needed.

Form::

    <root>/labels.csv    one row an image; separated by commas, semicolons or tabs; UTF-8; or an Excel sheet, .xlsx
    <root>/...           the images, in whatever folders

The columns, in any order; `columns` in params.yaml says which is which where a table has other names::

    path      the image, relative to the root                          must be there
    class     the name of its class, or of several: Effusion|Mass      either this column,
    others    a label each: 1 positive, 0 negative, -1 uncertain,      or one column a label
              blank unmentioned; also 1.0, true, yes, positive ...
    id        a name of its own for each image                         else the path without its suffix
    patient   whose image it is: a patient is never in two splits      else each image is a patient of its own
    split     train, validation (valid, val), test; blank: by patient  else all are divided by patient
    view      a word                                                   else blank
    sex       F, M (female, male), blank for unknown                   else blank
    age       years, or 045Y, 011M, 006W, 003D; blank for unknown      else blank

Whatever other column the table has is a label; `ignore` names those that are not labels. A column that by its name is
one of these is not taken for a label, but asked about. Spaces around cells, upper and lower case of the words above and
columns without a name do not count.

Without a table (`table: folders`), the folders are the classes, and may be divided first::

    <root>/<class>/1.png                 each image is a patient of its own
    <root>/<class>/<patient>/1.png       the folder below the class says whose image it is, whatever lies below that
    <root>/train/<class>/...             where one top folder names a split, all do: train (training), validation
                                         (valid, val), test (testing)

Licence: yours; nothing is copied out of the folder but into data/.
"""

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import pandas
import yaml

from severity.collections import collection, column_names, label_cells, manifest
from severity.collections.collection import Collection
from severity.core import files, table_checks, tables
from severity.core.columns import METADATA
from severity.core.errors import SeverityError, nearest

COLUMNS = ("path", "class", "id", "patient", "split", "view", "sex", "age")
FOLDERS = "folders"  # in the place of a table's name
IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm", ".dicom")  # in folders of classes
STATES = {
    "": float("nan"),
    "1": 1.0,
    "0": 0.0,
    "-1": -1.0,
    "1.0": 1.0,
    "0.0": 0.0,
    "-1.0": -1.0,
    "true": 1.0,
    "false": 0.0,
    "yes": 1.0,
    "no": 0.0,
    "y": 1.0,
    "n": 0.0,
    "positive": 1.0,
    "negative": 0.0,
    "present": 1.0,
    "absent": 0.0,
    "uncertain": -1.0,
}
SPLITS = {
    "": "",
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}
# Of folders also these, so that they are never taken for classes.
SPLIT_FOLDERS = {word: split for word, split in SPLITS.items() if word} | {"training": "train", "testing": "test"}
SEXES = {"": "", "f": "F", "m": "M", "female": "F", "male": "M", "unknown": ""}
SECTION = "datasets.own"


def collect(root: Path | str, out: Path | str, *, table: str, columns: dict, section: str = SECTION) -> int:
    """Check that all images are there, and write the manifest of the collection into the folder `out`.

    Args:
        root: folder of the images and of the table.
        table, columns, section: as for `read`.

    Returns:
        The number of images.

    Raises:
        SeverityError: the folder, the table, its column path or an image is missing, or two rows name one image.
    """
    opened = _open(root, table, columns, ignore=[], section=section)
    paths = _paths(opened)
    manifest.write(out, Path(root), images=paths, label_tables=[] if table == FOLDERS else [table])
    return len(paths)


def read(
    root: Path | str,
    *,
    table: str,
    columns: dict,
    ignore: list,
    views: list,
    label_separator: str = "|",
    section: str = SECTION,
) -> Collection:
    """Read a table of the form above, in its order.

    Args:
        root: folder of the images and of the table.
        table: name of the table in it, or FOLDERS.
        columns: this module's name of a column -> the table's, where they differ: {path: filename, class: diagnosis}.
        ignore: columns that are not labels.
        views: which images, by the words of the column view; [] for all.
        label_separator: what stands between several labels in one cell of the column class; '' where each cell is one
            class, whatever it holds. Lists as programs print them, ['Effusion', 'Mass'], are taken apart as well.
        section: of params.yaml, for messages.

    Returns:
        One row an image: COLUMNS as above without class; the classes in alphabetical order, 1 or 0, or the labels in
        the table's order: 1, 0, -1 (uncertain), NaN (unmentioned).

    Raises:
        SeverityError: the table is missing or not a table; an option names a column that is not there; a column by its
            name may be one of COLUMNS, but was not said to be; a cell holds something unknown, or looks like several
            labels; a path is blank, absolute or leads out of the root; an image or an id is duplicated; there are both
            a column class and columns of labels; fewer than two classes. File, line and column are named.
    """
    opened = _open(root, table, columns, ignore, section)
    _refuse_unsaid(opened)
    paths = _paths(opened)
    states = _states(opened, label_separator)
    several = int(((states == 1).sum(axis=1) > 1).sum()) if "class" in opened.taken else 0
    ages = table_checks.ages(opened.text("age"), opened.theirs("age"), opened.path)
    ids = _ids(opened, paths)
    tidy = pandas.DataFrame(
        {
            "id": ids,
            "path": paths,
            "patient": _filled(opened, "patient") if "patient" in opened.taken else ids,
            "sex": opened.mapped("sex", SEXES),
            "age": table_checks.plausible(ages),
            "view": opened.text("view"),
            "split": opened.mapped("split", SPLITS),
        }
    )
    kept = _kept(tidy["view"], views, section)
    mistyped = ages.notna() & tidy["age"].isna()
    no_truth = (states != 1).all(axis=1)
    notes: dict[str, Any] = {
        "images without a column 'patient', each taken as a patient of its own, though images of one patient may then "
        "stand in two splits": 0 if "patient" in opened.taken else int(kept.sum()),
        "images without a positive label, for which no single decision is right": int(no_truth[kept].sum()),
        f"ages outside 0 to {table_checks.OLDEST} years, taken as unknown": int(mistyped[kept].sum()),
        "paths with backslashes, read as slashes": int(opened.text("path")[kept].str.contains("\\", regex=False).sum()),
        "images whose class is several labels": several,
        "columns that are no labels, left out": table_checks.listed(opened.left_out),
    }
    return Collection(
        table=pandas.concat([tidy, states], axis=1)[kept].reset_index(drop=True),
        labels=tuple(states),
        notes={words: note for words, note in notes.items() if note},
    )


@dataclass(frozen=True)
class _Table:
    """A table from outside, every cell text; which of its columns are what."""

    path: Path
    raw: pandas.DataFrame
    taken: dict[str, str]  # COLUMNS that are there -> the table's name
    labels: list[str]  # the table's other columns
    left_out: list[str]
    section: str  # of params.yaml

    def theirs(self, ours: str) -> str:
        """The table's name of a column, for messages."""
        return self.taken.get(ours, ours)

    def text(self, ours: str) -> pandas.Series:
        """The cells of one of COLUMNS; blank where the table has no such column."""
        return self.raw[self.taken[ours]] if ours in self.taken else pandas.Series("", index=self.raw.index)

    def mapped(self, ours: str, meaning: dict[str, object]) -> pandas.Series:
        """The same, each word replaced by its meaning, whatever its case."""
        return self.meaning(self.theirs(ours), self.text(ours), meaning)

    def meaning(self, column: str, texts: pandas.Series, meaning: dict[str, object]) -> pandas.Series:
        """The texts of one of the table's columns, each replaced by its meaning, whatever its case."""
        return table_checks.mapped(texts.str.lower().to_frame(column), column, meaning, self.path)


def _open(root: Path, table: str, columns: dict, ignore: list, section: str) -> _Table:
    root = Path(root)
    if not root.is_dir():
        raise SeverityError(
            f"There is no folder {root}. Set {section}.root in params.yaml to the folder that holds the images and "
            f"{table}.{files.beside_copy(root)}"
        )
    for ours in columns:
        if ours not in COLUMNS:
            raise SeverityError(
                f"params.yaml: `columns` of {section} has the unknown key {ours!r}. {nearest(ours, COLUMNS)}"
            )
    if table == FOLDERS:
        path, raw = root, _of_folders(root, section)
        names = list(raw.columns)
        columns = {}
    else:
        path = _table_path(root, table, section)
        separator = tables.separator_of(path, columns.get("path", "path"))
        names = [name.strip() for name in tables.header(path, separator)]
        raw = tables.read_text(path, [], separator).apply(lambda cells: cells.str.strip())
        raw.columns = names
    _check_names(path, names, ignore, section)
    rest = [name for name in names if name and name not in ignore]
    taken = _taken(path, rest, columns, section)
    labels = [name for name in rest if name not in taken.values()]
    left_out = [*ignore, *("one without a name" for name in names if not name)]
    return _Table(path, raw, taken, labels, left_out, section)


def _table_path(root: Path, table: str, section: str) -> Path:
    collection.check_paths([table], f"params.yaml: `table` of {section}")
    path = root / table
    if not path.is_file():
        there = sorted(each.name for each in root.glob("*") if each.name.endswith((".csv", ".csv.gz", *tables.SHEETS)))
        folders = any(each.is_dir() for each in root.iterdir()) and not there
        hint = f" If its folders are the classes, set it to {FOLDERS}." if folders else ""
        raise SeverityError(
            f"There is no table {path}. Set {section}.collect.table in params.yaml to its name. {nearest(table, there)}"
            f"{hint}"
        )
    return path


def _of_folders(root: Path, section: str) -> pandas.DataFrame:
    """The table that folders stand for: path, class, and split and patient where the folders say so."""
    paths = [path for path in manifest.below(root, IMAGES) if not any(part[0] in "._" for part in path.split("/"))]
    parts = [path.split("/")[:-1] for path in paths]
    if not parts or not all(parts):
        found = f"{paths[[bool(part) for part in parts].index(False)]} lies in none" if parts else "there is no image"
        raise SeverityError(
            f"{root}: {found}. {section}.collect.table in params.yaml is {FOLDERS}, so each image (its name ends in "
            f"{', '.join(IMAGES)}) lies in a folder that is named for its class."
        )
    named = [part[0].lower() in SPLIT_FOLDERS for part in parts]
    divided = any(named)
    for path, part, is_split in zip(paths, parts, named, strict=True):
        if divided and (not is_split or len(part) < 2):
            raise SeverityError(
                f"{root}: some folders are named for splits ({', '.join(sorted(SPLIT_FOLDERS))}), but {path} does not lie "
                "in a class within one. Where a split is a folder, every image lies in <split>/<class>/; move or rename "
                "the others."
            )
    below = [part[1:] if divided else part for part in parts]
    frame = pandas.DataFrame({"path": paths, "class": [part[0] for part in below]})
    if divided:
        frame["split"] = [SPLIT_FOLDERS[part[0].lower()] for part in parts]
    if any(len(part) > 1 for part in below):
        # Folders below that of a patient, such as one for each study, are the same patient's.
        frame["patient"] = [part[1] if len(part) > 1 else path for part, path in zip(below, paths, strict=True)]
    return frame


def _check_names(path: Path, names: Sequence[str], ignore: Sequence[str], section: str) -> None:
    for number, name in enumerate(names):
        if name and name in names[:number]:
            raise SeverityError(f"{path}: more than one column is called {name!r}. Rename all but one.")
    for name in ignore:
        if name not in names:
            raise SeverityError(
                f"{path} has no column {name!r}, which `ignore` of {section} in params.yaml names. "
                f"{nearest(name, names)}"
            )


def _taken(path: Path, names: Sequence[str], columns: dict[str, str], section: str) -> dict[str, str]:
    wanted = {ours: columns.get(ours, ours) for ours in COLUMNS}
    taken = {ours: theirs for ours, theirs in wanted.items() if theirs in names}
    for ours, theirs in wanted.items():
        # A column by our own name need not be there, but for the path.
        if ours not in taken and (theirs != ours or ours == "path"):
            rest = [name for name in names if name not in taken.values()]
            said = _said({ours: "..."} | column_names.proposed(rest, rest, taken), section)
            raise SeverityError(
                f"{path}: the column {theirs!r} is missing. {nearest(theirs, names)} If another one holds the {ours}, "
                f"say so in params.yaml: {said}."
            )
    return taken


def _said(columns: dict[str, str], section: str) -> str:
    """How params.yaml says which column is which, as it is written there."""
    written = yaml.safe_dump(columns, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6).strip()
    return f"`columns` of {section}.collect, {written}"


def _refuse_unsaid(table: _Table) -> None:
    """Refuse columns that by their names are no labels but what COLUMNS has, as PatientID is the patient."""
    for column in table.labels:
        _refuse_alike(table, column)
    found = column_names.proposed(table.labels, _odd(table), table.taken)
    if found.get("class") in _odd(table) and len(_odd(table)) < len(table.labels):
        del found["class"]  # Other columns are labels, so there is no column of classes.
    if not found:
        return
    asked = ", ".join(f"{theirs!r} the {ours}" for ours, theirs in found.items())
    rest = [column for column in _odd(table) if column not in found.values()]
    others = [theirs for ours, theirs in found.items() if ours != "patient"]
    raise SeverityError(
        f"{table.path}: is the column {asked}? Say so in params.yaml: {_said(found, table.section)}."
        + (" Without it, images of one patient may stand in two splits." if "patient" in found else "")
        + (
            f" If not, list {table_checks.listed(map(repr, others))} under `ignore` of {table.section}."
            if others
            else ""
        )
        + (f" Columns that are no labels belong under `ignore` too: {rest}." if rest else "")
    )


def _odd(table: _Table) -> list[str]:
    """The columns that hold something else than states of labels."""
    return [column for column in table.labels if not table.raw[column].str.lower().isin(STATES).all()]


def _patient_first(table: _Table) -> str:
    """What comes before any column is left out: where none says whose image it is, one that is no label may."""
    if "patient" in table.taken or not _odd(table):
        return ""
    return f"If one of them says whose image it is, name it first: {_said({'patient': '...'}, table.section)}. "


def _paths(table: _Table) -> pandas.Series:
    texts = _filled(table, "path")
    column = table.theirs("path")
    words = "is absolute or leads out of the folder of the images; paths are relative to it, without '..'"
    table_checks.refuse(collection.outside(texts), texts, column, table.path, words)
    paths = texts.str.replace("\\", "/", regex=False).map(posixpath.normpath)
    table_checks.refuse_repeats(paths, column, table.path)
    return paths


def _ids(table: _Table, paths: pandas.Series) -> pandas.Series:
    if "id" in table.taken:
        ids = _filled(table, "id")
        table_checks.refuse(ids.duplicated(), ids, table.theirs("id"), table.path, "is duplicated; ids must be unique")
        return ids
    short = paths.str.replace(r"(?<=[^/])\.[^./]*$", "", regex=True)
    return paths if short.duplicated().any() else short


def _filled(table: _Table, ours: str) -> pandas.Series:
    """A column in which no cell may be blank."""
    texts = table.text(ours)
    table_checks.refuse(
        texts == "", texts, table.theirs(ours), table.path, f"is blank; every image must have its {ours}"
    )
    return texts


def _states(table: _Table, separator: str) -> pandas.DataFrame:
    """One float column a label."""
    if "class" not in table.taken:
        states = _label_states(table)
        where = f"columns of labels: {table_checks.listed(table.labels) or 'none'}"
    elif table.labels:
        raise SeverityError(
            f"{table.path} has the column {table.theirs('class')!r} as well as {table_checks.listed(table.labels)}. "
            f"{_patient_first(table)}If the column {table.theirs('class')!r} has all classes, list the others under "
            f"`ignore` of {table.section} in params.yaml; if they are labels, of which an image may have several, list "
            "the former there."
        )
    else:
        states = _class_states(table, separator)
        where = f"column {table.theirs('class')!r}: one class, {''.join(states)!r}"
    if len(states.columns) < 2:
        raise SeverityError(
            f"{table.path}, {where}. There must be at least two to decide between: a column `class` that names the "
            "class of each image, also of the healthy ones, or two columns of labels."
        )
    _check_labels(table, states.columns)
    return states


def _class_states(table: _Table, separator: str) -> pandas.DataFrame:
    """Of each class that the column `class` names: 1 where it does, else 0. In alphabetical order."""
    cells, column = _filled(table, "class"), table.theirs("class")
    named = {cell: label_cells.split(cell, separator) for cell in cells.unique()}
    classes = sorted({name for names in named.values() for name in names})
    several = label_cells.looks_split_by(classes) if separator else None
    if several:
        name, mark = several
        table_checks.refuse(
            cells.map(lambda cell: name in named[cell]),
            cells,
            column,
            table.path,
            f"looks like several labels in one cell. Set {table.section}.read.label_separator in params.yaml to "
            f"{mark!r} to have them taken apart, or to '' if each cell is one class",
        )
    states = {cell: [float(name in names) for name in classes] for cell, names in named.items()}
    return pandas.DataFrame(numpy.array([states[cell] for cell in cells]), columns=classes)


def _label_states(table: _Table) -> pandas.DataFrame:
    """The columns of labels; those that hold something else are named all at once."""
    odd = _odd(table)
    try:
        states = {column: table.meaning(column, table.raw[column], STATES) for column in odd or table.labels}
    except SeverityError as error:
        raise SeverityError(
            f"{error} {_patient_first(table)}If these are not labels, list them under `ignore` of {table.section} in "
            f"params.yaml: {odd}"
        ) from None
    for column, state in states.items():
        if state.isna().all():
            raise SeverityError(
                f"{table.path}, column {column!r}: every cell is blank, so there is nothing to learn. If it is not a "
                f"label, list it under `ignore` of {table.section} in params.yaml."
            )
    return pandas.DataFrame(states)


def _refuse_alike(table: _Table, column: str) -> None:
    """Refuse a column such as 'Patient' or a second 'path' beside the one that is taken: it is hardly a label."""
    ours = column.strip().lower()
    if ours in table.taken:
        raise SeverityError(
            f"{table.path}: is the column {column!r} the {ours}? {table.taken[ours]!r} is taken for it. Say so in "
            f"params.yaml, {_said({ours: column}, table.section)}, or list {column!r} under `ignore`."
        )


def _check_labels(table: _Table, labels: Sequence[str]) -> None:
    alike: dict[str, str] = {}
    for label in labels:
        plain = " ".join(label.lower().split())
        if plain in alike:
            raise SeverityError(
                f"{table.path}: the labels {alike[plain]!r} and {label!r} differ only in case or spaces. Write them "
                "alike."
            )
        alike[plain] = label
        if label in (*METADATA, "path"):
            raise SeverityError(f"{table.path}: a class cannot be called {label!r}, the name of a column. Rename it.")


def _kept(views: pandas.Series, chosen: list, section: str) -> pandas.Series:
    if chosen != []:
        table_checks.check_words(chosen, sorted(set(views) - {""}), f"params.yaml: {section}.read.views")
    return views.isin(chosen) if chosen else pandas.Series(True, index=views.index)
