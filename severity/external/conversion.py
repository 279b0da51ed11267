"""From external predictions (severity/collections/external_files.py) to the prediction file of a run (severity/predictions/predictions.py)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy
import pandas
import scipy.special

from severity.collections import splits
from severity.collections.collection import UNCERTAIN, Collection
from severity.collections.external_files import Sheet
from severity.core import table_checks
from severity.core.errors import SeverityError, nearest
from severity.core.hierarchy import Hierarchy
from severity.core.runs import PREPARED
from severity.predictions.predictions import Predictions
from severity.prepared import prepared

DETECT = "detect"
COLLECTION = "data/collection"
# How far from one the sum of a row may be that is still taken for a distribution: numbers printed with few digits.
ROUNDING = 0.01


@dataclass(frozen=True)
class Truth:
    """What is known of the images, joined by id: `frame` has the columns id, patient, split ('' = not said) and `labels`."""

    frame: pandas.DataFrame
    labels: tuple[str, ...]
    folder: str


def read_truth(folder: str) -> Truth:
    """The truth that params name: data/prepared, or data/collection, where nothing has been divided or decoded.

    Raises:
        SeverityError: another folder, or one that is not there or not whole.
    """
    if folder == PREPARED:
        table = prepared.read_table(folder)
        return Truth(table.frame, table.labels, folder)
    if folder == COLLECTION:
        collection = Collection.read(folder)
        labels = list(collection.labels)
        states = collection.table[labels]
        return Truth(collection.table.assign(**states.mask(states == UNCERTAIN)), collection.labels, folder)
    raise SeverityError(f"params.yaml: external.truth is {folder!r}. {nearest(folder, (PREPARED, COLLECTION))}")


def convert(
    run: str,
    sheet: Sheet,
    truth: Truth,
    hierarchy: Hierarchy,
    dataset: str,
    *,
    kind: str | dict,
    missing_class: str,
    unknown_ids: str,
    incomplete: str,
    validation_fraction: float,
    seed: int,
) -> Predictions:
    """Join a file with the truth and turn its numbers into posterior and marginal.

    Args:
        run, dataset: names. sheet: the file. truth: of all images of the data set.
        kind: what the numbers are: `marginal`, `posterior`, `sigmoid_logits`, `softmax_logits`; `detect`: rows that sum to
            one are a posterior, other numbers from 0 to 1 marginals, and anything else must be told; or a mapping from
            runs to these words, with a `default`.
        missing_class: what becomes of a class of the tree that the file lacks: `error`, or `complement`: it is true where
            no other class is, see `complement`.
        unknown_ids: `error` or `leave_out` images that the data set does not have.
        incomplete: `error` or `allow` images of the data set without a prediction.
        validation_fraction: share, in [0, 1), of the patients whose images become validation images; without effect
            where there are validation images already.
        seed: decides which patients.

    Returns:
        Rows in the data set's order. `record` tells what was done: kind, classes and images left out.

    Raises:
        SeverityError: an unknown option; numbers that are not of their kind; a class or label that is not the data set's or
            missing; an image that is unknown, missing, in another split or with another truth than in the data set; no
            test image is left.
    """
    word, detected = _kind(kind, run, sheet)
    posterior, marginal, classes = _probabilities(sheet, word, missing_class, truth.labels, hierarchy)
    rows, joined, counts = _joined(sheet, truth, unknown_ids, incomplete)
    divided = validation_fraction > 0 and "validation" not in set(joined["split"])
    if divided:
        joined["split"] = _divided(joined["patient"], validation_fraction, seed)
    if "test" not in set(joined["split"]):
        raise SeverityError(
            f"{sheet.path}: no test image of the data set {dataset} is among its {len(sheet.ids)} images."
        )
    record = {"file": sheet.path.name, "kind": word, "detected": detected, **classes, **counts, "divided": divided}
    return Predictions(
        ids=joined["id"].to_numpy(dtype=str),
        patients=joined["patient"].to_numpy(dtype=str),
        split=joined["split"].to_numpy(dtype=str),
        posterior=posterior[rows].astype(numpy.float32),
        marginal=marginal[rows].astype(numpy.float32),
        truth=joined[list(hierarchy.classes)].to_numpy(dtype=numpy.float32),
        classes=numpy.array(hierarchy.classes),
        class_hash=numpy.array(hierarchy.class_hash),
        run=numpy.array(run),
        dataset=numpy.array(dataset),
        record=numpy.array(json.dumps({"external": record}, sort_keys=True)),
    )


# --- The numbers


def _kind(kind: str | Mapping[str, str], run: str, sheet: Sheet) -> tuple[str, bool]:
    """The word for a file's numbers, and whether it was found out here."""
    if isinstance(kind, Mapping):
        kind = kind.get(run, kind["default"])
    if kind != DETECT:
        return kind, False
    if ((sheet.numbers < 0) | (sheet.numbers > 1)).any():
        raise SeverityError(
            f"{sheet.path}: numbers from {sheet.numbers.min():g} to {sheet.numbers.max():g} are no probabilities. If they are "
            "logits, set external.kind in params.yaml to sigmoid_logits or softmax_logits."
        )
    return ("posterior" if _sums_to_one(sheet.numbers).all() else "marginal"), True


