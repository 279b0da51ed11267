"""Predict validation and test images with one trained network. Of what follows only `explain` needs torch.

Reads   data/images, data/prepared, data/models/<run>
Writes  data/predictions/<run>.npz; data/times/<run>.json, how long it took
Run     python -m stages.predict --backbone tiny_resnet --loss hxe --seed 0     a few seconds
"""

import math
import time
from pathlib import Path
from typing import Any

import torch

from severity.arrays import tree_model
from severity.core import commands, errors, files, params, runs, tables
from severity.links.links import SoftmaxLink
from severity.networks import inference, models, processes
from severity.networks.group import Group
from severity.predictions.predictions import Predictions
from severity.prepared import decoded, prepared


def main() -> None:
    runs.keep_memory()
    run = runs.from_arguments(commands.parser(__doc__))
    settings = params.load()
    machine = settings["machine"]
    processes.start(write, run, settings, devices=machine["devices"], device=machine["device"])


def write(group: Group, run: runs.Run, settings: dict[str, Any]) -> None:
    """Predict in one of the processes of a group; the first alone writes."""
    inference.deterministic(runs.seed_for(run.name), settings["machine"]["threads"])
    model = models.read(Path("data/models") / run.name)
    started = time.monotonic()
    device = settings["machine"]["device"]
    predictions = predict(model, run, settings["data"]["name"], group, device=device, **settings["predict"])
    if not group.first:
        return
    predictions.write(Path("data/predictions") / f"{run.name}.npz")
    # A time is not a result: it is never the same twice. So it is kept apart from the results, outside DVC's outputs.
    seconds = {"images": len(predictions.ids), "seconds": time.monotonic() - started}
    files.write_json(Path("data/times") / f"{run.name}.json", seconds)
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
    """Posterior, nodes and truth of all validation and test images, in data-set order."""
    table, images = prepared.read_table("data/prepared"), decoded.open_images("data/images")
    hierarchy, loss, on = model.hierarchy, model.loss, inference.device(device, group)
    rows, truth = prepared.part(table, ("validation", "test"), hierarchy.classes)
    network = inference.placed(model.network, on)
    logits = inference.logits(
        network, images, rows, batch_size=batch_size, on=on, description=f"predict {run.name}", group=group
    ).double()  # several nearly certain labels differ by less than float32 holds
    log_posterior, node_logits = loss.log_posterior(logits).numpy(), loss.node_logits(logits).numpy()
    exclusive = isinstance(loss, SoftmaxLink)
    if not exclusive:
        log_posterior = tree_model.ranked(log_posterior, node_logits[:, hierarchy.class_nodes])
    chosen = table.frame.iloc[rows]
    return Predictions.of(
        hierarchy,
        ids=chosen["id"].to_numpy(dtype=str),
        patients=chosen["patient"].to_numpy(dtype=str),
        split=chosen["split"].to_numpy(dtype=str),
        log_posterior=log_posterior,
        node_logits=node_logits,
        exclusive=exclusive,
        truth=truth,
        run=run.name,
        dataset=dataset,
        record={"training": epochs(run)},
    )


def epochs(run: runs.Run) -> dict[str, dict[str, Any]]:
    """The kept and the last epoch of a run's training, and their numbers of the validation images, None where none."""
    path = Path("data/models") / run.name / "history.csv"
    numbers = ("validation_loss", "validation_macro_auroc", "validation_hd_at_1")
    columns = ("epoch", *numbers, "best")
    history = tables.read(path, columns, columns, "Remove it and run `dvc repro`.")
    chosen = {"kept": history[history["best"] == 1].iloc[0], "last": history.iloc[-1]}
    return {
        name: {"epoch": int(row["epoch"])}
        | {key.removeprefix("validation_"): float(row[key]) if math.isfinite(row[key]) else None for key in numbers}
        for name, row in chosen.items()
    }


if __name__ == "__main__":
    errors.run(main)
