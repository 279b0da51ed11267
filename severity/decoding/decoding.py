"""Image files to gray levels: one file of any kind, or a whole collection in parallel."""

import functools
import hashlib
import math
import os
import re
import signal
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, BinaryIO

import numpy
from PIL import Image, UnidentifiedImageError

from severity.core.commands import die_with_parent
from severity.core.errors import SeverityError
from severity.decoding import dicom
from severity.decoding.levels import Unreadable, check_extent, scaled, too_large

FORMATS = ("JPEG", "PNG", "TIFF")
DICOM_SUFFIXES = (".dcm", ".dicom")
STACK = re.compile(r"(?P<file>.+\.npy)#(?P<row>\d+)\Z", re.DOTALL)
REDUCED_TO = 2  # A reduced JPEG keeps at least this many times the pixels of its place in the square, along each edge.
CHUNK_IMAGES = 64  # of a task: large enough to hide the cost of a task, small enough that little is lost with it
CHUNK_BYTES = 1 << 22  # at most that many prepared pixels of a task, unless it is one image


@dataclass(frozen=True)
class Picture:
    """A gray image, mode L, and what it was before it was decoded."""

    image: Image.Image
    width: int  # pixels of the file
    height: int
    shrink: int = 1  # how many of the file's pixels are one of `image`, along each edge


@dataclass(frozen=True)
class Chunk:
    """Some consecutive images of a collection, decoded."""

    images: numpy.ndarray  # (n, size, size) uint8, the readable ones; good until the next chunk is asked for
    outcomes: list[tuple[int, int] | str]  # one a path: width and height of the original, or why it could not be read
    files: str  # `fingerprint` of the paths, taken before they were opened


def read_gray(path: Path | str) -> Image.Image:
    """Read an image as 8-bit gray (mode L), whatever its own form.

    JPEG, PNG, TIFF: colour becomes luma (ITU-R 601-2; gray stored as RGB stays exact), transparency is dropped, 16-bit
    gray is scaled from its whole range to 0..255; of several pages the first is read.

    DICOM (DICM at byte 128, or the suffix .dcm or .dicom; pydicom reads it): modality LUT or rescale, then the first
    VOI LUT or window, whose range becomes 0..255; without one, the smallest to the largest value stored does.
    MONOCHROME1, in which large is dark, is inverted.

    ``<stack>.npy#<row>``: a row, counted from 0, of an array (N, H, W) or (N, H, W, 3) uint8.

    Raises:
        Unreadable: the file is missing, truncated, damaged, absurdly large, without a pixel, of several frames, or of
            none of these forms.
        SeverityError: a DICOM file, and pydicom is not installed.
    """
    return _read(path).image


def _read(path: Path | str, place: tuple[int, str] | None = None) -> Picture:
    """`read_gray`, with the original's size. With a `place` (size, aspect) in view, JPEG may be decoded smaller."""
    try:
        with warnings.catch_warnings():
            # Pillow warns of oddities in metadata; only the pixels count.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            stack = STACK.match(os.fspath(path))
            if stack:
                return _read_stack(stack["file"], int(stack["row"]))
            with open(path, "rb") as file:
                head = file.read(132)
                file.seek(0)
                if head[128:] == b"DICM" or os.fspath(path).lower().endswith(DICOM_SUFFIXES):
                    gray = dicom.read(file)
                    return Picture(gray, *gray.size)
                return _read_picture(file, place)
    except (SeverityError, MemoryError):
        raise
    except FileNotFoundError:
        raise Unreadable("no such file") from None
    except UnidentifiedImageError:
        raise Unreadable(f"not an image of a format read here ({', '.join(FORMATS)}, DICOM, a row of a .npy)") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise too_large() from None
    except Exception as error:  # On a damaged file Pillow, numpy and pydicom raise nearly anything.
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Unreadable((reason.splitlines() or [type(error).__name__])[0]) from None


def _read_picture(file: BinaryIO, place: tuple[int, str] | None) -> Picture:
    with Image.open(file, formats=FORMATS) as image:
        width, height = image.size
        shrink = _reduce(image, *place) if place else 1
        gray = _to_gray(image)  # a TIFF may be turned now, as its tag of orientation says
        return Picture(gray, *((width, height) if shrink > 1 else gray.size), shrink)


