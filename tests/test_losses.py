"""All losses at once: hard cases, gradients, batching; and each loss against what it must equal.

Runs over every file of severity/losses, so a new loss is tested as soon as it is there.
"""

import importlib
import inspect
import math

import numpy
import pandas
import pytest
import torch
from hypothesis import given, strategies
from PIL import Image

from severity import losses
from severity.arrays import tree_model
from severity.collections import splits
from severity.collections.collection import Collection
from severity.core import params as parameters
from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy
from severity.core.runs import Run
from severity.datasets import phantom
from severity.decisions import class_rules
from severity.links.links import SoftmaxLink
from severity.links.nodes import NodeSums
from severity.links.targets import MostSpecific, NodeTargets
from severity.losses import haf
from severity.metrics import class_metrics
from severity.networks import inference
from severity.phantoms.labels import Study, truth
from severity.preparation import preparation
from severity.prepared import prepared
from severity.training import training
from severity.tree import costs
from tests.trees import TOP, chexpert_default, flat, random_tree, random_trees, six_classes

ALL = losses.names()
EPOCHS = 10
TREES = {"six": six_classes(), "flat": flat(5), "chexpert": chexpert_default(), "large": random_tree(3, 300, 40)}


# Every loss as it is, and those options that change the arithmetic.
CASES = {name: (name, {}) for name in ALL} | {
    "hbce, unconditional": ("hbce", {"finetune_epochs": EPOCHS}),
    "hxe, normalised": ("hxe", {"alpha": 0.5, "normalize": True}),
    "cascade, weighted": ("cascade", {"alpha": 0.5}),
    "soft_labels, cross-entropy": ("soft_labels", {"divergence": "cross_entropy"}),
    "ce, all options": ("ce", {"label_smoothing": 0.1, "class_weight": 2.0, "gamma": 0.5}),
    "bce, all options": ("bce", {"label_smoothing": 0.1, "pos_weight": 2.0, "gamma": 0.5}),
    "ce, focal": ("ce", {"gamma": 2.0}),
    "haf, without margin": ("haf", {"margin": 0.0}),
    "haf, more features": ("haf", {"features": 40}),
    "haframe, fewer features": ("haframe", {"features": 3}),
    "hbce, focal": ("hbce", {"finetune_epochs": EPOCHS, "gamma": 2.0}),
}


def build(name: str, tree: Hierarchy, **params) -> losses.Link:
    torch.manual_seed(0)  # of the weights that some losses own
    loss = losses.build(name, hierarchy=tree, cost=costs.lca_height(tree), **params)
    loss.at_epoch(0, EPOCHS)
    return loss


def one_hot(tree: Hierarchy, images: int, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(tree.classes), (images,), generator=random)
    return torch.nn.functional.one_hot(chosen, len(tree.classes)).double()


def multi_hot(tree: Hierarchy, images: int, seed: int = 0) -> torch.Tensor:
    """Several positives, some masked cells, each image with at least one positive."""
    random = torch.Generator().manual_seed(seed)
    draws = torch.rand(images, len(tree.classes), generator=random, dtype=torch.float64)
    targets = (draws > 0.7).double()
    targets[draws < 0.1] = torch.nan
    targets[torch.arange(images), torch.randint(len(tree.classes), (images,), generator=random)] = 1
    return targets


def logits(loss: losses.Link, images: int, seed: int = 0, scale: float = 2.0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return scale * torch.randn(images, loss.outputs, generator=random, dtype=torch.float64)


def mistaken(loss: losses.Link, true: int) -> torch.Tensor:
    """(1, outputs) numbers of size 1e4 by which the loss is certain of a class other than `true`."""
    z = torch.full((1, loss.outputs), -1e4)
    z[0, (true + 1) % loss.outputs] = 1e4
    if not [*loss.parameters()]:
        return z
    features = logits(loss, 100, scale=1e4).float()  # What the loss makes of them, its weights decide.
    sure = loss.posterior(features)
    return features[(sure[:, true] < 1e-6).nonzero()[0]]


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def loss(request, tree) -> losses.Link:
    name, params = request.param
    return build(name, tree, **params)


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES.keys())
class TestEveryLoss:
    def test_posterior_is_a_distribution_and_nodes_are_probabilities_that_never_rise_downward(self, loss, tree):
        for scale in (1.0, 50.0, 1e4):
            z = logits(loss, 20, scale=scale)
            posterior, nodes = loss.posterior(z), loss.nodes(z)
            assert posterior.shape == (20, len(tree.classes)) and nodes.shape == (20, len(tree.parents))
            assert torch.allclose(posterior.sum(dim=1), torch.ones(20, dtype=z.dtype))
            assert torch.isfinite(loss.log_posterior(z)).all() and (posterior >= 0).all()
            assert (nodes >= 0).all() and (nodes <= 1).all()
            below = list(tree.top_down[1:])
            assert (nodes[:, below] <= nodes[:, tree.parents[below].tolist()] + 1e-12).all()
            if tree.root not in tree.stands_for:
                assert (nodes[:, tree.root] == 1).all()
            assert torch.allclose(loss.label_logits(z).sigmoid(), nodes[:, tree.stands_for.tolist()])
            if isinstance(loss, SoftmaxLink):
                sums = [posterior[:, each].sum(dim=1) for each in tree.classes_below]
                assert torch.allclose(nodes, torch.stack(sums, dim=1))

    def test_probabilities_have_finite_gradients(self, loss, tree):
        for scale in (1.0, 1e4):
            z = logits(loss, 3, scale=scale).requires_grad_()
            logs = loss.log_posterior(z)
            (logs * torch.arange(logs.shape[1])).sum().backward()
            assert torch.isfinite(z.grad).all()

    def test_value_and_gradient_are_finite_in_hard_cases(self, loss, tree):
        shallow = int(tree.depth[tree.class_nodes].argmin())
        for images in (1, 7):
            targets = one_hot(tree, images).float()
            targets[0] = 0
            targets[0, shallow] = 1  # a class right under the root where the tree has one
            for scale in (0.0, 1.0, 1e4):
                z = logits(loss, images, scale=scale).float().requires_grad_()
                value = loss(logits=z, targets=targets)
                value.backward()
                assert torch.isfinite(value), scale
                assert torch.isfinite(z.grad).all(), scale
                if scale < 1e4:  # At 1e4 a right and certain answer has rightly no gradient left.
                    assert (z.grad[0] != 0).any(), scale

    def test_a_confident_mistake_has_a_gradient(self, loss, tree):
        for true in range(min(6, len(tree.classes))):
            targets = torch.zeros(1, len(tree.classes))
            targets[0, true] = 1
            z = mistaken(loss, true).requires_grad_()
            value = loss(logits=z, targets=targets)
            value.backward()
            assert torch.isfinite(value) and value > 0
            assert torch.isfinite(z.grad).all() and (z.grad != 0).any()

    def test_gradient_equals_finite_differences(self, loss, tree):
        if len(tree.classes) > 20:
            pytest.skip("finite differences of 300 classes take long and show nothing the small trees do not")
        targets = multi_hot(tree, 4)
        z = logits(loss, 4).requires_grad_()
        assert torch.autograd.gradcheck(lambda z: loss(logits=z, targets=targets), z)

    def test_batch_mean_is_the_mean_of_single_images(self, loss, tree):
        if getattr(loss, "margin", 0):
            pytest.skip("the margin term compares the images of a batch; without it the law holds")
        z, targets = logits(loss, 9), multi_hot(tree, 9)
        single = [loss(logits=z[image : image + 1], targets=targets[image : image + 1]) for image in range(9)]
        assert torch.allclose(loss(logits=z, targets=targets), torch.stack(single).mean())

    def test_loss_is_never_negative(self, loss, tree):
        for seed in range(5):
            assert loss(logits=logits(loss, 16, seed), targets=multi_hot(tree, 16, seed)) >= 0

    def test_half_precision_autocast_keeps_the_loss_in_full(self, loss, tree):
        z = logits(loss, 6).bfloat16().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = loss(logits=z, targets=one_hot(tree, 6).float())
        value.backward()
        assert value.dtype == torch.float32
        assert torch.allclose(value, loss(logits=z.float(), targets=one_hot(tree, 6).float()), rtol=1e-6)
        assert torch.isfinite(z.grad).all()

    def test_a_batch_that_says_nothing_costs_nothing(self, loss, tree):
        z = logits(loss, 3).requires_grad_()
        value = loss(logits=z, targets=torch.full((3, len(tree.classes)), torch.nan))
        value.backward()
        assert value == 0 and (z.grad == 0).all()

    def test_descending_the_gradient_finds_the_truth(self, loss, tree):
        targets = one_hot(tree, 10).float()
        z = torch.zeros(10, loss.outputs, requires_grad=True)
        optimizer = torch.optim.Adam([{"params": [z], "lr": 0.5}, {"params": [*loss.parameters()], "lr": 0.05}])
        for _ in range(60):
            optimizer.zero_grad()
            loss(logits=z, targets=targets).backward()
            optimizer.step()
        assert (loss.posterior(z.detach()).argmax(dim=1) == targets.argmax(dim=1)).all()

    def test_shapes_that_do_not_fit_are_refused(self, loss, tree):
        with pytest.raises(SeverityError, match="do not fit"):
            loss(logits=torch.zeros(2, loss.outputs + 1), targets=torch.zeros(2, len(tree.classes)))


