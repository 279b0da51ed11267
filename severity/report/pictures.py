"""Pictures that are part of the page: made small enough, and written into it."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy
from PIL import Image

DPI = 150  # of the figures
WIDEST = 1200  # pixels of the picture of an explained image
THUMBNAIL = 224  # pixels


@dataclass(frozen=True)
class Picture:
    """A picture for an `img` element. src: the picture itself, as a data URL. width, height: in CSS pixels."""

    src: str
    width: int
    height: int


def _embedded(content: bytes, kind: str, width: int, height: int) -> Picture:
    return Picture(f"data:image/{kind};base64,{base64.b64encode(content).decode()}", width, height)


def figure(path: Path) -> Picture:
    """A figure as it is, in the size that it has on paper."""
    with Image.open(path) as image:
        width, height = (round(side * 96 / DPI) for side in image.size)
    return _embedded(path.read_bytes(), "png", width, height)


def shrunk(path: Path) -> Picture:
    """A picture as WebP, no wider than WIDEST."""
    with Image.open(path) as image:
        image = image.convert("RGB")
    if image.width > WIDEST:
        image = image.resize((WIDEST, round(image.height * WIDEST / image.width)), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "WEBP", quality=80, method=4)
    return _embedded(out.getvalue(), "webp", *image.size)


def thumbnail(pixels: numpy.ndarray) -> Picture:
    """An image of the study, (S, S) uint8, no wider than THUMBNAIL."""
    image = Image.fromarray(pixels)
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return _embedded(out.getvalue(), "png", *image.size)
