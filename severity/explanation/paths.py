"""Hierarchical predictions for people: the path to the decision with the probability of every node on it.

    python -m severity.explanation.paths --predictions FILE.npz --id IMAGE      the tree of one image, as text
    python -m severity.explanation.paths --predictions FILE.npz --out FILE.csv  the paths of all images, as a table

FILE.npz is data/predictions/<run>.npz. `--rule` takes a rule that decides a class, or climb, each also with `_ts`:
temperature-scaled; the tree and the costs are those of the last `dvc repro`. Seconds.
"""

import argparse

import numpy
import pandas
import scipy.special

from severity.core import errors, files
from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy
from severity.decisions import class_rules, temperature
from severity.decisions.decider import CLIMB, Decider
from severity.predictions.predictions import Predictions
from severity.tree import costs


def table(predictions: Predictions, hierarchy: Hierarchy, nodes: numpy.ndarray) -> pandas.DataFrame:
    """The path from the root to the decided node of each image.

    Args:
        nodes: (N,) decided nodes.

    Returns:
        one row an image and step, in data-set order and from the root downward: id, split, depth, node, probability (of
        the node), given_parent (its share of the parent's), decided (1 at the last step of an image, else 0).
    """
    depth = hierarchy.depth[nodes]
    image = numpy.repeat(numpy.arange(len(nodes)), depth + 1)
    paths = {node: hierarchy.ancestors(node)[::-1] for node in numpy.unique(nodes).tolist()}
    step = numpy.array([each for node in nodes.tolist() for each in paths[node]], dtype=numpy.int64)
    probability = present(predictions)
    own = probability[image, step]
    above = numpy.where(step == hierarchy.root, own, probability[image, hierarchy.parents[step]])
    return pandas.DataFrame(
        {
            "id": predictions.ids[image],
            "split": predictions.split[image],
            "depth": hierarchy.depth[step],
            "node": numpy.array(hierarchy.names)[step],
            "probability": own,
            "given_parent": numpy.divide(own, above, out=numpy.zeros_like(own), where=above > 0),
            "decided": (step == nodes[image]).astype(int),
        }
    )


def present(predictions: Predictions) -> numpy.ndarray:
    """(N, n) probability that each node is present, as the predictions have it."""
    return scipy.special.expit(predictions.node_logits.astype(numpy.float64))


def text(probability: numpy.ndarray, hierarchy: Hierarchy, node: int, least: float) -> str:
    """The tree of one image, a line a node: a star on the path to the decided node, its probability, its name.

    Args:
        probability: (n,) of each node. node: the decided one. least: nodes of a smaller probability are left out, unless on
            the path.
    """
    path = set(hierarchy.ancestors(node))
    lines = []
    for each in hierarchy.top_down:
        if each in path or probability[each] >= least:
            star, end = "*" if each in path else " ", "  <- decided" if each == node else ""
            lines.append(
                f"{star} {probability[each]:.3f}  {'  ' * hierarchy.depth[each]}{hierarchy.names[each]}{end}\n"
            )
    return "".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", required=True, help="data/predictions/<run>.npz")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--id", help="an image of the predictions")
    action.add_argument("--out", help="the CSV file to write")
    words = [f"{rule}{suffix}" for suffix in ("", temperature.SUFFIX) for rule in (*class_rules.RULES, CLIMB)]
    parser.add_argument("--rule", default="argmax", choices=words)
    parser.add_argument("--threshold", type=float, default=0.5, help="of climb (default: 0.5)")
    parser.add_argument("--least", type=float, default=0.01, help="hide nodes less probable than this (default: 0.01)")
    parser.add_argument("--hierarchy", default="data/hierarchy/hierarchy.json")
    parser.add_argument("--cost", default="data/cost/cost.csv")
    given = parser.parse_args()
    hierarchy = Hierarchy.read(given.hierarchy)
    cost = costs.read(given.cost, hierarchy.classes)
    predictions = Predictions.read(given.predictions, hierarchy)
    nodes = Decider.of(predictions, hierarchy, cost).decide_nodes(given.rule, predictions, threshold=given.threshold)
    if given.out:
        files.write_csv(given.out, table(predictions, hierarchy, nodes))
        print(f"{given.out}: the paths of {len(nodes)} images under {given.rule}")
        return
    row = index(predictions, given.id)
    print(f"{given.id} ({predictions.split[row]}), {predictions.run}, {given.rule}: {hierarchy.names[nodes[row]]}")
    print(text(present(predictions.rows([row]))[0], hierarchy, nodes[row], given.least), end="")


def index(predictions: Predictions, image: str) -> int:
    """The row of an image. Raises SeverityError naming the nearest id when there is none."""
    rows = numpy.flatnonzero(predictions.ids == image)
    if not len(rows):
        # All ids would be a long message; the nearest few are named.
        near = errors.nearest(image, predictions.ids.tolist()).partition("Known:")[0]
        raise SeverityError(f"The predictions of {predictions.run} hold no image {image!r}. {near}".strip())
    return int(rows[0])


if __name__ == "__main__":
    errors.run(main)
