"""ChestX-ray14: 112,120 frontal chest radiographs of 30,805 patients of the NIH Clinical Center, 14 findings.

Wang et al., "ChestX-ray8: Hospital-Scale Chest X-Ray Database and Benchmarks on Weakly-Supervised Classification and
Localization of Common Thorax Diseases", CVPR 2017, pp. 3462-3471; the 14 findings came with the release. Available at
https://nihcc.app.box.com/v/ChestXray-NIHCC.
Licence: the NIH Clinical Center provides the data and sets no restriction on its use.

Form; images lie in any of these folders, and only those that are there count, for a part of the collection is common::

    <root>/Data_Entry_2017_v2020.csv   or one of TABLES, plain or .gz; one row an image
    <root>/train_val_list.txt          86,524 file names, one a line } official split, divided by patient;
    <root>/test_list.txt               25,596 file names             } both or neither
    <root>/BBox_List_2017.csv          984 boxes of 8 findings in 880 images, plain or .gz; may be missing
    <root>/images_001/images/00000001_000.png ... <root>/images_012/images/   or <root>/images/, or <root>/

``Finding Labels`` joins an image's findings by ``|``; ``No Finding`` is always on its own, and is a class here. The
labels are text-mined and complete: a finding that is not named is negative. There is no uncertain state. Boxes are
drawn by hand. See docs/data.md.
"""

import os
import sys
from pathlib import Path

import numpy
import pandas

from severity.collections import manifest
from severity.collections.collection import BOX, Collection, no_boxes
from severity.core import table_checks, tables
from severity.core.errors import SeverityError

LINK = "https://nihcc.app.box.com/v/ChestXray-NIHCC"

LABELS = (
    "No Finding",
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)

# Names of the label table, the newest first; labels.csv is what cut-down copies of the collection carry.
TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv", "labels.csv")
LISTS = {"train_val_list.txt": "", "test_list.txt": "test"}  # file -> split of its images; '' is divided later
SEX_COLUMNS = ("Patient Sex", "Patient Gender")  # The releases differ.
COLUMNS = ("Image Index", "Finding Labels", "Patient ID", "Patient Age", "View Position")
VIEWS = ("PA", "AP")
SEXES = {"F": "F", "M": "M", "": ""}

BOXES = ("BBox_List_2017.csv",)
# The header of that file is "Bbox [x,y,w,h]" and three empty names; its commas part columns within the brackets too.
BOX_COLUMNS = ("Bbox [x", "y", "w", "h]")
BOX_LABELS = {"Infiltrate": "Infiltration"}  # its words for findings, where they differ
BOX_SIDE = 1024  # Boxes are in pixels of the released images, 1024 x 1024; the radiographs themselves were larger.


def collect(root: Path | str, out: Path | str, *, images: int) -> int:
    """Check that the collection is of the right form, and write its manifest into the folder `out`.

    Args:
        root: folder of the collection.
        images: how many images must be there: 112120 in the release; 0 accepts any number above none.

    Returns:
        The number of images.

    Raises:
        SeverityError: the folder, the label table or all images are missing, a table is not of the form above, or the
            number differs.
    """
    root = Path(root)
    manifest.check_root(root, "nih14", LINK)
    paths = read(root, views=list(VIEWS)).table["path"]
    manifest.check_count(len(paths), images, "nih14")
    label_tables = [_find_table(root), tables.find(root, BOXES), *(root / name for name in LISTS)]
    present = [path.name for path in label_tables if path is not None and path.is_file()]
    manifest.write(out, root, images=paths, label_tables=present)
    return len(paths)


