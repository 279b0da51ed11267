"""Grad-CAM against its own definition and against the older CAM, on networks small enough to be made by hand."""

import numpy
import pandas
import pytest
import torch
import yaml
from hypothesis import given, strategies

from severity import backbones, costs, explanation, losses
from severity.cases import Case
from severity.errors import SeverityError
from tests.trees import TOP, flat, six_classes

TREE = six_classes()
SECTION = yaml.safe_load((TOP / "params.yaml").read_text())["backbones"]


def loss(name: str = "ce", tree=TREE) -> losses.Link:
    torch.manual_seed(1)  # of the weights that some losses own
    return losses.build(name, hierarchy=tree, cost=costs.lca_height(tree)).eval()


def backbone(network: torch.nn.Module) -> backbones.Backbone:
    return backbones.Backbone(network, (0.0,), (1.0,)).eval()


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
    heat = explanation.heat(found, 32)
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
    found = explanation.heat(maps, 4)[0]
    # Bilinear, the centres of the pixels of one grid in those of the other: corners keep their value.
    assert found[[0, 0, -1, -1], [0, -1, 0, -1]].tolist() == [0, 2, 0, 6]
    assert found[1, 1] == 0.75 * (0.25 * 2) + 0.25 * (0.25 * 6)
    assert explanation.heat(maps, 2)[0].tolist() == [[0, 2], [0, 6]]


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
        ({"layers": []}, "explain.layers is"),
        ({"layers": "act"}, "explain.layers is 'act'"),
    ],
)
def test_layers_that_give_no_maps_are_refused(changes, told):
    with pytest.raises(SeverityError, match=told):
        explanation.choose(backbone(Small(6)), 12, **{"cam": "auto", "layers": "auto", **changes})


class ChannelsLast(torch.nn.Module):
    """Keeps its maps as (B, H, W, C), as Swin does."""

    def __init__(self):
        super().__init__()
        self.embed, self.mix, self.fc = torch.nn.Conv2d(1, 5, 4, stride=4), torch.nn.Linear(5, 5), torch.nn.Linear(5, 6)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.mix(self.embed(images).permute(0, 2, 3, 1)).mean(dim=(1, 2)))


@pytest.mark.parametrize("network", ["test_vit", "channels last"])
def test_a_transformer_is_refused_with_a_way_out(network):
    side = 160
    built = (
        backbone(ChannelsLast())
        if network == "channels last"
        else backbones.build(model=network, pretrained=False, outputs=6)
    )
    with pytest.raises(SeverityError, match="no maps .*explain.cell"):
        explanation.choose(built, side, cam="auto", layers="auto")
    with pytest.raises(SeverityError, match="no maps .*explain.cell"):
        explanation.choose(
            built, side, cam="auto", layers=["embed" if network == "channels last" else "patch_embed.proj"]
        )


def test_a_network_without_any_maps_is_refused():
    network = backbone(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(144, 6)))
    with pytest.raises(SeverityError, match="no layer gives any"):
        explanation.stages(network, 12)


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
    assert (found.weighed == weighed).all() and (found.heat == explanation.heat(weighed, 12)).all()
    assert found.cams["label"].tolist() == ["class 2", "class 4"]
    assert found.cams["role"].tolist() == ["decision and truth", "truth"]
    assert found.cams["log_posterior"].tolist() == scores.tolist()
    assert found.cams["largest"].tolist() == found.heat.max(axis=(1, 2)).tolist()
    assert (found.cams[["case", "id", "layer", "places"]] == ["most_1", "x", "act", 6]).all(axis=None)
    pairs = [(label, box) for label in ("class 2", "class 4") for box in ("class 4", "class 1")]
    assert list(zip(found.inside["label"], found.inside["box"], strict=True)) == pairs
    assert found.inside["box_area"].tolist() == [0.5] * 4
    wanted = explanation.inside_boxes(found.heat[1], numpy.array([[0, 0, 1, 0.5]]))
    assert found.inside.iloc[2][["energy", "hit"]].tolist() == [wanted["energy"], wanted["hit"]]
    assert [each.layer for each in found.maps] == ["act"]
    none = explanation.explain(
        case, network, link, image=pixels, boxes=boxes[:0], hierarchy=tree, cam="act", layers=["act"], maps=0
    )
    assert none.inside.empty and list(none.inside.columns) == list(found.inside.columns)
