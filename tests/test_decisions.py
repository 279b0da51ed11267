"""Decision rules: their laws, and loops that compute each class by class or node by node."""

import numpy
import pytest
from hypothesis import given, strategies
from scipy.special import expit

from severity.arrays import probabilities, subtrees, tree_model
from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy
from severity.decisions import class_rules
from severity.decisions.class_rules import climb, rank
from severity.tree import costs
from tests.trees import chexpert_default, flat, random_tree, random_trees, six_classes


def distributions(images: int, classes: int, seed: int, sharpness: float = 1.0) -> numpy.ndarray:
    """(images, classes) random distributions; a higher sharpness puts more on one class."""
    logits = sharpness * numpy.random.default_rng(seed).normal(size=(images, classes))
    weights = numpy.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def risks(posterior: numpy.ndarray, cost: numpy.ndarray) -> numpy.ndarray:
    """Expected cost of every decision, number by number."""
    found = numpy.zeros_like(posterior)
    for image, p in enumerate(posterior):
        for decision in range(len(cost)):
            found[image, decision] = sum(cost[decision, truth] * p[truth] for truth in range(len(cost)))
    return found


@given(random_trees(), strategies.integers(0, 1000))
def test_crm_ranks_by_ascending_expected_cost(tree, seed):
    cost = costs.lca_height(tree)
    posterior = distributions(5, len(tree.classes), seed)
    ranking = rank("crm", posterior=posterior, cost=cost, hierarchy=tree)
    ranked = numpy.take_along_axis(risks(posterior, cost), ranking.astype(int), axis=1)
    assert (numpy.diff(ranked, axis=1) >= -1e-10 * cost.max()).all()


def test_crm_takes_rows_of_the_cost_as_decisions():
    tree = flat(3)
    # Deciding class 2 is cheap whatever is true; every other mistake is dear. Read the wrong way, it would be the worst.
    cost = numpy.array([[0, 9, 9], [9, 0, 9], [1, 1, 0]], dtype=float)
    ranking = rank("crm", posterior=numpy.array([[0.5, 0.4, 0.1]]), cost=cost, hierarchy=tree)
    assert ranking[0].tolist() == [2, 0, 1]


@given(random_trees(), strategies.integers(0, 1000))
def test_under_zero_one_cost_crm_is_argmax_in_the_whole_ranking(tree, seed):
    posterior = distributions(8, len(tree.classes), seed).round(2) + 1e-3  # with ties
    posterior /= posterior.sum(axis=1, keepdims=True)
    zero_one = 1 - numpy.eye(len(tree.classes))
    both = [rank(rule, posterior=posterior, cost=zero_one, hierarchy=tree) for rule in ("argmax", "crm")]
    assert (both[0] == both[1]).all()


@given(random_trees(), strategies.integers(0, 1000))
def test_where_one_class_has_more_than_half_crm_decides_it(tree, seed):
    posterior = distributions(20, len(tree.classes), seed, sharpness=4)
    sure = posterior.max(axis=1) > 0.5
    for cost in (costs.lca_height(tree), costs.path(tree)):
        crm = rank("crm", posterior=posterior, cost=cost, hierarchy=tree)[:, 0]
        assert (crm[sure] == posterior[sure].argmax(axis=1)).all()


@given(random_trees(), strategies.integers(0, 1000), strategies.sampled_from(sorted(class_rules.RULES)))
def test_relabelling_classes_relabels_decisions(tree, seed, rule):
    random = numpy.random.default_rng(seed)
    order = random.permutation(len(tree.classes))
    turned = Hierarchy(
        tree.names,
        tree.parents,
        tree.class_nodes[order],
        tuple(tree.classes[index] for index in order),
        tree.stands_for[order],
    )
    posterior = distributions(6, len(order), seed)
    before = rank(rule, posterior=posterior, cost=costs.lca_height(tree), hierarchy=tree)
    after = rank(rule, posterior=posterior[:, order], cost=costs.lca_height(turned), hierarchy=turned)
    assert ([[tree.classes[k] for k in row] for row in before]) == [[turned.classes[k] for k in row] for row in after]


