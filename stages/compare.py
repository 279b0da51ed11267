"""Compare rules, losses and backbones image by image, and say what the differences are worth.

Reads   data/predictions/<run>.npz, data/hierarchy/hierarchy.json, data/cost/cost.csv
Writes  metrics/comparisons/: rules.csv, losses.csv, backbones.csv, labels.csv, correlation.csv, distribution.csv, and
        the page in words: comparisons.md to read, page.json for the report
Run     python -m stages.compare     seconds; a minute for 45 runs of 22,433 images
"""

from pathlib import Path

from severity.comparison import comparisons, conclusions
from severity.core import errors, files, params, runs, stale
from severity.core.hierarchy import Hierarchy
from severity.predictions.predictions import Predictions
from severity.tree import costs


def main() -> None:
    settings = params.load()
    hierarchy = Hierarchy.read("data/hierarchy/hierarchy.json")
    study = comparisons.compare(
        lambda run: read(run, hierarchy),
        runs.scored(settings),
        hierarchy,
        costs.read("data/cost/cost.csv", hierarchy.classes),
        rules=settings["evaluate"]["rules"],
        batch_size=settings["evaluate"]["batch_size"],
        **settings["compare"],
    )
    with files.replacing("metrics/comparisons") as folder:
        folder.mkdir()
        for name, table in study.tables.items():
            files.write_csv(folder / f"{name}.csv", table)
        page = conclusions.page(study, stale.facts(settings))
        files.write_text(folder / "comparisons.md", page.markdown())
        page.write(folder / "page.json")
    print(f"metrics/comparisons: {', '.join(f'{len(table)} {name}' for name, table in study.tables.items())}")


def read(run: runs.Run, hierarchy: Hierarchy) -> Predictions | None:
    """The predictions of a run; None where there are none."""
    path = Path("data/predictions") / f"{run.name}.npz"
    return Predictions.read(path, hierarchy) if path.exists() else None


if __name__ == "__main__":
    errors.run(main)
