"""Checkpoints as other programs write them, our own, and files that are none: taken, or refused with the tensor's name."""

import io
import os
import pickle
import re
import zipfile

import numpy
import pytest
import safetensors.torch
import timm
import torch
import torchvision

from severity.core.errors import SeverityError
from severity.networks import backbones, checkpoints
from tests.checks import every
from tests.test_models import trained

TIMM, OTHER = "test_resnet", "shufflenet_v2_x0_5"  # timm's, and one that only torchvision has


def weights(model=TIMM, classes=14):
    """The tensors of a model with a head of its own, none of them as at the start."""
    torch.manual_seed(1)
    made = (
        timm.create_model(model, num_classes=classes)
        if timm.is_model(model)
        else torchvision.models.get_model(model, weights=None, num_classes=classes)
    )
    return {
        name: torch.rand_like(value) + 0.1 if value.is_floating_point() else value
        for name, value in made.state_dict().items()
    }


def prefixed(tensors, prefix):
    return {f"{prefix}{name}": value for name, value in tensors.items()}


def build(path, model=TIMM):
    torch.manual_seed(2)
    return backbones.build(model=model, pretrained=str(path), outputs=3)


def saved(path, content):
    torch.save(content, path)
    return path


def taken(network, tensors):
    """Whether a network has these tensors, but for its classifier and a stem summed over colours."""
    own = network.network.state_dict()
    same = {name: own[name] for name in tensors if own.get(name) is not None and own[name].shape == tensors[name].shape}
    assert len(same) >= len(tensors) - 3
    return every(torch.equal(value, tensors[name]) for name, value in same.items())


WAYS = {
    "plain": lambda tensors: tensors,
    "state_dict": lambda tensors: {"state_dict": tensors, "epoch": 3},
    "model": lambda tensors: {"model": tensors, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}},
    "model_state_dict": lambda tensors: {"model_state_dict": tensors, "loss": 0.5},
    "an entry of any name": lambda tensors: {"net": tensors},
    "an entry of an entry": lambda tensors: {"checkpoint": {"weights": tensors}},
    "DataParallel": lambda tensors: prefixed(tensors, "module."),
    "Lightning": lambda tensors: {"state_dict": prefixed(tensors, "model."), "callbacks": {}},
    "backbone": lambda tensors: {"state_dict": prefixed(tensors, "backbone.")},
    "both": lambda tensors: {"model": prefixed(tensors, "module.encoder.")},
    "beside a head of its own": lambda tensors: prefixed(tensors, "encoder.") | {"head.weight": torch.zeros(3, 3)},
    "torch.compile": lambda tensors: prefixed(tensors, "_orig_mod."),
    "average before the last": lambda tensors: {"model": {n: v * 0 + 7 for n, v in tensors.items()}, "model_ema": tensors},
}  # fmt: skip


@pytest.mark.parametrize("model", [TIMM, OTHER])
@pytest.mark.parametrize("way", WAYS)
def test_what_other_programs_save_is_taken(tmp_path, model, way):
    tensors = weights(model)
    assert taken(build(saved(tmp_path / "a.pth", WAYS[way](tensors)), model), tensors)


@pytest.mark.parametrize("model", [TIMM, OTHER])
@pytest.mark.parametrize("classes", [2, 14, 1000])
def test_a_head_of_another_size_is_left_aside(tmp_path, model, classes):
    tensors = weights(model, classes)
    network = build(saved(tmp_path / "a.pth", tensors), model)
    assert taken(network, tensors)
    [classifier] = network.classifiers()
    assert classifier.out_features == 3


def test_as_many_outputs_as_the_library_s_own_head_has(tmp_path):
    tensors = weights(TIMM, 14)
    network = backbones.build(model=TIMM, pretrained=str(saved(tmp_path / "a.pth", tensors)), outputs=1000)
    assert taken(network, tensors) and network.classifiers()[0].out_features == 1000


@pytest.mark.parametrize("backbone", ["tiny_resnet", "shufflenet_v2_x1_0"])
def test_our_own_weights_go_from_one_collection_to_another(tmp_path, backbone):
    network, _ = trained(tmp_path / "model", "haf", backbone)
    own = network.network.state_dict()
    model = {"tiny_resnet": TIMM}.get(backbone, backbone)
    assert taken(build(tmp_path / "model/weights.safetensors", model), own)


def test_densenets_of_before_2018(tmp_path):
    """CheXNet's public form: prefixes, norm.1 for norm1, no count of batches, a classifier inside a sequence."""
    tensors = {name: value for name, value in weights("densenet121").items() if "num_batches" not in name}
    old = {
        re.sub(r"(denselayer\d+)\.(norm|conv)([12])\.", r"\1.\2.\3.", f"module.densenet121.{name}"): value
        for name, value in tensors.items()
    }
    old = {name.replace("classifier.", "classifier.0."): value for name, value in old.items()}
    assert any(".norm.1." in name for name in old) and any("classifier.0" in name for name in old)
    assert taken(build(saved(tmp_path / "a.pth.tar", {"state_dict": old}), "densenet121"), tensors)


def refused(path, *said, model=TIMM):
    with pytest.raises(SeverityError) as caught:
        build(path, model)
    assert str(path) in str(caught.value) and every(each in str(caught.value) for each in said), str(caught.value)


