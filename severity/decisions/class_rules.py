"""Decision rules: from a distribution over classes to a ranking of classes, best first. One home for every rule.

`rank` serves the rules that decide a class; `climb` decides a node, which may stand above several classes. Rules for
sets of labels are in `severity.decisions.set_rules`.
"""

from collections.abc import Callable

import numpy

from severity.arrays import subtrees
from severity.arrays.probabilities import check_posterior, chunks
from severity.core.errors import SeverityError, nearest
from severity.core.hierarchy import Hierarchy
from severity.tree import costs

# Risks that differ by less than this share of the largest cost are ties: the sums that make them are only exact to
# rounding. A power of two, so that short binary fractions are not split by it.
TIE = 2.0**-40


def rank(rule: str, *, posterior: numpy.ndarray, cost: numpy.ndarray, hierarchy: Hierarchy) -> numpy.ndarray:
    """Rank the classes of each image by a decision rule.

    Args:
        rule: a name in `RULES`.
        posterior: (N, K) distribution over classes; rows sum to one.
        cost: (K, K) cost[decision, truth].
        hierarchy: the label tree of the K classes.

    Returns:
        (N, K) int32 class indices, best first; column 0 is the decision.

    Raises:
        SeverityError: an unknown rule, shapes that do not fit, a negative or NaN probability, a row that does not sum
            to one, a cost matrix that is not one.
    """
    if rule not in RULES:
        raise SeverityError(f"Unknown decision rule {rule!r}. {nearest(rule, RULES)}")
    posterior = numpy.asarray(posterior)
    cost = numpy.asarray(cost, dtype=numpy.float64)
    costs.check(cost, hierarchy.classes, where="rank")
    check_posterior(posterior, len(hierarchy.classes))
    ranking = numpy.empty(posterior.shape, dtype=numpy.int32)
    for rows in chunks(*posterior.shape):
        ranking[rows] = RULES[rule](posterior[rows].astype(numpy.float64), cost, hierarchy)
    return ranking


def climb(*, posterior: numpy.ndarray, hierarchy: Hierarchy, threshold: float) -> numpy.ndarray:
    """Decide a node: from the leaf of the most probable class upward until a node's probability is `threshold` or more.

    Args:
        posterior: (N, K) distribution over classes. threshold: in [0, 1]; 0 stays at the leaf.

    Returns:
        (N,) int32 node indices; the root where nothing below it is probable enough.

    Raises:
        SeverityError: the threshold is outside [0, 1], or the posterior is no distribution.
    """
    if not 0 <= threshold <= 1:
        raise SeverityError(f"params.yaml: evaluate.climb_threshold is {threshold!r}; it must be from 0 to 1.")
    posterior = numpy.asarray(posterior)
    check_posterior(posterior, len(hierarchy.classes))
    decided = numpy.empty(len(posterior), dtype=numpy.int32)
    for rows in chunks(len(posterior), len(hierarchy.parents)):
        probability = subtrees.probabilities(posterior[rows], hierarchy)
        node = hierarchy.class_nodes[posterior[rows].argmax(axis=1)]
        images = numpy.arange(len(node))
        for _ in range(int(hierarchy.depth.max())):
            upward = (probability[images, node] < threshold) & (node != hierarchy.root)
            node = numpy.where(upward, hierarchy.parents[node], node)
        decided[rows] = node
    return decided


def check_crm(*, ranking: numpy.ndarray, posterior: numpy.ndarray, cost: numpy.ndarray) -> None:
    """Raise SeverityError unless CRM decides the most probable class wherever it has more than half the probability.

    Under a metric cost this is a theorem, so a violation is a defect here, not of the data; under other costs nothing
    is checked.

    Args:
        ranking: (N, K) what CRM made of `posterior` (N, K) and `cost` (K, K).
    """
    if not costs.is_metric(cost):
        return
    first = posterior.argmax(axis=1)
    most = posterior[numpy.arange(len(posterior)), first]
    wrong = (most > 0.5 * posterior.sum(axis=1, dtype=numpy.float64) + 1e-6) & (ranking[:, 0] != first)
    if wrong.any():
        row = int(numpy.flatnonzero(wrong)[0])
        raise SeverityError(
            f"Self-check failed: image {row} has the probability {most[row]} for class {first[row]}, but conditional "
            f"risk minimisation decided class {ranking[row, 0]} under a metric cost. Please report it with the costs."
        )


