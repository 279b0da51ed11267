"""CheXpert: 224,316 chest radiographs of 65,240 patients of Stanford Hospital, labelled for 14 observations.

Irvin et al., "CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert Comparison", AAAI 2019,
arXiv:1901.07031. To be had, after agreeing to its terms, at https://stanfordmlgroup.github.io/competitions/chexpert/.

Form (CheXpert-v1.0-small, and CheXpert-v1.0 alike)::

    <root>/train.csv   223,414 images of 64,540 patients; labels mined from the radiologists' reports
    <root>/valid.csv   234 images of 200 other patients; labels by three radiologists, each 1 or 0
    <root>/train/patient00001/study1/view1_frontal.jpg
    <root>/valid/patient64541/study1/view1_frontal.jpg

The column ``Path`` names an image, the release's own top folder in front. What a cell of a label column means:

    1.0    positive: the report mentions the observation and affirms it
    0.0    negative: the report mentions it and denies it
    -1.0   uncertain: the report hedges ("may represent"), or contradicts itself
    blank  unmentioned: the report says nothing about it

The hidden test set of the competition is not part of the release; here the radiologists' 234 images are the test split,
and `severity.splits` cuts the validation split out of train.csv, by patient.
"""

from pathlib import Path

import pandas

from severity import manifest, tables
from severity.errors import SeverityError

LINK = "https://stanfordmlgroup.github.io/competitions/chexpert/"

LABELS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)

SPLITS = {"train.csv": "", "valid.csv": "test"}  # file -> split of its rows; '' is divided later
COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA")
VIEWS = ("frontal", "lateral")

STATES = {"": float("nan"), "1.0": 1.0, "1": 1.0, "0.0": 0.0, "0": 0.0, "-1.0": -1.0, "-1": -1.0}
SEXES = {"Female": "F", "Male": "M", "Unknown": "", "": ""}
SIDES = {"Frontal": "frontal", "Lateral": "lateral"}
# LL and RL (left, right lateral) stand in a few rows that Frontal/Lateral calls frontal: which of the two is wrong the
# collection does not tell, so these keep the plain word.
PROJECTIONS = {"AP": "AP", "PA": "PA", "LL": "", "RL": "", "": ""}
PATH = r"^(?:[^/]+/)?(?P<path>(?P<id>(?:train|valid)/(?P<patient>patient[^/]+)/.+)\.[^./]+)$"


def collect(root: Path | str, out: Path | str, *, images: int) -> int:
    """Check that the collection is whole and of the right form, and write its manifest into the folder `out`.

    Args:
        root: folder of the collection.
        images: how many images train.csv and valid.csv must name together: 223648 in the release; 0 accepts any number.

    Returns:
        The number of images.

    Raises:
        SeverityError: the folder, a table or an image is missing, a table is not of the form above, or the number differs.
    """
    root = Path(root)
    manifest.check_root(root, "chexpert", LINK)
    table = read(root, views=list(VIEWS))
    manifest.check_count(len(table), images, "chexpert")
    manifest.write(out, root, images=table["path"], label_tables=SPLITS)
    return len(table)


def read(root: Path | str, *, views: list) -> pandas.DataFrame:
    """Read a collection of CheXpert's form into one tidy table, in the order of its files.

    Args:
        root: folder of the collection.
        views: which images: 'frontal', 'lateral' or both.

    Returns:
        One row an image: id (path without its suffix), path (relative to root), patient, sex ('F', 'M', ''), age (years),
        view ('PA', 'AP', 'lateral'; 'frontal' where AP/PA is not given), split ('test' for valid.csv, else ''), and one
        float column a label: 1, 0, -1 (uncertain), NaN (unmentioned).

    Raises:
        SeverityError: a table or a column is missing, a cell holds something unknown, or two rows name one image.
    """
    tables.check_words(views, VIEWS, "params.yaml: the data set's read.views")
    table = pandas.concat([_read_table(Path(root) / name, split) for name, split in SPLITS.items()], ignore_index=True)
    frontal = table["view"] != "lateral"
    wanted = (frontal & ("frontal" in views)) | (~frontal & ("lateral" in views))
    return table[wanted].reset_index(drop=True)


def _read_table(path: Path, split: str) -> pandas.DataFrame:
    if not path.is_file():
        raise SeverityError(
            f"{path} is missing: a collection of CheXpert's form has {' and '.join(SPLITS)} in the folder that `root` of "
            f"the data set names in params.yaml.{_below(path)}"
        )
    raw = tables.read_text(path, [*COLUMNS, *LABELS])
    parts = _paths(raw["Path"], path)
    side = tables.mapped(raw, "Frontal/Lateral", SIDES, path)
    projection = tables.mapped(raw, "AP/PA", PROJECTIONS, path)
    tidy = {
        "id": parts["id"],
        "path": parts["path"],
        "patient": parts["patient"],
        "sex": tables.mapped(raw, "Sex", SEXES, path),
        "age": tables.numbers(raw["Age"], "Age", path),
        "view": projection.where((side == "frontal") & (projection != ""), side),
        "split": split,
    }
    return pandas.DataFrame(tidy | {label: tables.mapped(raw, label, STATES, path) for label in LABELS})


def _paths(column: pandas.Series, path: Path) -> pandas.DataFrame:
    parts = column.str.extract(PATH)
    bad = parts["path"].isna().to_numpy()
    if bad.any():
        row = int(bad.argmax())
        raise SeverityError(
            f"{path}, line {tables.line(row)}, column 'Path': {column.iloc[row]!r} is not of the form "
            f"CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg ({int(bad.sum())} such rows)."
        )
    again = column.duplicated().to_numpy()
    if again.any():
        row = int(again.argmax())
        first = int((column == column.iloc[row]).to_numpy().argmax())
        raise SeverityError(
            f"{path}: lines {tables.line(first)} and {tables.line(row)} both name {column.iloc[row]!r}; "
            f"each image has one row ({int(again.sum())} repeated rows)."
        )
    return parts


def _below(path: Path) -> str:
    """A hint for a root that is one folder too high."""
    found = sorted(path.parent.glob(f"*/{path.name}"))
    return f" There is a {found[0]}: is {found[0].parent} meant?" if found else ""
