"""Take in predictions made elsewhere as a run.

Reads   params.yaml; data/elsewhere/<run>.csv, .csv.gz or .npz, data/hierarchy/hierarchy.json, and the truth that adopt.truth
        names: data/prepared, or data/collection
Writes  data/predictions/<run>.npz, in the form of a trained run's
Run     python -m stages.adopt --run chexnet-bce-0     two seconds for 22,433 images of 14 classes
"""

import argparse
from pathlib import Path

from severity.collections import external_files
from severity.core import errors, params, runs
from severity.core.hierarchy import Hierarchy
from severity.external import conversion


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="a name of adopt.runs in params.yaml")
    run = runs.named(parser.parse_args().run).name
    settings = params.load()
    options = dict(settings["adopt"])
    folder = options.pop("truth")
    options.pop("runs")
    predictions = params.call(
        conversion.adopt,
        run,
        external_files.read(external_files.find("data/elsewhere", run)),
        conversion.read_truth(folder),
        Hierarchy.read("data/hierarchy/hierarchy.json"),
        settings["data"]["name"],
        values=options,
        where="adopt",
    )
    predictions.write(Path("data/predictions") / f"{run}.npz")
    print(conversion.statement(predictions))


if __name__ == "__main__":
    errors.run(main)
