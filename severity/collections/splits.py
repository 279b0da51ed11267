"""Train, validation and test: divided by patient, and checked."""

import pandas

from severity.core import table_checks
from severity.core.errors import SeverityError
from severity.core.runs import seed_for

SPLITS = ("train", "validation", "test")

# What to do about a split without images.
FIX = {
    "train": "Lower prepare.validation_fraction or prepare.test_fraction in params.yaml.",
    "validation": "Raise prepare.validation_fraction in params.yaml.",
    "test": "Raise prepare.test_fraction in params.yaml.",
}


def divide(table: pandas.DataFrame, *, validation_fraction: float, test_fraction: float, seed: int) -> pandas.Series:
    """The split of each row; a row that comes with one keeps it, the others are divided by patient.

    Each patient has a uniform random number that depends only on `seed` and the patient's name, so patients who are
    added or removed move nobody else. Test lies at its upper end and validation at its lower end: changing one
    fraction does not change who is in the other.

    Args:
        table: columns patient and split ('' = to be divided).
        validation_fraction: expected share, in [0, 1), of the patients to be divided who go to validation; without
            effect where rows come with the split 'validation'.
        test_fraction: the same for test.
        seed: another seed, another division.

    Raises:
        SeverityError: the fractions leave no patient to train on.
    """
    given = set(table["split"])
    validation_fraction = 0.0 if "validation" in given else validation_fraction
    test_fraction = 0.0 if "test" in given else test_fraction
    if validation_fraction + test_fraction >= 1:
        raise SeverityError(
            f"params.yaml: prepare.validation_fraction {validation_fraction} and prepare.test_fraction {test_fraction} "
            "leave no patient to train on; their sum must be below 1."
        )
    open_rows = table["split"] == ""
    uniform = {patient: seed_for(seed, "split", patient) / 2**63 for patient in table["patient"][open_rows].unique()}
    position = table["patient"].map(uniform)
    split = table["split"].mask(open_rows, "train")
    return split.mask(open_rows & (position < validation_fraction), "validation").mask(
        open_rows & (position >= 1 - test_fraction), "test"
    )


def check(table: pandas.DataFrame) -> None:
    """Raise SeverityError if a patient is in two splits, or a split is empty.

    Args:
        table: columns patient and split, every row assigned.
    """
    splits_of = table.groupby("patient", sort=True)["split"].nunique()
    divided = splits_of.index[splits_of > 1]
    if len(divided):
        raise SeverityError(
            f"{len(divided)} patients have images in more than one split: {table_checks.listed(divided)}. What a "
            "network learns about a patient in training makes its test scores too good; correct the collection's "
            "official split lists or tables."
        )
    counts = {split: int((table["split"] == split).sum()) for split in SPLITS}
    for split, count in counts.items():
        if count == 0:
            listed = ", ".join(f"{name} {number}" for name, number in counts.items())
            raise SeverityError(f"The {split} split has no image ({listed}). {FIX[split]}")
