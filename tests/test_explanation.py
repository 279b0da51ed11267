"""Grad-CAM against its own definition and against the older CAM, on networks small enough to be made by hand."""

import functools
import math

import numpy
import pandas
import pytest
import timm
import torch
import torchvision
import yaml
from hypothesis import given, strategies

from severity import losses
from severity.core.errors import SeverityError
from severity.explanation import explanation
from severity.explanation.explained_images import Case
from severity.networks import backbones
from severity.tree import costs
from tests.trees import TOP, flat, six_classes

TREE = six_classes()
SECTION = yaml.safe_load((TOP / "params.yaml").read_text())["backbones"]


def loss(name: str = "ce", tree=TREE) -> losses.Link:
    torch.manual_seed(1)  # of the weights that some losses own
    return losses.build(name, hierarchy=tree, cost=costs.lca_height(tree)).eval()


def backbone(network: torch.nn.Module, colours: int = 1) -> backbones.Backbone:
    return backbones.Backbone(network, (0.0,) * colours, (1.0,) * colours).eval()


class Small(torch.nn.Module):
    """Two convolutions, the mean over the places, a linear classifier."""

    def __init__(self, outputs: int, seed: int = 0, inplace: bool = False):
        super().__init__()
        torch.manual_seed(seed)
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(1, 5, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(5, 7, 3, stride=2, padding=1)
        )
        self.act = torch.nn.ReLU(inplace=inplace)
        self.fc = torch.nn.Linear(7, outputs)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.act(self.body(images)).mean(dim=(2, 3)))


def image(seed: int = 0, side: int = 12) -> torch.Tensor:
    return torch.rand(1, 1, side, side, generator=torch.Generator().manual_seed(seed))


def by_definition(network: backbones.Backbone, link: losses.Link, pixels: torch.Tensor, layer: str, label: int):
    """Grad-CAM of one class as its paper writes it: hooks forward and backward, no ReLU at the end."""
    kept = {}
    module = network.network.get_submodule(layer)
    hooks = [
        module.register_forward_hook(lambda module, inputs, given: kept.update(maps=given.detach().clone())),
        module.register_full_backward_hook(lambda module, inputs, outputs: kept.update(gradient=outputs[0].clone())),
    ]
    link.posterior(network(pixels.requires_grad_()).double())[0, label].log().backward()
    for hook in hooks:
        hook.remove()
    alpha = kept["gradient"][0].mean(dim=(1, 2))
    return sum(weight * each for weight, each in zip(alpha, kept["maps"][0], strict=True)).numpy()


# --- Grad-CAM


@pytest.mark.parametrize("layer", ["body.0", "body.2", "act"])
def test_it_is_what_its_paper_defines(layer):
    network, link = backbone(Small(6)), loss()
    found, scores = explanation.grad_cam(network, link, image(), layer, [4, 0, 2])
    assert found.dtype == numpy.float32 and len(found) == 3
    for label, each in zip([4, 0, 2], found, strict=True):
        assert each == pytest.approx(by_definition(network, link, image(), layer, label), rel=1e-4, abs=1e-7)
    assert scores == pytest.approx(network(image()).double().log_softmax(dim=1)[0, [4, 0, 2]].detach().numpy())


@pytest.mark.parametrize("name", losses.names())
def test_every_loss_is_explained_through_its_own_link(name):
    link = loss(name)
    network = backbone(Small(link.outputs))
    labels = range(len(TREE.classes))
    found, scores = explanation.grad_cam(network, link, image(), "act", labels)
    assert numpy.exp(scores).sum() == pytest.approx(1)
    for label, each in zip(labels, found, strict=True):
        assert each == pytest.approx(by_definition(network, link, image(), "act", label), rel=1e-4, abs=1e-7)
    assert (numpy.abs(found).max(axis=(1, 2)) > 1e-6).all()


@pytest.mark.parametrize("seed", range(5))
def test_before_pooling_and_a_linear_classifier_it_is_cam(seed):
    """Zhou et al. 2016: CAM_k = sum_c W[k, c] A_c. With d log p_k / d z_j = [j = k] - p_j that of log p_k is CAM_k minus
    the mean of all CAMs under p, and pooling by the mean divides by the number of places."""
    network, link = backbone(Small(6, seed)), loss()
    found, scores = explanation.grad_cam(network, link, image(seed), "act", range(6))
    with torch.no_grad():
        maps = network.network.act(network.network.body(image(seed)))[0].numpy()
        cam = numpy.tensordot(network.network.fc.weight.numpy(), maps, axes=1)
    wanted = cam - numpy.tensordot(numpy.exp(scores), cam, axes=1)
    assert found * maps[0].size == pytest.approx(wanted, rel=1e-3, abs=1e-5)


