"""docs/bce-vs-hxe.md: its tables, its gradients against automatic differentiation, and its numbered statements; and what
docs/methods.md names."""

import itertools
import re

import numpy
import pytest
import torch
from hypothesis import given, strategies

from docs import bce_vs_hxe as page
from severity import losses
from severity.core import markdown
from severity.core.hierarchy import Hierarchy
from severity.metrics import class_metrics
from severity.tree import costs
from tests.trees import TOP, flat, random_trees, six_classes

ALPHAS = strategies.sampled_from([-0.5, 0.0, 0.1, 0.5, 1.0])
SEEDS = strategies.integers(0, 1000)


def autograd(name: str, z: numpy.ndarray, truth: numpy.ndarray, tree: Hierarchy, **options) -> numpy.ndarray:
    loss = losses.build(name, hierarchy=tree, cost=costs.lca_height(tree), **options)
    logits = torch.from_numpy(z)[None].requires_grad_()
    loss(logits=logits, targets=torch.from_numpy(truth)[None]).backward()
    return logits.grad[0].numpy()


def draw(tree: Hierarchy, seed: int) -> tuple[numpy.ndarray, int]:
    """Logits, and a class."""
    random = numpy.random.default_rng(seed)
    return random.normal(size=len(tree.classes)) * 2, int(random.integers(len(tree.classes)))


@pytest.mark.parametrize("name", page.TABLES)
def test_the_tables_are_up_to_date(name):
    assert markdown.marked(page.PAGE, name) == page.TABLES[name](), "renew with python -m docs.bce_vs_hxe"


@given(random_trees(), SEEDS)
def test_gradients_of_cross_entropy_and_binary_cross_entropy(tree, seed):  # (3), (4)
    z, true = draw(tree, seed)
    truth = numpy.eye(len(z))[true]
    assert autograd("ce", z, truth, tree) == pytest.approx(page.ce_gradient(z, truth), abs=1e-12)
    several = (numpy.random.default_rng(seed).random(len(z)) < 0.4).astype(float)
    assert autograd("bce", z, several, tree) == pytest.approx(page.bce_gradient(z, several), abs=1e-12)


@given(random_trees(), SEEDS, ALPHAS)
def test_gradient_of_hxe_in_its_three_forms(tree, seed, alpha):  # (5), (6), (7)
    z, true = draw(tree, seed)
    gradient = page.hxe_gradient(z, true, tree, alpha)
    assert autograd("hxe", z, numpy.eye(len(z))[true], tree, alpha=alpha) == pytest.approx(gradient, abs=1e-12)
    p = numpy.exp(z) / numpy.exp(z).sum()
    mass = page.below(tree) @ p
    path = tree.ancestors(tree.class_nodes[true])[::-1]
    decay = numpy.exp(-alpha * numpy.arange(len(path)))
    for j in range(len(z)):
        shared = [d for d, n in enumerate(path) if j in tree.classes_below[n] and 1 <= d < len(path) - 1]
        spared = sum((decay[d] - decay[d + 1]) * p[j] / mass[path[d]] for d in shared)
        assert gradient[j] == pytest.approx(decay[1] * p[j] - decay[-1] * (j == true) - spared, abs=1e-12)
        if j != true:
            bracket = decay[1] - sum((decay[d] - decay[d + 1]) / mass[path[d]] for d in shared)
            assert gradient[j] == pytest.approx(p[j] * bracket, abs=1e-12)


@given(random_trees(), SEEDS)
def test_without_decay_hxe_is_cross_entropy_and_on_a_flat_tree_a_multiple_of_it(tree, seed):  # (1), (2)
    z, true = draw(tree, seed)
    wanted = page.ce_gradient(z, numpy.eye(len(z))[true])
    assert page.hxe_gradient(z, true, tree, 0.0) == pytest.approx(wanted, abs=1e-12)
    assert page.hxe_gradient(z, true, flat(len(z)), 0.7) == pytest.approx(numpy.exp(-0.7) * wanted, abs=1e-12)


