"""Binary cross-entropy: each label by itself, masked where it is not known."""

from collections.abc import Mapping

import numpy
import torch

from severity.errors import SeverityError, nearest
from severity.hierarchy import Hierarchy
from severity.links import SigmoidLink


class Loss(SigmoidLink):
    """Mean over an image's known labels of -w t log s(z) - (1 - t) log(1 - s(z)), s the sigmoid; NaN targets masked.

    The mean is taken per image and then over images, so that an image with many masked labels weighs as much as any.

    Args:
        hierarchy: the label tree; only the class order is used.
        cost: not used.
        pos_weight: weight w of a positive label: one number for all labels, or a mapping label -> number (others: 1).

    Raises:
        SeverityError: a weight that is not above 0, or a label that is not a class.
    """

    def __init__(
        self,
        *,
        hierarchy: Hierarchy,
        cost: numpy.ndarray | None = None,
        pos_weight: float | Mapping[str, float] = 1.0,
    ):
        super().__init__(hierarchy)
        self.register_buffer("pos_weight", _weights(pos_weight, hierarchy.classes), persistent=False)

    def per_image(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        known = ~targets.isnan()
        each = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, torch.where(known, targets, 0.0), pos_weight=self.pos_weight.to(logits.dtype), reduction="none"
        )
        count = known.sum(dim=1)
        return torch.where(known, each, 0.0).sum(dim=1) / count.clamp(min=1), count > 0


def _weights(pos_weight: float | Mapping[str, float], classes: tuple[str, ...]) -> torch.Tensor:
    if isinstance(pos_weight, Mapping):
        for label in pos_weight:
            if label not in classes:
                raise SeverityError(f"losses.bce.pos_weight: {label!r} is no class. {nearest(label, classes)}")
        weights = [pos_weight.get(label, 1.0) for label in classes]
    else:
        weights = [pos_weight] * len(classes)
    for label, weight in zip(classes, weights, strict=True):
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not weight > 0:
            raise SeverityError(f"losses.bce.pos_weight for {label!r} is {weight!r}; it must be a number above 0.")
    return torch.tensor(weights, dtype=torch.float64)
