"""The tree of the nodes that labels and groups were given at, for decisions that name a set of labels and their metrics.

Here a label stands for the node it was given at, so that a label at an inner node says "this or something below it",
and the leaves of their own that such labels get elsewhere ("..., not further specified") play no part. A node is true
when a label at or below it is. The root is true of every image, unless it carries a label itself.
"""

from functools import cached_property

import numpy

from severity.core.hierarchy import Hierarchy


class LabelTree:
    """The tree of the nodes that labels and groups were given at.

    Attributes:
        nodes: (K,) the node of each label. parents: (g,) as in the hierarchy.
    """

    def __init__(self, hierarchy: Hierarchy):
        given = hierarchy.given_nodes
        self.nodes = hierarchy.stands_for
        self.parents = hierarchy.parents[:given]
        self.root = hierarchy.root
        self.top_down = [node for node in hierarchy.top_down if node < given]
        self.always = self.root not in self.nodes

    @cached_property
    def weights(self) -> numpy.ndarray:
        """(g,) weight of each node in the H-loss: 1 at the root, shared equally among the children of each node."""
        siblings = numpy.bincount(self.parents[self.parents >= 0], minlength=len(self.parents))
        weights = numpy.ones(len(self.parents))
        for node in self.top_down[1:]:
            weights[node] = weights[self.parents[node]] / siblings[self.parents[node]]
        return weights

    def highest(self, values: numpy.ndarray) -> numpy.ndarray:
        """(N, K) values of labels -> (g, N): for each node the largest among the labels at or below it, 0 for none."""
        found = numpy.zeros((len(self.parents), len(values)), dtype=values.dtype)
        found[self.nodes] = values.T
        for node in reversed(self.top_down[1:]):
            numpy.maximum(found[self.parents[node]], found[node], out=found[self.parents[node]])
        return found

    def closed(self, positive: numpy.ndarray) -> numpy.ndarray:
        """(N, K) bool sets of labels -> (g, N) bool: the nodes at and above them, the root always."""
        found = self.highest(positive)
        found[self.root] |= self.always
        return found
