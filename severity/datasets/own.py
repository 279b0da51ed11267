"""Your own images: a folder with a CSV table of labels. No code is needed, only three entries in params.yaml.

Form::

    <root>/labels.csv    one row an image; separated by commas, semicolons or tabs; UTF-8
    <root>/...           the images, in whatever folders

The columns, in any order; `columns` in params.yaml says which is which where a table has other names::

    path      the image, relative to the root                          must be there
    class     the name of its one class                                either this column,
    others    a label each: 1 positive, 0 negative, -1 uncertain,      or one column a label
              blank unmentioned; also 1.0, 0.0, -1.0, true, false
    id        a name of its own for each image                         else the path without its suffix
    patient   whose image it is: a patient is never in two splits      else each image is a patient of its own
    split     train, validation (valid, val), test; blank: by patient  else all are divided by patient
    view      a word                                                   else blank
    sex       F, M (female, male), blank for unknown                   else blank
    age       years, blank for unknown                                 else blank

Whatever other column the table has is a label; `ignore` names those that are not labels. Spaces around cells, upper and
lower case of the words above and columns without a name do not count.
Licence: yours; nothing is copied out of the folder but into data/.
"""

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas

from severity.collections import collection, manifest
from severity.collections.collection import Collection
from severity.core import table_checks, tables
from severity.core.columns import METADATA
from severity.core.errors import SeverityError, nearest

COLUMNS = ("path", "class", "id", "patient", "split", "view", "sex", "age")
SEPARATORS = (",", ";", "\t")
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
}
SPLITS = {
    "": "",
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}
SEXES = {"": "", "f": "F", "m": "M", "female": "F", "male": "M", "unknown": ""}
SECTION = "datasets.own"


def collect(root: Path | str, out: Path | str, *, table: str, columns: dict) -> int:
    """Check that all images are there, and write the manifest of the collection into the folder `out`.

    Args:
        root: folder of the images and of the table.
        table, columns: as for `read`; set both sections alike.

    Returns:
        The number of images.

    Raises:
        SeverityError: the folder, the table, its column path or an image is missing, or two rows name one image.
    """
    opened = _open(root, table, columns, ignore=[])
    paths = _paths(opened)
    manifest.write(out, Path(root), images=paths, label_tables=[table])
    return len(paths)


