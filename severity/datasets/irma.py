"""IRMA: radiographs of the medical annotation tasks of ImageCLEF, 2005 to 2009, each with an IRMA code.

Lehmann, Schubert, Keysers, Kohnen & Wein, "The IRMA code for unique classification of medical images", SPIE 5033, 2003.
Tasks: Deselaers, Deserno & Müller, "Automatic medical image annotation in ImageCLEF 2007", Pattern Recognition Letters
29, 2008; Tommasi, Caputo, Welter, Güld & Deserno, "Overview of the CLEF 2009 medical image annotation track". Available
on request at https://publications.rwth-aachen.de/record/667225.
Licence: an agreement with the organisers, for research; the images may not be passed on.

Form, as of 2009; every name is an option of `read`::

    <root>/ImageCLEFmed2009_train_codes.02.csv   12,677 images; image_id;irma_code;05_class; ... ;08_irma_code
    <root>/ImageCLEFmed2009_test_codes.03.csv    1,733 images, the same columns
    <root>/ImageCLEFmed2009_train.02/1880.png    images, anywhere below the root, found by their id
    <root>/ImageCLEFmed2009_test.03/...
    <root>/T.csv, D.csv, A.csv, B.csv            code tables, optional: prefix;name, with or without a header

A code column may hold ``\\N`` or a blank where an image has no code. Instead of four code tables there may be one text
file, as the organisers' scoring program reads it: ``** <axis>`` before each axis, in the order T, D, A, B, then
``[prefix] name``.

The classes are the codes of the training table, or one axis of them. A test image with another code has no class, but
its code is known, and `severity.metrics.irma_score` scores it.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pandas

from severity.collections import manifest
from severity.collections.collection import Collection
from severity.core import tables
from severity.core.errors import SeverityError
from severity.irma import codes as irma_codes
from severity.irma.facts import CODE_TABLES, CODES, SUBJECT, IrmaFacts

LINK = "https://publications.rwth-aachen.de/record/667225"
ID = "image_id"
NO_CODE = ("", "\\N")  # What a database writes for nothing.
IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
TABLES = (".csv", ".txt")
PARAMS = "params.yaml: the data set's read"


def collect(root: Path | str, out: Path | str, *, images: int) -> int:
    """Write the manifest of all images and tables below the root into the folder `out`.

    Args:
        root: folder of the collection.
        images: how many images must be there: 14410 in 2009; 0 accepts any number above none.

    Returns:
        The number of images.

    Raises:
        SeverityError: the folder or all images are missing, two images have one name, or the number differs.
    """
    root = Path(root)
    manifest.check_root(root, "irma", LINK)
    paths = _find_images(root)
    manifest.check_count(len(paths), images, "irma")
    manifest.write(out, root, images=paths.values(), label_tables=manifest.below(root, TABLES))
    return len(paths)


def read(
    root: Path | str,
    *,
    axis: str,
    train_table: str,
    test_table: str,
    code_column: str,
    code_tables: dict | str,
) -> Collection:
    """Read a collection of IRMA codes, in the order of its two tables.

    Of each code the first training image has the split 'train', so that every class can be learnt; the others are to be
    divided, and the images of the test table are 'test'. There are no patients: each image is its own.

    Args:
        root: folder of the collection.
        axis: what the classes are: 'all', the whole codes, or one axis: 'technical', 'directional', 'anatomical' or
            'biological'.
        train_table, test_table: the tables, relative to `root`; without a test table ('') a test set is divided as
            well.
        code_column: their column with the codes.
        code_tables: axis -> file with its code table, or one file for all, relative to `root`; empty: none, then the
            branching factors of the IRMA score are counted in the training codes.

    Returns:
        The collection; its facts are an `IrmaFacts`.

    Raises:
        SeverityError: a table that is missing or wrong, a code that is malformed (with file and line), an image that
            has two rows or is not there, or no image with a code.
    """
    root = Path(root)
    axes = irma_codes.axes_of(axis)
    names = _read_code_tables(root, code_tables, axes)
    rows = [_read_table(root / train_table, code_column, axes, "train_table").assign(split="")]
    if test_table:
        rows.append(_read_table(root / test_table, code_column, axes, "test_table").assign(split="test"))
    table = pandas.concat(rows, ignore_index=True)
    _refuse_repeats(table)
    kept = table[table["left_out"] == ""].reset_index(drop=True)
    images = _find_images(root)
    kept["path"] = _paths(kept, images, root)
    train = kept["split"] == ""
    if not train.any():
        raise SeverityError(f"{root / train_table}, column {code_column!r}: no image has a code to learn.")
    labels = tuple(sorted(set(kept.loc[train, "code"])))
    unseen = kept[~kept["code"].isin(labels)]
    # The first image of each code stays in train, or a rare class might have no training image.
    kept.loc[train & ~kept["code"].duplicated(), "split"] = "train"
    facts = IrmaFacts(
        axis=axis,
        branching=CODE_TABLES if names else CODES,
        scheme=irma_codes.Scheme.from_tables(names) if names else irma_codes.Scheme.from_codes(labels, axes),
        truth=dict(zip(unseen["id"], unseen["code"], strict=True)),
        names=names,
    )
    notes = {"patients": "not told; each image is taken for a patient of its own"}
    notes |= table.loc[table["left_out"] != "", "left_out"].value_counts(sort=False).to_dict()
    notes |= _counted("images that have no row, left out", len(images.keys() - set(table["id"])))
    notes |= _counted("test images whose code no training image has: they have no class", len(unseen))
    notes |= _unknown_codes(sorted(set(kept["code"])), names)
    tidy = kept[["id", "path"]].assign(patient=kept["id"], sex="", age=float("nan"), view="", split=kept["split"])
    states = pandas.DataFrame({label: (kept["code"] == label).astype(float) for label in labels})
    return Collection(pandas.concat([tidy, states], axis=1), labels, notes=notes, facts={SUBJECT: facts.to_json()})


def _read_table(path: Path, column: str, axes: tuple[str, ...], option: str) -> pandas.DataFrame:
    """id, code (of the axes), where (file and line), and left_out: why, or ''."""
    if not path.is_file():
        raise SeverityError(f"{path} is missing. Name the table of the collection in {PARAMS}.{option}.")
    raw = tables.read_text(path, [ID, column], separator=";")
    where = pandas.Series([f"{path}, line {line}" for line in tables.lines(path)[1:]])
    ids, texts = raw[ID].str.strip(), raw[column].str.strip()
    blank = where[ids == ""]
    if len(blank):
        raise SeverityError(f"{blank.iloc[0]}, column {ID!r}: it is blank; each row names an image.")
    codes, left_out = [], []
    for text, place in zip(texts, where, strict=True):
        code, reason = _code(text, axes, f"{place}, column {column!r}")
        codes.append(code)
        left_out.append(reason)
    return pandas.DataFrame({"id": ids, "code": codes, "where": where, "left_out": left_out})


def _code(text: str, axes: tuple[str, ...], where: str) -> tuple[str, str]:
    """The code on the axes, in one form, and why it is left out or ''."""
    if text in NO_CODE:
        return "", "images without a code, left out"
    try:
        parts = dict(zip(irma_codes.AXES, irma_codes.parse(text), strict=True))
    except SeverityError as error:
        raise SeverityError(f"{where}: {error}") from None
    if all(irma_codes.is_clutter(parts[axis]) for axis in axes):
        return "", "images whose code says nothing (C), left out"
    return "-".join(parts[axis] for axis in axes), ""


def _refuse_repeats(table: pandas.DataFrame) -> None:
    again = table["id"].duplicated().to_numpy()
    if again.any():
        row = table.iloc[int(again.argmax())]
        first = table[table["id"] == row["id"]].iloc[0]
        raise SeverityError(
            f"{row['where']}: the image {row['id']!r} has a row already: {first['where']} ({int(again.sum())} repeated "
            "rows). Keep one."
        )


def _paths(table: pandas.DataFrame, images: dict[str, str], root: Path) -> pandas.Series:
    paths = table["id"].map(images)
    missing = table[paths.isna()]
    if len(missing):
        first = missing.iloc[0]
        raise SeverityError(
            f"{first['where']}: there is no image {first['id']!r} below {root} ({len(missing)} such rows); its file "
            f"would be named {first['id']}{IMAGES[0]}, or end in {', '.join(IMAGES[1:])}. Add the images, or take the "
            "rows out."
        )
    return paths


def _find_images(root: Path) -> dict[str, str]:
    """File name without its suffix -> path relative to `root`, of every image below it."""
    paths: dict[str, str] = {}
    for path in manifest.below(root, IMAGES):
        name = Path(path).stem
        if name in paths:
            raise SeverityError(f"{root}: the image {name} is duplicated: {paths[name]} and {path}. Remove one.")
        paths[name] = path
    if not paths:
        raise SeverityError(f"There is no image below {root}; images end in {', '.join(IMAGES)}.")
    return paths


def _counted(note: str, number: int) -> dict[str, int]:
    return {note: number} if number else {}


def _unknown_codes(codes: list[str], names: dict[str, dict[str, str]]) -> dict[str, int]:
    """A note on the codes with a step that the code tables do not have."""
    axes = tuple(names)

    def unknown(code: str) -> bool:
        return any(
            text.rstrip(irma_codes.UNSPECIFIED) not in ("", *names[axis]) and not irma_codes.is_clutter(text)
            for axis, text in zip(axes, irma_codes.parse(code, axes), strict=True)
        )

    return _counted("codes that the code tables do not have", sum(unknown(code) for code in codes) if names else 0)


def _read_code_tables(root: Path, code_tables: dict | str, axes: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Axis -> prefix -> name; empty where there are no code tables."""
    if not code_tables:
        return {}
    if isinstance(code_tables, str):
        entries = _sections(root / code_tables)
        return {axis: _checked(root / code_tables, axis, entries[axis]) for axis in axes}
    for axis in axes:
        if axis not in code_tables:
            raise SeverityError(
                f"{PARAMS}.code_tables has no table for the axis {axis!r}. Name a table for each of {', '.join(axes)}, "
                "or none at all."
            )
    return {axis: _checked(root / code_tables[axis], axis, _entries(root / code_tables[axis], axis)) for axis in axes}


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file that hold something, and their numbers."""
    if not path.is_file():
        raise SeverityError(f"{path} is missing. Name the code tables in {PARAMS}.code_tables, or none: {{}}.")
    for number, raw in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            text = raw.decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            raise SeverityError(f"{path}, line {number}: {raw!r} is not UTF-8. Save the file as UTF-8.") from None
        if text:
            yield number, text


Entries = list[tuple[int, str, str]]  # line, prefix, name


def _entries(path: Path, axis: str) -> Entries:
    """The rows of a table ``prefix;name``, a header left out."""
    entries = []
    for number, text in _lines(path):
        prefix, separator, name = (part.strip().strip('"') for part in text.partition(";"))
        if not separator:
            raise SeverityError(
                f"{path}, line {number}: {text!r} is not of the form prefix;name, as in 31;cervical spine."
            )
        entries.append((number, prefix, name))
    known = {prefix for _, prefix, _ in entries}
    if entries and not _is_entry(entries[0][1], axis, known):
        del entries[0]
    return entries


def _sections(path: Path) -> dict[str, Entries]:
    """The entries of each axis of a file with lines ``** axis`` and ``[prefix] name``."""
    sections: list[Entries] = []
    for number, text in _lines(path):
        entry = re.fullmatch(r"\[(?P<prefix>[^\]]*)\]\s*(?P<name>.*)", text)
        if text.startswith("**"):
            sections.append([])
        elif entry and sections:
            sections[-1].append((number, entry["prefix"], entry["name"]))
        else:
            raise SeverityError(
                f"{path}, line {number}: {text!r} is neither '** <axis>' nor '[prefix] name' below one."
            )
    if len(sections) != len(irma_codes.AXES):
        raise SeverityError(
            f"{path} has {len(sections)} lines '** <axis>'; there must be one for each of {', '.join(irma_codes.AXES)}."
        )
    return dict(zip(irma_codes.AXES, sections, strict=True))


def _is_entry(prefix: str, axis: str, known: set[str]) -> bool:
    """Whether a prefix has the form of one, and the one above it is known."""
    form = rf"[1-9a-z]{{0,{irma_codes.AXES[axis] - 1}}}[0-9a-z]"
    return bool(re.fullmatch(form, prefix)) and (len(prefix) == 1 or prefix[:-1] in known)


def _checked(path: Path, axis: str, entries: Entries) -> dict[str, str]:
    known = {prefix for _, prefix, _ in entries}
    lines: dict[str, int] = {}
    names = {}
    for number, prefix, name in entries:
        if not _is_entry(prefix, axis, known):
            raise SeverityError(
                f"{path}, line {number}: {prefix!r} is not a prefix of the {axis} axis: a prefix has 1 to "
                f"{irma_codes.AXES[axis]} characters 0-9 or a-z, none after a 0, and the prefix above it is in the "
                "table as well."
            )
        if prefix in lines:
            raise SeverityError(
                f"{path}, line {number}: the prefix {prefix!r} is duplicated, see line {lines[prefix]}."
            )
        lines[prefix] = number
        names[prefix] = name
    if not names:
        raise SeverityError(f"{path} names no prefix of the {axis} axis.")
    return names
