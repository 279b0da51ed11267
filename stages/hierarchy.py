"""Build the label hierarchy and its costs.

Reads   data/hierarchies/ (hand-written trees), data/prepared/summary.json (which labels the data set has)
Writes  data/hierarchy/hierarchy.json, lca_height.npy, path.npy (what depends on the tree alone: training reads these)
        data/cost/cost.csv (the cost that params name: evaluation reads it, so a changed cost retrains nothing)
Run     python -m stages.hierarchy     about a second
"""

import numpy

from severity import costs, errors, files, params, prepared, trees


def main() -> None:
    settings = params.load()
    name = settings["datasets"][settings["data"]["name"]]["hierarchy"]
    hierarchy = trees.named("data/hierarchies", name, prepared.labels("data/prepared"))
    cost = params.call(costs.build, values=settings["cost"], where="cost", hierarchy=hierarchy)
    with files.replacing("data/hierarchy") as folder:
        folder.mkdir()
        hierarchy.write(folder / "hierarchy.json")
        for derived, function in costs.DERIVED.items():
            numpy.save(folder / f"{derived}.npy", function(hierarchy))
    costs.write("data/cost/cost.csv", cost, hierarchy.classes)
    print(f"{name}: {len(hierarchy.classes)} classes, {len(hierarchy.parents)} nodes, largest cost {cost.max():g}")


if __name__ == "__main__":
    errors.run(main)
