"""How gradients become steps: AdamW, its parameter groups, the learning rate, the moving average of weights."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import timm.optim
import timm.utils
import torch


@dataclass(frozen=True)
class Schedule:
    """Learning rate of a step: linear from 0 over `warmup` steps, then half a cosine down to 0 at `total` steps."""

    peak: float
    warmup: int
    total: int

    def __call__(self, step: int) -> float:
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        share = (step - self.warmup) / max(1, self.total - self.warmup)
        return self.peak * 0.5 * (1 + math.cos(math.pi * share))


class Optimiser:
    """AdamW on a network and its loss, one call of `step` for each gradient.

    Args:
        trained: holds ``network`` and ``loss``.
        weight_decay: norms and biases do not decay.
        layer_decay: the learning rate of a layer is this times that of the layer behind it; 1 treats all alike.
        gradient_clip: largest norm of the gradient over all weights, the loss's included.
    """

    def __init__(
        self,
        trained: torch.nn.ModuleDict,
        schedule: Schedule,
        *,
        weight_decay: float,
        layer_decay: float,
        gradient_clip: float,
    ):
        self.schedule, self.gradient_clip = schedule, gradient_clip
        self.parameters = [*trained["network"].parameters(), *trained["loss"].parameters()]
        on_gpu = next(iter(self.parameters)).device.type == "cuda"
        # One kernel for all weights. On the CPU torch's default is kept.
        self.adamw = torch.optim.AdamW(
            _groups(trained, weight_decay, layer_decay), lr=schedule.peak, fused=True if on_gpu else None
        )

    def step(self, number: int) -> torch.Tensor:
        """Clip the gradient, step with the learning rate of step `number` of the training, forget the gradient.

        Returns:
            scalar: the norm of the gradient before it was clipped.
        """
        for group in self.adamw.param_groups:
            group["lr"] = self.schedule(number) * group.get("lr_scale", 1.0)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.gradient_clip)
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        return norm


def _groups(trained: torch.nn.ModuleDict, weight_decay: float, layer_decay: float) -> Iterable[dict[str, Any]]:
    if layer_decay == 1:
        return timm.optim.param_groups_weight_decay(trained, weight_decay)
    # timm knows the layers of its own models; others are cut into groups of twelve tensors, the classifier separately.
    layers = timm.optim.param_groups_layer_decay(trained["network"].network, weight_decay, layer_decay=layer_decay)
    own = timm.optim.param_groups_weight_decay(trained["loss"], weight_decay)
    return [group for group in (*layers, *own) if group["params"]]


def averaged(trained: torch.nn.Module, decay: float) -> timm.utils.ModelEmaV3 | None:
    """The exponential moving average of all weights, batch statistics included; None where `decay` is 0.

    In the first steps the decay is smaller, 1 - step^(-2/3): an average over few steps should not remember the start.
    """
    return timm.utils.ModelEmaV3(trained, decay=decay, use_warmup=True) if decay else None


class Watch:
    """Finds the first step whose loss or gradient is not finite, without making a GPU wait at every step."""

    def __init__(self, on: torch.device):
        self.every = 1 if on.type == "cpu" else 50
        self.first: torch.Tensor | None = None

    def see(self, number: int, loss: torch.Tensor, norm: torch.Tensor) -> None:
        """Take note of the step `number` of an epoch: its loss and the norm of its gradient, scalars on the device."""
        now = torch.stack([torch.full_like(loss, number), loss, norm.to(loss.dtype)])
        if self.first is None:
            self.first = now
        else:
            self.first = torch.where(torch.isfinite(self.first[1:]).all(), now, self.first)

    def spoiled(self, number: int, *, last: bool) -> tuple[int, float, float] | None:
        """The first bad step so far, its loss and its gradient's norm; None if there is none, or between two checks."""
        if not last and (number + 1) % self.every:
            return None
        first, loss, norm = self.first.tolist()
        return None if math.isfinite(loss) and math.isfinite(norm) else (int(first), loss, norm)