def test_unknown_losses_and_numbers_are_refused():
    tree = six_classes()
    with pytest.raises(SeverityError, match=r"no severity/losses/hxx.py. Did you mean 'hxe'"):
        build("hxx", tree)
    with pytest.raises(SeverityError, match="unknown key 'alpa'. Did you mean 'alpha'"):
        build("hxe", tree, alpa=1.0)
    with pytest.raises(SeverityError, match="Did you mean 'b1'"):
        build("bce", tree, pos_weight={"b11": 2.0})
    with pytest.raises(SeverityError, match="losses.hbce.pos_weight: 'd3' is no class. Did you mean 'd2'"):
        build("hbce", tree, pos_weight={"d3": 2})


@pytest.mark.parametrize("name", ALL)
def test_params_name_every_number_of_every_loss(name):
    section = parameters.load(TOP / "params.yaml")["losses"][name]
    build(name, TREES["chexpert"], **section)
    options = inspect.signature(importlib.import_module(f"severity.losses.{name}").Loss).parameters
    assert list(section) == [option for option in options if option not in ("hierarchy", "cost")]


class TestCrossEntropy:
    def test_equals_torch(self):
        tree = TREES["six"]
        for smoothing in (0.0, 0.1):
            loss = build("ce", tree, label_smoothing=smoothing)
            z, targets = logits(loss, 12), one_hot(tree, 12)
            wanted = torch.nn.functional.cross_entropy(z, targets.argmax(dim=1), label_smoothing=smoothing)
            assert torch.allclose(loss(logits=z, targets=targets), wanted)

    def test_several_positives_share_the_target_equally(self):
        loss = build("ce", TREES["flat"])
        z = logits(loss, 1)
        wanted = -(z.log_softmax(dim=1)[0, [0, 2]]).mean()
        assert torch.allclose(loss(logits=z, targets=torch.tensor([[1.0, 0, 1, 0, 0]])), wanted)

    def test_equals_torch_with_class_weights(self):
        tree = TREES["six"]
        weights = torch.tensor([1, 3.0, 1, 1, 0.5, 1], dtype=torch.float64)
        loss = build("ce", tree, class_weight={"b1": 3, "d1": 0.5}, label_smoothing=0.2)
        z, targets = logits(loss, 12), one_hot(tree, 12)
        wanted = torch.nn.functional.cross_entropy(
            z, targets.argmax(dim=1), weight=weights, label_smoothing=0.2, reduction="none"
        )
        assert torch.allclose(loss.per_image(z, targets)[0], wanted)

    def test_focal_factor(self):
        loss = build("ce", TREES["six"], gamma=2.0)
        z, targets = logits(loss, 12), one_hot(TREES["six"], 12)
        p = z.softmax(dim=1)[targets == 1]
        assert torch.allclose(loss.per_image(z, targets)[0], -((1 - p) ** 2) * p.log())

    def test_balanced_weights_give_each_class_the_same_say(self):
        tree = TREES["six"]
        targets = torch.eye(6, dtype=torch.float64)[[0] * 10 + [1] * 5 + [2] * 4 + [3] * 3 + [4] * 2 + [5]]
        loss = build("ce", tree, class_weight="balanced")
        with pytest.raises(SeverityError, match="losses.ce.class_weight is 'balanced': call the loss's `observe`"):
            loss(logits=targets, targets=targets)
        loss.observe(targets)
        each, _ = loss.per_image(torch.zeros(25, 6, dtype=torch.float64), targets)
        assert float(each.mean()) == pytest.approx(math.log(6))
        assert (targets.T @ each).tolist() == pytest.approx([25 / 6 * math.log(6)] * 6)


