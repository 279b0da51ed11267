"""The numbers of docs/bce-vs-hxe.md: analytic gradients on a tree of six classes.

Reads   nothing
Writes  the tables of docs/bce-vs-hxe.md, between their marks; with --print the terminal instead
Run     python -m docs.bce_vs_hxe     a second
"""

import argparse
from pathlib import Path

import numpy
from scipy.special import expit, softmax

from severity.core import errors, markdown
from severity.core.hierarchy import Hierarchy
from severity.tree import costs
from tests.trees import six_classes

PAGE = Path(__file__).resolve().parent / "bce-vs-hxe.md"
TREE = six_classes()
ALPHAS = (-0.5, 0.0, 0.1, 0.5, 1.0)
SHOWN = (0.1, 0.5, 1.0)

# One image whose true class is d1, seen by a network that likes a.
TRUE = "d1"
LOGITS = {"a": 1.0, "b1": -0.5, "b2": -1.0, "c1": 0.3, "d1": 0.8, "d2": 0.7}
# One image with the labels b1 and c1, and one logit a node.
LABELS = ("b1", "c1")
NODE_LOGITS = {"a": -1.0, "B": 0.5, "b1": 0.8, "b2": -0.4, "C": 0.2, "c1": 0.3, "D": -0.2, "d1": 0.1, "d2": -0.6}
INNER = {0: "root", 2: "B", 5: "C", 7: "D"}
NODES = tuple(INNER.get(node, name) for node, name in enumerate(TREE.names))  # names as in the page
NULL_TRUTH = 1 / 3  # of each child of the root, for the example with weights by height


def weights(tree: Hierarchy, alpha: float) -> numpy.ndarray:
    """(n,) lambda of each node: exp(-alpha depth)."""
    return numpy.exp(-alpha * tree.depth)


def below(tree: Hierarchy) -> numpy.ndarray:
    """(n, K) 1 where a class lies at or below a node."""
    table = numpy.zeros((len(tree.parents), len(tree.classes)))
    for node, classes in enumerate(tree.classes_below):
        table[node, classes] = 1
    return table


def ce_gradient(z: numpy.ndarray, truth: numpy.ndarray) -> numpy.ndarray:
    """(K,) gradient of cross-entropy: p - t."""
    return softmax(z) - truth


def bce_gradient(z: numpy.ndarray, truth: numpy.ndarray) -> numpy.ndarray:
    """(K,) gradient of the mean of K binary cross-entropies: (sigmoid - y) / K."""
    return (expit(z) - truth) / len(z)


def hxe_gradient(z: numpy.ndarray, true: int, tree: Hierarchy, alpha: float) -> numpy.ndarray:
    """(K,) gradient of HXE for one true class: the sum over the path of lambda (p(. | parent) - p(. | child))."""
    return level_gradients(z, true, tree, alpha).sum(axis=0)


def level_gradients(z: numpy.ndarray, true: int, tree: Hierarchy, alpha: float) -> numpy.ndarray:
    """(D, K) the part of each level, from depth 1 down to the true class."""
    p, inside, decay = softmax(z), below(tree), weights(tree, alpha)
    given = inside * p / (inside @ p)[:, None]  # (n, K): p(class | node)
    path = tree.ancestors(tree.class_nodes[true])[::-1]
    return numpy.stack([decay[n] * (given[tree.parents[n]] - given[n]) for n in path[1:]])


def level_losses(z: numpy.ndarray, true: int, tree: Hierarchy) -> numpy.ndarray:
    """(D,) -log p(node | parent) along the path, from depth 1 down."""
    mass = below(tree) @ softmax(z)
    path = tree.ancestors(tree.class_nodes[true])[::-1]
    return numpy.array([-numpy.log(mass[n] / mass[tree.parents[n]]) for n in path[1:]])


def multilabel_gradient(z: numpy.ndarray, positive: numpy.ndarray, tree: Hierarchy, alpha: float) -> numpy.ndarray:
    """(n,) gradient of the multi-label sibling: lambda (sigmoid - y) where the parent is positive, over n - 1; root 0.

    Args:
        z: (n,) one logit a node; that of the root is not used.
        positive: (n,) 1 where a true class lies at or below the node, else 0.
    """
    parent = positive[tree.parents] * (tree.parents >= 0)
    return weights(tree, alpha) * parent * (expit(z) - positive) / (len(z) - 1)


def node_probabilities(z: numpy.ndarray, tree: Hierarchy) -> numpy.ndarray:
    """(n,) P(node), the product of the sigmoids down the path; 1 at the root."""
    found = numpy.ones(len(z))
    for node in tree.top_down[1:]:
        found[node] = found[tree.parents[node]] * expit(z[node])
    return found


def example() -> tuple[numpy.ndarray, int]:
    """Logits and true class of the single-label example."""
    return numpy.array([LOGITS[name] for name in TREE.classes]), TREE.classes.index(TRUE)


def multilabel_example() -> tuple[numpy.ndarray, numpy.ndarray]:
    """Logits (n,) and positive nodes (n,) of the multi-label example."""
    z = numpy.array([NODE_LOGITS.get(name, 0.0) for name in NODES])
    chosen = [TREE.classes.index(label) for label in LABELS]
    return z, below(TREE)[:, chosen].max(axis=1)


