"""Train one network: one backbone, one loss, one seed.

Reads   data/images, data/prepared, data/hierarchy
Writes  data/models/<run>/: weights.safetensors (the best epoch's: the network's, and the loss's where it has any),
        history.csv (one row an epoch), record.json
        data/unfinished/<run>-<hash>/ while it runs: killed and started again, training resumes there
Run     python -m stages.train --backbone tiny_resnet --loss hxe --seed 0     20 seconds for the default on two cores
"""

import argparse
from pathlib import Path

import numpy
import safetensors.torch

from severity import backbones, decoded, errors, files, inference, losses, params, prepared, runs, training
from severity.hierarchy import Hierarchy


def main() -> None:
    runs.die_with_parent()
    run = runs.from_arguments(argparse.ArgumentParser(description=__doc__.splitlines()[0]))
    settings = params.load()
    hierarchy = Hierarchy.read("data/hierarchy/hierarchy.json")
    table, images = prepared.read_table("data/prepared"), decoded.open_images("data/images")
    record = runs.record(
        run,
        settings,
        images=decoded.read_summary("data/images")["sha256"],
        prepared=prepared.read_summary("data/prepared")["sha256"],
        hierarchy=files.read_json("data/hierarchy/hierarchy.json"),
    )
    with runs.scratch(run, record) as scratch:
        inference.deterministic(runs.seed_for(run.name))
        cost = numpy.load("data/hierarchy/lca_height.npy", allow_pickle=False)
        loss = losses.build(run.loss, hierarchy=hierarchy, cost=cost, **settings["losses"][run.loss])
        network = backbones.build(**settings["backbones"][run.backbone], outputs=loss.outputs)
        splits = [training.Split(*prepared.part(table, [name], hierarchy.classes)) for name in ("train", "validation")]
        weights, history = params.call(
            training.fit, network, loss, images, *splits, run, scratch, values=settings["train"], where="train"
        )
        with files.replacing(Path("data/models") / run.name) as folder:
            folder.mkdir()
            safetensors.torch.save_file(weights, folder / "weights.safetensors")
            files.write_csv(folder / "history.csv", history)
            files.write_json(folder / "record.json", record)
    best = history.loc[history["best"] == 1].iloc[0]
    print(f"{run.name}: validation macro-AUROC {best['validation_macro_auroc']:.4f} in epoch {best['epoch']:.0f}")


if __name__ == "__main__":
    errors.run(main)