def _reduce(image: Image.Image, size: int, aspect: str) -> int:
    """Have a JPEG decoded at a half, a quarter or an eighth of its size where that is enough; return the divisor.

    Enough is REDUCED_TO times the pixels of the image's place in the square: the JPEG decoder's own averaging lets
    through some of what it should smooth away, so the last halving at least is left to the antialiased resizing. A JPEG
    of less than twice that is decoded whole, to the same bytes as without reduction. Measured on radiographs of 1024
    px, enlarged to JPEGs of 2000 px (quality 90) and squashed to 224 px, against the same decoded whole: gray levels,
    from 0 to 255, differ by 0.18 on average and by 10 at most (at the edges of letters); with once instead of twice the
    pixels by 0.38 and 41.
    """
    width, height = image.size
    source, target = layout(width, height, size, aspect)
    least = tuple(
        math.ceil(REDUCED_TO * (target[axis + 2] - target[axis]) * whole / (source[axis + 2] - source[axis]))
        for axis, whole in enumerate(image.size)
    )
    if image.format != "JPEG" or min(width // least[0], height // least[1]) < 2:
        return 1
    drafted = image.draft("L", least)  # L: of colour only the luma is decoded
    return round(width / drafted[1][2]) if drafted else 1


def _to_gray(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # Of 16-bit gray Pillow gives the bare numbers: it neither spreads 12 bits nor turns TIFF's "white is zero".
        tags = image.tag_v2 if image.format == "TIFF" else {}
        gray = scaled(numpy.asarray(image), 0, 2 ** tags.get(258, (16,))[0] - 1)
        return Image.fromarray(255 - gray if tags.get(262) == 0 else gray)
    if image.mode in ("I", "F"):
        raise Unreadable(f"32-bit gray levels (mode {image.mode}) have no agreed range; store 8 or 16 bits")
    if image.mode == "L":
        image.load()  # From here on it does not need the file.
        return image
    return image.convert(Image.getmodebase(image.mode)).convert("L")


def _read_stack(file: str, row: int) -> Picture:
    status = os.stat(file)
    rows = _open_stack(file, status.st_mtime_ns, status.st_size)
    if rows.dtype != numpy.uint8 or rows.ndim not in (3, 4) or rows.shape[3:] not in ((), (3,)):
        raise Unreadable(f"an array {rows.shape} of {rows.dtype}; a stack is (N, H, W) or (N, H, W, 3) of uint8")
    if row >= len(rows):
        raise Unreadable(f"the stack has {len(rows)} rows, counted from 0")
    check_extent(*rows.shape[1:3])
    image = Image.fromarray(numpy.ascontiguousarray(rows[row])).convert("L")
    return Picture(image, *image.size)


@functools.lru_cache(maxsize=8)
def _open_stack(file: str, mtime: int, size: int) -> numpy.ndarray:
    """Map a .npy file, once for all its rows; `mtime` and `size` distinguish a replaced file from the open one."""
    return numpy.load(file, mmap_mode="r", allow_pickle=False)


def layout(width: int, height: int, size: int, aspect: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Which part of an image goes where in the prepared square.

    Args:
        width, height: of the image, pixels.
        size: edge of the square, pixels.
        aspect: 'squash' (the whole image fills the square, its aspect lost), 'crop' (the largest centred square of it
            does) or 'pad' (the whole image, its longest side `size`, centred on black).

    Returns:
        left, top, right, bottom of the part, in the image's pixels, and of its place, in the square's.
    """
    source, target = (0, 0, width, height), (0, 0, size, size)
    if aspect == "crop":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        source = (left, top, left + side, top + side)
    elif aspect == "pad":
        scale = size / max(width, height)
        across, down = max(1, round(width * scale)), max(1, round(height * scale))
        left, top = (size - across) // 2, (size - down) // 2
        target = (left, top, left + across, top + down)
    return source, target


def squared(picture: Picture, size: int, aspect: str) -> numpy.ndarray:
    """A picture laid out (see `layout`) in (size, size) uint8, resized by antialiased bilinear interpolation."""
    source, (left, top, right, bottom) = layout(picture.width, picture.height, size, aspect)
    box = tuple(edge / picture.shrink for edge in source)
    resized = picture.image.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box)
    if resized.size == (size, size):
        return numpy.asarray(resized)
    canvas = Image.new("L", (size, size))
    canvas.paste(resized, (left, top))
    return numpy.asarray(canvas)


def padded(image: Image.Image, size: int) -> numpy.ndarray:
    """A gray image resized until its longest side is `size`, centred on black: (size, size) uint8."""
    return squared(Picture(image, *image.size), size, "pad")


def fingerprint(root: Path | str, paths: Sequence[str]) -> str:
    """Hex digits for the paths and each file's size and time of change (for a row of a stack: the stack's)."""
    digest = hashlib.sha256()
    for path in paths:
        stack = STACK.match(path)
        try:
            status = os.stat(os.path.join(root, stack["file"] if stack else path))
            state = f"{status.st_size} {status.st_mtime_ns}"
        except (OSError, ValueError) as error:
            state = type(error).__name__
        digest.update(f"{path}\0{state}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]


def decode(
    root: Path | str, paths: Sequence[str], *, size: int, aspect: str, reduced: bool, workers: int, buffer: Path
) -> Iterator[Chunk]:
    """Read images in parallel; yield them in order, chunk by chunk, the same whatever the number of workers.

    Args:
        root: folder that `paths` are relative to.
        paths: images, as `read_gray` takes them.
        size, aspect: of the square that each is laid out in (see `layout`).
        reduced: have large JPEGs decoded at a fraction of their size (see `_reduce`), several times as fast; gray
            levels differ by 10 of 255 at most, on average by less than one.
        workers: processes; 0 is one a core, 1 decodes in this process.
        buffer: file through which processes hand over pixels; must not exist, and is left behind.

    Raises:
        SeverityError: a process died, or there are DICOM images and pydicom is not installed.
    """
    length = max(1, min(CHUNK_IMAGES, CHUNK_BYTES // size**2))
    tasks = [
        (str(root), paths[start : start + length], size, aspect, reduced) for start in range(0, len(paths), length)
    ]
    workers = min(workers or _cores(), len(tasks))
    if workers > 1:
        yield from _decode_in_processes(tasks, (2 * workers, length, size, size), workers, buffer)
        return
    images = numpy.empty((length, size, size), numpy.uint8)
    for task in tasks:
        yield _chunk(images, *_decode_chunk(images, *task))


def _decode_in_processes(tasks: list[tuple], shape: tuple[int, ...], workers: int, buffer: Path) -> Iterator[Chunk]:
    """Decode in other processes. Task k has room k of the buffer, which is given on when its chunk has been used.

    Pixels sent through the pipes of a process pool are copied four times, which costs as much as a tenth of decoding.
    """
    rooms = numpy.memmap(buffer, numpy.uint8, mode="w+", shape=shape)
    pending: deque = deque()
    # Spawned, not forked: a forked process inherits the locks of threads that it does not inherit.
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_begin_worker, initargs=(os.getpid(),)
    ) as pool:
        try:
            for index in range(len(tasks) + len(rooms)):
                if index >= len(rooms) and pending:
                    yield _chunk(rooms[index % len(rooms)], *pending.popleft().result())
                if index < len(tasks):
                    pending.append(pool.submit(_decode_room, str(buffer), shape, index % len(rooms), *tasks[index]))
        except BrokenProcessPool:
            raise SeverityError(
                "A process that decodes images died, probably because memory ran out. Lower machine.workers in "
                "params.yaml."
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _begin_worker(parent: int) -> None:
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent reports it.


def _chunk(images: numpy.ndarray, outcomes: list[tuple[int, int] | str], files: str) -> Chunk:
    readable = sum(not isinstance(each, str) for each in outcomes)
    return Chunk(images[:readable], outcomes, files)


def _decode_room(buffer: str, shape: tuple[int, ...], room: int, *task: Any) -> tuple:
    return _decode_chunk(_open_rooms(buffer, shape)[room], *task)


@functools.lru_cache(maxsize=1)
def _open_rooms(buffer: str, shape: tuple[int, ...]) -> numpy.ndarray:
    return numpy.memmap(buffer, numpy.uint8, mode="r+", shape=shape)


def _decode_chunk(
    images: numpy.ndarray, root: str, paths: Sequence[str], size: int, aspect: str, reduced: bool
) -> tuple[list[tuple[int, int] | str], str]:
    """Decode into the first rows of `images`; return the other fields of Chunk."""
    files = fingerprint(root, paths)
    place = (size, aspect) if reduced else None
    outcomes: list[tuple[int, int] | str] = []
    readable = 0
    for path in paths:
        try:
            picture = _read(os.path.join(root, path), place)
        except Unreadable as error:
            outcomes.append(str(error))
        else:
            images[readable] = squared(picture, size, aspect)
            outcomes.append((picture.width, picture.height))
            readable += 1
    return outcomes, files


def _cores() -> int:
    # A container or a batch system may lend fewer cores than the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def on_square(
    edges: numpy.ndarray, widths: Sequence[int], heights: Sequence[int], *, size: int, aspect: str
) -> numpy.ndarray:
    """Edges of boxes as shares of the prepared square.

    Args:
        edges: (n, 4) left, top, right, bottom as shares of the original's width and height.
        widths, heights: (n,) of the originals, pixels (index.csv).
        size, aspect: of the squares (summary.json).

    Returns:
        (n, 4) float64 from 0 to 1. A box is cut at the edge of a crop; one that is wholly outside has no area left.
    """
    moved = numpy.empty((len(edges), 4))
    for row, (width, height) in enumerate(zip(widths, heights, strict=True)):
        source, target = (numpy.reshape(each, (2, 2)) for each in layout(width, height, size, aspect))
        corners = numpy.reshape(edges[row], (2, 2)) * (width, height)
        moved[row] = (target[0] + (corners - source[0]) / (source[1] - source[0]) * (target[1] - target[0])).ravel()
    return (moved / size).clip(0, 1)