@given(random_trees(), strategies.integers(0, 1000), strategies.sampled_from(sorted(class_rules.RULES)))
def test_every_ranking_is_a_permutation_and_whole_equals_batched(tree, seed, rule):
    posterior = distributions(7, len(tree.classes), seed)
    cost = costs.lca_height(tree)
    whole = rank(rule, posterior=posterior, cost=cost, hierarchy=tree)
    assert whole.dtype == numpy.int32
    assert (numpy.sort(whole, axis=1) == numpy.arange(len(tree.classes))).all()
    single = [rank(rule, posterior=row[None], cost=cost, hierarchy=tree)[0] for row in posterior]
    assert (whole == numpy.array(single)).all()


@pytest.mark.parametrize("rule", class_rules.RULES)
def test_chunks_do_not_change_a_ranking(monkeypatch, rule):
    tree = six_classes()
    posterior = distributions(50, 6, seed=3)
    nodes = subtrees.probabilities(posterior, tree).clip(max=1)
    inputs = {"posterior": posterior, "nodes": nodes, "cost": costs.lca_height(tree), "hierarchy": tree}
    whole = rank(rule, **inputs)
    climbed = climb(nodes=nodes, hierarchy=tree, threshold=0.6)
    monkeypatch.setattr(probabilities, "CHUNK", 13)
    assert (rank(rule, **inputs) == whole).all()
    assert (climb(nodes=nodes, hierarchy=tree, threshold=0.6) == climbed).all()


@pytest.mark.parametrize("rule", class_rules.RULES)
def test_on_a_flat_tree_every_rule_is_argmax_also_in_its_ties(rule):
    tree = flat(4)
    posterior = numpy.array([[0.2, 0.3, 0.2, 0.3], [0.1, 0.2, 0.3, 0.4]])
    ranking = rank(rule, posterior=posterior, cost=costs.lca_height(tree), hierarchy=tree)
    assert ranking.tolist() == [[1, 3, 0, 2], [3, 2, 1, 0]]


@pytest.mark.parametrize("rule", class_rules.RULES)
def test_a_certain_class_is_decided_by_every_rule(rule):
    tree = chexpert_default()
    ranking = rank(rule, posterior=numpy.eye(14), cost=costs.lca_height(tree), hierarchy=tree)
    assert (ranking[:, 0] == numpy.arange(14)).all()


@given(strategies.integers(0, 1000), strategies.integers(2, 40))
def test_equal_risks_keep_the_order_of_the_probabilities_in_the_whole_ranking(seed, classes):
    random = numpy.random.default_rng(seed)
    tree = flat(classes)
    posterior = random.integers(0, 4, (20, classes)) + 1.0  # many ties
    posterior /= posterior.sum(axis=1, keepdims=True)
    cost = numpy.floor(4 * random.random((classes, classes))) * (1 - numpy.eye(classes))
    cost[0, 1] = 4
    ranking = rank("crm", posterior=posterior, cost=cost, hierarchy=tree)
    risk = numpy.rint(posterior @ (cost.T / cost.max()) / class_rules.TIE)
    for row, order in enumerate(ranking):
        wanted = sorted(range(classes), key=lambda k, row=row: (risk[row, k], -posterior[row, k], k))
        assert order.tolist() == wanted


def probability(tree: Hierarchy, p: numpy.ndarray, node: int) -> float:
    """Of a node, by asking each class whether the node is among its ancestors."""
    return sum(p[k] for k, leaf in enumerate(tree.class_nodes) if node in tree.ancestors(leaf))


@given(random_trees(), strategies.integers(0, 1000))
def test_hie_ranks_by_class_times_parent(tree, seed):
    posterior = distributions(4, len(tree.classes), seed)
    ranking = rank("hie", posterior=posterior, cost=costs.path(tree), hierarchy=tree)
    for p, order in zip(posterior, ranking, strict=True):
        products = [p[k] * probability(tree, p, tree.parents[leaf]) for k, leaf in enumerate(tree.class_nodes)]
        assert (numpy.diff([products[k] for k in order]) <= 1e-12).all()


