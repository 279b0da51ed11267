"""Probabilities on the tree: against brute force over joint distributions of label sets, and by hand."""

import itertools

import numpy
import pytest
import scipy.special
import torch
from hypothesis import given, strategies

from severity import losses
from severity.arrays import tree_model
from severity.arrays.labelsets import most_specific
from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy
from severity.decisions import class_rules, set_rules, temperature
from severity.decisions.decider import Decider
from severity.links.links import TORCH
from severity.metrics import calibration, class_metrics
from severity.predictions.predictions import Predictions
from severity.tree import costs
from tests.trees import chexpert_default, random_tree, random_trees, six_classes

SMALL = strategies.builds(
    random_tree,
    seed=strategies.integers(0, 2**32 - 1),
    classes=strategies.integers(2, 5),
    inner=strategies.integers(1, 3),
)
SEEDS = strategies.integers(0, 2**32 - 1)
# Devices under the root; a group that is a label with three children.
GROUPED = Hierarchy.from_parents([-1, 0, 0, 2, 2, 2], [1, 2, 3, 4, 5], ["Devices", "Group", "a", "b", "c"])


class Joint:
    """A tree whose nodes are present independently given their parent: every state of it, with its probability."""

    def __init__(self, tree: Hierarchy, seed: int):
        self.tree, self.own = tree, tree_model.own_leaves(tree)
        random = numpy.random.default_rng(seed)
        drawn = [node for node in tree.top_down if node not in self.own.values()]
        self.q = {node: float(random.uniform(0.05, 0.95)) for node in drawn}
        if tree.root not in tree.stands_for:
            self.q[tree.root] = 1.0
        self.states = list(self._states(drawn))

    def _states(self, drawn: list[int]):
        for bits in itertools.product([False, True], repeat=len(drawn)):
            present = numpy.zeros(len(self.tree.parents), dtype=bool)
            probability = 1.0
            for node, bit in zip(drawn, bits, strict=True):
                parent = self.tree.parents[node]
                possible = parent < 0 or present[parent]
                probability *= (self.q[node] if bit else 1 - self.q[node]) if possible else float(not bit)
                present[node] = bit
            for node, leaf in self.own.items():
                present[leaf] = present[node] and not present[[c for c in self.tree.children[node] if c != leaf]].any()
            if probability:
                yield probability, present

    @property
    def nodes(self) -> numpy.ndarray:
        """(n,) probability of each node."""
        return sum(probability * present for probability, present in self.states)

    @property
    def posterior(self) -> numpy.ndarray:
        """(K,) mean share of each class in the most specific labels of a set that is not empty."""
        total, mass = numpy.zeros(len(self.tree.classes)), 0.0
        for probability, present in self.states:
            labels = present[self.tree.class_nodes]
            if labels.any():
                total += probability * labels / labels.sum()
                mass += probability
        return total / mass

    @property
    def columns(self) -> list[numpy.ndarray | None]:
        """Log-odds of the nodes but for own leaves, as a network gives them."""
        logits = scipy.special.logit(numpy.clip(self.nodes, 1e-15, 1 - 1e-15))
        certain = self.tree.root not in self.tree.stands_for
        return [None if certain and node == self.tree.root else logits[[node]] for node in range(len(logits))]


def logits(*probabilities: float) -> list[numpy.ndarray]:
    return [numpy.array([scipy.special.logit(each)]) for each in probabilities]


@given(SMALL, SEEDS)
def test_own_leaves_and_posterior_are_those_of_the_joint_distribution(tree, seed):
    joint = Joint(tree, seed)
    columns = tree_model.with_own_leaves(joint.columns, tree, tree_model.NUMPY)
    for leaf in joint.own.values():
        assert scipy.special.expit(columns[leaf][0]) == pytest.approx(joint.nodes[leaf], abs=1e-9)
    found = numpy.exp([each[0] for each in tree_model.log_posterior(columns, tree, tree_model.NUMPY)])
    assert found == pytest.approx(joint.posterior, abs=1e-9)