def test_classes_and_images_do_not_change_each_other():
    network, link = backbone(Small(6)), loss()
    together, _ = explanation.grad_cam(network, link, image(), "act", [5, 1, 3])
    for label, each in zip([5, 1, 3], together, strict=True):
        alone, _ = explanation.grad_cam(network, link, image(), "act", [label])
        assert alone[0] == pytest.approx(each, rel=1e-5, abs=1e-8)


def test_batch_norm_is_used_as_trained():
    """A network that is handed over in training mode would normalise by the copies of the image itself."""
    network = backbone(torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.BatchNorm2d(3), Small(6)))
    network.network[2].body[0] = torch.nn.Conv2d(3, 5, 3, padding=1)
    wanted, _ = explanation.grad_cam(network, loss(), image(), "1", [0, 1])
    found, _ = explanation.grad_cam(network.train(), loss(), image(), "1", [0, 1])
    assert (found == wanted).all() and int(network.network[1].num_batches_tracked) == 0


def test_what_follows_in_place_does_not_change_the_maps():
    plain, inplace = (backbone(Small(6, inplace=inplace)) for inplace in (False, True))
    first, second = (explanation.grad_cam(each, loss(), image(), "body.2", [0, 1])[0] for each in (plain, inplace))
    assert (first == second).all() and (first != 0).any()
    first, second = (explanation.feature_maps(each, image(), ["body.2"], 7)[0] for each in (plain, inplace))
    assert (first.values == second.values).all() and (first.values < 0).any()


class Bright(torch.nn.Module):
    """Class 0 the more, the more places are brighter than one half; the other classes know nothing."""

    def __init__(self, outputs: int, slope: float = 40.0):
        super().__init__()
        self.see = torch.nn.Conv2d(1, 2, 1)
        self.act = torch.nn.ReLU()
        self.fc = torch.nn.Linear(2, outputs)
        with torch.no_grad():
            self.see.weight[:, 0, 0, 0] = torch.tensor([1.0, -1.0])
            self.see.bias[:] = torch.tensor([-0.5, 0.5])
            self.fc.weight.zero_()
            self.fc.bias.zero_()
            self.fc.weight[0, 0] = slope

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.act(self.see(images)).mean(dim=(2, 3)))


@pytest.mark.parametrize(("left", "top"), [(0, 0), (20, 8), (24, 24)])
def test_the_square_that_decides_gets_the_heat(left, top):
    pixels = torch.full((1, 1, 32, 32), 0.2)
    pixels[0, 0, top : top + 8, left : left + 8] = 0.9
    network = backbone(Bright(6))
    found, _ = explanation.grad_cam(network, loss(), pixels, "act", [0, 1])
    heat = explanation.upsampled(found, 32)
    square = numpy.array([[left, top, left + 8, top + 8]]) / 32
    inside = explanation.inside_boxes(heat[0], square)
    assert inside == {"box_area": pytest.approx(1 / 16), "energy": pytest.approx(1), "hit": 1.0}
    away = 1 - square[:, [2, 3, 0, 1]]  # turned about the centre
    assert explanation.inside_boxes(heat[0], away)["hit"] == 0.0
    # The square speaks against the other classes: they have no heat at all.
    assert found[1][top : top + 8, left : left + 8].max() < 0 and heat[1].max() == 0
    assert explanation.inside_boxes(heat[1], square) == {"box_area": pytest.approx(1 / 16), "energy": None, "hit": None}


def test_certain_and_impossible_classes_have_finite_maps():
    network = backbone(Bright(6, slope=1e6))
    found, scores = explanation.grad_cam(network, loss(), torch.ones(1, 1, 8, 8), "act", range(6))
    assert numpy.isfinite(found).all() and numpy.isfinite(scores).all()
    assert scores[0] == 0 and (scores[1:] < -700).all()


def test_heat_is_cut_at_zero_and_brought_to_the_pixels():
    maps = numpy.array([[[-4.0, 2.0], [0.0, 6.0]]], dtype=numpy.float32)
    found = explanation.upsampled(maps, 4)[0]
    # Bilinear, the centres of the pixels of one grid in those of the other: corners keep their value.
    assert found[[0, 0, -1, -1], [0, -1, 0, -1]].tolist() == [0, 2, 0, 6]
    assert found[1, 1] == 0.75 * (0.25 * 2) + 0.25 * (0.25 * 6)
    assert explanation.upsampled(maps, 2)[0].tolist() == [[0, 2], [0, 6]]


