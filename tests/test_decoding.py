"""Files of every form to gray levels, their place in the square, and data/images: whole, resumable, the same for all workers."""

import hashlib
import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy
import pandas
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from benchmarks import decoding as benchmark
from benchmarks import full_size
from severity.collections.collection import Collection
from severity.core import params
from severity.core.errors import SeverityError
from severity.datasets import chexpert, nih14
from severity.decoding import decoding, storage
from severity.prepared import decoded
from stages import decode as stage

TOP = Path(__file__).resolve().parent.parent
ASPECTS = ("squash", "crop", "pad")
OPTIONS = {
    "dataset": "tiny",
    "size": 16,
    "aspect": "squash",
    "reduced": False,
    "max_unreadable": 0,
    "workers": 1,
}


def fails(text):
    """Expect a SeverityError whose message holds `text`."""
    return pytest.raises(SeverityError, match=re.escape(text))


def unreadable(text):
    """Expect that a file is no picture, for a reason that holds `text`."""
    return pytest.raises(decoding.Unreadable, match=re.escape(text))


def picture(seed, width=20, height=14):
    """A gray image of smooth noise, so that resizing filters matter."""
    levels = numpy.random.default_rng(seed).integers(0, 256, (4, 5), dtype=numpy.uint8)
    return Image.fromarray(levels).resize((width, height), Image.Resampling.BICUBIC)


def levels_of(path):
    image = decoding.read_gray(path)
    assert image.mode == "L"
    return numpy.asarray(image)


# Pictures


def test_every_way_to_store_gray_gives_the_same_gray(tmp_path):
    gray = picture(1)
    levels = numpy.asarray(gray)
    transparent = gray.convert("RGBA")
    transparent.putalpha(picture(2))
    for name, image in {
        "gray.png": gray,
        "gray.tif": gray,
        "rgb.png": gray.convert("RGB"),
        "rgba.png": transparent,
        "la.png": Image.merge("LA", (gray, picture(2))),
        "palette.png": gray.convert("P"),
        "sixteen.png": Image.fromarray(levels.astype(numpy.uint16) * 257),
        "sixteen.tif": Image.fromarray(levels.astype(numpy.uint16) * 257),
        "größe Röntgen 肺.png": gray,
    }.items():
        image.save(tmp_path / name)
        numpy.testing.assert_array_equal(levels_of(tmp_path / name), levels, err_msg=name)


def test_sixteen_bits_are_rounded_to_eight(tmp_path):
    every = numpy.arange(1 << 16, dtype=numpy.uint16).reshape(256, 256)
    Image.fromarray(every).save(tmp_path / "every.png")
    expected = [(level * 255 + 32767) // 65535 for level in range(1 << 16)]
    numpy.testing.assert_array_equal(levels_of(tmp_path / "every.png").ravel(), expected)


def test_jpeg_and_two_levels(tmp_path):
    picture(1).save(tmp_path / "gray.jpg", quality=90)
    with Image.open(tmp_path / "gray.jpg") as image:
        numpy.testing.assert_array_equal(levels_of(tmp_path / "gray.jpg"), numpy.asarray(image))
    picture(1).convert("1").save(tmp_path / "two.png")
    with Image.open(tmp_path / "two.png") as image:
        numpy.testing.assert_array_equal(levels_of(tmp_path / "two.png"), numpy.asarray(image) * 255)


def test_colour_becomes_luma(tmp_path):
    Image.new("RGB", (3, 3), (255, 0, 0)).save(tmp_path / "red.png")
    assert levels_of(tmp_path / "red.png")[0, 0] == round(0.299 * 255)
    Image.new("CMYK", (8, 8), (0, 0, 0, 0)).save(tmp_path / "white.jpg")
    assert levels_of(tmp_path / "white.jpg").min() == 255


def write_tiff(path, packed, width, height, *, bits, photometric, order="<", more=None):
    """A TIFF of one strip, by the letter of TIFF 6.0; `more` are tags with a number above 279."""
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height, 279: len(packed)}
    tags |= more or {}
    entries = b"".join(
        struct.pack(order + "HHI", tag, 4, 1) + struct.pack(order + "I", value) for tag, value in tags.items()
    )
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8 + len(packed))
    path.write_bytes(head + packed + struct.pack(order + "H", len(tags)) + entries + b"\0\0\0\0")