@given(random_trees(), SEEDS)
def test_own_leaves_are_within_the_bounds_that_hold_whatever_the_dependence(tree, seed):
    labels = numpy.random.default_rng(seed).normal(scale=3, size=(4, len(tree.classes)))
    nodes = scipy.special.expit(tree_model.node_logits_of_labels(labels, tree))
    parents = tree.parents
    for node in tree.top_down[1:]:
        assert (nodes[:, node] <= nodes[:, parents[node]] + 1e-12).all()
    for node, leaf in tree_model.own_leaves(tree).items():
        children = [child for child in tree.children[node] if child != leaf]
        assert (nodes[:, leaf] >= nodes[:, node] - nodes[:, children].sum(axis=1) - 1e-9).all()
        assert (nodes[:, leaf] <= nodes[:, node] - nodes[:, children].max(axis=1) + 1e-9).all()


@given(random_trees(), SEEDS)
def test_of_exclusive_classes_a_node_has_the_sum_below_it(tree, seed):
    scores = numpy.random.default_rng(seed).normal(scale=4, size=(3, len(tree.classes)))
    nodes = scipy.special.expit(tree_model.node_logits_of_classes(scores, tree))
    p = scipy.special.softmax(scores, axis=1)
    wanted = numpy.stack([p[:, below].sum(axis=1) for below in tree.classes_below], axis=1)
    assert nodes == pytest.approx(wanted, abs=1e-12)


def test_log_odds_keep_ranks_where_probabilities_are_as_good_as_one():
    scores = numpy.array([[40.0, 0, 0, 0, 0, 0], [50.0, 0, 0, 0, 0, 0]])
    nodes = tree_model.node_logits_of_classes(scores, six_classes())
    assert nodes[1, six_classes().class_nodes[0]] - nodes[0, six_classes().class_nodes[0]] == pytest.approx(10)


@pytest.mark.parametrize("certainty", [5.0, 15.0, 25.0, 35.0, 60.0, 1e4])
@pytest.mark.parametrize("rule", ["argmax", "crm", "crm_nodes"])
def test_nearly_certain_labels_keep_the_order_of_their_log_odds(rule, certainty):
    """On a flat tree the most probable of independent labels is that of the largest logit, however certain all are."""
    tree = Hierarchy.from_parents([-1, 0, 0, 0, 0], [1, 2, 3, 4], list("abcd"))
    rng = numpy.random.default_rng(0)
    label_logits = certainty + rng.permuted(numpy.tile([0.0, 1.0, 2.0, 3.0], (50, 1)), axis=1)
    found = predicted(tree, label_logits=label_logits)
    decider = Decider.of(found, tree, costs.lca_height(tree))
    assert (decider.rank(rule, found)[:, 0] == label_logits.argmax(axis=1)).all()
    if rule == "argmax":
        assert (decider.rank(rule, found) == numpy.argsort(-label_logits, axis=1)).all()


def test_equal_log_odds_stay_ties_and_distinct_posteriors_stay_as_they_are():
    p = numpy.log([[0.25, 0.25, 0.5], [0.1, 0.3, 0.6], [0.4, 0.4, 0.2]])
    found = tree_model.ranked(p, numpy.array([[9.0, 9, 50], [3, 2, 1], [1, 2, 3]]))
    assert numpy.array_equal(found[:2], p[:2]) and found[0, 0] == found[0, 1]
    assert found[2, 1] > found[2, 0] > found[2, 2] and numpy.allclose(found, p, atol=1e-13)


def predicted(tree, **scores):
    """Predictions of test images from scores alone."""
    images = len(next(iter(scores.values())))
    names = numpy.array([f"i{number}" for number in range(images)])
    truth = numpy.eye(len(tree.classes))[numpy.zeros(images, dtype=int)]
    return Predictions.of(
        tree,
        ids=names,
        patients=names,
        split=numpy.full(images, "test"),
        truth=truth,
        run="a-b-0",
        dataset="d",
        **scores,
    )