class TestMostSpecific:
    def weights(self, *positives: str) -> dict[str, float]:
        tree = TREES["chexpert"]
        targets = torch.tensor([[float(name in positives) for name in tree.classes]])
        weights, _ = MostSpecific(tree)(targets)
        return {name: float(weight) for name, weight in zip(tree.classes, weights[0], strict=True) if weight}

    def test_a_positive_above_another_is_dropped(self):
        assert self.weights("Lung Opacity", "Pneumonia", "Consolidation") == {"Pneumonia": 1.0}
        assert self.weights("Lung Opacity", "Consolidation") == {"Consolidation": 1.0}
        assert self.weights("Lung Opacity", "Edema", "Fracture") == {"Edema": 0.5, "Fracture": 0.5}

    def test_one_alone_or_beside_its_cousin_stays(self):
        assert self.weights("Lung Opacity") == {"Lung Opacity": 1.0}
        assert self.weights("Lung Opacity", "Cardiomegaly") == {"Lung Opacity": 0.5, "Cardiomegaly": 0.5}

    def test_no_positive_means_no_weight(self):
        assert self.weights() == {}

    @given(random_trees(), strategies.integers(0, 100))
    def test_against_the_definition(self, tree, seed):
        targets = multi_hot(tree, 5, seed)
        weights, has_any = MostSpecific(tree)(targets)
        assert has_any.all()
        for image in range(5):
            positive = [k for k in range(len(tree.classes)) if targets[image, k] == 1]
            kept = [
                k
                for k in positive
                if not any(
                    tree.stands_for[k] in tree.ancestors(tree.class_nodes[other]) for other in positive if other != k
                )
            ]
            wanted = [1 / len(kept) if k in kept else 0.0 for k in range(len(tree.classes))]
            assert weights[image].tolist() == pytest.approx(wanted)


class TestBinaryCrossEntropy:
    def test_equals_torch_where_nothing_is_masked(self):
        tree = TREES["six"]
        weight = {"b1": 3.0}
        loss = build("bce", tree, pos_weight=weight)
        z, targets = logits(loss, 12), torch.nan_to_num(multi_hot(tree, 12))
        wanted = torch.nn.functional.binary_cross_entropy_with_logits(
            z, targets, pos_weight=torch.tensor([1, 3.0, 1, 1, 1, 1], dtype=torch.float64)
        )
        assert torch.allclose(loss(logits=z, targets=targets), wanted)

    def test_masked_labels_have_no_gradient(self):
        loss = build("bce", TREES["six"])
        z = logits(loss, 1).requires_grad_()
        loss(logits=z, targets=torch.tensor([[1.0, torch.nan, 0, torch.nan, 0, 0]])).backward()
        assert (z.grad == 0).tolist() == [[False, True, False, True, False, False]]

    def test_soft_targets_are_taken_as_they_are(self):
        loss = build("bce", TREES["six"])
        z = torch.zeros(1, 6, dtype=torch.float64, requires_grad=True)
        loss(logits=z, targets=torch.tensor([[0.7, 0, 0, 0, 0, 0]], dtype=torch.float64)).backward()
        assert float(z.grad[0, 0]) == pytest.approx((0.5 - 0.7) / 6)

    def test_options_against_the_formula(self):
        loss = build("bce", TREES["six"], pos_weight={"b1": 3.0}, label_smoothing=0.2, gamma=1.5)
        z, targets = logits(loss, 1), torch.tensor([[1.0, 0.7, 0, torch.nan, 1, 0]], dtype=torch.float64)
        wanted = 0.0
        for k in (0, 1, 2, 4, 5):
            p, t = sigmoid(float(z[0, k])), 0.8 * float(targets[0, k]) + 0.1
            wanted -= (3 if k == 1 else 1) * t * (1 - p) ** 1.5 * math.log(p)
            wanted -= (1 - t) * p**1.5 * math.log(1 - p)
        assert float(loss(logits=z, targets=targets)) == pytest.approx(wanted / 5)

    def test_balanced_weights_are_negatives_over_positives_of_the_known(self):
        loss = build("bce", TREES["six"], pos_weight="balanced")
        targets = torch.zeros(8, 6)
        targets[0, 1] = targets[:6, 2] = 1
        targets[4:, 1] = torch.nan
        targets[0, 3], targets[1, 3] = 0.5, 0.5
        with pytest.raises(SeverityError, match="`observe`"):
            loss(logits=targets, targets=targets)
        loss.observe(targets)
        # A label without positives has no ratio and keeps 1.
        assert loss.binary.pos_weight(torch.float64).tolist() == [1, 3, pytest.approx(2 / 6), 7, 1, 1]


def node_by_node(tree: Hierarchy, z: numpy.ndarray, weights: numpy.ndarray, alpha: float, normalize: bool) -> float:
    """HXE of one image, straight from the formula: probabilities of nodes, conditionals along each path, no log space."""
    p = numpy.exp(z - z.max())
    p /= p.sum()
    decay = [math.exp(-alpha * len(tree.ancestors(node)[1:])) for node in range(len(tree.parents))]
    if normalize:
        decay = [each / math.fsum(decay) for each in decay]

    def probability(node: int) -> float:
        return math.fsum(p[k] for k, leaf in enumerate(tree.class_nodes.tolist()) if node in tree.ancestors(leaf))

    total = 0.0
    for k, weight in enumerate(weights):
        for node in tree.ancestors(tree.class_nodes[k])[:-1] if weight else []:
            conditional = probability(node) / probability(int(tree.parents[node]))
            total -= weight * decay[node] * math.log(conditional)
    return total


