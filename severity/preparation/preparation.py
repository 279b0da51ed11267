"""Making data/prepared: divide by patient, turn states into targets, pick example images, and decode no image again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import pandas

from severity.collections import splits
from severity.collections.collection import BOX, Collection
from severity.core import files
from severity.core.columns import METADATA
from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy
from severity.decoding import decoding
from severity.preparation import labelling

EXAMPLE_SIZE = 256


def prepare(
    out: Path | str,
    collection: Collection,
    decoded: Sequence[str],
    hierarchy: Hierarchy,
    *,
    dataset: str,
    root: Path | str,
    policies: dict,
    validation_fraction: float,
    test_fraction: float,
    seed: int,
    min_positives: int,
    sixteen_bits: decoding.Range = "whole",
) -> dict[str, Any]:
    """Divide and label the decoded images of a collection, and write the folder `out` whole.

    The same input and options give the same bytes.

    Args:
        out: folder to write.
        collection: what its tables say.
        decoded: ids of the images that could be read, in the order of data/images.
        hierarchy: the tree that `labelling.apply` closes labels under.
        dataset: name of the collection.
        root: folder that the column path is relative to; the example images are read from it.
        policies: options of `labelling.apply`.
        validation_fraction, test_fraction, seed: see `severity.collections.splits.divide`; the seed is the policies' as
            well.
        min_positives: how many positive train images each label must have.
        sixteen_bits: what is white in 16-bit example images, see `severity.decoding.decoding.read_gray`.

    Returns:
        What summary.json holds.

    Raises:
        SeverityError: an option that does not fit the labels; the decoded images are not the collection's; a patient
            is in two splits, a split is empty, a label has too few positives in train, no test image has any.
    """
    labels = collection.labels
    table = _readable(collection.table, decoded)
    table = table.assign(
        split=splits.divide(table, validation_fraction=validation_fraction, test_fraction=test_fraction, seed=seed)
    )
    targets, violations = labelling.apply(table, labels, hierarchy, seed=seed, **policies)
    splits.check(targets)
    _check_positives(targets, labels, min_positives)
    _check_truth(targets, labels)
    boxes = collection.boxes[collection.boxes["id"].isin(table["id"])]
    with files.replacing(out) as folder:
        folder.mkdir()
        files.write_csv(folder / "table.csv", targets[[*METADATA, *labels]])
        files.write_csv(folder / "boxes.csv", boxes[list(BOX)])
        _write_examples(folder, root, table, targets, labels, sixteen_bits)
        summary = {
            "dataset": dataset,
            "images": len(table),
            "counts": labelling.counts(targets, labels),
            "states": labelling.states(table, labels),
            "violations": violations,
            "notes": collection.notes,
            "facts": collection.facts,
            "sha256": {"table.csv": files.sha256(folder / "table.csv")},
        }
        files.write_json(folder / "summary.json", summary)
    return summary


def _readable(table: pandas.DataFrame, decoded: Sequence[str]) -> pandas.DataFrame:
    """The rows whose image was decoded, in the order of data/images, which is the table's own."""
    readable = table[table["id"].isin(set(decoded))].reset_index(drop=True)
    if readable["id"].tolist() != list(decoded):
        raise SeverityError("data/images holds other images than data/collection. Run `dvc repro decode`.")
    return readable


def _check_positives(table: pandas.DataFrame, labels: tuple[str, ...], min_positives: int) -> None:
    positives = (table.loc[table["split"] == "train", list(labels)] > 0.5).sum()
    rare = positives[positives < min_positives]
    if len(rare):
        raise SeverityError(
            f"The train split has fewer than {min_positives} positive images of "
            f"{', '.join(f'{label} ({count})' for label, count in rare.items())}. Such a class cannot be learnt; lower "
            "prepare.min_positives in params.yaml to go on all the same (0 allows none at all)."
        )


def _check_truth(table: pandas.DataFrame, labels: tuple[str, ...]) -> None:
    test = table.loc[table["split"] == "test", list(labels)]
    if not (test == 1).any(axis=None):
        raise SeverityError(
            f"None of the {len(test)} test images has a positive label, so nothing could be scored after training. "
            "Give them labels, or take images without any out of the table: `python -m tools.classify` tells their "
            "classes by a trained network."
        )


def _write_examples(
    folder: Path,
    root: Path | str,
    table: pandas.DataFrame,
    targets: pandas.DataFrame,
    labels: tuple[str, ...],
    sixteen_bits: decoding.Range,
) -> None:
    """For each label the image that shows it best, and if possible no other label."""
    images = numpy.zeros((len(labels), EXAMPLE_SIZE, EXAMPLE_SIZE), numpy.uint8)
    ids = []
    for index, label in enumerate(labels):
        row = _example(table, targets, labels, label)
        ids.append("" if row is None else table["id"].iloc[row])
        if row is not None:
            original = decoding.read_gray(Path(root) / table["path"].iloc[row], sixteen_bits)
            images[index] = decoding.padded(original, EXAMPLE_SIZE)
    numpy.save(folder / "examples.npy", images)
    files.write_csv(folder / "examples.csv", pandas.DataFrame({"label": labels, "id": ids}))


def _example(table: pandas.DataFrame, targets: pandas.DataFrame, labels: tuple[str, ...], label: str) -> int | None:
    """Row of the positive image that is certain, then in the test split, frontal, with few labels, then first.

    Test labels are the better ones where they were made by other means: CheXpert's by radiologists, the phantoms'
    without noise. Looking at one test image of each label gives nothing away to a network.
    """
    rows = (targets[label] == 1).to_numpy().nonzero()[0]
    if not len(rows):
        return None
    candidates = targets.iloc[rows]
    uncertain = (table[label].iloc[rows] != 1).to_numpy()
    test = (candidates["split"] == "test").to_numpy()
    lateral = (candidates["view"] == "lateral").to_numpy()
    positives = (candidates[list(labels)] == 1).sum(axis=1).to_numpy()
    return int(rows[numpy.lexsort((rows, positives, lateral, ~test, uncertain))[0]])


def sentence(summary: dict[str, Any]) -> str:
    """One line that says what was prepared."""
    parts = ", ".join(
        f"{split} {count['images']} images of {count['patients']} patients"
        for split, count in summary["counts"].items()
    )
    return f"{summary['dataset']}: {parts}"
