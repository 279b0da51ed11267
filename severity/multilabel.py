"""Decisions that name a set of labels, and their metrics. One home for every rule of this kind.

Here a label stands for the node it was given at, so that a label at an inner node says "this or something below it",
and the leaves of their own that such labels get elsewhere ("..., not further specified") play no part. A node is true
when a label at or below it is. The root is true of every image, unless it carries a label itself.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy

from severity.errors import SeverityError, nearest
from severity.hierarchy import Hierarchy
from severity.labelsets import most_specific
from severity.metrics import distances
from severity.probabilities import chunks

# The label that an empty set is read as, where a data set has it.
NO_FINDING = "No Finding"
# What a trivial decision must not win, and whether more of it is better. Precision and recall only count together:
# naming everything has perfect recall.
COMPARED = {"hierarchical_f1": True, "h_loss": False, "best_match_severity": False}


class LabelTree:
    """The tree of the nodes that labels and groups were given at.

    Attributes:
        nodes: (K,) the node of each label. parents: (g,) as in the hierarchy.
    """

    def __init__(self, hierarchy: Hierarchy):
        given = hierarchy.given_nodes
        self.nodes = hierarchy.stands_for
        self.parents = hierarchy.parents[:given]
        self.root = hierarchy.root
        self.top_down = [node for node in hierarchy.top_down if node < given]
        self.always = self.root not in self.nodes

    @cached_property
    def weights(self) -> numpy.ndarray:
        """(g,) weight of each node in the H-loss: 1 at the root, shared equally among the children of each node."""
        siblings = numpy.bincount(self.parents[self.parents >= 0], minlength=len(self.parents))
        weights = numpy.ones(len(self.parents))
        for node in self.top_down[1:]:
            weights[node] = weights[self.parents[node]] / siblings[self.parents[node]]
        return weights

    def highest(self, values: numpy.ndarray) -> numpy.ndarray:
        """(N, K) values of labels -> (g, N): for each node the largest among the labels at or below it, 0 for none."""
        found = numpy.zeros((len(self.parents), len(values)), dtype=values.dtype)
        found[self.nodes] = values.T
        for node in reversed(self.top_down[1:]):
            numpy.maximum(found[self.parents[node]], found[node], out=found[self.parents[node]])
        return found

    def closed(self, positive: numpy.ndarray) -> numpy.ndarray:
        """(N, K) bool sets of labels -> (g, N) bool: the nodes at and above them, the root always."""
        found = self.highest(positive)
        found[self.root] |= self.always
        return found


def node_probabilities(marginal: numpy.ndarray, tree: LabelTree) -> numpy.ndarray:
    """(N, K) probabilities of labels -> (g, N) float64 of nodes, none below a node above its parent's.

    A network's marginals need not agree with the tree. Each node gets the largest of its own marginal and of its
    children's probabilities: the smallest change upward that P(parent) >= P(child) allows, exact where the children
    imply one another. The other bound, the sum over the children, would be exact where they exclude one another.
    """
    found = tree.highest(numpy.asarray(marginal, dtype=numpy.float64))
    if tree.always:
        found[tree.root] = 1
    return found


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


def score(*, decided: numpy.ndarray, truth: numpy.ndarray, cost: numpy.ndarray, hierarchy: Hierarchy) -> dict[str, Any]:
    """Metrics of sets of labels.

    Args:
        decided: (N, K) bool. truth: (N, K) 1, 0 or NaN = masked: a node is left out of an image where it is not known,
            that is where no label at or below it is true and one is masked.
        cost: (K, K) cost[decision, truth].

    Returns:
        images: N. labels_named: mean number of labels decided.
        inconsistent: share of images whose set lacks a label above one that it names. All else but
            `best_match_severity` is measured on the sets closed upward.
        hierarchical_precision, _recall, _f1: over all nodes but the root, summed over images before dividing
            (Kiritchenko, Matwin, Nock and Famili 2006); None where nothing is named, or nothing is true.
        h_loss: mean over images of the weights of the wrong nodes all of whose ancestors are right (`hbayes`), 0 to 1.
        best_match_images, best_match_severity: see `best_match`; None where the set of no image is known.

    Raises:
        SeverityError: shapes or types do not fit.
    """
    if decided.dtype != bool or decided.shape != truth.shape or cost.shape != (truth.shape[1], truth.shape[1]):
        raise SeverityError(
            f"decided {decided.shape} {decided.dtype}, truth {truth.shape} and cost {cost.shape} do not fit: "
            "(N, K) bool, (N, K), (K, K)."
        )
    tree = LabelTree(hierarchy)
    counted = numpy.delete(numpy.arange(len(tree.parents)), tree.root)
    shared = named = true = inconsistent = 0
    loss = 0.0
    for rows in chunks(len(truth), len(tree.parents)):
        found, wanted = tree.closed(decided[rows]), tree.closed(truth[rows] == 1)
        known = wanted | ~tree.highest(numpy.isnan(truth[rows]))
        shared += int((found & wanted)[counted].sum())
        named += int((found & known)[counted].sum())
        true += int(wanted[counted].sum())
        inconsistent += int((found[tree.nodes].T != decided[rows]).any(axis=1).sum())
        loss += float(_h_losses(found, wanted, known, tree).sum())
    precision = shared / named if named else None
    recall = shared / true if true else None
    matches = best_match(decided=decided, truth=truth, cost=cost, hierarchy=hierarchy)
    return {
        "images": len(truth),
        "labels_named": float(decided.sum() / len(truth)),
        "inconsistent": inconsistent / len(truth),
        "hierarchical_precision": precision,
        "hierarchical_recall": recall,
        "hierarchical_f1": 2 * shared / (named + true) if named + true else None,
        "h_loss": loss / len(truth),
        "best_match_images": len(matches),
        "best_match_severity": float(matches.mean()) if len(matches) else None,
    }


def _h_losses(found: numpy.ndarray, wanted: numpy.ndarray, known: numpy.ndarray, tree: LabelTree) -> numpy.ndarray:
    """(N,) H-loss of each image, from (g, N) closed sets and where they are known."""
    wrong = (found != wanted) & known
    clean = numpy.ones(found.shape, dtype=bool)  # No ancestor is wrong.
    for node in tree.top_down[1:]:
        clean[node] = clean[tree.parents[node]] & ~wrong[tree.parents[node]]
    return tree.weights @ (wrong & clean)


def best_match(
    *, decided: numpy.ndarray, truth: numpy.ndarray, cost: numpy.ndarray, hierarchy: Hierarchy
) -> numpy.ndarray:
    """(M,) severity of each decided set: half the mean cost from its labels to their nearest true one, half the mean
    cost from the true labels to their nearest decided one.

    Both sets are read by their most specific labels, so that naming what a label implies neither costs nor earns. An
    empty set is read as {No Finding} where that is a class; else an empty set against one that is not has the largest
    cost, and two empty sets have none. Masked labels are left out of the decided set, and an image with masked labels
    and no true one is left out altogether, for its set is not known.
    """
    masked = numpy.isnan(truth)
    known = (truth == 1).any(axis=1) | ~masked.any(axis=1)
    truth, decided = truth[known] == 1, decided[known] & ~masked[known]
    found = numpy.empty(len(truth))
    for rows in chunks(*truth.shape):
        ours = _read(most_specific(decided[rows], hierarchy), hierarchy.classes)
        theirs = _read(most_specific(truth[rows], hierarchy), hierarchy.classes)
        both = ours.any(axis=1) & theirs.any(axis=1)
        found[rows] = numpy.where(ours.any(axis=1) == theirs.any(axis=1), 0.0, cost.max())
        from_ours = _mean_where(distances(truth=theirs[both], cost=cost), ours[both])
        from_theirs = _mean_where(distances(truth=ours[both], cost=cost.T), theirs[both])
        found[rows.start + numpy.flatnonzero(both)] = (from_ours + from_theirs) / 2
    return found


def _read(sets: numpy.ndarray, classes: Sequence[str]) -> numpy.ndarray:
    if NO_FINDING in classes:
        sets[:, list(classes).index(NO_FINDING)] |= ~sets.any(axis=1)
    return sets


def _mean_where(values: numpy.ndarray, chosen: numpy.ndarray) -> numpy.ndarray:
    return numpy.where(chosen, values, 0).sum(axis=1) / chosen.sum(axis=1)


def not_better(found: dict[str, Any], baselines: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Where a trivial decision does as well as `found` or better: such a metric says nothing about these predictions.

    Args:
        found: what `score` gave. baselines: name -> what `score` gave for it.

    Returns:
        a list of metric, value, baseline, baseline_value; empty where every compared metric is won.
    """
    warnings = []
    for metric, more_is_better in COMPARED.items():
        for name, other in baselines.items():
            if found[metric] is None or other[metric] is None:
                continue
            won = found[metric] > other[metric] if more_is_better else found[metric] < other[metric]
            if not won:
                warnings.append(
                    {"metric": metric, "value": found[metric], "baseline": name, "baseline_value": other[metric]}
                )
    return warnings