class TestHierarchicalCrossEntropy:
    @given(random_trees(), strategies.integers(0, 100), strategies.sampled_from([-0.5, 0.0, 0.1, 0.7]))
    def test_equals_the_formula_node_by_node(self, tree, seed, alpha):
        for normalize in (False, True):
            loss = build("hxe", tree, alpha=alpha, normalize=normalize)
            z, targets = logits(loss, 3, seed), multi_hot(tree, 3, seed)
            weights = MostSpecific(tree)(targets)[0].double().numpy()
            wanted = [node_by_node(tree, z[i].numpy(), weights[i], alpha, normalize) for i in range(3)]
            found, _ = loss.per_image(z, targets)
            assert found.tolist() == pytest.approx(wanted, rel=1e-9)

    @given(random_trees(), strategies.integers(0, 100))
    def test_without_decay_it_is_cross_entropy_in_value_and_gradient(self, tree, seed):
        hxe, ce = build("hxe", tree, alpha=0.0), build("ce", tree)
        targets = multi_hot(tree, 6, seed)
        gradients = []
        for loss in (hxe, ce):
            z = logits(hxe, 6, seed).requires_grad_()
            value = loss(logits=z, targets=targets)
            value.backward()
            gradients.append((value.detach(), z.grad))
        assert torch.allclose(gradients[0][0], gradients[1][0])
        assert torch.allclose(gradients[0][1], gradients[1][1], atol=1e-12)

    def test_on_one_level_it_is_cross_entropy_times_the_weight_of_that_level(self):
        tree = TREES["flat"]
        hxe, ce = build("hxe", tree, alpha=0.3), build("ce", tree)
        z, targets = logits(ce, 5), one_hot(tree, 5)
        ratio = hxe(logits=z, targets=targets) / ce(logits=z, targets=targets)
        assert float(ratio) == pytest.approx(math.exp(-0.3))

    def test_normalising_divides_by_the_sum_over_all_nodes_the_root_included(self):
        tree = TREES["six"]
        z, targets = logits(build("ce", tree), 5), one_hot(tree, 5)
        plain = build("hxe", tree, alpha=0.4)(logits=z, targets=targets)
        normal = build("hxe", tree, alpha=0.4, normalize=True)(logits=z, targets=targets)
        total = 1 + 3 * math.exp(-0.4) + 4 * math.exp(-0.8) + 2 * math.exp(-1.2)
        assert float(plain / normal) == pytest.approx(total)

    def test_a_mistake_near_the_root_weighs_most_for_positive_alpha(self):
        tree = TREES["six"]
        loss = build("hxe", tree, alpha=0.5)
        truth = torch.nn.functional.one_hot(torch.tensor([4]), 6).double()
        near, far = torch.zeros(1, 6, dtype=torch.float64), torch.zeros(1, 6, dtype=torch.float64)
        near[0, 5], far[0, 0] = 5.0, 5.0  # d2, a sibling of d1; a, at the other end of the tree
        assert loss(logits=far, targets=truth) > loss(logits=near, targets=truth)
        ce = build("ce", tree)
        assert torch.allclose(ce(logits=far, targets=truth), ce(logits=near, targets=truth))

    def test_a_class_right_under_the_root_has_a_finite_loss_even_when_it_underflows(self):
        tree = TREES["six"]
        loss = build("hxe", tree)
        z = torch.tensor([[-500.0, 500, 0, 0, 0, 0]], requires_grad=True)
        value = loss(logits=z, targets=torch.nn.functional.one_hot(torch.tensor([0]), 6).float())
        value.backward()
        assert float(value.detach()) == pytest.approx(1000 * math.exp(-0.1), rel=1e-5)
        assert z.grad[0, 0] < 0 < z.grad[0, 1]


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def bce(p: float, t: float) -> float:
    return -t * math.log(p) - (1 - t) * math.log(1 - p)


class ByHand:
    """One image of a loss with one logit a node, straight from the definitions: loops over nodes, no log space."""

    def __init__(self, tree: Hierarchy, loss: losses.Link, z: torch.Tensor, targets: torch.Tensor):
        self.tree = tree
        self.targets = targets
        self.z = dict(zip(loss.sums.order.tolist(), z.tolist(), strict=False))  # of each node but the root
        self.below = [
            [float(targets[k]) for k, leaf in enumerate(tree.class_nodes.tolist()) if node in tree.ancestors(leaf)]
            for node in range(len(tree.parents))
        ]

    def target(self, node: int) -> float | None:
        """1, 0, a soft target, or None where it is masked."""
        if node == self.tree.root:
            return 1.0
        for k, others in self.tree.general_classes.items():
            if node == self.tree.class_nodes[k]:  # "this and nothing more specific"
                own, more = float(self.targets[k]), [float(self.targets[other]) for other in others]
                hidden = math.isnan(own) or (own != 0 and any(math.isnan(each) for each in more))
                return None if hidden or any(each > 0.5 for each in more) else own
        known = [each for each in self.below[node] if not math.isnan(each)]
        if len(known) == len(self.below[node]) or max(known, default=0) > 0.5:
            return max(known)
        return None

    def probability(self, node: int) -> float:
        return math.prod(sigmoid(self.z[each]) for each in self.tree.ancestors(node)[:-1])

    def conditional(self, weight=lambda depth: 1.0) -> float:
        total, known = 0.0, 0
        for node, z in self.z.items():
            own, above = self.target(node), self.target(int(self.tree.parents[node]))
            if own is None or above is None:
                continue
            known += 1
            if above > 0:
                total += weight(len(self.tree.ancestors(node)) - 1) * above * bce(sigmoid(z), own / above)
        return total / max(known, 1)

    def unconditional(self) -> float:
        each = [bce(self.probability(node), self.target(node)) for node in self.z if self.target(node) is not None]
        return sum(each) / max(len(each), 1)

    def siblings(self, node: int) -> float:
        """Softmax of a node over its parent's children."""
        family = self.tree.children[self.tree.parents[node]]
        return math.exp(self.z[node]) / math.fsum(math.exp(self.z[each]) for each in family)


def soft(targets: torch.Tensor, seed: int) -> torch.Tensor:
    """Some of the positives become soft, as `uncertain: smooth` makes them."""
    draws = torch.rand(targets.shape, generator=torch.Generator().manual_seed(seed), dtype=targets.dtype)
    return torch.where((targets == 1) & (draws < 0.5), 0.55 + 0.3 * draws, targets)


