"""Build the label hierarchy and its costs.

Reads   data/hierarchies/ (hand-written trees), data/collection/collection.json (labels and facts of the data set)
Writes  data/hierarchy/hierarchy.json, lca_height.npy, path.npy (what depends only on the tree: training reads these)
        data/cost/cost.csv (the cost that params name: evaluation reads it, so a changed cost retrains nothing)
        data/cost/irma.json (only where classes are IRMA codes: what their score is made of)
Run     python -m stages.hierarchy     about a second
"""

import numpy

from severity.core import errors, files, params, stale
from severity.irma.facts import IrmaFacts
from severity.tree import costs, trees


def main() -> None:
    settings = params.load()
    stale.mark(settings)
    name = settings["datasets"][settings["data"]["name"]]["hierarchy"]
    # What is known before any image is decoded: external predictions need no more.
    about = files.read_json("data/collection/collection.json", "labels", "facts")
    irma = IrmaFacts.find(about["facts"])
    hierarchy = trees.named("data/hierarchies", name, about["labels"], about["facts"])
    cost = costs.build(**settings["cost"], hierarchy=hierarchy, irma=irma.cost if irma else None)
    with files.replacing("data/hierarchy") as folder:
        folder.mkdir()
        hierarchy.write(folder / "hierarchy.json")
        for derived, function in costs.DERIVED.items():
            numpy.save(folder / f"{derived}.npy", function(hierarchy))
    with files.replacing("data/cost") as folder:
        folder.mkdir()
        costs.write(folder / "cost.csv", cost, hierarchy.classes)
        if irma:
            irma.write(folder / "irma.json")
    print(f"{name}: {len(hierarchy.classes)} classes, {len(hierarchy.parents)} nodes, largest cost {cost.max():g}")


if __name__ == "__main__":
    errors.run(main)
