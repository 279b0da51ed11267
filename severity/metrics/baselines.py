"""Trivial decisions that look at no image: what any metric must be better than to mean something."""

import numpy

from severity.arrays.distances import distances
from severity.arrays.labelsets import most_specific, shares
from severity.core.hierarchy import Hierarchy
from severity.core.runs import seed_for
from severity.decisions import class_rules


def rankings(
    *, validation: numpy.ndarray, images: int, cost: numpy.ndarray, hierarchy: Hierarchy, seed: int
) -> dict[str, numpy.ndarray]:
    """Rankings of classes by what is known without looking at an image.

    Args:
        validation: (M, K) bool truth of the validation images, where frequencies come from; without a row there is only
            `random`.
        images: N, how many images to decide for.

    Returns:
        name -> (N, K) int32. majority: the same for all, most frequent class first. least_risk: the same for all,
        ascending mean cost to the nearest of the most specific true classes of the validation images: of all constant
        decisions the one of least mean severity there. random: each image its own order.
    """
    known = validation[validation.any(axis=1)]
    size = validation.shape[1]
    every = {}
    if len(validation):
        frequency = shares(known, hierarchy).mean(axis=0) if len(known) else numpy.full(size, 1 / size)
        majority = class_rules.rank("argmax", posterior=frequency[None], cost=cost, hierarchy=hierarchy)
        every["majority"] = numpy.broadcast_to(majority, (images, size))
        truth = most_specific(known, hierarchy)
        severity = distances(truth=truth, cost=cost).mean(axis=0) if len(known) else cost.mean(axis=1)
        least = numpy.lexsort((-frequency, severity)).astype(numpy.int32)
        every["least_risk"] = numpy.broadcast_to(least, (images, size))
    orders = numpy.tile(numpy.arange(size, dtype=numpy.int32), (images, 1))
    return every | {"random": numpy.random.default_rng(seed_for("random ranking", seed)).permuted(orders, axis=1)}


def label_sets(*, validation: numpy.ndarray, images: int, seed: int) -> dict[str, numpy.ndarray]:
    """Sets of labels by what is known without looking at an image.

    Args:
        validation: (M, K) truth of the validation images, 1, 0 or NaN = masked; without a row there are only the sets
            that no frequency is wanted for, all_positive and all_negative. images: N.

    Returns:
        name -> (N, K) bool. all_positive, all_negative; majority: the most frequent set, masked labels read as not
        true, the first of equals; random: each label by itself as often as it is true.
    """
    size = validation.shape[1]
    sets = {
        "all_positive": numpy.ones((images, size), dtype=bool),
        "all_negative": numpy.zeros((images, size), dtype=bool),
    }
    if not len(validation):
        return sets
    patterns, first, counts = numpy.unique(validation == 1, axis=0, return_index=True, return_counts=True)
    most = numpy.flatnonzero(counts == counts.max())
    majority = patterns[most[first[most].argmin()]]
    known = (~numpy.isnan(validation)).sum(axis=0)
    frequency = (validation == 1).sum(axis=0) / numpy.maximum(known, 1)
    return sets | {
        "majority": numpy.tile(majority, (images, 1)),
        "random": numpy.random.default_rng(seed_for("random labels", seed)).random((images, size)) < frequency,
    }
