"""A trained network in a folder: everything that is needed to use it, without params.yaml and without the data.

The folder holds

    weights.safetensors   the network's, and under ``loss.`` the loss's where it has any
    record.json           run, params, versions; `classes` in the order of the probabilities and their hash; `input`:
                          size and scaling of the images; `outputs`: how many logits the network gives; `sha256` of the
                          other files, against which they are checked when they are read
    hierarchy.json        the label tree
    lca_height.npy        the cost that some losses aim at
    history.csv           one row an epoch
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import pandas
import safetensors.torch
import torch

from severity import losses
from severity.core import files
from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy
from severity.links.links import Link
from severity.networks import backbones


@dataclass(frozen=True)
class Model:
    """A network for (B, 1, H, W) floats in [0, 1], `size` = (H, W), and the loss that turns logits to probabilities."""

    network: backbones.Backbone
    loss: Link
    hierarchy: Hierarchy
    size: tuple[int, int]
    record: dict[str, Any]


def write(
    folder: Path | str,
    *,
    network: backbones.Backbone,
    weights: dict[str, torch.Tensor],
    history: pandas.DataFrame,
    record: dict[str, Any],
    hierarchy: Hierarchy,
    cost: numpy.ndarray,
    size: tuple[int, int],
    outputs: int,
) -> None:
    """Write a trained network whole.

    Args:
        network: built as for training; only how it normalises is asked of it.
        weights, history: from `severity.training.training.fit`.
        record: from `severity.core.runs.record`.
        cost: (K, K) lca_height. size: (H, W) of the images. outputs: ``loss.outputs``.
    """
    described = record | {
        "classes": list(hierarchy.classes),
        "class_hash": hierarchy.class_hash,
        "outputs": outputs,
        "input": {
            "height": size[0],
            "width": size[1],
            "divide_by": 255,
            "mean": network.mean.flatten().tolist(),
            "std": network.std.flatten().tolist(),
        },
    }
    with files.replacing(folder) as temporary:
        temporary.mkdir()
        safetensors.torch.save_file(weights, temporary / "weights.safetensors")
        files.write_csv(temporary / "history.csv", history)
        hierarchy.write(temporary / "hierarchy.json")
        numpy.save(temporary / "lca_height.npy", cost)
        sums = {path.name: files.sha256(path) for path in sorted(temporary.iterdir())}
        files.write_json(temporary / "record.json", described | {"sha256": sums})


def read(folder: Path | str) -> Model:
    """Build network and loss from such a folder, and nothing else. On the CPU, in evaluation mode.

    Raises:
        SeverityError: a file is missing, damaged, belongs to another run, or names a backbone or a loss that no longer
            exists.
    """
    folder = Path(folder)
    record = files.read_json(folder / "record.json", "class_hash", "losses", "backbones", "input", "sha256")
    _check_sums(folder, record)
    hierarchy = Hierarchy.read(folder / "hierarchy.json")
    try:
        if hierarchy.class_hash != record["class_hash"]:
            raise SeverityError(f"{folder}: record.json and hierarchy.json are of different trees. Train again.")
        ((name, options),) = record["losses"].items()
        ((_, backbone),) = record["backbones"].items()
        given = record["input"]
        size = (given["height"], given["width"])
        scaling = {key: torch.tensor(given[key]).view(1, -1, 1, 1) for key in ("mean", "std")}
        cost = numpy.load(folder / "lca_height.npy", allow_pickle=False)
    except (KeyError, OSError, ValueError) as error:
        if isinstance(error, SeverityError):
            raise
        raise SeverityError(
            f"{folder} is not a complete folder of a trained network ({error}). Run `dvc repro train`."
        ) from None
    loss = losses.build(name, hierarchy=hierarchy, cost=cost, **options)
    network = backbones.load(
        folder / "weights.safetensors", model=backbone["model"], outputs=loss.outputs, size=size[0], loss=loss
    )
    # As in training, whatever the library thinks of this model today.
    network.mean, network.std = scaling["mean"], scaling["std"]
    return Model(network.eval(), loss.eval(), hierarchy, size, record)


def _check_sums(folder: Path, record: dict[str, Any]) -> None:
    """Refuse files that are not those which training wrote: a flipped byte of weights would go unnoticed."""
    if not isinstance(record["sha256"], dict):
        raise SeverityError(f"{folder / 'record.json'} is damaged: sha256 is not a mapping. Run `dvc repro train`.")
    for name, expected in record["sha256"].items():
        path = folder / name
        if not path.is_file():
            raise SeverityError(f"{path} is missing. Run `dvc repro train`.")
        if files.sha256(path) != expected:
            raise SeverityError(
                f"{path} is not the file that training wrote: its SHA-256 differs from that in record.json. Remove "
                f"{folder} and run `dvc repro train`, which restores it from DVC's cache or trains again."
            )
