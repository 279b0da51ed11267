"""Draw the figures of the scores, each with the table of what it shows. No image is needed.

Reads   params.yaml; data/hierarchy/hierarchy.json, data/cost/cost.csv; metrics/runs/<run>.json of exactly the runs that
        params name: the grid's and the external ones; of metrics/comparisons intervals.csv, label_intervals.csv,
        labels.csv
Writes  plots/scores: of each figure <name>.png, .svg, .csv and .caption.txt (severity/figures/catalogue.py)
Run     python -m stages.plot     ten seconds
"""

import pandas

from severity.core import errors, params, runs, tables
from severity.core.hierarchy import Hierarchy
from severity.drawing import pictures, short_names
from severity.figures import catalogue
from severity.figures.shared.study import ScoreStudy
from severity.metrics import record
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
    records = record.read_runs("metrics/runs", runs.scored(settings), settings["evaluate"]["rules"])
    hierarchy = Hierarchy.read("data/hierarchy/hierarchy.json")
    section = settings["plot"]
    study = ScoreStudy(
        records=record.of_study(records, settings),
        configuration=section["configuration"],
        configurations_shown=section["configurations_shown"],
        classes=section["classes"],
        comparisons={name: comparison(name) for name in COMPARISONS},
        level=settings["compare"]["level"],
        hierarchy=hierarchy,
        cost=costs.read("data/cost/cost.csv", hierarchy.classes),
        labels=section["labels"],
    )
    drawn = short_names.drawn(catalogue.draw, "plot", study, names=[*hierarchy.names, *hierarchy.classes])
    pictures.write_all(drawn, "plots/scores")
    print(f"plots/scores: {', '.join(drawn)}")


def comparison(name: str) -> pandas.DataFrame:
    """A table of metrics/comparisons."""
    words, numbers = COMPARISONS[name]
    return tables.read(f"metrics/comparisons/{name}.csv", words, numbers, "Run `dvc repro compare`.")


if __name__ == "__main__":
    errors.run(main)