@given(random_trees(), strategies.integers(0, 1000))
def test_hie_takes_the_parents_probability_from_the_nodes_where_they_are_given(tree, seed):
    posterior = distributions(4, len(tree.classes), seed)
    nodes = numpy.random.default_rng(seed).random((4, len(tree.parents)))
    ranking = rank("hie", posterior=posterior, nodes=nodes, cost=costs.lca_height(tree), hierarchy=tree)
    products = posterior * nodes[:, tree.parents[tree.class_nodes]]
    assert (numpy.diff(numpy.take_along_axis(products, ranking, axis=1), axis=1) <= 0).all()


@given(random_trees(), strategies.integers(0, 1000))
def test_top_down_walks_to_the_likelier_child_first_and_backtracks(tree, seed):
    posterior = distributions(4, len(tree.classes), seed)
    ranking = rank("top_down", posterior=posterior, cost=costs.path(tree), hierarchy=tree)

    def walk(p: numpy.ndarray, node: int) -> list[int]:
        if node in tree.class_nodes:
            return [tree.class_nodes.tolist().index(node)]
        children = sorted(tree.children[node], key=lambda child: -probability(tree, p, child))
        return [k for child in children for k in walk(p, child)]

    for p, order in zip(posterior, ranking, strict=True):
        found, wanted = order.tolist(), walk(p, tree.root)
        assert found == wanted


@given(random_trees(), strategies.integers(0, 1000), strategies.floats(0, 1))
def test_climb_decides_the_deepest_node_that_is_probable_enough(tree, seed, threshold):
    labels = numpy.random.default_rng(seed).normal(size=(4, len(tree.classes)))
    nodes = expit(tree_model.node_logits_of_labels(labels, tree))
    decided = climb(nodes=nodes, hierarchy=tree, threshold=threshold)
    for row, node in zip(nodes, decided, strict=True):
        enough = [each for each in range(len(row)) if row[each] >= threshold] or [tree.root]
        assert node in enough
        assert all((tree.depth[each], row[each]) <= (tree.depth[node], row[node]) for each in enough)


@given(random_trees(), strategies.integers(0, 1000), strategies.floats(0.5, 1))
def test_of_exclusive_classes_climb_stays_on_one_path_from_one_half_on(tree, seed, threshold):
    nodes = subtrees.probabilities(distributions(4, len(tree.classes), seed), tree).clip(max=1)
    decided = climb(nodes=nodes, hierarchy=tree, threshold=threshold)
    for row, node in zip(nodes, decided, strict=True):
        assert set(numpy.flatnonzero(row > max(threshold, 0.5))) <= set(tree.ancestors(node))


def test_climb_by_hand_and_its_limits():
    tree = six_classes()
    posterior = numpy.array([[0.05, 0.05, 0.05, 0.15, 0.40, 0.30]])
    nodes = subtrees.probabilities(posterior, tree).clip(max=1)
    names = [
        tree.names[climb(nodes=nodes, hierarchy=tree, threshold=threshold)[0]]
        for threshold in (0, 0.4, 0.41, 0.8, 0.9, 1)
    ]
    assert names == ["d1", "d1", "node 7", "node 5", "node 0", "node 0"]
    # Not only above the most probable class: a is that, but D is probable enough.
    other = subtrees.probabilities(numpy.array([[0.41, 0.0, 0.0, 0.0, 0.30, 0.29]]), tree).clip(max=1)
    assert tree.names[climb(nodes=other, hierarchy=tree, threshold=0.5)[0]] == "node 7"
    with pytest.raises(SeverityError, match="climb_threshold is 1.5"):
        climb(nodes=nodes, hierarchy=tree, threshold=1.5)
    with pytest.raises(SeverityError, match="outside"):
        climb(nodes=2 * nodes, hierarchy=tree, threshold=0.5)
    with pytest.raises(SeverityError, match="a column for each node"):
        climb(nodes=nodes[:, :6], hierarchy=tree, threshold=0.5)


