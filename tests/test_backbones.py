"""Backbones: the lab's nine build, weights from files fit, unsafe files are refused."""

import pickle

import pytest
import safetensors.torch
import timm
import torch
import torchvision
import yaml

from severity import losses
from severity.core.errors import SeverityError
from severity.networks import backbones
from severity.tree import costs
from tests.checks import every
from tests.trees import TOP, six_classes

NINE = {
    "densenet121", "resnet18", "resnet50", "resnet152", "wide_resnet50_2", "efficientnet_b4", "mobilenet_v3_small",
    "shufflenet_v2_x1_0", "googlenet",
}  # fmt: skip
SECTION = yaml.safe_load((TOP / "params.yaml").read_text())["backbones"]


def test_the_labs_nine_are_in_params():
    assert NINE <= {entry["model"] for entry in SECTION.values()}


@pytest.mark.parametrize("name", SECTION)
def test_every_backbone_of_params_builds_and_gives_raw_logits(name):
    torch.manual_seed(0)
    network = backbones.build(model=SECTION[name]["model"], pretrained=False, outputs=5)
    images = torch.rand(2, 1, 64, 64)
    for training in (True, False):
        logits = network.train(training)(images)
        assert isinstance(logits, torch.Tensor) and logits.shape == (2, 5)
        assert torch.isfinite(logits).all()
    # Raw: a head with a sigmoid or softmax could not follow its own bias out of [0, 1].
    last = [module for module in network.modules() if isinstance(module, torch.nn.Linear)][-1]
    with torch.no_grad():
        last.bias += 100
    assert (network(images) > 50).all()


def test_a_checkpoint_file_is_loaded_with_the_stem_summed_over_colours(tmp_path):
    torch.manual_seed(0)
    source = timm.create_model("test_resnet", num_classes=1000)
    safetensors.torch.save_file(source.state_dict(), tmp_path / "weights.safetensors")
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    for file in ("weights.safetensors", "weights.pt"):
        network = backbones.build(model="test_resnet", pretrained=str(tmp_path / file), outputs=3).network
        loaded = network.state_dict()
        kept = [name for name, value in source.state_dict().items() if loaded[name].shape == value.shape]
        assert len(kept) > 20
        assert every(torch.equal(loaded[name], source.state_dict()[name]) for name in kept)
        stem = next(name for name, value in source.state_dict().items() if value.dim() == 4)
        assert torch.allclose(loaded[stem], source.state_dict()[stem].sum(dim=1, keepdim=True))
        assert network.get_classifier().out_features == 3


def test_a_torchvision_checkpoint_is_loaded_and_a_grey_image_is_normalised_as_three_channels(tmp_path):
    torch.manual_seed(0)
    source = torchvision.models.get_model("shufflenet_v2_x1_0", weights=None)
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    built = backbones.build(model="shufflenet_v2_x1_0", pretrained=str(tmp_path / "weights.pt"), outputs=3).eval()
    built.network.fc = source.fc
    grey = torch.rand(2, 1, 64, 64)
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (backbones.IMAGENET_MEAN, backbones.IMAGENET_STD))
    with torch.no_grad():
        assert torch.allclose(built(grey), source.eval()((grey.expand(-1, 3, -1, -1) - mean) / std), atol=1e-5)


class Trap:
    def __reduce__(self):
        return (print, ("code ran",))


def test_a_checkpoint_that_could_run_code_is_refused(tmp_path, capsys):
    (tmp_path / "trap.pt").write_bytes(pickle.dumps({"state_dict": Trap()}))
    torch.save({"state_dict": Trap()}, tmp_path / "trap2.pt")
    for name in ("trap.pt", "trap2.pt"):
        with pytest.raises(SeverityError, match="plain tensors"):
            backbones.build(model="test_resnet", pretrained=str(tmp_path / name), outputs=3)
    assert "code ran" not in capsys.readouterr().out


def test_what_cannot_be_built_is_told(tmp_path):
    with pytest.raises(SeverityError, match="neither timm nor torchvision has a model 'resnet8'. Did you mean"):
        backbones.build(model="resnet8", pretrained=False, outputs=3)
    with pytest.raises(SeverityError, match="is missing"):
        backbones.build(model="test_resnet", pretrained=str(tmp_path / "none.pt"), outputs=3)
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "other.pt")
    with pytest.raises(SeverityError, match="tensors of this model are missing"):
        backbones.build(model="test_resnet", pretrained=str(tmp_path / "other.pt"), outputs=3)