def read(root: Path | str, *, views: list) -> Collection:
    """Read ChestX-ray14, or a part of it, in the order of its label table.

    Rows whose image is not there are left out; their number is reported on stderr and in the notes.

    Args:
        root: folder of the collection.
        views: which images: 'PA', 'AP' or both.

    Returns:
        One row an image: id (file name without its suffix), path (relative to root), patient, sex ('F', 'M', ''), age
        (years), view ('PA', 'AP'), split ('test' for test_list.txt, else ''), and LABELS, each 1 or 0; and the boxes of
        these images.

    Raises:
        SeverityError: no table or image, a missing column, an unknown value or finding, a repeated image, one official
            list without the other, an image in none or both of them, or a box outside of its image.
    """
    root = Path(root)
    path = _find_table(root)
    raw = tables.read_text(path, COLUMNS, blank_tail=True)
    names = _file_names(raw["Image Index"], path)
    paths = _find_images(root)
    stated = table_checks.ages(raw["Patient Age"], "Patient Age", path)  # The first release writes 058Y, 011M, 003D.
    tidy = {
        "id": names.str.replace(r"\.[^.]*$", "", regex=True),
        "path": names.map(paths),
        "patient": raw["Patient ID"],
        "sex": table_checks.mapped(raw, _sex_column(raw, path), SEXES, path),
        "age": table_checks.plausible(stated),
        "view": table_checks.mapped(raw, "View Position", {view: view for view in VIEWS}, path),
        "split": _official_splits(root, names),
    }
    table = pandas.concat([pandas.DataFrame(tidy), _states(raw["Finding Labels"], path)], axis=1)
    has_image = table["path"].notna()
    _report_missing(root, path, has_image)
    kept = has_image & table["view"].isin(views)
    boxes, box_notes = _read_boxes(root, dict(zip(names[kept], table["id"][kept], strict=True)))
    mistyped = stated.notna() & table["age"].isna()
    notes = {
        "official splits": {name: split for name, split in LISTS.items() if (table["split"] == "test").any() and split},
        f"rows of {path.name} without an image, left out": int((~has_image).sum()),
        f"ages outside 0 to {table_checks.OLDEST} years, taken as unknown": int(mistyped[kept].sum()),
        **box_notes,
    }
    notes = {words: note for words, note in notes.items() if note}
    return Collection(table[kept].reset_index(drop=True), LABELS, boxes=boxes, notes=notes)


def _find_table(root: Path) -> Path:
    path = tables.find(root, TABLES)
    if path is None:
        raise SeverityError(f"{root} has no label table. Looked for {', '.join(TABLES)}, plain or with .gz.")
    return path


def _file_names(names: pandas.Series, path: Path) -> pandas.Series:
    table_checks.refuse(
        names.str.contains(r"[/\\\x00]") | (names == ""),
        names,
        "Image Index",
        path,
        "is not a file name; give it without a folder",
    )
    table_checks.refuse_repeats(names, "Image Index", path)
    return names


def _find_images(root: Path) -> dict[str, str]:
    """File name -> path relative to `root`, of every image in the folders where images may lie."""
    parts = sorted(folder for folder in root.glob("images_*/images") if folder.is_dir())
    paths: dict[str, str] = {}
    for folder in (root / "images", root, *parts):
        if not folder.is_dir():
            continue
        prefix = "" if folder == root else f"{folder.relative_to(root).as_posix()}/"
        for name in sorted(name for name in os.listdir(folder) if name.lower().endswith((".png", ".jpg", ".jpeg"))):
            path = prefix + name
            if name in paths:
                raise SeverityError(f"{root}: {name} is duplicated: {paths[name]} and {path}. Remove one.")
            paths[name] = path
    return paths


def _report_missing(root: Path, path: Path, has_image: pandas.Series) -> None:
    """Report on stderr how many rows have no image; raise SeverityError if none has one."""
    if not has_image.any():
        raise SeverityError(
            f"{root}: none of the {len(has_image)} images named by {path.name} is there. They were looked for in "
            f"{root}/images, {root} and {root}/images_*/images."
        )
    if not has_image.all():
        print(
            f"{root}: {int((~has_image).sum())} of {len(has_image)} rows of {path.name} have no image there and are "
            "left out.",
            file=sys.stderr,
        )


