"""Checkpoints of other programs, or of this one: a file that may hold anything to the tensors of one model.

What programs save differs in three ways that leave no doubt, and are undone: the tensors are one entry of a mapping
(``state_dict``, ``model``, ``model_state_dict`` ...); their names all begin alike (``module.``, ``model.``,
``backbone.``, our own ``network.``); DenseNets made before 2018 say ``norm.1`` for ``norm1``.
"""

import re
import warnings
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from severity.core import files
from severity.core.errors import SeverityError, printable

# Which of several entries is meant: the average of the weights, as timm prefers, before the weights.
PREFERRED = ("state_dict_ema", "model_ema", "state_dict", "model")
DEPTH = 3  # how many mappings deep the tensors may be
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")
TORCH_ADVICE = re.compile(r"\(\d\)[^.]*Re-running `?torch\.load|Re-running `?torch\.load|In PyTorch 2\.6, we changed")
LONGEST_REASON = 400  # characters
FALSE = "Set 'pretrained' to the path of a checkpoint of this model, or to false."

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Found:
    """Tensors of a checkpoint under the model's own names, and where they were."""

    tensors: Tensors
    where: str  # in words, '' where they lie plainly

    def without(self, parts: Collection[str]) -> "Found":
        """All but the tensors of some modules."""
        return Found({name: value for name, value in self.tensors.items() if not within(name, parts)}, self.where)


def within(name: str, parts: Collection[str]) -> bool:
    """Whether a tensor belongs to one of these modules, by its name."""
    return any(f"{name}.".startswith(f"{part}.") for part in parts)


def find(path: str, wanted: Collection[str]) -> Found:
    """The tensors of a model in a checkpoint.

    Args:
        path: of a file of safetensors or of ``torch.save``.
        wanted: names of the tensors that the model must get. Where a checkpoint has few of them, its tensors are given
            as they are named: their library may know how to rename them.

    Raises:
        SeverityError: the file is missing, damaged, could run code, holds no tensors, or holds several sets of them.
    """
    candidates = [(where, _renamed(tensors, wanted)) for where, tensors in _sets(read(path))]
    if not candidates:
        raise SeverityError(
            f"params.yaml: backbones: the checkpoint {path!r} holds no tensors under names. Give a state dict "
            "(torch.save(model.state_dict(), ...)), or set 'pretrained' to false."
        )
    scored = [
        (len(stripped.keys() & set(wanted)), where, prefix, stripped)
        for where, tensors in candidates
        for prefix, stripped in _stripped(tensors, set(wanted))
    ]
    best = max(score for score, *_ in scored)
    # Plain ones before those in an entry, and of these the known names first; names as they are before cut ones.
    ranks = {where: rank for rank, where in enumerate(("", *(f"[{name!r}]" for name in PREFERRED)))}
    chosen = [
        ((ranks.get(where, len(ranks)), prefix != ""), where, prefix, stripped)
        for score, where, prefix, stripped in scored
        if score == best
    ]
    chosen.sort(key=lambda each: each[:3])
    if best and len(chosen) > 1 and chosen[0][0] == chosen[1][0]:
        places = " and ".join(_place(where, prefix) for _, where, prefix, _ in chosen)
        raise SeverityError(
            f"params.yaml: backbones: the checkpoint {path!r} has the tensors of this model more than once: {places}. "
            "Save alone those that are meant."
        )
    _, where, prefix, tensors = chosen[0]
    return Found(tensors, _place(where, prefix))


