"""Convert external predictions into a run.

Reads   params.yaml; data/external_predictions/<run>.csv, .csv.gz or .npz, data/hierarchy/hierarchy.json, and the truth
        that external.truth names: data/prepared, or data/collection; data/ids.key, where data.hidden_names is true
Writes  data/predictions/<run>.npz, in the form of a trained run's
Run     python -m stages.external --run chexnet-bce-0     two seconds for 22,433 images of 14 classes
"""

from pathlib import Path

from severity.collections import external_files, hidden_names
from severity.core import commands, errors, params, runs, stale
from severity.core.hierarchy import Hierarchy
from severity.external import conversion


def main() -> None:
    parser = commands.parser(__doc__)
    parser.add_argument("--run", required=True, help="a name of external.runs in params.yaml")
    run = runs.named(parser.parse_args().run).name
    settings = params.load()
    stale.mark(settings)
    options = dict(settings["external"])
    folder = options.pop("truth")
    options.pop("runs")
    sheet = external_files.read(external_files.find("data/external_predictions", run))
    truth = conversion.read_truth(folder)
    if settings["data"]["hidden_names"]:
        sheet = hidden_names.sheet(sheet, truth.frame["id"], hidden_names.read_key())
    predictions = conversion.convert(
        run,
        sheet,
        truth,
        Hierarchy.read("data/hierarchy/hierarchy.json"),
        settings["data"]["name"],
        **options,
    )
    predictions.write(Path("data/predictions") / f"{run}.npz")
    print(conversion.statement(predictions))


if __name__ == "__main__":
    errors.run(main)