# --- Boxes


EDGES = strategies.tuples(strategies.floats(0, 0.98), strategies.floats(0.02, 1)).map(
    lambda pair: (pair[0], pair[0] + (1 - pair[0]) * pair[1])
)


@given(EDGES, EDGES, strategies.integers(1, 40))
def test_even_heat_lies_in_a_box_as_its_area_says(across, down, side):
    box = numpy.array([[across[0], down[0], across[1], down[1]]])
    found = explanation.inside_boxes(numpy.ones((side, side), dtype=numpy.float32), box)
    area = (across[1] - across[0]) * (down[1] - down[0])
    assert found["box_area"] == pytest.approx(area) and found["energy"] == pytest.approx(area)


def test_boxes_that_overlap_count_once():
    warm = numpy.random.default_rng(0).random((10, 10)).astype(numpy.float32)
    outer, inner, beside = [0.1, 0.1, 0.6, 0.6], [0.2, 0.3, 0.5, 0.5], [0.6, 0.6, 1.0, 1.0]

    def energy(*boxes):
        return explanation.inside_boxes(warm, numpy.array(boxes))["energy"]

    assert energy(outer, inner) == energy(outer) == energy(inner, outer)
    assert energy(outer, beside) == pytest.approx(energy(outer) + energy(beside))
    assert energy([0, 0, 1, 1]) == pytest.approx(1)
    assert energy(outer) == pytest.approx(warm[1:6, 1:6].sum() / warm.sum())
    assert energy([0.15, 0.1, 0.6, 0.6]) == pytest.approx((warm[1:6, 2:6].sum() + warm[1:6, 1].sum() / 2) / warm.sum())


def test_the_pointing_game_is_won_where_the_hottest_pixel_is_inside_any_box():
    warm = numpy.zeros((8, 8))
    warm[2, 5] = 1  # its centre at x = 5.5 / 8, y = 2.5 / 8
    far, near = [0, 0.6, 0.3, 1], [0.6, 0.2, 0.8, 0.5]
    assert explanation.inside_boxes(warm, numpy.array([far, near]))["hit"] == 1.0
    assert explanation.inside_boxes(warm, numpy.array([far]))["hit"] == 0.0
    assert explanation.inside_boxes(warm, numpy.array([[near[1], near[0], near[3], near[2]]]))["hit"] == 0.0


# --- Layers


@pytest.mark.parametrize("name", SECTION)
def test_every_backbone_of_params_has_maps_of_every_resolution(name):
    with torch.device("meta"):  # Shapes without numbers: the large ones take no time.
        network = backbones.build(model=SECTION[name]["model"], pretrained=False, outputs=6)
        cam, layers = explanation.choose(network, 64, cam="auto", layers="auto")
        assert list(explanation.stages(network, 64).values()) == [32, 16, 8, 4, 2]
    assert (len(layers), layers.index(cam)) == (5, 3)


@pytest.mark.parametrize("name", ["tiny_resnet", "tiny_efficientnet", "mobilenet_v3_small", "shufflenet_v2_x1_0"])
def test_a_backbone_is_explained_at_each_of_its_stages(name):
    torch.manual_seed(0)
    network = backbones.build(model=SECTION[name]["model"], pretrained=False, outputs=6)
    known = explanation.stages(network, 64)
    for layer, places in known.items():
        found, _ = explanation.grad_cam(network, loss(), image(side=64), layer, [0, 5])
        assert found.shape == (2, places, places) and numpy.isfinite(found).all() and (found != 0).any()
    maps = explanation.feature_maps(network, image(side=64), list(known), 3)
    assert [each.values.shape for each in maps] == [(3, places, places) for places in known.values()]


def test_a_stage_ends_where_the_next_one_begins():
    network = backbones.build(model="resnet18", pretrained=False, outputs=6)
    known = explanation.stages(network, 128)
    assert known == {"act1": 64, "layer1.1": 32, "layer2.1": 16, "layer3.1": 8, "layer4.1": 4}
    assert explanation.choose(network, 128, cam="auto", layers="auto")[0] == "layer4.1"
    # At 32 pixels the last stage has one place left, and is none.
    assert list(explanation.stages(network, 32).values()) == [16, 8, 4, 2]


def test_without_a_stage_of_four_places_the_last_one_is_weighed():
    assert explanation.choose(backbone(Small(6)), 3, cam="auto", layers="auto") == ("act", ["body.1", "act"])


