"""Draw the figures of the scores, each with the table of what it shows. No image is needed.

Reads   params.yaml; data/hierarchy/hierarchy.json, data/cost/cost.csv; metrics/runs/<run>.json of exactly the runs that
        params name: the grid's and the adopted
Writes  plots/<name>.png and plots/<name>.csv: tradeoff, labels, batches, tree, cost
Run     python -m stages.plot     four seconds
"""

from severity import cells, costs, drawing, errors, figures, params, runs
from severity.hierarchy import Hierarchy


def main() -> None:
    settings = params.load()
    hierarchy = Hierarchy.read("data/hierarchy/hierarchy.json")
    wanted = settings["plot"]
    drawn = figures.draw_scores(
        found=cells.read_runs("metrics/runs", runs.scored(settings), settings["evaluate"]["rules"]),
        hierarchy=hierarchy,
        cost=costs.read("data/cost/cost.csv", hierarchy.classes),
        cell=wanted["cell"],
        labels=wanted["labels"],
        classes=wanted["classes"],
    )
    for name, picture in drawn.items():
        drawing.write(picture, f"plots/{name}")
    print(f"plots: {', '.join(drawn)}")


if __name__ == "__main__":
    errors.run(main)
