"""DICOM files to gray levels, as a viewer shows them first.

An optional element that is there without a value counts as absent (slope 1, intercept 0, no table, no window): devices
write such elements, and viewers pass over them.
"""

import functools
import os
import signal
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, BinaryIO

import numpy
from PIL import Image

from severity.core.commands import die_with_parent
from severity.core.errors import SeverityError
from severity.decoding.levels import Unreadable, check_extent, scaled

MOST_INFLATED = 4 * (Image.MAX_IMAGE_PIXELS or 1)  # bytes: colour of the most pixels that are read
SECONDS = 20  # that a decoder which may hang is given for one image
CRASHING = ("gdcm", "pylibjpeg", "pyjpegls")  # abort the process, or never end, on some damaged files
# Which of pydicom's decoders of a compression is asked first: Pillow, whose levels do not depend on what else is
# installed; and those that only some installations have come after.
DECODERS = ("pydicom", "pillow", "gdcm", "pylibjpeg", "pyjpegls")
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")  # that pydicom gives as RGB


def read(file: BinaryIO) -> Image.Image:
    """Read a DICOM file of one frame as 8-bit gray (mode L); see `severity.decoding.decoding.read_gray`.

    Raises:
        Unreadable: it holds no picture, or none that is read here. pydicom raises nearly anything on a damaged file.
        SeverityError: pydicom is not installed.
    """
    try:
        import pydicom
    except ImportError:
        raise SeverityError(
            "There are DICOM images, and pydicom, which reads them, is not installed: "
            "pip install -r requirements-extra.txt"
        ) from None
    _check_deflated(file)
    data = pydicom.dcmread(file, force=True)  # force: older files have neither preamble nor DICM
    if "PixelData" not in data:
        raise Unreadable("not a DICOM image: it has no pixel data")
    frames = int(data.get("NumberOfFrames") or 1)
    if frames > 1:
        raise Unreadable(f"a DICOM file of {frames} frames; only one is supported")
    check_extent(data.Rows, data.Columns)
    if "TransferSyntaxUID" not in data.file_meta:
        # Nothing but the three uncompressed forms can come without this element; pydicom has detected which it is.
        implicit, little = data.original_encoding
        explicit = pydicom.uid.ExplicitVRLittleEndian if little else pydicom.uid.ExplicitVRBigEndian
        data.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian if implicit else explicit
    return _gray(_stored(data), data)


def _check_deflated(file: BinaryIO) -> None:
    """Refuse a deflated data set that would fill the memory: pydicom inflates it whole, whatever it becomes."""
    from pydicom import filereader, uid

    if file.read(132)[128:] == b"DICM":
        meta = filereader.read_file_meta_info(file.name)
        if meta.get("TransferSyntaxUID") == uid.DeflatedExplicitVRLittleEndian:
            file.seek(132 + 12 + meta.FileMetaInformationGroupLength)  # 12: of the element that holds the length
            inflater = zlib.decompressobj(-zlib.MAX_WBITS)
            inflater.decompress(file.read(), MOST_INFLATED)
            if not inflater.eof:
                raise Unreadable(f"its data set is deflated from more than {MOST_INFLATED} bytes, or truncated")
    file.seek(0)


def _stored(data: Any) -> numpy.ndarray:
    """The stored values, (rows, columns) or (rows, columns, 3), wherever in their words the bits are."""
    syntax = data.file_meta.TransferSyntaxUID
    bits, high = data.BitsStored, data.get("HighBit")
    above = 0 if high is None else high - (bits - 1)  # how many bits of a word lie below the stored ones
    if not above:
        return _decompressed(data)
    words_are_kept = not syntax.is_encapsulated or syntax.name == "RLE Lossless"
    if above < 0 or high >= data.BitsAllocated or not words_are_kept:
        raise Unreadable(
            f"HighBit is {high} with BitsStored {bits}, BitsAllocated {data.BitsAllocated} and {syntax.name}: it "
            f"should be {bits - 1}"
        )
    data.BitsStored = high + 1  # pydicom takes the stored bits for the lowest ones, and clears all above
    words = _decompressed(data)
    data.BitsStored = bits
    return words >> above


def _decompressed(data: Any) -> numpy.ndarray:
    from pydicom import pixels

    decoder = pixels.get_decoder(data.file_meta.TransferSyntaxUID)
    if not decoder.is_available:
        raise Unreadable(
            f"its pixels are compressed as {decoder.UID.name}, and none of pydicom's decoders of that is installed "
            f"({'; '.join(decoder.missing_dependencies)})"
        )
    reasons = []
    for plugin in sorted(decoder.available_plugins, key=DECODERS.index) or [""]:  # "": nothing is compressed
        try:
            if plugin in CRASHING:
                return _in_helper(data.filename, plugin)
            return pixels.pixel_array(data, decoding_plugin=plugin)
        except Exception as error:  # JPEG of 12 bits, for example, is beyond Pillow, but not beyond others
            reasons.append(str(error) or type(error).__name__)
    raise Unreadable(" ".join(" ".join(reasons).split()))


