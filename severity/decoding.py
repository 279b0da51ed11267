"""Image files to gray levels: one file, or a whole collection in parallel."""

import os
import struct
import warnings
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import numpy
from PIL import Image, UnidentifiedImageError

from severity.errors import SeverityError
from severity.runs import die_with_parent

FORMATS = ("JPEG", "PNG", "TIFF")
CHUNK = 64  # images a task: large enough to hide the cost of a task, small enough to hold many
# What Pillow raises on damaged files.
DAMAGE = (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error)


class Unreadable(SeverityError):
    """An image file that gives no picture; the message is the reason, without the path."""


def read_gray(path: Path | str) -> Image.Image:
    """Read an image file as 8-bit gray (mode L), whatever its own mode.

    Colour becomes luma (ITU-R 601-2; gray stored as RGB stays exact), transparency is dropped, 16-bit gray is scaled from
    0..65535 to 0..255.

    Raises:
        Unreadable: the file is missing, truncated, damaged, absurdly large, or not JPEG, PNG or TIFF.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of oddities in metadata; the pixels are what counts.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                return _to_gray(image)
    except Unreadable:
        raise
    except FileNotFoundError:
        raise Unreadable("no such file") from None
    except UnidentifiedImageError:
        raise Unreadable(f"not an image of a format read here ({', '.join(FORMATS)})") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise Unreadable(f"more than {Image.MAX_IMAGE_PIXELS} pixels") from None
    except DAMAGE as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Unreadable(reason or type(error).__name__) from None


def _to_gray(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        levels = numpy.asarray(image).astype(numpy.uint32)
        return Image.fromarray(((levels * 255 + 32767) // 65535).astype(numpy.uint8))
    if image.mode in ("I", "F"):
        raise Unreadable(f"32-bit gray levels (mode {image.mode}) have no agreed range; store 8 or 16 bits")
    return image.convert(Image.getmodebase(image.mode)).convert("L")


def squashed(image: Image.Image, size: int) -> numpy.ndarray:
    """A gray image resized to (size, size) uint8, whatever its aspect: the custom of the field. Antialiased."""
    return numpy.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def padded(image: Image.Image, size: int) -> numpy.ndarray:
    """A gray image resized until its longest side is `size`, centred on black: (size, size) uint8."""
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    canvas = Image.new("L", (size, size))
    canvas.paste(image.resize((width, height), Image.Resampling.BILINEAR), ((size - width) // 2, (size - height) // 2))
    return numpy.asarray(canvas)


def decode(
    root: Path | str, paths: Sequence[str], *, size: int, workers: int
) -> Iterator[tuple[numpy.ndarray, list[str]]]:
    """Read images in parallel; yield them in order, chunk by chunk, whatever the number of workers.

    Args:
        root: folder that `paths` are relative to.
        paths: image files.
        size: edge of the square they are squashed to.
        workers: processes; 0 is one a core, 1 decodes in this process.

    Yields:
        For each chunk of at most CHUNK paths: the readable images (n, size, size) uint8, and one reason a path, '' where
        it was readable.

    Raises:
        SeverityError: a process died.
    """
    chunks = ((str(root), paths[start : start + CHUNK], size) for start in range(0, len(paths), CHUNK))
    workers = min(workers or _cores(), -(-len(paths) // CHUNK))
    if workers <= 1:
        yield from map(_decode_chunk, chunks)
        return
    # Spawned, not forked: a forked process inherits the locks of threads that it does not inherit.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=die_with_parent) as pool:
        pending = deque(pool.submit(_decode_chunk, chunk) for chunk in islice(chunks, 3 * workers))
        try:
            while pending:
                done = pending.popleft().result()
                pending.extend(pool.submit(_decode_chunk, chunk) for chunk in islice(chunks, 1))
                yield done
        except BrokenProcessPool:
            raise SeverityError(
                "A process that decodes images died, likely for want of memory. Lower prepare.workers in params.yaml."
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _decode_chunk(chunk: tuple[str, Sequence[str], int]) -> tuple[numpy.ndarray, list[str]]:
    root, paths, size = chunk
    images = numpy.empty((len(paths), size, size), numpy.uint8)
    reasons = []
    readable = 0
    for path in paths:
        try:
            images[readable] = squashed(read_gray(os.path.join(root, path)), size)
        except Unreadable as error:
            reasons.append(str(error))
        else:
            reasons.append("")
            readable += 1
    return images[:readable], reasons


def _cores() -> int:
    # A container or a batch system may lend fewer cores than the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
