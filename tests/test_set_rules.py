"""Sets of labels: decisions against brute force over all sets, metrics by hand and against loops."""

from itertools import product

import numpy
import pytest
import scipy.special
import sklearn.metrics
from hypothesis import given, strategies

from severity.arrays import probabilities, tree_model
from severity.arrays.label_tree import LabelTree
from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy
from severity.decisions import set_rules
from severity.decisions.set_rules import best_thresholds, decide
from severity.metrics.set_metrics import best_match, score
from severity.tree import costs
from tests.trees import chexpert_default, flat, random_tree, random_trees, six_classes


def nodes_of(marginal: numpy.ndarray, tree: Hierarchy) -> numpy.ndarray:
    """(N, K) probabilities of labels -> (N, n) of nodes."""
    return scipy.special.expit(tree_model.node_logits_of_labels(tree_model.logits_of(marginal), tree))


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
def test_a_set_of_nodes_has_the_least_expected_h_loss_of_all_consistent_ones(seed, classes, inner):
    hierarchy = random_tree(seed, classes, inner)
    tree = LabelTree(hierarchy)
    sets = consistent(tree)
    random = numpy.random.default_rng(seed)
    # Any joint distribution with these probabilities of nodes has the same expected H-losses.
    nodes = nodes_of(random.random((1, len(hierarchy.classes))), hierarchy)
    exact = nodes[0, : hierarchy.given_nodes]
    joint = numpy.array([_independent_given_parent(each, exact, tree) for each in sets])
    assert joint.sum() == pytest.approx(1)
    assert numpy.array(sets).T @ joint == pytest.approx(exact)
    risks = [sum(p * h_loss(mine, true, tree) for p, true in zip(joint, sets, strict=True)) for mine in sets]
    said = set_rules.node_set(nodes, hierarchy)[0]
    mine = sum(p * h_loss(said, true, tree) for p, true in zip(joint, sets, strict=True))
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
    decided = decide("hbayes", nodes=nodes_of(marginal, tree), hierarchy=tree)
    for row in decided:
        for k, node in enumerate(tree.stands_for):
            for other, below in enumerate(tree.stands_for):
                if node in tree.ancestors(below):
                    assert row[k] >= row[other]


@given(random_trees(), strategies.integers(0, 1000))
def test_labels_are_never_less_probable_than_said_and_consistent_ones_stay(tree, seed):
    marginal = numpy.random.default_rng(seed).random((20, len(tree.classes)))
    found = nodes_of(marginal, tree)
    assert (found[:, tree.stands_for] >= marginal - 1e-12).all()
    assert nodes_of(found[:, tree.stands_for], tree) == pytest.approx(found, abs=1e-9)


@given(random_trees(), strategies.integers(0, 1000))
def test_no_label_is_named_beside_a_group_that_is_not_said(tree, seed):
    """The labels of `hbayes` are those of a consistent set of nodes in which every group has a child."""
    nodes = nodes_of(numpy.random.default_rng(seed).random((20, len(tree.classes))), tree)
    named, said = decide("hbayes", nodes=nodes, hierarchy=tree), set_rules.node_set(nodes, tree)
    labels = set(tree.stands_for.tolist())
    groups = [node for node in range(tree.given_nodes) if node not in labels and node != tree.root]
    alone = [
        any(row[group] and not row[[c for c in tree.children[group] if c < tree.given_nodes]].any() for group in groups)
        for row in said
    ]
    for mine, nodes_said, bare in zip(named, said, alone, strict=True):
        if not bare:  # where no group would be said by itself, both say the same
            assert (mine == nodes_said[tree.stands_for]).all()


@pytest.mark.parametrize("rule", set_rules.RULES)
def test_on_a_flat_tree_every_rule_is_the_threshold(rule):
    marginal = numpy.random.default_rng(0).random((50, 5))
    marginal[0] = [0.5, 0.0, 1.0, 0.5, 0.4]
    decided = decide(rule, nodes=nodes_of(marginal, flat(5)), hierarchy=flat(5), thresholds=numpy.full(5, 0.5))
    assert (decided == (marginal >= 0.5)).all()


@pytest.mark.parametrize("rule", set_rules.RULES)
def test_chunks_do_not_change_a_decision_or_a_metric(rule, monkeypatch):
    tree = chexpert_default()
    random = numpy.random.default_rng(0)
    marginal = random.random((40, 14))
    truth = numpy.where(random.random((40, 14)) < 0.1, numpy.nan, random.random((40, 14)) < 0.3)
    inputs = {"nodes": nodes_of(marginal, tree), "hierarchy": tree, "thresholds": best_thresholds(marginal, truth)}
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
        assert found.tolist() == [0, cost[names["No Finding"], names["Edema"]]]  # of the third no set is known
        everything = cost[names["No Finding"], names["Edema"]]
        said = numpy.zeros((3, 14), dtype=bool)
        said[2, names["Edema"]] = True
        truth[2, names["No Finding"]] = 1
        found = best_match(decided=said, truth=truth, cost=cost, hierarchy=tree)
        assert found.tolist() == [0, everything, cost[names["Edema"], names["No Finding"]]]

    def test_an_image_without_a_label_counts_where_nobody_says_that_there_is_one(self):
        tree = six_classes()  # without No Finding two empty sets agree
        none = numpy.zeros((2, 6), dtype=bool)
        found = best_match(decided=none, truth=numpy.zeros((2, 6)), cost=costs.path(tree), hierarchy=tree)
        assert found.tolist() == [0, 0]

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
    good = numpy.full((2, len(tree.parents)), 0.5)
    with pytest.raises(SeverityError, match="Did you mean 'hbayes'"):
        decide("hbayse", nodes=good, hierarchy=tree)
    with pytest.raises(SeverityError, match=r"must be \(2, 10\)"):
        decide("hbayes", nodes=good[:, :5], hierarchy=tree)
    for wrong in (good * numpy.nan, good + 1, good - 1):
        with pytest.raises(SeverityError, match="outside"):
            decide("hbayes", nodes=wrong, hierarchy=tree)
    for thresholds in (None, numpy.full(5, 0.5)):
        with pytest.raises(SeverityError, match="'threshold_f1' needs thresholds, one for each of 6"):
            decide("threshold_f1", nodes=good, hierarchy=tree, thresholds=thresholds)
    with pytest.raises(SeverityError, match="do not fit"):
        score(decided=good, truth=good, cost=costs.path(tree), hierarchy=tree)
