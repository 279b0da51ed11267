"""Why a network gave a class: Grad-CAM, how much of its heatmap lies inside a box, and the strongest feature maps.

Grad-CAM (Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based localization", ICCV
2017): the maps of a layer, each weighed by the mean over its places of the gradient of a score, and summed; what is
above zero is the heatmap, where the layer speaks for the score. The score here is the natural logarithm of the
posterior of a class, through the loss's own link: the probability that decisions are made from, whatever the loss.

A layer is named by its path within the network, as torch does: ``layer4.1``, ``features.norm5``, ``blocks.10``.
Whatever form it gives its places (`Form`), they are weighed as maps (B, C, h, w): a transformer's patches are the
places of an image as well, and its class token is not one.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy
import pandas
import torch
from captum.attr import LayerActivation, LayerGradCam

from severity.collections.collection import BOX
from severity.core.errors import SeverityError, nearest
from severity.core.hierarchy import Hierarchy
from severity.explanation.explained_images import Case
from severity.links.links import Link
from severity.networks.backbones import Backbone
from severity.networks.images import batch

AUTO = "auto"
# The default layer of Grad-CAM is the last one with at least this many places a side: fewer do not make a picture.
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
    """What is explained about one case."""

    # One row a class of the case, in its order: case, id, label, role, log_posterior (the score that is explained),
    # layer, places (a side of the layer's maps), largest (of the heatmap).
    cams: pandas.DataFrame
    weighed: numpy.ndarray  # (L, h, w) see `grad_cam`
    heatmaps: numpy.ndarray  # (L, S, S) see `upsampled`
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
    heatmaps = upsampled(weighed, len(image))
    about = pandas.DataFrame({"case": case.name, "id": case.id, "label": [hierarchy.classes[k] for k in case.classes]})
    inside = [
        {**own, "box": label, **inside_boxes(each, group[list(BOX[2:])].to_numpy())}
        for own, each in zip(about.to_dict("records"), heatmaps, strict=True)
        for label, group in boxes.groupby("label", sort=False)
    ]
    return Explanation(
        cams=about.assign(
            role=[case.role(label) for label in case.classes],
            log_posterior=scores,
            layer=cam,
            places=weighed.shape[-1],
            largest=heatmaps.max(axis=(1, 2)),
        ),
        weighed=weighed,
        heatmaps=heatmaps,
        inside=pandas.DataFrame(inside, columns=[*about.columns, "box", *SHARES]).astype(dict.fromkeys(SHARES, float)),
        maps=feature_maps(backbone, pixels, layers, maps),
    )


# --- Layers


@dataclass(frozen=True)
class Form:
    """How a layer gives the places of an image: B images, C channels, h = w = `side`."""

    side: int
    channels: int  # the dimension of C: 1 in (B, C, h, w), 3 in (B, h, w, C), 2 in the tokens (B, prefix + h * w, C)
    prefix: int = 0  # tokens that are not patches and come before them: of the class, of distillation, registers

    def maps(self, given: torch.Tensor) -> torch.Tensor:
        """What the layer gives -> (B, C, h, w), without the prefix."""
        if self.channels == 2:
            given = given[:, self.prefix :].unflatten(1, (self.side, self.side))
        return given if self.channels == 1 else given.movedim(-1, 1)

    def back(self, maps: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> the layer's own form; the prefix is that of `given`."""
        if self.channels == 1:
            return maps
        places = maps.movedim(1, -1)
        return places if self.channels == 3 else torch.cat([given[:, : self.prefix], places.flatten(1, 2)], dim=1)


@dataclass(frozen=True)
class Seen:
    """What a layer gives for one image."""

    shape: tuple[int, ...] | None  # None: not a tensor, but for instance a list of several
    form: Form | None  # None: not the places of a square
    # False: its patches have no part in the logits. What follows the last attention may read only the class token.
    reaches: bool

    def __str__(self) -> str:
        return "gives no single tensor" if self.shape is None else f"gives the shape {self.shape}"

    @property
    def spread(self) -> bool:
        """Not yet pooled: (1, C), (1, C, 1, 1) and (1, 1, C), a class token by itself, have one place."""
        return self.shape is None or sum(length > 1 for length in self.shape[1:]) > 1


