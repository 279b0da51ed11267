"""What a loss aims at when an image has several labels: the most specific of them, or every node of the tree."""

import numpy
import torch

from severity.core.hierarchy import Hierarchy
from severity.links.nodes import NodeSums


class MostSpecific(torch.nn.Module):
    """From multi-hot targets to a distribution over the most specific positive classes, weight 1/|Y| each.

    A positive class counts unless a positive class lies below it in the tree: CheXpert's labeller writes Lung Opacity
    beside Pneumonia, and only Pneumonia says what is there.
    """

    def __init__(self, hierarchy: Hierarchy):
        super().__init__()
        general, below = _general_classes(hierarchy)
        self.register_buffer("general", torch.from_numpy(general), persistent=False)  # (G,)
        self.register_buffer("below", torch.from_numpy(below), persistent=False)  # (K, G)

    def forward(self, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Targets (B, K), 1, 0 or NaN = masked -> weights (B, K) whose rows sum to one, has_any (B,) bool.

        Masked counts as not positive, and so does a soft target up to one half. Rows without a positive are all zero
        and False in `has_any`: a softmax loss leaves them out.
        """
        positive = torch.nan_to_num(targets, nan=0.0) > 0.5
        if len(self.general):
            covered = positive.to(self.below.dtype) @ self.below > 0  # (B, G)
            positive[:, self.general] &= ~covered
        count = positive.sum(dim=1, keepdim=True)
        return positive.to(targets.dtype) / count.clamp(min=1), count[:, 0] > 0


class NodeTargets(torch.nn.Module):
    """From multi-hot targets to the targets of all nodes: a node is positive if any class at or below it is.

    A node's target is the largest below it. It is known when every class below is known, or when one is positive
    (above one half) whatever the others are; else it is masked. The root is 1: it stands for the image itself.

    An inner label's own leaf says "this and nothing more specific". Its target is the label's where no label below is
    positive, and masked where one is or may be.
    """

    def __init__(self, hierarchy: Hierarchy, sums: NodeSums):
        super().__init__()
        self.sums = sums
        general, below = _general_classes(hierarchy)
        self.register_buffer("general", torch.from_numpy(general), persistent=False)  # (G,)
        self.register_buffer("below", torch.from_numpy(below), persistent=False)  # (K, G)

    def forward(self, targets: torch.Tensor) -> torch.Tensor:
        """Targets (B, K), from 0 to 1 or NaN = masked -> (B, n) of the nodes, NaN = masked, columns as in `NodeSums`."""
        masked = targets.isnan()
        both = torch.cat([torch.where(masked, 0.0, targets), masked.to(targets.dtype)])
        highest, hidden = self.sums.maximum(both).chunk(2)
        aims = torch.where((hidden == 0) | (highest > 0.5), highest, torch.nan)
        aims[:, -1] = 1
        if len(self.general):
            below = self.below.to(targets.dtype)
            more = (torch.nan_to_num(targets, nan=0.0) > 0.5).to(targets.dtype) @ below > 0  # a label below is positive
            own = targets[:, self.general]
            unclear = (masked.to(targets.dtype) @ below > 0) & ~(own == 0)
            # Own leaves are the columns of their classes.
            aims[:, self.general] = torch.where(more | unclear, torch.nan, own)
        return aims


def _general_classes(hierarchy: Hierarchy) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The G classes that stand for an inner node, and (K, G) 1.0 where class k lies below the g-th of them."""
    general = numpy.array(list(hierarchy.general_classes), dtype=numpy.int64)
    below = numpy.zeros((len(hierarchy.classes), len(general)), dtype=numpy.float32)
    for column, others in enumerate(hierarchy.general_classes.values()):
        below[others, column] = 1
    return general, below
