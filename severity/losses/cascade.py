"""Cascade of softmaxes: one logit a node, a softmax over each set of siblings, products down the path."""

import operator

import numpy
import torch

from severity.core.hierarchy import Hierarchy
from severity.links.links import SoftmaxLink
from severity.links.nodes import NodePaths, NodeSums
from severity.links.targets import MostSpecific


class Loss(SoftmaxLink):
    """-sum over the edges from the true class to the root of lambda(child) log p(child | parent).

    Redmon and Farhadi, "YOLO9000: better, faster, stronger", CVPR 2017, section 4 (WordTree): p(child | parent) is the
    softmax over the child and its siblings, and p(class) the product down its path. lambda(node) is
    exp(-alpha depth(node)), as in `hxe`; theirs is alpha = 0, -log p(class). On a flat tree the loss is cross-entropy
    times exp(-alpha). For several most specific positives: the mean over them.

    Logits stand in the order of `NodeSums`: the leaves in class order, then the inner nodes by height.

    Args:
        hierarchy: the label tree.
        cost: not used.
        alpha: how fast the weight falls with depth; 0 or more weighs the root most, below 0 the leaves.

    Raises:
        SeverityError: alpha is not finite.
    """

    def __init__(self, *, hierarchy: Hierarchy, cost: numpy.ndarray | None = None, alpha: float = 0.0):
        super().__init__(hierarchy)
        self.outputs = len(hierarchy.parents) - 1
        self.most_specific = MostSpecific(hierarchy)
        self.sums = NodeSums(hierarchy)
        self.paths = NodePaths(hierarchy, self.sums)
        depth = torch.from_numpy(hierarchy.depth[self.sums.order[:-1]].astype(numpy.float64))
        self.register_buffer("weights", torch.exp(-alpha * depth), persistent=False)

    def class_logits(self, logits: torch.Tensor) -> torch.Tensor:
        # Their exponentials sum to one already, but for the rounding of many sums.
        log_p = self.paths.descend(self.sums.sibling_log_softmax(logits), operator.add)
        return log_p[:, : len(self.classes)]

    def per_image(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        truth, counts = self.most_specific(targets)
        mass = self.sums.sum(truth.to(logits.dtype))[:, :-1]  # (B, n - 1): target mass that passes each edge
        conditional = self.sums.sibling_log_softmax(logits)
        return -(mass * self.weights.to(logits.dtype) * conditional).sum(dim=1), counts