def _in_helper(path: str, plugin: str) -> numpy.ndarray:
    """Decompress in a process of its own, which a damaged file may abort or never let end."""
    helper = _helper()
    try:
        helper.requests.send((path, plugin))
        if not helper.requests.poll(SECONDS):
            raise Unreadable(f"its decoder, {plugin}, did not end within {SECONDS} s")
        result = helper.requests.recv()
    except (EOFError, OSError, Unreadable) as error:
        helper.process.kill()
        _helper.cache_clear()
        if isinstance(error, Unreadable):
            raise
        raise Unreadable(f"its decoder, {plugin}, crashed on it") from None
    if isinstance(result, str):
        raise Unreadable(result)
    return result


@dataclass(frozen=True)
class _Helper:
    process: Any
    requests: Connection


@functools.lru_cache(maxsize=1)
def _helper() -> _Helper:
    spawned = get_context("spawn")
    ours, theirs = spawned.Pipe()
    process = spawned.Process(target=_serve, args=(theirs, os.getpid()), daemon=True)
    process.start()
    theirs.close()
    return _Helper(process, ours)


def _serve(requests: Connection, parent: int) -> None:
    """Answer paths of DICOM files and names of decoders with pixels, or with why there are none, until none is asked."""
    import pydicom
    from pydicom import pixels

    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one reports it.
    while True:
        try:
            path, plugin = requests.recv()
        except EOFError:
            return
        try:
            answer = pixels.pixel_array(pydicom.dcmread(path, force=True), decoding_plugin=plugin)
        except Exception as error:
            answer = str(error) or type(error).__name__
        requests.send(answer)


def _gray(stored: numpy.ndarray, data: Any) -> Image.Image:
    kind = data.PhotometricInterpretation
    if stored.ndim == 3 and stored.dtype == numpy.uint8 and kind in COLOURS and data.BitsStored == 8:
        return Image.fromarray(stored).convert("L")  # pydicom has converted it to RGB
    if kind not in ("MONOCHROME1", "MONOCHROME2") or stored.ndim != 2:
        raise Unreadable(
            f"{stored.dtype} pixels of photometric interpretation {kind}, SamplesPerPixel {data.SamplesPerPixel} and "
            f"BitsStored {data.BitsStored}; it must be MONOCHROME1 or MONOCHROME2 of 1 sample, or RGB or YBR of 3 "
            "samples of 8 bits"
        )
    picture = ~_padding(stored, data)
    gray = scaled(*_displayed(stored, data, picture))
    shown, values = gray[picture], stored[picture]
    if shown.size and shown.min() == shown.max() and values.min() != values.max():
        raise Unreadable(
            f"its window or lookup table makes one level of all its stored values ({values.min()} to {values.max()}): "
            "see WindowCenter, WindowWidth, VOILUTSequence and ModalityLUTSequence"
        )
    if kind == "MONOCHROME1":
        gray = 255 - gray
    gray[~picture] = 0
    return Image.fromarray(gray)


def _padding(stored: numpy.ndarray, data: Any) -> numpy.ndarray:
    """Which pixels only fill the rectangle up (DICOM PS3.3, C.7.5.1.1.2): a mask of the shape of `stored`."""
    value = next(_numbers(data, "PixelPaddingValue"), None)
    if value is None:
        return numpy.zeros(stored.shape, bool)
    limit = next(_numbers(data, "PixelPaddingRangeLimit"), None)
    ends = [int(value), int(value if limit is None else limit)]
    words, bits = stored, 8 * stored.dtype.itemsize
    if max(ends) >= 2**data.BitsStored and not data.file_meta.TransferSyntaxUID.is_encapsulated:
        kept, data.BitsStored = data.BitsStored, data.BitsAllocated  # the padding is in bits that pydicom clears
        words = _decompressed(data)
        data.BitsStored = kept
    if numpy.issubdtype(stored.dtype, numpy.signedinteger):  # it may be written as an unsigned number
        ends = [each - 2**bits if 2 ** (bits - 1) <= each < 2**bits else each for each in ends]
    lowest, highest = sorted(ends)
    return (lowest <= words) & (words <= highest)


def _displayed(stored: numpy.ndarray, data: Any, picture: numpy.ndarray) -> tuple[numpy.ndarray, float, float]:
    """The values that a DICOM viewer shows first, and those of them that it shows black and white (in MONOCHROME2).

    DICOM PS3.3, C.11.1 (modality LUT) and C.11.2 (VOI LUT and window). Where neither LUT nor window says what is black
    and white, the smallest and the largest value of the `picture` (a mask) do.
    """
    from pydicom import pixels

    values = _rescaled(stored, data)
    table = _table(data, "VOILUTSequence", _may_be_negative(data))
    if table:
        return table.of(values), *table.ends()
    window = _window(data)
    if window is not None:
        with numpy.errstate(over="ignore"):  # of the exponential of a sigmoid window
            ends = pixels.apply_windowing(numpy.array([-1e30, 1e30]), data, window)
            return pixels.apply_windowing(values, data, window), *ends
    shown = values[picture] if picture.any() else values
    return values, shown.min(), shown.max()


