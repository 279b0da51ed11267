"""Probabilities of nodes, of "this label and nothing more specific", and of the most specific labels' shares.

Everything here is in logits and log probabilities, so that ranks survive where probabilities are as good as 0 or 1. One text
serves numpy (predictions from outside, tests) and torch (networks, with gradients): see `NUMPY` and `severity.links.links.TORCH`.

The model behind it: given that a node is present, its children are present independently of one another, each with
q = M(child) / M(node). Then

- an inner label's own leaf, "this and nothing more specific", has M(own) = M(g) prod_c (1 - M(c) / M(g)), between the bounds
  max(0, M(g) - sum_c M(c)) and M(g) - max_c M(c) that hold whatever the dependence;
- the posterior p(k) = E[1{k in S} / |S|] over the sets S of most specific labels that are not empty: what a softmax network
  is trained to give, so that posteriors of all losses aim at one target. With R(k) = M(leaf of k) and w(k) the mean of
  1 / |S| where k is in S, p = R w / sum(R w).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import scipy.special

from severity.arrays.probabilities import chunks
from severity.core.hierarchy import Hierarchy

Array = Any  # numpy.ndarray or torch.Tensor
# Of two logits this close the smaller one counts as this much below: an own leaf keeps a finite logarithm.
CLOSEST = 1e-12
# Log-odds and log probabilities from outside are cut here, and probabilities of 0 read as the least that float32 can tell.
LARGEST = 1e6
SMALLEST = float(numpy.finfo(numpy.float32).tiny)
# Log probabilities of one image that differ by less are not told apart: rounding is up to a tenth of it.
CLOSE = 1e-14
# Nodes of the quadrature of 1 / |S|: exact for up to twice as many labels present at once.
NODES = 64


@dataclass(frozen=True)
class Backend:
    """The functions that numpy and torch name differently."""

    log_sigmoid: Callable[[Array], Array]
    exp: Callable[[Array], Array]
    expm1: Callable[[Array], Array]
    log: Callable[[Array], Array]
    maximum: Callable[[Array, Array], Array]
    logaddexp: Callable[[Array, Array], Array]
    logsumexp: Callable[[Array], Array]  # over the first axis
    like: Callable[[numpy.ndarray, Array], Array]  # numbers as an array of the kind of another


NUMPY = Backend(
    log_sigmoid=scipy.special.log_expit,
    exp=numpy.exp,
    expm1=numpy.expm1,
    log=numpy.log,
    maximum=numpy.maximum,
    logaddexp=numpy.logaddexp,
    logsumexp=lambda values: scipy.special.logsumexp(values, axis=0),
    like=lambda numbers, _: numbers,
)


def own_leaves(hierarchy: Hierarchy) -> dict[int, int]:
    """Inner node that is a label -> its own leaf."""
    return {
        int(hierarchy.stands_for[k]): int(hierarchy.class_nodes[k])
        for k in numpy.flatnonzero(hierarchy.stands_for != hierarchy.class_nodes)
    }


def from_labels(labels: Sequence[Array], hierarchy: Hierarchy, backend: Backend) -> list[Array | None]:
    """Logits of the K labels, each of its node's being present -> logits of all n nodes.

    A label's node is raised to its largest child where it lies below one; a group that is no label takes the largest child,
    the lower bound of its probability. Own leaves are `with_own_leaves`'.

    Returns:
        one column a node; None for a root that is no label: it is always present.
    """
    columns: list[Array | None] = [None] * len(hierarchy.parents)
    for k, node in enumerate(hierarchy.stands_for.tolist()):
        columns[node] = labels[k]
    own = set(own_leaves(hierarchy).values())
    for node in reversed(hierarchy.top_down[1:]):
        parent = int(hierarchy.parents[node])
        if node in own or (parent == hierarchy.root and hierarchy.root not in hierarchy.stands_for):
            continue
        above = columns[parent]
        columns[parent] = columns[node] if above is None else backend.maximum(above, columns[node])
    return with_own_leaves(columns, hierarchy, backend)


def with_own_leaves(columns: list[Array | None], hierarchy: Hierarchy, backend: Backend) -> list[Array | None]:
    """The logits of all nodes, those of own leaves being computed from their node and its other children.

    Args:
        columns: logits of n nodes, never rising on the way down; what stands for own leaves is not looked at.
    """
    columns = list(columns)
    for node, leaf in own_leaves(hierarchy).items():
        above = columns[node]
        log_r = 0.0 if above is None else backend.log_sigmoid(above)
        for child in hierarchy.children[node]:
            if child != leaf:
                log_r = log_r + _log_absent(columns[child], above, backend)
        columns[leaf] = _logit_of_log(log_r, backend)
    return columns


def from_classes(scores: Sequence[Array], hierarchy: Hierarchy, backend: Backend) -> list[Array | None]:
    """Logits of K classes that exclude one another (softmax) -> logits of all n nodes, M(node) the sum of p below it."""
    below: list[Array | None] = [None] * len(hierarchy.parents)
    for k, leaf in enumerate(hierarchy.class_nodes.tolist()):
        below[leaf] = scores[k]
    for node in reversed(hierarchy.top_down):
        for child in hierarchy.children[node]:
            below[node] = below[child] if below[node] is None else backend.logaddexp(below[node], below[child])
    beside: list[Array | None] = [None] * len(hierarchy.parents)  # log of the sum over all classes not below
    columns: list[Array | None] = [None] * len(hierarchy.parents)
    for node in hierarchy.top_down:
        children = hierarchy.children[node]
        for child, others in zip(children, _excluding([below[c] for c in children], backend.logaddexp), strict=True):
            outer = beside[node]
            beside[child] = others if outer is None else outer if others is None else backend.logaddexp(outer, others)
            # A chain of single children from the root is as certain as the root.
            columns[child] = None if beside[child] is None else below[child] - beside[child]
    return columns


def log_posterior(columns: Sequence[Array | None], hierarchy: Hierarchy, backend: Backend) -> list[Array]:
    """Logits of n nodes, own leaves included -> log p of the K classes, rows summing to one.

    The mean of 1 / |S| is an integral over t from 0 to 1 of E[t^(|S| - 1)], whose factors on a tree are those of the
    branches that the path to k leaves aside; Gauss and Legendre's rule is exact for a polynomial of this degree.
    """
    own = own_leaves(hierarchy)
    places, weights = numpy.polynomial.legendre.leggauss(_places(hierarchy))
    # All places at once, along an axis before that of the images.
    some = next(column for column in columns if column is not None)
    t, log_weights = (backend.like(each[:, None], some) for each in ((places + 1) / 2, numpy.log(weights / 2)))
    aside = _aside(columns, hierarchy, own, t, backend)
    found = []
    for leaf in hierarchy.class_nodes.tolist():
        log_w = backend.logsumexp(log_weights + aside[leaf])
        found.append(log_w if columns[leaf] is None else backend.log_sigmoid(columns[leaf]) + log_w)
    total = found[0]
    for each in found[1:]:
        total = backend.logaddexp(total, each)
    return [each - total for each in found]


def _places(hierarchy: Hierarchy) -> int:
    """How many places of the quadrature a tree needs."""
    return min((len(hierarchy.classes) + 1) // 2, NODES)


def _aside(
    columns: Sequence[Array | None], hierarchy: Hierarchy, own: dict[int, int], t: Array, backend: Backend
) -> dict[int, Array]:
    """For each leaf the log of the product, over the branches that its path leaves aside, of E[t^(labels in the branch)].

    t: (T, 1), of each of which this is asked: the arrays are (T, N).
    """
    log_generating: dict[int, Array] = {}  # log G(t) of a node that is present; in logs, as t^50 is soon nothing
    factor: dict[int, Array] = {}  # log E[t^...] of a node whose parent is present
    zero = t * 0 + next(column for column in columns if column is not None) * 0
    for node in reversed(hierarchy.top_down):
        children = [child for child in hierarchy.children[node] if own.get(node) != child]
        if not children:
            log_generating[node] = zero + backend.log(t)
        else:
            log_product, log_none = zero, zero
            for child in children:
                log_product = log_product + factor[child]
                if node in own:
                    log_none = log_none + _log_absent(columns[child], columns[node], backend)
            log_generating[node] = log_product
            if node in own:  # where no child is there, the label itself is: prod + (t - 1) none
                below = backend.maximum(log_product - log_none, zero)
                log_generating[node] = log_product + backend.log(1 - (1 - t) * backend.exp(-below))
        if node != hierarchy.root and own.get(int(hierarchy.parents[node])) != node:
            parent = columns[int(hierarchy.parents[node])]
            log_absent = zero + _log_absent(columns[node], parent, backend)
            log_given = _log_given(columns[node], parent, backend)
            factor[node] = backend.logaddexp(log_absent, log_given + log_generating[node])
    aside: dict[int, Array] = {hierarchy.root: zero}
    for node in hierarchy.top_down:
        children = [child for child in hierarchy.children[node] if own.get(node) != child]
        for child, others in zip(children, _excluding([factor[c] for c in children], _add), strict=True):
            aside[child] = aside[node] if others is None else aside[node] + others
        if node in own:
            aside[own[node]] = aside[node]
    return aside


def _add(a: Array, b: Array) -> Array:
    return a + b


def _excluding(values: Sequence[Array], join: Callable[[Array, Array], Array]) -> list[Array | None]:
    """For each value the join of all others; None where there is no other."""
    if not values:
        return []
    before: list[Array | None] = [None]
    for value in values[:-1]:
        before.append(value if before[-1] is None else join(before[-1], value))
    after: list[Array | None] = [None]
    for value in reversed(values[1:]):
        after.append(value if after[-1] is None else join(after[-1], value))
    return [b if a is None else a if b is None else join(a, b) for a, b in zip(before, reversed(after), strict=True)]


def _log_absent(child: Array | None, parent: Array | None, backend: Backend) -> Array:
    """log(1 - M(child) / M(parent)) of logits: s(a) - s(b) = s(a) s(-b) (1 - exp(b - a)), s the sigmoid."""
    if child is None:  # as certain as its parent
        return numpy.log(CLOSEST)
    log_absent = backend.log_sigmoid(-child)
    if parent is None:
        return log_absent
    distance = backend.maximum(parent - child, child * 0 + CLOSEST)
    return log_absent + backend.log(-backend.expm1(-distance))


def _log_given(child: Array | None, parent: Array | None, backend: Backend) -> Array:
    """log(M(child) / M(parent)) of logits."""
    above = 0.0 if parent is None else backend.log_sigmoid(parent)
    return (0.0 if child is None else backend.log_sigmoid(child)) - above


def _logit_of_log(log_p: Array, backend: Backend) -> Array:
    """The logit of exp(log_p), log_p below 0."""
    log_p = -backend.maximum(-log_p, log_p * 0 + CLOSEST)
    return log_p - backend.log(-backend.expm1(log_p))


# --- The same on whole tables, in numpy


def node_logits_of_labels(label_logits: numpy.ndarray, hierarchy: Hierarchy) -> numpy.ndarray:
    """(N, K) log-odds that each label is present -> (N, n) of all nodes; see `from_labels`."""
    return _table(from_labels(list(_finite(label_logits).T), hierarchy, NUMPY))


def node_logits_of_classes(log_p: numpy.ndarray, hierarchy: Hierarchy) -> numpy.ndarray:
    """(N, K) log probabilities of classes that exclude one another -> (N, n) log-odds of all nodes; see `from_classes`."""
    return _table(from_classes(list(_finite(log_p).T), hierarchy, NUMPY))


def log_posterior_of_nodes(node_logits: numpy.ndarray, hierarchy: Hierarchy) -> numpy.ndarray:
    """(N, n) log-odds of all nodes, own leaves included -> (N, K) log posterior; see `log_posterior`."""
    found = numpy.empty((len(node_logits), len(hierarchy.classes)))
    for rows in chunks(len(node_logits), node_logits.shape[1] * _places(hierarchy)):
        columns: list[Array | None] = list(_finite(node_logits[rows]).T)
        if hierarchy.root not in hierarchy.stands_for:
            columns[hierarchy.root] = None
        found[rows] = numpy.stack(log_posterior(columns, hierarchy, NUMPY), axis=1)
    return found


def ranked(log_p: numpy.ndarray, leaf_logits: numpy.ndarray) -> numpy.ndarray:
    """(N, K) log posterior whose near ties are in the order of the log-odds of the classes' leaves.

    Where several labels are as good as certain, their posteriors differ by less than float64 can tell, and a decision
    would be one of rounding. Of classes closer than `CLOSE` each is put that far below the next more probable one; those
    of equal log-odds stay equal.

    Args:
        log_p, leaf_logits: (N, K).
    """
    descending = -numpy.sort(-log_p, axis=1)
    rows = numpy.flatnonzero(((descending[:, :-1] - descending[:, 1:]) < CLOSE).any(axis=1))
    if not len(rows):
        return log_p
    some, logits = log_p[rows], leaf_logits[rows]
    order = numpy.argsort(-some, axis=1, kind="stable")
    value = numpy.take_along_axis(some, order, axis=1)
    first = numpy.ones(value.shape, dtype=bool)
    first[:, 1:] = value[:, :-1] - value[:, 1:] >= CLOSE
    # Within a group of near ties: by log-odds, descending, then by class.
    inner = numpy.lexsort((order, -numpy.take_along_axis(logits, order, axis=1), first.cumsum(axis=1)), axis=1)
    order = numpy.take_along_axis(order, inner, axis=1)
    score = numpy.take_along_axis(logits, order, axis=1)
    lower = numpy.zeros(value.shape, dtype=numpy.int64)
    lower[:, 1:] = score[:, 1:] < score[:, :-1]
    steps = numpy.where(first, 0, lower).cumsum(axis=1)
    start = numpy.maximum.accumulate(numpy.where(first, numpy.arange(value.shape[1]), 0), axis=1)
    place = steps - numpy.take_along_axis(steps, start, axis=1)
    told = log_p.copy()
    told[rows[:, None], order] = numpy.take_along_axis(value, start, axis=1) - place * CLOSE
    return told


def logits_of(probability: numpy.ndarray) -> numpy.ndarray:
    """Log-odds of probabilities, finite also for 0 and 1."""
    return scipy.special.logit(numpy.clip(probability.astype(numpy.float64), SMALLEST, 1 - CLOSEST))


def _finite(values: numpy.ndarray) -> numpy.ndarray:
    return numpy.clip(numpy.asarray(values, dtype=numpy.float64), -LARGEST, LARGEST)


def _table(columns: Sequence[Array | None]) -> numpy.ndarray:
    """(N, n) of the columns of n nodes; infinite where a node is certain."""
    like = next(column for column in columns if column is not None)
    certain = numpy.full(like.shape, numpy.inf)
    return numpy.stack([certain if column is None else column for column in columns], axis=1)
