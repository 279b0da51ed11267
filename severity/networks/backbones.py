"""Backbones by name: from timm, and from torchvision where timm has none."""

from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import timm
import torch
import torchvision

from severity.core.errors import SeverityError, nearest
from severity.links.links import LOSS_PREFIX, Link
from severity.networks import checkpoints

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
        return [self.network.get_submodule(name) for name in _classifier(self.network)]


def build(*, model: str, pretrained: bool | str, outputs: int, size: int | None = None) -> Backbone:
    """Build a backbone with a fresh classifier.

    Args:
        model: a name that timm or torchvision knows (timm first).
        pretrained: False: random weights; True: the library downloads its own; else the path of a checkpoint of this
            model (``.safetensors``, such as a trained run's weights, or a ``torch.save`` of plain tensors; see
            `severity.networks.checkpoints`). Its classifier is dropped.
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
        network.load_state_dict(checkpoints.versioned(weights, network))
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
    if isinstance(pretrained, str):
        return _from_timms_file(model, pretrained, outputs, sized)
    with _explained(model, pretrained):
        network = timm.create_model(model, num_classes=outputs, in_chans=1, pretrained=pretrained, **sized)
    return _normalising(network)


def _from_timms_file(model: str, path: str, outputs: int, sized: dict[str, Any]) -> Backbone:
    before = torch.get_rng_state()
    fresh = timm.create_model(model, num_classes=outputs, in_chans=1, **sized)
    classifier = _classifier(fresh)
    start = {name: value for name, value in fresh.state_dict().items() if not checkpoints.within(name, classifier)}
    found = checkpoints.find(path, start.keys()).without(classifier)
    checkpoints.check_larger(found, start, path)
    # timm's own reading of a file would unpickle whatever it holds. No number of classes is this one, so that it does
    # not miss the classifier.
    overlay = {"state_dict": dict(found.tensors), "num_classes": -1}
    torch.set_rng_state(before)
    with _explained(model, path):
        network = timm.create_model(
            model, num_classes=outputs, in_chans=1, pretrained=True, pretrained_cfg_overlay=overlay, **sized
        )
    loaded = network.state_dict()
    # timm only logs what is missing: it still equals the start. What starts as ones or zeros may be trained to them.
    missing = [
        name
        for name, value in start.items()
        if value.is_floating_point()
        and torch.equal(loaded[name], value)
        and (name not in found.tensors or value.min() < value.max())
    ]
    if missing:
        raise checkpoints.absent(missing, found.where, path)
    _check_finite(loaded, path)
    return _normalising(network)


def _classifier(network: torch.nn.Module) -> tuple[str, ...]:
    """The names of the modules that give the logits."""
    names = network.pretrained_cfg.get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _check_finite(tensors: dict[str, torch.Tensor], path: str) -> None:
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise SeverityError(
                f"params.yaml: backbones: the tensor {name!r} of the checkpoint {path!r} holds numbers that are not "
                f"finite. {checkpoints.FALSE}"
            )


def _normalising(network: torch.nn.Module) -> Backbone:
    configuration = network.pretrained_cfg
    # timm sums a pretrained stem over its colour channels, so the one channel is normalised by the mean of the three.
    mean, std = (tuple(configuration[key]) for key in ("mean", "std"))
    return Backbone(network, (sum(mean) / len(mean),), (sum(std) / len(std),))


def _from_torchvision(model: str, pretrained: bool | str, outputs: int) -> Backbone:
    # These two warn unless they are told whether to initialise their weights; the others always do.
    arguments = {"init_weights": True} if model in ("googlenet", "inception_v3") else {}
    with _explained(model, pretrained):
        if pretrained is True:
            network = torchvision.models.get_model(model, weights="DEFAULT")
        else:
            network = torchvision.models.get_model(model, weights=None, **arguments)
    if getattr(network, "aux_logits", False):
        # The auxiliary classifiers would make the training output a tuple; their loss is not part of the comparison.
        network.aux_logits = False
        network.aux1 = network.aux2 = None
    classifier = _last_linear(network, model)
    if isinstance(pretrained, str):
        _load_file(network, pretrained, classifier)
    _replace_classifier(network, classifier, outputs)
    return Backbone(network, IMAGENET_MEAN, IMAGENET_STD)


def _load_file(network: torch.nn.Module, path: str, classifier: str) -> None:
    own = {name: value for name, value in network.state_dict().items() if not checkpoints.within(name, [classifier])}
    found = checkpoints.find(path, own.keys()).without([classifier])
    checkpoints.check(found, own, path)
    tensors = {name: found.tensors[name] for name in own if name in found.tensors}
    _check_finite(tensors, path)
    network.load_state_dict(checkpoints.versioned(tensors, network), strict=False)


def _last_linear(network: torch.nn.Module, model: str) -> str:
    """torchvision's classifiers end in a linear layer, but SqueezeNet's; its place differs from family to family."""
    linear = [name for name, module in network.named_modules() if isinstance(module, torch.nn.Linear)]
    if not linear:
        raise SeverityError(
            f"params.yaml: backbones: torchvision's {model!r} does not end in a linear layer that could be replaced. "
            "Choose another model."
        )
    return linear[-1]


def _replace_classifier(network: torch.nn.Module, name: str, outputs: int) -> None:
    parent, _, leaf = name.rpartition(".")
    features = network.get_submodule(name).in_features
    setattr(network.get_submodule(parent), leaf, torch.nn.Linear(features, outputs))
    network.pretrained_cfg = {"classifier": name}  # where timm's models say the same


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
        raise SeverityError(
            f"params.yaml: backbones: {self.model!r} could not be given the weights from {source}: "
            f"{checkpoints.reason(error)}. {checkpoints.FALSE}"
        ) from error