def _rescaled(stored: numpy.ndarray, data: Any) -> numpy.ndarray:
    """The values after modality LUT or rescale; what of them is empty is removed from `data`, for the window's sake."""
    from pydicom import pixels

    table = _table(data, "ModalityLUTSequence", data.get("PixelRepresentation") == 1)
    if table:
        return table.of(stored)
    data.pop("ModalityLUTSequence", None)
    values = {keyword: next(_numbers(data, keyword), None) for keyword in ("RescaleSlope", "RescaleIntercept")}
    if values["RescaleSlope"] == 0:
        raise Unreadable("RescaleSlope is 0, which makes all values equal")
    for keyword, absent in (("RescaleSlope", 1), ("RescaleIntercept", 0)):
        if set(values.values()) == {None}:
            data.pop(keyword, None)
        elif values[keyword] is None:
            setattr(data, keyword, absent)
    return pixels.apply_modality_lut(stored, data)


def _may_be_negative(data: Any) -> bool:
    """Whether values after the modality LUT or rescale can be: a VOI LUT then begins at a signed one (PS3.3, C.11.2)."""
    if _table(data, "ModalityLUTSequence", signed=False):
        return False
    signed, bits = data.get("PixelRepresentation") == 1, data.BitsStored
    ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    slope, intercept = (next(_numbers(data, f"Rescale{each}"), None) for each in ("Slope", "Intercept"))
    return min((1 if slope is None else slope) * end + (intercept or 0) for end in ends) < 0


def _window(data: Any) -> int | None:
    """The place of the first window that can be applied; None where there is none."""
    if not data.get("VOILUTFunction"):
        data.VOILUTFunction = "LINEAR"
    least = 1 if data.VOILUTFunction.upper() == "LINEAR" else numpy.nextafter(0, 1)
    pairs = zip(*(_numbers(data, keyword) for keyword in ("WindowCenter", "WindowWidth")), strict=False)
    for place, (centre, width) in enumerate(pairs):
        if centre is not None and width is not None and width >= least:
            return place
    return None


def _numbers(data: Any, keyword: str) -> Iterator[float | None]:
    """The values of an element of numbers, None for an empty one; nothing where it is absent.

    Raises:
        Unreadable: one is no finite number.
    """
    try:
        value = data.get(keyword)
        values = [value] if value is None or isinstance(value, (str, int, float)) else list(value)
        numbers = [None if each is None or each == "" else float(each) for each in values]
    except (TypeError, ValueError):
        raise Unreadable(f"{keyword} is not a number") from None
    for number in numbers:
        if number is not None and not numpy.isfinite(number):
            raise Unreadable(f"{keyword} is {number}")
        yield number


@dataclass(frozen=True)
class _Table:
    """A lookup table: `entries` (n,) uint16 for the values from `first` on; the nearest end for those beyond."""

    first: int
    entries: numpy.ndarray
    bits: int  # of an entry, as declared

    def of(self, values: numpy.ndarray) -> numpy.ndarray:
        """What the values become."""
        places = numpy.rint(values).astype(numpy.int64) - self.first
        return self.entries[places.clip(0, len(self.entries) - 1)]

    def ends(self) -> tuple[int, int]:
        """What is black and white: the range that is declared, or the entries' own where they do not fill it."""
        highest = int(self.entries.max())
        return (0, highest) if highest == 2**self.bits - 1 else (int(self.entries.min()), highest)


def _table(data: Any, keyword: str, signed: bool) -> _Table | None:
    """The first table of a sequence that has one; None where it has none. `signed`: whether what it takes can be."""
    for item in data.get(keyword) or ():
        descriptor, entries = item.get("LUTDescriptor"), item.get("LUTData")
        if not descriptor or not isinstance(entries, int) and not entries:
            continue
        if len(descriptor) != 3:
            raise Unreadable(f"LUTDescriptor has {len(descriptor)} values; it must have 3")
        count, first, bits = descriptor
        count = count % 2**16 or 2**16  # 0 stands for what 16 bits cannot write
        if signed and first >= 2**15:
            first -= 2**16  # signed, whatever the element's type says
        return _Table(first, _entries(entries, count, data.file_meta.TransferSyntaxUID.is_little_endian), bits)
    return None


def _entries(entries: Any, count: int, little: bool) -> numpy.ndarray:
    """LUTData as (count,) uint16: it comes as words, as numbers, or (of 8 bits) as two entries a word."""
    if not isinstance(entries, bytes):
        words = numpy.atleast_1d(numpy.asarray(entries, numpy.int64)).astype("<u2")
        entries, little = words.tobytes(), True
    if len(entries) >= 2 * count:
        return numpy.frombuffer(entries, "<u2" if little else ">u2", count).astype(numpy.uint16)
    if len(entries) < count:
        raise Unreadable(f"LUTData has {len(entries) // 2} entries; LUTDescriptor says {count}")
    return numpy.frombuffer(entries, numpy.uint8, count).astype(numpy.uint16)
