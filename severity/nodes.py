"""Sums over the tree in torch: from classes to all nodes, level by level, without a table of all paths."""

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

    def log_sum_exp(self, logits: torch.Tensor) -> torch.Tensor:
        """(B, K) class logits -> (B, n) log of the summed exponentials of the classes at or below each node.

        Finite for finite logits, however far apart: each sum is taken relative to its own largest term.
        """
        values = logits
        for level in range(self.levels):
            children, slots, count = self._level(level)
            below = values[:, children]
            with torch.no_grad():
                index = slots.expand(len(below), -1)
                largest = below.new_full((len(below), count), -torch.inf).scatter_reduce(1, index, below, "amax")
            shifted = (below - largest[:, slots]).exp()
            sums = largest + values.new_zeros(len(values), count).index_add(1, slots, shifted).log()
            values = torch.cat([values, sums], dim=1)
        return values