def test_a_group_counts_its_children_once():
    columns = tree_model.from_labels(logits(0.98, 0.55, 0.5, 0.5, 0.5), GROUPED, tree_model.NUMPY)
    p = numpy.exp(numpy.stack(tree_model.log_posterior(columns, GROUPED, tree_model.NUMPY), axis=1))
    nodes = scipy.special.expit(tree_model._table(columns))
    cost = costs.lca_height(GROUPED)
    for rule in ("argmax", "crm", "crm_nodes"):
        ranking = class_rules.rank(rule, posterior=p, nodes=nodes, cost=cost, hierarchy=GROUPED)
        assert GROUPED.classes[ranking[0, 0]] == "Devices", rule
    risk = sum(rise * (1 - nodes[0, node]) for node, rise in class_rules.ancestor_costs(cost, GROUPED)[0])
    assert risk == pytest.approx(0.04)


@pytest.mark.parametrize("certainty", [8.0, 20.0, 1e3])
def test_a_perfect_sigmoid_network_is_calibrated(certainty):
    tree = chexpert_default()
    truth = numpy.zeros((5, len(tree.classes)), dtype=bool)
    truth[:, [tree.classes.index("Edema"), tree.classes.index("Lung Opacity")]] = True
    loss = losses.build("bce", hierarchy=tree, cost=None)
    log_p = loss.log_posterior(torch.from_numpy(numpy.where(truth, certainty, -certainty))).numpy()
    found = calibration.of_posterior(log_posterior=log_p, labels=truth, hierarchy=tree)
    assert found["ece"] == pytest.approx(0, abs=1e-2 if certainty < 10 else 1e-6)
    assert temperature.fit(log_p, truth, tree) == 1 or certainty < 10


@given(random_trees(), SEEDS)
def test_numpy_and_torch_agree(tree, seed):
    labels = numpy.random.default_rng(seed).normal(scale=3, size=(4, len(tree.classes)))
    ours = tree_model.log_posterior_of_nodes(tree_model.node_logits_of_labels(labels, tree), tree)
    columns = tree_model.from_labels(torch.from_numpy(labels).unbind(dim=1), tree, TORCH)
    theirs = torch.stack(tree_model.log_posterior(columns, tree, TORCH), dim=1)
    assert ours == pytest.approx(theirs.numpy(), abs=1e-9)
    assert numpy.exp(ours).sum(axis=1) == pytest.approx(numpy.ones(4))


def sets_of(tree: Hierarchy, seed: int) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """Consistent label sets (S, K), their probabilities (S,), and the probability of each node (n,): any dependence."""
    labels = numpy.unique([present[tree.stands_for] for _, present in Joint(tree, seed).states], axis=0)
    q = numpy.random.default_rng(seed).dirichlet(numpy.full(len(labels), 0.2))
    present = numpy.zeros((len(labels), len(tree.parents)), dtype=bool)
    # A node is there when a label at or below it is, an own leaf when its label is and none below.
    for row, leaves in zip(present, most_specific(labels, tree), strict=True):
        for leaf in tree.class_nodes[leaves]:
            row[tree.ancestors(leaf)] = True
        row[tree.root] |= tree.root not in tree.stands_for
    return labels, q, q @ present.astype(float)


@given(SMALL, SEEDS)
def test_crm_nodes_has_the_least_expected_cost_to_the_nearest_of_a_set(tree, seed):
    labels, q, nodes = sets_of(tree, seed)
    kept = labels.any(axis=1)
    if q[kept].sum() < 1e-9:
        return
    truth = most_specific(labels[kept], tree)
    cost = costs.lca_height(tree)
    expected = q[kept] @ class_metrics.distances(truth=truth, cost=cost)
    # An empty set is as far from every class as the root.
    risk = numpy.array(
        [sum(rise * (1 - nodes[node]) for node, rise in steps) for steps in class_rules.ancestor_costs(cost, tree)]
    )
    if tree.root not in tree.stands_for:
        assert risk == pytest.approx(expected + q[~kept].sum() * cost.max(axis=1), abs=1e-9)
    p = numpy.full((1, len(tree.classes)), 1 / len(tree.classes))
    ranking = class_rules.rank("crm_nodes", posterior=p, nodes=nodes[None].clip(0, 1), cost=cost, hierarchy=tree)
    assert risk[ranking[0]] == pytest.approx(numpy.sort(risk), abs=1e-6)