def test_tiff_of_twelve_and_sixteen_bits_whatever_is_white(tmp_path):
    levels = numpy.array([[0, 1000, 2047, 2048, 3000, 4095]], numpy.uint16)
    wide = (levels.astype(numpy.uint32) * 65535 // 4095).astype(numpy.uint16)
    expected = numpy.rint(levels / 4095 * 255)
    pairs = levels.ravel().reshape(-1, 2).tolist()
    twelve = b"".join(((first << 12) | second).to_bytes(3, "big") for first, second in pairs)
    write_tiff(tmp_path / "twelve.tif", twelve, 6, 1, bits=12, photometric=1)
    numpy.testing.assert_array_equal(levels_of(tmp_path / "twelve.tif"), expected)
    write_tiff(tmp_path / "big.tif", wide.astype(">u2").tobytes(), 6, 1, bits=16, photometric=1, order=">")
    numpy.testing.assert_allclose(levels_of(tmp_path / "big.tif"), expected, atol=1)
    write_tiff(tmp_path / "turned.tif", wide.astype("<u2").tobytes(), 6, 1, bits=16, photometric=0)
    numpy.testing.assert_allclose(levels_of(tmp_path / "turned.tif"), 255 - expected, atol=1)


def test_a_turned_tiff_has_the_size_that_it_is_seen_with(tmp_path):
    gray = picture(1, 30, 20)
    gray.save(tmp_path / "turned.tif", tiffinfo={274: 6})  # the file's left is above
    found = decoding._read(tmp_path / "turned.tif")
    assert (found.width, found.height) == found.image.size == (20, 30)
    numpy.testing.assert_array_equal(numpy.asarray(found.image), numpy.rot90(numpy.asarray(gray), -1))


def damage(folder):
    """Files that are no picture: name -> what the reason must hold."""
    folder.mkdir(exist_ok=True)
    picture(0, 200, 200).save(folder / "cut.jpg", quality=95)
    picture(0, 200, 200).save(folder / "cut.png")
    for name in ("cut.jpg", "cut.png"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "page.png").write_bytes(b"<html>Sign in</html>")
    picture(0).save(folder / "other.gif")
    Image.fromarray(numpy.ones((4, 4), numpy.float32)).save(folder / "float.tif")
    write_tiff(folder / "nothing.tif", b"", 0, 0, bits=8, photometric=1)
    (folder / "folder.png").mkdir()
    return {
        "cut.jpg": "truncated",
        "cut.png": "truncated",
        "empty.png": "not an image of a format read here (JPEG, PNG, TIFF, DICOM, a row of a .npy)",
        "page.png": "not an image of a format read here",
        "other.gif": "not an image of a format read here",
        "float.tif": "floating-point 32-bit levels",
        "nothing.tif": "a TIFF of a form that is not read here: 0 x 0 pixels",
        "absent.png": "no such file",
        "folder.png": "directory",
        "n" * 300 + ".png": "name too long",
        "zero\0.png": "null byte",
        "absent.npy#0": "no such file",
    }


def test_what_is_no_picture_has_a_reason_without_its_folder(tmp_path):
    for name, reason in damage(tmp_path / "bad").items():
        with pytest.raises(decoding.Unreadable) as caught:
            decoding.read_gray(tmp_path / "bad" / name)
        assert reason in str(caught.value).lower() or reason in str(caught.value)
        assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("limit", [40, 150])
@pytest.mark.parametrize("name", ["large.png", "large.npy#0"])
def test_decompression_bombs_are_unreadable(tmp_path, monkeypatch, limit, name):
    """Pillow warns above its limit and raises above twice the limit; neither image is worth its memory."""
    picture(0, 20, 14).save(tmp_path / "large.png")
    numpy.save(tmp_path / "large.npy", numpy.zeros((1, 20, 14), numpy.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with unreadable(f"more than {limit} pixels"):
        decoding.read_gray(tmp_path / name)


def damaged_anywhere(whole, path, times=300):
    """Overwrite and cut a file at random, again and again; return which of read and unreadable came of it."""
    chance = random.Random(0)
    outcomes = set()
    for _ in range(times):
        bytes_ = bytearray(whole)
        for _ in range(chance.choice((1, 3, 10))):
            bytes_[chance.randrange(len(bytes_))] = chance.randrange(256)
        path.write_bytes(bytes_[: chance.choice((len(whole), chance.randrange(len(whole))))])
        try:
            decoding.read_gray(f"{path}#0" if path.suffix == ".npy" else path)
            outcomes.add("read")
        except decoding.Unreadable:
            outcomes.add("unreadable")
    return outcomes


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "npy"])
def test_random_damage_raises_nothing_else(tmp_path, suffix):
    whole = tmp_path / f"whole.{suffix}"
    if suffix == "npy":
        numpy.save(whole, numpy.asarray(picture(0))[None])
    else:
        picture(0).save(whole)
    assert damaged_anywhere(whole.read_bytes(), tmp_path / f"damaged.{suffix}") == {"read", "unreadable"}


# Stacks


def test_rows_of_a_stack(tmp_path):
    rows = numpy.random.default_rng(0).integers(0, 256, (5, 7, 9, 3), dtype=numpy.uint8)
    numpy.save(tmp_path / "colour #1.npy", rows)
    numpy.save(tmp_path / "gray.npy", rows[..., 0])
    numpy.save(tmp_path / "fortran.npy", numpy.asfortranarray(rows[..., 0]))
    for row in range(5):
        numpy.testing.assert_array_equal(levels_of(tmp_path / f"gray.npy#{row}"), rows[row, ..., 0])
        numpy.testing.assert_array_equal(levels_of(tmp_path / f"fortran.npy#{row}"), rows[row, ..., 0])
        luma = rows[row] @ [0.299, 0.587, 0.114]
        numpy.testing.assert_allclose(levels_of(tmp_path / f"colour #1.npy#{row}"), luma, atol=0.51)


def test_a_stack_is_opened_once_and_again_when_it_is_replaced(tmp_path):
    numpy.save(tmp_path / "stack.npy", numpy.zeros((2, 4, 4), numpy.uint8))
    before = decoding._open_stack.cache_info().misses
    assert levels_of(tmp_path / "stack.npy#0").max() == levels_of(tmp_path / "stack.npy#1").max() == 0
    assert decoding._open_stack.cache_info().misses == before + 1
    numpy.save(tmp_path / "other.npy", numpy.full((3, 4, 4), 9, numpy.uint8))
    os.replace(tmp_path / "other.npy", tmp_path / "stack.npy")
    assert levels_of(tmp_path / "stack.npy#2").min() == 9


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (numpy.zeros((2, 4, 4), numpy.uint8), "the stack has 2 rows, counted from 0"),
        (numpy.zeros((9, 4), numpy.uint8), "an array (9, 4) of uint8; a stack is (N, H, W) or (N, H, W, 3) of uint8"),
        (numpy.zeros((9, 4, 4, 4), numpy.uint8), "an array (9, 4, 4, 4) of uint8"),
        (numpy.zeros((9, 4, 4), numpy.float32), "an array (9, 4, 4) of float32"),
        (numpy.zeros((), numpy.uint8), "an array () of uint8"),
        (numpy.zeros((9, 0, 4), numpy.uint8), "it has no pixel"),
        (numpy.array([{}] * 9), "Python objects"),
    ],
)
def test_stacks_that_are_none(tmp_path, array, reason):
    numpy.save(tmp_path / "stack.npy", array)
    with pytest.raises(decoding.Unreadable) as caught:
        decoding.read_gray(tmp_path / "stack.npy#2")
    assert reason in str(caught.value)


def test_a_stack_by_itself_is_no_image(tmp_path):
    numpy.save(tmp_path / "stack.npy", numpy.zeros((2, 4, 4), numpy.uint8))
    with unreadable("not an image of a format read here"):
        decoding.read_gray(tmp_path / "stack.npy")


# DICOM


@pytest.fixture
def pydicom():
    return pytest.importorskip("pydicom", reason="pydicom is not installed: pip install -r requirements-extra.txt")


def write_dicom(path, stored, *, bits=12, kind="MONOCHROME2", syntax="1.2.840.10008.1.2.1", pixels=None, **elements):
    """Write a small DICOM file; `pixels` are encoded ones, `elements` whatever else it shall hold (None: nothing)."""
    import pydicom

    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=["severity"])
    data = pydicom.Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Rows, data.Columns = stored.shape[:2]
    data.SamplesPerPixel = stored.shape[2] if stored.ndim == 3 else 1
    if data.SamplesPerPixel == 3:
        data.PlanarConfiguration = 0
    data.PhotometricInterpretation = kind
    data.BitsAllocated, data.BitsStored, data.HighBit = stored.dtype.itemsize * 8, bits, bits - 1
    data.PixelRepresentation = int(stored.dtype.kind == "i")
    order = ">" if syntax == "1.2.840.10008.1.2.2" else "<"
    data.PixelData = stored.astype(stored.dtype.newbyteorder(order)).tobytes()
    if pixels is not None:
        data.PixelData = pydicom.encaps.encapsulate([pixels])
        data["PixelData"].VR = "OB"
    for name, value in elements.items():
        if value is None:
            del data[name]
        else:
            setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return data


RAMP = numpy.arange(4096, dtype=numpy.uint16).reshape(64, 64)  # every value of 12 bits