def test_layers_may_be_named():
    network = backbone(Small(6))
    assert explanation.choose(network, 12, cam="body.0", layers="auto")[0] == "body.0"
    assert explanation.choose(network, 12, cam="auto", layers=["body.0", "body"]) == ("act", ["body.0", "body"])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"cam": "body.9"}, r"explain.cam: the network has no layer 'body.9'. Did you mean 'body.\d'"),
        ({"cam": "fc"}, r"explain.cam: the layer 'fc' gives the shape \(1, 6\)"),
        ({"layers": ["act", "fc"]}, "explain.layers: the layer 'fc'"),
        ({"layers": ["auto"]}, "explain.layers: the network has no layer 'auto'"),
    ],
)
def test_layers_that_give_no_maps_are_refused(changes, told):
    with pytest.raises(SeverityError, match=told):
        explanation.choose(backbone(Small(6)), 12, **{"cam": "auto", "layers": "auto", **changes})


class Stem(torch.nn.Module):
    """Maps at first, then a list: nothing that follows can be weighed."""

    def __init__(self):
        super().__init__()
        self.stem, self.halves, self.fc = torch.nn.Conv2d(1, 4, 3, padding=1), Halves(), torch.nn.Linear(4, 6)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.cat([half.mean(dim=(2, 3)) for half in self.halves(self.stem(images))], dim=1))


class Halves(torch.nn.Module):
    def forward(self, maps: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return maps.chunk(2, dim=1)


def test_what_gives_no_single_tensor_is_refused_with_a_way_out():
    network = backbone(Stem())
    with pytest.raises(SeverityError, match="no maps .* 'halves' gives no single tensor.*explain.configuration"):
        explanation.choose(network, 12, cam="auto", layers="auto")
    assert explanation.choose(network, 12, cam="stem", layers=["stem"]) == ("stem", ["stem"])


def test_a_network_without_any_maps_is_refused():
    network = backbone(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(144, 6)))
    with pytest.raises(SeverityError, match="no layer gives any"):
        explanation.stages(network, 12)


class Lists(torch.nn.Module):
    """Its blocks give lists; what is normalised at the end are all tokens, of which the class is read from the first."""

    def __init__(self):
        super().__init__()
        self.stem, self.halves, self.norm = torch.nn.Conv2d(1, 4, 3, stride=3), Halves(), torch.nn.LayerNorm(4)
        self.fc = torch.nn.Linear(4, 6)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        patches = torch.cat(self.halves(self.stem(images)), dim=1).flatten(2).transpose(1, 2)
        return self.fc(self.norm(torch.cat([patches.mean(dim=1, keepdim=True), patches], dim=1))[:, 0])


def test_tokens_that_do_not_reach_the_class_do_not_hide_a_list_before_them():
    with pytest.raises(SeverityError, match="no maps .* 'halves' gives no single tensor"):
        explanation.choose(backbone(Lists()), 12, cam="auto", layers="auto")


# --- Transformers

TOKENS = {"img_size": 32, "patch_size": 8, "in_chans": 1, "num_classes": 6, "embed_dim": 16, "depth": 3, "num_heads": 2}
WINDOWS = {"window_size": 4, "in_chans": 1, "num_classes": 6, "embed_dim": 12, "depths": (1, 1), "num_heads": (1, 2)}
# A small network of each kind, with its last layer whose patches reach the class, how many tokens stand before the patches
# there, and the dimension of the channels. Images have 32 pixels.
KINDS = {
    "class token": (lambda: timm.models.VisionTransformer(**TOKENS), "blocks.1", 1, 2),
    "registers": (lambda: timm.models.VisionTransformer(**TOKENS, reg_tokens=4), "blocks.1", 5, 2),
    "mean of patches": (
        lambda: timm.models.VisionTransformer(**TOKENS, class_token=False, reg_tokens=2, global_pool="avg"),
        "norm",
        2,
        2,
    ),
    "distillation": (lambda: timm.models.deit.VisionTransformerDistilled(**TOKENS), "blocks.1", 2, 2),
    "eva": (lambda: timm.models.Eva(**TOKENS, use_rot_pos_emb=True, global_pool="token"), "blocks.1", 1, 2),
    "class attention": (lambda: timm.models.Cait(**TOKENS), "blocks.2", 0, 2),
    "cross-covariance": (lambda: timm.models.Xcit(**TOKENS, cls_attn_layers=2), "cls_attn_blocks.0", 1, 2),
    "mixer": (
        lambda: timm.models.MlpMixer(img_size=32, patch_size=8, in_chans=1, num_classes=6, embed_dim=16, num_blocks=2),
        "norm",
        0,
        2,
    ),
    "torchvision": (
        lambda: torchvision.models.VisionTransformer(
            image_size=32, patch_size=8, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=6
        ),
        "encoder.layers.encoder_layer_1",
        1,
        2,
    ),
    "swin": (lambda: timm.models.SwinTransformer(**WINDOWS, img_size=32, patch_size=4), "norm", 0, 3),
    "torchvision's swin": (
        lambda: torchvision.models.SwinTransformer([4, 4], 12, [1, 1], [1, 2], [4, 4], num_classes=6),
        "permute",
        0,
        1,
    ),
}


