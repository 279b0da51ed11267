"""From external predictions (severity/collections/external_files.py) to the prediction file of a run (severity/predictions/predictions.py)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy
import pandas
import scipy.special

from severity.arrays import tree_model
from severity.collections import splits
from severity.collections.collection import UNCERTAIN, Collection
from severity.collections.external_files import Sheet, stem
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
# How far above its parent's the probability of a node may be: numbers printed with few digits. It is cut.
EXCESS = 1e-6


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
    """Join a file with the truth and turn its numbers into probabilities of classes and nodes.

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
        Rows in the data set's order. `record` says what was done: kind, nodes given, classes and images left out.

    Raises:
        SeverityError: an unknown option; numbers that are not of their kind; a node that is more probable than its parent;
            a class, node or label that is not the data set's, or a class that is missing; an image that is unknown, missing, in another split or with another truth than in the data set; no
            test image is left.
    """
    word, detected = _kind(kind, run, sheet)
    log_posterior, node_logits, classes = _probabilities(sheet, word, missing_class, truth.labels, hierarchy)
    rows, joined, counts = _joined(sheet, truth, unknown_ids, incomplete)
    divided = validation_fraction > 0 and "validation" not in set(joined["split"])
    if divided:
        joined["split"] = _divided(joined["patient"], validation_fraction, seed)
    if "test" not in set(joined["split"]):
        raise SeverityError(
            f"{sheet.path}: no test image of the data set {dataset} is among its {len(sheet.ids)} images."
        )
    record = {"file": sheet.path.name, "kind": word, "detected": detected, **classes, **counts, "divided": divided}
    return Predictions.of(
        hierarchy,
        ids=joined["id"].to_numpy(dtype=str),
        patients=joined["patient"].to_numpy(dtype=str),
        split=joined["split"].to_numpy(dtype=str),
        truth=joined[list(hierarchy.classes)].to_numpy(dtype=numpy.float32),
        run=run,
        dataset=dataset,
        log_posterior=None if log_posterior is None else log_posterior[rows],
        node_logits=None if node_logits is None else node_logits[rows],
        record={"external": record},
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
) -> tuple[numpy.ndarray | None, numpy.ndarray | None, dict[str, Any]]:
    """Log posterior (N, K) and log-odds of nodes (N, n), None for what follows from the other, and what became of names.

    The posterior is the file's where it has one; the nodes are where it has labels or nodes.
    """
    beside = [name for name in sheet.classes if name not in hierarchy.classes]
    for name in beside:
        # A label of the data set that the tree leaves out on purpose is no mistake of the file.
        if name not in labels:
            raise SeverityError(f"{sheet.path}: {name!r} is no class here. {nearest(name, hierarchy.classes)}")
    for name in sheet.nodes:
        if name not in hierarchy.names:
            raise SeverityError(f"{sheet.path}: {name!r} is no node of the tree. {nearest(name, hierarchy.names)}")
    missing = [name for name in hierarchy.classes if name not in sheet.classes]
    distribution = kind in ("posterior", "softmax_logits")
    if missing and (missing_class == "error" or len(missing) > 1 or distribution):
        raise SeverityError(_about_missing(sheet, missing, missing_class, distribution))
    record = {
        "classes_left_out": beside,
        "complement": missing[0] if missing else None,
        "nodes_given": list(sheet.nodes),
    }
    order = [sheet.classes.index(name) for name in hierarchy.classes if name not in missing]
    if distribution:
        log_posterior = _log_posterior(sheet, kind, order)
        if not sheet.nodes:
            return log_posterior, None, record
        computed = tree_model.node_logits_of_classes(log_posterior, hierarchy)
        return log_posterior, _with_given(computed, sheet, kind, hierarchy), record
    logits = _label_logits(sheet, kind, order, refuse_empty=not missing)
    place = hierarchy.classes.index(missing[0]) if missing else None
    if missing:
        # Until the others are known, as good as absent.
        logits = numpy.insert(logits, place, -tree_model.LARGEST, axis=1)
    for k, node in enumerate(hierarchy.stands_for.tolist()):
        if hierarchy.names[node] in sheet.nodes and k != place:
            logits[:, k] = _given(sheet, kind, hierarchy.names[node])
    node_logits = _with_given(tree_model.node_logits_of_labels(logits, hierarchy), sheet, kind, hierarchy)
    if missing:
        _refuse_node_of(hierarchy, place, sheet)
        return *complement(node_logits, place, hierarchy), record
    return None, node_logits, record


def _log_posterior(sheet: Sheet, kind: str, order: list[int]) -> numpy.ndarray:
    """(N, K) log probabilities of exclusive classes, the file's columns in `order` made to sum to one."""
    if kind == "softmax_logits":
        return scipy.special.log_softmax(sheet.numbers[:, order], axis=1)
    _check_numbers(sheet, kind)
    numbers = sheet.numbers[:, order]
    _refuse_empty(sheet, numbers)
    return numpy.log(numpy.maximum(numbers / numbers.sum(axis=1, keepdims=True), tree_model.SMALLEST))


