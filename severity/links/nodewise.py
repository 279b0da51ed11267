"""Links with one sigmoid a node: the probability of a node, given its parent."""

from collections.abc import Mapping

import torch

from severity.arrays import tree_model
from severity.core.hierarchy import Hierarchy
from severity.links.binary import BinaryCrossEntropy
from severity.links.links import TORCH, PresenceLink
from severity.links.nodes import NodePaths, NodeSums
from severity.links.targets import NodeTargets
from severity.links.weighting import Weights


class NodewiseLink(PresenceLink):
    """One logit z a node but the root; s(z_n) = P(n | parent of n), and P(n) is the product down the path.

    A label that stands for an inner node has a leaf of its own below it, "this and nothing more specific". What is not
    further specified is known from the children being absent, so the leaf has a logit for the sake of one form, and its
    probability is computed: P(node) x prod (1 - P(child | node)) (see `severity.arrays.tree_model`). On a flat tree the link
    is the sigmoid link.

    P(n) has the logit u_n with exp(-u_n) = (1 + exp(-z_n)) (1 + exp(-u_parent)) - 1: no product is ever taken.

    Logits stand in the order of `NodeSums`: the leaves in class order, then the inner nodes by height.
    """

    def __init__(
        self,
        hierarchy: Hierarchy,
        *,
        name: str,
        pos_weight: float | str | Mapping[str, float],
        label_smoothing: float,
        gamma: float,
    ):
        super().__init__(hierarchy)
        self.outputs = len(hierarchy.parents) - 1
        self.sums = NodeSums(hierarchy)
        self.paths = NodePaths(hierarchy, self.sums)
        self.node_targets = NodeTargets(hierarchy, self.sums)
        self.conditional = self.binary(name, pos_weight, label_smoothing, gamma)

    def binary(self, name: str, pos_weight, label_smoothing: float, gamma: float) -> BinaryCrossEntropy:
        """Binary cross-entropy with one column a node."""
        weights = Weights(pos_weight, self.classes, columns=self.outputs, where=f"losses.{name}.pos_weight")
        return BinaryCrossEntropy(weights, label_smoothing=label_smoothing, gamma=gamma)

    def products(self, logits: torch.Tensor) -> torch.Tensor:
        """(B, n - 1) logits given the parent -> (B, n - 1) logits of the nodes by themselves, in the order of `NodeSums`."""
        return _NodeLogits.apply(logits, self.sums.parent, self.paths)

    def columns(self, logits: torch.Tensor) -> list[torch.Tensor | None]:
        columns: list[torch.Tensor | None] = [None] * len(self.hierarchy.parents)
        for node, column in zip(self.sums.order[:-1].tolist(), self.products(logits).unbind(dim=1), strict=True):
            columns[node] = column
        return tree_model.with_own_leaves(columns, self.hierarchy, TORCH)

    def observe(self, targets: torch.Tensor) -> None:
        if self.conditional.balanced:
            self.conditional.observe(*self.given_parent(targets)[:2])

    def given_parent(self, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What a node's logit aims at: targets given the parent, the weight of that, and which nodes are known.

        For targets 0 and 1 the weight is 1 where the parent is positive and 0 where it is not. A soft target t below a
        soft parent q aims at t / q with the weight q, so that q times the binary cross-entropy is the expectation over
        whether the parent is there. A node whose parent is masked is masked.

        Args:
            targets: (B, K), NaN = masked.

        Returns:
            three of (B, n - 1): targets, weights (0 where masked), known (bool).
        """
        nodes = self.node_targets(targets)
        own, above = nodes[:, :-1], nodes[:, self.sums.parent]
        known = ~(own.isnan() | above.isnan())
        weights = torch.where(known, above, 0.0)
        return torch.where(weights > 0, own / above, 0.0), weights, known

    def conditional_cells(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(B, n - 1) conditional losses; (B,) the number of known nodes, 1 at least; (B,) bool: does any say something?"""
        aims, weights, known = self.given_parent(targets)
        cells = self.conditional(logits, aims, weights)
        return cells, known.sum(dim=1).clamp(min=1), (weights > 0).any(dim=1)


class _NodeLogits(torch.autograd.Function):
    """Logits given the parent -> logits of the nodes by themselves, the gradient written out.

    With s the sigmoid, d u_n / d u_parent = s(-u_parent) / s(-u_n) and d u_n / d z_n = s(-z_n) / s(-u_n); as P falls down
    a path, both lie in [0, 1].
    """

    @staticmethod
    def forward(ctx, logits: torch.Tensor, parent: torch.Tensor, paths: NodePaths) -> torch.Tensor:
        found = paths.descend(logits, _and)
        ctx.save_for_backward(logits, found, parent)
        ctx.paths = paths
        return found

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        logits, found, parent = ctx.saved_tensors
        absent = -_softplus(found)  # log(1 - P)
        # The root is always there: its column, the last, is never asked for.
        above = torch.nn.functional.pad(absent, (0, 1)).index_select(1, parent)
        total = ctx.paths.ascend(gradient, (above - absent).exp())
        return total * (-_softplus(logits) - absent).exp(), None, None


def _and(logit: torch.Tensor, above: torch.Tensor) -> torch.Tensor:
    """The logit of s(logit) s(above)."""
    other = _softplus(-logit) - above
    return -torch.maximum(-logit, other) - _log_one_plus_exp_of_minus((logit + other).abs())


def _softplus(values: torch.Tensor) -> torch.Tensor:
    return values.clamp(min=0) + _log_one_plus_exp_of_minus(values.abs())


def _log_one_plus_exp_of_minus(distances: torch.Tensor) -> torch.Tensor:
    """log(1 + exp(-d)), exact to rounding of 1: enough for a logit, and ten times as fast on a CPU as with log1p."""
    return (1 + (-distances).exp()).log()