@functools.cache
def made(kind: str) -> backbones.Backbone:
    """Every weight and bias is drawn, as many start at a value that hides what they do: zero heads, tiny scales."""
    torch.manual_seed(0)
    network = backbone(KINDS[kind][0](), 3 if kind.startswith("torchvision") else 1)
    with torch.no_grad():
        for weights in network.parameters():
            weights.normal_(0, 0.3)
    return network


def places(given: torch.Tensor, prefix: int, channels: int) -> torch.Tensor:
    """What a layer gives for one image -> (C, h, w), place by place."""
    if channels == 1:
        return given[0]
    if channels == 3:
        return torch.stack([torch.stack(list(row), dim=1) for row in given[0]], dim=1)
    patches = given[0, prefix:]
    side = math.isqrt(len(patches))
    rows = [patches[start : start + side] for start in range(0, len(patches), side)]
    return torch.stack([row.T for row in rows], dim=1)


def weighed(network, link, pixels, layer: str, label: int, prefix: int, channels: int) -> numpy.ndarray:
    """Grad-CAM of one class as its paper writes it, of the places alone."""
    kept = {}
    hook = network.network.get_submodule(layer).register_forward_hook(lambda module, inputs, out: kept.update(out=out))
    score = link.posterior(network(pixels).double())[0, label].log()
    hook.remove()
    (gradient,) = torch.autograd.grad(score, kept["out"])
    maps, gradient = places(kept["out"].detach(), prefix, channels), places(gradient, prefix, channels)
    return sum(slope.mean() * each for slope, each in zip(gradient, maps, strict=True)).numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_of_any_network_the_places_alone_are_weighed(kind):
    _, layer, prefix, channels = KINDS[kind]
    network, link = made(kind), loss()
    cam, layers = explanation.choose(network, 32, cam="auto", layers="auto")
    assert (cam, layers[-1]) == (layer, layer)
    found, _ = explanation.grad_cam(network, link, image(side=32), cam, [4, 0])
    for label, each in zip([4, 0], found, strict=True):
        wanted = weighed(network, link, image(side=32), cam, label, prefix, channels)
        assert each == pytest.approx(wanted, rel=1e-3, abs=1e-4 * numpy.abs(wanted).max())
        assert len(each) == 4 and (each != 0).all()


@pytest.mark.parametrize(
    "layer", ["blocks.5.norm1", "blocks.5.attn.qkv", "blocks.0", "patch_embed", "patch_embed.proj"]
)
def test_any_layer_of_a_transformer_may_be_named(layer):
    torch.manual_seed(0)
    network = backbones.build(model="test_vit", pretrained=False, outputs=6).eval()
    assert explanation.choose(network, 96, cam=layer, layers=[layer]) == (layer, [layer])
    prefix, channels = {"patch_embed": (0, 3), "patch_embed.proj": (0, 1)}.get(layer, (1, 2))
    found, _ = explanation.grad_cam(network, loss(), image(side=96), layer, [3])
    wanted = weighed(network, loss(), image(side=96), layer, 3, prefix, channels)
    assert wanted.shape == (6, 6)
    assert found[0] == pytest.approx(wanted, rel=1e-3, abs=1e-4 * numpy.abs(wanted).max())


@pytest.mark.parametrize("kind", ["class token", "registers", "eva", "mean of patches", "mixer", "swin"])
def test_patches_lie_where_their_library_puts_them(kind):
    network = made(kind)
    pixels = image(side=32)
    wanted = network.network.forward_intermediates(pixels, output_fmt="NCHW", intermediates_only=True)
    names = [f"{'layers' if kind == 'swin' else 'blocks'}.{number}" for number in range(len(wanted))]
    found = explanation.feature_maps(network, pixels, names, 99)
    for maps, (each,) in zip(found, wanted, strict=True):
        assert maps.of == len(each) and (maps.values == each.detach().numpy()[maps.channels]).all()


