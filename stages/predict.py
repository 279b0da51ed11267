"""Predict validation and test images with one trained network. The last stage that needs torch.

Reads   data/images, data/prepared, data/models/<run>
Writes  data/predictions/<run>.npz
Run     python -m stages.predict --backbone tiny_resnet --loss hxe --seed 0     a few seconds
"""

import argparse
from pathlib import Path
from typing import Any

import numpy
import torch

from severity import decoded, errors, inference, models, params, prepared, processes, runs
from severity.group import Group
from severity.predictions import Predictions


def main() -> None:
    runs.die_with_parent()
    runs.keep_memory()
    run = runs.from_arguments(argparse.ArgumentParser(description=__doc__.splitlines()[0]))
    settings = params.load()
    devices, device = settings["predict"].pop("devices", 1), settings["predict"].get("device", "auto")
    processes.start(write, run, settings, devices=devices, device=device, section="predict")


def write(group: Group, run: runs.Run, settings: dict[str, Any]) -> None:
    """Predict in one of the processes of a group; the first alone writes."""
    inference.deterministic(runs.seed_for(run.name))
    model = models.read(Path("data/models") / run.name)
    predictions = params.call(
        predict, model, run, settings["data"]["name"], group, values=settings["predict"], where="predict"
    )
    if not group.first:
        return
    predictions.write(Path("data/predictions") / f"{run.name}.npz")
    print(f"{run.name}: predicted {len(predictions.ids)} images")


@torch.no_grad()
def predict(
    model: models.Model,
    run: runs.Run,
    dataset: str,
    group: Group,
    *,
    batch_size: int,
    device: str,
) -> Predictions:
    """Posterior, marginal and truth of all validation and test images, in data-set order."""
    table, images = prepared.read_table("data/prepared"), decoded.open_images("data/images")
    hierarchy, loss, on = model.hierarchy, model.loss, inference.device(device, group)
    rows, truth = prepared.part(table, ("validation", "test"), hierarchy.classes)
    network = inference.placed(model.network, on)
    logits = inference.logits(
        network, images, rows, batch_size=batch_size, on=on, description=f"predict {run.name}", group=group
    ).double()  # so that rows still sum to one once they are rounded to float32
    chosen = table.frame.iloc[rows]
    return Predictions(
        ids=chosen["id"].to_numpy(dtype=str),
        patients=chosen["patient"].to_numpy(dtype=str),
        split=chosen["split"].to_numpy(dtype=str),
        posterior=loss.posterior(logits).float().numpy(),
        marginal=loss.marginal(logits).float().numpy(),
        truth=truth,
        classes=numpy.array(hierarchy.classes),
        class_hash=numpy.array(hierarchy.class_hash),
        run=numpy.array(run.name),
        dataset=numpy.array(dataset),
    )


if __name__ == "__main__":
    errors.run(main)
