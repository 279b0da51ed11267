"""Draw the figures of the study, each with the table of what it shows.

Reads   params.yaml; data/images, data/prepared, data/hierarchy/hierarchy.json, data/cost/cost.csv, data/models/<run>/history.csv;
        metrics/runs/<run>.json of exactly the runs that the grid names; of metrics/comparisons intervals.csv,
        label_intervals.csv and labels.csv
Writes  plots/<name>.png, .svg, .csv and .caption.txt: tradeoff, levels, labels, effects, confusion, ranking, reliability,
        batches, curves, mistakes, tree, contact_sheet, cost
Run     python -m stages.plot     ten seconds
"""

from pathlib import Path

import numpy
import pandas

from severity import cells, costs, decoded, drawing, errors, figures, files, params, prepared, runs, tables
from severity.hierarchy import Hierarchy

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
    grid = runs.grid(settings)
    data = Path("data/prepared")
    hierarchy = Hierarchy.read("data/hierarchy/hierarchy.json")
    drawn = params.call(
        figures.draw_all,
        values=settings["plot"],
        where="plot",
        found=cells.read_runs("metrics/runs", grid, settings["evaluate"]["rules"]),
        comparisons={name: comparison(name) for name in COMPARISONS},
        level=settings["compare"]["level"],
        histories=pandas.concat([history(run) for run in grid]),
        images=decoded.open_images("data/images"),
        ids=prepared.read_table(data).frame["id"],
        examples=numpy.load(data / "examples.npy"),
        example_rows=tables.read_text(data / "examples.csv", ["label", "id"]),
        hierarchy=hierarchy,
        train_counts=prepared.read_summary(data)["counts"]["train"]["labels"],
        cost=costs.read("data/cost/cost.csv", hierarchy.classes),
    )
    for name, picture in drawn.items():
        drawing.write(picture, f"plots/{name}")
    print(f"plots: {', '.join(drawn)}")


def comparison(name: str) -> pandas.DataFrame:
    """A table of metrics/comparisons."""
    words, numbers = COMPARISONS[name]
    return files.read_csv(f"metrics/comparisons/{name}.csv", words, numbers, "Run `dvc repro compare`.")


def history(run: runs.Run) -> pandas.DataFrame:
    """The training curve of one run, with the run's backbone, loss and seed as columns."""
    path = Path("data/models") / run.name / "history.csv"
    curve = tables.read_text(path, ["epoch", "train_loss", "validation_loss", "validation_macro_auroc", "best"])
    curve = curve.apply(lambda column: tables.numbers(column, column.name, path))
    return curve.assign(backbone=run.backbone, loss=run.loss, seed=run.seed)


if __name__ == "__main__":
    errors.run(main)
