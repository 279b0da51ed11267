"""A trained network's folder is enough to use it, and says what is wrong with it."""

import json
import shutil

import numpy
import pandas
import pytest
import torch
import yaml

from severity import losses
from severity.core import runs
from severity.core.errors import SeverityError
from severity.links.links import LOSS_PREFIX
from severity.networks import backbones, models
from severity.tree import costs
from tests.trees import TOP, six_classes

TREE = six_classes()
SETTINGS = yaml.safe_load((TOP / "params.yaml").read_text())


def trained(folder, name: str, backbone: str = "tiny_resnet", **options):
    """Write a network and a loss of random weights; returns both."""
    torch.manual_seed(5)
    settings = SETTINGS | {"losses": {name: SETTINGS["losses"][name] | options}}
    loss = losses.build(name, hierarchy=TREE, cost=costs.lca_height(TREE), **settings["losses"][name])
    network = backbones.build(model=settings["backbones"][backbone]["model"], pretrained=False, outputs=loss.outputs)
    network(torch.rand(8, 1, 32, 32))  # batch statistics of its own
    models.write(
        folder, network=network, weights=network.state_dict() | loss.state_dict(prefix=LOSS_PREFIX),
        history=pandas.DataFrame({"epoch": [1]}), record=runs.record(runs.Run(backbone, name, 3), settings),
        hierarchy=TREE, cost=costs.lca_height(TREE), size=(32, 48), outputs=loss.outputs,
    )  # fmt: skip
    return network.eval(), loss


@pytest.mark.parametrize("name", losses.names())
def test_network_and_loss_come_back_from_the_folder_alone(tmp_path, monkeypatch, name):
    network, loss = trained(tmp_path / "model", name)
    monkeypatch.chdir(tmp_path)
    model = models.read("model")
    images = torch.rand(4, 1, 32, 48)
    with torch.no_grad():
        logits = network(images)
        assert torch.equal(model.network(images), logits)
        for quantity in ("posterior", "nodes", "log_posterior", "node_logits", "label_logits"):
            assert torch.equal(getattr(model.loss, quantity)(logits), getattr(loss, quantity)(logits))
    assert model.size == (32, 48) and model.loss.outputs == loss.outputs
    assert model.hierarchy.classes == TREE.classes and model.hierarchy.parents.tolist() == TREE.parents.tolist()
    assert not model.network.training and not model.loss.training


def test_the_losss_options_come_back(tmp_path):
    trained(tmp_path, "haframe", gamma=7.0, features=9)
    assert models.read(tmp_path).loss.outputs == 9


@pytest.mark.parametrize(("backbone", "channels"), [("tiny_resnet", 1), ("shufflenet_v2_x1_0", 3)])
def test_images_are_normalised_as_in_training(tmp_path, backbone, channels):
    network, _ = trained(tmp_path, "ce", backbone)
    record = json.loads((tmp_path / "record.json").read_text())
    assert len(record["input"]["mean"]) == len(record["input"]["std"]) == channels
    assert torch.equal(models.read(tmp_path).network.mean, network.mean)
    # A library that has changed its mind does not change a network that is trained.
    record["input"]["mean"] = [0.25] * channels
    (tmp_path / "record.json").write_text(json.dumps(record))
    assert models.read(tmp_path).network.mean.flatten().tolist() == [0.25] * channels


def test_the_record_says_what_it_is(tmp_path):
    _, loss = trained(tmp_path, "hxe")
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["classes"] == list(TREE.classes) and record["class_hash"] == TREE.class_hash
    assert record["input"]["height"] == 32 and record["input"]["width"] == 48 and record["input"]["divide_by"] == 255
    assert record["outputs"] == loss.outputs and record["losses"] == {"hxe": SETTINGS["losses"]["hxe"]}
    assert record["train"] == SETTINGS["train"] and record["versions"]["torch"] == torch.__version__.split("+")[0]
    assert (record["backbone"], record["loss"], record["seed"]) == ("tiny_resnet", "hxe", 3)


@pytest.mark.parametrize("file", ["record.json", "hierarchy.json", "weights.safetensors", "lca_height.npy"])
def test_a_file_that_is_missing_is_named(tmp_path, file):
    trained(tmp_path / "model", "ce")
    (tmp_path / "model" / file).unlink()
    with pytest.raises(SeverityError, match=file.replace(".", r"\.")):
        models.read(tmp_path / "model")


def test_what_does_not_fit_together_is_told(tmp_path):
    trained(tmp_path / "model", "ce")
    trained(tmp_path / "other", "haf")
    record = json.loads((tmp_path / "model/record.json").read_text())

    def change(**changes):
        (tmp_path / "model/record.json").write_text(json.dumps(record | changes))

    change(class_hash="0" * 16)
    with pytest.raises(SeverityError, match="different trees"):
        models.read(tmp_path / "model")
    change(losses={"gone": {}})
    with pytest.raises(SeverityError, match="Unknown loss 'gone'"):
        models.read(tmp_path / "model")
    change(input={})
    with pytest.raises(SeverityError, match="not a complete folder of a trained network .*height"):
        models.read(tmp_path / "model")
    change()
    shutil.copy(tmp_path / "other/weights.safetensors", tmp_path / "model/weights.safetensors")
    with pytest.raises(SeverityError, match=r"weights\.safetensors .*SHA-256"):
        models.read(tmp_path / "model")
    change(sha256={})
    with pytest.raises(SeverityError, match=r"and this loss: .*rows\.0"):
        models.read(tmp_path / "model")
    numpy.save(tmp_path / "model/lca_height.npy", numpy.array([object()]), allow_pickle=True)
    with pytest.raises(SeverityError, match="not a complete folder"):
        models.read(tmp_path / "model")


@pytest.mark.parametrize("file", ["weights.safetensors", "lca_height.npy", "hierarchy.json", "history.csv"])
def test_a_flipped_bit_is_noticed_and_the_file_named(tmp_path, file):
    """Of the weights the last byte, which no format checks."""
    trained(tmp_path, "ce")
    path = tmp_path / file
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(SeverityError, match=rf"{file.replace('.', '[.]')} .*SHA-256"):
        models.read(tmp_path)
    path.write_bytes(whole)
    models.read(tmp_path)


def test_the_same_weights_give_the_same_record(tmp_path):
    for name in ("one", "two"):
        trained(tmp_path / name, "haf")
    records = [(tmp_path / name / "record.json").read_bytes() for name in ("one", "two")]
    assert records[0] == records[1]
    assert sorted(json.loads(records[0])["sha256"]) == [
        "hierarchy.json", "history.csv", "lca_height.npy", "weights.safetensors"
    ]  # fmt: skip