def _label_logits(sheet: Sheet, kind: str, order: list[int], *, refuse_empty: bool) -> numpy.ndarray:
    """(N, C) log-odds that each label of the file is present, its columns in `order`."""
    if kind == "sigmoid_logits":
        return sheet.numbers[:, order]
    _check_numbers(sheet, kind)
    numbers = sheet.numbers[:, order]
    if refuse_empty:
        _refuse_empty(sheet, numbers)
    return tree_model.logits_of(numbers)


def _given(sheet: Sheet, kind: str, name: str) -> numpy.ndarray:
    """(N,) log-odds of a node that the file gives."""
    numbers = sheet.node_numbers[:, sheet.nodes.index(name)]
    if kind == "sigmoid_logits":
        return numbers
    wrong = (numbers < 0) | (numbers > 1)
    if wrong.any():
        row = int(wrong.argmax())
        raise SeverityError(
            f"{sheet.path}: the image {str(sheet.ids[row])!r} has {numbers[row]:g} for the node {name!r}, which is no "
            f"probability ({int(wrong.sum())} such images)."
        )
    return tree_model.logits_of(numbers)


def _with_given(computed: numpy.ndarray, sheet: Sheet, kind: str, hierarchy: Hierarchy) -> numpy.ndarray:
    """(N, n) log-odds of nodes, those that the file gives in the place of computed ones.

    A node that it does not give is raised to its largest child; own leaves that it does not give are computed anew where
    their node or another child of it was given. The root, where it is no label, is certain and not looked at.

    Raises:
        SeverityError: a number that is no probability, or a child that is more probable than its parent.
    """
    if not sheet.nodes:
        return computed
    certain = hierarchy.root not in hierarchy.stands_for
    own = tree_model.own_leaves(hierarchy)
    columns = list(computed.T)
    given = {node for node, name in enumerate(hierarchy.names) if name in sheet.nodes}
    for node in given - ({hierarchy.root} if certain else set()):
        columns[node] = _given(sheet, kind, hierarchy.names[node])
    for node in reversed(hierarchy.top_down[1:]):
        parent = int(hierarchy.parents[node])
        if parent not in given and own.get(parent) != node:
            columns[parent] = numpy.maximum(columns[parent], columns[node])
    anew = {own[node] for node in own if given & {node, *hierarchy.children[node]}} - given
    for node in hierarchy.top_down[1:]:
        parent = int(hierarchy.parents[node])
        if node not in anew:
            _refuse_rise(sheet, columns[node], columns[parent], hierarchy.names[node], hierarchy.names[parent])
            columns[node] = numpy.minimum(columns[node], columns[parent])
    if anew:
        root = [None if certain and node == hierarchy.root else column for node, column in enumerate(columns)]
        model = tree_model.with_own_leaves(root, hierarchy, tree_model.NUMPY)
        for leaf in anew:
            columns[leaf] = model[leaf]
    return numpy.stack(columns, axis=1)


def _refuse_rise(sheet: Sheet, child: numpy.ndarray, parent: numpy.ndarray, name: str, above: str) -> None:
    """Raise SeverityError where the log-odds (N,) of a child say more than EXCESS above its parent's probability."""
    lower, upper = scipy.special.expit(child), scipy.special.expit(parent)
    wrong = lower > upper + EXCESS
    if wrong.any():
        row = int(wrong.argmax())
        raise SeverityError(
            f"{sheet.path}: for the image {str(sheet.ids[row])!r} the node {name!r} has the probability {lower[row]:g}, its "
            f"parent {above!r} only {upper[row]:g} ({int(wrong.sum())} such images). A node is there whenever one below it "
            "is; correct the columns."
        )


def _refuse_node_of(hierarchy: Hierarchy, place: int, sheet: Sheet) -> None:
    """Raise SeverityError where the file gives the node of the class that is to be the complement of the others."""
    name = hierarchy.classes[place]
    if {hierarchy.names[hierarchy.class_nodes[place]], hierarchy.names[hierarchy.stands_for[place]]} & set(sheet.nodes):
        raise SeverityError(
            f"{sheet.path} gives the node of {name!r}, which is to be the complement of the others. Name the column prob:{name}."
        )


