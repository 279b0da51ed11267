"""Hierarchical binary cross-entropy, conditional: each node is learnt from the images whose parent node is positive."""

from collections.abc import Mapping

import numpy
import torch

from severity.core.hierarchy import Hierarchy
from severity.links.nodewise import NodewiseLink


class Loss(NodewiseLink):
    """Sum over the nodes whose parent is positive of BCE(s(z_n), t_n), divided by the number of known nodes.

    Chen et al., "Deep hierarchical multi-label classification of chest X-ray images", Medical Image Analysis 66, 2020:
    s(z_n) is P(n | parent). A node is positive if any class at or below it is, negative if all of them are known to be
    negative, masked otherwise. The sum is -log of the probability of all labels at once. It is divided by the number of
    known nodes, not of nodes with a positive parent, so that images weigh as the likelihood says and a flat tree gives
    `bce` exactly.

    Args:
        hierarchy: the label tree.
        cost: not used.
        pos_weight: weight of a positive node: one number for all nodes; a mapping from labels to numbers, for their
            leaves; or ``balanced``: negatives / positives of each node among the images whose parent is positive.
        label_smoothing, gamma: see `severity.links.binary.BinaryCrossEntropy`.

    Raises:
        SeverityError: a label that is not a class.
    """

    def __init__(
        self,
        *,
        hierarchy: Hierarchy,
        cost: numpy.ndarray | None = None,
        pos_weight: float | str | Mapping[str, float] = 1.0,
        label_smoothing: float = 0.0,
        gamma: float = 0.0,
    ):
        super().__init__(
            hierarchy, name="hbce_conditional", pos_weight=pos_weight, label_smoothing=label_smoothing, gamma=gamma
        )

    def per_image(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cells, known, counts = self.conditional_cells(logits, targets)
        return cells.sum(dim=1) / known, counts
