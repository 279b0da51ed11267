"""Opening files from outside: regular files only, so that nothing waits for a pipe, and limits on what they unfold to.

A missing file is the FileNotFoundError that it is: who opens it knows what it was to be and how to get it. Whatever else
is wrong with a file as such, its kind, its rights, its encoding, its compression, is a SeverityError that names it.
"""

import gzip
import io
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from severity.core.errors import SeverityError, refused, shown

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
GZIP = b"\x1f\x8b"
ZIP, OLE = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"  # Excel: .xlsx, .xls
MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\x00\x00\xfe\xff": "UTF-32"}
MIB = 2**20
DOCUMENT = 2 * MIB  # the largest page of text that people write, such as params.yaml
LINE = 16 * MIB  # the longest line of a table
# Above so many bytes, no honest table is packed to less than a two-hundredth.
SMALL, RATIO = 64 * MIB, 200


@contextmanager
def opened(path: Path | str) -> Iterator[BinaryIO]:
    """The file, open for reading bytes.

    Raises:
        FileNotFoundError: there is none.
        SeverityError: it is no regular file, or the system refuses to read it. Errors in the block are its own.
    """
    with _open(path) as file:
        yield file


def _open(path: Path | str) -> BinaryIO:
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
        if kind != stat.S_IFREG:
            raise SeverityError(
                f"{shown(path)} is {KINDS.get(kind, 'something else')}; it must be a regular file. Move it away, and put "
                "the file there."
            )
        return open(path, "rb")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise refused(error, "read", path) from None
    except ValueError as error:  # a zero byte in the path
        if isinstance(error, SeverityError):
            raise
        raise SeverityError(f"{shown(path)} is no path of a file: {error}.") from None


def read_bytes(path: Path | str, most: int | None = None) -> bytes:
    """The whole file. Raises as `opened` does, and SeverityError where it has more than `most` bytes."""
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if most is not None and size > most:
            raise SeverityError(
                f"{shown(path)} has {size:,} bytes, and such a file at most {most:,}. It is probably another file."
            )
        try:
            return file.read()
        except OSError as error:
            raise refused(error, "read", path) from None


def read_text(path: Path | str, most: int | None = DOCUMENT) -> str:
    """The whole file as text in UTF-8, with or without a byte order mark; other ends of lines become ``\\n``.

    Raises:
        FileNotFoundError: there is none.
        SeverityError: as for `read_bytes`, or it is not text in UTF-8; the message says what it looks like.
    """
    content = read_bytes(path, most)
    looks = _looks_like(content)
    try:
        if looks:
            raise UnicodeError(f"it looks like {looks}")
        text = content.decode("utf-8-sig")
    except UnicodeError as error:
        raise SeverityError(f"{shown(path)} is not text in UTF-8: {error}. Save it in the encoding UTF-8.") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _looks_like(content: bytes) -> str:
    if content.startswith(GZIP):
        return "a file packed by gzip; unpack it"
    for mark, encoding in MARKS.items():
        if content.startswith(mark):
            return f"text in {encoding}"
    return "a binary file, with zero bytes" if b"\x00" in content else ""


@contextmanager
def table(path: Path | str) -> Iterator[io.BufferedReader]:
    """The bytes of a table, unpacked where its name ends in .gz, to be read from the first to the last.

    Raises:
        FileNotFoundError: there is none.
        SeverityError: as for `opened`; or, in the block too, it is not what gzip packs, is damaged, unfolds to many times
            its size, or has a line that no table has.
    """
    with opened(path) as file:
        try:
            yield io.BufferedReader(_Limited(path, file), 2**18)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            why = str(error).rstrip(".")
            raise SeverityError(
                f"{shown(path)} cannot be read as a CSV table: it is damaged or not packed by gzip ({why}). Put an intact "
                "copy there."
            ) from None


class _Limited(io.RawIOBase):
    """Reads a file, packed or not, and refuses one that would fill the memory."""

    def __init__(self, path: Path | str, file: BinaryIO):
        self.path, self.size = path, os.fstat(file.fileno()).st_size
        self.file = gzip.GzipFile(fileobj=file) if str(path).endswith(".gz") else file
        self.read_so_far = self.since_line = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        count = self.file.readinto(buffer)
        self.read_so_far += count
        block = bytes(buffer[:count])
        if self.read_so_far == count and block.startswith((ZIP, OLE)):
            raise SeverityError(
                f"{shown(self.path)} is not text but an Excel or ZIP file, by its content. Give it the name that it has "
                "as such (.xlsx), unpack it, or save it as a table in UTF-8."
            )
        if b"\x00" in block:
            raise SeverityError(
                f"{shown(self.path)} has zero bytes: it is a binary file or text in another encoding. Save it as a table "
                "in UTF-8."
            )
        end = block.rfind(b"\n")
        self.since_line = self.since_line + count if end < 0 else count - end - 1
        if self.since_line > LINE:
            raise SeverityError(
                f"{shown(self.path)} has a line of more than {LINE // MIB} MiB, which no table has. Put an intact copy "
                "there."
            )
        if self.read_so_far > max(SMALL, RATIO * self.size):
            raise SeverityError(
                f"{shown(self.path)} unfolds to more than {RATIO} times its {self.size:,} bytes, which no table does. If "
                "it is right, unpack it with gunzip and take away the .gz."
            )
        return count
