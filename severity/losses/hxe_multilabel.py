"""Hierarchical cross-entropy for several labels at once: conditional binary cross-entropies, weighted by depth."""

from collections.abc import Mapping

import numpy
import torch

from severity.core.hierarchy import Hierarchy
from severity.links.nodewise import NodewiseLink


class Loss(NodewiseLink):
    """Sum over the nodes whose parent is positive of lambda(n) BCE(s(z_n), t_n), divided by the number of known nodes.

    The multi-label sibling of `hxe` (Bertinetto et al., CVPR 2020, equation 5): that loss factorises the softmax
    likelihood of one class along its path and weighs each factor by lambda(n) = exp(-alpha depth(n)); this one does the
    same to the likelihood of independent sigmoids on a tree. alpha = 0 is `hbce_conditional`, a flat tree gives
    exp(-alpha) times `bce`. For alpha > 0 mistakes near the root weigh most.

    Args:
        hierarchy: the label tree.
        cost: not used.
        alpha: how fast the weight falls with depth; below 0 the leaves weigh most.
        pos_weight: as for `hbce_conditional`.
        label_smoothing, gamma: see `severity.links.binary.BinaryCrossEntropy`.

    Raises:
        SeverityError: a label that is not a class.
    """

    def __init__(
        self,
        *,
        hierarchy: Hierarchy,
        cost: numpy.ndarray | None = None,
        alpha: float = 0.1,
        pos_weight: float | str | Mapping[str, float] = 1.0,
        label_smoothing: float = 0.0,
        gamma: float = 0.0,
    ):
        super().__init__(
            hierarchy, name="hxe_multilabel", pos_weight=pos_weight, label_smoothing=label_smoothing, gamma=gamma
        )
        depth = torch.from_numpy(hierarchy.depth[self.sums.order[:-1]].astype(numpy.float64))
        self.register_buffer("weights", torch.exp(-alpha * depth), persistent=False)

    def per_image(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cells, known, counts = self.conditional_cells(logits, targets)
        return (cells * self.weights.to(cells.dtype)).sum(dim=1) / known, counts
