"""Draw the figures of the study, each with the table of what it shows.

Reads   params.yaml; data/images, data/prepared, data/hierarchy/hierarchy.json, data/cost/cost.csv, data/models/<run>/history.csv;
        metrics/runs/<run>.json of exactly the runs that the grid names
Writes  plots/<name>.png and plots/<name>.csv: tradeoff, labels, batches, curves, mistakes, tree, contact_sheet, cost
Run     python -m stages.plot     five seconds
"""

from pathlib import Path

import numpy
import pandas

from severity import cells, costs, decoded, drawing, errors, figures, params, prepared, runs, tables
from severity.hierarchy import Hierarchy


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


def history(run: runs.Run) -> pandas.DataFrame:
    """The training curve of one run, with the run's backbone, loss and seed as columns."""
    path = Path("data/models") / run.name / "history.csv"
    curve = tables.read_text(path, ["epoch", "train_loss", "validation_loss", "validation_macro_auroc", "best"])
    curve = curve.apply(lambda column: tables.numbers(column, column.name, path))
    return curve.assign(backbone=run.backbone, loss=run.loss, seed=run.seed)


if __name__ == "__main__":
    errors.run(main)