@pytest.mark.parametrize(
    ("model", "name"), [(TIMM, "layer1.0.conv1.weight"), (TIMM, "bn1.weight"), (OTHER, "conv1.0.weight")]
)
def test_what_is_missing_or_of_another_shape_is_named(tmp_path, model, name):
    tensors = weights(model)
    lacking = {each: value for each, value in tensors.items() if each != name}
    if name not in tensors:
        pytest.fail(f"{model} has no tensor {name}")
    refused(saved(tmp_path / "a.pth", lacking), "missing", name, model=model)
    refused(saved(tmp_path / "b.pth", {"state_dict": prefixed(lacking, "model.")}), name, "'model.'", model=model)
    refused(
        saved(tmp_path / "c.pth", tensors | {name: torch.zeros(5, 5)}),
        name,
        "(5, 5)" if model == OTHER else "5, 5",
        model=model,
    )
    holed = tensors | {name: tensors[name] * float("nan")}
    refused(saved(tmp_path / "d.pth", holed), name, "not finite", model=model)


def test_weights_of_a_larger_model_of_the_family_are_not_half_taken(tmp_path):
    tensors = weights("resnet34")
    refused(saved(tmp_path / "a.pth", tensors), "layer1.2.conv1.weight", "larger model", model="resnet18")


def test_two_sets_of_tensors_are_one_too_many(tmp_path):
    tensors = weights()
    both = prefixed(tensors, "student.") | prefixed(tensors, "teacher.")
    refused(saved(tmp_path / "a.pth", both), "'student.'", "'teacher.'", "more than once")
    refused(saved(tmp_path / "b.pth", {"first": tensors, "second": tensors}), "'first'", "'second'")


# MNASNet


def test_a_network_whose_modules_have_versions_comes_back(tmp_path):
    torch.manual_seed(0)
    network = backbones.build(model="mnasnet0_5", pretrained=False, outputs=4)
    safetensors.torch.save_file(network.state_dict(), tmp_path / "weights.safetensors")
    again = backbones.load(tmp_path / "weights.safetensors", model="mnasnet0_5", outputs=4)
    assert every(torch.equal(again.state_dict()[name], value) for name, value in network.state_dict().items())
    assert taken(build(tmp_path / "weights.safetensors", "mnasnet0_5"), network.network.state_dict())


# What is no checkpoint


class Trap:
    def __reduce__(self):
        return (os.mkdir, ("code ran",))


def archive(content=b"", compressed=False):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as file:
        file.writestr("archive/data.pkl", content)
    return buffer.getvalue()


def torch_bytes(content, **options):
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


FILES = {
    "nothing.pth": lambda: b"",
    "zeros.pth": lambda: bytes(4000),
    "text.pth": lambda: b"conv1.weight: 3\n" * 50,
    "page.safetensors": lambda: b"<html>Sign in</html>",
    "list.pth": lambda: torch_bytes([torch.zeros(3), torch.zeros(4)]),
    "tensor.pth": lambda: torch_bytes(torch.zeros(3)),
    "none.pth": lambda: torch_bytes(None),
    "number.pth": lambda: torch_bytes(3),
    "words.pth": lambda: torch_bytes("conv1.weight"),
    "empty mapping.pth": lambda: torch_bytes({}),
    "numbers for names.pth": lambda: torch_bytes({0: torch.zeros(3)}),
    "no tensors.pth": lambda: torch_bytes({"state_dict": {"conv1.weight": [1.0, 2.0]}}),
    "whole model.pth": lambda: torch_bytes(torch.nn.Linear(2, 2)),
    "whole model, old.pth": lambda: torch_bytes(torch.nn.Linear(2, 2), _use_new_zipfile_serialization=False),
    "trap.pth": lambda: torch_bytes({"state_dict": Trap()}),
    "trap, old.pth": lambda: torch_bytes({"state_dict": Trap()}, _use_new_zipfile_serialization=False),
    "trap.pkl": lambda: pickle.dumps(Trap()),
    "array.npy": lambda: (lambda file: (numpy.save(file, numpy.zeros(3)), file.getvalue())[1])(io.BytesIO()),
    "half.pth": lambda: torch_bytes(weights())[:20_000],
    "half, old.pth": lambda: torch_bytes(weights(), _use_new_zipfile_serialization=False)[:20_000],
    "half.safetensors": lambda: safetensors.torch.save(weights())[:20_000],
    "head of terabytes.safetensors": lambda: (1 << 42).to_bytes(8, "little") + b'{"a":{}}',
    "tensor of terabytes.safetensors": lambda: (lambda head: len(head).to_bytes(8, "little") + head)(
        b'{"conv1.weight":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
    ),
    "another zip.pth": lambda: archive(b"no pickle"),
    "packed.pth": lambda: archive(bytes(300_000_000), compressed=True),
}


@pytest.mark.parametrize("name", FILES)
def test_what_is_no_checkpoint_is_refused_and_runs_nothing(tmp_path, monkeypatch, name):
    path = tmp_path / name
    path.write_bytes(FILES[name]())
    monkeypatch.chdir(tmp_path)
    refused(path, "checkpoint", "'pretrained'" if "holds no tensors" in str(path) else "tensors")
    assert sorted(each.name for each in tmp_path.iterdir()) == [name]


def test_what_is_no_file(tmp_path):
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", "missing")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "fifo")
        refused(tmp_path / "fifo", "missing")


def test_an_error_without_words_has_its_name_for_a_reason():
    assert checkpoints.reason(EOFError()) == "EOFError"


def test_tensors_that_cannot_be_weights_are_refused(tmp_path):
    tensors = weights()
    name = "layer1.0.conv1.weight"
    for kind in (torch.int8, torch.bool, torch.complex64):
        refused(saved(tmp_path / "a.pth", tensors | {name: torch.ones_like(tensors[name]).to(kind)}), name, str(kind))
    variance = next(each for each in tensors if each.endswith("running_var"))
    refused(saved(tmp_path / "b.pth", tensors | {variance: -tensors[variance].abs() - 1}), variance, "negative")
    refused(saved(tmp_path / "c.pth", {each: torch.zeros_like(value) for each, value in tensors.items()}), "zero")
