"""Cross-entropy: the most specific positives share the target mass; one class excludes the others."""

from collections.abc import Mapping

import numpy
import torch

from severity.core.hierarchy import Hierarchy
from severity.links.links import SoftmaxLink
from severity.links.targets import MostSpecific
from severity.links.weighting import Weights


class Loss(SoftmaxLink):
    """-sum_j w_j t_j (1 - p_j)^gamma log p_j, p = softmax(z), t the distribution over the most specific positive classes.

    The factor with gamma is that of Lin et al., "Focal loss for dense object detection", ICCV 2017. An image's loss is
    not divided by its weights, so that a batch's is the mean of its images'.

    Args:
        hierarchy: the label tree; it only decides which positives are most specific.
        cost: not used.
        label_smoothing: share of the target mass spread evenly over all classes, in [0, 1).
        class_weight: weight w of a class: one number for all; a mapping label -> number (others: 1); or ``balanced``:
            N / (K n_k), n_k the target mass of class k in the N training images, so that the mean image weighs 1.
        gamma: of the focal factor, 0 or more; 0 leaves it out.

    Raises:
        SeverityError: a label that is not a class.
    """

    def __init__(
        self,
        *,
        hierarchy: Hierarchy,
        cost: numpy.ndarray | None = None,
        label_smoothing: float = 0.0,
        class_weight: float | str | Mapping[str, float] = 1.0,
        gamma: float = 0.0,
    ):
        super().__init__(hierarchy)
        self.label_smoothing = label_smoothing
        self.gamma = gamma
        self.class_weight = Weights(
            class_weight, hierarchy.classes, columns=self.outputs, where="losses.ce.class_weight"
        )
        self.most_specific = MostSpecific(hierarchy)

    def observe(self, targets: torch.Tensor) -> None:
        if self.class_weight.balanced:
            mass = self.most_specific(targets)[0].double().sum(dim=0)
            self.class_weight.observe(mass.sum() / (len(mass) * mass))

    def per_image(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        weights, counts = self.most_specific(targets)
        weights = (1 - self.label_smoothing) * weights + self.label_smoothing / self.outputs
        weights = weights * self.class_weight(weights.dtype)
        log_p = logits.log_softmax(dim=1)
        if self.gamma:
            # Not below the smallest step of 1 - p: a power below one has no finite slope at 0.
            other = (-log_p.expm1()).clamp(min=torch.finfo(log_p.dtype).eps)
            weights = weights * other**self.gamma
        return -(weights * log_p).sum(dim=1), counts
