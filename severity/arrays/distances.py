"""How far a decided class is from the true ones: its least cost to any of them."""

import numpy

from severity.arrays.labelsets import most_specific, undetermined
from severity.core.hierarchy import Hierarchy


def distances(*, truth: numpy.ndarray, cost: numpy.ndarray) -> numpy.ndarray:
    """(N, K) cost of deciding class k for image i: the least cost to any of its true classes, 0 at a true class.

    Args:
        truth: (N, K) bool, at least one true class in each row.
        cost: (K, K) cost[decision, truth].

    With one true class per image this is the usual distance; min over the set is our reading for several (METHODS:
    set-valued truth).
    """
    sets, which = numpy.unique(numpy.packbits(truth, axis=1), axis=0, return_inverse=True)
    table = numpy.empty((len(sets), truth.shape[1]))
    members = numpy.unpackbits(sets, axis=1, count=truth.shape[1]).astype(bool)
    for row, member in enumerate(members):
        table[row] = cost[:, member].min(axis=1)
    return table[which.reshape(-1)]


def nearest(*, decided: numpy.ndarray, truth: numpy.ndarray, cost: numpy.ndarray) -> numpy.ndarray:
    """(N, D) what `distances` says of D classes of each image, without the other classes.

    Args:
        decided: (N, D) class indices. truth: (N, K) bool, at least one true class in each row. cost: (K, K).
    """
    image, label = numpy.nonzero(truth)
    counts = numpy.bincount(image, minlength=len(truth))
    starts = numpy.cumsum(counts) - counts
    cells = decided.astype(numpy.intp) * len(cost)
    flat = cost.ravel()
    severity = flat.take(cells + label[starts][:, None])
    # The second true class of the images that have one, then the third, and so on.
    for number in range(1, int(counts.max(initial=1))):
        more = numpy.flatnonzero(counts > number)
        other = flat.take(cells[more] + label[starts[more] + number][:, None])
        severity[more] = numpy.minimum(severity[more], other)
    return severity


def mean_distance(
    *, decided: numpy.ndarray, labels: numpy.ndarray, cost: numpy.ndarray, hierarchy: Hierarchy
) -> float | None:
    """Mean cost of a decision to the nearest of the most specific true classes; None where no image can be scored.

    Left out are images without a true class, and decisions of which nobody can say whether they are right.

    Args:
        decided: (N,) class indices. labels: (N, K) 1, 0 or NaN = masked. cost: (K, K) cost[decision, truth].
    """
    truth = most_specific(labels == 1, hierarchy)
    known = truth.any(axis=1) & ~undetermined(labels, hierarchy)[numpy.arange(len(decided)), decided]
    if not known.any():
        return None
    return float(nearest(decided=decided[known, None], truth=truth[known], cost=cost).mean())