class TestNodewise:
    @given(random_trees(), strategies.integers(0, 100), strategies.booleans())
    def test_equal_the_formulas_node_by_node(self, tree, seed, hedged):
        for name, params, formula in (
            ("hbce_conditional", {}, ByHand.conditional),
            ("hbce", {"finetune_epochs": 0}, ByHand.conditional),
            ("hbce", {"finetune_epochs": EPOCHS}, ByHand.unconditional),
            ("hxe_multilabel", {"alpha": 0.7}, lambda hand: hand.conditional(lambda depth: math.exp(-0.7 * depth))),
        ):
            loss = build(name, tree, **params)
            z, targets = logits(loss, 4, seed), multi_hot(tree, 4, seed)
            targets = soft(targets, seed) if hedged else targets
            found, counts = loss.per_image(z, targets)
            wanted = [formula(ByHand(tree, loss, z[i], targets[i])) for i in range(4)]
            assert counts.all()
            assert found.tolist() == pytest.approx(wanted, rel=1e-9), name

    @given(random_trees(), strategies.integers(0, 100))
    def test_the_link_is_products_down_the_path_and_own_leaves_are_what_the_children_leave(self, tree, seed):
        loss = build("hbce", tree)
        z = logits(loss, 3, seed)
        own = tree_model.own_leaves(tree)
        for image in range(3):
            hand = ByHand(tree, loss, z[image], torch.zeros(len(tree.classes)))
            wanted = [hand.probability(node) for node in range(len(tree.parents))]
            for node, leaf in own.items():
                children = [child for child in tree.children[node] if child != leaf]
                wanted[leaf] = wanted[node] * math.prod(1 - sigmoid(hand.z[child]) for child in children)
            assert loss.nodes(z)[image].tolist() == pytest.approx(wanted)
        follows = tree_model.log_posterior_of_nodes(loss.node_logits(z).numpy(), tree)
        assert loss.log_posterior(z).numpy() == pytest.approx(follows)

    @given(random_trees(), strategies.integers(0, 100))
    def test_the_conditional_loss_is_the_likelihood_of_all_known_nodes_at_once(self, tree, seed):
        loss = build("hbce_conditional", tree)
        z, targets = logits(loss, 1, seed), torch.nan_to_num(multi_hot(tree, 1, seed))
        hand = ByHand(tree, loss, z[0], targets[0])
        likelihood, known = 1.0, 0
        for node, value in hand.z.items():
            if hand.target(node) is not None:
                known += 1
                if hand.target(int(tree.parents[node])) == 1:
                    likelihood *= sigmoid(value) if hand.target(node) == 1 else 1 - sigmoid(value)
        found = float(loss(logits=z, targets=targets)) * known
        assert found == pytest.approx(-math.log(likelihood))

    @pytest.mark.parametrize("params", [{"finetune_epochs": 0}, {"finetune_epochs": EPOCHS}])
    def test_on_one_level_they_are_binary_cross_entropy(self, params):
        tree = TREES["flat"]
        options = {"pos_weight": {"class 2": 3.0}, "label_smoothing": 0.1, "gamma": 1.5}
        bce = build("bce", tree, **options)
        z, targets = logits(bce, 8), soft(multi_hot(tree, 8), 0)
        wanted = bce(logits=z, targets=targets)
        for loss, factor in (
            (build("hbce", tree, **params, **options), 1.0),
            (build("hbce_conditional", tree, **options), 1.0),
            (build("hxe_multilabel", tree, alpha=0.3, **options), math.exp(-0.3)),
        ):
            assert torch.allclose(loss(logits=z, targets=targets), factor * wanted)
            assert torch.allclose(loss.nodes(z), bce.nodes(z))
            assert torch.allclose(loss.posterior(z), bce.posterior(z))

    def test_without_decay_the_multilabel_hxe_is_the_conditional_loss(self):
        tree = TREES["chexpert"]
        first, second = build("hxe_multilabel", tree, alpha=0.0), build("hbce_conditional", tree)
        z, targets = logits(first, 6), multi_hot(tree, 6)
        assert torch.equal(first(logits=z, targets=targets), second(logits=z, targets=targets))

    def test_nodes_below_a_negative_parent_are_not_learnt_until_the_last_epochs(self):
        tree = TREES["six"]
        targets = torch.tensor([[1.0, 0, 0, 0, 0, 0]])
        below = [list(build("hbce", tree).sums.order).index(node) for node in (3, 4, 6, 7, 8, 9)]
        for params, learnt in (({"finetune_epochs": 0}, False), ({"finetune_epochs": EPOCHS}, True)):
            loss = build("hbce", tree, **params)
            z = torch.zeros(1, 9, requires_grad=True)
            loss(logits=z, targets=targets).backward()
            assert [bool(z.grad[0, node]) for node in below] == [learnt] * 6

    def test_balanced_weights_are_counted_at_each_node(self):
        tree = TREES["six"]
        loss = build("hbce", tree, pos_weight="balanced")
        positives = ["a", "b1", "b1", "b1", "b2", "c1", "d1", "d1", "d2", "d2"]
        targets = torch.tensor([[float(name == each) for name in tree.classes] for each in positives])
        loss.observe(targets)
        given = dict(zip(loss.sums.order.tolist(), loss.conditional.pos_weight(torch.float64).tolist(), strict=False))
        alone = dict(zip(loss.sums.order.tolist(), loss.unconditional.pos_weight(torch.float64).tolist(), strict=False))
        assert given == pytest.approx({1: 9, 2: 6 / 4, 3: 1 / 3, 4: 3, 5: 5 / 5, 6: 4, 7: 1 / 4, 8: 1, 9: 1})
        assert alone == pytest.approx({1: 9, 2: 6 / 4, 3: 7 / 3, 4: 9, 5: 5 / 5, 6: 9, 7: 6 / 4, 8: 4, 9: 4})

    def test_hbce_changes_at_its_epoch(self):
        loss = build("hbce", TREES["six"], finetune_epochs=2)
        phases = []
        for epoch in range(5):
            loss.at_epoch(epoch, 5)
            phases.append(loss.finetuning)
        assert phases == [False, False, False, True, True]

    def test_certain_logits_keep_log_probabilities_exact(self):
        """P(n) near 0 and near 1, where a product would be lost to rounding."""
        tree = TREES["six"]
        loss = build("hbce", tree)
        z = torch.full((1, 9), 40.0)
        deepest = tree.class_nodes[4]
        assert float(loss.node_logits(z)[0, deepest]) == pytest.approx(40 - math.log(3), rel=1e-6)  # 1 - P = 3 exp(-40)
        assert float(loss.node_logits(-z)[0, deepest]) == pytest.approx(-120, rel=1e-6)  # P = exp(-120)


class TestCascade:
    @given(random_trees(), strategies.integers(0, 100), strategies.sampled_from([-0.5, 0.0, 0.7]))
    def test_equals_the_formula_node_by_node(self, tree, seed, alpha):
        loss = build("cascade", tree, alpha=alpha)
        z, targets = logits(loss, 3, seed), multi_hot(tree, 3, seed)
        weights = MostSpecific(tree)(targets)[0]
        for image in range(3):
            hand = ByHand(tree, loss, z[image], targets[image])
            wanted, leaves = 0.0, []
            for k, leaf in enumerate(tree.class_nodes.tolist()):
                path = tree.ancestors(leaf)[:-1]
                leaves.append(math.prod(hand.siblings(node) for node in path))
                for node in path:
                    decay = math.exp(-alpha * (len(tree.ancestors(node)) - 1))
                    wanted -= float(weights[image, k]) * decay * math.log(hand.siblings(node))
            assert float(loss.per_image(z, targets)[0][image]) == pytest.approx(wanted, rel=1e-9, abs=1e-12)
            assert loss.posterior(z)[image].tolist() == pytest.approx(leaves)

    def test_without_decay_it_is_cross_entropy_of_its_own_posterior(self):
        tree = TREES["large"]
        loss = build("cascade", tree, alpha=0.0)
        z, targets = logits(loss, 6), one_hot(tree, 6)
        wanted = -(loss.posterior(z).log() * targets).sum(dim=1).mean()
        assert torch.allclose(loss(logits=z, targets=targets), wanted)

    def test_on_one_level_it_is_cross_entropy(self):
        tree = TREES["flat"]
        z, targets = logits(build("ce", tree), 6), multi_hot(tree, 6)
        found = build("cascade", tree, alpha=0.0)(logits=z, targets=targets)
        assert torch.allclose(found, build("ce", tree)(logits=z, targets=targets))


