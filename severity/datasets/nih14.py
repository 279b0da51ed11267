"""ChestX-ray14: 112,120 frontal chest radiographs of 30,805 patients of the NIH Clinical Center, 14 findings.

Wang et al., "ChestX-ray8: Hospital-Scale Chest X-Ray Database and Benchmarks on Weakly-Supervised Classification and
Localization of Common Thorax Diseases", CVPR 2017, pp. 3462-3471; the 14 findings came with the release. To be had at
https://nihcc.app.box.com/v/ChestXray-NIHCC. The NIH Clinical Center provides the data and sets no restriction on its use.

Form; images lie in any of these folders, and only those that are there count, for a part of the collection is common::

    <root>/Data_Entry_2017_v2020.csv   or one of TABLES, plain or .gz; one row an image
    <root>/train_val_list.txt          86,524 file names, one a line } official split, divided by patient;
    <root>/test_list.txt               25,596 file names             } both or neither
    <root>/images_001/images/00000001_000.png ... <root>/images_012/images/   or <root>/images/, or <root>/

``Finding Labels`` joins an image's findings by ``|``; ``No Finding`` stands alone and is a class of its own here. The
labels are text-mined and complete: a finding that is not named is negative. There is no uncertain state.
"""

import os
import sys
from pathlib import Path

import pandas

from severity import manifest, tables
from severity.errors import SeverityError, nearest

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
# The first release writes ages as 058Y, 011M, 003D: years, months, days.
YEARS = {"Y": 1.0, "M": 1 / 12, "D": 1 / 365.25, "": 1.0}


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
    table = read(root, views=list(VIEWS))
    manifest.check_count(len(table), images, "nih14")
    lists = [name for name in LISTS if (root / name).is_file()]
    manifest.write(out, root, images=table["path"], label_tables=[_find_table(root).name, *lists])
    return len(table)


def read(root: Path | str, *, views: list) -> pandas.DataFrame:
    """Read ChestX-ray14, or a part of it, into one tidy table, in the order of its label table.

    Rows whose image is not there are left out, and their number is told on stderr.

    Args:
        root: folder of the collection.
        views: which images: 'PA', 'AP' or both.

    Returns:
        One row an image: id (file name without its suffix), path (relative to root), patient, sex ('F', 'M', ''), age
        (years), view ('PA', 'AP'), split ('test' for test_list.txt, else ''), and one float column a label: 1 or 0.

    Raises:
        SeverityError: no table or image, a missing column, an unknown value or finding, a repeated image, one official
            list without the other, or an image in none or both of them.
    """
    tables.check_words(views, VIEWS, "params.yaml: the data set's read.views")
    root = Path(root)
    path = _find_table(root)
    raw = tables.read_text(path, COLUMNS)
    names = raw["Image Index"]
    _refuse_repeats(names, path)
    found = _find_images(root)
    tidy = {
        "id": names.str.replace(r"\.[^.]*$", "", regex=True),
        "path": names.map(found),
        "patient": raw["Patient ID"],
        "sex": tables.mapped(raw, _sex_column(raw, path), SEXES, path),
        "age": _ages(raw["Patient Age"], path),
        "view": tables.mapped(raw, "View Position", {view: view for view in VIEWS}, path),
        "split": _official_splits(root, names),
    }
    table = pandas.concat([pandas.DataFrame(tidy), _states(raw["Finding Labels"], path)], axis=1)
    there = table["path"].notna()
    if not there.any():
        raise SeverityError(
            f"{root}: none of the {len(table)} images named by {path.name} is there. They are looked for in "
            f"{root}/images, {root} and {root}/images_*/images."
        )
    if not there.all():
        print(
            f"{root}: {int((~there).sum())} of {len(table)} rows of {path.name} have no image there and are left out.",
            file=sys.stderr,
        )
    return table[there & table["view"].isin(views)].reset_index(drop=True)


def _find_table(root: Path) -> Path:
    candidates = [root / (name + suffix) for name in TABLES for suffix in ("", ".gz")]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise SeverityError(f"{root} has no label table. Looked for {', '.join(TABLES)}, plain or with .gz.")


def _find_images(root: Path) -> dict[str, str]:
    """File name -> path relative to `root`, of every image in the folders where images may lie."""
    parts = sorted(folder for folder in root.glob("images_*/images") if folder.is_dir())
    found: dict[str, str] = {}
    for folder in (root / "images", root, *parts):
        if not folder.is_dir():
            continue
        for name in sorted(name for name in os.listdir(folder) if name.lower().endswith((".png", ".jpg", ".jpeg"))):
            path = (folder / name).relative_to(root).as_posix()
            if name in found:
                raise SeverityError(f"{root}: {name} is there twice: {found[name]} and {path}. Remove one.")
            found[name] = path
    return found


def _refuse_repeats(names: pandas.Series, path: Path) -> None:
    again = names[names.duplicated()]
    if len(again):
        raise SeverityError(f"{path}: {len(again)} images have more than one row: {tables.listed(again)}.")


def _sex_column(raw: pandas.DataFrame, path: Path) -> str:
    for column in SEX_COLUMNS:
        if column in raw.columns:
            return column
    raise SeverityError(f"{path}: the column {' or '.join(map(repr, SEX_COLUMNS))} is missing.")


def _ages(texts: pandas.Series, path: Path) -> pandas.Series:
    unit = texts.str.extract(r"([YMD])$", expand=False).fillna("")
    return tables.numbers(texts.str.rstrip("YMD"), "Patient Age", path) * unit.map(YEARS)


def _states(findings: pandas.Series, path: Path) -> pandas.DataFrame:
    """One float column a label, 1 where the text names it, else 0."""
    named = findings.str.split("|").explode()
    unknown = named[~named.isin(LABELS)]
    if len(unknown):
        raise SeverityError(
            f"{path}, line {tables.line(int(unknown.index[0]))}, column 'Finding Labels': "
            f"{unknown.iloc[0]!r} is no finding of this collection. {nearest(unknown.iloc[0], LABELS)}"
        )
    states = pandas.get_dummies(named, dtype=float).groupby(level=0).max().reindex(columns=LABELS, fill_value=0.0)
    torn = states.index[(states["No Finding"] == 1) & (states.sum(axis=1) > 1)]
    if len(torn):
        raise SeverityError(
            f"{path}, line {tables.line(int(torn[0]))}, column 'Finding Labels': {findings.iloc[torn[0]]!r} says both "
            "'No Finding' and a finding."
        )
    return states


def _official_splits(root: Path, names: pandas.Series) -> pandas.Series:
    there = [name for name in LISTS if (root / name).is_file()]
    if not there:
        return pandas.Series("", index=names.index)
    if len(there) < len(LISTS):
        missing = next(name for name in LISTS if name not in there)
        raise SeverityError(
            f"{root} has {there[0]} but not {missing}. Put both there for the official split, or neither to have all "
            "images divided by patient."
        )
    members = {name: pandas.Series((root / name).read_text(encoding="utf-8").split()) for name in LISTS}
    listed_in = {name: names.isin(members[name]) for name in LISTS}
    for wrong, words in (
        (~pandas.concat(listed_in, axis=1).any(axis=1), "in neither of"),
        (pandas.concat(listed_in, axis=1).all(axis=1), "in both of"),
    ):
        if wrong.any():
            raise SeverityError(
                f"{root}: {int(wrong.sum())} images of the label table are {words} {' and '.join(LISTS)}: "
                f"{tables.listed(names[wrong])}. Remove both lists to have all images divided by patient."
            )
    return listed_in["test_list.txt"].map({True: "test", False: ""})