def form(shape: Sequence[int], network: torch.nn.Module) -> Form | None:
    """The form of what a layer of the network gives, by its shape; None where these are not the places of a square.

    Images are square, so maps are. How many tokens come before the patches is what the network says, as timm's do in
    `num_prefix_tokens`, or none, before they join; where it does not say, at most two (class, distillation), and no
    two numbers of them leave a square.
    """
    if len(shape) == 4 and shape[2] == shape[3] > 1:
        return Form(shape[2], 1)
    if len(shape) == 4 and shape[1] == shape[2] > 1:
        return Form(shape[1], 3)
    if len(shape) == 3 and not hasattr(network, "reroll"):  # Hiera's tokens are in another order than its patches.
        prefix_tokens = getattr(network, "num_prefix_tokens", None)
        for prefix in (0, 1, 2) if prefix_tokens is None else (prefix_tokens, 0):
            side = math.isqrt(max(0, shape[1] - prefix))
            if side > 1 and side**2 == shape[1] - prefix:
                return Form(side, 2, prefix)
    return None


def stages(backbone: Backbone, side: int) -> dict[str, int]:
    """The last layer of each resolution whose places reach the logits.

    Layers are what the network, and the sequences in it, are made of: a block of a ResNet is one, what is inside it is
    not.

    Args:
        side: of the images, in pixels.

    Returns:
        layer -> places a side of its maps, in the order in which they run.

    Raises:
        SeverityError: what the network hands its classifier has no known form.
    """
    return _stages(backbone.network, _look(backbone, side), side)


def _stages(network: torch.nn.Module, seen: dict[str, Seen], side: int) -> dict[str, int]:
    layers = _layers_of(network, seen)
    # What comes after the last useful layer must be pooled or useless: else that layer would be no more than a stem.
    spread = [name for name, each in seen.items() if name in layers and each.spread and each.reaches]
    if not spread or not seen[spread[-1]].form:
        last = f"its layer {spread[-1]!r} {seen[spread[-1]]}" if spread else "no layer gives any"
        raise SeverityError(
            f"The network {type(network).__name__} makes no maps (channels, height, width) of an image of {side} "
            f"pixels that Grad-CAM could weigh, nor patches of a square in their order: {last}. Choose another "
            "configuration by explain.configuration in params.yaml, or name layers that give maps or patches in "
            "explain.cam and explain.layers."
        )
    by_layer: dict[str, int] = {}
    for name in spread:
        if known := seen[name].form:
            by_layer = {other: places for other, places in by_layer.items() if places != known.side} | {
                name: known.side
            }
    return by_layer


def choose(backbone: Backbone, side: int, *, cam: str, layers: str | list) -> tuple[str, list[str]]:
    """The layer of Grad-CAM, and the layers whose maps are shown.

    Args:
        side: of the images, in pixels.
        cam: a layer; or `auto`, the last of the `stages` with PLACES places a side, the last of all if none has.
        layers: a list of layers; or `auto`, all `stages`.

    Raises:
        SeverityError: an unknown layer, one without maps, one for `cam` whose patches do not reach the logits, or a
            network without `stages` where these are asked for.
    """
    seen = _look(backbone, side)
    for key, names in (("cam", [] if cam == AUTO else [cam]), ("layers", [] if layers == AUTO else layers)):
        for name in names:
            _check_layer(name, seen, f"params.yaml: explain.{key}")
    if cam != AUTO and not seen[cam].reaches:
        raise SeverityError(
            f"params.yaml: explain.cam: nothing that comes after the layer {cam!r} uses its patches: the class is "
            "read from other tokens, so that there is no gradient to weigh the maps by. The last layer whose patches "
            f"reach the class is {list(_stages(backbone.network, seen, side))[-1]!r}."
        )
    known = _stages(backbone.network, seen, side) if AUTO in (cam, layers) else {}
    if cam == AUTO:
        large = [name for name, places in known.items() if places >= PLACES]
        cam = (large or list(known))[-1]
    return cam, list(known) if layers == AUTO else layers


