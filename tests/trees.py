"""Trees that tests share: the six-class tree, a chain, a flat one, random ones, and the CheXpert default."""

from pathlib import Path

import numpy
from hypothesis import strategies

from severity.core.hierarchy import Hierarchy
from severity.datasets import chexpert
from severity.tree import trees

TOP = Path(__file__).resolve().parent.parent
# Trees whose labels the medmnist package knows, and a set that each is for; tests/test_medmnist.py holds them against it.
MEDMNIST = {
    "chestmnist": "chestmnist",
    "pneumoniamnist": "pneumoniamnist",
    "dermamnist": "dermamnist",
    "octmnist": "octmnist",
    "pathmnist": "pathmnist",
    "bloodmnist": "bloodmnist",
    "organmnist": "organamnist",
    "retinamnist": "retinamnist",
    "tissuemnist": "tissuemnist",
}


def six_classes() -> Hierarchy:
    """root -> a; B -> (b1, b2); C -> (c1, D -> (d1, d2)): leaves at depths 1, 2 and 3."""
    return Hierarchy.from_parents(
        #        root  a  B  b1 b2 C  c1 D  d1 d2
        parents=[-1, 0, 0, 2, 2, 0, 5, 5, 7, 7],
        class_nodes=[1, 3, 4, 6, 8, 9],
        classes=["a", "b1", "b2", "c1", "d1", "d2"],
    )


def flat(classes: int) -> Hierarchy:
    """All classes under the root."""
    return Hierarchy.from_parents(
        [-1] + [0] * classes, list(range(1, classes + 1)), [f"class {index}" for index in range(classes)]
    )


def chexpert_default() -> Hierarchy:
    """The tree of the default pipeline: 14 classes, three of them at inner nodes."""
    return trees.read(TOP / "data/hierarchies/chexpert_pleural.yaml", chexpert.LABELS)


def random_tree(seed: int, classes: int, inner: int) -> Hierarchy:
    """A random tree whose nodes and classes come in random order; some inner nodes are classes as well."""
    random = numpy.random.default_rng(seed)
    parents = [-1] + [int(random.integers(0, node)) for node in range(1, inner)]
    # A leaf under each childless inner node first, the rest anywhere.
    bare = [node for node in range(inner) if node not in parents]
    extra = [int(random.integers(0, inner)) for _ in range(max(0, classes - len(bare)))]
    leaves = list(range(inner, inner + len(bare) + len(extra)))
    parents += bare + extra
    own = random.choice(inner, size=int(random.integers(0, min(3, inner) + 1)), replace=False).tolist()
    class_nodes = leaves + own
    if len(class_nodes) < 2:
        class_nodes.append(len(parents))
        parents.append(0)
    order = random.permutation(len(parents))
    place = numpy.argsort(order)
    shuffled = [-1 if parents[node] < 0 else int(place[parents[node]]) for node in order]
    nodes = [int(place[node]) for node in random.permutation(class_nodes)]
    return Hierarchy.from_parents(shuffled, nodes, [f"class {index}" for index in range(len(nodes))])


def random_trees() -> strategies.SearchStrategy[Hierarchy]:
    """Hypothesis: trees of 2 to about 15 classes."""
    return strategies.builds(
        random_tree,
        seed=strategies.integers(0, 2**32 - 1),
        classes=strategies.integers(2, 12),
        inner=strategies.integers(1, 8),
    )
