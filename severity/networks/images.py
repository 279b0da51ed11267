"""Batches of prepared images on the device, and their augmentation."""

import functools
import math

import numpy
import torch

# How many pixels are augmented at a time on a CPU: what stays in its cache.
AT_ONCE = 1 << 18


def batch(images: numpy.ndarray, rows: numpy.ndarray, device: torch.device) -> torch.Tensor:
    """Rows of (N, H, W) uint8 images (memory-mapped or not) -> (B, 1, H, W) float32 in [0, 1] on the device."""
    block = torch.from_numpy(images[rows])  # Indexing with an array copies just these rows out of the map.
    return scaled(block.to(device, non_blocking=True))


def scaled(block: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """(B, H, W) uint8 -> (B, 1, H, W) float32 in [0, 1], in memory of its own or in `out`."""
    return torch.div(block.unsqueeze(1), 255, out=out)


class Augmentation:
    """Random geometry, exposure, noise and erasing, drawn per image and applied to whole batches on the device.

    In the order of the arguments. What is 0 is left out, without an effect on what comes before it: its random numbers
    are the same with and without.

    Args:
        flip: probability of mirroring left and right. It puts the heart on the right, and dextrocardia is not what the
            label says: leave it at 0 for chests.
        rotation: largest angle, degrees.
        translation: largest shift, share of the side.
        scale: largest relative change of size.
        brightness: largest shift of the grey level, share of the range.
        contrast: largest relative change of contrast about the image's mean.
        gamma: grey levels are raised to a power between 1 / (1 + gamma) and 1 + gamma.
        noise: largest standard deviation of added normal noise, share of the range; each image has its own.
        erase: probability that a rectangle takes the image's mean grey level (Zhong et al., "Random erasing data
            augmentation", AAAI 2020), its sides in a ratio between 3 : 10 and 10 : 3.
        erase_area: largest share of the image that the rectangle covers.
    """

    def __init__(
        self,
        *,
        flip: float = 0.0,
        rotation: float,
        translation: float,
        scale: float,
        brightness: float,
        contrast: float,
        gamma: float = 0.0,
        noise: float = 0.0,
        erase: float = 0.0,
        erase_area: float = 0.2,
    ):
        self.ranges = {name: value for name, value in locals().items() if name != "self"}

    def __call__(
        self, block: torch.Tensor, generator: torch.Generator, whole: int | None = None, own: slice = slice(None)
    ) -> torch.Tensor:
        """(B, H, W) uint8 -> (B, 1, H, W) float32 in [0, 1] on the same device; `generator` is a CPU generator.

        Where several processes share a batch, `whole` is its number of images and `own` says which of them these are:
        an image's random numbers depend only on its place in the whole batch.
        """
        draws = self._draw(len(block) if whole is None else whole, own, block, generator)
        if "flip" in draws:
            # While a pixel is one byte; and picked from both ways round, for copying some into place is slow.
            ways = torch.arange(len(block)) + len(block) * (draws.pop("flip")[:, 0] < self.ranges["flip"])
            block = torch.cat([block, block.flip(2)]).index_select(0, ways.to(block.device))
        draws = {name: draw.to(block.device) for name, draw in draws.items()}
        if block.device.type != "cpu" or block.numel() <= AT_ONCE:
            return self._changed(scaled(block), draws)
        # A processor is several times as fast on few images, which stay in its cache from step to step.
        few = max(1, AT_ONCE // block[0].numel())
        changed = torch.empty(len(block), 1, *block.shape[1:])
        for start in range(0, len(block), few):
            part = slice(start, start + few)
            own_part = scaled(block[part], changed[part])
            images = self._changed(own_part, {name: draw[part] for name, draw in draws.items()})
            if images is not own_part:
                own_part.copy_(images)
        return changed

    def _draw(self, whole: int, own: slice, block: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """All random numbers of the `own` images of a batch of `whole`, (B, ...) each."""
        # Drawn on the CPU, so that the same seed augments alike on every device.
        draws = {"always": torch.rand(whole, 6, generator=generator).mul_(2).sub_(1)}
        draws |= {
            name: torch.rand(whole, count, generator=generator)
            for name, count in (("flip", 1), ("gamma", 1), ("noise", 1), ("erase", 5))
            if self.ranges[name]
        }
        draws = {name: draw[own] for name, draw in draws.items()}
        if self.ranges["noise"]:  # One number a pixel: drawn where it is needed, from a seed drawn on the CPU.
            seeded = torch.Generator(block.device)
            seeded.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            draws["grain"] = torch.randn((whole, 1, *block.shape[1:]), generator=seeded, device=block.device)[own]
        return draws

    def _changed(self, images: torch.Tensor, draws: dict[str, torch.Tensor]) -> torch.Tensor:
        """All steps after mirroring, some of them in place."""
        ranges, always = self.ranges, draws["always"]
        if ranges["rotation"] or ranges["translation"] or ranges["scale"]:
            grid = _grid(self._affine(always), images.shape[2:])
            images = torch.nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
        if ranges["brightness"] or ranges["contrast"]:
            # contrast * (level - mean) + mean + brightness, with as few passes over the pixels as there can be: memory
            # is what this step costs.
            contrast = _per_image(1 + ranges["contrast"] * always[:, 4])
            brightness = _per_image(ranges["brightness"] * always[:, 5])
            mean = images.mean(dim=(2, 3), keepdim=True)
            images = images.mul_(contrast).add_((1 - contrast) * mean + brightness).clamp_(0, 1)
        if ranges["gamma"]:
            images = images.pow(_per_image(((2 * draws["gamma"] - 1) * math.log1p(ranges["gamma"])).exp()))
        if ranges["noise"]:
            deviation = _per_image(ranges["noise"] * draws["noise"])
            images = draws["grain"].mul_(deviation).add_(images).clamp_(0, 1)
        if ranges["erase"]:
            images = self._erased(images, draws["erase"])
        return images

    def _affine(self, draws: torch.Tensor) -> torch.Tensor:
        """(B, 2, 3) maps from output to input coordinates, in units of half the side."""
        angle = draws[:, 0] * math.radians(self.ranges["rotation"])
        scale = 1 + self.ranges["scale"] * draws[:, 1]
        shift = 2 * self.ranges["translation"] * draws[:, 2:4]
        cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
        rows = torch.stack([torch.stack([cosine, -sine], dim=1), torch.stack([sine, cosine], dim=1)], dim=1)
        return torch.cat([rows, shift.unsqueeze(2)], dim=2)

    def _erased(self, images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        """`draws` (B, 5): whether, area, ratio of the sides, where from above, where from the left."""
        area, ratio = draws[:, 1] * self.ranges["erase_area"], (3 / 10) ** (2 * draws[:, 2] - 1)
        inside = torch.ones((), dtype=torch.bool, device=images.device)
        for axis, share, place in ((2, (area * ratio).sqrt(), draws[:, 3]), (3, (area / ratio).sqrt(), draws[:, 4])):
            share = share.clamp(max=1)
            first = _per_image(place * (1 - share))
            size = images.shape[axis]
            pixels = ((torch.arange(size, device=images.device) + 0.5) / size).view(
                1, 1, *((-1, 1) if axis == 2 else (1, -1))
            )
            inside = inside & (first <= pixels) & (pixels < first + _per_image(share))
        chosen = _per_image(draws[:, 0] < self.ranges["erase"])
        return torch.where(inside & chosen, images.mean(dim=(2, 3), keepdim=True), images)


def _per_image(values: torch.Tensor) -> torch.Tensor:
    return values.view(-1, 1, 1, 1)


def _grid(affine: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """(B, H, W, 2) coordinates to sample at: torch's affine_grid, its two planes made one after the other.

    That is ten times as fast on a CPU, and grid_sample reads both layouts equally well.
    """
    height, width = size
    planes = torch.bmm(affine, _coordinates(height, width, affine.device).expand(len(affine), 3, -1))
    return planes.view(len(affine), 2, height, width).permute(0, 2, 3, 1)


@functools.lru_cache(maxsize=4)
def _coordinates(height: int, width: int, device: torch.device) -> torch.Tensor:
    """(1, 3, H W): x and y of the centre of each pixel, from -1 to 1 at the edges of the image, and 1."""
    x, y = (torch.linspace(-1, 1, side) * (side - 1) / side for side in (width, height))
    planes = torch.stack([x.expand(height, width), y.unsqueeze(1).expand(height, width), torch.ones(height, width)])
    return planes.view(1, 3, -1).to(device)


def mixing(images: int, alpha: float, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """For each image of a batch its partner, (B,) int64, and its own share, (B,) float32 from Beta(alpha, alpha).

    Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018; a share of its own for each image.
    """
    partners = torch.randperm(images, generator=generator)
    numbers = numpy.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    return partners, torch.from_numpy(numbers.beta(alpha, alpha, images).astype(numpy.float32))
