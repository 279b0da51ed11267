"""Weights of labels: one number, a number a label, or `balanced`, counted from the training images."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from severity.core.errors import SeverityError, nearest

BALANCED = "balanced"


class Weights(torch.nn.Module):
    """One weight a column, the first columns being those of the classes.

    Args:
        value: a number above 0 for all columns; a mapping from labels to such numbers (other columns: 1); or
            ``balanced``: what `observe` is given.
        classes: the labels of the first columns.
        columns: how many there are.
        where: the key in params.yaml, for messages.

    Raises:
        SeverityError: a label that is not a class.
    """

    def __init__(self, value: Any, classes: Sequence[str], *, columns: int, where: str):
        super().__init__()
        self.balanced = value == BALANCED
        self.where = where
        weights = torch.ones(columns, dtype=torch.float64)
        if isinstance(value, Mapping):
            for label, weight in value.items():
                if label not in classes:
                    raise SeverityError(f"{where}: {label!r} is no class. {nearest(label, classes)}")
                weights[list(classes).index(label)] = weight
        elif not self.balanced:
            weights[:] = value
        self.register_buffer("weights", None if self.balanced else weights, persistent=False)

    def observe(self, weights: torch.Tensor) -> None:
        """Take (columns,) weights counted from the training images; 1 for a column where they are 0, infinite or NaN."""
        usable = torch.isfinite(weights) & (weights > 0)
        self.weights = torch.where(usable, weights, 1.0).double()

    def forward(self, dtype: torch.dtype) -> torch.Tensor:
        """(columns,) weights. Raises SeverityError when they are to be balanced and no image was observed yet."""
        if self.weights is None:
            raise SeverityError(
                f"{self.where} is 'balanced': call the loss's `observe` with the training targets first."
            )
        return self.weights.to(dtype)
