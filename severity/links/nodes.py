"""The tree in torch: from classes up to all nodes, down the paths, across siblings; never a table of all paths."""

from collections.abc import Callable

import numpy
import torch

from severity.core.hierarchy import Hierarchy

# Up to this many numbers, the table of which class is below which node is multiplied with at once: for small trees the
# calls of a pass level by level cost more than its arithmetic.
DENSE = 1 << 14


class NodeSums(torch.nn.Module):
    """Sums and log-sum-exps of the classes below every node.

    Nodes come out sorted by height (classes first, in class order, then inner nodes, the root last), so each level is
    made from columns that already exist: a pass costs one gather and one product a level.

    Args:
        dense: whether sums take one product with a (K, n) table instead; without it, if that is small.

    Attributes:
        order: (n,) node of the hierarchy in each output column.
        parent: (n - 1,) column of the parent of each column but the root's, which is the last.
    """

    def __init__(self, hierarchy: Hierarchy, dense: bool | None = None):
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
            self._add_level([[column[child] for child in hierarchy.children[node]] for node in parents])
        below = torch.zeros(len(self.classes), len(order))
        if dense or (dense is None and below.numel() <= DENSE):
            for place, node in enumerate(order):
                below[hierarchy.classes_below[node], place] = 1
        else:
            below = None
        self.register_buffer("below", below, persistent=False)

    def _add_level(self, families: list[list[int]]) -> None:
        """One height: for each of its nodes the columns of its children."""
        self.register_buffer(f"children_{self.levels}", torch.tensor(sum(families, [])), persistent=False)
        slots = torch.tensor([slot for slot, family in enumerate(families) for _ in family])
        self.register_buffer(f"slots_{self.levels}", slots, persistent=False)
        member = torch.nn.functional.one_hot(slots, len(families)).float()
        self.register_buffer(f"member_{self.levels}", member, persistent=False)
        self.levels += 1

    def _level(self, level: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Columns of the children, the slot of each among the nodes of this height, and that as a (children, slots) table."""
        return getattr(self, f"children_{level}"), getattr(self, f"slots_{level}"), getattr(self, f"member_{level}")

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """(B, K) class values -> (B, n) sums of the classes at or below each node."""
        if self.below is not None:
            return values @ self.below.to(values.dtype)
        return self._upward(values, lambda below, _, member: below @ member.to(below.dtype))

    def _upward(self, values: torch.Tensor, join: Callable[..., torch.Tensor]) -> torch.Tensor:
        """(B, K) class values -> (B, n): each level is `join` of its children's values, their slots, and the table of these."""
        found = values.new_empty(len(values), len(self.order))
        end = values.shape[1]
        found[:, :end] = values
        for level in range(self.levels):
            children, slots, member = self._level(level)
            found[:, end : end + member.shape[1]] = join(found.index_select(1, children), slots, member)
            end += member.shape[1]
        return found

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """(B, n) node values -> (B, K) sums over the path from each class to the root: the transpose of `sum`."""
        if self.below is not None:
            return values @ self.below.T.to(values.dtype)
        values = values.clone()
        for level in range(self.levels - 1, -1, -1):
            children, slots, member = self._level(level)
            end = values.shape[1]
            values[:, children] += values[:, end - member.shape[1] :][:, slots]
            values = values[:, : end - member.shape[1]]
        return values

    def maximum(self, values: torch.Tensor) -> torch.Tensor:
        """(B, K) class values -> (B, n) largest value at or below each node. Not for gradients."""
        return self._upward(values, lambda below, slots, member: _largest(below, slots, member.shape[1]))

    def weighted_log_sum_exp(self, logits: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """(B, K) class logits, (B, n) weights whose rows sum to 0 -> (B,) sum over the nodes of weight x `log_sum_exp`.

        As the weights sum to 0, what all logits of an image have in common does not count and is taken out. The
        gradient, weight x share of each class in its node, is written out: two passes over the tree in all, with the
        exponentials taken relative to the image's largest logit. Where a node that has a weight vanishes beside that,
        the sums are taken in log space instead. Gradients are for the logits alone, and of first order.
        """
        return _WeightedLogSumExp.apply(logits, weights, self)

    def log_sum_exp(self, logits: torch.Tensor) -> torch.Tensor:
        """(B, K) class logits -> (B, n) log of the summed exponentials of the classes at or below each node.

        Finite for finite logits, however far apart: each sum is taken relative to its own largest term.
        """
        values = logits
        for level in range(self.levels):
            children, slots, member = self._level(level)
            sums = segment_log_sum_exp(values[:, children], slots, member.shape[1])
            values = torch.cat([values, sums], dim=1)
        return values

    def sibling_log_softmax(self, logits: torch.Tensor) -> torch.Tensor:
        """(B, n - 1) logits of all nodes but the root -> log-softmax of each over itself and its siblings."""
        slots, count = self.parent - len(self.classes), len(self.order) - len(self.classes)
        return logits - segment_log_sum_exp(logits, slots, count)[:, slots]


class _WeightedLogSumExp(torch.autograd.Function):
    """See `NodeSums.weighted_log_sum_exp`."""

    @staticmethod
    def forward(ctx, logits: torch.Tensor, weights: torch.Tensor, nodes: NodeSums) -> torch.Tensor:
        classes = logits.shape[1]
        shifted = logits - logits.amax(dim=1, keepdim=True)
        shares = shifted.exp()
        sums = nodes.sum(shares)[:, classes:]
        inner = weights[:, classes:]
        # A node without a weight may vanish; its sum is of no use and only must not be 0.
        safe = torch.where(inner == 0, 1.0, sums)
        if bool((safe < SMALLEST[logits.dtype]).any()):
            with torch.enable_grad():
                leaves = shifted.requires_grad_()
                found = (weights * nodes.log_sum_exp(leaves)).sum(dim=1)
                (gradient,) = torch.autograd.grad(found.sum(), leaves)
            ctx.save_for_backward(gradient)
            return found.detach()
        own = weights[:, :classes]
        ctx.save_for_backward(own + shares * nodes.spread(torch.cat([torch.zeros_like(own), inner / safe], dim=1)))
        return (own * shifted).sum(dim=1) + (inner * safe.log()).sum(dim=1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return ctx.saved_tensors[0] * gradient[:, None], None, None


# Below these the logarithm of a sum, or its inverse, is no longer exact.
SMALLEST = {torch.float32: 1e-30, torch.float64: 1e-290}


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
                above = torch.from_numpy(place[parent[columns]])
                member = torch.nn.functional.one_hot(above, len(by_depth[level - 1])).float()
                self.register_buffer(f"above_{level}", above, persistent=False)
                self.register_buffer(f"member_{level}", member, persistent=False)
        self.levels = len(by_depth)
        back = torch.from_numpy(numpy.argsort(numpy.concatenate(by_depth), kind="stable"))
        self.register_buffer("back", back, persistent=False)

    def descend(self, values: torch.Tensor, join: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """(B, n - 1) values -> (B, n - 1) results: a node under the root keeps its value, another one's result is
        ``join(its value, its parent's result)``."""
        results = [values.index_select(1, self.columns_0)]
        for level in range(1, self.levels):
            above = results[-1].index_select(1, getattr(self, f"above_{level}"))
            results.append(join(values.index_select(1, getattr(self, f"columns_{level}")), above))
        return torch.cat(results, dim=1).index_select(1, self.back)

    def ascend(self, values: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        """(B, n - 1) values -> (B, n - 1) results: a node's value plus, for each child, factor x the child's result."""
        results = [values.index_select(1, getattr(self, f"columns_{self.levels - 1}"))]
        for level in range(self.levels - 1, 0, -1):
            passed = results[-1] * factors.index_select(1, getattr(self, f"columns_{level}"))
            own = values.index_select(1, getattr(self, f"columns_{level - 1}"))
            results.append(own + passed @ getattr(self, f"member_{level}").to(values.dtype))
        return torch.cat(results[::-1], dim=1).index_select(1, self.back)


def _largest(values: torch.Tensor, slots: torch.Tensor, count: int) -> torch.Tensor:
    """(B, m) values -> (B, count) largest value of each slot; every slot has one at least."""
    index = slots.expand(len(values), -1)
    return values.new_full((len(values), count), -torch.inf).scatter_reduce(1, index, values, "amax")


def segment_log_sum_exp(values: torch.Tensor, slots: torch.Tensor, count: int) -> torch.Tensor:
    """(B, m) values -> (B, count) log of the summed exponentials of each slot, relative to its largest term."""
    largest = _largest(values.detach(), slots, count)
    shifted = (values - largest[:, slots]).exp()
    return largest + values.new_zeros(len(values), count).index_add(1, slots, shifted).log()
