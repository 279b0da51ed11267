"""Score every run, of the grid and external, under every decision rule, without torch.

Reads   data/predictions/<run>.npz, data/hierarchy/hierarchy.json, data/cost/cost.csv and, where there is one, irma.json
Writes  metrics/runs/<run>.json (severity/metrics/record.py)
Run     python -m stages.evaluate     a few seconds
"""

from pathlib import Path

from tqdm import tqdm

from severity.core import errors, files, params, runs, stale
from severity.core.hierarchy import Hierarchy
from severity.irma.facts import IrmaFacts
from severity.metrics import class_metrics, evaluation
from severity.predictions.predictions import Predictions
from severity.tree import costs


def main() -> None:
    settings = params.load()
    stale.mark(settings)
    hierarchy = Hierarchy.read("data/hierarchy/hierarchy.json")
    cost = costs.read("data/cost/cost.csv", hierarchy.classes)
    irma = IrmaFacts.read("data/cost/irma.json")
    scored = runs.scored(settings)
    with files.replacing("metrics/runs") as folder:
        folder.mkdir()
        for run in tqdm(scored, desc="evaluate", unit="run", disable=None):
            predictions = Predictions.read(Path("data/predictions") / f"{run.name}.npz", hierarchy)
            measured = evaluation.evaluate(predictions, hierarchy, cost, irma=irma, **settings["evaluate"])
            about = runs.description(run, settings) | {"patients": scored_patients(predictions)}
            record = evaluation.complete(about, measured, predictions.known)
            files.write_json(folder / f"{run.name}.json", record)
    print(f"scored {len(scored)} runs under {len(settings['evaluate']['rules'])} rules")


def scored_patients(predictions: Predictions) -> int:
    """How many patients the test images with a true class are of."""
    test = predictions.part("test")
    return len(set(test.patients[class_metrics.has_truth(test.truth == 1)].tolist()))


if __name__ == "__main__":
    errors.run(main)