def _sex_column(raw: pandas.DataFrame, path: Path) -> str:
    for column in SEX_COLUMNS:
        if column in raw.columns:
            return column
    raise SeverityError(f"{path}: the column {' or '.join(map(repr, SEX_COLUMNS))} is missing.")


def _states(findings: pandas.Series, path: Path) -> pandas.DataFrame:
    """One float column a label, 1 where the text names it, else 0."""
    column = "Finding Labels"
    codes, texts = pandas.factorize(findings)  # 836 different texts in the whole collection
    named = [text.split("|") for text in texts]
    unknown = [next((word for word in words if word not in LABELS), None) for words in named]
    first = pandas.Series(unknown, dtype=object).iloc[codes]
    table_checks.refuse(first.notna(), first, column, path, "is not a finding of this collection", LABELS)
    contradictory = numpy.array(["No Finding" in words and len(words) > 1 for words in named])
    table_checks.refuse(contradictory[codes], findings, column, path, "says both 'No Finding' and a finding")
    states = numpy.array([[float(label in words) for label in LABELS] for words in named])
    return pandas.DataFrame(states[codes], columns=list(LABELS))


def _official_splits(root: Path, names: pandas.Series) -> pandas.Series:
    present = [name for name in LISTS if (root / name).is_file()]
    if not present:
        return pandas.Series("", index=names.index)
    if len(present) < len(LISTS):
        missing = next(name for name in LISTS if name not in present)
        raise SeverityError(
            f"{root} has {present[0]} but not {missing}. Put both there for the official split, or neither to have all "
            "images divided by patient."
        )
    listed_in = {name: names.isin(tables.read_words(root / name)) for name in LISTS}
    for wrong, words in (
        (~pandas.concat(listed_in, axis=1).any(axis=1), "in neither of"),
        (pandas.concat(listed_in, axis=1).all(axis=1), "in both of"),
    ):
        if wrong.any():
            raise SeverityError(
                f"{root}: {int(wrong.sum())} images of the label table are {words} {' and '.join(LISTS)}: "
                f"{table_checks.listed(names[wrong])}. Remove both lists to have all images divided by patient."
            )
    return listed_in["test_list.txt"].map({True: "test", False: ""})


def _read_boxes(root: Path, ids: dict[str, str]) -> tuple[pandas.DataFrame, dict[str, int]]:
    """The boxes of the images that are kept, and what was done to the others.

    Args:
        ids: file name -> id of the images that are kept.
    """
    path = tables.find(root, BOXES)
    if path is None:
        return no_boxes(), {}
    raw = tables.read_text(path, ["Image Index", "Finding Label", *BOX_COLUMNS], blank_tail=True)
    label = raw["Finding Label"].replace(BOX_LABELS)
    findings = LABELS[1:]
    table_checks.refuse(
        ~label.isin(findings), label, "Finding Label", path, "is not a finding of this collection", findings
    )
    left, top, width, height = (table_checks.numbers(raw[column], column, path) / BOX_SIDE for column in BOX_COLUMNS)
    edges = pandas.DataFrame({"left": left, "top": top, "right": left + width, "bottom": top + height})
    inside = edges.clip(0, 1)
    sound = numpy.isfinite(edges).all(axis=1) & (inside["left"] < inside["right"]) & (inside["top"] < inside["bottom"])
    table_checks.refuse(
        ~sound,
        raw[list(BOX_COLUMNS)].agg(",".join, axis=1),
        "Bbox [x,y,w,h]",
        path,
        f"is not a box within an image of {BOX_SIDE} x {BOX_SIDE} pixels",
    )
    boxes = inside.assign(id=raw["Image Index"].map(ids), label=label)[list(BOX)]
    kept = boxes["id"].notna()
    notes = {
        "bounding boxes cut off at the edge of their image": int((edges != inside).any(axis=1)[kept].sum()),
        "bounding boxes of images that are not here, left out": int((~kept).sum()),
    }
    return boxes[kept].reset_index(drop=True), notes