def _argmax(posterior: numpy.ndarray, cost: numpy.ndarray, hierarchy: Hierarchy) -> numpy.ndarray:
    """Most probable first; ties by class order."""
    return _descending(posterior)


def _crm(posterior: numpy.ndarray, cost: numpy.ndarray, hierarchy: Hierarchy) -> numpy.ndarray:
    """Conditional risk minimisation: ascending expected cost, R(k|x) = sum_j C[k, j] p(j|x); ties keep the order of p.

    Karthik et al., "No cost likelihood manipulation at test time for making better mistakes in deep networks",
    ICLR 2021, equation 3.
    """
    # Classes by images: this way round, the product of a large and a small matrix is several times faster.
    risk = (cost / cost.max() / TIE) @ posterior.T
    numpy.rint(risk, out=risk)
    # Whole numbers up to 2^40, with the class in the bits below them: sorting integers is fast, and tells ties exactly.
    bits = int(posterior.shape[1] - 1).bit_length()
    keys = numpy.empty(posterior.shape, dtype=numpy.int64)
    keys[:] = risk.T
    keys <<= bits
    keys |= numpy.arange(posterior.shape[1])
    keys.sort(axis=1)
    tied = ((keys[:, 1:] ^ keys[:, :-1]) < (1 << bits)).any(axis=1)
    order = keys & ((1 << bits) - 1)
    if tied.any():
        by_probability = _descending(posterior[tied])
        by_risk = numpy.argsort(numpy.take_along_axis(risk.T[tied], by_probability, axis=1), axis=1, kind="stable")
        order[tied] = numpy.take_along_axis(by_probability, by_risk, axis=1)
    return order


def _hie(posterior: numpy.ndarray, cost: numpy.ndarray, hierarchy: Hierarchy) -> numpy.ndarray:
    """Descending p(class) x p(its parent in the tree), both from the same posterior; ties by class order.

    The self-contained form of Jain et al., "Test-time amendment with a coarse classifier for fine-grained
    classification" (NeurIPS 2023), which takes the parent's probability from a second, coarse network.
    """
    parents = hierarchy.parents[hierarchy.class_nodes]
    return _descending(posterior * subtrees.probabilities(posterior, hierarchy)[:, parents])


def _top_down(posterior: numpy.ndarray, cost: numpy.ndarray, hierarchy: Hierarchy) -> numpy.ndarray:
    """Greedy descent: from the root always to the most probable child, down to a class.

    The ranking is the descent with backtracking: the classes in the order in which a depth-first walk meets them that
    visits siblings by descending probability (ties: the subtree of the earliest class first). So the classes under the
    chosen child of the root all come before those under any other child, and so on downward.
    """
    probability = subtrees.probabilities(posterior, hierarchy)
    leaves = subtrees.leaf_counts(hierarchy)
    # The number of classes that the walk meets before those of a node.
    before = numpy.zeros(probability.shape, dtype=numpy.int64)
    for node in hierarchy.top_down:
        children = sorted(hierarchy.children[node], key=lambda child: hierarchy.classes_below[child][0])
        if not children:
            continue
        order = _descending(probability[:, children])
        sizes = leaves[children][order]
        first = numpy.empty_like(sizes)
        numpy.put_along_axis(first, order, numpy.cumsum(sizes, axis=1) - sizes, axis=1)
        before[:, children] = before[:, [node]] + first
    ranking = numpy.empty(posterior.shape, dtype=numpy.int64)
    classes = numpy.broadcast_to(numpy.arange(posterior.shape[1]), posterior.shape)
    numpy.put_along_axis(ranking, before[:, hierarchy.class_nodes], classes, axis=1)
    return ranking


def _descending(values: numpy.ndarray) -> numpy.ndarray:
    """Column indices by descending value, row by row; ties by column."""
    negative = -values
    # The fastest sort is not stable; the rows with ties, mostly few, are sorted again by one that is.
    order = numpy.argsort(negative, axis=1)
    ascending = numpy.take_along_axis(negative, order, axis=1)
    tied = (ascending[:, 1:] == ascending[:, :-1]).any(axis=1)
    if tied.any():
        order[tied] = numpy.argsort(negative[tied], axis=1, kind="stable")
    return order


Rule = Callable[[numpy.ndarray, numpy.ndarray, Hierarchy], numpy.ndarray]
RULES: dict[str, Rule] = {"argmax": _argmax, "crm": _crm, "hie": _hie, "top_down": _top_down}