def read(root: Path | str, *, table: str, columns: dict, ignore: list, views: list) -> Collection:
    """Read a table of the form above, in its order.

    Args:
        root: folder of the images and of the table.
        table: name of the table in it.
        columns: this module's name of a column -> the table's, where they differ: {path: filename, class: diagnosis}.
        ignore: columns that are not labels.
        views: which images, by the words of the column view; [] for all.

    Returns:
        One row an image: COLUMNS as above without class; the classes in alphabetical order, one-hot, or the labels in
        the table's order: 1, 0, -1 (uncertain), NaN (unmentioned).

    Raises:
        SeverityError: the table is missing or not a table; an option names a column that is not there; a cell holds
            something unknown; a path is blank, absolute or leads out of the root; an image or an id is duplicated;
            there are both a column class and columns of labels; fewer than two classes. File, line and column are
            named.
    """
    opened = _open(root, table, columns, ignore)
    paths = _paths(opened)
    states = _states(opened)
    ages = table_checks.numbers(opened.text("age"), opened.theirs("age"), opened.path)
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
    kept = _kept(tidy["view"], views)
    mistyped = ages.notna() & tidy["age"].isna()
    no_truth = (states != 1).all(axis=1)
    notes: dict[str, Any] = {
        "images without a column 'patient', each taken as a patient of its own, though images of one patient may then "
        "stand in two splits": 0 if "patient" in opened.taken else int(kept.sum()),
        "images without a positive label, for which no single decision is right": int(no_truth[kept].sum()),
        f"ages outside 0 to {table_checks.OLDEST} years, taken as unknown": int(mistyped[kept].sum()),
        "paths with backslashes, read as slashes": int(opened.text("path")[kept].str.contains("\\", regex=False).sum()),
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


def _open(root: Path | str, table: str, columns: dict, ignore: list) -> _Table:
    root = Path(root)
    if not root.is_dir():
        raise SeverityError(
            f"There is no folder {root}. Set {SECTION}.root in params.yaml to the folder that holds the images and "
            f"{table}."
        )
    _check_options(table, columns)
    path = root / table
    if not path.is_file():
        raise SeverityError(
            f"There is no table {path}. Set `table` of {SECTION} in params.yaml to its name. "
            f"{nearest(table, (each.name for each in root.glob('*.csv*')))}"
        )
    separator = _separator(path, columns.get("path", "path"))
    names = [name.strip() for name in tables.header(path, separator)]
    raw = tables.read_text(path, [], separator).apply(lambda cells: cells.str.strip())
    raw.columns = names
    _check_names(path, names, ignore)
    rest = [name for name in names if name and name not in ignore]
    taken = _taken(path, rest, columns)
    labels = [name for name in rest if name not in taken.values()]
    return _Table(path, raw, taken, labels, left_out=[*ignore, *("one without a name" for name in names if not name)])


def _check_options(table: str, columns: dict) -> None:
    where = f"params.yaml: {SECTION}"
    collection.check_paths([table], f"{where}: `table`")
    for ours in columns:
        if ours not in COLUMNS:
            raise SeverityError(f"{where}: `columns` has the unknown key {ours!r}. {nearest(ours, COLUMNS)}")


def _separator(path: Path, column: str) -> str:
    """The first with which the table's first line names the `column`, else the one that gives most columns."""
    names = {separator: [name.strip() for name in tables.header(path, separator)] for separator in SEPARATORS}
    return max(SEPARATORS, key=lambda each: (column in names[each], len(names[each])))


def _check_names(path: Path, names: Sequence[str], ignore: Sequence[str]) -> None:
    for number, name in enumerate(names):
        if name and name in names[:number]:
            raise SeverityError(f"{path}: more than one column is called {name!r}. Rename all but one.")
    for name in ignore:
        if name not in names:
            raise SeverityError(
                f"{path} has no column {name!r}, which `ignore` of {SECTION} in params.yaml names. "
                f"{nearest(name, names)}"
            )


def _taken(path: Path, names: Sequence[str], columns: dict[str, str]) -> dict[str, str]:
    taken = {ours: columns.get(ours, ours) for ours in COLUMNS}
    for ours, theirs in taken.items():
        if theirs not in names and (ours in columns or ours == "path"):
            raise SeverityError(
                f"{path}: the column {theirs!r} is missing. {nearest(theirs, names)} If another one holds the {ours}, "
                f"say so in params.yaml: `columns` of {SECTION}, {{{ours}: ...}}."
            )
    return {ours: theirs for ours, theirs in taken.items() if theirs in names}


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


def _states(table: _Table) -> pandas.DataFrame:
    """One float column a label."""
    for column in table.labels:
        _refuse_alike(table, column)
    if "class" not in table.taken:
        states = _label_states(table)
        where = f"columns of labels: {table_checks.listed(table.labels) or 'none'}"
    elif table.labels:
        raise SeverityError(
            f"{table.path} has the column {table.theirs('class')!r} as well as {table_checks.listed(table.labels)}. If "
            f"each image has one class, list the latter under `ignore` of {SECTION} in params.yaml; if they are "
            "labels, of which an image may have several, list the former there."
        )
    else:
        classes = _filled(table, "class")
        states = pandas.get_dummies(classes, dtype=float)
        where = f"column {table.theirs('class')!r}: one class, {classes.iloc[0]!r}"
    if len(states.columns) < 2:
        raise SeverityError(
            f"{table.path}, {where}. There must be at least two to decide between: a column `class` that names the "
            "class of each image, also of the healthy ones, or two columns of labels."
        )
    _check_labels(table, states.columns)
    return states


def _label_states(table: _Table) -> pandas.DataFrame:
    """The columns of labels; those that hold something else are named all at once."""
    odd = [column for column in table.labels if not table.raw[column].str.lower().isin(STATES).all()]
    try:
        states = {column: table.meaning(column, table.raw[column], STATES) for column in odd or table.labels}
    except SeverityError as error:
        raise SeverityError(
            f"{error} If these are not labels, list them under `ignore` of {SECTION} in params.yaml: {odd}"
        ) from None
    for column, state in states.items():
        if state.isna().all():
            raise SeverityError(
                f"{table.path}, column {column!r}: every cell is blank, so there is nothing to learn. If it is not a "
                f"label, list it under `ignore` of {SECTION} in params.yaml."
            )
    return pandas.DataFrame(states)


def _refuse_alike(table: _Table, column: str) -> None:
    """Refuse a column such as 'Patient' or a second 'path', which is hardly meant as a label."""
    ours = column.strip().lower()
    if ours in COLUMNS:
        use = f"{table.taken[ours]!r} is taken for it" if ours in table.taken else f"it is not called {ours!r}"
        raise SeverityError(
            f"{table.path}: is the column {column!r} the {ours}? {use[0].upper()}{use[1:]}. Say so in params.yaml, "
            f"`columns` of {SECTION}: {{{ours}: {column}}}, or list {column!r} under `ignore`."
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


def _kept(views: pandas.Series, chosen: list) -> pandas.Series:
    if chosen != []:
        table_checks.check_words(chosen, sorted(set(views) - {""}), f"params.yaml: {SECTION}.read.views")
    return views.isin(chosen) if chosen else pandas.Series(True, index=views.index)