class TestSoftLabels:
    @given(random_trees(), strategies.integers(0, 100), strategies.sampled_from([0.0, 1.0, 10.0]))
    def test_equals_the_formula(self, tree, seed, beta):
        cost = costs.path(tree) + numpy.tril(costs.lca_height(tree))  # not symmetric: rows decisions, columns truths
        z = logits(build("ce", tree), 3, seed)
        targets = multi_hot(tree, 3, seed)
        weights = MostSpecific(tree)(targets)[0].numpy()
        log_p = z.log_softmax(dim=1).numpy()
        for divergence in ("kl", "cross_entropy"):
            loss = losses.build("soft_labels", hierarchy=tree, cost=cost, beta=beta, divergence=divergence)
            for image in range(3):
                wanted = 0.0
                for true, weight in enumerate(weights[image]):
                    q = [math.exp(-beta * cost[j, true] / cost.max()) for j in range(len(cost))]
                    for j, share in enumerate(each / math.fsum(q) for each in q):
                        wanted -= weight * share * log_p[image, j]
                        wanted += weight * share * math.log(share) if divergence == "kl" else 0
                assert float(loss.per_image(z, targets)[0][image]) == pytest.approx(wanted, rel=1e-9, abs=1e-12)

    def test_a_steep_beta_is_cross_entropy(self):
        for tree in TREES.values():
            for divergence in ("kl", "cross_entropy"):
                loss = build("soft_labels", tree, beta=1e5, divergence=divergence)
                z, targets = logits(loss, 6), multi_hot(tree, 6)
                assert torch.allclose(loss(logits=z, targets=targets), build("ce", tree)(logits=z, targets=targets))

    def test_the_divergence_is_zero_at_the_soft_labels_themselves(self):
        tree = TREES["chexpert"]
        loss = build("soft_labels", tree, beta=5.0)
        truth = torch.eye(len(tree.classes), dtype=torch.float64)
        assert loss.per_image(loss.soft.log(), truth)[0].abs().max() < 1e-12


class TestBarzDenzler:
    @given(random_trees(), strategies.integers(0, 100))
    def test_equals_the_formula(self, tree, seed):
        loss = build("barz_denzler", tree, ce_weight=0.3)
        perturb(loss, seed)
        cost = costs.lca_height(tree)
        z, targets = logits(loss, 3, seed), multi_hot(tree, 3, seed)
        weights = MostSpecific(tree)(targets)[0].numpy()
        phi = loss.embeddings.numpy()
        assert phi @ phi.T == pytest.approx(1 - cost / cost.max(), abs=1e-7)
        scores = z.numpy() @ loss.classifier.weight.detach().double().numpy().T + loss.classifier.bias.tolist()
        for image, feature in enumerate(z.numpy()):
            wanted = 0.0
            for k, weight in enumerate(weights[image]):
                cosine = feature @ phi[k] / numpy.linalg.norm(feature)
                wanted += weight * (1 - cosine - 0.3 * log_softmax(scores[image])[k])
            assert loss.per_image(z, targets)[0][image].item() == pytest.approx(wanted, rel=1e-9)
            assert loss.posterior(z)[image].log().tolist() == pytest.approx(log_softmax(scores[image]))

    def test_costs_without_embeddings_are_refused(self):
        tree = TREES["six"]
        cost = 1.0 - numpy.eye(6)
        cost[:3, 3:] = cost[3:, :3] = 4.0
        cost[0, 3] = cost[3, 0] = 0.1  # nearly the same, but one is far from what the other is near
        with pytest.raises(SeverityError, match="negative eigenvalue -0.* lca_height always works"):
            losses.build("barz_denzler", hierarchy=tree, cost=cost)
        with pytest.raises(SeverityError, match="haframe: .* lca_height always works"):
            losses.build("haframe", hierarchy=tree, cost=cost, gamma=1.0)
        cost[0, 3] = 5
        for name in ("barz_denzler", "haframe"):
            with pytest.raises(SeverityError, match="not symmetric"):
                losses.build(name, hierarchy=tree, cost=cost)

    @given(random_trees())
    def test_ultrametric_costs_always_have_them(self, tree):
        build("barz_denzler", tree)
        build("haframe", tree)


def log_softmax(z: numpy.ndarray) -> numpy.ndarray:
    return z - z.max() - numpy.log(numpy.exp(z - z.max()).sum())


