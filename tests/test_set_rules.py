"""Sets of labels: decisions against brute force over all sets, metrics by hand and against loops."""

from itertools import product

import numpy
import pytest
import sklearn.metrics
from hypothesis import given, strategies

from severity.arrays import probabilities
from severity.arrays.label_tree import LabelTree
from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy
from severity.decisions import set_rules
from severity.decisions.set_rules import best_thresholds, decide, node_probabilities
from severity.metrics.set_metrics import best_match, score
from severity.tree import costs
from tests.trees import chexpert_default, flat, random_tree, random_trees, six_classes

HALF = numpy.full(99, 0.5)


def chain() -> Hierarchy:
    """root -> A (a label) -> b, c; root -> d: one label at an inner node, one group-less leaf."""
    return Hierarchy.from_parents([-1, 0, 1, 1, 0], [1, 2, 3, 4], ["A", "b", "c", "d"])


def consistent(tree: LabelTree) -> list[numpy.ndarray]:
    """All sets of nodes, as (g,) bool, that hold the parent of each of their nodes, and the root if it says nothing."""
    found = []
    for bits in product([False, True], repeat=len(tree.parents)):
        said = numpy.array(bits)
        if said[tree.root] < tree.always:
            continue
        if all(said[tree.parents[node]] for node in numpy.flatnonzero(said) if node != tree.root):
            found.append(said)
    return found


def h_loss(found: numpy.ndarray, wanted: numpy.ndarray, tree: LabelTree) -> float:
    """Node by node, from the definition."""
    total = 0.0
    for node in range(len(tree.parents)):
        above, weight = [], 1.0
        step = node
        while step != tree.root:
            siblings = (tree.parents == tree.parents[step]).sum()
            weight /= siblings
            step = tree.parents[step]
            above.append(step)
        if found[node] != wanted[node] and all(found[each] == wanted[each] for each in above):
            total += weight
    return total


@given(strategies.integers(0, 500), strategies.integers(2, 6), strategies.integers(1, 3))
def test_hbayes_has_the_least_expected_h_loss_of_all_consistent_sets(seed, classes, inner):
    hierarchy = random_tree(seed, classes, inner)
    tree = LabelTree(hierarchy)
    sets = consistent(tree)
    random = numpy.random.default_rng(seed)
    # A joint distribution over sets of labels in which every node is true exactly when one of its labels' is, and
    # groups are as probable as their likeliest child: then the marginals say all there is to know about the nodes.
    marginal = random.random((1, len(hierarchy.classes)))
    exact = node_probabilities(marginal, tree)[:, 0]
    joint = numpy.array([_independent_given_parent(each, exact, tree) for each in sets])
    assert joint.sum() == pytest.approx(1)
    assert numpy.array(sets).T @ joint == pytest.approx(exact)
    risks = [sum(p * h_loss(mine, true, tree) for p, true in zip(joint, sets, strict=True)) for mine in sets]
    decided = decide("hbayes", marginal=marginal, hierarchy=hierarchy, thresholds=HALF)
    closed = tree.closed(decided)[:, 0]
    mine = sum(p * h_loss(closed, true, tree) for p, true in zip(joint, sets, strict=True))
    assert mine == pytest.approx(min(risks), abs=1e-9)


def _independent_given_parent(said: numpy.ndarray, probability: numpy.ndarray, tree: LabelTree) -> float:
    total = 1.0
    for node in range(len(tree.parents)):
        above = tree.parents[node]
        if node == tree.root:
            given = probability[node]
        elif said[above]:
            given = probability[node] / probability[above]
        else:
            continue
        total *= given if said[node] else 1 - given
    return total


@given(random_trees(), strategies.integers(0, 1000))
def test_hbayes_never_names_a_child_without_its_parent(tree, seed):
    marginal = numpy.random.default_rng(seed).random((20, len(tree.classes)))
    decided = decide("hbayes", marginal=marginal, hierarchy=tree, thresholds=HALF)
    for row in decided:
        for k, node in enumerate(tree.stands_for):
            for other, below in enumerate(tree.stands_for):
                if node in tree.ancestors(below):
                    assert row[k] >= row[other]


@given(random_trees(), strategies.integers(0, 1000))
def test_nodes_are_at_least_as_probable_as_their_children_and_labels_never_less_than_said(tree, seed):
    labels = LabelTree(tree)
    marginal = numpy.random.default_rng(seed).random((20, len(tree.classes)))
    found = node_probabilities(marginal, labels)
    for node, parent in enumerate(labels.parents):
        if parent >= 0:
            assert (found[parent] >= found[node]).all()
    assert (found[labels.nodes].T >= marginal).all()
    consistent_already = found[labels.nodes].T
    assert (node_probabilities(consistent_already, labels) == found).all()


@pytest.mark.parametrize("rule", set_rules.RULES)
def test_on_a_flat_tree_every_rule_is_the_threshold(rule):
    marginal = numpy.random.default_rng(0).random((50, 5))
    marginal[0] = [0.5, 0.0, 1.0, 0.5, 0.4]
    decided = decide(rule, marginal=marginal, hierarchy=flat(5), thresholds=numpy.full(5, 0.5))
    assert (decided == (marginal >= 0.5)).all()


