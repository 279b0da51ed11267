"""A small study with stored predictions, and the tables that the project made of it when they were last looked at.

    python -m tests.renew_golden

writes the tables under tests/golden/comparisons anew, for when a change of them is wanted: `git diff` then shows it. With
`--predictions` the predictions are made anew as well.
"""

import argparse
import shutil
from pathlib import Path

import numpy
import scipy.special
import yaml

from severity.core import files
from severity.core.runs import Run
from severity.predictions.predictions import Predictions
from severity.tree import costs
from stages import compare
from tests.study import inside
from tests.trees import TOP, six_classes

GOLDEN = TOP / "tests/golden/comparisons"
GRID = {"backbone": ["tiny_resnet", "tiny_efficientnet"], "loss": ["ce", "hxe"], "seed": [0, 1, 2]}
MISSING = Run("tiny_efficientnet", "hxe", 1)
RULES = ["argmax", "crm", "crm_ts"]
COMPARE = {
    "resamples": 200,
    "permutations": 499,
    "level": 0.95,
    "baseline_rule": "argmax",
    "correlation_labels": 100,
    "seed": 0,
}


def make_predictions(run: Run) -> Predictions:
    """Of 20 validation and 60 test images of 40 patients; no test image shows b2, and two show nothing."""
    tree = six_classes()
    common = numpy.random.default_rng(0)
    images, size = 80, len(tree.classes)
    truth = numpy.eye(size)[common.integers(0, size, images)]
    truth[20:, tree.classes.index("b2")] = 0
    truth[common.random(truth.shape) < 0.05] = numpy.nan
    truth[[21, 50]] = 0
    shown = numpy.nan_to_num(truth) @ numpy.exp(-costs.lca_height(tree))
    own = numpy.random.default_rng([GRID[axis].index(getattr(run, axis)) for axis in ("backbone", "loss", "seed")])
    noise = {"tiny_resnet": 0.7, "tiny_efficientnet": 1.5}[run.backbone]
    logits = 2 * shown + noise * (common.normal(size=truth.shape) + own.normal(size=truth.shape))
    return Predictions.of(
        tree,
        ids=numpy.array([f"image{index}" for index in range(images)]),
        patients=numpy.array([f"patient{index // 2}" for index in range(images)]),
        split=numpy.array(["validation"] * 20 + ["test"] * 60),
        log_posterior=scipy.special.log_softmax(logits, axis=1),
        label_logits=logits,
        truth=truth,
        run=run.name,
        dataset="made up",
    )


def write_predictions(folder: Path) -> None:
    for backbone in GRID["backbone"]:
        for loss in GRID["loss"]:
            for seed in GRID["seed"]:
                run = Run(backbone, loss, seed)
                if run != MISSING:
                    make_predictions(run).write(folder / f"{run.name}.npz")


def make_tables(folder: Path) -> Path:
    """Run the stage in `folder` on the stored predictions; the folder of what it writes."""
    tree = six_classes()
    shutil.copytree(GOLDEN / "predictions", folder / "data/predictions")
    (folder / "data/hierarchy").mkdir()
    tree.write(folder / "data/hierarchy/hierarchy.json")
    costs.write(folder / "data/cost/cost.csv", costs.lca_height(tree), tree.classes)
    params = yaml.safe_load((TOP / "params.yaml").read_text())
    params["evaluate"] |= {"rules": RULES, "batch_size": 16}
    files.write_text(folder / "params.yaml", yaml.safe_dump(params | {"grid": GRID, "compare": COMPARE}))
    with inside(folder):
        compare.main()
    return folder / "metrics/comparisons"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--predictions", action="store_true", help="make the predictions anew as well")
    if parser.parse_args().predictions:
        write_predictions(GOLDEN / "predictions")
    with files.replacing(GOLDEN / "tables") as beside:
        work = beside.with_name("work")
        try:
            shutil.copytree(make_tables(work), beside)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    print(f"renewed {GOLDEN / 'tables'}; look at the difference before you keep it")


if __name__ == "__main__":
    main()