def window(values, centre, width, function="LINEAR"):
    """Share of white of each value, by the formulas of DICOM PS3.3, C.11.2.1.2 and C.11.2.1.3."""
    shares = []
    for x in values.ravel().tolist():
        if function == "SIGMOID":
            share = 1 / (1 + numpy.exp(-4 * (x - centre) / width))
        else:
            middle, full = (centre - 0.5, width - 1) if function == "LINEAR" else (centre, width)
            if x <= middle - full / 2:
                share = 0.0
            elif x > middle + full / 2:
                share = 1.0
            else:
                share = (x - middle) / full + 0.5
        shares.append(share)
    return numpy.reshape(shares, values.shape) * 255


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("centre", "width"), [(2048, 1000), (300, 2), (4000, 3000)])
def test_dicom_is_seen_through_its_window(pydicom, tmp_path, function, centre, width):
    chosen = {"VOILUTFunction": function} if function else {}
    write_dicom(tmp_path / "a", RAMP, WindowCenter=centre, WindowWidth=width, **chosen)
    expected = window(RAMP, centre, width, function or "LINEAR")
    numpy.testing.assert_allclose(levels_of(tmp_path / "a"), expected, atol=0.5 + 1e-6)
    write_dicom(tmp_path / "b", RAMP, kind="MONOCHROME1", WindowCenter=centre, WindowWidth=width, **chosen)
    numpy.testing.assert_array_equal(levels_of(tmp_path / "b"), 255 - levels_of(tmp_path / "a"))


def test_dicom_is_rescaled_before_its_window(pydicom, tmp_path):
    signed = (RAMP.astype(numpy.int16) - 2048) // 2
    rescale = {"RescaleSlope": 2, "RescaleIntercept": -1024, "RescaleType": "HU"}
    write_dicom(tmp_path / "a.dcm", signed, WindowCenter=[-600, 40], WindowWidth=[1500, 400], **rescale)
    expected = window(signed * 2.0 - 1024, -600, 1500)
    numpy.testing.assert_allclose(levels_of(tmp_path / "a.dcm"), expected, atol=0.5 + 1e-6)


def lut(entries, first, bits, vr="US"):
    from pydicom import Dataset

    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item["LUTDescriptor"].VR = "US"
    item.LUTData = entries if vr == "US" else numpy.array(entries, "<u2").tobytes()
    item["LUTData"].VR = vr
    return [item]


@pytest.mark.parametrize(
    ("bits", "rescaled", "vr"), [(8, False, "US"), (8, True, "OW"), (12, False, "OW"), (16, True, "US")]
)
def test_dicom_is_seen_through_its_voi_lut(pydicom, tmp_path, bits, rescaled, vr):
    top = 2**bits - 1
    entries = [round(top * (entry / 2999) ** 2) for entry in range(3000)]
    rescale = {"RescaleSlope": 1, "RescaleIntercept": 100, "RescaleType": "US"} if rescaled else {}
    window_too = {"WindowCenter": 10, "WindowWidth": 10}
    write_dicom(tmp_path / "a.dcm", RAMP, VOILUTSequence=lut(entries, 500, bits, vr), **rescale, **window_too)
    values = RAMP.astype(int) + 100 * rescaled
    expected = numpy.array(entries)[(values - 500).clip(0, 2999)] / top * 255
    numpy.testing.assert_allclose(levels_of(tmp_path / "a.dcm"), expected, atol=0.5 + 1e-6)


def test_dicom_modality_lut(pydicom, tmp_path):
    entries = [65535 - 16 * entry for entry in range(4096)]
    table = lut(entries, 0, 16)
    table[0].ModalityLUTType = "US"
    write_dicom(tmp_path / "a.dcm", RAMP, ModalityLUTSequence=table)
    expected = (1 - RAMP / 4095) * 255
    numpy.testing.assert_allclose(levels_of(tmp_path / "a.dcm"), expected, atol=0.5 + 1e-6)


def test_dicom_without_a_window_goes_from_its_smallest_to_its_largest_value(pydicom, tmp_path):
    part = RAMP[10:20]
    expected = (part - 640) / (1279 - 640) * 255
    write_dicom(tmp_path / "a.dcm", part)
    write_dicom(tmp_path / "b.dcm", part, WindowCenter="", WindowWidth="")
    write_dicom(tmp_path / "c.dcm", part, kind="MONOCHROME1", RescaleSlope=3, RescaleIntercept=-7, RescaleType="US")
    write_dicom(tmp_path / "flat.dcm", numpy.full((4, 4), 700, numpy.uint16))
    for name in ("a.dcm", "b.dcm"):
        numpy.testing.assert_allclose(levels_of(tmp_path / name), expected, atol=0.5 + 1e-6)
    numpy.testing.assert_allclose(levels_of(tmp_path / "c.dcm"), 255 - expected, atol=0.5 + 1e-6)
    assert levels_of(tmp_path / "flat.dcm").max() == 0


def test_dicom_of_eight_bits_and_of_colour_equals_png(pydicom, tmp_path):
    levels = numpy.asarray(picture(3, 40, 30)).copy()
    levels[0, :2] = (0, 255)
    write_dicom(tmp_path / "gray.dicom", levels, bits=8)
    numpy.testing.assert_array_equal(levels_of(tmp_path / "gray.dicom"), levels)
    colour = numpy.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=numpy.uint8)
    Image.fromarray(colour).save(tmp_path / "colour.png")
    write_dicom(tmp_path / "colour.dcm", colour, bits=8, kind="RGB")
    numpy.testing.assert_array_equal(levels_of(tmp_path / "colour.dcm"), levels_of(tmp_path / "colour.png"))


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"])
def test_dicom_of_every_uncompressed_transfer_syntax(pydicom, tmp_path, syntax):
    write_dicom(tmp_path / "plain.dcm", RAMP, WindowCenter=2048, WindowWidth=4096)
    write_dicom(tmp_path / "other.dcm", RAMP, syntax=syntax, WindowCenter=2048, WindowWidth=4096)
    numpy.testing.assert_array_equal(levels_of(tmp_path / "other.dcm"), levels_of(tmp_path / "plain.dcm"))


@pytest.mark.parametrize("implicit", [True, False])
def test_dicom_without_a_head_is_known_by_its_suffix(pydicom, tmp_path, implicit):
    data = write_dicom(tmp_path / "whole.dcm", RAMP, WindowCenter=2048, WindowWidth=4096)
    data.file_meta = pydicom.dataset.FileMetaDataset()
    pydicom.dcmwrite(
        tmp_path / "old.DCM", data, implicit_vr=implicit, little_endian=True, force_encoding=True, overwrite=True
    )
    assert (tmp_path / "old.DCM").read_bytes()[128:132] != b"DICM"
    numpy.testing.assert_array_equal(levels_of(tmp_path / "old.DCM"), levels_of(tmp_path / "whole.dcm"))


def test_compressed_dicom(pydicom, tmp_path):
    data = write_dicom(tmp_path / "plain.dcm", RAMP, WindowCenter=2048, WindowWidth=4096)
    data.compress(pydicom.uid.RLELossless)
    data.save_as(tmp_path / "rle.dcm")
    numpy.testing.assert_array_equal(levels_of(tmp_path / "rle.dcm"), levels_of(tmp_path / "plain.dcm"))
    image = picture(4, 64, 48)
    image.save(tmp_path / "gray.jpg", quality=90)
    jpeg = (tmp_path / "gray.jpg").read_bytes()
    levels = levels_of(tmp_path / "gray.jpg").astype(float)
    write_dicom(tmp_path / "jpeg.dcm", numpy.asarray(image), bits=8, syntax="1.2.840.10008.1.2.4.50", pixels=jpeg)
    expected = (levels - levels.min()) / (levels.max() - levels.min()) * 255
    numpy.testing.assert_allclose(levels_of(tmp_path / "jpeg.dcm"), expected, atol=0.5 + 1e-6)


