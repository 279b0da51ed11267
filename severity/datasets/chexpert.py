"""CheXpert: 224,316 chest radiographs of 65,240 patients of Stanford Hospital, labelled for 14 observations.

Irvin et al., "CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert Comparison", AAAI 2019,
arXiv:1901.07031. Available at https://stanfordmlgroup.github.io/competitions/chexpert/.
Licence: Stanford University Dataset Research Use Agreement, for research, not commercial; no copy may be passed on.

Form (CheXpert-v1.0-small, and CheXpert-v1.0 alike)::

    <root>/train.csv         223,414 images of 64,540 patients; labels mined from the radiologists' reports
    <root>/valid.csv         234 images of 200 other patients; labels by three radiologists, each 1 or 0
    <root>/test_labels.csv   668 images of 500 other patients; labels by five radiologists; or test.csv, or neither
    <root>/train/patient00001/study1/view1_frontal.jpg
    <root>/valid/patient64541/study1/view1_frontal.jpg
    <root>/test/patient64741/study1/view1_frontal.jpg

The column ``Path`` names an image, the release's own top folder in front or not. What a cell of a label column means:

    1.0    positive: the report mentions the observation and affirms it
    0.0    negative: the report mentions it and denies it
    -1.0   uncertain: the report hedges ("may represent"), or contradicts itself
    blank  unmentioned: the report says nothing about it

The test set of the competition was released later, apart, with labels but without sex, age and view. With it the 234
images are the validation split, as they were made to be; without it they are the test split, and
`severity.collections.splits` cuts the validation split out of train.csv, by patient. See docs/data.md.
"""

from pathlib import Path

import pandas

from severity.collections import manifest
from severity.collections.collection import Collection
from severity.core import table_checks, tables
from severity.core.errors import SeverityError

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

TRAIN, VALID = "train.csv", "valid.csv"
TESTS = ("test_labels.csv", "test.csv")  # Names under which the test table has been distributed.
# Of train.csv and valid.csv; the test table has Path and the labels, and may have the others.
COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA")
VIEWS = ("frontal", "lateral")

STATES = {"": float("nan"), "1.0": 1.0, "1": 1.0, "0.0": 0.0, "0": 0.0, "-1.0": -1.0, "-1": -1.0}
SEXES = {"Female": "F", "Male": "M", "Unknown": "", "": ""}
SIDES = {"Frontal": "frontal", "Lateral": "lateral"}
# LL and RL (left, right lateral) occur in a few rows that Frontal/Lateral calls frontal: which of the two is wrong is
# not known, so these keep the plain word.
PROJECTIONS = {"AP": "AP", "PA": "PA", "LL": "", "RL": "", "": ""}
PATH = r"^(?:[^/]+/)?(?P<path>(?P<id>(?:train|valid|test)/(?P<patient>patient[^/]+)/.+)\.[^./]+)$"
ASTRAY = r"(?:^|/)\.\.(?:/|$)|[\\\x00]"  # what would lead out of the root, on any system
SIDE = r"_(frontal|lateral)\.[^./]+$"


def collect(root: Path | str, out: Path | str, *, images: int) -> int:
    """Check that the collection is whole and of the right form, and write its manifest into the folder `out`.

    Args:
        root: folder of the collection.
        images: how many images its tables must name together: 223648 in the release, 224316 with the test set; 0
            accepts any number.

    Returns:
        The number of images.

    Raises:
        SeverityError: the folder, a table or an image is missing, a table is not of the form above, or the number
            differs.
    """
    root = Path(root)
    manifest.check_root(root, "chexpert", LINK)
    paths = read(root, views=list(VIEWS)).table["path"]
    manifest.check_count(len(paths), images, "chexpert")
    manifest.write(out, root, images=paths, label_tables=_splits(root, "auto"))
    return len(paths)


