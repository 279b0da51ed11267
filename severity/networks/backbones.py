"""Backbones by name: from timm, and from torchvision where timm has none."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import timm
import torch
import torchvision

from severity.core.errors import SeverityError, nearest
from severity.links.links import LOSS_PREFIX, Link

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Backbone(torch.nn.Module):
    """A network for grey images: it normalises as its weights expect and gives raw logits, no sigmoid or softmax.

    Call it with (B, 1, H, W) floats in [0, 1]; it returns (B, outputs).
    """

    def __init__(self, network: torch.nn.Module, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network((images - self.mean) / self.std)  # Three means broadcast a grey image to three channels.

    def classifiers(self) -> list[torch.nn.Module]:
        """The layers that give the logits; all others give features."""
        names = self.network.pretrained_cfg["classifier"]
        return [self.network.get_submodule(name) for name in ((names,) if isinstance(names, str) else names)]


def build(*, model: str, pretrained: bool | str, outputs: int, size: int | None = None) -> Backbone:
    """Build a backbone with a fresh classifier.

    Args:
        model: a name that timm or torchvision knows (timm first).
        pretrained: False: random weights; True: the library downloads its own; else the path of a checkpoint of this
            model (``.safetensors``, or a ``torch.save`` of plain tensors). Its classifier is dropped.
        outputs: number of logits, ``loss.outputs``.
        size: side of the images in pixels. A timm model that is made for one size is made for this one (pretrained
            position embeddings are resampled); None leaves the model's own.

    Raises:
        SeverityError: an unknown model (with the nearest known), one that does not take images of this size, a
            checkpoint that is missing, unsafe or of another model, or a download that failed.
    """
    if timm.is_model(model):
        return _taking(size, model, _from_timm(model, pretrained, outputs, size))
    if model in torchvision.models.list_models(module=torchvision.models):
        return _taking(size, model, _from_torchvision(model, pretrained, outputs))
    known = {*timm.list_models(), *torchvision.models.list_models(module=torchvision.models)}
    raise SeverityError(
        f"params.yaml: backbones: neither timm nor torchvision has a model {model!r}. "
        f"{nearest(model, known).split('Known:')[0]}See timm.list_models() for all {len(known)} names."
    )


def load(path: Path | str, *, model: str, outputs: int, size: int | None = None, loss: Link | None = None) -> Backbone:
    """The backbone `model` with the weights that training wrote (safetensors).

    Args:
        outputs, size: as in training.
        loss: gets its parameters from the file; may be left out where it has none.

    Raises:
        SeverityError: the file is missing, or holds the weights of another model or loss.
    """
    network = build(model=model, pretrained=False, outputs=outputs, size=size)
    if not Path(path).is_file():
        raise SeverityError(f"The weights {path} are missing. Run `dvc repro train`.")
    try:
        weights = safetensors.torch.load_file(path)
        own = {name: weights.pop(name) for name in list(weights) if name.startswith(LOSS_PREFIX)}
        network.load_state_dict(weights)
        (loss or torch.nn.Module()).load_state_dict({name.removeprefix(LOSS_PREFIX): own[name] for name in own})
    except (RuntimeError, safetensors.SafetensorError) as error:
        raise SeverityError(
            f"{path} does not hold the weights of {model!r} with {outputs} outputs and this loss: "
            f"{' '.join(str(error).split())} Run `dvc repro train`."
        ) from None
    return network


def _taking(size: int | None, model: str, backbone: Backbone) -> Backbone:
    """Refuse a network that cannot work on images of the size, before anything is trained."""
    if size is None:
        return backbone
    training = backbone.training
    try:
        with torch.no_grad():
            backbone.eval()(torch.zeros(1, 1, size, size))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SeverityError(
            f"params.yaml: backbones: {model!r} does not take images of {size} x {size} pixels ({reason}). Set "
            "decode.size to a size that it takes, or choose another model."
        ) from None
    return backbone.train(training)


def _from_timm(model: str, pretrained: bool | str, outputs: int, size: int | None) -> Backbone:
    sized = {}
    own = timm.get_pretrained_cfg(model)  # None of a model without any weights to download
    if size is not None and own is not None and own.fixed_input_size and own.input_size[-2:] != (size, size):
        sized = {"img_size": size}
    arguments: dict[str, Any] = {"pretrained": bool(pretrained), **sized}
    if isinstance(pretrained, str):
        # timm's own reading of a file would unpickle whatever it holds.
        arguments["pretrained_cfg_overlay"] = {"state_dict": _checkpoint(pretrained)}
    before = torch.get_rng_state()
    with _explained(model, pretrained):
        network = timm.create_model(model, num_classes=outputs, in_chans=1, **arguments)
    if isinstance(pretrained, str):
        torch.set_rng_state(before)
        _check_loaded(network, timm.create_model(model, num_classes=outputs, in_chans=1, **sized), pretrained)
    configuration = network.pretrained_cfg
    # timm sums a pretrained stem over its colour channels, so the one channel is normalised by the mean of the three.
    mean, std = (tuple(configuration[key]) for key in ("mean", "std"))
    return Backbone(network, (sum(mean) / len(mean),), (sum(std) / len(std),))


def _check_loaded(network: torch.nn.Module, fresh: torch.nn.Module, path: str) -> None:
    """Refuse a checkpoint with missing tensors, which timm only logs: they still equal the random start."""
    classifier = network.pretrained_cfg.get("classifier") or ()
    classifier = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    start = dict(fresh.named_parameters())
    untouched = [
        name
        for name, value in network.named_parameters()
        if not name.startswith(classifier) and torch.equal(value, start[name]) and value.min() < value.max()
    ]
    if untouched:
        raise SeverityError(
            f"params.yaml: backbones: {len(untouched)} tensors of this model are missing from the checkpoint {path!r}, "
            f"the first {untouched[0]!r}. Give a checkpoint of the same model, or set 'pretrained' to false."
        )


def _from_torchvision(model: str, pretrained: bool | str, outputs: int) -> Backbone:
    # These two warn unless they are told whether to initialise their weights; the others always do.
    arguments = {"init_weights": True} if model in ("googlenet", "inception_v3") else {}
    with _explained(model, pretrained):
        if pretrained is True:
            network = torchvision.models.get_model(model, weights="DEFAULT")
        else:
            network = torchvision.models.get_model(model, weights=None, **arguments)
        if isinstance(pretrained, str):
            network.load_state_dict(_checkpoint(pretrained))
    if getattr(network, "aux_logits", False):
        # The auxiliary classifiers would make the training output a tuple; their loss is not part of the comparison.
        network.aux_logits = False
        network.aux1 = network.aux2 = None
    _replace_classifier(network, model, outputs)
    return Backbone(network, IMAGENET_MEAN, IMAGENET_STD)


def _replace_classifier(network: torch.nn.Module, model: str, outputs: int) -> None:
    """torchvision's classifiers end in a linear layer, but SqueezeNet's; its place differs from family to family."""
    linear = [(name, module) for name, module in network.named_modules() if isinstance(module, torch.nn.Linear)]
    if not linear:
        raise SeverityError(
            f"params.yaml: backbones: torchvision's {model!r} does not end in a linear layer that could be replaced. "
            "Choose another model."
        )
    name, last = linear[-1]
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, torch.nn.Linear(last.in_features, outputs))
    network.pretrained_cfg = {"classifier": name}  # where timm's models say the same


def _checkpoint(path: str) -> dict[str, torch.Tensor]:
    if not Path(path).is_file():
        raise SeverityError(f"params.yaml: backbones: the checkpoint {path!r} of 'pretrained' is missing.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # What torch thinks of an odd file follows as an error, if it matters.
            return timm.models.load_state_dict(path, weights_only=True)
    except (pickle.UnpicklingError, safetensors.SafetensorError, RuntimeError, EOFError) as error:
        raise SeverityError(
            f"{path} is not a checkpoint of plain tensors ({str(error).splitlines()[0]}). Only safetensors and files "
            "that torch.load reads with weights_only=True are accepted: others could run code."
        ) from None


class _explained:  # noqa: N801 - used as a context manager, reads as a word
    """Turn whatever goes wrong while weights are located and loaded into one readable error."""

    def __init__(self, model: str, pretrained: bool | str):
        self.model, self.pretrained = model, pretrained

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not self.pretrained or not isinstance(error, Exception) or isinstance(error, SeverityError):
            return
        source = "its library's download" if self.pretrained is True else f"the file {self.pretrained!r}"
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SeverityError(
            f"params.yaml: backbones: {self.model!r} could not be given the weights from {source}: {reason}. "
            "Set 'pretrained' to the path of a checkpoint of this model, or to false."
        ) from error