def _check_layer(name: str, seen: dict[str, Seen], where: str) -> None:
    if name not in seen:
        near = nearest(name, seen).partition("Known:")[0]  # All names would be a long message.
        raise SeverityError(f"{where}: the network has no layer {name!r}. {near}".strip())
    if not seen[name].form:
        raise SeverityError(
            f"{where}: the layer {name!r} {seen[name]} for one image, no maps (1, channels, places, places) or "
            "(1, places, places, channels) of more than one place, nor patches (1, tokens, channels) of a square in "
            "their order. Choose a layer before the pooling that gives such."
        )


def _look(backbone: Backbone, side: int) -> dict[str, Seen]:
    """What each module gives for one image, in the order in which they end; of a module that runs twice the last."""
    given: dict[str, torch.Tensor | None] = {}

    def note(name: str, out: object) -> None:
        given.pop(name, None)
        given[name] = out if isinstance(out, torch.Tensor) else None

    with ExitStack() as hooks:
        for name, module in backbone.network.named_modules():
            hook = module.register_forward_hook(lambda module, inputs, out, name=name: note(name, out))
            hooks.callback(hook.remove)
        # A ramp: where an image is the same everywhere, a gradient may be zero by chance.
        image = torch.linspace(0, 1, side**2).view(1, 1, side, side).requires_grad_()
        logits = backbone.eval()(image)
    shapes = {name: None if each is None else tuple(each.shape) for name, each in given.items()}
    forms = {name: form(shape, backbone.network) if shape and shape[0] == 1 else None for name, shape in shapes.items()}
    if any(forms[name] and forms[name].channels == 3 for name in _layers(backbone.network) if name in forms):
        # Where channels come last, the shape of a cube does not show whether its own do.
        cubes = {name for name, shape in shapes.items() if shape and len(shape) == 4 and len({*shape[1:]}) == 1}
        forms = {name: None if name in cubes else known for name, known in forms.items()}
    # Only where there are other tokens than patches may the class be read without patches.
    with_prefix = [name for name, known in forms.items() if known and known.prefix]
    reached = _reached(logits, {name: given[name] for name in with_prefix}, forms)
    return {
        name: Seen(shape, forms[name], name not in with_prefix or name in reached) for name, shape in shapes.items()
    }


def _reached(logits: torch.Tensor, given: dict[str, torch.Tensor], forms: dict[str, Form | None]) -> set[str]:
    """Those of the layers whose patches have a gradient."""
    asked = [name for name, each in given.items() if each.requires_grad]
    if not asked:
        return set()
    score = (logits * torch.arange(1, logits.shape[1] + 1)).sum()  # Unequal, as their plain sum may cancel.
    gradients = torch.autograd.grad(score, [given[name] for name in asked], allow_unused=True)
    return {
        name
        for name, gradient in zip(asked, gradients, strict=True)
        if gradient is not None and forms[name].maps(gradient).any()
    }


def _layers(network: torch.nn.Module, above: str = "") -> Iterator[str]:
    """The children of a network; in the place of a sequence or a list, its own."""
    for name, module in network.named_children():
        if isinstance(module, torch.nn.Sequential) or type(module) in (torch.nn.ModuleList, torch.nn.ModuleDict):
            yield from _layers(module, f"{above}{name}.")
        else:
            yield f"{above}{name}"


def _layers_of(network: torch.nn.Module, seen: dict[str, Seen]) -> set[str]:
    """The network's layers but its classifiers; for a part in which all patches end, its own layers.

    torchvision's transformers are such: all blocks are within one part, which passes on only the class token.
    """
    heads = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    # A classifier of every patch gives logits, not features.
    layers = [name for name in _layers(network) if name not in ((heads,) if isinstance(heads, str) else heads)]
    while True:
        tokens = {name for name in layers if name in seen and seen[name].form and seen[name].form.prefix}
        inner = [list(_layers(network.get_submodule(name), f"{name}.")) if name in tokens else [] for name in layers]
        if any(seen[name].reaches for name in tokens) or not any(inner):
            return set(layers)
        layers = [each for name, own in zip(layers, inner, strict=True) for each in own or [name]]


# --- Grad-CAM


def log_posterior(backbone: Backbone, loss: Link, images: torch.Tensor) -> torch.Tensor:
    """(B, 1, H, W) images -> (B, K) natural logarithm of the posterior, float64, with its gradient."""
    return loss.log_posterior(backbone(images).double())


