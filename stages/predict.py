"""Predict validation and test images with one trained network. Of what follows only `explain` needs torch.

Reads   data/images, data/prepared, data/hierarchy, data/models/<run>
Writes  data/predictions/<run>.npz; data/times/<run>.json, how long it took
Run     python -m stages.predict --backbone tiny_resnet --loss hxe --seed 0     a few seconds
"""

import argparse
import json
import time
from pathlib import Path

import numpy
import torch

from severity import backbones, decoded, errors, files, inference, losses, params, prepared, runs
from severity.hierarchy import Hierarchy
from severity.links import Link
from severity.predictions import Predictions


def main() -> None:
    runs.die_with_parent()
    run = runs.from_arguments(argparse.ArgumentParser(description=__doc__.splitlines()[0]))
    settings = params.load()
    hierarchy = Hierarchy.read("data/hierarchy/hierarchy.json")
    inference.deterministic(runs.seed_for(run.name))
    cost = numpy.load("data/hierarchy/lca_height.npy", allow_pickle=False)
    loss = losses.build(run.loss, hierarchy=hierarchy, cost=cost, **settings["losses"][run.loss])
    network = backbones.load(
        Path("data/models") / run.name / "weights.safetensors",
        model=settings["backbones"][run.backbone]["model"],
        outputs=loss.outputs,
        loss=loss,
    )
    started = time.monotonic()
    predictions = params.call(
        predict, network, loss, hierarchy, run, settings["data"]["name"], values=settings["predict"], where="predict"
    )
    # A time is no result: it is never the same again. So it lies beside the results, where DVC does not look.
    seconds = {"images": len(predictions.ids), "seconds": time.monotonic() - started}
    files.write_json(Path("data/times") / f"{run.name}.json", seconds)
    predictions.write(Path("data/predictions") / f"{run.name}.npz")
    print(f"{run.name}: predicted {len(predictions.ids)} images")


@torch.no_grad()
def predict(
    network: torch.nn.Module,
    loss: Link,
    hierarchy: Hierarchy,
    run: runs.Run,
    dataset: str,
    *,
    batch_size: int,
    device: str,
) -> Predictions:
    """Posterior, marginal and truth of all validation and test images, in data-set order."""
    table, images = prepared.read_table("data/prepared"), decoded.open_images("data/images")
    rows, truth = prepared.part(table, ("validation", "test"), hierarchy.classes)
    on = inference.device(device)
    logits = inference.logits(
        inference.placed(network, on), images, rows, batch_size=batch_size, on=on, description=f"predict {run.name}"
    ).double()  # so that rows still sum to one once they are rounded to float32
    chosen = table.frame.iloc[rows]
    return Predictions(
        ids=chosen["id"].to_numpy(dtype=str),
        patients=chosen["patient"].to_numpy(dtype=str),
        split=chosen["split"].to_numpy(dtype=str),
        posterior=loss.cpu().posterior(logits).float().numpy(),
        marginal=loss.marginal(logits).float().numpy(),
        truth=truth,
        classes=numpy.array(hierarchy.classes),
        class_hash=numpy.array(hierarchy.class_hash),
        run=numpy.array(run.name),
        dataset=numpy.array(dataset),
        record=numpy.array(json.dumps(kept_epoch(run))),
    )


def kept_epoch(run: runs.Run) -> dict[str, float]:
    """The epoch whose weights were kept, and its validation loss."""
    columns = ("epoch", "validation_loss", "best")
    path = Path("data/models") / run.name / "history.csv"
    history = files.read_csv(path, columns, columns, "Remove it and run `dvc repro`.")
    kept = history[history["best"] == 1].iloc[0]
    return {"epoch": int(kept["epoch"]), "validation_loss": float(kept["validation_loss"])}


if __name__ == "__main__":
    errors.run(main)
