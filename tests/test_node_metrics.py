"""Metrics of node decisions: by hand, against paths to the root, and for classes the single-decision metrics."""

import numpy
import pytest
from hypothesis import given, strategies

from severity.arrays import subtrees
from severity.arrays.labelsets import most_specific
from severity.core.errors import SeverityError
from severity.decisions.class_rules import climb
from severity.metrics import class_metrics, node_metrics
from severity.tree import costs
from tests.trees import random_trees, six_classes


@given(random_trees(), strategies.integers(0, 1000))
def test_of_classes_they_are_those_of_single_decisions(tree, seed):
    random = numpy.random.default_rng(seed)
    size = len(tree.classes)
    ranking = numpy.array([random.permutation(size) for _ in range(20)])
    truth = random.random((20, size)) < 0.3
    truth[0, 0] = True
    for cost in (costs.lca_height(tree), costs.path(tree)):
        found = node_metrics.score(nodes=tree.class_nodes[ranking[:, 0]], labels=truth, cost=cost, hierarchy=tree)
        usual = class_metrics.single_decision(ranking=ranking, truth=most_specific(truth, tree), cost=cost)
        assert found["error"] == pytest.approx(usual["top1_error"])
        assert found["worst_severity"] == pytest.approx(usual["hierarchical_distance_at_1"])
        assert found["unspecific"] == found["stopped_inside"] == 0
        assert found["specificity"] == pytest.approx(1)
    assert found["path_distance"] == pytest.approx(usual["hierarchical_distance_at_1"])
    assert found["information"] == pytest.approx(numpy.log2(size))


@given(random_trees())
def test_distances_against_paths_to_the_root(tree):
    found = node_metrics.path_distances(tree)
    worst = node_metrics.node_costs(costs.lca_height(tree), tree)
    for node in range(len(tree.parents)):
        ours = tree.ancestors(node)
        for column, leaf in enumerate(tree.class_nodes):
            theirs = tree.ancestors(leaf)
            meeting = next(each for each in ours if each in theirs)
            assert found[node, column] == ours.index(meeting) + theirs.index(meeting)
            below = [k for k, other in enumerate(tree.class_nodes) if node in tree.ancestors(other)]
            assert worst[node, column] == max(costs.lca_height(tree)[k, column] for k in below)


@given(random_trees(), strategies.integers(0, 1000))
def test_climbing_higher_is_less_often_wrong_and_says_less(tree, seed):
    random = numpy.random.default_rng(seed)
    size = len(tree.classes)
    nodes = subtrees.probabilities(random.dirichlet(numpy.ones(size), 20), tree).clip(max=1)
    truth = numpy.eye(size, dtype=bool)[random.integers(0, size, 20)]
    scores = [
        node_metrics.score(
            nodes=climb(nodes=nodes, hierarchy=tree, threshold=threshold),
            labels=truth,
            cost=costs.lca_height(tree),
            hierarchy=tree,
        )
        for threshold in (0.51, 0.7, 0.9, 1)  # from one half on, of exclusive classes, on one path
    ]
    for lower, higher in zip(scores, scores[1:], strict=False):
        assert higher["error"] <= lower["error"]
        assert higher["worst_severity"] >= lower["worst_severity"]
        for name in ("depth", "specificity", "information"):
            assert higher[name] <= lower[name] + 1e-12


def test_by_hand_on_the_six_class_tree():
    tree = six_classes()
    nodes = numpy.array([tree.names.index(name) for name in ("d1", "node 7", "node 5", "node 0", "node 7", "a")])
    truth = numpy.eye(6, dtype=bool)[[4, 5, 0, 1, 3, 0]]  # d1, d2, a, b1, c1, a
    truth[5] = False  # left out
    found = node_metrics.score(nodes=nodes, labels=truth, cost=costs.lca_height(tree), hierarchy=tree)
    assert found["images"] == 5
    assert found["error"] == 2 / 5  # node 5 for a, node 7 for c1
    assert found["unspecific"] == 2 / 5  # node 7 for d2, the root for b1
    assert found["stopped_inside"] == 4 / 5
    assert found["worst_severity"] == (0 + 1 + 3 + 3 + 2) / 5
    assert found["path_distance"] == (0 + 1 + 2 + 2 + 2) / 5
    assert found["depth"] == (3 + 2 + 1 + 0 + 2) / 5
    assert found["specificity"] == pytest.approx((1 + 2 / 3 + 1 / 3 + 0 + 2 / 3) / 5)
    assert found["information"] == pytest.approx((numpy.log2(6) + 2 * numpy.log2(3) + 1 + 0) / 5)
    with pytest.raises(SeverityError, match="has a true class"):
        node_metrics.score(nodes=nodes, labels=numpy.zeros_like(truth), cost=costs.lca_height(tree), hierarchy=tree)
