"""Decision rules: from a distribution over classes to a ranking of classes, best first. One home for every rule.

`rank` serves the rules that decide a class; `climb` decides a node, which may stand above several classes. Rules for
sets of labels are in `severity.decisions.set_rules`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy

from severity.arrays import subtrees
from severity.arrays.probabilities import check_posterior, chunks
from severity.core.errors import SeverityError, nearest
from severity.core.hierarchy import Hierarchy
from severity.tree import costs

# Risks that differ by less than this share of the largest cost are ties: the sums that make them are only exact to
# rounding. A power of two, so that short binary fractions are not split by it.
TIE = 2.0**-40


def rank(
    rule: str,
    *,
    posterior: numpy.ndarray,
    cost: numpy.ndarray,
    hierarchy: Hierarchy,
    nodes: numpy.ndarray | None = None,
) -> numpy.ndarray:
    """Rank the classes of each image by a decision rule.

    Args:
        rule: a name in `RULES`.
        posterior: (N, K) distribution over classes; rows sum to one.
        cost: (K, K) cost[decision, truth].
        hierarchy: the label tree of the K classes.
        nodes: (N, n) probability that each node is present, never rising downward; by default the sums of the posterior,
            which is right where one class is true of each image. Rules that have `nodes` set use it.

    Returns:
        (N, K) int32 class indices, best first; column 0 is the decision.

    Raises:
        SeverityError: an unknown rule, shapes that do not fit, a negative or NaN probability, a row that does not sum to
            one, a cost matrix that is not one, nodes of another shape or outside [0, 1], or for `crm_nodes` a cost that is no
            function of the lowest common ancestor (`ancestor_costs`).
    """
    if rule not in RULES:
        raise SeverityError(f"Unknown decision rule {rule!r}. {nearest(rule, RULES)}")
    posterior = numpy.asarray(posterior)
    cost = numpy.asarray(cost, dtype=numpy.float64)
    costs.check(cost, hierarchy.classes, where="rank")
    check_posterior(posterior, len(hierarchy.classes))
    if nodes is not None:
        nodes = numpy.asarray(nodes)
        check_nodes(nodes, len(posterior), hierarchy)
    ranking = numpy.empty(posterior.shape, dtype=numpy.int32)
    for rows in chunks(len(posterior), len(hierarchy.parents)):
        ranking[rows] = RULES[rule].rank(_given(rule, posterior[rows], nodes, rows, cost, hierarchy))
    return ranking


def first(
    rule: str,
    *,
    posterior: numpy.ndarray,
    cost: numpy.ndarray,
    hierarchy: Hierarchy,
    nodes: numpy.ndarray | None = None,
) -> numpy.ndarray:
    """(N,) the decisions, `rank(...)[:, 0]`, without ranking the other classes and without checking the arguments, which are
    those of `rank`: for who decides many times by other trees.
    """
    decided = numpy.empty(len(posterior), dtype=numpy.int32)
    for rows in chunks(len(posterior), len(hierarchy.parents)):
        given = _given(rule, posterior[rows], nodes, rows, cost, hierarchy)
        shortcut = RULES[rule].first
        decided[rows] = shortcut(given) if shortcut else RULES[rule].rank(given)[:, 0]
    return decided


@dataclass(frozen=True)
class Given:
    """What a rule decides from: `posterior` (N, K) float64, `nodes` (N, n) float64 (of rules that use it), the (K, K) cost
    and the tree; all as for `rank`."""

    posterior: numpy.ndarray
    nodes: numpy.ndarray | None
    cost: numpy.ndarray
    hierarchy: Hierarchy


@dataclass(frozen=True)
class Rule:
    """One decision rule.

    rank: to (N, K) classes, best first. first: a quicker way to their first column; None: there is none. nodes: whether it
    uses the probabilities of nodes beside the posterior.
    """

    rank: Callable[[Given], numpy.ndarray]
    first: Callable[[Given], numpy.ndarray] | None = None
    nodes: bool = False


def _given(
    rule: str,
    posterior: numpy.ndarray,
    nodes: numpy.ndarray | None,
    rows: slice,
    cost: numpy.ndarray,
    hierarchy: Hierarchy,
) -> Given:
    posterior = posterior.astype(numpy.float64)
    if not RULES[rule].nodes:
        present = None
    elif nodes is None:
        present = subtrees.probabilities(posterior, hierarchy)
    else:
        present = nodes[rows].astype(numpy.float64)
    return Given(posterior, present, cost, hierarchy)


def _least(risk: numpy.ndarray, posterior: numpy.ndarray) -> numpy.ndarray:
    """(N,) the class of least (K, N) rounded risk; of equal ones the most probable, then the first."""
    return numpy.where(risk == risk.min(axis=0), posterior.T, -1.0).argmax(axis=0)


def _descend(given: Given) -> numpy.ndarray:
    """(N,) the class where `_top_down` ends first."""
    posterior, hierarchy = given.posterior, given.hierarchy
    probability = subtrees.probabilities(posterior, hierarchy)
    class_of = numpy.full(len(hierarchy.parents), -1)
    class_of[hierarchy.class_nodes] = numpy.arange(len(hierarchy.classes))
    reached = numpy.full(len(posterior), hierarchy.root)
    for node in hierarchy.top_down:
        children = sorted(hierarchy.children[node], key=lambda child: hierarchy.classes_below[child][0])
        here = numpy.flatnonzero(reached == node) if children else []
        if len(here):
            reached[here] = numpy.array(children)[probability[numpy.ix_(here, children)].argmax(axis=1)]
    return class_of[reached]


def check_nodes(nodes: numpy.ndarray, images: int, hierarchy: Hierarchy) -> None:
    """Raise SeverityError unless `nodes` is (images, n) with numbers from 0 to 1."""
    wanted = (images, len(hierarchy.parents))
    if nodes.shape != wanted:
        raise SeverityError(
            f"nodes has the shape {nodes.shape}; it must be {wanted}, a column for each node of the tree."
        )
    if not ((nodes >= 0) & (nodes <= 1)).all():
        raise SeverityError("The probability of a node is outside [0, 1].")


def needs_nodes(rule: str) -> bool:
    """Whether a rule uses the probabilities of nodes; False of one that does not exist."""
    return rule in RULES and RULES[rule].nodes


def climb(*, nodes: numpy.ndarray, hierarchy: Hierarchy, threshold: float) -> numpy.ndarray:
    """Decide a node: the deepest one whose probability is `threshold` or more; of equally deep ones the most probable.

    Args:
        nodes: (N, n) probability that each node is present, never rising downward. threshold: in [0, 1].

    Returns:
        (N,) int32 node indices; the root where nothing below it is probable enough.

    Raises:
        SeverityError: the threshold is outside [0, 1], or `check_nodes`.
    """
    if not 0 <= threshold <= 1:
        raise SeverityError(f"params.yaml: evaluate.climb_threshold is {threshold!r}; it must be from 0 to 1.")
    nodes = numpy.asarray(nodes)
    check_nodes(nodes, len(nodes), hierarchy)
    decided = numpy.empty(len(nodes), dtype=numpy.int32)
    for rows in chunks(*nodes.shape):
        # A depth is a whole number and a probability at most one: their sum orders by depth, then by probability.
        score = numpy.where(nodes[rows] >= threshold, 2 * hierarchy.depth + nodes[rows], -1.0)
        score[:, hierarchy.root] = numpy.maximum(score[:, hierarchy.root], 0)
        decided[rows] = score.argmax(axis=1)
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


def _argmax(given: Given) -> numpy.ndarray:
    """Most probable first; ties by class order."""
    return _descending(given.posterior)


def _crm(given: Given) -> numpy.ndarray:
    """Conditional risk minimisation: ascending expected cost, R(k|x) = sum_j C[k, j] p(j|x); ties keep the order of p.

    Karthik et al., "No cost likelihood manipulation at test time for making better mistakes in deep networks",
    ICLR 2021, equation 3.
    """
    posterior = given.posterior
    risk = _risk(posterior, given.cost)
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


def _risk(posterior: numpy.ndarray, cost: numpy.ndarray) -> numpy.ndarray:
    """(K, N) expected cost of each class, in whole multiples of the least that is told apart."""
    # Classes by images: this way round, the product of a large and a small matrix is several times faster.
    risk = (cost / cost.max() / TIE) @ posterior.T
    return numpy.rint(risk, out=risk)


def ancestor_costs(cost: numpy.ndarray, hierarchy: Hierarchy) -> list[list[tuple[int, float]]]:
    """For each class the steps (node, rise) of its cost on the way up: deciding the class costs the sum of the rises over
    the nodes above the leaf, from the leaf on, that are not above the truth.

    Such a form exists where a mistake costs what its lowest common ancestor with the truth says and never less further up,
    as `lca_height` does and `path` does not.

    Raises:
        SeverityError: the cost is no such function.
    """
    steps = []
    for k, leaf in enumerate(hierarchy.class_nodes.tolist()):
        path = hierarchy.ancestors(leaf)
        known, level, own = numpy.array([k]), 0.0, []
        for node, parent in zip(path, path[1:], strict=False):
            below = hierarchy.classes_below[parent]
            new = below[~numpy.isin(below, known)]
            values = cost[k, new]
            if len(new) and (numpy.ptp(values) > 1e-9 * cost.max() or values[0] < level - 1e-9 * cost.max()):
                raise SeverityError(
                    "The rule crm_nodes needs a cost that depends on the lowest common ancestor of decision and truth alone and "
                    f"rises toward the root, as lca_height; the cost of deciding {hierarchy.classes[k]!r} does not. Use crm."
                )
            rise = float(values[0]) - level if len(new) else 0.0
            own.append((node, rise))
            level, known = level + rise, below
        steps.append(own)
    return steps


def _node_risk(nodes: numpy.ndarray, cost: numpy.ndarray, hierarchy: Hierarchy) -> numpy.ndarray:
    """(N, K) the risk of `_crm_nodes`, in whole multiples of the least that is told apart."""
    absent = 1 - nodes
    risk = numpy.zeros((len(nodes), len(cost)))
    for k, steps in enumerate(ancestor_costs(cost, hierarchy)):
        for node, rise in steps:
            risk[:, k] += rise * absent[:, node]
    return numpy.rint(risk / cost.max() / TIE)


def _crm_nodes(given: Given) -> numpy.ndarray:
    """Ascending expected cost to the nearest of a set of true classes, from the probabilities of nodes alone:
    R(k) = sum over the path a_0 ... root of k of (C(a_{i+1}) - C(a_i)) (1 - M(a_i)); ties keep the order of p.

    With one true class of each image it is `_crm`; for several it needs no more than the marginals (docs/bce-vs-hxe.md, 12).
    """
    risk = _node_risk(given.nodes, given.cost, given.hierarchy)
    by_probability = _descending(given.posterior)
    by_risk = numpy.argsort(numpy.take_along_axis(risk, by_probability, axis=1), axis=1, kind="stable")
    return numpy.take_along_axis(by_probability, by_risk, axis=1)


def _hie(given: Given) -> numpy.ndarray:
    """Descending p(class) x M(its parent in the tree), both from the same network; ties by class order.

    The self-contained form of Jain et al., "Test-time amendment with a coarse classifier for fine-grained
    classification" (NeurIPS 2023), which takes the parent's probability from a second, coarse network.
    """
    return _descending(_with_parent(given))


def _with_parent(given: Given) -> numpy.ndarray:
    """(N, K) p(class) x M(its parent)."""
    return given.posterior * given.nodes[:, given.hierarchy.parents[given.hierarchy.class_nodes]]


def _top_down(given: Given) -> numpy.ndarray:
    """Greedy descent: from the root always to the most probable child, down to a class.

    The ranking is the descent with backtracking: the classes in the order in which a depth-first walk meets them that
    visits siblings by descending probability (ties: the subtree of the earliest class first). So the classes under the
    chosen child of the root all come before those under any other child, and so on downward.
    """
    posterior, hierarchy = given.posterior, given.hierarchy
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


RULES: dict[str, Rule] = {
    "argmax": Rule(_argmax, first=lambda given: given.posterior.argmax(axis=1)),
    "crm": Rule(_crm, first=lambda given: _least(_risk(given.posterior, given.cost), given.posterior)),
    "top_down": Rule(_top_down, first=_descend),
    "crm_nodes": Rule(
        _crm_nodes,
        first=lambda given: _least(_node_risk(given.nodes, given.cost, given.hierarchy).T, given.posterior),
        nodes=True,
    ),
    "hie": Rule(_hie, first=lambda given: _with_parent(given).argmax(axis=1), nodes=True),
}
