"""Why a network gave a class: Grad-CAM, how much of its heat lies inside a box, and the strongest feature maps.

Grad-CAM (Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based localization", ICCV 2017):
the maps of a layer, each weighed by the mean over its places of the gradient of a score, and summed; what is above zero is
the heat, where the layer speaks for the score. The score here is the natural logarithm of the posterior of a class, through
the loss's own link: the probability that decisions are made from, whatever the loss.

A layer is named by its path within the network, as torch does: ``layer4.1``, ``features.norm5``.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy
import pandas
import torch
from captum.attr import LayerActivation, LayerGradCam

from severity.backbones import Backbone
from severity.cases import Case
from severity.collection import BOX
from severity.errors import SeverityError, nearest
from severity.hierarchy import Hierarchy
from severity.images import batch
from severity.links import Link

AUTO = "auto"
# The default layer of Grad-CAM is the last one with so many places a side: of fewer no picture can be made.
PLACES = 4
SHARES = ("box_area", "energy", "hit")
# Where even float64 calls a probability zero, its logarithm is held here, and nothing changes it.
SMALLEST = torch.finfo(torch.float64).tiny


@dataclass(frozen=True)
class Maps:
    """The strongest maps of one layer for one image."""

    layer: str
    of: int  # how many the layer has
    channels: numpy.ndarray  # (m,) their numbers, the strongest first
    strength: numpy.ndarray  # (m,) mean over the places of the absolute value
    values: numpy.ndarray  # (m, h, w) float32


@dataclass(frozen=True)
class Explanation:
    """What is told of one case."""

    # One row a class of the case, in its order: case, id, label, role, log_posterior (the score that is explained), layer,
    # places (a side of the layer's maps), largest (of the heat).
    cams: pandas.DataFrame
    weighed: numpy.ndarray  # (L, h, w) see `grad_cam`
    heat: numpy.ndarray  # (L, S, S) see `heat`
    # One row for each of these classes and each label that has boxes: case, id, label, box, box_area, energy, hit.
    inside: pandas.DataFrame
    maps: list[Maps]


def explain(
    case: Case,
    backbone: Backbone,
    loss: Link,
    *,
    image: numpy.ndarray,
    boxes: pandas.DataFrame,
    hierarchy: Hierarchy,
    cam: str,
    layers: list[str],
    maps: int,
) -> Explanation:
    """Explain the classes of one case.

    Args:
        backbone, loss: as they were trained, on the CPU.
        image: (S, S) uint8.
        boxes: the image's, columns BOX, edges as shares of the square image.
        cam, layers: as `choose` gives them.
        maps: how many maps of each layer.
    """
    pixels = batch(image[None], numpy.array([0]), torch.device("cpu"))
    weighed, scores = grad_cam(backbone, loss, pixels, cam, case.classes)
    warm = heat(weighed, len(image))
    about = pandas.DataFrame({"case": case.name, "id": case.id, "label": [hierarchy.classes[k] for k in case.classes]})
    inside = [
        {**own, "box": label, **inside_boxes(each, group[list(BOX[2:])].to_numpy())}
        for own, each in zip(about.to_dict("records"), warm, strict=True)
        for label, group in boxes.groupby("label", sort=False)
    ]
    return Explanation(
        cams=about.assign(
            role=[case.role(label) for label in case.classes],
            log_posterior=scores,
            layer=cam,
            places=weighed.shape[-1],
            largest=warm.max(axis=(1, 2)),
        ),
        weighed=weighed,
        heat=warm,
        inside=pandas.DataFrame(inside, columns=[*about.columns, "box", *SHARES]).astype(dict.fromkeys(SHARES, float)),
        maps=feature_maps(backbone, pixels, layers, maps),
    )


# --- Layers


def stages(backbone: Backbone, side: int) -> dict[str, int]:
    """The last layer of each resolution.

    Layers are what the network, and the sequences in it, are made of: a block of a ResNet is one, what is inside it is not.

    Args:
        side: of the images, in pixels.

    Returns:
        layer -> places a side of its maps, in the order in which they run.

    Raises:
        SeverityError: the network hands its classifier no maps: it is a transformer, say.
    """
    return _stages(backbone.network, _shapes(backbone, side), side)


def _stages(network: torch.nn.Module, shapes: dict[str, tuple[int, ...]], side: int) -> dict[str, int]:
    layers = set(_layers(network))
    # What comes after the pooling has no places any more: (1, C) or (1, C, 1, 1).
    spread = [(name, shape) for name, shape in shapes.items() if name in layers and math.prod(shape[2:]) > 1]
    if not spread or not _is_map(spread[-1][1]):
        last = f"its layer {spread[-1][0]!r} gives the shape {spread[-1][1]}" if spread else "no layer gives any"
        raise SeverityError(
            f"The network {type(network).__name__} makes no maps (channels, height, width) of an image of {side} "
            f"pixels that Grad-CAM could weigh: {last}. Transformers are not explained here: choose a convolutional cell "
            "by explain.cell in params.yaml, or name layers that give maps in explain.cam and explain.layers."
        )
    found: dict[str, int] = {}
    for name, shape in spread:
        if _is_map(shape):
            found = {other: places for other, places in found.items() if places != shape[2]} | {name: shape[2]}
    return found


def choose(backbone: Backbone, side: int, *, cam: str, layers: str | list) -> tuple[str, list[str]]:
    """The layer of Grad-CAM, and the layers whose maps are shown.

    Args:
        side: of the images, in pixels.
        cam: a layer; or `auto`, the last of the `stages` with PLACES places a side, the last of all if none has.
        layers: a list of layers; or `auto`, all `stages`.

    Raises:
        SeverityError: an unknown layer, one without maps, or a network without `stages` where these are wanted.
    """
    if layers != AUTO and not (isinstance(layers, list) and layers):
        raise SeverityError(
            f"params.yaml: explain.layers is {layers!r}; it must be {AUTO} or a list of layers (no maps: explain.maps: 0)."
        )
    shapes = _shapes(backbone, side)
    for key, names in (("cam", [] if cam == AUTO else [cam]), ("layers", [] if layers == AUTO else layers)):
        for name in names:
            _check_layer(name, shapes, f"params.yaml: explain.{key}")
    known = _stages(backbone.network, shapes, side) if AUTO in (cam, layers) else {}
    if cam == AUTO:
        large = [name for name, places in known.items() if places >= PLACES]
        cam = (large or list(known))[-1]
    return cam, list(known) if layers == AUTO else layers


def _check_layer(name: str, shapes: dict[str, tuple[int, ...]], where: str) -> None:
    if name not in shapes:
        near = nearest(name, shapes).partition("Known:")[0]  # All names would be a long message.
        raise SeverityError(f"{where}: the network has no layer {name!r}. {near}".strip())
    if not _is_map(shapes[name]):
        raise SeverityError(
            f"{where}: the layer {name!r} gives the shape {shapes[name]} for one image, no maps (1, channels, places, "
            "places) of more than one place. Choose a convolutional layer before the pooling."
        )


def _shapes(backbone: Backbone, side: int) -> dict[str, tuple[int, ...]]:
    """The shape of what each module gives for one image, in the order in which they end; a module run twice counts last."""
    found: dict[str, tuple[int, ...]] = {}

    def note(name: str, given: object) -> None:
        if isinstance(given, torch.Tensor):
            found.pop(name, None)
            found[name] = tuple(given.shape)

    hooks = [
        module.register_forward_hook(lambda module, inputs, given, name=name: note(name, given))
        for name, module in backbone.network.named_modules()
    ]
    try:
        with torch.no_grad():
            backbone.eval()(torch.zeros(1, 1, side, side))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _layers(network: torch.nn.Module, above: str = "") -> Iterator[str]:
    """The children of a network; in the place of a sequence or a list, its own."""
    for name, module in network.named_children():
        if isinstance(module, torch.nn.Sequential) or type(module) in (torch.nn.ModuleList, torch.nn.ModuleDict):
            yield from _layers(module, f"{above}{name}.")
        else:
            yield f"{above}{name}"


def _is_map(shape: tuple[int, ...]) -> bool:
    # Images are square, so maps are; tokens (1, N, C) and maps with their channels last (1, H, W, C) are not.
    return len(shape) == 4 and shape[2] == shape[3] > 1


# --- Grad-CAM


def log_posterior(backbone: Backbone, loss: Link, images: torch.Tensor) -> torch.Tensor:
    """(B, 1, H, W) images -> (B, K) natural logarithm of the posterior, float64, with its gradient."""
    return loss.posterior(backbone(images).double()).clamp(min=SMALLEST).log()


def grad_cam(
    backbone: Backbone, loss: Link, image: torch.Tensor, layer: str, classes: Sequence[int]
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Grad-CAM of some classes of one image.

    Args:
        backbone, loss: as they were trained, on the CPU.
        image: (1, 1, H, W) in [0, 1].
        layer: one that gives maps.
        classes: indices.

    Returns:
        (L, h, w) float32 the weighted sums of the layer's maps: positive where the layer speaks for the class, negative
        where against it; and (L,) float64 the score that they explain, the log posterior.
    """
    backbone.eval()
    # One copy of the image a class, so that one pass serves all; in evaluation no image of a batch changes another.
    copies = image.expand(len(classes), -1, -1, -1)
    explained = LayerGradCam(
        lambda images: log_posterior(backbone, loss, images), backbone.network.get_submodule(layer)
    )
    maps = explained.attribute(copies, target=list(classes))[:, 0]
    with torch.no_grad():
        scores = log_posterior(backbone, loss, image)[0, list(classes)]
    return maps.detach().float().numpy(), scores.numpy()


