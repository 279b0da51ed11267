"""Does the tree help because it is right? The true tree against many with the classes in each other's places."""

from collections.abc import Sequence

import numpy

from severity.core.hierarchy import Hierarchy
from severity.decisions import temperature
from severity.decisions.decider import Decider
from severity.metrics import class_metrics
from severity.metrics.record import Permutation, Shuffled
from severity.predictions.predictions import Predictions
from severity.tree import nulls

# The rules that decide without a tree, so that no tree can do better.
TREELESS = ("argmax",)
# Two means of the same severities in another order differ by rounding only.
TIE = 1e-12


def permutation_test(
    words: Sequence[str],
    images: Predictions,
    truth: numpy.ndarray,
    decider: Decider,
    *,
    unknown: numpy.ndarray,
    shuffles: int,
    seed: int,
) -> dict[str, Permutation]:
    """Rule -> what its decisions by the true tree are worth, against those by `shuffles` shuffled ones.

    All are scored by the true cost. p = (1 + trees that do as well or better) / (1 + trees), one-sided: the chance of so
    good a result if the classes were put on the tree at random. A shuffled tree may equal the true one where classes only
    change places with their siblings; it counts as one that does as well.

    Args:
        words: of rules that decide a class; those without a tree are left out. images: that are scored, N of them.
        truth: (N, K) bool, their most specific true classes, at least one each. decider: of the run.
        unknown: (N, K) bool, classes whose truth is masked: an image for which one is decided is left out, tree by tree.
        shuffles: how many trees; with 0 there is nothing to tell. seed: of them.
    """
    ranking = [word for word in words if temperature.split(word)[0] not in TREELESS]
    if not shuffles or not ranking:
        return {}
    distances = class_metrics.distances(truth=truth, cost=decider.cost)
    masked = unknown.any()
    row_starts = numpy.arange(len(truth)) * truth.shape[1]

    def score(word: str, hierarchy: Hierarchy, cost: numpy.ndarray) -> tuple[float, float]:
        cells = row_starts + decider.first(word, images, hierarchy=hierarchy, cost=cost)
        if masked:
            cells = cells[~unknown.take(cells)]
            if not len(cells):  # Nothing is known of this tree's decisions: it is no better than any.
                return numpy.inf, numpy.inf
        return 1 - float(truth.take(cells).mean()), float(distances.take(cells).mean())

    true = {word: score(word, decider.hierarchy, decider.cost) for word in ranking}
    null: dict[str, list[tuple[float, float]]] = {word: [] for word in ranking}
    for hierarchy, cost in nulls.shuffles(decider.hierarchy, decider.cost, count=shuffles, seed=seed):
        for word in ranking:
            null[word].append(score(word, hierarchy, cost))
    return {
        word: {
            "trees": shuffles,
            "top1_error": _against(true[word][0], [error for error, _ in null[word]]),
            "hierarchical_distance_at_1": _against(true[word][1], [distance for _, distance in null[word]]),
        }
        for word in ranking
    }


def _against(value: float, null: Sequence[float]) -> Shuffled:
    as_good = sum(each <= value + TIE for each in null)
    return {
        "value": value,
        "least": min(null),
        "median": float(numpy.median(null)),
        "largest": max(null),
        "p": (1 + as_good) / (1 + len(null)),
    }
