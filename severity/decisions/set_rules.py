"""Decision rules that name a set of labels (what labels and nodes stand for: severity/arrays/label_tree.py)."""

from collections.abc import Callable

import numpy

from severity.arrays.label_tree import LabelTree
from severity.arrays.probabilities import chunks
from severity.core.errors import SeverityError, nearest
from severity.core.hierarchy import Hierarchy
from severity.decisions.class_rules import check_nodes


def decide(
    rule: str, *, nodes: numpy.ndarray, hierarchy: Hierarchy, thresholds: numpy.ndarray | None = None
) -> numpy.ndarray:
    """Decide a set of labels for each image.

    Args:
        rule: a name in `RULES`.
        nodes: (N, n) probability that each node is present, never rising downward.
        thresholds: (K,) as `best_thresholds` gives them; only those in `FITTED` use them.

    Returns:
        (N, K) bool. A set of `hbayes` never lacks a label above one that it names.

    Raises:
        SeverityError: an unknown rule, nodes that are not (N, n) in [0, 1], or thresholds that a rule needs and lacks.
    """
    if rule not in RULES:
        raise SeverityError(f"Unknown rule for sets of labels {rule!r}. {nearest(rule, RULES)}")
    nodes = numpy.asarray(nodes)
    check_nodes(nodes, len(nodes), hierarchy)
    if rule in FITTED and (thresholds is None or numpy.shape(thresholds) != (len(hierarchy.classes),)):
        raise SeverityError(f"The rule {rule!r} needs thresholds, one for each of {len(hierarchy.classes)} labels.")
    decided = numpy.empty((len(nodes), len(hierarchy.classes)), dtype=bool)
    for rows in chunks(*nodes.shape):
        decided[rows] = RULES[rule](nodes[rows].astype(numpy.float64), hierarchy, thresholds)
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


def _threshold(nodes: numpy.ndarray, hierarchy: Hierarchy, thresholds: numpy.ndarray | None) -> numpy.ndarray:
    """Every label with a probability of one half or more."""
    return nodes[:, hierarchy.stands_for] >= 0.5


def _threshold_f1(nodes: numpy.ndarray, hierarchy: Hierarchy, thresholds: numpy.ndarray) -> numpy.ndarray:
    """Every label that reaches its own threshold."""
    return nodes[:, hierarchy.stands_for] >= thresholds


def _hbayes(nodes: numpy.ndarray, hierarchy: Hierarchy, thresholds: numpy.ndarray | None) -> numpy.ndarray:
    """The set of labels of least expected H-loss. Cesa-Bianchi, Gentile and Zaniboni, ICML 2006 ("Hierarchical
    classification: combining Bayes with SVM").

    With q = M(node) / M(parent), bottom-up: saying no costs q c; saying yes costs (1 - q) c + q x what the children cost.
    Ties say yes, as m >= 1/2 does. A group that is no label is said by naming a label below it and not by itself, so of a
    group that is said some child is: where all would better be left out, the one that costs least (`node_set` may name a
    group alone).
    """
    return _said(nodes, hierarchy, alone=False)[:, hierarchy.stands_for]


def node_set(nodes: numpy.ndarray, hierarchy: Hierarchy) -> numpy.ndarray:
    """(N, g) bool: the set of nodes, labels and groups, of least expected H-loss; a group may be said by itself."""
    return _said(numpy.asarray(nodes, dtype=numpy.float64), hierarchy, alone=True)


def _said(nodes: numpy.ndarray, hierarchy: Hierarchy, *, alone: bool) -> numpy.ndarray:
    """(N, g) bool: which of the given nodes are said. alone: whether a group without a label may be without a child."""
    tree = LabelTree(hierarchy)
    size = len(tree.parents)
    probability = nodes[:, :size].T
    if tree.always:
        probability = probability.copy()
        probability[tree.root] = 1
    shape = probability.shape
    below = numpy.zeros(shape)  # what the children cost at least, where the node is present and said
    said, none = numpy.zeros(shape, dtype=bool), numpy.ones(shape, dtype=bool)
    # Of the children, the one that costs least to say where none is said by itself: how much more than saying no, and which.
    extra, cheapest = numpy.full(shape, numpy.inf), numpy.full(shape, -1)
    labels = set(hierarchy.stands_for.tolist())
    forced: dict[int, numpy.ndarray] = {}
    for node in reversed(tree.top_down):
        above = probability[tree.parents[node]] if node != tree.root else 1.0
        given = probability[node] / numpy.maximum(above, numpy.finfo(numpy.float64).tiny)
        cost = below[node]
        if not alone and node not in labels and node != tree.root:
            forced[node] = none[node]
            cost = cost + numpy.where(none[node], extra[node], 0.0)
        no = given * tree.weights[node]
        yes = (1 - given) * tree.weights[node] + given * cost
        said[node] = yes <= no
        if node != tree.root:
            parent = tree.parents[node]
            below[parent] += numpy.minimum(yes, no)
            none[parent] &= ~said[node]
            # Children come in reverse order, so that of equals the first one stays.
            cheaper = yes - no <= extra[parent]
            extra[parent] = numpy.where(cheaper, yes - no, extra[parent])
            cheapest[parent] = numpy.where(cheaper, node, cheapest[parent])
    for node in tree.top_down:
        if node != tree.root:
            said[node] &= said[tree.parents[node]]
        if node in forced:
            for child in numpy.unique(cheapest[node]):
                said[child] |= said[node] & forced[node] & (cheapest[node] == child)
    return said.T


Rule = Callable[[numpy.ndarray, Hierarchy, numpy.ndarray | None], numpy.ndarray]
RULES: dict[str, Rule] = {"threshold": _threshold, "threshold_f1": _threshold_f1, "hbayes": _hbayes}
# Those whose thresholds are fitted on validation images.
FITTED = ("threshold_f1",)
