"""Draw the figures of the scores, each with the table of what it shows. No image is needed.

Reads   params.yaml; data/hierarchy/hierarchy.json, data/cost/cost.csv; metrics/runs/<run>.json of exactly the runs that
        params name: the grid's and the external ones; of metrics/comparisons intervals.csv, label_intervals.csv, labels.csv
Writes  plots/<name>.png, .svg, .csv and .caption.txt: tradeoff, levels, labels, effects, confusion, ranking, reliability,
        batches, tree, cost
Run     python -m stages.plot     ten seconds
"""

import pandas

from severity.core import errors, files, params, runs
from severity.core.hierarchy import Hierarchy
from severity.drawing import pictures
from severity.figures import figures
from severity.summary import configurations
from severity.tree import costs

# What is read of each table of metrics/comparisons: words, numbers.
COMPARISONS = {
    "intervals": (["backbone", "loss", "rule", "metric"], ["lower", "upper"]),
    "label_intervals": (
        ["backbone", "loss", "rule", "label"],
        ["severity_lower", "severity_upper", "auroc_lower", "auroc_upper"],
    ),
    "labels": (
        ["backbone", "loss", "label", "A", "B", "verdict", "note"],
        ["images", "patients", "seeds", "difference", "lower", "upper", "p_holm"],
    ),
}


def main() -> None:
    settings = params.load()
    hierarchy = Hierarchy.read("data/hierarchy/hierarchy.json")
    wanted = settings["plot"]
    drawn = figures.draw_scores(
        found=configurations.read_runs("metrics/runs", runs.scored(settings), settings["evaluate"]["rules"]),
        comparisons={name: comparison(name) for name in COMPARISONS},
        level=settings["compare"]["level"],
        hierarchy=hierarchy,
        cost=costs.read("data/cost/cost.csv", hierarchy.classes),
        configuration=wanted["configuration"],
        configurations_shown=wanted["configurations_shown"],
        labels=wanted["labels"],
        classes=wanted["classes"],
    )
    pictures.write_all(drawn, "plots")
    print(f"plots: {', '.join(drawn)}")


def comparison(name: str) -> pandas.DataFrame:
    """A table of metrics/comparisons."""
    words, numbers = COMPARISONS[name]
    return files.read_csv(f"metrics/comparisons/{name}.csv", words, numbers, "Run `dvc repro compare`.")


if __name__ == "__main__":
    errors.run(main)