def grad_cam(
    backbone: Backbone, loss: Link, image: torch.Tensor, layer: str, classes: Sequence[int]
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Grad-CAM of some classes of one image.

    Args:
        backbone, loss: as they were trained, on the CPU.
        image: (1, 1, H, W) in [0, 1].
        layer: one that has a `Form`.
        classes: indices.

    Returns:
        (L, h, w) float32 the weighted sums of the layer's maps: positive where the layer speaks for the class, negative
        where against it; and (L,) float64 the score that they explain, the log posterior.
    """
    backbone.eval()
    # One copy of the image a class, so that one pass serves all; in evaluation no image of a batch changes another.
    copies = image.expand(len(classes), -1, -1, -1)
    with _as_maps(backbone.network, [layer]) as (shown,):
        explained = LayerGradCam(lambda images: log_posterior(backbone, loss, images), shown)
        maps = explained.attribute(copies, target=list(classes))[:, 0]
    with torch.no_grad():
        scores = log_posterior(backbone, loss, image)[0, list(classes)]
    return maps.detach().float().numpy(), scores.numpy()


@contextmanager
def _as_maps(network: torch.nn.Module, layers: list[str]) -> Iterator[list[torch.nn.Module]]:
    """Modules through which, meanwhile, the places of these layers pass as maps (B, C, h, w), for captum to find there.

    What follows gets each in its own form again. The network's modules stay as they are.
    """
    with ExitStack() as hooks:
        shown = [torch.nn.Identity() for _ in layers]
        for layer, maps in zip(layers, shown, strict=True):

            def show(module: torch.nn.Module, inputs: tuple, given: torch.Tensor, maps=maps) -> torch.Tensor:
                own = form(given.shape, network)
                return own.back(maps(own.maps(given)), given)

            hooks.callback(network.get_submodule(layer).register_forward_hook(show).remove)
        yield shown


def upsampled(maps: numpy.ndarray, side: int) -> numpy.ndarray:
    """(L, h, w) Grad-CAM -> (L, side, side) float32: what is above zero, interpolated bilinearly to pixels."""
    above = torch.from_numpy(maps).clamp(min=0)[None]
    return torch.nn.functional.interpolate(above, size=(side, side), mode="bilinear", align_corners=False)[0].numpy()


def inside_boxes(heatmap: numpy.ndarray, boxes: numpy.ndarray) -> dict[str, float | None]:
    """How much of the heatmap of one class lies inside boxes.

    Args:
        heatmap: (S, S) of one class.
        boxes: (n, 4) left, top, right, bottom as shares of the square image; where they overlap, that counts once.

    Returns:
        box_area: share of the image inside, what evenly spread heat would give; energy: share of the heat inside (Wang
        et al., "Score-CAM", CVPRW 2020); hit: 1.0 if the hottest pixel's centre is inside, else 0.0 (the pointing game
        of Zhang et al., "Top-down neural attention by excitation backprop", ECCV 2016, without their margin). energy
        and hit are None where there is no heat.
    """
    cover = _cover(boxes, len(heatmap))
    total = heatmap.sum(dtype=numpy.float64)
    if total == 0:
        return {"box_area": float(cover.mean()), "energy": None, "hit": None}
    y, x = (numpy.array(numpy.unravel_index(heatmap.argmax(), heatmap.shape)) + 0.5) / len(heatmap)
    left, top, right, bottom = boxes.T
    hit = ((left <= x) & (x <= right) & (top <= y) & (y <= bottom)).any()
    return {"box_area": float(cover.mean()), "energy": float((heatmap * cover).sum() / total), "hit": float(hit)}


def _cover(boxes: numpy.ndarray, side: int) -> numpy.ndarray:
    """(side, side) float64 share of each pixel inside the boxes; where several cut one pixel, the largest share."""
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
    with torch.no_grad(), _as_maps(backbone.network, layers) as shown:
        given = LayerActivation(backbone, shown).attribute(image)
    strongest = []
    for layer, (values,) in zip(layers, given, strict=True):
        strength = values.abs().mean(dim=(1, 2), dtype=torch.float64).numpy()
        channels = numpy.argsort(-strength, kind="stable")[:count]
        strongest.append(Maps(layer, len(strength), channels, strength[channels], values.numpy()[channels]))
    return strongest
