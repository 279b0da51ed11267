"""Image files to gray levels: one file of any kind, or a whole collection in parallel."""

import functools
import hashlib
import math
import os
import re
import signal
import stat
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from severity.core.commands import die_with_parent
from severity.core.errors import SeverityError
from severity.decoding import dicom
from severity.decoding.levels import Unreadable, check_extent, scaled, too_large

FORMATS = ("JPEG", "PNG", "TIFF")
# The tag of orientation, where it is not 1, says what was done to the picture; this undoes it.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
DICOM_SUFFIXES = (".dcm", ".dicom")
MOST_SCANNED = 12  # of the pixels that an image may have, all scans of a progressive JPEG together; usual are 10 scans
LONGEST_REASON = 300  # characters
STACK = re.compile(r"(?P<file>.+\.npy)#(?P<row>\d+)\Z", re.DOTALL)
REDUCED_TO = 2  # A reduced JPEG keeps at least this many times the pixels of its place in the square, along each edge.
# Of an image: width, height and `Picture.bits` of the original, or why it could not be read.
Outcome = tuple[int, int, int | None] | str
# How 16-bit gray levels become 8: `read_gray`.
Range = Literal["whole", "file"] | int
CHUNK_IMAGES = 64  # of a task: large enough to hide the cost of a task, small enough that little is lost with it
CHUNK_BYTES = 1 << 22  # at most that many prepared pixels of a task, unless it is one image


@dataclass(frozen=True)
class Picture:
    """A gray image, mode L, and what it was before it was decoded."""

    image: Image.Image
    width: int  # pixels of the file
    height: int
    shrink: int = 1  # how many of the file's pixels are one of `image`, along each edge
    bits: int | None = None  # that the largest level of a file of 16-bit levels needs; None of other files


@dataclass(frozen=True)
class Chunk:
    """Some consecutive images of a collection, decoded."""

    images: numpy.ndarray  # (n, size, size) uint8, the readable ones; good until the next chunk is asked for
    outcomes: list[Outcome]  # one a path
    files: str  # `fingerprint` of the paths, taken before they were opened


def read_gray(path: Path | str, sixteen_bits: Range = "whole") -> Image.Image:
    """Read an image as 8-bit gray (mode L), whatever its own form.

    JPEG, PNG, TIFF: colour becomes luma (ITU-R 601-2; gray stored as RGB stays exact), transparency is dropped; of
    several pages the first is read; a picture is turned as its tag of orientation says. Of 16-bit gray levels
    `sixteen_bits` says what is white: 65535 ('whole'), 2**n - 1 (a number n, for scanners that fill n of the 16 bits),
    or the file's largest level ('file'; then its smallest is black).

    DICOM (DICM at byte 128, or the suffix .dcm or .dicom; pydicom reads it): modality LUT or rescale, then the first
    VOI LUT or window, whose range becomes 0..255; without one, the smallest to the largest value stored does, padding
    left out. MONOCHROME1, in which large is dark, is inverted; padding is black.

    ``<stack>.npy#<row>``: a row, counted from 0, of an array (N, H, W) or (N, H, W, 3) uint8.

    Raises:
        Unreadable: the file is missing, no regular file, truncated, damaged, absurdly large, without a pixel, of
            several frames, of levels that `sixteen_bits` does not fit, or of none of these forms.
        SeverityError: a DICOM file, and pydicom is not installed.
    """
    return _read(path, sixteen_bits=sixteen_bits).image


def _read(path: Path | str, place: tuple[int, str] | None = None, sixteen_bits: Range = "whole") -> Picture:
    """`read_gray`, with the original's size. With a `place` (size, aspect) in view, JPEG may be decoded smaller."""
    try:
        with warnings.catch_warnings():
            # Pillow warns of oddities in metadata; only the pixels count.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            stack = STACK.match(os.fspath(path))
            _check_kind(stack["file"] if stack else path)
            if stack:
                return _read_stack(stack["file"], int(stack["row"]))
            with open(path, "rb") as file:
                head = file.read(132)
                file.seek(0)
                if head[128:] == b"DICM" or os.fspath(path).lower().endswith(DICOM_SUFFIXES):
                    gray = dicom.read(file)
                    return Picture(gray, *gray.size)
                return _read_picture(file, place, sixteen_bits)
    except (SeverityError, MemoryError):
        raise
    except FileNotFoundError:
        raise Unreadable("no such file") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise too_large() from None
    except Exception as error:  # On a damaged file Pillow, numpy and pydicom raise nearly anything.
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Unreadable(" ".join(reason.split())[:LONGEST_REASON] or type(error).__name__) from None


