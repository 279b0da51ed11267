"""Metrics of decisions that name a node of the tree, a class or a group of classes."""

from typing import Any

import numpy

from severity.arrays import subtrees
from severity.arrays.labelsets import most_specific, undetermined
from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy
from severity.metrics.class_metrics import has_truth

# What `score` says besides the number of images.
SCORES = (
    *("error", "unspecific", "stopped_inside", "worst_severity", "path_distance", "depth", "specificity"),
    "information",
)


def score(*, nodes: numpy.ndarray, labels: numpy.ndarray, cost: numpy.ndarray, hierarchy: Hierarchy) -> dict[str, Any]:
    """How often a decided node is wrong, how far off it is, and how much it says.

    Args:
        nodes: (N,) node indices. labels: (N, K) 1, 0 or NaN = masked; true are the most specific ones. Images without a
            true class are left out, and those where nobody can say whether the node is right (`unknown`).
        cost: (K, K) cost[decision, truth].

    Returns:
        images: the number of scored images. Where there is none, everything else is None.
        error: share whose node is neither a true class nor above one.
        unspecific: share whose node is right and above a true class, not the class itself.
        stopped_inside: share of decisions that are no class.
        worst_severity: mean cost of the dearest class that the decision leaves possible, min over the true classes of
            max over the classes below the node. For a class this is the usual severity; under `lca_height` it is the
            height of the lowest common ancestor of the truth and all classes below the node. Going up never lowers it:
            it is the price of saying less.
        path_distance: mean number of edges between the node and the nearest true class. Going up from a wrong class
            towards the truth lowers it, going up from a right one raises it.
        depth: mean depth. specificity: mean of 1 - height / height of the root: 1 at a class, 0 at the root.
        information: mean of log2(K / classes below the node), bits by which the decision narrows the choice.

    Raises:
        SeverityError: no image has a true class.
    """
    truth = most_specific(labels == 1, hierarchy)
    scored = has_truth(truth)
    if not scored.any():
        raise SeverityError(f"None of the {len(truth)} images has a true class, so no decision can be scored.")
    scored &= ~unknown(nodes, labels, hierarchy)
    if not scored.any():
        return {"images": 0, **dict.fromkeys(SCORES)}
    nodes, truth = nodes[scored], truth[scored]
    covers = _covers(hierarchy)
    leaf = hierarchy.height == 0
    right = (covers[nodes] & truth).any(axis=1)
    leaves = subtrees.leaf_counts(hierarchy)
    heights = hierarchy.height / hierarchy.height[hierarchy.root]
    return {
        "images": len(nodes),
        "error": float((~right).mean()),
        "unspecific": float((right & ~leaf[nodes]).mean()),
        "stopped_inside": float((~leaf[nodes]).mean()),
        "worst_severity": _mean_nearest(node_costs(cost, hierarchy), nodes, truth),
        "path_distance": _mean_nearest(path_distances(hierarchy), nodes, truth),
        "depth": float(hierarchy.depth[nodes].mean()),
        "specificity": float((1 - heights[nodes]).mean()),
        "information": float(numpy.log2(len(hierarchy.classes) / leaves[nodes]).mean()),
    }


def unknown(nodes: numpy.ndarray, labels: numpy.ndarray, hierarchy: Hierarchy) -> numpy.ndarray:
    """(N,) bool: where nobody can say whether a node is right. Of a class see `labelsets.undetermined`; of a group, where no
    label at or below it is true and one is masked.

    Args:
        nodes: (N,) node indices. labels: (N, K) 1, 0 or NaN = masked.
    """
    below = _covers(hierarchy)[nodes]
    class_of = numpy.full(len(hierarchy.parents), -1)
    class_of[hierarchy.class_nodes] = numpy.arange(len(hierarchy.classes))
    of_class = undetermined(labels, hierarchy)[numpy.arange(len(nodes)), class_of[nodes]]
    of_group = (below & numpy.isnan(labels)).any(axis=1) & ~(below & (labels == 1)).any(axis=1)
    return numpy.where(class_of[nodes] >= 0, of_class, of_group)


def node_costs(cost: numpy.ndarray, hierarchy: Hierarchy) -> numpy.ndarray:
    """(n, K) cost of deciding a node where a class is true: of the dearest class at or below the node."""
    return numpy.stack([cost[below].max(axis=0) for below in hierarchy.classes_below])


def path_distances(hierarchy: Hierarchy) -> numpy.ndarray:
    """(n, K) float64: number of edges between a node and the leaf of a class."""
    # The lowest ancestor of a node that covers the class is where the two paths meet.
    covers = _covers(hierarchy)
    meeting = numpy.zeros((len(hierarchy.parents), len(hierarchy.classes)), dtype=numpy.int64)
    for node in hierarchy.top_down:
        above = meeting[hierarchy.parents[node]] if node != hierarchy.root else 0
        meeting[node] = numpy.where(covers[node], hierarchy.depth[node], above)
    own = hierarchy.depth[hierarchy.class_nodes]
    return (hierarchy.depth[:, None] + own[None, :] - 2 * meeting).astype(numpy.float64)


def _covers(hierarchy: Hierarchy) -> numpy.ndarray:
    """(n, K) bool: the class is at or below the node."""
    covers = numpy.zeros((len(hierarchy.parents), len(hierarchy.classes)), dtype=bool)
    for node, below in enumerate(hierarchy.classes_below):
        covers[node, below] = True
    return covers


def _mean_nearest(table: numpy.ndarray, nodes: numpy.ndarray, truth: numpy.ndarray) -> float:
    """Mean over images of the least value of `table` (n, K) between the decided node and a true class."""
    return float(numpy.where(truth, table[nodes], numpy.inf).min(axis=1).mean())
