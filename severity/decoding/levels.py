"""What every form of image file shares: why one gives no picture, and levels of any range as 8 bits."""

import numpy
from PIL import Image

from severity.core.errors import SeverityError


class Unreadable(SeverityError):
    """An image file that gives no picture; the message is the reason, without the path."""


def scaled(values: numpy.ndarray, lowest: float, highest: float) -> numpy.ndarray:
    """Numbers from `lowest` to `highest` as uint8 from 0 to 255, rounded; all 0 where the two are equal."""
    if highest == lowest:
        return numpy.zeros(values.shape, numpy.uint8)
    shares = (values.astype(numpy.float64) - lowest) / (highest - lowest)
    return numpy.rint(255 * shares.clip(0, 1)).astype(numpy.uint8)


def too_large() -> Unreadable:
    """The reason for an image of more pixels than Pillow allows."""
    return Unreadable(f"more than {Image.MAX_IMAGE_PIXELS} pixels")


def check_extent(height: int, width: int) -> None:
    """The checks that Pillow makes for its own formats."""
    if not height or not width:
        raise Unreadable("it has no pixel")
    if height * width > Image.MAX_IMAGE_PIXELS:
        raise too_large()