def _sums_to_one(numbers: numpy.ndarray) -> numpy.ndarray:
    return numpy.abs(numbers.sum(axis=1) - 1) <= ROUNDING


def _probabilities(
    sheet: Sheet, kind: str, missing_class: str, labels: tuple[str, ...], hierarchy: Hierarchy
) -> tuple[numpy.ndarray, numpy.ndarray, dict[str, Any]]:
    """Posterior and marginal (N, K) in the hierarchy's order, and what became of missing and superfluous classes."""
    beside = [name for name in sheet.classes if name not in hierarchy.classes]
    for name in beside:
        # A label of the data set that the tree leaves out on purpose is no mistake of the file.
        if name not in labels:
            raise SeverityError(f"{sheet.path}: {name!r} is no class here. {nearest(name, hierarchy.classes)}")
    missing = [name for name in hierarchy.classes if name not in sheet.classes]
    distribution = kind in ("posterior", "softmax_logits")
    if missing and (missing_class == "error" or len(missing) > 1 or distribution):
        raise SeverityError(_about_missing(sheet, missing, missing_class, distribution))
    numbers = _plain(sheet, kind)
    order = [sheet.classes.index(name) for name in hierarchy.classes if name not in missing]
    numbers = numbers[:, order]
    if missing:
        place = hierarchy.classes.index(missing[0])
        nothing, rest = complement(numbers)
        posterior = numpy.insert(rest, place, nothing, axis=1)
        marginal = numpy.insert(numbers, place, nothing, axis=1)
    elif kind == "sigmoid_logits":
        # m / sum m in log space: a distribution also where every sigmoid is as good as 0.
        posterior, marginal = scipy.special.softmax(scipy.special.log_expit(sheet.numbers[:, order]), axis=1), numbers
    else:
        sums = numbers.sum(axis=1, keepdims=True)
        if (sums == 0).any():
            image = str(sheet.ids[int((sums == 0).argmax())])
            raise SeverityError(
                f"{sheet.path}: all probabilities of the image {image!r} are 0, so no class is the most probable "
                f"({int((sums == 0).sum())} such images). Give more digits, or logits."
            )
        posterior = numbers / sums
        marginal = posterior if distribution else numbers
    return posterior, marginal, {"classes_left_out": beside, "complement": missing[0] if missing else None}


def _plain(sheet: Sheet, kind: str) -> numpy.ndarray:
    """The file's numbers as probabilities of its classes."""
    numbers = sheet.numbers
    if kind == "sigmoid_logits":
        return scipy.special.expit(numbers)
    if kind == "softmax_logits":
        return scipy.special.softmax(numbers, axis=1)
    wrong = ((numbers < 0) | (numbers > 1)).any(axis=1)
    right = "from 0 to 1"
    if kind == "posterior":
        wrong |= ~_sums_to_one(numbers)
        right += f" that sum to one (within {ROUNDING})"
    if wrong.any():
        row = int(wrong.argmax())
        raise SeverityError(
            f"{sheet.path}: the image {str(sheet.ids[row])!r} has numbers from {numbers[row].min():g} to {numbers[row].max():g} "
            f"with the sum {numbers[row].sum():g}; a {kind} has numbers {right} ({int(wrong.sum())} such images). "
            "Correct the file, or external.kind in params.yaml."
        )
    return numbers


def _about_missing(sheet: Sheet, missing: list[str], missing_class: str, distribution: bool) -> str:
    told = f"{sheet.path} has no numbers for {table_checks.listed(missing)} of the tree. {nearest(missing[0], sheet.classes)}"
    if distribution:
        return f"{told} A distribution over classes must have all of them; use a tree without what is missing."
    if missing_class == "complement":
        return f"{told} external.missing_class: complement serves a single class; use a tree without the others."
    return (
        f"{told} Use a tree without it (the label under 'excluded'), or set external.missing_class to complement in params.yaml "
        "where the class is true of the images that have no other."
    )


