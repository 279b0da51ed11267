"""Hierarchical binary cross-entropy: conditional at first, unconditional in the last epochs."""

from collections.abc import Mapping

import numpy
import torch

from severity.core.hierarchy import Hierarchy
from severity.links.nodewise import NodewiseLink


class Loss(NodewiseLink):
    """As `hbce_conditional`, then for the last `finetune_epochs` epochs the mean over known nodes of BCE(P(n), t_n).

    Chen et al., "Deep hierarchical multi-label classification of chest X-ray images", Medical Image Analysis 66, 2020.
    P(n) is the product of the conditional probabilities down the path. The conditional loss learns each node from a
    cleaner set of images; the unconditional one then fits what is reported, the marginals. Both aim at the same
    quantities, so the link does not change with the loss.

    Both terms are cross-entropies of logits: that of P(n) comes from a recursion (see `NodewiseLink`), which equals
    log P = -sum softplus(-z_a), log(1 - P) = log(prod(1 + exp(-z_a)) - 1) - sum log(1 + exp(-z_a)).

    Args:
        hierarchy: the label tree.
        cost: not used.
        finetune_epochs: how many of the last epochs are unconditional; all where there are no more.
        pos_weight: as for `hbce_conditional`; ``balanced`` counts anew, over all images, for the last epochs.
        label_smoothing, gamma: see `severity.links.binary.BinaryCrossEntropy`.

    Raises:
        SeverityError: a label that is not a class.
    """

    def __init__(
        self,
        *,
        hierarchy: Hierarchy,
        cost: numpy.ndarray | None = None,
        finetune_epochs: int = 3,
        pos_weight: float | str | Mapping[str, float] = 1.0,
        label_smoothing: float = 0.0,
        gamma: float = 0.0,
    ):
        super().__init__(hierarchy, name="hbce", pos_weight=pos_weight, label_smoothing=label_smoothing, gamma=gamma)
        self.unconditional = self.binary("hbce", pos_weight, label_smoothing, gamma)
        self.finetune_epochs = finetune_epochs
        self.finetuning = False

    def at_epoch(self, epoch: int, epochs: int) -> None:
        self.finetuning = epoch >= epochs - self.finetune_epochs

    def observe(self, targets: torch.Tensor) -> None:
        super().observe(targets)
        if self.unconditional.balanced:
            self.unconditional.observe(*self._of_nodes(targets))

    def _of_nodes(self, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, n - 1) targets of the nodes by themselves, 0 where masked, and 1.0 where they are known, else 0.0."""
        own = self.node_targets(targets)[:, :-1]
        known = ~own.isnan()
        return torch.where(known, own, 0.0), known.to(own.dtype)

    def per_image(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.finetuning:
            cells, known, counts = self.conditional_cells(logits, targets)
            return cells.sum(dim=1) / known, counts
        aims, weights = self._of_nodes(targets)
        known = weights.sum(dim=1)
        return self.unconditional(self.products(logits), aims, weights).sum(dim=1) / known.clamp(min=1), known > 0