def read(root: Path | str, *, views: list, valid: str = "auto") -> Collection:
    """Read a collection of CheXpert's form, in the order of its files.

    Args:
        root: folder of the collection.
        views: which images: 'frontal', 'lateral' or both.
        valid: the split of the images in valid.csv: 'validation'; 'test', and then a test table is ignored; or
            'auto': 'validation' if there is a test table, else 'test'.

    Returns:
        One row an image: id (path without its suffix), path (relative to root), patient, sex ('F', 'M', ''), age
        (years), view ('PA', 'AP', 'lateral'; 'frontal' where AP/PA is not given), split ('' for train.csv), and the
        states of LABELS. Where the test table has no column for the side, the image's file name states it.

    Raises:
        SeverityError: a table or a column is missing, a cell holds something unknown, a path leads out of the root, two
            rows name one image, or there are two test tables.
    """
    root = Path(root)
    splits = _splits(root, valid)
    table, odd = zip(*(_read_table(root / name, split) for name, split in splits.items()), strict=True)
    table, odd = pandas.concat(table, ignore_index=True), pandas.concat(odd, ignore_index=True)
    kept = table["view"].where(table["view"] == "lateral", "frontal").isin(views)
    notes = {"official splits": {name: split for name, split in splits.items() if split}}
    notes |= {words: int(count) for words, count in odd[kept].sum().items() if count}
    return Collection(table[kept].reset_index(drop=True), LABELS, notes=notes)


def _splits(root: Path, valid: str) -> dict[str, str]:
    """File name of each table to read -> split of its images; '' is divided later."""
    tests = [name for name in TESTS if (root / name).is_file()]
    if len(tests) > 1:
        raise SeverityError(f"{root} has {' and '.join(tests)}, two tables of one test set: keep one of them.")
    if valid == "auto":
        valid = "validation" if tests else "test"
    return {TRAIN: "", VALID: valid} | {name: "test" for name in tests if valid == "validation"}


def _read_table(path: Path, split: str) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    """One table tidied, and one bool column a kind of oddity in it, named in words."""
    if not path.is_file():
        raise SeverityError(
            f"{path} is missing: a collection of CheXpert's form has {TRAIN} and {VALID} in the folder that `root` of "
            f"the data set names in params.yaml.{_below(path)}"
        )
    test = path.name in TESTS
    raw = tables.read_text(path, [*(COLUMNS[:1] if test else COLUMNS), *LABELS])
    parts = _paths(raw["Path"], path)
    side = _sides(raw, path)
    raw = raw.reindex(columns=[*COLUMNS, *LABELS], fill_value="")
    projection = table_checks.mapped(raw, "AP/PA", PROJECTIONS, path)
    stated = table_checks.numbers(raw["Age"], "Age", path)
    # An age of 0 (3 images of the release) stands for one that is not known.
    age = table_checks.plausible(stated.mask(stated == 0))
    tidy = {
        "id": parts["id"],
        "path": parts["path"],
        "patient": parts["patient"],
        "sex": table_checks.mapped(raw, "Sex", SEXES, path),
        "age": age,
        "view": projection.where((side == "frontal") & (projection != ""), side),
        "split": split,
    }
    odd = {
        f"ages of 0 or above {table_checks.OLDEST} years, taken as unknown": stated.notna() & age.isna(),
        "images of patients of unknown sex": raw["Sex"] == "Unknown",
        "frontal images with LL or RL in AP/PA, taken as frontal": (side == "frontal")
        & raw["AP/PA"].isin(["LL", "RL"]),
    }
    states = {label: table_checks.mapped(raw, label, STATES, path) for label in LABELS}
    return pandas.DataFrame(tidy | states), pandas.DataFrame(odd)


def _paths(column: pandas.Series, path: Path) -> pandas.DataFrame:
    parts = column.str.extract(PATH)
    table_checks.refuse(
        parts["path"].isna() | column.str.contains(ASTRAY),
        column,
        "Path",
        path,
        "is not of the form CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg",
    )
    table_checks.refuse_repeats(parts["id"], "Path", path)
    return parts


def _sides(raw: pandas.DataFrame, path: Path) -> pandas.Series:
    """'frontal' or 'lateral' of each row, from its column or else from the file name."""
    if "Frontal/Lateral" in raw.columns:
        return table_checks.mapped(raw, "Frontal/Lateral", SIDES, path)
    side = raw["Path"].str.extract(SIDE, expand=False)
    table_checks.refuse(
        side.isna(), raw["Path"], "Path", path, "does not state the side: it ends in neither _frontal nor _lateral"
    )
    return side


def _below(path: Path) -> str:
    """A hint for a root that is one folder too high."""
    candidates = sorted(path.parent.glob(f"*/{path.name}"))
    return f" There is a {candidates[0]}: is {candidates[0].parent} meant?" if candidates else ""
