"""Cross-entropy: the most specific positives share the target mass; one class excludes the others."""

import numpy
import torch

from severity.errors import SeverityError
from severity.hierarchy import Hierarchy
from severity.links import SoftmaxLink
from severity.targets import MostSpecific


class Loss(SoftmaxLink):
    """-sum_j t_j log p_j with p = softmax(z) and t the distribution over the most specific positive classes.

    Args:
        hierarchy: the label tree; it only decides which positives are most specific.
        cost: not used.
        label_smoothing: share of the target mass spread evenly over all classes, in [0, 1).

    Raises:
        SeverityError: label_smoothing outside [0, 1).
    """

    def __init__(self, *, hierarchy: Hierarchy, cost: numpy.ndarray | None = None, label_smoothing: float = 0.0):
        super().__init__(hierarchy)
        if not 0 <= label_smoothing < 1:
            raise SeverityError(f"losses.ce.label_smoothing is {label_smoothing}; it must be in [0, 1).")
        self.label_smoothing = label_smoothing
        self.most_specific = MostSpecific(hierarchy)

    def per_image(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        weights, counts = self.most_specific(targets)
        weights = (1 - self.label_smoothing) * weights + self.label_smoothing / self.outputs
        return -(weights * logits.log_softmax(dim=1)).sum(dim=1), counts