def test_crm_prefers_the_safer_neighbourhood():
    tree = six_classes()
    # "a" is the likeliest class, but most of the mass is below D and C: d1 is the safer answer.
    posterior = numpy.array([[0.30, 0.02, 0.03, 0.15, 0.26, 0.24]])
    cost = costs.lca_height(tree)
    assert tree.classes[rank("argmax", posterior=posterior, cost=cost, hierarchy=tree)[0, 0]] == "a"
    assert tree.classes[rank("crm", posterior=posterior, cost=cost, hierarchy=tree)[0, 0]] == "d1"


@pytest.mark.parametrize("classes", [608, 1010])
def test_crm_on_large_trees_equals_the_loop(classes):
    tree = random_tree(seed=classes, classes=classes - 3, inner=60)
    cost = costs.lca_height(tree)
    posterior = distributions(3, len(tree.classes), seed=0, sharpness=2)
    ranking = rank("crm", posterior=posterior, cost=cost, hierarchy=tree)
    ranked = numpy.take_along_axis(risks(posterior, cost), ranking.astype(int), axis=1)
    assert (numpy.diff(ranked, axis=1) >= -1e-10 * cost.max()).all()


def test_the_self_check_of_crm_stops_on_a_decision_that_cannot_be():
    tree = six_classes()
    posterior = numpy.array([[0.6, 0.1, 0.1, 0.1, 0.05, 0.05], [0.2, 0.2, 0.2, 0.2, 0.1, 0.1]])
    cost = costs.lca_height(tree)
    ranking = rank("crm", posterior=posterior, cost=cost, hierarchy=tree)
    class_rules.check_crm(ranking=ranking, posterior=posterior, cost=cost)
    wrong = ranking[:, ::-1]
    with pytest.raises(SeverityError, match="Self-check failed: image 0"):
        class_rules.check_crm(ranking=wrong, posterior=posterior, cost=cost)
    asymmetric = cost.copy()
    asymmetric[0] *= 5  # to decide class 0 is dear: the law does not hold, and nothing is checked
    class_rules.check_crm(ranking=wrong, posterior=posterior, cost=asymmetric)


@pytest.mark.parametrize("rule", class_rules.RULES)
def test_a_distribution_is_asked_for_by_every_rule(rule):
    tree = six_classes()
    with pytest.raises(SeverityError, match="image 0 is no distribution"):
        rank(rule, posterior=numpy.full((1, 6), 0.2), cost=costs.path(tree), hierarchy=tree)


def test_wrong_inputs_are_refused():
    tree = chexpert_default()
    cost = costs.lca_height(tree)
    good = distributions(3, 14, seed=0)
    with pytest.raises(SeverityError, match="Did you mean 'argmax'"):
        rank("argmx", posterior=good, cost=cost, hierarchy=tree)
    with pytest.raises(SeverityError, match="14 classes"):
        rank("crm", posterior=good[:, :13], cost=cost, hierarchy=tree)
    with pytest.raises(SeverityError, match="image 1 is no distribution"):
        rank("crm", posterior=good * numpy.array([[1], [2], [1]]), cost=cost, hierarchy=tree)
    with pytest.raises(SeverityError, match="image 0 is no distribution"):
        rank("crm", posterior=numpy.where(good == good[0, 0], numpy.nan, good), cost=cost, hierarchy=tree)
    for wrong in (numpy.full((3, 14), 0.5), numpy.full((2, len(tree.parents)), 0.5)):
        with pytest.raises(SeverityError, match="a column for each node"):
            rank("hie", posterior=good, nodes=wrong, cost=cost, hierarchy=tree)
    with pytest.raises(SeverityError, match="outside"):
        rank("hie", posterior=good, nodes=numpy.full((3, len(tree.parents)), 1.5), cost=cost, hierarchy=tree)
    with pytest.raises(SeverityError, match="diagonal"):
        rank("crm", posterior=good, cost=cost + 1, hierarchy=tree)
