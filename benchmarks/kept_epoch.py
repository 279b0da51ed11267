"""Which epoch to keep: what the four criteria of train.keep give on test images, and how it varies between seeds.

    python -m benchmarks.kept_epoch [--nih14 FOLDER] [--seeds 8] [--epochs 10] [--size 64] [--csv FILE]     half an hour each

Each loss and seed is trained once, with the default params but for the number of epochs and the size, on the drawn phantoms and, if a folder is given, on a part
of ChestX-ray14, a fifth of whose patients are for validation. The test images are scored after every epoch, by the most
specific truth under argmax; then each criterion takes its epoch. Stages and params are the project's, in a folder of
their own; one thread.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy
import pandas
import torch
import yaml

from benchmarks.decoding import processor
from benchmarks.full_size import project, run
from severity import losses
from severity.arrays import discrimination
from severity.arrays.labelsets import most_specific
from severity.core import markdown, runs
from severity.core.hierarchy import Hierarchy
from severity.metrics import class_metrics
from severity.networks import backbones, inference
from severity.prepared import decoded, prepared
from severity.training import training

BACKBONE, LOSSES = "tiny_resnet", ("ce", "bce", "hxe")
STAGES = ("collect", "read", "decode", "prepare", "hierarchy")
# Columns of what is measured -> headings.
METRICS = {"test_hd_at_1": "hd@1", "test_top1_error": "top-1 error", "test_macro_auroc": "macro-AUROC"}


def make(folder: Path, name: str, root: Path | None, *, epochs: int, size: int) -> None:
    """A project with the default params on one collection, up to what training reads."""
    with project(folder) as params:
        params["data"]["name"] = name
        params["train"]["epochs"], params["decode"]["size"] = epochs, size
        if root:
            params["datasets"][name]["root"] = str(root.resolve())
            params["prepare"]["validation_fraction"] = 0.2
    for stage in STAGES:
        run(stage, folder)


class Collection:
    """What a project has made for training, and its test images."""

    def __init__(self, folder: Path):
        self.settings = yaml.safe_load((folder / "params.yaml").read_text())
        self.hierarchy = Hierarchy.read(folder / "data/hierarchy/hierarchy.json")
        self.cost = numpy.load(folder / "data/hierarchy/lca_height.npy")
        self.images = decoded.open_images(folder / "data/images")
        table = prepared.read_table(folder / "data/prepared")
        parts = {name: prepared.part(table, [name], self.hierarchy.classes) for name in ("train", "validation", "test")}
        self.splits = {name: training.Split(*part) for name, part in parts.items()}

    def epochs(self, name: str, seed: int) -> pandas.DataFrame:
        """The history of one training, with the test images' numbers of each epoch beside."""
        named, tests = runs.Run(BACKBONE, name, seed), []
        inference.deterministic(runs.seed_for(named.name))
        loss = losses.build(name, hierarchy=self.hierarchy, cost=self.cost, **self.settings["losses"][name])
        size = self.images.shape[1]
        network = backbones.build(**self.settings["backbones"][BACKBONE], outputs=loss.outputs, size=size)
        with tempfile.TemporaryDirectory() as scratch:
            _, history = training.fit(
                network, loss, self.images, self.splits["train"], self.splits["validation"], named, Path(scratch),
                cost=self.cost, device="cpu", after_epoch=lambda trained: tests.append(self.test(trained)),
                **self.settings["train"],
            )  # fmt: skip
        return history.join(pandas.DataFrame(tests)).assign(loss=name, seed=seed)

    @torch.no_grad()
    def test(self, trained: torch.nn.ModuleDict) -> dict[str, float]:
        """The metrics of the test images under argmax."""
        split, loss = self.splits["test"], trained["loss"]
        options = {"batch_size": self.settings["predict"]["batch_size"], "on": torch.device("cpu")}
        logits = inference.logits(trained["network"], self.images, split.rows, **options)
        ranking = numpy.argsort(-loss.log_posterior(logits).numpy(), axis=1, kind="stable")
        truth = most_specific(split.targets == 1, self.hierarchy)
        scores = class_metrics.single_decision(ranking=ranking, truth=truth, cost=self.cost)
        labels = discrimination.per_label(
            scores=loss.label_logits(logits).numpy(), truth=split.targets, classes=self.hierarchy.classes
        )
        return {
            "test_hd_at_1": scores["hierarchical_distance_at_1"],
            "test_top1_error": scores["top1_error"],
            "test_macro_auroc": discrimination.macro(labels, "auroc"),
        }


