"""Train one network: one backbone, one loss, one seed.

Reads   data/images, data/prepared, data/hierarchy
Writes  data/models/<run>/: the kept epoch's weights, the history of the epochs, and all that is needed to use them (see
        severity/networks/models.py)
        data/unfinished/<run>-<hash>/ while it runs: killed and started again, training resumes there
Run     python -m stages.train --backbone tiny_resnet --loss hxe --seed 0     20 seconds for the default on two cores
        On several devices: machine.devices in params.yaml, torchrun, or srun; see docs/scaling.md
"""

import contextlib
from pathlib import Path
from typing import Any

from severity import losses
from severity.core import archives, commands, errors, files, params, runs
from severity.core.hierarchy import Hierarchy
from severity.networks import backbones, inference, models, processes
from severity.networks.group import Group
from severity.prepared import decoded, prepared
from severity.training import training


def main() -> None:
    runs.keep_memory()
    run = runs.from_arguments(commands.parser(__doc__))
    settings = params.load()
    machine = settings["machine"]
    processes.start(train, run, settings, devices=machine["devices"], device=machine["device"])


def train(group: Group, run: runs.Run, settings: dict[str, Any]) -> None:
    """Train in one of the processes of a group; only the first holds the run and writes."""
    hierarchy = Hierarchy.read("data/hierarchy/hierarchy.json")
    table, images = prepared.read_table("data/prepared"), decoded.open_images("data/images")
    record = runs.record(
        run,
        settings,
        images=decoded.read_summary("data/images")["sha256"],
        prepared=prepared.read_summary("data/prepared")["sha256"],
        hierarchy=files.read_json("data/hierarchy/hierarchy.json"),
    )
    inference.deterministic(runs.seed_for(run.name), settings["machine"]["threads"])
    cost = archives.read_npy("data/hierarchy/lca_height.npy")
    loss = losses.build(run.loss, hierarchy=hierarchy, cost=cost, **settings["losses"][run.loss])
    # The loss's module is loaded by now, so the sources are all there. They are not part of the record: a changed
    # comment restarts an unfinished run, but leaves no trace in the result. Nor are the machine's settings and the
    # number of processes: a run may be resumed with others.
    held = runs.scratch(run, [record, runs.sources()]) if group.first else contextlib.nullcontext()
    with held as scratch:
        network = backbones.build(**settings["backbones"][run.backbone], outputs=loss.outputs, size=images.shape[1])
        splits = [_split(table, name, hierarchy) for name in ("train", "validation")]
        machine = {key: settings["machine"][key] for key in ("device", "compile")}
        weights, history = training.fit(
            network, loss, images, *splits, run, scratch, group, cost=cost, **machine, **settings["train"]
        )
        if not group.first:
            return
        record |= {"machine": settings["machine"], "processes": group.size}
        models.write(
            Path("data/models") / run.name,
            network=network, weights=weights, history=history, record=record, hierarchy=hierarchy, cost=cost,
            size=images.shape[1:], outputs=loss.outputs,
        )  # fmt: skip
    best = history.loc[history["best"] == 1].iloc[0]
    print(f"{run.name}: kept epoch {best['epoch']:.0f}, validation macro-AUROC {best['validation_macro_auroc']:.4f}")


def _split(table: prepared.Table, name: str, hierarchy: Hierarchy) -> training.Split:
    rows, targets = prepared.part(table, [name], hierarchy.classes)
    return training.Split(rows, targets, table.frame["id"].to_numpy()[rows])


if __name__ == "__main__":
    errors.run(main)
