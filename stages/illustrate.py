"""Draw the figures that want images or trained networks, each with the table of what it shows.

Reads   params.yaml; data/images, data/prepared, data/models/<run>/history.csv of the grid's runs; metrics/runs/<run>.json of
        exactly the runs that params name: the grid's and the adopted
Writes  plots/<name>.png, .svg, .csv and .caption.txt: curves, mistakes, contact_sheet; without images (severity/alone.py)
        these say so
Run     python -m stages.illustrate     three seconds
"""

from pathlib import Path

import numpy
import pandas

from severity import alone, cells, decoded, drawing, errors, figures, params, prepared, runs, tables

FIGURES = ("curves", "mistakes", "contact_sheet")


def main() -> None:
    settings = params.load()
    if alone.without_images(settings):
        drawing.write_all({name: drawing.left_out(name, alone.WHY) for name in FIGURES}, "plots")
        print(alone.WHY)
        return
    data, trained = Path("data/prepared"), runs.grid(settings)
    wanted = settings["plot"]
    drawn = figures.draw_images(
        found=cells.read_runs("metrics/runs", runs.scored(settings), settings["evaluate"]["rules"]),
        histories=pandas.concat([history(run) for run in trained]) if trained else None,
        images=decoded.open_images("data/images"),
        ids=prepared.read_table(data).frame["id"],
        examples=numpy.load(data / "examples.npy"),
        example_rows=tables.read_text(data / "examples.csv", ["label", "id"]),
        cell=wanted["cell"],
        cells_shown=wanted["cells_shown"],
        mistakes=wanted["mistakes"],
        classes=wanted["classes"],
    )
    drawing.write_all(drawn, "plots")
    print(f"plots: {', '.join(drawn)}")


def history(run: runs.Run) -> pandas.DataFrame:
    """The training curve of one run, with the run's backbone, loss and seed as columns."""
    path = Path("data/models") / run.name / "history.csv"
    curve = tables.read_text(path, ["epoch", "train_loss", "validation_loss", "validation_macro_auroc", "best"])
    curve = curve.apply(lambda column: tables.numbers(column, column.name, path))
    return curve.assign(backbone=run.backbone, loss=run.loss, seed=run.seed)


if __name__ == "__main__":
    errors.run(main)