def read(path: str) -> Any:
    """What a checkpoint holds: a mapping of tensors, or whatever else torch saves of plain values.

    Raises:
        SeverityError: it is missing, damaged or could run code.
    """
    if not Path(path).is_file():
        raise SeverityError(
            f"params.yaml: backbones: the checkpoint {path!r} of 'pretrained' is missing.{files.beside_copy(path)}"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # What torch thinks of an odd file follows as an error, if it matters.
            with open(path, "rb") as file:
                if file.read(9)[8:] == b"{":
                    return safetensors.torch.load_file(path)
            _check_packing(path)
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # A damaged file fails in as many ways as it can be damaged.
        raise SeverityError(
            f"params.yaml: backbones: {path!r} is not a checkpoint of plain tensors ({reason(error)}). Only safetensors "
            "and files that torch.load reads with weights_only=True are accepted: others could run code."
        ) from None


def reason(error: Exception) -> str:
    """An exception's text on one line; never empty."""
    text = TORCH_ADVICE.split(str(error))[0]  # it advises to let the file run code
    return printable(" ".join(text.split()))[:LONGEST_REASON] or type(error).__name__


def _check_packing(path: str) -> None:
    """Refuse packed records, which torch does not write: a small file could fill the memory."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            packed = [each.filename for each in archive.infolist() if each.compress_type != zipfile.ZIP_STORED]
            if packed:
                raise SeverityError(f"its part {packed[0]!r} is compressed, as torch.save never does")
            damaged = archive.testzip()  # torch does not compare the checksums
            if damaged:
                raise SeverityError(f"its part {damaged!r} is damaged: its checksum differs")


def _sets(content: Any, where: str = "", depth: int = DEPTH) -> Iterator[tuple[str, Tensors]]:
    """The mappings in a checkpoint that hold tensors, and where each lies."""
    if not isinstance(content, Mapping):
        return
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and torch.is_tensor(value)}
    if tensors:
        yield where, tensors
    if depth > 1:
        for name, value in content.items():
            yield from _sets(value, f"{where}[{name!r}]", depth - 1)


def _renamed(tensors: Tensors, wanted: Collection[str]) -> Tensors:
    if not any("denselayer" in name for name in wanted):
        return tensors
    return {OLD_DENSENET.sub(r"\1\2.", name): value for name, value in tensors.items()}


def _stripped(tensors: Tensors, wanted: set[str]) -> list[tuple[str, Tensors]]:
    """The tensors without the beginning that their names share: one entry for each beginning that fits best."""
    prefixes = Counter()
    for name in tensors:
        for at in (0, *(match.end() for match in re.finditer(r"\.", name))):
            if name[at:] in wanted:
                prefixes[name[:at]] += 1
    most = max(prefixes.values(), default=0)
    if 2 * most < len(wanted):  # of another model, or under names that only its library knows
        return [("", tensors)]
    return [
        (prefix, {name.removeprefix(prefix): tensors[name] for name in tensors if name.startswith(prefix)})
        for prefix in prefixes
        if prefixes[prefix] == most
    ]


def _place(where: str, prefix: str) -> str:
    parts = [f"under {where}" if where else "", f"with the prefix {prefix!r}" if prefix else ""]
    return " ".join(filter(None, parts))


def check(found: Found, model: Mapping[str, torch.Tensor], path: str) -> None:
    """Refuse tensors that are not those of a model.

    Args:
        found: without what the model does not take, such as a classifier.
        model: the model's own tensors, without what it does not take.

    Raises:
        SeverityError: one is missing, has another shape, or shows that they are of a larger model; it names the tensor.
    """
    counted = {name: value for name, value in model.items() if not name.endswith("num_batches_tracked")}
    missing = [name for name in counted if name not in found.tensors]
    if missing:
        raise absent(missing, found.where, path)
    for name, value in counted.items():
        given = found.tensors[name]
        if given.shape != value.shape:
            raise SeverityError(
                f"params.yaml: backbones: the tensor {name!r} of the checkpoint {path!r} is {tuple(given.shape)}, this "
                f"model's is {tuple(value.shape)}. {FALSE}"
            )
    check_larger(found, model, path)


def check_larger(found: Found, model: Mapping[str, torch.Tensor], path: str) -> None:
    """Refuse weights that hold all of a model's and more of the same parts: those of a larger model of its family."""
    _check_values(found, model, path)
    parts = {name.partition(".")[0] for name in model if "." in name}
    more = [
        name
        for name in found.tensors
        if name not in model and name.endswith(".weight") and name.partition(".")[0] in parts
    ]
    if more and not model.keys() - found.tensors.keys():
        raise SeverityError(
            f"params.yaml: backbones: the checkpoint {path!r} has {len(more)} tensors that this model lacks, the first "
            f"{more[0]!r}: it is of a larger model. {FALSE}"
        )


def _check_values(found: Found, model: Mapping[str, torch.Tensor], path: str) -> None:
    """Refuse codes instead of weights, negative variances, and zeros throughout."""
    given = {
        name: found.tensors[name] for name, own in model.items() if name in found.tensors and own.is_floating_point()
    }
    for name, value in given.items():
        wrong = "" if value.is_floating_point() else f"is of {value.dtype}; weights are floating-point numbers"
        if not wrong and name.endswith("running_var") and (value < 0).any():
            wrong = "has negative variances"
        if wrong:
            raise SeverityError(
                f"params.yaml: backbones: the tensor {name!r} of the checkpoint {path!r} {wrong}. {FALSE}"
            )
    if given and not any(value.any() for value in given.values()):
        raise SeverityError(f"params.yaml: backbones: all tensors of the checkpoint {path!r} are zero. {FALSE}")


def absent(names: Collection[str], where: str, path: str) -> SeverityError:
    """The error for tensors that a checkpoint does not have."""
    looked = f" (it was read {where})" if where else ""
    return SeverityError(
        f"params.yaml: backbones: {len(names)} tensors of this model are missing from the checkpoint {path!r}{looked}, "
        f"the first {next(iter(names))!r}. Give a checkpoint of the same model, or set 'pretrained' to false."
    )


def versioned(tensors: Mapping[str, torch.Tensor], network: torch.nn.Module) -> OrderedDict[str, torch.Tensor]:
    """Tensors as a state dict that says of which versions of the modules it is: the network's own.

    safetensors does not keep that, and torchvision's MNASNet asks for it.
    """
    state = OrderedDict(tensors)
    state._metadata = network.state_dict()._metadata
    return state