def test_weights_of_a_run_come_back_and_others_are_refused(tmp_path):
    torch.manual_seed(0)
    network = backbones.build(model="test_resnet", pretrained=False, outputs=4)
    safetensors.torch.save_file(network.state_dict(), tmp_path / "weights.safetensors")
    again = backbones.load(tmp_path / "weights.safetensors", model="test_resnet", outputs=4)
    assert every(torch.equal(again.state_dict()[name], value) for name, value in network.state_dict().items())
    with pytest.raises(SeverityError, match="not hold the weights of 'test_resnet' with 5 outputs"):
        backbones.load(tmp_path / "weights.safetensors", model="test_resnet", outputs=5)
    with pytest.raises(SeverityError, match="are missing"):
        backbones.load(tmp_path / "none.safetensors", model="test_resnet", outputs=4)


def test_a_losss_own_weights_are_loaded_with_the_networks(tmp_path):
    torch.manual_seed(0)
    tree = six_classes()

    def loss():
        return losses.build("haf", hierarchy=tree, cost=costs.lca_height(tree))

    trained, network = loss(), backbones.build(model="test_resnet", pretrained=False, outputs=6)
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(network.state_dict() | trained.state_dict(prefix="loss."), path)
    loaded = loss()
    again = backbones.load(path, model="test_resnet", outputs=6, loss=loaded)
    assert every(torch.equal(again.state_dict()[name], value) for name, value in network.state_dict().items())
    assert every(torch.equal(loaded.state_dict()[name], value) for name, value in trained.state_dict().items())
    for other in (None, losses.build("barz_denzler", hierarchy=tree, cost=costs.lca_height(tree))):
        with pytest.raises(SeverityError, match=r"and this loss: .*rows\.0"):
            backbones.load(path, model="test_resnet", outputs=6, loss=other)


@pytest.mark.parametrize("model", ["test_vit", "vit_tiny_patch16_224", "test_resnet", "swin_t"])
def test_a_network_is_made_for_the_size_of_the_images(tmp_path, model):
    torch.manual_seed(0)
    network = backbones.build(model=model, pretrained=False, outputs=3, size=64).eval()
    assert network.training is False and backbones.build(model=model, pretrained=False, outputs=3, size=64).training
    images = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        logits = network(images)
    assert logits.shape == (2, 3)
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(network.state_dict(), path)
    again = backbones.load(path, model=model, outputs=3, size=64).eval()
    with torch.no_grad():
        assert torch.equal(again(images), logits)


def test_asking_for_a_size_moves_no_random_number():
    made = []
    for size in (None, 64):
        torch.manual_seed(0)
        made.append((backbones.build(model="test_resnet", pretrained=False, outputs=3, size=size), torch.rand(3)))
    (one, after), (other, after_other) = made
    assert torch.equal(after, after_other)
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_position_embeddings_of_a_checkpoint_are_resampled_to_the_size(tmp_path):
    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, in_chans=1)
    path = tmp_path / "pretrained.safetensors"
    safetensors.torch.save_file(model.state_dict(), path)
    network = backbones.build(model="vit_tiny_patch16_224", pretrained=str(path), outputs=3, size=96).network
    kept, own = model.state_dict(), network.state_dict()
    assert torch.equal(own["blocks.3.mlp.fc1.weight"], kept["blocks.3.mlp.fc1.weight"])
    assert torch.equal(own["pos_embed"][:, 0], kept["pos_embed"][:, 0])  # the class token has no place
    resampled = timm.layers.resample_abs_pos_embed(kept["pos_embed"], new_size=[6, 6], num_prefix_tokens=1)
    assert own["pos_embed"].shape == (1, 37, 192) and torch.allclose(own["pos_embed"], resampled, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "size", "told"),
    [
        ("vit_b_16", 64, "'vit_b_16' does not take images of 64 x 64 pixels .*224.* Set decode.size"),
        ("googlenet", 8, "'googlenet' does not take images of 8 x 8 pixels"),
        ("squeezenet1_1", 64, "'squeezenet1_1' does not end in a linear layer"),
    ],
)
def test_images_of_a_size_that_a_network_cannot_take_are_refused_before_training(model, size, told):
    with pytest.raises(SeverityError, match=told):
        backbones.build(model=model, pretrained=False, outputs=3, size=size)
