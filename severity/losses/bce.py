"""Binary cross-entropy: each label by itself, masked where it is not known."""

from collections.abc import Mapping

import numpy
import torch

from severity.core.hierarchy import Hierarchy
from severity.links.binary import BinaryCrossEntropy
from severity.links.links import SigmoidLink
from severity.links.weighting import Weights


class Loss(SigmoidLink):
    """Mean over an image's known labels of -w t log s(z) - (1 - t) log(1 - s(z)), s the sigmoid; NaN targets masked.

    The mean is taken per image and then over images, so that an image with many masked labels weighs as much as any.

    Args:
        hierarchy: the label tree; only the class order is used.
        cost: not used.
        pos_weight: weight w of a positive label: one number for all labels; a mapping label -> number (others: 1); or
            ``balanced``: negatives / positives of each label among the training images.
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
        super().__init__(hierarchy)
        weights = Weights(pos_weight, hierarchy.classes, columns=self.outputs, where="losses.bce.pos_weight")
        self.binary = BinaryCrossEntropy(weights, label_smoothing=label_smoothing, gamma=gamma)

    def observe(self, targets: torch.Tensor) -> None:
        if self.binary.balanced:
            known = ~targets.isnan()
            self.binary.observe(torch.where(known, targets, 0.0), known.to(targets.dtype))

    def per_image(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        known = ~targets.isnan()
        each = self.binary(logits, torch.where(known, targets, 0.0), known.to(logits.dtype))
        count = known.sum(dim=1)
        return each.sum(dim=1) / count.clamp(min=1), count > 0
