"""Metrics of decisions that name a set of labels (what labels and nodes stand for: severity/arrays/label_tree.py)."""

from collections.abc import Sequence
from typing import Any

import numpy

from severity.arrays.distances import distances
from severity.arrays.label_tree import LabelTree
from severity.arrays.labelsets import most_specific
from severity.arrays.probabilities import chunks
from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy

# The label that an empty set is read as, where a data set has it.
NO_FINDING = "No Finding"
# What a trivial decision must not win, and whether more of it is better. Precision and recall only count together:
# naming everything has perfect recall.
COMPARED = {"hierarchical_f1": True, "h_loss": False, "best_match_severity": False}


def score(*, decided: numpy.ndarray, truth: numpy.ndarray, cost: numpy.ndarray, hierarchy: Hierarchy) -> dict[str, Any]:
    """Metrics of sets of labels.

    Args:
        decided: (N, K) bool. truth: (N, K) 1, 0 or NaN = masked: a node is left out of an image where it is not known,
            that is where no label at or below it is true and one is masked.
        cost: (K, K) cost[decision, truth].

    Returns:
        images: N. labels_named: mean number of labels decided.
        inconsistent: share of images whose set lacks a label above one that it names. All else but
            `best_match_severity` is measured on the sets closed upward.
        hierarchical_precision, _recall, _f1: over all nodes but the root, summed over images before dividing
            (Kiritchenko, Matwin, Nock and Famili 2006); None where nothing is named, or nothing is true.
        h_loss: mean over images of the weights of the wrong nodes all of whose ancestors are right (`hbayes`), 0 to 1.
        best_match_images, best_match_severity: see `best_match`; None where the set of no image is known.

    Raises:
        SeverityError: shapes or types do not fit.
    """
    if decided.dtype != bool or decided.shape != truth.shape or cost.shape != (truth.shape[1], truth.shape[1]):
        raise SeverityError(
            f"decided {decided.shape} {decided.dtype}, truth {truth.shape} and cost {cost.shape} do not fit: "
            "(N, K) bool, (N, K), (K, K)."
        )
    tree = LabelTree(hierarchy)
    counted = numpy.delete(numpy.arange(len(tree.parents)), tree.root)
    shared = named = true = inconsistent = 0
    loss = 0.0
    for rows in chunks(len(truth), len(tree.parents)):
        said, wanted = tree.closed(decided[rows]), tree.closed(truth[rows] == 1)
        known = wanted | ~tree.highest(numpy.isnan(truth[rows]))
        shared += int((said & wanted)[counted].sum())
        named += int((said & known)[counted].sum())
        true += int(wanted[counted].sum())
        inconsistent += int((said[tree.nodes].T != decided[rows]).any(axis=1).sum())
        loss += float(_h_losses(said, wanted, known, tree).sum())
    precision = shared / named if named else None
    recall = shared / true if true else None
    matches = best_match(decided=decided, truth=truth, cost=cost, hierarchy=hierarchy)
    return {
        "images": len(truth),
        "labels_named": float(decided.sum() / len(truth)),
        "inconsistent": inconsistent / len(truth),
        "hierarchical_precision": precision,
        "hierarchical_recall": recall,
        "hierarchical_f1": 2 * shared / (named + true) if named + true else None,
        "h_loss": loss / len(truth),
        "best_match_images": len(matches),
        "best_match_severity": float(matches.mean()) if len(matches) else None,
    }


def _h_losses(said: numpy.ndarray, wanted: numpy.ndarray, known: numpy.ndarray, tree: LabelTree) -> numpy.ndarray:
    """(N,) H-loss of each image, from (g, N) closed sets and where they are known."""
    wrong = (said != wanted) & known
    clean = numpy.ones(said.shape, dtype=bool)  # No ancestor is wrong.
    for node in tree.top_down[1:]:
        clean[node] = clean[tree.parents[node]] & ~wrong[tree.parents[node]]
    return tree.weights @ (wrong & clean)


def best_match(
    *, decided: numpy.ndarray, truth: numpy.ndarray, cost: numpy.ndarray, hierarchy: Hierarchy
) -> numpy.ndarray:
    """(M,) severity of each decided set: half the mean cost from its labels to their nearest true one, half the mean
    cost from the true labels to their nearest decided one.

    Both sets are read by their most specific labels, so that naming what a label implies neither costs nor earns. An
    empty set is read as {No Finding} where that is a class; else an empty set against one that is not has the largest
    cost, and two empty sets have none. Masked labels are left out of the decided set. An image without a true label is
    left out altogether where its set is not known: with a masked label, or where No Finding is known not to be true.
    """
    masked = numpy.isnan(truth)
    known = (truth == 1).any(axis=1) | ~(masked.any(axis=1) | _contradicted(truth, hierarchy.classes))
    truth, decided = truth[known] == 1, decided[known] & ~masked[known]
    severity = numpy.empty(len(truth))
    for rows in chunks(*truth.shape):
        ours = _read(most_specific(decided[rows], hierarchy), hierarchy.classes)
        theirs = _read(most_specific(truth[rows], hierarchy), hierarchy.classes)
        both = ours.any(axis=1) & theirs.any(axis=1)
        severity[rows] = numpy.where(ours.any(axis=1) == theirs.any(axis=1), 0.0, cost.max())
        from_ours = _mean_where(distances(truth=theirs[both], cost=cost), ours[both])
        from_theirs = _mean_where(distances(truth=ours[both], cost=cost.T), theirs[both])
        severity[rows.start + numpy.flatnonzero(both)] = (from_ours + from_theirs) / 2
    return severity


def _contradicted(truth: numpy.ndarray, classes: Sequence[str]) -> numpy.ndarray:
    """(N,) bool: No Finding is known to be 0, so that an image without a true label has one that nobody named."""
    if NO_FINDING not in classes:
        return numpy.zeros(len(truth), dtype=bool)
    return truth[:, list(classes).index(NO_FINDING)] == 0


def _read(sets: numpy.ndarray, classes: Sequence[str]) -> numpy.ndarray:
    if NO_FINDING in classes:
        sets[:, list(classes).index(NO_FINDING)] |= ~sets.any(axis=1)
    return sets


def _mean_where(values: numpy.ndarray, chosen: numpy.ndarray) -> numpy.ndarray:
    return numpy.where(chosen, values, 0).sum(axis=1) / chosen.sum(axis=1)


def not_better(scores: dict[str, Any], baselines: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Where a trivial decision does as well as `scores` or better: such a metric says nothing about these predictions.

    Args:
        scores: what `score` returned. baselines: name -> what `score` returned for it.

    Returns:
        a list of metric, value, baseline, baseline_value; empty where every compared metric is won.
    """
    warnings = []
    for metric, more_is_better in COMPARED.items():
        for name, other in baselines.items():
            if scores[metric] is None or other[metric] is None:
                continue
            won = scores[metric] > other[metric] if more_is_better else scores[metric] < other[metric]
            if not won:
                warnings.append(
                    {"metric": metric, "value": scores[metric], "baseline": name, "baseline_value": other[metric]}
                )
    return warnings
