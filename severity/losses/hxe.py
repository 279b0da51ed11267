"""Hierarchical cross-entropy: cross-entropy factorised along the path, each level with its own weight."""

import numpy
import torch

from severity.core.hierarchy import Hierarchy
from severity.links.links import SoftmaxLink
from severity.links.nodes import NodeSums
from severity.links.targets import MostSpecific


class Loss(SoftmaxLink):
    """-sum over the edges from the true class to the root of lambda(child) log p(child | parent).

    Bertinetto et al., "Making better mistakes: leveraging class hierarchies with deep networks", CVPR 2020, equation 5.
    p(node) is the sum of the softmax over the classes below it and lambda(node) = exp(-alpha depth(node)). The paper
    says height where its authors' code uses depth; we use depth, so for alpha > 0 errors near the root weigh most.
    With alpha = 0 and without normalising, the product telescopes and the loss is cross-entropy exactly. For several
    most specific positives: the mean over them.

    Everything is a sum of log-sum-exps over nodes, which do not underflow, so a class right under the root has a loss
    and a gradient like any other. The children of a node have one depth and so one lambda; with m the target mass below
    a node, the loss is -sum over nodes of m (lambda(node) - lambda(child)) log-sum-exp(node), where a leaf has no
    second term and the root no first.

    Args:
        hierarchy: the label tree.
        cost: not used.
        alpha: how fast the weight falls with depth; 0 or more weighs the root most, below 0 the leaves.
        normalize: divide by the sum of lambda over all nodes, the root's 1 included.
    """

    def __init__(
        self,
        *,
        hierarchy: Hierarchy,
        cost: numpy.ndarray | None = None,
        alpha: float = 0.1,
        normalize: bool = False,
    ):
        super().__init__(hierarchy)
        self.most_specific = MostSpecific(hierarchy)
        self.sums = NodeSums(hierarchy)
        depth = torch.from_numpy(hierarchy.depth[self.sums.order].astype(numpy.float64))
        above, below = torch.exp(-alpha * depth), torch.exp(-alpha * (depth + 1))
        scale = above.sum() if normalize else 1.0
        above[-1] = 0
        below[: self.outputs] = 0
        self.register_buffer("weights", (above - below) / scale, persistent=False)  # (n,)

    def per_image(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        truth, counts = self.most_specific(targets)
        mass = self.sums.sum(truth.to(logits.dtype))
        return -self.sums.weighted_log_sum_exp(logits, mass * self.weights.to(logits.dtype)), counts