@given(SEEDS, strategies.sampled_from([0.1, 0.5, 1.0]))
def test_a_cousin_is_pulled_up_exactly_while_its_branch_is_below_the_bound(seed, alpha):  # (8)
    tree = six_classes()
    z, _ = draw(tree, seed)
    true, cousin = tree.classes.index("d1"), tree.classes.index("c1")
    branch = page.below(tree)[tree.names.index("node 5")] @ (numpy.exp(z) / numpy.exp(z).sum())
    assert (page.hxe_gradient(z, true, tree, alpha)[cousin] < 0) == (branch < 1 - numpy.exp(-alpha))


@given(random_trees(), SEEDS, ALPHAS)
def test_the_pull_of_a_level_is_twice_its_weight_times_its_conditional_error(tree, seed, alpha):  # (9)
    z, true = draw(tree, seed)
    pulls = numpy.abs(page.level_gradients(z, true, tree, alpha)).sum(axis=1)
    errors = 1 - numpy.exp(-page.level_losses(z, true, tree))
    assert pulls == pytest.approx(2 * numpy.exp(-alpha * numpy.arange(1, len(pulls) + 1)) * errors, abs=1e-12)


@given(random_trees(), SEEDS, ALPHAS)
def test_hxe_is_least_at_the_true_distribution_whatever_alpha(tree, seed, alpha):
    z, _ = draw(tree, seed)
    q = numpy.exp(z) / numpy.exp(z).sum()
    average = sum(q[k] * page.hxe_gradient(z, k, tree, alpha) for k in range(len(q)))
    assert average == pytest.approx(0, abs=1e-12)
    loss = losses.build("hxe", hierarchy=tree, cost=costs.lca_height(tree), alpha=alpha)
    targets = torch.eye(len(q), dtype=torch.float64)

    def expected(logits: numpy.ndarray) -> float:
        each, _ = loss.per_image(torch.from_numpy(logits)[None].expand(len(q), -1), targets)
        return float((torch.from_numpy(q) * each).sum())

    moved = z + numpy.random.default_rng(seed).normal(size=len(z)) * 0.3
    assert expected(moved) >= expected(z) - 1e-12


def test_weights_that_differ_among_siblings_move_the_optimum():  # (10)
    tree = six_classes()
    children = list(tree.children[tree.root])
    weight = numpy.exp(-0.5 * tree.height[children])
    z = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([z], max_iter=200)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = -(torch.from_numpy(weight) / 3 * z.log_softmax(dim=0)).sum()
        value.backward()
        return value

    optimizer.step(closure)
    learnt = [f"{p:.4f}" for p in z.detach().softmax(dim=0).tolist()]
    rows = [line.split(" | ") for line in page.height_table().splitlines()[2:]]
    assert [row[-1].removesuffix(" |") for row in rows] == learnt


def sets_of_labels(tree: Hierarchy, seed: int, empty: bool) -> tuple[numpy.ndarray, numpy.ndarray]:
    """All label sets (S, K) bool and a random distribution (S,) over them."""
    sets = numpy.array(list(itertools.product([False, True], repeat=len(tree.classes))))
    sets = sets if empty else sets[sets.any(axis=1)]
    return sets, numpy.random.default_rng(seed).dirichlet(numpy.full(len(sets), 0.1))


def multilabel_loss(z: torch.Tensor, positive: numpy.ndarray, tree: Hierarchy, alpha: float) -> torch.Tensor:
    """The formula node by node."""
    total = torch.zeros((), dtype=torch.float64)
    for node, parent in enumerate(tree.parents.tolist()):
        if parent >= 0 and positive[parent]:
            log = torch.nn.functional.logsigmoid(z[node] if positive[node] else -z[node])
            total = total - numpy.exp(-alpha * len(tree.ancestors(parent))) * log
    return total / (len(tree.parents) - 1)


