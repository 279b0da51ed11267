"""From predictions to figures for a large study: 45 runs of 22,433 images and 14 classes, seconds and memory of each stage.

    python -m benchmarks.results [--runs 45] [--images 22433]     five minutes

The size of a study of five backbones, three losses and three seeds on the test images of ChestX-ray14 that CheXNet's
reproduction was scored on. Probabilities are made up: a signal of the truth that all runs share, and noise of each run's own;
15 % of the patients are validation images. Stages and params are the project's, in a folder of their own.
"""

import argparse
import tempfile
from pathlib import Path

import numpy
import pandas
import scipy.special

from benchmarks.decoding import processor
from benchmarks.full_size import project, run
from severity.collections.collection import Collection
from severity.core import markdown
from severity.core.columns import METADATA
from severity.core.hierarchy import Hierarchy
from severity.datasets import nih14
from severity.predictions.predictions import Predictions

LOSSES, SEEDS = ("ce", "bce", "hxe"), 3
# Share of the images that have a finding, the rarest to the most frequent.
RARE, FREQUENT = 0.002, 0.18


def study(folder: Path, runs: int) -> list[str]:
    """A project with a grid of `runs` runs, a multiple of nine, whose predictions are still to be written; their names."""
    backbones = [f"network{number}" for number in range(runs // (len(LOSSES) * SEEDS))]
    with project(folder) as params:
        params["data"]["name"] = "nih14"
        params["datasets"]["nih14"]["hierarchy"] = "nih14_findings"
        params["backbones"] = {name: {"model": "test_resnet", "pretrained": False} for name in backbones}
        params["grid"] = {"backbone": backbones, "loss": list(LOSSES), "seed": list(range(SEEDS))}
    labels = list(nih14.LABELS)
    Collection(pandas.DataFrame(columns=[*METADATA, "path", *labels]), tuple(labels)).write(folder / "data/collection")
    return [f"{name}-{loss}-{seed}" for name in backbones for loss in LOSSES for seed in range(SEEDS)]


def predict(folder: Path, names: list[str], images: int) -> None:
    """Write made-up predictions of all runs for the tree that the study has."""
    tree, random = Hierarchy.read(folder / "data/hierarchy/hierarchy.json"), numpy.random.default_rng(0)
    shares = numpy.geomspace(RARE, FREQUENT, len(tree.classes))
    truth = (random.random((images, len(shares))) < shares).astype(numpy.float32)
    patients = numpy.sort(random.integers(0, max(1, images // 4), images))
    validation = random.random(images) < 0.15
    split = numpy.where(validation[patients], "validation", "test")
    signal = scipy.special.logit(shares) + 2 * truth + random.normal(size=truth.shape)
    (folder / "data/predictions").mkdir()
    for name in names:
        Predictions.of(
            tree,
            ids=numpy.array([f"{number:08d}" for number in range(images)]),
            patients=patients.astype(str),
            split=split,
            truth=truth,
            run=name,
            dataset="nih14",
            label_logits=signal + 0.5 * random.normal(size=signal.shape),
        ).write(folder / "data/predictions" / f"{name}.npz")


def measure(folder: Path, runs: int, images: int) -> list[list[str]]:
    """Rows of the printed table."""
    names = study(folder, runs)
    run("hierarchy", folder)
    predict(folder, names, images)
    rows = []
    for stage in ("evaluate", "aggregate", "compare", "plot"):
        seconds, peak = run(stage, folder)
        rows.append([stage, f"{seconds:.0f}", f"{peak:.2f}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=45, help="a multiple of nine")
    parser.add_argument("--images", type=int, default=22_433)
    options = parser.parse_args()
    if options.runs < 9 or options.runs % 9:
        parser.error(f"--runs is {options.runs}; it must be a multiple of nine")
    print(f"{processor()}, {options.runs} runs of {options.images:,} images\n")
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder) / "study", options.runs, options.images)
    print(markdown.table(["stage", "seconds", "GB of memory"], rows))


if __name__ == "__main__":
    main()