@pytest.mark.parametrize("rule", set_rules.RULES)
def test_chunks_do_not_change_a_decision_or_a_metric(rule, monkeypatch):
    tree = chexpert_default()
    random = numpy.random.default_rng(0)
    marginal = random.random((40, 14))
    truth = numpy.where(random.random((40, 14)) < 0.1, numpy.nan, random.random((40, 14)) < 0.3)
    inputs = {"marginal": marginal, "hierarchy": tree, "thresholds": best_thresholds(marginal, truth)}
    decided = decide(rule, **inputs)
    found = score(decided=decided, truth=truth, cost=costs.path(tree), hierarchy=tree)
    monkeypatch.setattr(probabilities, "CHUNK", 100)
    assert (decide(rule, **inputs) == decided).all()
    assert score(decided=decided, truth=truth, cost=costs.path(tree), hierarchy=tree) == pytest.approx(found)


@pytest.mark.parametrize("seed", range(8))
def test_thresholds_have_the_largest_f1_of_all(seed):
    random = numpy.random.default_rng(seed)
    marginal = random.integers(0, 8, (20, 3)) / 7  # with ties
    truth = (random.random((20, 3)) < 0.4).astype(float)
    truth[random.random((20, 3)) < 0.2] = numpy.nan
    truth[:, 2] = numpy.where(truth[:, 2] == 1, 0, truth[:, 2])  # absent
    found = best_thresholds(marginal, truth)
    assert found[2] == 0.5
    for column in (0, 1):
        known = ~numpy.isnan(truth[:, column])
        wanted, values = truth[known, column] == 1, marginal[known, column]
        distinct = sorted({0.0, *values})
        middles = [(low + high) / 2 for low, high in zip(distinct, distinct[1:], strict=False)]
        cuts = numpy.array([*([0.0] if 0 in values else []), *middles])
        scores = numpy.array([sklearn.metrics.f1_score(wanted, values >= cut) for cut in cuts])
        best = cuts[scores >= scores.max() - 1e-12]
        assert found[column] == pytest.approx(best[numpy.abs(best - 0.5).argmin()])


