"""Null hierarchies: trees that carry no knowledge, the controls for every claim about one that does."""

from collections.abc import Iterator

import numpy

from severity.core.hierarchy import Hierarchy
from severity.core.runs import seed_for


def flat(hierarchy: Hierarchy) -> Hierarchy:
    """The same classes, all right under the root."""
    size = len(hierarchy.classes)
    return Hierarchy.from_parents([-1] + [0] * size, list(range(1, size + 1)), hierarchy.classes)


def shuffled(hierarchy: Hierarchy, seed: int) -> Hierarchy:
    """The same shape and the same classes, each in the place of another, drawn with `seed`.

    Nodes without a class lose their names, for what they were named after no longer lies below them.
    """
    places = hierarchy.stands_for[places_of(len(hierarchy.classes), seed)]
    return Hierarchy.from_parents(hierarchy.parents[: hierarchy.given_nodes], places, hierarchy.classes)


def places_of(classes: int, seed: int) -> numpy.ndarray:
    """(K,) the class whose place each class takes: a permutation that is not the identity."""
    random = numpy.random.default_rng(seed_for("shuffled hierarchy", seed))
    order = random.permutation(classes)
    while (order == numpy.arange(classes)).all():
        order = random.permutation(classes)
    return order


def shuffles(
    hierarchy: Hierarchy, cost: numpy.ndarray, *, count: int, seed: int
) -> Iterator[tuple[Hierarchy, numpy.ndarray]]:
    """Yield `count` shuffled trees, each with its own seed, and the (K, K) costs that move with the classes."""
    for number in range(count):
        own = seed_for("one of many shuffled hierarchies", seed, number)
        order = places_of(len(cost), own)
        yield shuffled(hierarchy, own), cost[numpy.ix_(order, order)]


def derive(hierarchy: Hierarchy, cost: numpy.ndarray, seed: int) -> dict[str, tuple[Hierarchy, numpy.ndarray]]:
    """The null hierarchies of a tree and of any cost matrix (K, K), with a cost matrix for each.

    flat: every mistake costs the same, the mean over all mistakes of the true costs, so that hd@1 is error x this.
    shuffled: the costs move with the classes; under a cost derived from the tree these are the shuffled tree's own.
    Both keep the average cost over all pairs of classes, not over the mistakes as they occur.
    """
    size = len(cost)
    order = places_of(size, seed)
    mean = cost.sum() / (size * (size - 1))
    return {
        "flat": (flat(hierarchy), mean * (1 - numpy.eye(size))),
        "shuffled": (shuffled(hierarchy, seed), cost[numpy.ix_(order, order)]),
    }