@pytest.mark.parametrize("kind", ["class token", "distillation", "cross-covariance", "torchvision", "mean of patches"])
def test_a_layer_may_be_weighed_if_its_patches_change_the_logits(kind):
    """Without any gradient: patches are pushed, and the logits move or do not."""
    network, prefix = made(kind), {"distillation": 2, "mean of patches": 2}.get(kind, 1)
    pixels, tokens, moved = image(side=32), 16 + prefix, {}
    before = network(pixels)
    for name, module in network.network.named_modules():
        shapes = []

        def push(module, inputs, given, shapes=shapes):
            if isinstance(given, torch.Tensor) and given.ndim == 3 and given.shape[1] == tokens:
                shapes.append(given.shape)
                return torch.cat([given[:, :prefix], given[:, prefix:].flip(2) + 1], dim=1)
            return None

        hook = module.register_forward_hook(push)
        after = network(pixels)
        hook.remove()
        if shapes:
            moved[name] = not torch.equal(after, before)
    assert set(moved.values()) == ({True} if kind == "mean of patches" else {True, False})
    last = explanation.choose(network, 32, cam="auto", layers="auto")[0]
    for name, able in moved.items():
        if able:
            assert explanation.choose(network, 32, cam=name, layers="auto")[0] == name
        else:
            with pytest.raises(SeverityError, match=f"explain.cam: .*{name!r} uses its patches.* is {last!r}"):
                explanation.choose(network, 32, cam=name, layers="auto")
    # Its maps can be looked at all the same.
    assert explanation.choose(network, 32, cam="auto", layers=list(moved))[1] == list(moved)


class Patches(torch.nn.Module):
    """`Bright` of patches of 4 x 4 pixels, behind tokens that say nothing."""

    def __init__(self, prefix: int, said: bool, value: float):
        super().__init__()
        self.bright = Bright(6)
        self.act = torch.nn.ReLU(inplace=True)
        self.before = torch.full((1, prefix, 2), value)
        if said:
            self.num_prefix_tokens = prefix
        self.embed = torch.nn.AvgPool2d(4)
        self.mix = torch.nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        patches = self.bright.see(self.embed(images)).flatten(2).transpose(1, 2)
        tokens = self.act(self.mix(torch.cat([self.before.expand(len(images), -1, -1), patches], dim=1)))
        return self.bright.fc(tokens[:, self.before.shape[1] :].mean(dim=1))