def _check_kind(path: Path | str) -> None:
    """Refuse what is no regular file before it is opened: reading a FIFO or a device may never end.

    A name that is not UTF-8 is refused as well, since no table could hold it.
    """
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        raise Unreadable("its name is not UTF-8; rename it") from None
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
        raise Unreadable(f"{kinds.get(stat.S_IFMT(mode), 'a device')}, not a regular file")


def _read_picture(file: BinaryIO, place: tuple[int, str] | None, sixteen_bits: Range) -> Picture:
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        raise Unreadable(_unidentified(file)) from None
    with image:
        _check_scans(image)
        deep = "16" in _rawmode(image)
        if image.format == "PNG":
            image.load()  # A PNG's metadata may stand behind its pixels.
        turn = TURNS.get(_orientation(image))
        # A reduced picture's last column stands for fewer pixels than the others: turned, it would be the first.
        width, height = image.size
        shrink = _reduce(image, *place) if place and turn is None else 1
        gray, bits = _to_gray(image, deep, sixteen_bits)
        if turn is not None and image.format != "TIFF":  # Pillow turns TIFF as it reads the pixels.
            gray = gray.transpose(turn)
        return Picture(gray, *((width, height) if shrink > 1 else gray.size), shrink, bits)


def _orientation(image: Image.Image) -> Any:
    """The value of the tag of orientation, in EXIF or XMP; None without one that can be read."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # Damaged metadata raise nearly anything; only the pixels count.
        return None


def _check_scans(image: Image.Image) -> None:
    """Refuse a progressive JPEG that goes over all of its pixels thousands of times: a bomb of time, not of memory."""
    if "progressive" not in image.info:
        return
    image.fp.seek(0)
    scans = image.fp.read().count(b"\xff\xda")
    if scans * image.width * image.height > MOST_SCANNED * Image.MAX_IMAGE_PIXELS:
        raise Unreadable(f"a progressive JPEG of {scans} scans")


def _unidentified(file: BinaryIO) -> str:
    """Why Pillow finds no picture in a file: the form of a TIFF that it does not read, or that it is none at all."""
    try:
        file.seek(0)
        head = file.read(8)
        tags = TiffImagePlugin.ImageFileDirectory_v2(head)
        file.seek(tags.next)
        tags.load(file)
        bits, kind = tags[TiffImagePlugin.BITSPERSAMPLE], tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))
        extent = f"{tags[TiffImagePlugin.IMAGEWIDTH]} x {tags[TiffImagePlugin.IMAGELENGTH]} pixels"
        return f"a TIFF of a form that is not read here: {extent}, each of {len(bits)} {_levels(bits, kind)}"
    except Exception:  # It is no TIFF, or a damaged one.
        return f"not an image of a format read here ({', '.join(FORMATS)}, DICOM, a row of a .npy)"


def _levels(bits: tuple[int, ...], kind: tuple[int, ...]) -> str:
    """Words for TIFF's BitsPerSample and SampleFormat."""
    return f"{({1: 'unsigned', 2: 'signed', 3: 'floating-point'}).get(kind[0], 'unknown')} {bits[0]}-bit levels"


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