def test_a_dicom_compression_without_a_decoder_is_named(pydicom, tmp_path, monkeypatch):
    lossless = "1.2.840.10008.1.2.4.70"
    decoder = pydicom.pixels.get_decoder(lossless)
    monkeypatch.setattr(decoder, "_available", {})  # as where no plugin is installed
    write_dicom(tmp_path / "a.dcm", RAMP, syntax=lossless, pixels=b"\xff\xd8\xff\xd9")
    with unreadable("its pixels are compressed as JPEG Lossless, Non-Hierarchical") as caught:
        decoding.read_gray(tmp_path / "a.dcm")
    assert "none of pydicom's decoders of that is installed (" in str(caught.value)
    assert "pylibjpeg - requires" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"NumberOfFrames": 2}, "a DICOM file of 2 frames; only one is supported"),
        ({"PixelData": None}, "not a DICOM image: it has no pixel data"),
        ({"PixelData": b"12"}, "The number of bytes of pixel data is less than expected"),
        ({"Rows": 0}, "it has no pixel"),
        ({"Rows": None}, "Rows"),
        ({"Rows": 60000, "Columns": 60000}, "pixels"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "uint16 pixels of photometric interpretation PALETTE COLOR"),
    ],
)
def test_dicom_that_gives_no_picture(pydicom, tmp_path, changes, reason):
    write_dicom(tmp_path / "a.dcm", RAMP, **changes)
    with pytest.raises(decoding.Unreadable) as caught:
        decoding.read_gray(tmp_path / "a.dcm")
    assert reason in str(caught.value)


