"""Decisions for labels whose truth is not known: how many there are, and what they can do to the metrics at most."""

from typing import Any

import numpy

from severity.arrays.labelsets import most_specific, undetermined
from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy
from severity.metrics.class_metrics import has_truth


def bounds(
    *, decided: numpy.ndarray, labels: numpy.ndarray, cost: numpy.ndarray, hierarchy: Hierarchy
) -> dict[str, Any]:
    """The error and the mean severity of decisions over all images with a true class, whatever the masked labels are.

    The bounds are sharp: for each end there are labels that reach it.

    Args:
        decided: (N,) class indices. labels: (N, K) 1, 0 or NaN = masked. cost: (K, K) cost[decision, truth].

    Returns:
        images: those with a true class whose decision is neither right nor wrong. top1_error,
        hierarchical_distance_at_1: [least, largest], the same twice where nothing is masked.

    Raises:
        SeverityError: no image has a true class.
    """
    known = has_truth(labels == 1)
    decided, labels = decided[known].astype(numpy.intp), labels[known]
    if not len(decided):
        raise SeverityError(f"None of the {len(known)} images has a true class, so no decision can be scored.")
    rows = numpy.arange(len(decided))
    open_ones = undetermined(labels, hierarchy)[rows, decided]
    wrong = ~most_specific(labels == 1, hierarchy)[rows, decided] & ~open_ones
    least, largest = _severities(decided, labels, cost, hierarchy)
    return {
        "images": int(open_ones.sum()),
        "top1_error": [float(wrong.mean()), float((wrong | open_ones).mean())],
        "hierarchical_distance_at_1": [float(least.mean()), float(largest.mean())],
    }


def _severities(
    decided: numpy.ndarray, labels: numpy.ndarray, cost: numpy.ndarray, hierarchy: Hierarchy
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """(N,) the least and the largest severity of each decision.

    Least: any masked label without a true one below may be true, and be the nearest. Largest: no masked label is true but
    one below each true label at most, in whose place it is then the most specific; the decision's nearest remains.
    """
    masked, positive = numpy.isnan(labels), labels == 1
    away = cost[decided]
    possible = most_specific(positive, hierarchy) | undetermined(labels, hierarchy)
    least = numpy.where(possible, away, numpy.inf).min(axis=1)
    farthest = away.copy()
    for index, below in hierarchy.general_classes.items():
        below_it = numpy.where(masked[:, below], away[:, below], -numpy.inf).max(axis=1)
        farthest[:, index] = numpy.maximum(farthest[:, index], below_it)
    largest = numpy.where(most_specific(positive, hierarchy), farthest, numpy.inf).min(axis=1)
    return least, largest