def _to_gray(image: Image.Image, deep: bool, sixteen_bits: Range) -> tuple[Image.Image, int | None]:
    """A picture as mode L, and `Picture.bits`; `deep` says whether the file has 16-bit levels."""
    tags = image.tag_v2 if image.format == "TIFF" else {}
    bits, kind = tags.get(TiffImagePlugin.BITSPERSAMPLE, (8,)), tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))
    if image.mode in ("I", "F") or kind[0] == 2:
        raise Unreadable(f"{_levels(bits, kind)} have no agreed range; store unsigned levels of 8 or 16 bits")
    if image.mode.startswith("I;16"):
        # Of 16-bit gray Pillow gives the bare numbers: it neither spreads 12 bits nor turns TIFF's "white is zero".
        levels = numpy.asarray(image)
        gray = scaled(levels, *_ends(levels, bits[0] if tags else 16, sixteen_bits))
        return Image.fromarray(255 - gray if tags.get(262) == 0 else gray), int(levels.max()).bit_length()
    if image.mode == "L":
        image.load()  # From here on it does not need the file.
        return image, None
    gray = image.convert(Image.getmodebase(image.mode)).convert("L")
    if deep and sixteen_bits != "whole":
        raise Unreadable(
            "16-bit colour or transparency, of which only the upper 8 bits are read, needs decode.sixteen_bits: whole; "
            "store the gray levels alone"
        )
    return gray, 8 + gray.getextrema()[1].bit_length() if deep else None


def _ends(levels: numpy.ndarray, bits: int, sixteen_bits: Range) -> tuple[int, int]:
    """Which levels, of files of 9 to 16 `bits`, become 0 and 255."""
    if sixteen_bits == "file":
        return int(levels.min()), int(levels.max())
    white = 2 ** (bits if sixteen_bits == "whole" else min(bits, sixteen_bits)) - 1
    if levels.max() > white:
        raise Unreadable(
            f"its levels go up to {levels.max()}, beyond the {white} of decode.sixteen_bits: {sixteen_bits}"
        )
    return 0, white


def _rawmode(image: Image.Image) -> str:
    """How the file stores pixels, in Pillow's words (RGB;16B), before they are decoded."""
    arguments = image.tile[0].args if image.tile else ""
    return arguments if isinstance(arguments, str) else str(arguments[0])


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
    root: Path | str,
    paths: Sequence[str],
    *,
    size: int,
    aspect: str,
    reduced: bool,
    workers: int,
    buffer: Path,
    sixteen_bits: Range = "whole",
) -> Iterator[Chunk]:
    """Read images in parallel; yield them in order, chunk by chunk, the same whatever the number of workers.

    Args:
        root: folder that `paths` are relative to.
        paths: images, as `read_gray` takes them.
        size, aspect: of the square that each is laid out in (see `layout`).
        reduced: have large JPEGs decoded at a fraction of their size (see `_reduce`), several times as fast; gray
            levels differ by 10 of 255 at most, on average by less than one.
        sixteen_bits: what is white in 16-bit gray, see `read_gray`.
        workers: processes; 0 is one a core, 1 decodes in this process.
        buffer: file through which processes hand over pixels; must not exist, and is left behind.

    Raises:
        SeverityError: a process died, or there are DICOM images and pydicom is not installed.
    """
    length = max(1, min(CHUNK_IMAGES, CHUNK_BYTES // size**2))
    tasks = [
        (str(root), paths[start : start + length], size, aspect, reduced, sixteen_bits)
        for start in range(0, len(paths), length)
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


def _chunk(images: numpy.ndarray, outcomes: list[Outcome], files: str) -> Chunk:
    readable = sum(not isinstance(each, str) for each in outcomes)
    return Chunk(images[:readable], outcomes, files)


def _decode_room(buffer: str, shape: tuple[int, ...], room: int, *task: Any) -> tuple:
    return _decode_chunk(_open_rooms(buffer, shape)[room], *task)


@functools.lru_cache(maxsize=1)
def _open_rooms(buffer: str, shape: tuple[int, ...]) -> numpy.ndarray:
    return numpy.memmap(buffer, numpy.uint8, mode="r+", shape=shape)


def _decode_chunk(
    images: numpy.ndarray,
    root: str,
    paths: Sequence[str],
    size: int,
    aspect: str,
    reduced: bool,
    sixteen_bits: Range,
) -> tuple[list[Outcome], str]:
    """Decode into the first rows of `images`; return the other fields of Chunk."""
    files = fingerprint(root, paths)
    place = (size, aspect) if reduced else None
    outcomes: list[Outcome] = []
    readable = 0
    for path in paths:
        try:
            picture = _read(os.path.join(root, path), place, sixteen_bits)
        except Unreadable as error:
            outcomes.append(str(error))
        else:
            images[readable] = squared(picture, size, aspect)
            outcomes.append((picture.width, picture.height, picture.bits))
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