@pytest.mark.parametrize(("prefix", "said"), [(0, False), (1, False), (2, False), (0, True), (2, True), (5, True)])
@pytest.mark.parametrize(("row", "column"), [(0, 0), (1, 4), (5, 2)])
def test_the_patch_that_decides_gets_the_heat(prefix, said, row, column):
    pixels = torch.full((1, 1, 24, 24), 0.2)
    pixels[0, 0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 0.9
    network = backbone(Patches(prefix, said, 100.0))
    assert explanation.choose(network, 24, cam="auto", layers="auto") == ("act", ["act"])
    found, _ = explanation.grad_cam(network, loss(), pixels, "act", [0, 1])
    heat = found.clip(0)
    assert numpy.argwhere(heat[0] > 0).tolist() == [[row, column]] and heat[1].max() == 0
    (maps,) = explanation.feature_maps(network, pixels, ["act"], 1)
    assert numpy.argwhere(maps.values[0] == maps.values[0].min()).tolist() == [[row, column]]  # the one map of darkness
    # What stands before the patches does not count.
    other, _ = explanation.grad_cam(backbone(Patches(prefix, said, -7.0)), loss(), pixels, "act", [0, 1])
    assert (other == found).all()
    # Maps of what is changed in place are those from before.
    (maps,) = explanation.feature_maps(network, pixels, ["mix"], 1)
    assert maps.values.min() < 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_is_left_as_it_was(kind):
    network, layer, pixels = made(kind), KINDS[kind][1], image(side=32)

    def state():
        modules = dict(network.named_modules())
        hooks = [len(each._forward_hooks) + len(each._forward_pre_hooks) for each in modules.values()]
        gradients = [each.grad for each in network.parameters()]
        return [*modules], [*map(id, modules.values())], hooks, gradients, network(pixels).detach().numpy().tobytes()

    before = state()
    explanation.choose(network, 32, cam="auto", layers="auto")
    explanation.grad_cam(network, loss(), pixels, layer, [1, 2])
    explanation.feature_maps(network, pixels, [layer, layer], 2)
    assert state() == before
    with pytest.raises(RuntimeError, match="out of bounds"):
        explanation.grad_cam(network, loss(), pixels, layer, [99])
    for stop in (
        lambda: explanation.choose(network, 32, cam="auto", layers="auto"),
        lambda: explanation.grad_cam(network, loss(), pixels, layer, [1]),
        lambda: explanation.feature_maps(network, pixels, [layer], 2),
    ):
        hook = network.network.register_forward_hook(lambda module, inputs, given: given["no such"])
        with pytest.raises((IndexError, TypeError)):
            stop()
        hook.remove()
    assert state() == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_form_gives_back_what_it_took(kind):
    network, seen = made(kind), []

    def turn(module, inputs, given):
        found = explanation.form(given.shape, network.network) if isinstance(given, torch.Tensor) else None
        if found:
            maps = found.maps(given)
            assert maps.shape[2:] == (found.side, found.side) and torch.equal(found.back(maps, given), given)
            seen.append(found.channels)
            # The maps go back, the prefix stays.
            moved = found.maps(found.back(maps + 1, given))
            assert torch.equal(moved, maps + 1)

    hooks = [module.register_forward_hook(turn) for module in network.network.modules()]
    network(image(side=32))
    for hook in hooks:
        hook.remove()
    assert KINDS[kind][3] in seen


def test_patches_reach_the_class_by_whatever_logit_and_wherever_they_are_bright():
    """A dark place has no gradient, the first logit none, and the others cancel in their sum."""
    network = backbone(Patches(1, said=True, value=1.0))
    network.network.act = torch.nn.ReLU()
    with torch.no_grad():
        network.network.bright.fc.weight[:3, 0] = torch.tensor([0.0, 1.0, -1.0])
    assert explanation.choose(network, 24, cam="mix", layers="auto") == ("mix", ["act"])


class ChannelsLast(torch.nn.Module):
    """Keeps its maps as (B, H, W, C), as Swin does."""

    def __init__(self, channels: int):
        super().__init__()
        self.embed, self.mix = torch.nn.Conv2d(1, channels, 4, stride=4), torch.nn.Linear(channels, channels)
        self.merge, self.fc = torch.nn.Linear(4 * channels, 2 * channels), torch.nn.Linear(2 * channels, 6)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.mix(self.embed(images).permute(0, 2, 3, 1))
        quarters = [maps[:, top::2, left::2] for top in (0, 1) for left in (0, 1)]
        return self.fc(self.merge(torch.cat(quarters, dim=3)).mean(dim=(1, 2)))


def test_a_cube_among_maps_whose_channels_are_last_is_not_guessed():
    network = backbone(ChannelsLast(8))
    assert explanation.stages(network, 48) == {"mix": 12, "merge": 6}
    # As many channels as places a side: which is which?
    assert explanation.stages(network, 32) == {"merge": 4}
    with pytest.raises(SeverityError, match=r"explain.cam: the layer 'mix' gives the shape \(1, 8, 8, 8\)"):
        explanation.choose(network, 32, cam="mix", layers="auto")


def test_windows_of_an_image_are_no_image():
    """Swin's attention sees four windows of 4 x 4 places as four images; where one holds all places, it is the image."""
    with pytest.raises(SeverityError, match=r"'layers.0.blocks.0.attn' gives the shape \(4, 16, 12\)"):
        explanation.choose(made("swin"), 32, cam="layers.0.blocks.0.attn", layers="auto")
    cam = "layers.1.blocks.0.attn"
    assert explanation.choose(made("swin"), 32, cam=cam, layers="auto")[0] == cam


def test_tokens_that_stand_in_another_order_than_the_patches_are_refused():
    """Those of Hiera do: a pixel changes a token that lies elsewhere."""
    network = backbones.build(model="hiera_tiny_224", pretrained=False, outputs=6)
    with pytest.raises(SeverityError, match="Hiera makes no maps .*in their order.*explain.configuration"):
        explanation.choose(network, 224, cam="auto", layers="auto")


@pytest.mark.parametrize(("said", "count"), [(None, 3 + 16), (1, 2 + 16), (4, 16 + 1), (None, 2), (1, 2), (9, 4 + 1)])
def test_tokens_of_no_square_have_no_form(said, count):
    network = torch.nn.Identity()
    if said is not None:
        network.num_prefix_tokens = said
    assert explanation.form((1, count, 8), network) is None


def test_a_classifier_of_every_patch_is_no_layer_of_features():
    network = backbone(torch.nn.Sequential(torch.nn.Conv2d(1, 5, 3), torch.nn.Conv2d(5, 6, 1), torch.nn.Flatten()))
    assert list(explanation.stages(network, 12)) == ["1"]
    network.network.pretrained_cfg = {"classifier": "1"}
    assert list(explanation.stages(network, 12)) == ["0"]
    network.network.pretrained_cfg = {"classifier": ("1", "2")}
    assert list(explanation.stages(network, 12)) == ["0"]


# --- Feature maps


def test_the_strongest_maps_come_first():
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 1, bias=False), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )
    with torch.no_grad():
        network[0].weight[:, 0, 0, 0] = torch.tensor([1.0, -3.0, 1.0, 2.0])
    (maps,) = explanation.feature_maps(backbone(network), torch.ones(1, 1, 3, 3), ["0"], 9)
    assert (maps.layer, maps.of) == ("0", 4)
    assert maps.channels.tolist() == [1, 3, 0, 2]  # -3 is the strongest; of the equal ones the first.
    assert maps.strength.tolist() == [3, 2, 1, 1]
    assert maps.values[:, 0, 0].tolist() == [-3, 2, 1, 1]
    (maps,) = explanation.feature_maps(backbone(network), torch.ones(1, 1, 3, 3), ["0"], 2)
    assert maps.channels.tolist() == [1, 3] and maps.values.shape == (2, 3, 3)