def probabilities_table() -> str:
    """Where the example's mass lies in the tree."""
    z, true = example()
    mass, path = below(TREE) @ softmax(z), TREE.ancestors(TREE.class_nodes[true])
    rows = []
    for node, name in enumerate(NODES):
        above = mass[TREE.parents[node]] if node != TREE.root else 1.0
        rows.append(
            [
                f"**{name}**" if node in path else name,
                str(TREE.depth[node]),
                f"{mass[node]:.4f}",
                f"{mass[node] / above:.4f}",
            ]
        )
    return markdown.table(["node", "depth", "P(n)", "P(n | parent)"], rows)


def levels_table() -> str:
    """Loss and pull of each level of the path."""
    z, true = example()
    losses = level_losses(z, true, TREE)
    rows = []
    for alpha in ALPHAS:
        pulls = numpy.abs(level_gradients(z, true, TREE, alpha)).sum(axis=1)
        decay = numpy.exp(-alpha * numpy.arange(1, len(losses) + 1))
        shares = [f"{100 * each:.1f} %" for each in pulls / pulls.sum()]
        rows.append(
            [f"{alpha:g}", *(f"{each:.3f}" for each in decay), f"{decay @ losses:.4f}", f"{pulls.sum():.4f}", *shares]
        )
    places = range(1, len(losses) + 1)
    headings = ["α", *(f"λ at depth {d}" for d in places), "loss", "pull", *(f"pull, depth {d}" for d in places)]
    return markdown.table(headings, rows)


def gradients_table() -> str:
    """Gradient with respect to each logit."""
    z, true = example()
    truth = numpy.eye(len(z))[true]
    columns = [bce_gradient(z, truth), ce_gradient(z, truth)]
    columns += [hxe_gradient(z, true, TREE, alpha) for alpha in SHOWN]
    rows = [
        [f"**{name}**" if name == TRUE else name, f"{value:.1f}", *(f"{column[k]:+.4f}" for column in columns)]
        for k, (name, value) in enumerate(zip(TREE.classes, z, strict=True))
    ]
    headings = ["class", "z", "BCE", "CE = HXE, α = 0", *(f"HXE, α = {alpha:g}" for alpha in SHOWN)]
    return markdown.table(headings, rows)


def decisions_table() -> str:
    """What argmax and CRM make of the example."""
    z, _ = example()
    p, cost = softmax(z), costs.lca_height(TREE)
    risk = cost @ p
    rows = [
        [
            name,
            f"{p[k]:.4f}" + (" ←" if k == p.argmax() else ""),
            f"{risk[k]:.4f}" + (" ←" if k == risk.argmin() else ""),
        ]
        for k, name in enumerate(TREE.classes)
    ]
    return markdown.table(["decision", "p", "expected LCA height"], rows)


def multilabel_table() -> str:
    """Gradient of the multi-label sibling with respect to each node's logit."""
    z, positive = multilabel_example()
    mass = node_probabilities(z, TREE)
    gradients = [multilabel_gradient(z, positive, TREE, alpha) for alpha in (0.0, 0.5, 1.0)]
    rows = []
    for node, name in enumerate(NODES):
        if node == TREE.root:
            continue
        silent = positive[TREE.parents[node]] == 0
        rows.append(
            [
                name,
                str(TREE.depth[node]),
                f"{positive[node]:.0f}",
                f"{z[node]:.1f}",
                f"{expit(z[node]):.4f}",
                f"{mass[node]:.4f}",
                *("0" if silent else f"{gradient[node]:+.4f}" for gradient in gradients),
            ]
        )
    headings = ["node", "depth", "y", "z", "P(n | parent)", "P(n)", "α = 0", "α = 0.5", "α = 1"]
    return markdown.table(headings, rows)


def height_table() -> str:
    """What weights by literal height make of three equally likely children of the root, alpha = 0.5."""
    children = TREE.children[TREE.root]
    scaled = NULL_TRUTH * numpy.exp(-0.5 * TREE.height[list(children)])
    best = scaled / scaled.sum()
    rows = [
        [
            NODES[child],
            str(TREE.depth[child]),
            str(TREE.height[child]),
            f"{NULL_TRUTH:.4f}",
            f"{NULL_TRUTH:.4f}",
            f"{p:.4f}",
        ]
        for child, p in zip(children, best, strict=True)
    ]
    headings = ["child of the root", "depth", "height", "truth q", "optimum, λ by depth", "optimum, λ by height"]
    return markdown.table(headings, rows)


TABLES = {
    "probabilities": probabilities_table,
    "levels": levels_table,
    "gradients": gradients_table,
    "decisions": decisions_table,
    "multilabel": multilabel_table,
    "height": height_table,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--print", action="store_true", help="print the tables and leave the page as it is")
    only_print = parser.parse_args().print
    for name, table in TABLES.items():
        if only_print:
            print(table())
        else:
            markdown.renew(PAGE, name, table())
    if not only_print:
        print(f"renewed {len(TABLES)} tables of {PAGE.name}")


if __name__ == "__main__":
    errors.run(main)