@given(random_trees(), SEEDS)
def test_with_one_true_class_crm_nodes_is_crm(tree, seed):
    p = numpy.random.default_rng(seed).dirichlet(numpy.full(len(tree.classes), 0.5), 5)
    cost = costs.lca_height(tree)
    one, other = (class_rules.rank(rule, posterior=p, cost=cost, hierarchy=tree) for rule in ("crm", "crm_nodes"))
    risk = p @ cost.T
    assert numpy.take_along_axis(risk, one, axis=1) == pytest.approx(numpy.take_along_axis(risk, other, axis=1))


def test_crm_nodes_needs_a_cost_of_the_lowest_common_ancestor():
    tree = chexpert_default()
    p = numpy.full((1, 14), 1 / 14)
    with pytest.raises(SeverityError, match="lowest common ancestor"):
        class_rules.rank("crm_nodes", posterior=p, cost=costs.path(tree), hierarchy=tree)


def h_loss(said: numpy.ndarray, true: numpy.ndarray, tree: Hierarchy) -> float:
    """By its definition: the weight of each wrong node all of whose ancestors are right."""
    weight = {tree.root: 1.0}
    size = tree.given_nodes
    total = 0.0
    for node in tree.top_down:
        if node >= size:
            continue
        if node != tree.root:
            siblings = [child for child in tree.children[tree.parents[node]] if child < size]
            weight[node] = weight[tree.parents[node]] / len(siblings)
        clean = all(said[above] == true[above] for above in tree.ancestors(node)[1:])
        total += weight[node] * (said[node] != true[node] and clean)
    return total


def closed(labels: numpy.ndarray, tree: Hierarchy) -> numpy.ndarray:
    """(given nodes,) bool: at and above some labels; a root without a label always."""
    said = numpy.zeros(len(tree.parents), dtype=bool)
    for node in tree.stands_for[labels]:
        said[tree.ancestors(node)] = True
    said[tree.root] |= tree.root not in tree.stands_for
    return said[: tree.given_nodes]


@given(SMALL, SEEDS)
def test_hbayes_has_the_least_expected_h_loss_of_all_sets_of_labels(tree, seed):
    labels, q, nodes = sets_of(tree, seed)
    truths = [closed(each, tree) for each in labels]

    def expected(said: numpy.ndarray) -> float:
        return sum(weight * h_loss(said, true, tree) for weight, true in zip(q, truths, strict=True))

    every = [closed(numpy.array(bits), tree) for bits in itertools.product([False, True], repeat=len(tree.classes))]
    best = min(map(expected, every))
    decided = set_rules.decide("hbayes", nodes=nodes[None].clip(0, 1), hierarchy=tree)[0]
    assert expected(closed(decided, tree)) == pytest.approx(best, abs=1e-9)


def test_three_in_a_group_of_equal_chances():
    tree = Hierarchy.from_parents([-1, 0, 1, 1, 1, 0], [2, 3, 4, 5], ["a", "b", "c", "d"])
    p = numpy.array([0.3, 0.3, 0.3, 0.1])
    nodes = scipy.special.expit(tree_model.node_logits_of_classes(numpy.log(p)[None], tree))

    def expected(said: numpy.ndarray) -> float:
        return sum(p[k] * h_loss(said, closed(numpy.arange(4) == k, tree), tree) for k in range(4))

    group = set_rules.node_set(nodes, tree)[0]
    assert [tree.names[node] for node in numpy.flatnonzero(group)] == ["node 0", "node 1"]
    assert expected(group) == pytest.approx(0.25)
    decided = set_rules.decide("hbayes", nodes=nodes, hierarchy=tree)[0]
    assert decided.sum() == 1 and expected(closed(decided, tree)) == pytest.approx(0.30)
    assert expected(closed(numpy.zeros(4, dtype=bool), tree)) == pytest.approx(0.50)