def perturb(loss: losses.Link, seed: int) -> None:
    """Move the weights of a loss from where they start."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in loss.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=random)


class TestFrame:
    @given(random_trees(), strategies.integers(0, 100), strategies.sampled_from([0.5, 3.0, 10.0]))
    def test_equals_the_formula(self, tree, seed, gamma):
        loss = build("haframe", tree, gamma=gamma, alignment=0.3, features=4)
        perturb(loss, seed)
        z, targets = logits(loss, 3, seed), multi_hot(tree, 3, seed)
        weights = MostSpecific(tree)(targets)[0].numpy()
        frame, similarity = loss.frame.numpy(), loss.similarity.numpy()
        layer = loss.layer.weight.detach().double().numpy(), loss.layer.bias.detach().double().numpy()
        for image, feature in enumerate(z.numpy()):
            hidden = layer[0] @ numpy.where(feature < 0, loss.slope.item() * feature, feature) + layer[1]
            log_p = log_softmax(frame @ hidden)
            wanted = 0.0
            for true, weight in enumerate(weights[image]):
                apart = [
                    (row @ hidden / numpy.linalg.norm(hidden) - similarity[true, c]) ** 2 for c, row in enumerate(frame)
                ]
                wanted += weight * (-0.7 * log_p[true] + 0.3 * sum(apart))
            assert loss.per_image(z, targets)[0][image].item() == pytest.approx(wanted, rel=1e-7)
            assert loss.posterior(z)[image].log().tolist() == pytest.approx(log_p.tolist())

    @given(random_trees(), strategies.sampled_from([0.5, 3.0, 10.0]))
    def test_the_frame_has_the_similarities_and_they_go_as_low_as_they_can(self, tree, gamma):
        loss = build("haframe", tree, gamma=gamma)
        similarity, cost, classes = loss.similarity.numpy(), costs.lca_height(tree), len(tree.classes)
        assert loss.frame.numpy() @ loss.frame.numpy().T == pytest.approx(similarity, abs=1e-7)
        decay = numpy.exp(-gamma * cost / cost.max())
        far = numpy.unravel_index(cost.argmax(), cost.shape)
        lowest = (similarity[far] - decay[far]) / (1 - decay[far])
        assert similarity == pytest.approx((1 - lowest) * decay + lowest)
        assert -1 - 1e-9 <= lowest <= -1 / (classes - 1) + 1e-9
        assert numpy.linalg.eigvalsh(similarity)[0] > -1e-9
        if lowest > -1 + 1e-6:
            lower = lowest - 1e-6
            assert numpy.linalg.eigvalsh((1 - lower) * decay + lower)[0] < -1e-8

    def test_equal_costs_and_a_steep_gamma_give_the_simplex(self):
        tree = TREES["flat"]
        similarity = build("haframe", tree, gamma=1e3).similarity.numpy()
        assert similarity == pytest.approx(numpy.eye(5) * 1.25 - 0.25)

    def test_without_alignment_it_is_cross_entropy_of_its_own_posterior(self):
        tree = TREES["chexpert"]
        loss = build("haframe", tree, alignment=0.0)
        z, targets = logits(loss, 6), one_hot(tree, 6)
        wanted = -(loss.posterior(z).log() * targets).sum(dim=1).mean()
        assert torch.allclose(loss(logits=z, targets=targets), wanted)


class TestHierarchyAwareFeatures:
    @given(random_trees(), strategies.integers(0, 100), strategies.sampled_from([0.0, 3.0]))
    def test_equals_the_formula(self, tree, seed, margin):
        loss = build("haf", tree, margin=margin, features=5)
        z, targets = logits(loss, 4, seed), multi_hot(tree, 4, seed)
        weights = MostSpecific(tree)(targets)[0].numpy()
        wanted = self.by_hand(tree, loss, z.numpy(), weights, margin)
        assert loss.per_image(z, targets)[0].tolist() == pytest.approx(wanted, rel=1e-9)

    def by_hand(self, tree, loss, features, weights, margin):
        """Level by level, image by image, pair by pair; a node of a level is named by its index in the tree."""
        deepest = int(tree.depth.max())

        def at(node: int, level: int) -> int:
            """Where a node is found in a coarser level."""
            return next(each for each in tree.ancestors(node) if tree.depth[each] <= level)

        nodes = {deepest: tree.class_nodes.tolist()}
        for level in range(deepest - 1, 0, -1):
            nodes[level] = list(dict.fromkeys(at(node, level) for node in nodes[level + 1]))
        rows = {}
        for level, parameter in zip(range(1, deepest + 1), loss.rows, strict=True):
            matrix = parameter.detach().double().numpy()
            rows[level] = {node: row / numpy.linalg.norm(row) for node, row in zip(nodes[level], matrix, strict=True)}
        p = [
            {
                level: dict(
                    zip(
                        nodes[level],
                        numpy.exp(log_softmax(numpy.array([row @ feature for row in rows[level].values()]))),
                        strict=True,
                    )
                )
                for level in nodes
            }
            for feature in features
        ]
        true = [
            {level: {at(int(tree.class_nodes[k]), level) for k in row.nonzero()[0]} for level in nodes}
            for row in weights
        ]
        found = []
        for image, each in enumerate(p):
            total = -sum(
                weight * math.log(each[deepest][int(leaf)])
                for weight, leaf in zip(weights[image], tree.class_nodes, strict=True)
            )
            for level in range(1, deepest):
                below = {
                    node: [child for child in nodes[level + 1] if at(child, level) == node] for node in nodes[level]
                }
                summed = {node: math.fsum(each[level + 1][child] for child in below[node]) for node in below}
                mean = {node: (summed[node] + each[level][node]) / 2 for node in below}
                total += (divergence(summed, mean) + divergence(each[level], mean)) / 2
                cosines = []
                for node in below:
                    together = sum(rows[level + 1][child] for child in below[node])
                    cosines.append(rows[level][node] @ together / numpy.linalg.norm(together))
                total += 1 - sum(cosines) / len(cosines)
                others = [j for j in range(len(p)) if not true[image][level] & true[j][level]]
                apart = []
                for j in others:
                    mixture = {node: (each[level][node] + p[j][level][node]) / 2 for node in nodes[level]}
                    gaps = [max(0, margin - divergence(one, mixture)) for one in (each[level], p[j][level])]
                    apart.append(sum(gaps) / 2)
                total += sum(apart) / max(len(apart), 1)
            found.append(total)
        return found

    def test_the_margin_of_two_images_five_logits_apart_by_hand(self):
        log_p = (5.0 * torch.eye(2, dtype=torch.float64)).log_softmax(dim=1)
        found = haf._separation(log_p, torch.eye(2, dtype=torch.float64), torch.tensor([True, True]), 3.0)
        assert found.tolist() == pytest.approx([2.347, 2.347], abs=5e-4)

    def test_a_leaf_above_the_deepest_level_stands_for_itself(self):
        loss = build("haf", TREES["six"])
        assert loss.sizes == [3, 5, 6]  # a B C; a b1 b2 c1 D; the classes

    def test_on_one_level_it_is_cross_entropy_of_its_own_posterior(self):
        tree = TREES["flat"]
        loss = build("haf", tree)
        z, targets = logits(loss, 6), one_hot(tree, 6)
        wanted = -(loss.posterior(z).log() * targets).sum(dim=1).mean()
        assert torch.allclose(loss(logits=z, targets=targets), wanted)

    def test_images_without_truth_do_not_enter_the_margin(self):
        tree = TREES["six"]
        loss = build("haf", tree)
        z, targets = logits(loss, 6), one_hot(tree, 6)
        targets[5] = 0
        found, counts = loss.per_image(z, targets)
        assert counts.tolist() == [True] * 5 + [False]
        assert torch.allclose(found[:5], loss.per_image(z[:5], targets[:5])[0])


def divergence(p: dict[int, float], q: dict[int, float]) -> float:
    """KL(p, q)."""
    return sum(p[node] * math.log(p[node] / q[node]) for node in p)


class TestPasses:
    """The passes over the tree, level by level and with one product, against loops."""

    @given(random_trees(), strategies.integers(0, 100), strategies.booleans())
    def test_up_and_down(self, tree, seed, dense):
        nodes = NodeSums(tree, dense=dense)
        random = torch.Generator().manual_seed(seed)
        values = torch.randn(2, len(tree.classes), generator=random, dtype=torch.float64)
        below = [tree.classes_below[node].tolist() for node in nodes.order]
        for found, wanted in (
            (nodes.sum(values), [[float(row[each].sum()) for each in below] for row in values]),
            (nodes.maximum(values), [[float(row[each].max()) for each in below] for row in values]),
            (nodes.log_sum_exp(values), [[float(row[each].exp().sum().log()) for each in below] for row in values]),
        ):
            assert found.tolist() == [pytest.approx(row, abs=1e-12) for row in wanted]
        on_nodes = torch.randn(2, len(nodes.order), generator=random, dtype=torch.float64)
        wanted = [
            [math.fsum(float(row[j]) for j in range(len(below)) if k in below[j]) for k in range(len(tree.classes))]
            for row in on_nodes
        ]
        assert nodes.spread(on_nodes).tolist() == [pytest.approx(row) for row in wanted]

    @pytest.mark.parametrize("dense", [False, True])
    @pytest.mark.parametrize("scale", [1.0, 30.0, 1e3, 1e4])
    def test_weighted_log_sum_exp_where_sums_vanish_too(self, scale, dense):
        for tree in (TREES["six"], TREES["chexpert"], TREES["large"]):
            nodes = NodeSums(tree, dense=dense)
            random = torch.Generator().manual_seed(0)
            weights = torch.randn(40, len(nodes.order), generator=random, dtype=torch.float64)
            weights *= torch.rand(weights.shape, generator=random) < 0.3
            weights[:, -1] -= weights.sum(dim=1)
            results = []
            for formula in (
                nodes.weighted_log_sum_exp,
                lambda z, w, nodes=nodes: (w * nodes.log_sum_exp(z)).sum(dim=1),
            ):
                z = (scale * torch.randn(40, len(tree.classes), generator=torch.Generator().manual_seed(1))).double()
                z.requires_grad_()
                found = formula(z, weights)
                (found * torch.arange(40)).sum().backward()
                results.append((found.detach(), z.grad))
            assert torch.allclose(results[0][0], results[1][0], atol=1e-9 * scale)
            assert torch.allclose(results[0][1], results[1][1], atol=1e-9)


class TestNodeTargets:
    def test_positive_negative_and_masked(self):
        tree = TREES["six"]
        targets = torch.tensor([[0, torch.nan, 1, 0, 0, 0], [torch.nan, 0, 0, 0, torch.nan, 0], [0, 0, 0.3, 0.7, 0, 0]])
        nodes = NodeSums(tree)
        found = NodeTargets(tree, nodes)(targets)
        by_node = {int(node): found[:, column].tolist() for column, node in enumerate(nodes.order)}
        nan = pytest.approx(math.nan, nan_ok=True)
        assert by_node[2] == pytest.approx([1, 0, 0.3])  # B: one masked below but one positive; all negative; soft
        assert by_node[5] == [0, nan, pytest.approx(0.7)]  # C: nothing; D is unknown; c1 is hedged
        assert by_node[7] == [0, nan, 0]
        assert by_node[0] == [1, 1, 1]

    @pytest.mark.parametrize(
        ("label", "children", "wanted"),
        [
            (1, (0, 0), 1),  # the label and nothing more specific
            (0, (0, 0), 0),
            (1, (1, 0), math.nan),  # something more specific is there: nothing is said of the label alone
            (1, (math.nan, 0), math.nan),  # or may be there
            (0, (math.nan, 0), 0),
            (math.nan, (0, 0), math.nan),
            (0.7, (0.3, 0), 0.7),
            (0, (1, 0), math.nan),  # labels that contradict the tree
        ],
    )
    def test_an_own_leaf_is_the_label_where_nothing_below_is_positive(self, label, children, wanted):
        tree = Hierarchy.from_parents([-1, 0, 0, 2, 2], [1, 2, 3, 4], ["a", "B", "b1", "b2"])
        nodes = NodeSums(tree)
        found = NodeTargets(tree, nodes)(torch.tensor([[0, label, *children]]))
        column = nodes.order.tolist().index(tree.class_nodes[1])
        assert float(found[0, column]) == pytest.approx(wanted, nan_ok=True)


FINDINGS = (
    "No Finding", "Cardiomegaly", "Edema", "Consolidation", "Lung Lesion", "Pneumothorax", "Pleural Effusion",
    "Support Devices",
)  # fmt: skip


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory):
    """400 prepared phantoms of 32 pixels, one clear finding each, an opacity being Lung Opacity as well."""
    folder = tmp_path_factory.mktemp("phantoms")
    extents = numpy.random.default_rng(0).uniform(0.5, 1, 400)
    rows = []
    for number, extent in enumerate(extents):
        label = FINDINGS[number % len(FINDINGS)]
        found = {} if label == "No Finding" else {label: float(extent)}
        study = Study(patient=number, number=1, findings=found, projection="PA", lateral=False)
        drawn = phantom.picture_array(phantom.Picture(study, 1, "frontal", "train"), size=32, seed=0)
        Image.fromarray(drawn).save(folder / f"{number}.png")
        about = {"id": str(number), "path": f"{number}.png", "patient": str(number), "sex": "", "age": math.nan}
        rows.append({**about, "view": "frontal", "split": "", **truth(found)})
    images = numpy.stack(
        [numpy.asarray(Image.open(folder / row["path"]).resize((32, 32), Image.Resampling.BILINEAR)) for row in rows]
    )
    preparation.prepare(
        folder / "prepared", Collection(pandas.DataFrame(rows), phantom.LABELS), [row["id"] for row in rows],
        TREES["chexpert"], dataset="phantom", root=folder, validation_fraction=0.2, test_fraction=0.25, seed=0,
        min_positives=0, policies={"uncertain": "ones", "unmentioned": "zeros", "closure": False},
    )  # fmt: skip
    table = prepared.read_table(folder / "prepared")
    classes = TREES["chexpert"].classes
    return images, *(training.Split(*prepared.part(table, [name], classes)) for name in splits.SPLITS)


def small_network(outputs: int) -> torch.nn.Module:
    layers: list[torch.nn.Module] = []
    for inputs, width in ((1, 8), (8, 16), (16, 32)):
        layers += [torch.nn.Conv2d(inputs, width, 3, stride=2, padding=1), torch.nn.BatchNorm2d(width), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(32 * 4 * 4, outputs))


@pytest.mark.parametrize("name", ALL)
def test_every_loss_beats_the_best_constant_decision_on_phantoms(name, phantoms, tmp_path):
    tree = TREES["chexpert"]
    images, train, validation, test = phantoms
    loss = build(name, tree)
    network = small_network(loss.outputs)
    weights, _ = training.fit(
        network, loss, images, train, validation, Run("small", name, 0), tmp_path,
        cost=costs.lca_height(tree), epochs=12, keep="last", batch_size=16, learning_rate=0.004, weight_decay=0.05,
        warmup_epochs=1.0, gradient_clip=1.0, precision="float32", device="cpu",
        augmentation={"rotation": 3.0, "translation": 0.03, "scale": 0.03, "brightness": 0.05, "contrast": 0.05},
    )  # fmt: skip
    own = [key for key in weights if key.startswith("loss.")]
    loss.load_state_dict({key.removeprefix("loss."): weights.pop(key) for key in own})
    network.load_state_dict(weights)
    with torch.no_grad():
        z = inference.logits(network, images, test.rows, batch_size=256, on=torch.device("cpu"))
        posterior = loss.posterior(z.double()).numpy()
    true, cost = test.targets == 1, costs.lca_height(tree)
    ranking = class_rules.rank("argmax", posterior=posterior, cost=cost, hierarchy=tree)
    found = class_metrics.single_decision(ranking=ranking, truth=true, cost=cost)
    assert found["without_truth"] == 0
    best_constant = 1 - true.mean(axis=0).max()  # the majority baseline, chosen on the test images themselves
    assert best_constant > 0.5
    assert found["top1_error"] < best_constant - 0.1
