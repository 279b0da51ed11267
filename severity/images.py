"""Batches of prepared images on the device, and their augmentation."""

import math

import numpy
import torch

from severity.errors import SeverityError


def batch(images: numpy.ndarray, rows: numpy.ndarray, device: torch.device) -> torch.Tensor:
    """Rows of (N, H, W) uint8 images (memory-mapped or not) -> (B, 1, H, W) float32 in [0, 1] on the device."""
    block = torch.from_numpy(images[rows])  # Indexing with an array copies just these rows out of the map.
    return block.to(device, non_blocking=True).unsqueeze(1).to(torch.float32).div_(255)


class Augmentation:
    """Random geometry and exposure, drawn per image and applied to whole batches on the device.

    No mirroring: it would put the heart on the right, and dextrocardia is not what the label says.

    Args:
        rotation: largest angle, degrees.
        translation: largest shift, share of the side.
        scale: largest relative change of size.
        brightness: largest shift of the grey level, share of the range.
        contrast: largest relative change of contrast about the image's mean.

    Raises:
        SeverityError: a negative number, or rotation above 180, translation or scale of 1 or more.
    """

    def __init__(self, *, rotation: float, translation: float, scale: float, brightness: float, contrast: float):
        limits = {"rotation": 180, "translation": 1, "scale": 1, "brightness": 1, "contrast": 1}
        self.ranges = dict(
            zip(limits, (rotation, translation, scale, brightness, contrast), strict=True),
        )
        for name, limit in limits.items():
            if not 0 <= self.ranges[name] < limit + (name == "rotation"):
                raise SeverityError(
                    f"params.yaml: train.augmentation.{name} is {self.ranges[name]}; it must be 0 or more and below "
                    f"{limit}."
                )

    def __call__(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """(B, 1, H, W) in [0, 1] -> the same shape and range; `generator` is a CPU generator."""
        # Drawn on the CPU, so that the same seed augments alike on every device.
        draws = torch.rand(len(images), 6, generator=generator).mul_(2).sub_(1).to(images.device)
        moved = torch.nn.functional.grid_sample(
            images,
            torch.nn.functional.affine_grid(self._affine(draws), list(images.shape), align_corners=False),
            padding_mode="border",
            align_corners=False,
        )
        contrast = 1 + self.ranges["contrast"] * draws[:, 4].view(-1, 1, 1, 1)
        brightness = self.ranges["brightness"] * draws[:, 5].view(-1, 1, 1, 1)
        mean = moved.mean(dim=(2, 3), keepdim=True)
        return ((moved - mean) * contrast + mean + brightness).clamp_(0, 1)

    def _affine(self, draws: torch.Tensor) -> torch.Tensor:
        """(B, 2, 3) maps from output to input coordinates, in units of half the side."""
        angle = draws[:, 0] * math.radians(self.ranges["rotation"])
        scale = 1 + self.ranges["scale"] * draws[:, 1]
        shift = 2 * self.ranges["translation"] * draws[:, 2:4]
        cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
        rows = torch.stack([torch.stack([cosine, -sine], dim=1), torch.stack([sine, cosine], dim=1)], dim=1)
        return torch.cat([rows, shift.unsqueeze(2)], dim=2)