def heat(maps: numpy.ndarray, side: int) -> numpy.ndarray:
    """(L, h, w) Grad-CAM -> (L, side, side) float32: what is above zero, brought to the image's pixels bilinearly."""
    above = torch.from_numpy(maps).clamp(min=0)[None]
    return torch.nn.functional.interpolate(above, size=(side, side), mode="bilinear", align_corners=False)[0].numpy()


def inside_boxes(warm: numpy.ndarray, boxes: numpy.ndarray) -> dict[str, float | None]:
    """How much of the heat of one class lies inside boxes.

    Args:
        warm: (S, S) heat of one class.
        boxes: (n, 4) left, top, right, bottom as shares of the square image; where they overlap, that counts once.

    Returns:
        box_area: share of the image inside, what heat spread evenly would give; energy: share of the heat inside (Wang et
        al., "Score-CAM", CVPRW 2020); hit: 1.0 if the hottest pixel's centre is inside, else 0.0 (the pointing game of
        Zhang et al., "Top-down neural attention by excitation backprop", ECCV 2016, without their margin). energy and
        hit are None where there is no heat.
    """
    cover = _cover(boxes, len(warm))
    total = warm.sum(dtype=numpy.float64)
    if total == 0:
        return {"box_area": float(cover.mean()), "energy": None, "hit": None}
    y, x = (numpy.array(numpy.unravel_index(warm.argmax(), warm.shape)) + 0.5) / len(warm)
    left, top, right, bottom = boxes.T
    hit = ((left <= x) & (x <= right) & (top <= y) & (y <= bottom)).any()
    return {"box_area": float(cover.mean()), "energy": float((warm * cover).sum() / total), "hit": float(hit)}