# --- A case


def test_an_explanation_holds_what_its_parts_give():
    tree = flat(6)
    case = Case("most_1", "x", 0, decision=2, truth=(4, 2), severity=0.0)
    pixels = (image()[0, 0] * 255).byte().numpy()
    boxes = pandas.DataFrame(
        [("x", "class 4", 0.0, 0.0, 0.5, 0.5), ("x", "class 1", 0.5, 0.0, 1.0, 1.0), ("x", "class 4", 0.25, 0, 1, 0.5)],
        columns=["id", "label", "left", "top", "right", "bottom"],
    )
    network, link = backbone(Small(6)), loss(tree=tree)
    found = explanation.explain(
        case, network, link, image=pixels, boxes=boxes, hierarchy=tree, cam="act", layers=["act"], maps=2
    )
    weighed, scores = explanation.grad_cam(network, link, torch.from_numpy(pixels)[None, None] / 255, "act", [2, 4])
    assert (found.weighed == weighed).all() and (found.heatmaps == explanation.upsampled(weighed, 12)).all()
    assert found.cams["label"].tolist() == ["class 2", "class 4"]
    assert found.cams["role"].tolist() == ["decision and truth", "truth"]
    assert found.cams["log_posterior"].tolist() == scores.tolist()
    assert found.cams["largest"].tolist() == found.heatmaps.max(axis=(1, 2)).tolist()
    assert (found.cams[["case", "id", "layer", "places"]] == ["most_1", "x", "act", 6]).all(axis=None)
    pairs = [(label, box) for label in ("class 2", "class 4") for box in ("class 4", "class 1")]
    assert list(zip(found.inside["label"], found.inside["box"], strict=True)) == pairs
    assert found.inside["box_area"].tolist() == [0.5] * 4
    wanted = explanation.inside_boxes(found.heatmaps[1], numpy.array([[0, 0, 1, 0.5]]))
    assert found.inside.iloc[2][["energy", "hit"]].tolist() == [wanted["energy"], wanted["hit"]]
    assert [each.layer for each in found.maps] == ["act"]
    none = explanation.explain(
        case, network, link, image=pixels, boxes=boxes[:0], hierarchy=tree, cam="act", layers=["act"], maps=0
    )
    assert none.inside.empty and list(none.inside.columns) == list(found.inside.columns)


def test_a_transformer_is_explained_as_any_network():
    torch.manual_seed(0)
    network, tree = backbones.build(model="test_vit", pretrained=False, outputs=6), flat(6)
    case = Case("most_1", "x", 0, decision=2, truth=(4,), severity=1.0)
    cam, layers = explanation.choose(network, 64, cam="auto", layers="auto")
    assert (cam, layers) == ("blocks.4", ["blocks.4"])
    pixels = (image(side=64)[0, 0] * 255).byte().numpy()
    boxes = pandas.DataFrame(
        [("x", "class 4", 0.0, 0.0, 0.5, 0.5)], columns=["id", "label", "left", "top", "right", "bottom"]
    )
    found = explanation.explain(
        case, network, loss(tree=tree), image=pixels, boxes=boxes, hierarchy=tree, cam=cam, layers=layers, maps=3
    )
    assert found.weighed.shape == (2, 4, 4) and found.heatmaps.shape == (2, 64, 64)
    assert found.cams["layer"].tolist() == ["blocks.4"] * 2 and found.cams["places"].tolist() == [4, 4]
    assert found.maps[0].values.shape == (3, 4, 4) and found.maps[0].of == 64
    assert len(found.inside) == 2 and (found.heatmaps.max(axis=(1, 2)) > 0).all()
