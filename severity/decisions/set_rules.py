"""Decision rules that name a set of labels (what labels and nodes stand for: severity/arrays/label_tree.py)."""

from collections.abc import Callable

import numpy

from severity.arrays.label_tree import LabelTree
from severity.arrays.probabilities import chunks
from severity.core.errors import SeverityError, nearest
from severity.core.hierarchy import Hierarchy


def node_probabilities(marginal: numpy.ndarray, tree: LabelTree) -> numpy.ndarray:
    """(N, K) probabilities of labels -> (g, N) float64 of nodes, none below a node above its parent's.

    A network's marginals need not agree with the tree. Each node gets the largest of its own marginal and of its
    children's probabilities: the smallest change upward that P(parent) >= P(child) allows, exact where the children
    imply one another. The other bound, the sum over the children, would be exact where they exclude one another.
    """
    probability = tree.highest(numpy.asarray(marginal, dtype=numpy.float64))
    if tree.always:
        probability[tree.root] = 1
    return probability


def decide(
    rule: str, *, marginal: numpy.ndarray, hierarchy: Hierarchy, thresholds: numpy.ndarray | None
) -> numpy.ndarray:
    """Decide a set of labels for each image.

    Args:
        rule: a name in `RULES`.
        marginal: (N, K) probability of each label.
        thresholds: (K,) as `best_thresholds` gives them; only those in `FITTED` use them.

    Returns:
        (N, K) bool. A set of `hbayes` never lacks a label above one that it names.

    Raises:
        SeverityError: an unknown rule, or a marginal that is not (N, K) in [0, 1].
    """
    if rule not in RULES:
        raise SeverityError(f"Unknown rule for sets of labels {rule!r}. {nearest(rule, RULES)}")
    if marginal.ndim != 2 or marginal.shape[1] != len(hierarchy.classes):
        raise SeverityError(f"The marginal has the shape {marginal.shape}, not (images, {len(hierarchy.classes)}).")
    if not ((marginal >= 0) & (marginal <= 1)).all():
        raise SeverityError("A marginal is outside [0, 1].")
    decided = numpy.empty(marginal.shape, dtype=bool)
    for rows in chunks(len(marginal), len(hierarchy.parents)):
        decided[rows] = RULES[rule](marginal[rows], hierarchy, thresholds)
    return decided


def best_thresholds(marginal: numpy.ndarray, truth: numpy.ndarray) -> numpy.ndarray:
    """(K,) for each label the threshold t of largest F1 when m >= t is called positive.

    Args:
        marginal: (N, K) of validation images. truth: (N, K) 1, 0 or NaN = masked and left out.

    A threshold lies midway between two neighbouring scores (between the lowest and 0 below all). Of equally good ones
    the nearest to one half is taken, and one half itself for a label without a positive image.
    """
    return numpy.array([_best_threshold(*column) for column in zip(marginal.T, truth.T, strict=True)])


def _best_threshold(score: numpy.ndarray, truth: numpy.ndarray) -> float:
    known = ~numpy.isnan(truth)
    values, which = numpy.unique(score[known].astype(numpy.float64), return_inverse=True)
    positives = numpy.bincount(which, weights=truth[known] == 1, minlength=len(values))
    if not positives.any():
        return 0.5
    named = numpy.cumsum(numpy.bincount(which, minlength=len(values))[::-1])[::-1]
    right = numpy.cumsum(positives[::-1])[::-1]
    f1 = 2 * right / (named + positives.sum())
    cuts = (values + numpy.concatenate([[0.0], values[:-1]])) / 2
    best = cuts[f1 == f1.max()]
    return float(best[numpy.abs(best - 0.5).argmin()])


def _threshold(marginal: numpy.ndarray, hierarchy: Hierarchy, thresholds: numpy.ndarray) -> numpy.ndarray:
    """Every label with a probability of one half or more."""
    return marginal >= 0.5


def _threshold_f1(marginal: numpy.ndarray, hierarchy: Hierarchy, thresholds: numpy.ndarray) -> numpy.ndarray:
    """Every label that reaches its own threshold."""
    return marginal >= thresholds


def _hbayes(marginal: numpy.ndarray, hierarchy: Hierarchy, thresholds: numpy.ndarray) -> numpy.ndarray:
    """The set of least expected H-loss. Cesa-Bianchi, Gentile and Zaniboni, ICML 2006 ("Hierarchical classification:
    combining Bayes with SVM").

    With q = P(node) / P(parent), bottom-up: saying no costs q c; saying yes costs (1 - q) c + q x what the children
    cost. Ties say yes, as m >= 1/2 does.
    """
    tree = LabelTree(hierarchy)
    probability = node_probabilities(marginal, tree)
    below = numpy.zeros(probability.shape)
    said = numpy.zeros(probability.shape, dtype=bool)
    for node in reversed(tree.top_down):
        above = probability[tree.parents[node]] if node != tree.root else 1.0
        given = probability[node] / numpy.maximum(above, numpy.finfo(numpy.float64).tiny)
        no = given * tree.weights[node]
        yes = (1 - given) * tree.weights[node] + given * below[node]
        said[node] = yes <= no
        if node != tree.root:
            below[tree.parents[node]] += numpy.minimum(yes, no)
    for node in tree.top_down[1:]:
        said[node] &= said[tree.parents[node]]
    return said[tree.nodes].T


Rule = Callable[[numpy.ndarray, Hierarchy, numpy.ndarray | None], numpy.ndarray]
RULES: dict[str, Rule] = {"threshold": _threshold, "threshold_f1": _threshold_f1, "hbayes": _hbayes}
# Those whose thresholds are fitted on validation images.
FITTED = ("threshold_f1",)