def _cover(boxes: numpy.ndarray, side: int) -> numpy.ndarray:
    """(side, side) float64 share of each pixel that lies inside the boxes; where several cut one pixel, the largest share."""
    starts = numpy.arange(side)

    def along(low: numpy.ndarray, high: numpy.ndarray) -> numpy.ndarray:
        """(n, side) share of each pixel of one axis."""
        return (numpy.minimum(high * side, starts + 1) - numpy.maximum(low * side, starts)).clip(0, 1)

    left, top, right, bottom = boxes.T[:, :, None]
    return (along(top, bottom)[:, :, None] * along(left, right)[:, None, :]).max(axis=0)


# --- Feature maps


def feature_maps(backbone: Backbone, image: torch.Tensor, layers: list[str], count: int) -> list[Maps]:
    """The `count` strongest maps of each layer, by mean absolute value; of equals the first.

    Args:
        image: (1, 1, H, W) in [0, 1].
    """
    backbone.eval()
    modules = [backbone.network.get_submodule(layer) for layer in layers]
    with torch.no_grad():
        given = LayerActivation(backbone, modules).attribute(image)
    found = []
    for layer, (values,) in zip(layers, given, strict=True):
        strength = values.abs().mean(dim=(1, 2), dtype=torch.float64).numpy()
        channels = numpy.argsort(-strength, kind="stable")[:count]
        found.append(Maps(layer, len(strength), channels, strength[channels], values.numpy()[channels]))
    return found
