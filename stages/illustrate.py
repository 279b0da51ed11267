"""Draw the figures that need images or trained networks, each with the table of what it shows.

Reads   params.yaml; data/images, data/prepared, data/models/<run>/history.csv of the grid's runs;
        metrics/runs/<run>.json of exactly the runs that params name: the grid's and the external ones
Writes  plots/images: of each figure <name>.png, .svg, .csv and .caption.txt (severity/figures/catalogue.py); without
        images (severity/core/without_images.py) they say so
Run     python -m stages.illustrate     three seconds
"""

from pathlib import Path

import pandas

from severity.core import archives, errors, params, runs, table_checks, tables, without_images
from severity.drawing import pictures, short_names
from severity.figures import catalogue
from severity.figures.shared.study import ImageStudy
from severity.metrics import record
from severity.prepared import decoded, prepared


def main() -> None:
    settings = params.load()
    if without_images.without_images(settings):
        names = catalogue.of_stage("illustrate")
        pictures.write_all({name: pictures.left_out(name, without_images.WHY) for name in names}, "plots/images")
        print(without_images.WHY)
        return
    records = record.read_runs("metrics/runs", runs.scored(settings), settings["evaluate"]["rules"])
    data, trained = Path("data/prepared"), runs.grid(settings)
    section, table = settings["plot"], prepared.read_table(data)
    study = ImageStudy(
        records=record.of_study(records, settings),
        configuration=section["configuration"],
        configurations_shown=section["configurations_shown"],
        classes=section["classes"],
        histories=pandas.concat([history(run) for run in trained]) if trained else None,
        images=decoded.open_images("data/images"),
        ids=table.frame["id"],
        examples=archives.read_npy(data / "examples.npy"),
        example_rows=tables.read_text(data / "examples.csv", ["label", "id"]),
        mistakes=section["mistakes"],
    )
    drawn = short_names.drawn(catalogue.draw, "illustrate", study, names=table.labels)
    pictures.write_all(drawn, "plots/images")
    print(f"plots/images: {', '.join(drawn)}")


def history(run: runs.Run) -> pandas.DataFrame:
    """The training curve of one run, with the run's backbone, loss and seed as columns."""
    path = Path("data/models") / run.name / "history.csv"
    curve = tables.read_text(path, ["epoch", "train_loss", "validation_loss", "validation_macro_auroc", "best"])
    curve = curve.apply(lambda column: table_checks.numbers(column, column.name, path))
    return curve.assign(backbone=run.backbone, loss=run.loss, seed=run.seed)


if __name__ == "__main__":
    errors.run(main)