@given(SEEDS, ALPHAS)
def test_gradient_of_the_multilabel_sibling(seed, alpha):  # (11)
    tree = six_classes()
    random = numpy.random.default_rng(seed)
    z = torch.from_numpy(random.normal(size=len(tree.parents))).requires_grad_()
    positive = page.below(tree)[:, random.random(6) < 0.4].any(axis=1).astype(float)
    value = multilabel_loss(z, positive, tree, alpha)
    gradient = page.multilabel_gradient(z.detach().numpy(), positive, tree, alpha)
    wanted = torch.autograd.grad(value, z)[0].numpy() if value.requires_grad else numpy.zeros(len(z))
    assert gradient == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_the_multilabel_loss_has_the_gradient_of_the_page(alpha):
    z, positive = page.multilabel_example()
    loss = losses.build("hxe_multilabel", hierarchy=page.TREE, cost=costs.lca_height(page.TREE), alpha=alpha)
    order = loss.sums.order[:-1]  # the node of each logit
    truth = numpy.array([[float(name in page.LABELS) for name in page.TREE.classes]])
    logits = torch.from_numpy(z[order])[None].requires_grad_()
    loss(logits=logits, targets=torch.from_numpy(truth)).backward()
    wanted = page.multilabel_gradient(z, positive, page.TREE, alpha)[order]
    assert logits.grad[0].numpy() == pytest.approx(wanted, abs=1e-12)
    assert loss.nodes(logits.detach())[0].numpy() == pytest.approx(page.node_probabilities(z, page.TREE))


@given(SEEDS, ALPHAS)
def test_the_multilabel_sibling_is_least_at_the_conditionals_and_their_products_are_the_marginals(seed, alpha):
    tree = six_classes()
    sets, q = sets_of_labels(tree, seed, empty=True)
    positive = (sets @ page.below(tree).T) > 0  # (S, n): labels are dependent here
    positive[:, tree.root] = True
    marginal = q @ positive
    conditional = marginal / numpy.where(tree.parents >= 0, marginal[tree.parents], 1)
    z = numpy.log(conditional) - numpy.log1p(-conditional.clip(max=1 - 1e-15))
    z[tree.root] = 0
    average = sum(
        each * page.multilabel_gradient(z, row.astype(float), tree, alpha)
        for each, row in zip(q, positive, strict=True)
    )
    assert average == pytest.approx(0, abs=1e-9)
    assert page.node_probabilities(z, tree) == pytest.approx(marginal)


@given(random_trees().filter(lambda tree: len(tree.classes) <= 9), SEEDS)
def test_severity_to_the_nearest_of_a_set_needs_the_marginals_of_nodes_alone(tree, seed):  # (12)
    sets, q = sets_of_labels(tree, seed, empty=False)
    wanted = q @ class_metrics.distances(truth=sets, cost=costs.lca_height(tree))
    marginal = q @ ((sets @ page.below(tree).T) > 0)
    for k, leaf in enumerate(tree.class_nodes):
        path = tree.ancestors(leaf)
        steps = numpy.diff(tree.height[path])
        assert steps @ (1 - marginal[path[:-1]]) == pytest.approx(wanted[k])


def test_shares_are_no_probabilities_of_being_right():
    sets = {("A", "B"): 0.5, ("C",): 0.4, ("A",): 0.1}
    shares = {name: sum(q / len(y) for y, q in sets.items() if name in y) for name in "ABC"}
    right = {name: sum(q for y, q in sets.items() if name in y) for name in "ABC"}
    assert shares == pytest.approx({"A": 0.35, "B": 0.25, "C": 0.40})
    assert (max(shares, key=shares.get), max(right, key=right.get)) == ("C", "A")
    assert (right["C"], right["A"]) == pytest.approx((0.4, 0.6))


def test_a_weight_of_positives_moves_the_optimum():
    q, weight = 0.2, 3.0
    best = weight * q / (weight * q + 1 - q)
    z = numpy.full(6, numpy.log(best / (1 - best)))
    present, absent = (autograd("bce", z, numpy.full(6, truth), page.TREE, pos_weight=weight) for truth in (1.0, 0.0))
    assert q * present + (1 - q) * absent == pytest.approx(0, abs=1e-12)
    assert abs(best - q) > 0.2


def test_the_tests_and_modules_named_in_the_methods_exist():
    page = (TOP / "docs/methods.md").read_text()
    named = re.findall(r"`(test_\w+\.py)((?:::\w+)+)`", page)
    assert len(named) > 60
    for file, path in named:
        text = (TOP / "tests" / file).read_text()
        for name in path.strip(":").split("::"):
            assert re.search(rf"^\s*(def|class) {name}\b", text, flags=re.MULTILINE), f"{file}{path}"
    for path in re.findall(r"`((?:severity|data|benchmarks|docs)/[\w./]+\.\w+)`", page):
        assert (TOP / path).exists(), path
