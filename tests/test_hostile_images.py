"""Hostile files as images: each is listed as unreadable with a reason, soon, and nothing else happens."""

import contextlib
import io
import os
import random
import signal
import socket
import struct
import zlib
from pathlib import Path

import numpy
import pandas
import pytest
from PIL import Image, PngImagePlugin

from severity.decoding import decoding, storage
from tests.test_decoding import OPTIONS, picture, write_dicom, write_tiff

SECONDS = 5  # that one image may take; most take milliseconds

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer signal, which stops what hangs")


@contextlib.contextmanager
def limited(seconds):
    """Fail when the block takes longer, even where it waits for the system."""

    def late(*_):
        raise AssertionError(f"it took more than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def saved(form, **options):
    """The bytes of a picture in a form."""
    buffer = io.BytesIO()
    picture(0, 60, 40).save(buffer, form, **options)
    return buffer.getvalue()


def png(width, height, rows=b"", bits=8, kind=0, more=b"", interlaced=0):
    """A PNG whose parts need not fit together."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, interlaced))
    return b"\x89PNG\r\n\x1a\n" + head + more + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def text_bomb():
    """Compressed text of 200 MB beside the pixels."""
    content = b"Comment\0\0" + zlib.compress(bytes(200_000_000), 9)
    chunk = struct.pack(">I", len(content)) + b"zTXt" + content + struct.pack(">I", zlib.crc32(b"zTXt" + content))
    return png(4, 4, bytes(20), more=chunk)


def scan_bomb():
    """A progressive JPEG of 60 million pixels that begins its last scan again, and again."""
    buffer = io.BytesIO()
    Image.new("L", (8000, 7500)).save(buffer, "JPEG", progressive=True)
    whole = buffer.getvalue()
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + last * 400 + b"\xff\xd9"


def tiff(path, **changes):
    given = {"packed": bytes(64), "width": 8, "height": 8, "bits": 8, "photometric": 1} | changes
    write_tiff(path, **given)


def tiff_loop():
    """A TIFF whose directory is followed by itself."""
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<HHHII", 1, 256, 4, 1, 8) + struct.pack("<I", 8)


# What lies in one file: name -> its bytes, and what the reason holds (None: it may be read as well).
CONTENTS = {
    "nothing.png": (lambda: b"", "not an image"),
    "nothing.jpg": (lambda: b"", "not an image"),
    "nothing.tif": (lambda: b"", "not an image"),
    "one byte.png": (lambda: b"\x89", "not an image"),
    "zeros.png": (lambda: bytes(5000), "not an image"),
    "text.jpg": (lambda: b"path,class\n" * 40, "not an image"),
    "page.png": (lambda: b"<!DOCTYPE html><html>Sign in</html>", "not an image"),
    "vector.svg": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
    "script.png": (lambda: b"#!/bin/sh\ntouch ran\n", "not an image"),
    "printed.png": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n(ran) (w) file\n", "not an image"),
    "zipped.png": (lambda: b"PK\x03\x04" + bytes(200), "not an image"),
    "gzipped.png": (lambda: zlib.compress(saved("PNG")), "not an image"),
    "movie.gif": (lambda: saved("GIF"), "not an image"),
    "bitmap.bmp": (lambda: saved("BMP"), "not an image"),
    "web.webp": (lambda: saved("WEBP"), "not an image"),
    "a stack.npy": (lambda: b"\x93NUMPY\x01\0", "not an image"),
    "head alone.png": (lambda: saved("PNG")[:33], "not an image"),
    "half.png": (lambda: saved("PNG")[: len(saved("PNG")) // 2], "truncated"),
    "half.jpg": (lambda: saved("JPEG")[: len(saved("JPEG")) // 2], ""),
    "head alone.jpg": (lambda: b"\xff\xd8\xff", "not an image"),
    "head alone.tif": (lambda: b"II*\0\x08\0\0\0", "not an image"),
    "wide.png": (lambda: png(2**31 - 1, 2**31 - 1), "pixels"),
    "bomb.png": (lambda: png(40_000, 40_000, bytes(1000)), "pixels"),
    "bomb of one row.png": (lambda: png(2**31 - 1, 1), "pixels"),
    "no pixel.png": (lambda: png(0, 0), "not an image"),
    "less than it says.png": (lambda: png(4000, 4000, bytes(100)), "truncated"),
    "more than it says.png": (lambda: png(4, 4, bytes(50_000_000)), None),
    "interlaced, less than it says.png": (lambda: png(4000, 4000, bytes(100), interlaced=1), "truncated"),
    "bits that are none.png": (lambda: png(4, 4, bytes(20), bits=7), ""),
    "colours that are none.png": (lambda: png(4, 4, bytes(20), kind=5), ""),
    "text bomb.png": (text_bomb, ""),
    "scan bomb.jpg": (scan_bomb, "a progressive JPEG of 4"),
    "checksum.png": (lambda: saved("PNG")[:-20] + b"xxxxxxxx" + saved("PNG")[-12:], ""),
    "directory loop.tif": (tiff_loop, ""),
    "directory far away.tif": (lambda: b"II*\0\xff\xff\xff\xff", "not an image"),
    "many tags.tif": (lambda: b"II*\0\x08\0\0\0\xff\xff" + bytes(12 * 65535), "not an image"),
    "not DICOM.dcm": (lambda: b"\0" * 200, ""),
    "a PNG.dcm": (lambda: saved("PNG"), ""),
    "DICM alone": (lambda: bytes(128) + b"DICM", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTENTS)
def test_a_file_that_is_no_picture_is_refused_soon(tmp_path, name):
    make, reason = CONTENTS[name]
    if name.endswith(".dcm") or "DICM" in name:
        pytest.importorskip("pydicom", reason="pydicom is not installed: pip install -r requirements-extra.txt")
    (tmp_path / name).write_bytes(make())
    with limited(SECONDS):
        if reason is None:
            decoding.read_gray(tmp_path / name)
            return
        with pytest.raises(decoding.Unreadable) as caught:
            decoding.read_gray(tmp_path / name)
    said = str(caught.value)
    assert said and reason in said and len(said) <= decoding.LONGEST_REASON and str(tmp_path) not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "progressive", "deflated", "DICOM", "stack"])
def test_a_file_that_ends_anywhere_is_refused_or_read(tmp_path, form):
    path = tmp_path / {"DICOM": "a.dcm", "stack": "a.npy"}.get(form, "a.img")
    if form == "DICOM":
        pytest.importorskip("pydicom", reason="pydicom is not installed: pip install -r requirements-extra.txt")
        write_dicom(path, numpy.zeros((8, 8), numpy.uint16))
    elif form == "stack":
        numpy.save(path, numpy.zeros((2, 8, 8), numpy.uint8))
    else:
        path.write_bytes(
            saved("JPEG", progressive=True)
            if form == "progressive"
            else saved("TIFF", compression="tiff_adobe_deflate")
            if form == "deflated"
            else saved(form)
        )
    whole = path.read_bytes()
    with limited(SECONDS * 6):
        for end in sorted({*range(0, min(len(whole), 160)), *range(160, len(whole), max(1, len(whole) // 60))}):
            path.write_bytes(whole[:end])
            with contextlib.suppress(decoding.Unreadable):
                decoding.read_gray(f"{path}#1" if form == "stack" else path)
                assert end > len(whole) * 0.9, f"read although it ends after {end} of {len(whole)} bytes"


@pytest.mark.parametrize(
    ("form", "actual"), [("a.jpg", "PNG"), ("a.png", "JPEG"), ("a.tif", "PNG"), ("a", "JPEG"), ("a.txt", "TIFF")]
)
def test_a_picture_under_a_wrong_suffix_is_that_picture(tmp_path, form, actual):
    (tmp_path / form).write_bytes(saved(actual))
    assert decoding.read_gray(tmp_path / form).size == (60, 40)


def test_a_deflated_dicom_file_may_not_fill_the_memory(tmp_path):
    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed: pip install -r requirements-extra.txt")
    write_dicom(tmp_path / "a.dcm", numpy.zeros((8, 8), numpy.uint16))
    data = pydicom.dcmread(tmp_path / "a.dcm")
    data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    data.save_as(tmp_path / "small.dcm")
    assert decoding.read_gray(tmp_path / "small.dcm").size == (8, 8)
    data.add_new(0x00091001, "OB", bytes(500_000_000))
    data.save_as(tmp_path / "bomb.dcm")
    assert (tmp_path / "bomb.dcm").stat().st_size < 1_000_000
    with limited(SECONDS), pytest.raises(decoding.Unreadable, match="deflated from more than"):
        decoding.read_gray(tmp_path / "bomb.dcm")


# What is no file


def fifo(path):
    os.mkfifo(path)


def listening(path):
    at = os.getcwd()
    os.chdir(path.parent)  # the name of a socket may be no longer than about a hundred bytes
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(at)


PLACES = {
    "fifo.png": (fifo, "a FIFO, not a regular file"),
    "fifo.dcm": (fifo, "a FIFO, not a regular file"),
    "fifo.npy": (fifo, "a FIFO, not a regular file"),
    "folder.png": (Path.mkdir, "a directory, not a regular file"),
    "socket.png": (listening, "a socket, not a regular file"),
    "endless.png": (lambda path: path.symlink_to("/dev/zero"), "a device, not a regular file"),
    "empty.png": (lambda path: path.symlink_to("/dev/null"), "a device, not a regular file"),
    "fifo behind a link.png": (lambda path: (fifo(path.parent / "x"), path.symlink_to("x")), "a FIFO"),
    "loop.png": (lambda path: path.symlink_to(path), "symbolic links"),
    "dangling.png": (lambda path: path.symlink_to("nowhere"), "no such file"),
    "loop/a.png": (lambda path: path.parent.symlink_to(path.parent), "symbolic links"),
    "a file/a.png": (lambda path: path.parent.write_bytes(b""), "Not a directory"),
    "n" * 300 + ".png": (lambda path: None, "name too long"),
    "d/" * 3000 + "a.png": (lambda path: None, "name too long"),
    "zero\0.png": (lambda path: None, "null byte"),
    "": (lambda path: None, "a directory"),
}


@pytest.mark.skipif(os.name != "posix", reason="FIFOs, devices and links as POSIX has them")
@pytest.mark.parametrize("name", PLACES, ids=[name[:24] or "the folder itself" for name in PLACES])
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path, name):
    make, reason = PLACES[name]
    path = tmp_path / name if "\0" not in name and name else Path(f"{tmp_path}/{name}")
    if name:
        make(path)
    with limited(SECONDS):
        for given in [path] if not name.endswith(".npy") else [path, f"{path}#0"]:
            with pytest.raises(decoding.Unreadable) as caught:
                decoding.read_gray(given)
            assert reason in str(caught.value)


# A collection of them


def test_hostile_files_beside_good_ones_are_listed_and_the_good_ones_decoded(tmp_path):
    """Names that are no UTF-8 among them, which stand in a table as surrogates; with two processes, and again."""
    root = tmp_path / "raw"
    root.mkdir()
    names = ["good.png", "fifo.png", "folder.png", "loop.png", "text.png", "n" * 300, "also good.png"]
    picture(0).save(root / names[0])
    fifo(root / names[1])
    (root / names[2]).mkdir()
    (root / names[3]).symlink_to(names[3])
    (root / names[4]).write_text("no picture")
    picture(1).save(root / names[6])
    names.append(os.fsdecode(b"gr\xf6\xdfe.png"))
    (root / names[-1]).write_bytes(saved("PNG"))
    table = pandas.DataFrame({"id": [f"image {place}" for place in range(len(names))], "path": names})
    options = OPTIONS | {"root": root, "scratch": tmp_path / "scratch"}
    with limited(60):
        for workers in (1, 2):
            chosen = options | {"max_unreadable": 6, "workers": workers}
            summary = storage.decode(tmp_path / str(workers), table, **chosen)
            assert (summary["images"], summary["unreadable"]) == (2, 6)
    listed = pandas.read_csv(tmp_path / "1/unreadable.csv")
    assert listed["id"].tolist() == [f"image {place}" for place in (1, 2, 3, 4, 5, 7)]
    assert listed["reason"].notna().all() and "UTF-8" in listed["reason"].tolist()[-1]
    with pytest.raises(storage.SeverityError, match="fifo.png .a FIFO") as caught:
        storage.decode(tmp_path / "out", table, **options | {"max_unreadable": 0})
    str(caught.value).encode()  # can be printed


# Damage


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
def test_damage_anywhere_ends_soon(tmp_path, form):
    whole, chance = saved(form), random.Random(1)
    seen = set()
    with limited(SECONDS * 6):
        for _ in range(300):
            damaged = bytearray(whole)
            for _ in range(chance.choice((1, 4, 20))):
                damaged[chance.randrange(min(len(damaged), chance.choice((64, len(damaged)))))] = chance.randrange(256)
            (tmp_path / "a").write_bytes(damaged)
            try:
                decoding.read_gray(tmp_path / "a")
                seen.add("read")
            except decoding.Unreadable as error:
                assert str(error)
                seen.add("refused")
    assert "refused" in seen


def test_the_limits_of_pillow_on_text_are_in_force():
    """They are what stops bombs in the metadata of PNG."""
    assert PngImagePlugin.MAX_TEXT_CHUNK <= 1 << 20 and PngImagePlugin.MAX_TEXT_MEMORY <= 1 << 26
