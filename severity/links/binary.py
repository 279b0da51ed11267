"""Binary cross-entropy with what users ask of it: weights of positives, label smoothing, the focal factor."""

import torch

from severity.links.weighting import Weights


class BinaryCrossEntropy(torch.nn.Module):
    """-w t (1 - s(z))^gamma log s(z) - (1 - t) s(z)^gamma log(1 - s(z)), s the sigmoid, cell by cell.

    The factors with gamma are those of Lin et al., "Focal loss for dense object detection", ICCV 2017, equation 4.
    Everything is in log space: nothing overflows, and a confident mistake keeps its gradient.

    Args:
        pos_weight: the weight w of each column.
        label_smoothing: targets become (1 - label_smoothing) t + label_smoothing / 2; in [0, 1).
        gamma: 0 or more; 0 is plain cross-entropy, above 0 cells that are right already count less.
    """

    def __init__(self, pos_weight: Weights, *, label_smoothing: float, gamma: float):
        super().__init__()
        self.pos_weight = pos_weight
        self.balanced = pos_weight.balanced
        self.label_smoothing = label_smoothing
        self.gamma = gamma

    def forward(self, logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """(B, m) logits, targets in [0, 1] and weights of the cells, 0 = masked -> (B, m) losses."""
        if self.label_smoothing:
            targets = (1 - self.label_smoothing) * targets + self.label_smoothing / 2
        pos_weight = self.pos_weight(logits.dtype)
        if not self.gamma:
            return torch.nn.functional.binary_cross_entropy_with_logits(
                logits, targets, weight=weights, pos_weight=pos_weight, reduction="none"
            )
        log_yes, log_no = torch.nn.functional.logsigmoid(logits), torch.nn.functional.logsigmoid(-logits)
        positive = pos_weight * targets * (self.gamma * log_no).exp() * log_yes
        negative = (1 - targets) * (self.gamma * log_yes).exp() * log_no
        return -weights * (positive + negative)

    def observe(self, targets: torch.Tensor, weights: torch.Tensor) -> None:
        """Balance the columns: negatives / positives among all training cells, (N, m) targets and weights as in `forward`."""
        positives = (weights * targets).double().sum(dim=0)
        self.pos_weight.observe((weights.double().sum(dim=0) - positives) / positives)