def test_what_is_called_dicom_and_is_none(pydicom, tmp_path, caplog):
    picture(0).save(tmp_path / "a.png")
    for name, content in (
        ("page.dcm", b"<html>Sign in</html>"),
        ("empty.dcm", b""),
        ("picture.dcm", (tmp_path / "a.png").read_bytes()),
        ("head alone", bytes(128) + b"DICM"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(decoding.Unreadable):
            decoding.read_gray(tmp_path / name)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
def test_random_damage_to_dicom_raises_nothing_else(pydicom, tmp_path, syntax):
    data = write_dicom(tmp_path / "a.dcm", RAMP[:4], syntax=syntax, VOILUTSequence=lut([0, 5, 255], 0, 8))
    whole = (tmp_path / "a.dcm").read_bytes()
    assert len(whole) < 2000 and "VOILUTSequence" in data
    assert damaged_anywhere(whole, tmp_path / "damaged.dcm", times=600) == {"read", "unreadable"}


def test_without_pydicom_the_mend_is_told(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(bytes(128) + b"DICM" + bytes(100))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with fails("pydicom, which reads them, is not installed: pip install -r requirements-extra.txt") as caught:
        decoding.read_gray(tmp_path / "a")
    assert not isinstance(caught.value, decoding.Unreadable)  # no reject: it is not the file's fault
    assert "pydicom==" in (TOP / "requirements-extra.txt").read_text()


# The square


def triangle(levels, source, size):
    """(size, size) float: the part `source` of the levels under a triangle as wide as two of the larger pixels."""
    left, top, right, bottom = source
    for start, end in ((top, bottom), (left, right)):
        step = (end - start) / size
        reach = max(step, 1)
        centres = start + (numpy.arange(size)[:, None] + 0.5) * step
        weights = (1 - abs(numpy.arange(levels.shape[0]) + 0.5 - centres) / reach).clip(0)
        levels = (weights / weights.sum(axis=1, keepdims=True) @ levels).T
    return levels


def as_picture(image):
    return decoding.Picture(image, *image.size)


@pytest.mark.parametrize(("width", "height"), [(90, 61), (61, 90), (50, 50), (7, 5), (24, 3)])
def test_aspects_against_an_independent_computation(width, height):
    image = picture(5, width, height)
    levels = numpy.asarray(image).astype(float)
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    squash = decoding.squared(as_picture(image), 24, "squash")
    numpy.testing.assert_allclose(squash, triangle(levels, (0, 0, width, height), 24), atol=1)
    numpy.testing.assert_array_equal(squash, numpy.asarray(image.resize((24, 24), Image.Resampling.BILINEAR)))
    crop = decoding.squared(as_picture(image), 24, "crop")
    numpy.testing.assert_allclose(crop, triangle(levels, (left, top, left + side, top + side), 24), atol=1)
    pad = decoding.squared(as_picture(image), 24, "pad")
    short = round(24 * side / max(width, height))
    before = (24 - short) // 2
    content = pad[before : before + short] if width > height else pad[:, before : before + short]
    small = (24, short) if width > height else (short, 24)
    numpy.testing.assert_array_equal(content, numpy.asarray(image.resize(small, Image.Resampling.BILINEAR)))
    assert pad.sum() == content.sum()  # all else is black


def test_padded():
    white = Image.new("L", (40, 20), 255)
    boxed = decoding.padded(white, 8)
    assert boxed.shape == (8, 8) and boxed[2:6].min() == 255 and boxed[:2].max() == boxed[6:].max() == 0
    assert decoding.padded(Image.new("L", (1000, 1), 255), 8).shape == (8, 8)


@given(st.integers(20, 200), st.integers(20, 200), st.sampled_from(ASPECTS), st.randoms(use_true_random=False))
def test_boxes_move_with_what_they_enclose(width, height, aspect, chance):
    """A bright rectangle is where `on_square` says, to a pixel and what antialiasing spreads it by."""
    across, down = sorted(chance.sample(range(width + 1), 2)), sorted(chance.sample(range(height + 1), 2))
    levels = numpy.zeros((height, width), numpy.uint8)
    levels[down[0] : down[1], across[0] : across[1]] = 255
    edges = [[across[0] / width, down[0] / height, across[1] / width, down[1] / height]]
    [(left, top, right, bottom)] = decoding.on_square(edges, [width], [height], size=64, aspect=aspect) * 64
    square = decoding.squared(as_picture(Image.fromarray(levels)), 64, aspect)
    assert 0 <= left <= right <= 64 and 0 <= top <= bottom <= 64
    reach = max(width, height) / 64 + 1
    rows, columns = numpy.nonzero(square)
    if left == right or top == bottom:
        assert not len(rows) or aspect == "crop" and min(columns.min(), 64 - columns.max(), rows.min()) < reach
        return
    if len(rows):
        assert abs(columns.min() - left) <= reach + 1 and abs(columns.max() + 1 - right) <= reach + 1
        assert abs(rows.min() - top) <= reach + 1 and abs(rows.max() + 1 - bottom) <= reach + 1
    expected = (right - left) * (bottom - top)
    slack = (right - left + bottom - top + 4) * 1.0
    assert abs(square.sum() / 255 - expected) <= slack


def test_boxes_outside_a_crop_have_no_area():
    edges = [[0.0, 0.2, 0.2, 0.4], [0.0, 0.0, 1.0, 1.0], [0.25, 0.5, 0.5, 1.0]]
    moved = decoding.on_square(edges, [200] * 3, [100] * 3, size=10, aspect="crop")
    numpy.testing.assert_allclose(moved, [[0, 0.2, 0, 0.4], [0, 0, 1, 1], [0, 0.5, 0.5, 1]])
    numpy.testing.assert_allclose(
        decoding.on_square(edges[:2], [200] * 2, [100] * 2, size=10, aspect="pad"),
        [[0, 0.3, 0.2, 0.4], [0, 0.2, 1, 0.7]],  # 5 rows of 10, after 2
    )
    numpy.testing.assert_allclose(
        decoding.on_square(edges, [200] * 3, [100] * 3, size=10, aspect="squash"), edges, atol=1e-12
    )
    assert decoding.on_square(numpy.empty((0, 4)), [], [], size=10, aspect="pad").shape == (0, 4)


# Reduced JPEG


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 40), st.sampled_from(ASPECTS), st.booleans())
def test_a_jpeg_is_reduced_as_far_as_twice_the_square_allows(tmp_path_factory, width, height, size, aspect, colour):
    path = tmp_path_factory.mktemp("jpeg") / "a.jpg"
    picture(width, width, height).convert("RGB" if colour else "L").save(path)
    found = decoding._read(path, (size, aspect))
    assert (found.width, found.height) == (width, height)
    source, target = decoding.layout(width, height, size, aspect)
    kept = [(source[2] - source[0]) / (target[2] - target[0]), (source[3] - source[1]) / (target[3] - target[1])]
    fine = [divisor for divisor in (1, 2, 4, 8) if divisor == 1 or min(kept) / divisor >= 2]
    # Pillow rounds down twice where it chooses the divisor; near a limit it may be one less bold.
    assert found.shrink in fine and (found.shrink == fine[-1] or min(kept) / fine[-1] < 2 * (1 + 2 / size))
    assert found.image.size == (-(-width // found.shrink), -(-height // found.shrink))
    square = decoding.squared(found, size, aspect)
    if found.shrink == 1:
        numpy.testing.assert_array_equal(square, decoding.squared(decoding._read(path), size, aspect))
    else:
        whole = decoding.squared(decoding._read(path), size, aspect)
        assert abs(square.astype(int) - whole).mean() < 6


@pytest.mark.parametrize("name", ["double.jpg", "large.png"])
def test_less_than_twice_two_fold_is_decoded_whole(tmp_path, name):
    """The default study: JPEGs of 128 px at 64 px come out as without reduction, byte for byte; other formats always do."""
    image = picture(0, 128 if name == "double.jpg" else 1000, 140 if name == "double.jpg" else 1000)
    image.save(tmp_path / name)
    reduced = decoding._read(tmp_path / name, (64, "squash"))
    assert reduced.shrink == 1
    numpy.testing.assert_array_equal(numpy.asarray(reduced.image), levels_of(tmp_path / name))


def test_reduction_changes_real_radiographs_by_little(shared_data, tmp_path):
    """The numbers that the docstring of `_reduce` gives."""
    differences = []
    for path in sorted((shared_data("nih_cxr14_1024") / "images").glob("*.png")):
        decoding.read_gray(path).resize((2000, 2000), Image.Resampling.BICUBIC).save(tmp_path / "a.jpg", quality=90)
        whole, reduced = (decoding._read(tmp_path / "a.jpg", place) for place in (None, (224, "squash")))
        assert (whole.shrink, reduced.shrink) == (1, 4)
        squares = [decoding.squared(each, 224, "squash").astype(int) for each in (whole, reduced)]
        differences.append(abs(squares[0] - squares[1]))
    assert numpy.mean(differences) < 0.2 and numpy.max(differences) <= 10


# The folder


def make(root, images, broken=()):
    """Write a collection of PNG files, some broken, and return it."""
    root.mkdir(parents=True, exist_ok=True)
    names = [f"{index:04d}.png" for index in range(images)]
    for index, name in enumerate(names):
        picture(index, 18 + index % 5, 14 + index % 3).save(root / name)
    for index in broken:
        (root / names[index]).write_bytes(b"broken")
    ids = [f"image {name}" for name in names]
    return Collection(pandas.DataFrame({"id": ids, "path": names}), ("a", "b"))


def decode(folder, collection, out="out", **options):
    """Decode what lies in folder/raw into folder/out."""
    given_ = OPTIONS | {"root": folder / "raw", "scratch": folder / "scratch"} | options
    return storage.decode(folder / out, collection.table, **given_)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def left(folder):
    """The names of what is not raw: outputs and unfinished work."""
    return sorted(path.name for path in folder.iterdir() if path.name != "raw")


def test_images_equal_an_independent_computation(tmp_path):
    collection = make(tmp_path / "raw", 70)
    summary = decode(tmp_path, collection)
    images, index = decoded.open_images(tmp_path / "out"), decoded.read_index(tmp_path / "out")
    assert images.shape == (70, 16, 16) and summary["images"] == 70 and summary["unreadable"] == 0
    for row, path in enumerate(collection.table["path"]):
        with Image.open(tmp_path / "raw" / path) as image:
            expected = numpy.asarray(image.resize((16, 16), Image.Resampling.BILINEAR))
            assert (index["width"][row], index["height"][row]) == image.size
        numpy.testing.assert_array_equal(images[row], expected)
    pandas.testing.assert_frame_equal(index[["id", "path"]], collection.table)
    assert (tmp_path / "out/unreadable.csv").read_text() == "id,path,reason\n"
    assert not any((tmp_path / "scratch").iterdir())
    assert storage.sentence(summary) == "tiny: 70 images at 16 x 16 (squash); 0 unreadable"


def test_images_are_mapped_read_only_and_the_file_is_plain_npy(tmp_path):
    decode(tmp_path, make(tmp_path / "raw", 9, broken=[4]), max_unreadable=1)
    images = decoded.open_images(tmp_path / "out")
    assert isinstance(images, numpy.memmap) and not images.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        images[0, 0, 0] = 1
    numpy.save(tmp_path / "plain.npy", numpy.array(images))
    assert (tmp_path / "plain.npy").read_bytes() == (tmp_path / "out/images.npy").read_bytes()


@pytest.mark.parametrize("broken", [(), (0, 5, 63, 64, 199)])
def test_summary_and_hashes(tmp_path, broken):
    returned = decode(tmp_path, make(tmp_path / "raw", 200, broken), aspect="pad", max_unreadable=5)
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary == returned
    sha256 = {
        name: hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() for name in ("images.npy", "index.csv")
    }
    unreadable = len(broken)
    assert summary == {
        "dataset": "tiny",
        "size": 16,
        "aspect": "pad",
        "images": 200 - unreadable,
        "unreadable": unreadable,
        "sha256": sha256,
    }
    assert decoded.read_summary(tmp_path / "out") == summary


def test_number_of_workers_does_not_change_a_byte(tmp_path):
    collection = make(tmp_path / "raw", 300, broken=[70, 299])
    for workers in (1, 2, 3):
        decode(tmp_path, collection, out=str(workers), workers=workers, max_unreadable=2)
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(tmp_path / "3")


def test_rows_are_in_the_order_of_the_table(tmp_path):
    collection = make(tmp_path / "raw", 150)
    turned = Collection(collection.table[::-1].reset_index(drop=True), collection.labels)
    decode(tmp_path, collection)
    decode(tmp_path, turned, out="turned", workers=2)
    numpy.testing.assert_array_equal(
        decoded.open_images(tmp_path / "out"), decoded.open_images(tmp_path / "turned")[::-1]
    )


def test_large_squares_make_small_chunks(tmp_path):
    """A process is handed at most 4 MB of pixels, but always one image."""
    collection = make(tmp_path / "raw", 5)
    decode(tmp_path, collection, size=1200, workers=2)
    assert decoded.open_images(tmp_path / "out").shape == (5, 1200, 1200)
    chunks = list(
        decoding.decode(
            *(tmp_path / "raw", collection.table["path"].tolist()),
            **{"size": 2100, "aspect": "pad", "reduced": False, "workers": 1, "buffer": tmp_path / "none"},
        )
    )
    assert [len(chunk.images) for chunk in chunks] == [1] * 5


def test_all_kinds_of_images_in_one_collection(tmp_path):
    (tmp_path / "raw").mkdir()
    picture(0).save(tmp_path / "raw/a.png")
    picture(1).save(tmp_path / "raw/ü b.jpg")
    numpy.save(tmp_path / "raw/c.npy", numpy.asarray(picture(2))[None])
    paths = ["a.png", "ü b.jpg", "c.npy#0", "c.npy#1"]
    summary = decode(tmp_path, Collection(pandas.DataFrame({"id": paths, "path": paths}), ()), max_unreadable=1)
    assert summary["images"] == 3
    assert decoded.read_index(tmp_path / "out")["path"].tolist() == paths[:3]
    unreadable = pandas.read_csv(tmp_path / "out/unreadable.csv")
    assert unreadable.values.tolist() == [["c.npy#1", "c.npy#1", "the stack has 1 rows, counted from 0"]]


def test_rejects_are_told_and_left_out(tmp_path):
    collection = make(tmp_path / "raw", 120, broken=[3, 66])
    (tmp_path / "raw/0119.png").unlink()
    summary = decode(tmp_path, collection, max_unreadable=3, workers=2)
    unreadable = pandas.read_csv(tmp_path / "out/unreadable.csv")
    rows = [3, 66, 119]
    for column in ("id", "path"):
        assert unreadable[column].tolist() == collection.table[column][rows].tolist()
    assert unreadable["reason"][0].startswith("not an image") and unreadable["reason"][2] == "no such file"
    index = decoded.read_index(tmp_path / "out")
    assert index["id"].tolist() == collection.table["id"].drop(rows).tolist()
    assert summary["images"] == 117 == len(index) and summary["unreadable"] == 3
    for row in (0, 3, 116):
        image = Image.open(tmp_path / "raw" / index["path"][row])
        with image:
            expected = numpy.asarray(image.resize((16, 16), Image.Resampling.BILINEAR))
        numpy.testing.assert_array_equal(decoded.open_images(tmp_path / "out")[row], expected)


def counted(monkeypatch):
    """Count the images that this process decodes from now on."""
    seen = []
    read = decoding._read
    monkeypatch.setattr(decoding, "_read", lambda path, *rest: seen.append(Path(path).name) or read(path, *rest))
    return seen


def test_too_many_rejects_end_the_work_at_once_and_it_goes_on_from_there(tmp_path, monkeypatch):
    collection = make(tmp_path / "raw", 300, broken=[3, 70, 299])
    seen = counted(monkeypatch)
    with fails("2 of the first 128 images cannot be read (300 in all): 0003.png (not an image") as caught:
        decode(tmp_path, collection, max_unreadable=1)
    assert "or raise decode.max_unreadable in params.yaml (now 1) to go on without them" in str(caught.value)
    assert len(seen) == 128 and left(tmp_path) == ["scratch"]
    with fails("2 of the first 128 images cannot be read"):
        decode(tmp_path, collection, max_unreadable=1)
    assert len(seen) == 128  # nothing was decoded to say so
    picture(70).save(tmp_path / "raw/0070.png")
    decode(tmp_path, collection, max_unreadable=2)
    assert len(seen) == 128 + 300 - 64  # from the chunk of the file that was mended
    decode(tmp_path, collection, out="again", max_unreadable=2, workers=2)
    assert contents(tmp_path / "out") == contents(tmp_path / "again")


def test_nothing_readable(tmp_path):
    with fails("None of the 3 images can be read; the first: 0000.png (not an image"):
        decode(tmp_path, make(tmp_path / "raw", 3, broken=range(3)), max_unreadable=9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 10_000_000}, "1 images of 10000000 x 10000000 take 100,000,000.0 MB. Make room"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(tmp_path, options, message):
    collection = make(tmp_path / "raw", 1)
    with fails(message):
        decode(tmp_path, collection, **options)
    assert left(tmp_path) == []


def test_a_folder_that_is_not_whole_is_refused(tmp_path):
    with fails("summary.json is missing"):
        decoded.read_index(tmp_path / "out")
    decode(tmp_path, make(tmp_path / "raw", 20))
    path = tmp_path / "out/images.npy"
    whole = path.read_bytes()
    path.unlink()
    for content in (whole[:-1], whole[:100], b"", b"not numpy"):
        path.write_bytes(content)
        with pytest.raises(SeverityError, match="images.npy .*Remove the folder and run `dvc repro decode`"):
            decoded.open_images(tmp_path / "out")
    numpy.save(path, numpy.zeros((19, 16, 16), numpy.uint8))
    with fails("disagree in shape. Remove the folder and run `dvc repro decode`"):
        decoded.open_images(tmp_path / "out")
    index = tmp_path / "out/index.csv"
    text = index.read_text()
    for wrong in (text.replace("width", "breadth"), "".join(text.splitlines(keepends=True)[:-1])):
        index.write_text(wrong)
        with fails("disagree in rows or columns. Remove the folder"):
            decoded.read_index(tmp_path / "out")
    for name, opener in (("index.csv", decoded.read_index), ("images.npy", decoded.open_images)):
        (tmp_path / "out" / name).unlink()
        with fails(f"{name} is missing. Remove the folder"):
            opener(tmp_path / "out")


# Stopped and taken up again


class Killed(Exception):
    """Stands for the end of a process where it stands."""


def stop_after(monkeypatch, chunks):
    """Let the decoding end after that many chunks, with the pixels of one more written, but not its line."""
    lines = []
    dumps = json.dumps

    def dumps_or_die(record, **options):
        if "check" in record:
            lines.append(record)
            if len(lines) > chunks:
                raise Killed
        return dumps(record, **options)

    monkeypatch.setattr(storage.json, "dumps", dumps_or_die)


def stopped(folder, monkeypatch, chunks, images=300, **options):
    """A collection of which some chunks of 64 are decoded; return it and the folder of the unfinished work."""
    collection = make(folder / "raw", images, broken=[70])
    with monkeypatch.context() as patch, pytest.raises(Killed):
        stop_after(patch, chunks)
        decode(folder, collection, max_unreadable=1, **options)
    [state] = (folder / "scratch").iterdir()
    return collection, state


@pytest.mark.parametrize("chunks", [0, 1, 4])
@pytest.mark.parametrize("workers", [1, 2])
def test_work_is_taken_up_where_it_was(tmp_path, monkeypatch, chunks, workers):
    collection, state = stopped(tmp_path, monkeypatch, chunks, workers=workers)
    assert not (tmp_path / "out").exists() and len((state / "log.jsonl").read_bytes().splitlines()) == chunks
    seen = counted(monkeypatch)
    decode(tmp_path, collection, max_unreadable=1)
    assert len(seen) == 300 - 64 * chunks
    assert left(tmp_path) == ["out", "scratch"] and not any((tmp_path / "scratch").iterdir())
    decode(tmp_path, collection, out="at once", max_unreadable=1)
    assert contents(tmp_path / "out") == contents(tmp_path / "at once")


def no_line_end(state):
    (state / "log.jsonl").write_bytes((state / "log.jsonl").read_bytes()[:-1])


def half_a_line(state):
    (state / "log.jsonl").write_bytes((state / "log.jsonl").read_bytes()[:-20])


def zeros_for_a_line(state):
    whole = (state / "log.jsonl").read_bytes().splitlines(keepends=True)
    (state / "log.jsonl").write_bytes(b"".join(whole[:-1]) + bytes(len(whole[-1])) + b"\n")


def another_width(state):
    whole = (state / "log.jsonl").read_bytes()
    at = whole.rindex(b"[18, ")
    (state / "log.jsonl").write_bytes(whole[:at] + b"[19" + whole[at + 3 :])


def lost_pixels(state):
    """What a power cut may leave: the file is as long as it should be, a page of it is not written."""
    with open(state / "images.npy", "r+b") as images:
        images.seek(128 + 256 * 130)
        images.write(bytes(200))


def short_pixels(state):
    os.truncate(state / "images.npy", 128 + 256 * 150)


def more_pixels(state):
    with open(state / "images.npy", "ab") as images:
        images.write(b"x" * 999)


@pytest.mark.parametrize(
    ("harm", "kept"),
    [
        (no_line_end, 2),
        (half_a_line, 2),
        (zeros_for_a_line, 2),
        (another_width, 2),
        (lost_pixels, 2),
        (short_pixels, 2),
        (more_pixels, 3),
        (lambda state: (state / "images.npy").unlink(), 0),
        (lambda state: (state / "log.jsonl").unlink(), 0),
    ],
)
def test_half_written_work_is_never_taken(tmp_path, monkeypatch, harm, kept):
    collection, state = stopped(tmp_path, monkeypatch, chunks=3)
    harm(state)
    seen = counted(monkeypatch)
    decode(tmp_path, collection, max_unreadable=1)
    assert len(seen) == 300 - 64 * kept
    decode(tmp_path, collection, out="at once", max_unreadable=1)
    assert contents(tmp_path / "out") == contents(tmp_path / "at once")


@pytest.mark.parametrize("change", ["content", "absent", "time"])
def test_a_file_that_changed_meanwhile_is_decoded_again(tmp_path, monkeypatch, change):
    collection, _ = stopped(tmp_path, monkeypatch, chunks=3)
    path = tmp_path / "raw/0100.png"
    if change == "content":
        picture(999).save(path)
    elif change == "absent":
        path.unlink()
    else:
        os.utime(path, ns=(1, 1))
    seen = counted(monkeypatch)
    decode(tmp_path, collection, max_unreadable=2)
    assert len(seen) == 300 - 64
    decode(tmp_path, collection, out="at once", max_unreadable=2)
    assert contents(tmp_path / "out") == contents(tmp_path / "at once")


@pytest.mark.parametrize(
    "options", [{"size": 17}, {"aspect": "crop"}, {"reduced": True}, {"pillow": "0"}, {"paths": True}, {"root": "copy"}]
)
def test_work_of_other_options_is_not_taken(tmp_path, monkeypatch, options):
    collection, state = stopped(tmp_path, monkeypatch, chunks=3)
    if options.pop("pillow", None):
        monkeypatch.setattr(storage.metadata, "version", lambda name: "0")
    if options.pop("paths", None):
        collection = Collection(collection.table[::-1], collection.labels)
    if options.pop("root", None):
        os.symlink(tmp_path / "raw", tmp_path / "external")
        (tmp_path / "copy").mkdir()
        for path in (tmp_path / "raw").iterdir():
            os.link(path, tmp_path / "copy" / path.name)
        options["root"] = tmp_path / "copy"
    seen = counted(monkeypatch)
    decode(tmp_path, collection, max_unreadable=1, **options)
    assert len(seen) == 300 and state.is_dir()


def test_killed_after_the_images_are_in_place_nothing_is_decoded_twice(tmp_path, monkeypatch):
    collection = make(tmp_path / "raw", 100, broken=[2])
    for step in ("write_json", "_share"):  # before and after the images have their second name
        with monkeypatch.context() as patch, pytest.raises(Killed):
            target = storage if step == "_share" else storage.files
            patch.setattr(target, step, lambda *_: (_ for _ in ()).throw(Killed()))
            decode(tmp_path, collection, max_unreadable=1)
        assert not (tmp_path / "out").exists()
    with monkeypatch.context() as patch, pytest.raises(Killed):  # before the unfinished work is moved away
        patch.setattr(storage.runs.os, "rename", lambda *_: (_ for _ in ()).throw(Killed()))
        decode(tmp_path, collection, max_unreadable=1)
    whole = contents(tmp_path / "out")
    with monkeypatch.context() as patch:
        seen = counted(patch)
        decode(tmp_path, collection, max_unreadable=1)
    assert seen == [] and contents(tmp_path / "out") == whole and not any((tmp_path / "scratch").iterdir())


def test_what_a_kill_left_of_ended_work_is_removed_by_the_next(tmp_path, monkeypatch):
    collection = make(tmp_path / "raw", 10)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(storage.runs.shutil, "rmtree", lambda *_, **__: (_ for _ in ()).throw(Killed()))
        decode(tmp_path, collection)
    assert any((tmp_path / "scratch").iterdir())
    whole = contents(tmp_path / "out")
    decode(tmp_path, collection)  # with the same number of process, as in a container
    assert contents(tmp_path / "out") == whole and not any((tmp_path / "scratch").iterdir())


def test_without_hard_links_the_images_are_moved(tmp_path, monkeypatch):
    collection = make(tmp_path / "raw", 10)
    decode(tmp_path, collection)

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(storage.os, "link", refuse)
    decode(tmp_path, collection, out="moved")
    assert contents(tmp_path / "out") == contents(tmp_path / "moved")


def test_progress_begins_with_what_is_done(tmp_path, monkeypatch, capsys):
    collection, _ = stopped(tmp_path, monkeypatch, chunks=3)
    bars = []

    class Bar(storage.tqdm):
        def __init__(self, **options):
            bars.append(options)
            super().__init__(**options)

    monkeypatch.setattr(storage, "tqdm", Bar)
    decode(tmp_path, collection, max_unreadable=1)
    assert bars[0]["initial"] == 192 and bars[0]["total"] == 300


def test_two_starts_do_not_both_write(tmp_path, monkeypatch):
    collection = make(tmp_path / "raw", 100)
    inside = storage._decode_all

    def again(*args, **options):
        monkeypatch.setattr(storage, "_decode_all", inside)
        with fails("Another process is decoding these images (it holds"):
            decode(tmp_path, collection)
        return inside(*args, **options)

    monkeypatch.setattr(storage, "_decode_all", again)
    assert decode(tmp_path, collection)["images"] == 100


SCRIPT = """
import sys
from tests import test_decoding as test
from pathlib import Path
import pandas
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    names = sorted(path.name for path in (folder / "raw").iterdir())
    table = pandas.DataFrame({"id": names, "path": names})
    test.decode(folder, test.Collection(table, ()), size=200, workers=2)
"""


def children(pid):
    """The processes that a process has started, and theirs."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += [int(child), *children(child)]
    return found


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc, and the parent-death signal is Linux's")
@pytest.mark.parametrize("lines", [1, 6])
def test_killed_with_its_workers_and_taken_up_again(tmp_path, monkeypatch, lines):
    (tmp_path / "raw").mkdir()
    whole = picture(0, 300, 300)
    for index in range(12):
        whole.rotate(index).save(tmp_path / f"raw/{index:04d}.png")
    for index in range(12, 800):
        os.link(tmp_path / f"raw/{index % 12:04d}.png", tmp_path / f"raw/{index:04d}.png")
    (tmp_path / "run.py").write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "run.py", tmp_path], cwd=TOP, env=os.environ | {"PYTHONPATH": str(TOP)}
    )
    workers = []
    try:
        while not (logs := list(tmp_path.glob("scratch/*/log.jsonl"))) or logs[0].read_bytes().count(b"\n") < lines:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.002)
        workers = children(process.pid)
        assert len(workers) >= 2
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    for _ in range(200):
        if all(map(gone, workers)):
            break
        time.sleep(0.05)
    assert all(map(gone, workers)), "a worker outlived its parent"
    assert not (tmp_path / "out").exists()
    done = logs[0].read_bytes().count(b"\n") * 64
    assert 0 < done < 800
    names = sorted(path.name for path in (tmp_path / "raw").iterdir())
    collection = Collection(pandas.DataFrame({"id": names, "path": names}), ())
    seen = counted(monkeypatch)
    decode(tmp_path, collection, size=200)
    assert seen == names[done:]
    decode(tmp_path, collection, out="at once", size=200, workers=2)
    assert contents(tmp_path / "out") == contents(tmp_path / "at once")


def die(parent):
    os._exit(1)


def test_a_worker_that_dies_is_told_of(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "_begin_worker", die)
    with fails(
        "A process that decodes images died, probably because memory ran out. Lower machine.workers in params.yaml."
    ):
        decode(tmp_path, make(tmp_path / "raw", 200), workers=2)


# The benchmark


def test_small_rows_of_the_benchmark(tmp_path):
    kind = benchmark.Kind("small", 500, 460, "jpg", 4, 2, 70)
    (tmp_path / "a").mkdir()
    rows = benchmark.measure(tmp_path / "a", kind, 70, 1)  # compares the arrays itself
    assert [row[0] for row in rows] == ["small", "small, reduced"] and {len(row) for row in rows} == {7}


@pytest.mark.skipif(sys.platform != "linux", reason="Memory is read from Linux's /proc.")
@pytest.mark.parametrize(("name", "loader", "views"), [("chexpert", chexpert, "frontal"), ("nih14", nih14, "PA")])
def test_collections_of_full_size_are_of_their_form_and_their_stages_are_measured(name, loader, views, tmp_path):
    make, _ = full_size.COLLECTIONS[name]
    make(tmp_path / "collection", 300)
    read = loader.read(tmp_path / "collection", views=[views])
    assert 100 < len(read.table) < 300
    full_size.study(tmp_path / "study", name, tmp_path / "collection")
    settings = yaml.safe_load((tmp_path / "study/params.yaml").read_text())
    settings["datasets"][name]["collect"]["images"] = 300
    (tmp_path / "study/params.yaml").write_text(yaml.safe_dump(settings))
    seconds, memory = full_size.run("collect", tmp_path / "study")
    assert 0.05 < seconds < 600 and 0.001 < memory < 2


# The stage


def run_stage(folder, monkeypatch, collection, root):
    """Run the stage in a folder, on a data set `made` that has been read."""
    values = {name: value for name, value in OPTIONS.items() if name not in ("dataset", "workers")}
    loaded = {
        "machine": {"workers": 2},
        "external": {"truth": "data/prepared"},
        "data": {"name": "made"},
        "datasets": {"made": {"root": str(root)}},
        "decode": values,
    }
    monkeypatch.setattr(params, "load", lambda: loaded)
    monkeypatch.chdir(folder)
    collection.write("data/collection")
    stage.main()


def with_metadata(names):
    columns = {"id": names, "path": names, "patient": names, "sex": "", "age": 1.0, "view": "frontal", "split": ""}
    return Collection(pandas.DataFrame(columns).assign(a=1.0, b=0.0), ("a", "b"))


def test_the_stage(tmp_path, monkeypatch, capsys):
    names = make(tmp_path / "raw", 80).table["path"].tolist()
    run_stage(tmp_path, monkeypatch, with_metadata(names), "raw")
    assert capsys.readouterr().out == "made: 80 images at 16 x 16 (squash); 0 unreadable\n"
    assert decoded.open_images(tmp_path / "data/images").shape == (80, 16, 16)
    assert sorted(contents(tmp_path / "data/images")) == ["images.npy", "index.csv", "summary.json", "unreadable.csv"]


def test_the_stage_on_real_images(tmp_path, monkeypatch, shared_data, capsys):
    root = shared_data("nih_cxr14_64") / "images"
    names = sorted(path.name for path in root.iterdir())
    run_stage(tmp_path, monkeypatch, with_metadata(names), root)
    assert capsys.readouterr().out == f"made: {len(names)} images at 16 x 16 (squash); 0 unreadable\n"
    assert set(decoded.read_index("data/images")["width"]) == {64}


def test_real_rgba_files_of_chest_xray14(shared_data):
    root = shared_data("nih_cxr14_1024")
    given_modes = pandas.read_csv(root / "labels.csv").set_index("Image Index")["mode"]
    assert set(given_modes) == {"L", "RGBA"}
    for name, mode in given_modes.items():
        with Image.open(root / "images" / name) as image:
            assert image.mode == mode
            first_channel = numpy.array(image.getchannel(0))
        numpy.testing.assert_array_equal(levels_of(root / "images" / name), first_channel)
