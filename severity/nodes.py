"""The tree in torch: from classes up to all nodes, down the paths, across siblings; never a table of all paths."""

from collections.abc import Callable

import numpy
import torch

from severity.hierarchy import Hierarchy


class NodeSums(torch.nn.Module):
    """Sums and log-sum-exps of the classes below every node.

    Nodes come out sorted by height (classes first, in class order, then inner nodes, the root last), so each level is
    made from columns that already exist: a pass costs one gather and one scatter a level, of B x edges numbers in all.

    Attributes:
        order: (n,) node of the hierarchy in each output column.
        parent: (n - 1,) column of the parent of each column but the root's, which is the last.
    """

    def __init__(self, hierarchy: Hierarchy):
        super().__init__()
        inner = [node for node in hierarchy.top_down if hierarchy.children[node]]
        inner.sort(key=lambda node: hierarchy.height[node])  # Stable: within a height the order of `top_down`.
        order = numpy.array([*hierarchy.class_nodes.tolist(), *inner])
        column = numpy.empty(len(order), dtype=numpy.int64)
        column[order] = numpy.arange(len(order))
        self.order = order
        self.classes = hierarchy.classes
        self.register_buffer("parent", torch.from_numpy(column[hierarchy.parents[order[:-1]]]), persistent=False)
        self.levels = 0
        for height in range(1, int(hierarchy.height.max()) + 1):
            parents = [node for node in inner if hierarchy.height[node] == height]
            children = [(child, slot) for slot, node in enumerate(parents) for child in hierarchy.children[node]]
            self._add_level(
                torch.tensor([column[child] for child, _ in children]), torch.tensor([slot for _, slot in children])
            )

    def _add_level(self, children: torch.Tensor, slots: torch.Tensor) -> None:
        """One height: the columns of the children, and which of this height's nodes each belongs to."""
        self.register_buffer(f"children_{self.levels}", children, persistent=False)
        self.register_buffer(f"slots_{self.levels}", slots, persistent=False)
        self.levels += 1

    def _level(self, level: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        slots = getattr(self, f"slots_{level}")
        return getattr(self, f"children_{level}"), slots, int(slots[-1]) + 1

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """(B, K) class values -> (B, n) sums of the classes at or below each node."""
        for level in range(self.levels):
            children, slots, count = self._level(level)
            sums = values.new_zeros(len(values), count).index_add(1, slots, values[:, children])
            values = torch.cat([values, sums], dim=1)
        return values

    def maximum(self, values: torch.Tensor) -> torch.Tensor:
        """(B, K) class values -> (B, n) largest value at or below each node. Not for gradients."""
        for level in range(self.levels):
            children, slots, count = self._level(level)
            values = torch.cat([values, _largest(values[:, children], slots, count)], dim=1)
        return values

    def log_sum_exp(self, logits: torch.Tensor) -> torch.Tensor:
        """(B, K) class logits -> (B, n) log of the summed exponentials of the classes at or below each node.

        Finite for finite logits, however far apart: each sum is taken relative to its own largest term.
        """
        values = logits
        for level in range(self.levels):
            children, slots, count = self._level(level)
            sums = segment_log_sum_exp(values[:, children], slots, count)
            values = torch.cat([values, sums], dim=1)
        return values

    def sibling_log_softmax(self, logits: torch.Tensor) -> torch.Tensor:
        """(B, n - 1) logits of all nodes but the root -> log-softmax of each over itself and its siblings."""
        slots, count = self.parent - len(self.classes), len(self.order) - len(self.classes)
        return logits - segment_log_sum_exp(logits, slots, count)[:, slots]


class NodePaths(torch.nn.Module):
    """Passes from the root down: each node's value joined with what its parent has become.

    Columns are those of `NodeSums`, without the root.
    """

    def __init__(self, hierarchy: Hierarchy, nodes: NodeSums):
        super().__init__()
        depth = hierarchy.depth[nodes.order[:-1]]
        parent = nodes.parent.numpy()
        place = numpy.empty(len(depth), dtype=numpy.int64)  # of each column among those of its depth
        by_depth = [numpy.flatnonzero(depth == level) for level in range(1, int(depth.max()) + 1)]
        for level, columns in enumerate(by_depth):
            place[columns] = numpy.arange(len(columns))
            self.register_buffer(f"columns_{level}", torch.from_numpy(columns), persistent=False)
            if level:
                self.register_buffer(f"above_{level}", torch.from_numpy(place[parent[columns]]), persistent=False)
        self.levels = len(by_depth)
        back = torch.from_numpy(numpy.argsort(numpy.concatenate(by_depth), kind="stable"))
        self.register_buffer("back", back, persistent=False)

    def descend(self, values: torch.Tensor, join: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """(B, n - 1) values -> (B, n - 1) results: a node under the root keeps its value, another one's result is
        ``join(its value, its parent's result)``."""
        results = [values[:, self.columns_0]]
        for level in range(1, self.levels):
            above = results[-1][:, getattr(self, f"above_{level}")]
            results.append(join(values[:, getattr(self, f"columns_{level}")], above))
        return torch.cat(results, dim=1)[:, self.back]


def _largest(values: torch.Tensor, slots: torch.Tensor, count: int) -> torch.Tensor:
    """(B, m) values -> (B, count) largest value of each slot; every slot has one at least."""
    index = slots.expand(len(values), -1)
    return values.new_full((len(values), count), -torch.inf).scatter_reduce(1, index, values, "amax")


def segment_log_sum_exp(values: torch.Tensor, slots: torch.Tensor, count: int) -> torch.Tensor:
    """(B, m) values -> (B, count) log of the summed exponentials of each slot, relative to its largest term."""
    largest = _largest(values.detach(), slots, count)
    shifted = (values - largest[:, slots]).exp()
    return largest + values.new_zeros(len(values), count).index_add(1, slots, shifted).log()
