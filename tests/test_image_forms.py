"""PNG, TIFF and JPEG as devices and people write them: 10 to 14 bits in 16, signed levels, pictures that lie turned."""

import json

import numpy
import pandas
import pytest
from PIL import ExifTags, Image, ImageOps

from severity.datacard import datacard
from severity.decoding import decoding, storage
from severity.prepared import decoded
from tests.test_decoding import OPTIONS, levels_of, picture, write_tiff

WORDS = numpy.arange(4096, dtype=numpy.uint16).reshape(64, 64)


def deep(path, bits):
    """A gray file of 16-bit levels that fill `bits` of them; returns the levels."""
    levels = (WORDS.astype(numpy.uint32) * (2**bits - 1) // 4095).astype(numpy.uint16)
    Image.fromarray(levels).save(path)
    return levels


# 16 bits


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("bits", [10, 11, 12, 14, 16])
def test_levels_that_fill_some_of_16_bits(tmp_path, suffix, bits):
    path = tmp_path / f"a.{suffix}"
    levels = deep(path, bits)
    for option, white in (("whole", 65535), (bits, 2**bits - 1), ("file", levels.max())):
        found = decoding._read(path, sixteen_bits=option)
        numpy.testing.assert_array_equal(numpy.asarray(found.image), numpy.rint(levels / white * 255))
        assert found.bits == bits
    numpy.testing.assert_array_equal(levels_of(path), numpy.asarray(decoding._read(path).image))  # whole by default


def test_the_range_of_the_file_begins_at_its_smallest_level(tmp_path):
    Image.fromarray(WORDS[10:20] + numpy.uint16(500)).save(tmp_path / "a.png")
    levels = numpy.asarray(decoding.read_gray(tmp_path / "a.png", "file"))
    numpy.testing.assert_array_equal(levels, numpy.rint((WORDS[10:20] - 640) / 639 * 255))
    Image.fromarray(numpy.full((3, 3), 700, numpy.uint16)).save(tmp_path / "flat.png")
    assert numpy.asarray(decoding.read_gray(tmp_path / "flat.png", "file")).max() == 0


def test_levels_beyond_the_number_of_bits_are_refused_not_cut(tmp_path):
    deep(tmp_path / "a.png", 14)
    with pytest.raises(decoding.Unreadable, match="16383, beyond the 4095 of decode.sixteen_bits: 12"):
        decoding.read_gray(tmp_path / "a.png", 12)


def test_white_is_zero_and_files_of_8_and_12_bits(tmp_path):
    levels = deep(tmp_path / "a.tif", 12)
    write_tiff(tmp_path / "turned.tif", levels.astype("<u2").tobytes(), 64, 64, bits=16, photometric=0)
    turned = numpy.asarray(decoding.read_gray(tmp_path / "turned.tif", 12))
    numpy.testing.assert_array_equal(turned, 255 - numpy.asarray(decoding.read_gray(tmp_path / "a.tif", 12)))
    picture(0).save(tmp_path / "a.png")
    for option in (10, "file"):
        found = decoding._read(tmp_path / "a.png", sixteen_bits=option)
        assert found.bits is None
        numpy.testing.assert_array_equal(numpy.asarray(found.image), levels_of(tmp_path / "a.png"))
    write_tiff(tmp_path / "twelve.tif", bytes([0x12, 0x3F, 0xFF]), 2, 1, bits=12, photometric=1)
    twelve = [numpy.asarray(decoding.read_gray(tmp_path / "twelve.tif", option)) for option in ("whole", 12, 14)]
    assert all(each.tolist() == [[round(0x123 / 4095 * 255), 255]] for each in twelve)


def test_16_bit_colour_is_counted_and_read_whole_or_not_at_all(tmp_path):
    """Pillow keeps the upper byte alone; a PNG of this kind, of 12 bits a sample, is written by hand."""
    import struct
    import zlib

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + row.astype(">u2").repeat(3).tobytes() for row in WORDS)
    head = struct.pack(">IIBBBBB", 64, 64, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    found = decoding._read(tmp_path / "a.png")
    assert found.bits == 12
    numpy.testing.assert_array_equal(numpy.asarray(found.image), WORDS >> 8)
    with pytest.raises(decoding.Unreadable, match="16-bit colour .* needs decode.sixteen_bits: whole"):
        decoding.read_gray(tmp_path / "a.png", 12)


def decode(folder, **options):
    names = sorted(path.name for path in (folder / "raw").iterdir())
    table = pandas.DataFrame({"id": names, "path": names})
    chosen = OPTIONS | {"root": folder / "raw", "scratch": folder / "scratch"} | options
    return storage.decode(folder / "out", table, **chosen)


def test_files_of_narrow_levels_are_counted_and_told(tmp_path):
    (tmp_path / "raw").mkdir()
    for name, bits in {"a.png": 10, "b.tif": 12, "c.png": 12, "d.png": 16}.items():
        deep(tmp_path / "raw" / name, bits)
    picture(0).save(tmp_path / "raw/e.png")
    summary = decode(tmp_path)
    assert summary["sixteen_bits"] == {"range": "whole", "bits": {"10": 1, "12": 2, "16": 1}}
    assert json.loads((tmp_path / "out/summary.json").read_text()) == summary
    first, second = storage.sentence(summary).splitlines()
    assert "5 images" in first and "3 images" in second and "decode.sixteen_bits" in second
    dark = decoded.open_images(tmp_path / "out").max(axis=(1, 2))
    summary = decode(tmp_path, sixteen_bits="file", workers=2)
    assert summary["sixteen_bits"]["range"] == "file" and len(storage.sentence(summary).splitlines()) == 1
    bright = decoded.open_images(tmp_path / "out").max(axis=(1, 2))
    assert dark[:3].max() < 20 and bright[:3].min() > 240 and dark[4] == bright[4]
    with pytest.raises(storage.SeverityError, match=r"c\.png|d\.png.*beyond the 1023 of decode.sixteen_bits: 10"):
        decode(tmp_path, sixteen_bits=10)


def test_the_data_card_shows_the_bits_in_use():
    blocks = list(datacard._sixteen_bits({"range": "whole", "bits": {"10": 1, "12": 2}}))
    said = "\n".join(map(str, blocks))
    assert "decode.sixteen_bits" in said and "'12'" in said


# TIFF of other levels


@pytest.mark.parametrize(
    ("kind", "said"),
    [("int8", "signed 8-bit"), ("<i2", "signed 16-bit"), (">i2", "signed 16-bit"), ("<i4", "signed 32-bit"),
     ("<u4", "unsigned 32-bit"), ("<f4", "floating-point 32-bit"), ("<f8", "floating-point 64-bit"),
     ("<u8", "unsigned 64-bit")],
)  # fmt: skip
def test_levels_of_a_tiff_without_an_agreed_range_are_refused_by_their_name(tmp_path, kind, said):
    levels = numpy.arange(64).reshape(8, 8).astype(kind)
    tags = {339: {"i": 2, "u": 1, "f": 3}[levels.dtype.kind]}
    order = ">" if kind.startswith(">") else "<"
    write_tiff(
        tmp_path / "a.tif",
        levels.tobytes(),
        8,
        8,
        bits=levels.dtype.itemsize * 8,
        photometric=1,
        order=order,
        more=tags,
    )
    with pytest.raises(decoding.Unreadable, match=f"{said} levels"):
        decoding.read_gray(tmp_path / "a.tif")


# Turned pictures


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("value", range(1, 9))
def test_a_turned_picture_is_seen_upright_in_every_form(tmp_path, suffix, value):
    gray = picture(1, 48, 32)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    options = {"quality": 95} if suffix == "jpg" else {}
    path = tmp_path / f"a.{suffix}"
    gray.save(path, exif=exif, **options)
    gray.save(tmp_path / f"plain.{suffix}", **options)
    expected = Image.fromarray(levels_of(tmp_path / f"plain.{suffix}"))
    expected.getexif()[ExifTags.Base.Orientation] = value
    expected = numpy.asarray(ImageOps.exif_transpose(expected))
    found = decoding._read(path)
    numpy.testing.assert_array_equal(numpy.asarray(found.image), expected)
    assert (found.width, found.height) == found.image.size == ((48, 32) if value < 5 else (32, 48))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_turned_16_bit_pictures(tmp_path, suffix):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(WORDS[:20] * 16).save(tmp_path / f"a.{suffix}", exif=exif)
    upright = numpy.rint(WORDS[:20] * 16 / 65535 * 255)
    numpy.testing.assert_array_equal(levels_of(tmp_path / f"a.{suffix}"), numpy.rot90(upright, -1))


def test_a_turned_jpeg_is_not_reduced(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    picture(1, 401, 401).save(tmp_path / "a.jpg", exif=exif)
    found = decoding._read(tmp_path / "a.jpg", (16, "squash"))
    assert found.shrink == 1 and found.image.size == (401, 401)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_is_none_leaves_the_picture(tmp_path, value):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    for suffix in ("jpg", "png"):
        picture(1).save(tmp_path / f"a.{suffix}", exif=exif)
        picture(1).save(tmp_path / f"plain.{suffix}")
        numpy.testing.assert_array_equal(levels_of(tmp_path / f"a.{suffix}"), levels_of(tmp_path / f"plain.{suffix}"))


def test_damaged_metadata_do_not_hide_the_picture(tmp_path):
    picture(1).save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + b"\xff" * 40)
    picture(1).save(tmp_path / "plain.jpg")
    numpy.testing.assert_array_equal(levels_of(tmp_path / "a.jpg"), levels_of(tmp_path / "plain.jpg"))
