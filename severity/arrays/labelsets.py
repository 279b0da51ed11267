"""Sets of labels on a tree: the most specific ones of a set."""

import numpy

from severity.core.hierarchy import Hierarchy


def most_specific(positive: numpy.ndarray, hierarchy: Hierarchy) -> numpy.ndarray:
    """(N, K) bool sets -> (N, K) bool: without the labels that stand for a node above another label of the set.

    CheXpert's labeller writes Lung Opacity beside Pneumonia; only Pneumonia says what is there.
    """
    kept = positive.copy()
    for index, below in hierarchy.general_classes.items():
        kept[:, index] &= ~positive[:, below].any(axis=1)
    return kept


def undetermined(labels: numpy.ndarray, hierarchy: Hierarchy, *, specific: bool = True) -> numpy.ndarray:
    """(N, K) bool: the classes of which nobody can say whether deciding them is right.

    Masked ones; and where only most specific labels are right, true ones below which one is masked and none is true, since
    that one may be what is there. Not those above a label that is known to be true, which are wrong whatever they are.

    Args:
        labels: (N, K) 1, 0 or NaN = masked. specific: whether most specific labels alone are right.
    """
    masked, positive = numpy.isnan(labels), labels == 1
    if not specific:
        return masked
    unknown = masked.copy()
    for index, below in hierarchy.general_classes.items():
        unknown[:, index] |= positive[:, index] & masked[:, below].any(axis=1)
        unknown[:, index] &= ~positive[:, below].any(axis=1)
    return unknown


def shares(positive: numpy.ndarray, hierarchy: Hierarchy) -> numpy.ndarray:
    """(N, K) bool sets -> (N, K) float64: 1/|Y| on each most specific label; rows sum to one, or to 0 for empty sets.

    What the softmax losses aim at, and so what a posterior is held against.
    """
    kept = most_specific(positive, hierarchy)
    return kept / numpy.maximum(kept.sum(axis=1, keepdims=True), 1)