def complement(node_logits: numpy.ndarray, place: int, hierarchy: Hierarchy) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Give the class at `place` the probability that no other label is present; it excludes them.

    Args:
        node_logits: (N, n), where the class is as good as absent.

    Returns:
        (N, K) log posterior: log `nothing` for the class, log (1 - `nothing`) + that of the others for them, with
        nothing = prod (1 - M) over the root's other children, as if these were independent; and (N, n) log-odds of the
        nodes, `nothing` added to those at and above the class.
    """
    leaf, root = int(hierarchy.class_nodes[place]), hierarchy.root
    others = numpy.delete(tree_model.log_posterior_of_nodes(node_logits, hierarchy), place, axis=1)
    top = [child for child in hierarchy.children[root] if child != leaf] if root not in hierarchy.stands_for else [root]
    # Held between the least number and one that is not quite 1, so that both logarithms are finite.
    log_nothing = scipy.special.log_expit(-node_logits[:, top]).sum(axis=1)
    log_nothing = numpy.clip(log_nothing, numpy.log(tree_model.SMALLEST), -tree_model.SMALLEST)
    log_some = numpy.log(-numpy.expm1(log_nothing))
    log_posterior = log_some[:, None] + scipy.special.log_softmax(others, axis=1)
    node_logits = node_logits.copy()
    for node in hierarchy.ancestors(leaf)[1:]:
        if node != root or root in hierarchy.stands_for:
            node_logits[:, node] = tree_model.logits_of(
                scipy.special.expit(node_logits[:, node]) + numpy.exp(log_nothing)
            )
    node_logits[:, leaf] = log_nothing - log_some
    return numpy.insert(log_posterior, place, log_nothing, axis=1), node_logits


def _check_numbers(sheet: Sheet, kind: str) -> None:
    """Raise SeverityError unless the numbers are probabilities, those of a posterior with rows that sum to one."""
    numbers = sheet.numbers
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


def _refuse_empty(sheet: Sheet, numbers: numpy.ndarray) -> None:
    """Raise SeverityError where all probabilities of an image are 0."""
    empty = ~numbers.any(axis=1)
    if empty.any():
        raise SeverityError(
            f"{sheet.path}: all probabilities of the image {str(sheet.ids[int(empty.argmax())])!r} are 0, so no class is the "
            f"most probable ({int(empty.sum())} such images). Give more digits, or logits."
        )


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


# --- The images


def _joined(
    sheet: Sheet, truth: Truth, unknown_ids: str, incomplete: str
) -> tuple[numpy.ndarray, pandas.DataFrame, dict[str, int]]:
    """The rows of the file that count, in the data set's order, what the data set knows of them, and counts."""
    place, matched = _places(sheet, truth.frame["id"])
    unknown = place < 0
    if unknown.any() and unknown_ids == "error":
        raise SeverityError(
            f"{sheet.path}: {int(unknown.sum())} of {len(place)} images are not in {truth.folder}: "
            f"{table_checks.listed(sheet.ids[unknown])}. Ids must be written as there, such as "
            f"{truth.frame['id'].iloc[0]!r}, with or without the suffix of an image file; or "
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
        "ids_matched_without_suffix": matched,
        "unknown_ids_left_out": int(unknown.sum()),
        "train_images_left_out": int((~kept).sum()),
        "images_without_prediction": len(lacking),
    }
    return rows, frame, counts


def _places(sheet: Sheet, ids: pandas.Series) -> tuple[numpy.ndarray, int]:
    """(n,) the row of the data set that each id of the file names, -1 for none; how many were matched by their stems.

    An id that the data set does not have as it is may have, or lack, the suffix of an image file.

    Raises:
        SeverityError: two ids of the file are one without their suffixes, or one of the data set could be either.
    """
    place = pandas.Index(ids).get_indexer(sheet.ids)
    unknown = numpy.flatnonzero(place < 0)
    stems, theirs = ids.map(stem), pandas.Series(sheet.ids[unknown], dtype=str).map(stem)
    twice = set(stems[stems.duplicated()]) & set(theirs)
    found = pandas.Index(stems.drop_duplicates()).get_indexer(theirs)
    rows = numpy.where(found < 0, -1, stems.drop_duplicates().index.to_numpy()[found])
    again = pandas.Series(rows)[(rows >= 0) & (pandas.Series(rows).duplicated() | numpy.isin(rows, place))]
    if twice or len(again):
        name = min(twice) if twice else stems[again.iloc[0]]
        raise SeverityError(
            f"{sheet.path}: more than one image is called {name!r} but for the suffix of its file. Write the ids as "
            f"the data set has them, such as {ids.iloc[0]!r}."
        )
    place[unknown] = rows
    return place, int((rows >= 0).sum())


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
    extra += [f"with the nodes {table_checks.listed(told['nodes_given'])}"] if told["nodes_given"] else []
    extra += [f"{count} {words.replace('_', ' ')}" for words, count in told.items() if type(count) is int and count]
    extra += (
        [f"without the classes {table_checks.listed(told['classes_left_out'])}"] if told["classes_left_out"] else []
    )
    parts = [f"{counts['test']} test and {counts['validation']} validation images", f"{told['kind']}{found}", *extra]
    return f"{predictions.run}: {'; '.join(parts)}"
