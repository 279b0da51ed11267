"""Take in predictions made elsewhere as a run.

Reads   params.yaml; data/elsewhere/<run>.csv, .csv.gz or .npz, data/hierarchy/hierarchy.json, and the truth that adopt.truth
        names: data/prepared, or data/collection
Writes  data/predictions/<run>.npz, in the form of a trained run's
Run     python -m stages.adopt --run chexnet-bce-0     two seconds for 22,433 images of 14 classes
"""

import argparse
from pathlib import Path

from severity import adoption, elsewhere, errors, params, runs
from severity.hierarchy import Hierarchy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="a name of adopt.runs in params.yaml")
    run = runs.named(parser.parse_args().run).name
    settings = params.load()
    options = dict(settings["adopt"])
    folder = options.pop("truth")
    options.pop("runs")
    predictions = params.call(
        adoption.adopt,
        run,
        elsewhere.read(elsewhere.find("data/elsewhere", run)),
        adoption.read_truth(folder),
        Hierarchy.read("data/hierarchy/hierarchy.json"),
        settings["data"]["name"],
        values=options,
        where="adopt",
    )
    predictions.write(Path("data/predictions") / f"{run}.npz")
    print(adoption.statement(predictions))


if __name__ == "__main__":
    errors.run(main)
