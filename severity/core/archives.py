"""Reading numpy's files, .npy and .npz, which may come from outside: nothing in them is run, and nothing is unfolded
that is not there."""

import math
import os
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy
from numpy.lib import format as npy

from severity.core import inputs
from severity.core.errors import SeverityError, shown

# Above so many bytes, arrays packed to less than a two-hundredth are no predictions.
SMALL, RATIO = 512 * inputs.MIB, 200
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read_npz(path: Path | str) -> dict[str, numpy.ndarray]:
    """All arrays of an .npz file, by name.

    Raises:
        FileNotFoundError: there is none.
        SeverityError: it is no regular file, no such archive, damaged, encrypted, packed by a method that numpy does not
            use, or an array holds objects, or less than it says.
    """
    with inputs.opened(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
                _check(members, os.fstat(file.fileno()).st_size)
                return {each.filename.removesuffix(".npy"): _member(archive, each) for each in members}
        except Exception as error:  # A damaged file fails in as many ways as it can be damaged.
            raise SeverityError(
                f"{shown(path)} cannot be read as arrays of numbers and text: {_words(error)}."
            ) from None


def read_npy(path: Path | str, *, mapped: bool = False) -> numpy.ndarray:
    """The array of an .npy file; mapped: into memory, read-only, instead of read.

    Raises:
        FileNotFoundError: there is none.
        SeverityError: it is no regular file, no such file, cut short, or holds objects.
    """
    with inputs.opened(path) as file:
        try:
            _header(file, os.fstat(file.fileno()).st_size)
            return numpy.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
        except Exception as error:  # A damaged file fails in as many ways as it can be damaged.
            raise SeverityError(f"{shown(path)} cannot be read as an array: {_words(error)}.") from None


def _check(members: list[zipfile.ZipInfo], size: int) -> None:
    names = [each.filename for each in members]
    for each in members:
        if names.count(each.filename) > 1:
            raise ValueError(f"the array {shown(each.filename)} is there twice")
        if each.flag_bits & 1:
            raise ValueError(f"the array {shown(each.filename)} is encrypted")
        if each.compress_type not in METHODS:
            raise ValueError(f"the array {shown(each.filename)} is packed by a method that numpy does not use")
    unfolded = sum(each.file_size for each in members)
    if unfolded > max(SMALL, RATIO * size):
        raise ValueError(f"it would unfold from {size:,} to {unfolded:,} bytes")


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> numpy.ndarray:
    with archive.open(member) as file:
        _header(file, member.file_size)
    with archive.open(member) as file:
        return npy.read_array(file, allow_pickle=False)


def _header(file: BinaryIO, size: int) -> None:
    """Raise ValueError unless a file of this size holds what its header says."""
    version = npy.read_magic(file)
    shape, _, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(file)
    if min(shape, default=0) < 0:
        raise ValueError(f"its header says the shape {shape}")
    if dtype.hasobject:
        raise ValueError("it holds Python's objects; save numbers, or text of the kind U")
    if file.tell() + math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"its header says {dtype} of the shape {shape}, more than there is")


def _words(error: BaseException) -> str:
    words = (str(error).splitlines() or [""])[0].rstrip(".") or type(error).__name__
    return words if len(words) <= 200 else f"{words[:200]}…"