class TestMetrics:
    def test_hierarchical_precision_and_recall_by_hand(self):
        # Kiritchenko's example: the truth is c below A, the answer is b below A: one of two nodes is shared.
        hierarchy = chain()
        decided = numpy.array([[0, 1, 0, 0], [0, 0, 0, 1]], dtype=bool)  # {b}, {d}
        truth = numpy.array([[0, 0, 1, 0], [0, 0, 0, 1.0]])  # {c}, {d}
        found = score(decided=decided, truth=truth, cost=costs.lca_height(hierarchy), hierarchy=hierarchy)
        assert found["hierarchical_precision"] == found["hierarchical_recall"] == pytest.approx(2 / 3)
        assert found["hierarchical_f1"] == pytest.approx(2 / 3)
        # Of the second level's weights, 1/2 is shared by b and c: both are wrong below a right A.
        assert found["h_loss"] == pytest.approx((1 / 4 + 1 / 4 + 0) / 2)
        assert found["inconsistent"] == 0.5  # {b} without A
        assert found["labels_named"] == 1
        assert found["best_match_severity"] == pytest.approx((1 + 0) / 2)

    @given(random_trees(), strategies.integers(0, 1000))
    def test_against_loops_over_nodes(self, hierarchy, seed):
        random = numpy.random.default_rng(seed)
        tree = LabelTree(hierarchy)
        size = len(hierarchy.classes)
        decided, truth = random.random((12, size)) < 0.3, (random.random((12, size)) < 0.3).astype(float)
        found = score(decided=decided, truth=truth, cost=costs.path(hierarchy), hierarchy=hierarchy)
        shared = named = true = 0
        losses = []
        for mine, wanted in zip(decided, truth == 1, strict=True):
            sets = []
            for labels in (mine, wanted):
                nodes = {
                    each for k in numpy.flatnonzero(labels) for each in hierarchy.ancestors(hierarchy.stands_for[k])
                }
                sets.append(nodes | ({tree.root} if tree.always else set()))
            ours, theirs = (each - {tree.root} for each in sets)
            shared, named, true = shared + len(ours & theirs), named + len(ours), true + len(theirs)
            as_bool = [numpy.isin(numpy.arange(len(tree.parents)), list(each)) for each in sets]
            losses.append(h_loss(*as_bool, tree))
        assert found["hierarchical_precision"] == (pytest.approx(shared / named) if named else None)
        assert found["hierarchical_recall"] == (pytest.approx(shared / true) if true else None)
        assert found["h_loss"] == pytest.approx(numpy.mean(losses))

    @given(random_trees(), strategies.integers(0, 1000))
    def test_best_match_against_a_loop(self, hierarchy, seed):
        random = numpy.random.default_rng(seed)
        size = len(hierarchy.classes)
        cost = random.random((size, size)) * (1 - numpy.eye(size))  # asymmetric
        decided, truth = random.random((12, size)) < 0.3, (random.random((12, size)) < 0.3).astype(float)
        found = best_match(decided=decided, truth=truth, cost=cost, hierarchy=hierarchy)
        for value, mine, true in zip(found, decided, truth == 1, strict=True):
            ours, theirs = (
                [
                    k
                    for k in numpy.flatnonzero(labels)
                    if not any(
                        other != k and hierarchy.stands_for[k] in hierarchy.ancestors(hierarchy.class_nodes[other])
                        for other in numpy.flatnonzero(labels)
                    )
                ]
                for labels in (mine, true)
            )
            if not ours or not theirs:
                assert value == (cost.max() if ours or theirs else 0)
                continue
            forth = numpy.mean([min(cost[k, y] for y in theirs) for k in ours])
            back = numpy.mean([min(cost[k, y] for k in ours) for y in theirs])
            assert value == pytest.approx((forth + back) / 2)

    def test_an_empty_set_is_no_finding_where_there_is_one(self):
        tree = chexpert_default()
        cost = costs.path(tree)
        names = {name: k for k, name in enumerate(tree.classes)}
        truth = numpy.zeros((3, 14))
        truth[0, names["No Finding"]] = 1
        truth[1, names["Edema"]] = 1
        found = best_match(decided=numpy.zeros((3, 14), dtype=bool), truth=truth, cost=cost, hierarchy=tree)
        assert found.tolist() == [0, cost[names["No Finding"], names["Edema"]], 0]

    def test_naming_what_a_label_implies_changes_no_severity(self):
        tree = chexpert_default()
        names = {name: k for k, name in enumerate(tree.classes)}
        truth, decided = numpy.zeros((1, 14)), numpy.zeros((1, 14), dtype=bool)
        truth[0, [names["Pneumonia"], names["Consolidation"]]] = 1
        decided[0, names["Pneumonia"]] = True
        assert best_match(decided=decided, truth=truth, cost=costs.path(tree), hierarchy=tree)[0] == 0

    def test_masked_labels_are_left_out(self):
        hierarchy = chain()
        cost = costs.lca_height(hierarchy)
        truth = numpy.array([[numpy.nan, numpy.nan, 0, 1], [0, 0, 0, numpy.nan]])
        right = numpy.array([[0, 0, 0, 1], [0, 0, 0, 0]], dtype=bool)
        said = numpy.array([[1, 1, 0, 1], [0, 0, 0, 1]], dtype=bool)  # also what is masked
        first, second = (score(decided=each, truth=truth, cost=cost, hierarchy=hierarchy) for each in (right, said))
        for name in ("hierarchical_f1", "h_loss", "best_match_severity"):
            assert first[name] == second[name]
        assert second["hierarchical_f1"] == 1 and second["h_loss"] == 0
        assert second["best_match_images"] == 1  # of the second image no set is known

    @given(random_trees(), strategies.integers(0, 1000))
    def test_the_truth_itself_is_perfect_and_the_h_loss_at_most_one(self, tree, seed):
        random = numpy.random.default_rng(seed)
        truth = (random.random((10, len(tree.classes))) < 0.3).astype(float)
        truth[0, 0] = 1
        found = score(decided=truth == 1, truth=truth, cost=costs.path(tree), hierarchy=tree)
        assert found["hierarchical_f1"] == 1 and found["h_loss"] == found["best_match_severity"] == 0
        opposite = score(decided=truth == 0, truth=truth, cost=costs.path(tree), hierarchy=tree)
        assert 0 < opposite["h_loss"] <= 1 + 1e-12

    def test_nothing_named_or_nothing_true_is_null(self):
        tree = six_classes()
        none, empty = numpy.zeros((2, 6), dtype=bool), numpy.zeros((2, 6))
        found = score(decided=none, truth=empty, cost=costs.path(tree), hierarchy=tree)
        assert [found[f"hierarchical_{name}"] for name in ("precision", "recall", "f1")] == [None] * 3
        masked = score(decided=none, truth=empty + numpy.nan, cost=costs.path(tree), hierarchy=tree)
        assert masked["best_match_severity"] is None


def test_wrong_inputs_are_refused():
    tree = six_classes()
    good = numpy.full((2, 6), 0.5)
    with pytest.raises(SeverityError, match="Did you mean 'hbayes'"):
        decide("hbayse", marginal=good, hierarchy=tree, thresholds=HALF)
    with pytest.raises(SeverityError, match="not \\(images, 6\\)"):
        decide("hbayes", marginal=good[:, :5], hierarchy=tree, thresholds=HALF)
    with pytest.raises(SeverityError, match="outside"):
        decide("hbayes", marginal=good * numpy.nan, hierarchy=tree, thresholds=HALF)
    with pytest.raises(SeverityError, match="do not fit"):
        score(decided=good, truth=good, cost=costs.path(tree), hierarchy=tree)