def choices(epochs: pandas.DataFrame) -> pandas.DataFrame:
    """The epoch that each criterion keeps of each training: a row of `epochs`, with the column keep."""
    rows: list[dict[str, Any]] = []
    for _, history in epochs.groupby(["collection", "loss", "seed"], sort=False):
        records = history.to_dict("records")
        rows += [{**records[training.kept_epoch(records, keep)], "keep": keep} for keep in training.CRITERIA]
    return pandas.DataFrame(rows)


def by_loss(chosen: pandas.DataFrame) -> str:
    """Mean and standard deviation between seeds of each metric, for each loss and criterion."""
    rows = []
    for (loss, keep), seeds in chosen.groupby(["loss", "keep"], sort=False):
        values = [f"{seeds[metric].mean():.3f} ± {seeds[metric].std():.3f}" for metric in METRICS]
        rows.append([f"`{loss}`", f"`{keep}`", f"{seeds['epoch'].min():.0f} to {seeds['epoch'].max():.0f}", *values])
    return markdown.table(["Loss", "`train.keep`", "epochs kept", *METRICS.values()], rows, words=2)


def pooled(chosen: pandas.DataFrame) -> str:
    """The mean over losses of each metric, and the root of its mean variance between seeds."""
    rows = []
    for keep, each in chosen.groupby("keep", sort=False):
        within = each.groupby("loss")[list(METRICS)]
        means, deviations = within.mean().mean(), within.var().mean() ** 0.5
        rows.append([f"`{keep}`", *(f"{means[metric]:.4f} ± {deviations[metric]:.4f}" for metric in METRICS)])
    return markdown.table(["`train.keep`", *METRICS.values()], rows)


def against_last(chosen: pandas.DataFrame) -> str:
    """What each other criterion adds to each metric of the same training, and the standard error over the seeds."""
    trainings = chosen.set_index(["loss", "seed", "keep"])
    rows = []
    for keep in [each for each in training.CRITERIA if each != "last"]:
        values = []
        for metric in METRICS:
            table = trainings[metric].unstack("keep")
            of_seeds = (table[keep] - table["last"]).groupby("seed").mean()
            values.append(f"{of_seeds.mean():+.4f} ± {of_seeds.sem():.4f}")
        rows.append([f"`{keep}`", *values])
    return markdown.table(["`train.keep`", *METRICS.values()], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nih14", type=Path, help="folder of a part of ChestX-ray14: its label table and images")
    parser.add_argument("--seeds", type=int, default=8, help="trainings of each loss, at least 2")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels")
    parser.add_argument("--csv", type=Path, help="where to write every epoch of every training")
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error(f"--seeds is {options.seeds}; it must be 2 or more")
    torch.set_num_threads(1)
    runs.keep_memory()
    print(
        f"{processor()}, torch {torch.__version__}, `{BACKBONE}`, {options.size} pixels, {options.epochs} epochs, seeds 0 to {options.seeds - 1}",
        flush=True,
    )
    roots = {"phantom": None, **({"nih14": options.nih14} if options.nih14 else {})}
    measured = []
    with tempfile.TemporaryDirectory() as folder:
        for name, root in roots.items():
            make(Path(folder) / name, name, root, epochs=options.epochs, size=options.size)
            collection = Collection(Path(folder) / name)
            trainings = [(loss, seed) for loss in LOSSES for seed in range(options.seeds)]
            measured.append(pandas.concat([collection.epochs(*each) for each in trainings]).assign(collection=name))
            chosen = choices(measured[-1])
            print(f"\n{name}\n\n{by_loss(chosen)}\nOver the losses\n\n{pooled(chosen)}", flush=True)
            print(f"\nAgainst last\n\n{against_last(chosen)}", flush=True)
    if options.csv:
        pandas.concat(measured).to_csv(options.csv, index=False)


if __name__ == "__main__":
    main()
