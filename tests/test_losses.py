"""All losses at once: hard cases, gradients, batching; and each loss against what it must equal.

Runs over every file of severity/losses, so a new loss is tested as soon as it is there.
"""

import math

import numpy
import pytest
import torch
from hypothesis import given, strategies

from severity import costs, losses
from severity.errors import SeverityError
from severity.hierarchy import Hierarchy
from severity.targets import MostSpecific
from tests.trees import chexpert_default, flat, random_tree, random_trees, six_classes

ALL = losses.names()
TREES = {"six": six_classes(), "flat": flat(5), "chexpert": chexpert_default(), "large": random_tree(3, 300, 40)}


def build(name: str, tree: Hierarchy, **params) -> losses.Link:
    return losses.build(name, hierarchy=tree, cost=costs.lca_height(tree), **params)


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


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES.keys())
@pytest.mark.parametrize("name", ALL)
class TestEveryLoss:
    def test_posterior_is_a_distribution_and_marginal_a_probability(self, name, tree):
        loss = build(name, tree)
        for scale in (1.0, 50.0, 1e4):
            z = logits(loss, 20, scale=scale)
            posterior, marginal = loss.posterior(z), loss.marginal(z)
            assert posterior.shape == marginal.shape == (20, len(tree.classes))
            assert torch.allclose(posterior.sum(dim=1), torch.ones(20, dtype=z.dtype))
            assert (posterior >= 0).all() and (marginal >= 0).all() and (marginal <= 1).all()

    def test_value_and_gradient_are_finite_in_hard_cases(self, name, tree):
        loss = build(name, tree)
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

    def test_a_confident_mistake_has_a_gradient(self, name, tree):
        loss = build(name, tree)
        for true in range(min(6, len(tree.classes))):
            targets = torch.zeros(1, len(tree.classes))
            targets[0, true] = 1
            z = torch.full((1, loss.outputs), -1e4)
            z[0, (true + 1) % loss.outputs] = 1e4
            z.requires_grad_()
            value = loss(logits=z, targets=targets)
            value.backward()
            assert torch.isfinite(value) and value > 0
            assert torch.isfinite(z.grad).all() and (z.grad != 0).any()

    def test_gradient_equals_finite_differences(self, name, tree):
        if len(tree.classes) > 20:
            pytest.skip("finite differences of 300 classes take long and show nothing the small trees do not")
        loss = build(name, tree).double()
        targets = multi_hot(tree, 4)
        z = logits(loss, 4).requires_grad_()
        assert torch.autograd.gradcheck(lambda z: loss(logits=z, targets=targets), z)

    def test_batch_mean_is_the_mean_of_single_images(self, name, tree):
        loss = build(name, tree)
        z, targets = logits(loss, 9), multi_hot(tree, 9)
        single = [loss(logits=z[image : image + 1], targets=targets[image : image + 1]) for image in range(9)]
        assert torch.allclose(loss(logits=z, targets=targets), torch.stack(single).mean())

    def test_loss_is_never_negative(self, name, tree):
        loss = build(name, tree)
        for seed in range(5):
            assert loss(logits=logits(loss, 16, seed), targets=multi_hot(tree, 16, seed)) >= 0

    def test_half_precision_autocast_keeps_the_loss_in_full(self, name, tree):
        loss = build(name, tree)
        z = logits(loss, 6).bfloat16().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = loss(logits=z, targets=one_hot(tree, 6).float())
        value.backward()
        assert value.dtype == torch.float32
        assert torch.allclose(value, loss(logits=z.float(), targets=one_hot(tree, 6).float()), rtol=1e-6)
        assert torch.isfinite(z.grad).all()

    def test_a_batch_that_says_nothing_costs_nothing(self, name, tree):
        loss = build(name, tree)
        z = logits(loss, 3).requires_grad_()
        value = loss(logits=z, targets=torch.full((3, len(tree.classes)), torch.nan))
        value.backward()
        assert value == 0 and (z.grad == 0).all()

    def test_descending_the_gradient_finds_the_truth(self, name, tree):
        loss = build(name, tree)
        targets = one_hot(tree, 10).float()
        z = torch.zeros(10, loss.outputs, requires_grad=True)
        optimizer = torch.optim.Adam([z], lr=0.5)
        for _ in range(60):
            optimizer.zero_grad()
            loss(logits=z, targets=targets).backward()
            optimizer.step()
        assert (loss.posterior(z.detach()).argmax(dim=1) == targets.argmax(dim=1)).all()

    def test_shapes_that_do_not_fit_are_refused(self, name, tree):
        loss = build(name, tree)
        with pytest.raises(SeverityError, match="do not fit"):
            loss(logits=torch.zeros(2, loss.outputs + 1), targets=torch.zeros(2, len(tree.classes)))


def test_unknown_losses_and_numbers_are_refused():
    tree = six_classes()
    with pytest.raises(SeverityError, match=r"no severity/losses/hxx.py. Did you mean 'hxe'"):
        build("hxx", tree)
    with pytest.raises(SeverityError, match="unknown key 'alpa'. Did you mean 'alpha'"):
        build("hxe", tree, alpa=1.0)
    with pytest.raises(SeverityError, match=r"1e-3 as text: write 0.001 or 1.0e-3"):
        build("hxe", tree, alpha="1e-3")
    with pytest.raises(SeverityError, match="must be in"):
        build("ce", tree, label_smoothing=1.0)
    with pytest.raises(SeverityError, match="Did you mean 'b1'"):
        build("bce", tree, pos_weight={"b11": 2.0})
    with pytest.raises(SeverityError, match="above 0"):
        build("bce", tree, pos_weight=0)
    with pytest.raises(SeverityError, match="finite"):
        build("hxe", tree, alpha=float("inf"))


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