def complement(marginal: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
    """What a class "none of these" gets from the (N, C) marginals of the others, as if they were independent.

    Returns:
        (N,) its probability, prod (1 - m), and (N, C) the posterior of the others, (1 - prod (1 - m)) m / sum m.
    """
    nothing = (1 - marginal).prod(axis=1)
    sums = marginal.sum(axis=1, keepdims=True)
    share = numpy.divide(marginal, sums, out=numpy.zeros_like(marginal), where=sums > 0)
    return nothing, (1 - nothing)[:, None] * share


# --- The images


def _joined(
    sheet: Sheet, truth: Truth, unknown_ids: str, incomplete: str
) -> tuple[numpy.ndarray, pandas.DataFrame, dict[str, int]]:
    """The rows of the file that count, in the data set's order, what the data set knows of them, and counts."""
    place = pandas.Index(truth.frame["id"]).get_indexer(sheet.ids)
    unknown = place < 0
    if unknown.any() and unknown_ids == "error":
        raise SeverityError(
            f"{sheet.path}: {int(unknown.sum())} of {len(place)} images are not in {truth.folder}: "
            f"{table_checks.listed(sheet.ids[unknown])}. Ids must be written as there, such as {truth.frame['id'].iloc[0]!r}; or "
            f"set external.unknown_ids to leave_out in params.yaml. {_stale(truth)}"
        )
    rows = numpy.flatnonzero(~unknown)
    rows = rows[numpy.argsort(place[rows], kind="stable")]
    frame = truth.frame.iloc[place[rows]].reset_index(drop=True)
    frame["split"] = _splits(sheet, rows, frame["split"])
    _check_truth(sheet, rows, frame, truth)
    kept = (frame["split"] != "train").to_numpy()
    rows, frame = rows[kept], frame[kept].reset_index(drop=True)
    lacking = _lacking(truth.frame, frame)
    if lacking and incomplete == "error":
        raise SeverityError(
            f"{sheet.path} lacks {len(lacking)} of the images of {truth.folder} that are scored: {table_checks.listed(lacking)}. "
            "Numbers on other images cannot be compared; predict them too, or set external.incomplete to allow in params.yaml."
        )
    counts = {
        "unknown_ids_left_out": int(unknown.sum()),
        "train_images_left_out": int((~kept).sum()),
        "images_without_prediction": len(lacking),
    }
    return rows, frame, counts


def _splits(sheet: Sheet, rows: numpy.ndarray, known: pandas.Series) -> numpy.ndarray:
    """(n,) the data set's split of each image, else the file's, else test."""
    known, said = known.to_numpy(dtype=object), sheet.split[rows].astype(object)
    torn = (known != "") & (said != "") & (known != said)
    if torn.any():
        row = int(torn.argmax())
        raise SeverityError(
            f"{sheet.path}: the image {str(sheet.ids[rows[row]])!r} is in the split {said[row]!r}, but the data set has it in "
            f"{known[row]!r} ({int(torn.sum())} such images). Predictions of training images make test scores too good: "
            "use the division of the data set, and leave the column split out."
        )
    return numpy.where(known != "", known, numpy.where(said != "", said, "test"))


def _check_truth(sheet: Sheet, rows: numpy.ndarray, frame: pandas.DataFrame, truth: Truth) -> None:
    for column, name in enumerate(sheet.labels):
        if name not in truth.labels:
            raise SeverityError(
                f"{sheet.path}: the label {name!r} is not the data set's. {nearest(name, truth.labels)}"
            )
        said, known = sheet.truth[rows, column], frame[name].to_numpy(dtype=numpy.float64)
        torn = ~numpy.isnan(said) & ~numpy.isnan(known) & (said != known) & (frame["split"] != "train").to_numpy()
        if torn.any():
            row = int(torn.argmax())
            raise SeverityError(
                f"{sheet.path}: for the image {str(sheet.ids[rows[row]])!r} {name!r} is {said[row]:g}, but {truth.folder} has "
                f"{known[row]:g} ({int(torn.sum())} such images). Leave the columns true:<class> out to score by the data "
                f"set's labels. {_stale(truth)}"
            )


def _stale(truth: Truth) -> str:
    """How to have the files looked at again, where they are what the truth was read from."""
    if truth.folder != COLLECTION:
        return ""
    return "If the files have changed, run `dvc repro --single-item --force collect` first."


def _lacking(truth: pandas.DataFrame, frame: pandas.DataFrame) -> list[str]:
    """Ids of the test images without a prediction, and of the validation images where others have one."""
    scored = {"test", "", *frame["split"]} - {"train"}
    there = set(frame["id"])
    return [image for image in truth["id"][truth["split"].isin(scored)] if image not in there]


def _divided(patients: pandas.Series, fraction: float, seed: int) -> pandas.Series:
    """validation or test, by patient."""
    table = pandas.DataFrame({"patient": patients, "split": ""})
    return splits.divide(table, validation_fraction=fraction, test_fraction=0.0, seed=seed).replace("train", "test")


def statement(predictions: Predictions) -> str:
    """One line that says what was converted."""
    told = predictions.known["external"]
    counts = {split: int((predictions.split == split).sum()) for split in ("validation", "test")}
    found = " (found out: set external.kind if that is wrong)" if told["detected"] else ""
    extra = [f"{told['complement']} is the complement of the others"] if told["complement"] else []
    extra += [f"{count} {words.replace('_', ' ')}" for words, count in told.items() if type(count) is int and count]
    extra += (
        [f"without the classes {table_checks.listed(told['classes_left_out'])}"] if told["classes_left_out"] else []
    )
    parts = [f"{counts['test']} test and {counts['validation']} validation images", f"{told['kind']}{found}", *extra]
    return f"{predictions.run}: {'; '.join(parts)}"
