"""Sums over subtrees (numpy): from a distribution over classes to the probability of every node."""

import numpy

from severity.core.hierarchy import Hierarchy


def probabilities(posterior: numpy.ndarray, hierarchy: Hierarchy) -> numpy.ndarray:
    """(N, K) distributions over classes -> (N, n) float64 probability of each node: the sum over the classes below it.

    Sums are added child by child in node order, so that the order of the classes changes no bit.
    """
    sums = numpy.zeros((len(hierarchy.parents), len(posterior)))
    sums[hierarchy.class_nodes] = posterior.T
    for node in reversed(hierarchy.top_down[1:]):
        sums[hierarchy.parents[node]] += sums[node]
    return sums.T


def leaf_counts(hierarchy: Hierarchy) -> numpy.ndarray:
    """(n,) number of classes at or below each node."""
    return numpy.array([len(below) for below in hierarchy.classes_below])
