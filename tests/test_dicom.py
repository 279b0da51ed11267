"""DICOM as devices write it: empty elements, tables of any width, padding, left-aligned bits, lossless JPEG, real chests."""

import io

import numpy
import pytest
from PIL import Image

from severity.decoding import decoding, dicom
from tests.test_decoding import RAMP, levels_of, lut, window, write_dicom

pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed: pip install -r requirements-extra.txt")

LOSSLESS = pydicom.uid.JPEGLosslessSV1
EVERY_LEVEL = numpy.rint(RAMP / 4095 * 255)  # RAMP from its smallest to its largest value


def real(name):
    """The path of one of pydicom's own files of real images; skips the test where it is not installed."""
    path = pydicom.data.get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"{name} is not there: pip install pydicom-data")
    return path


# Optional elements without a value, and of a kind that is no use


@pytest.mark.parametrize(
    "elements",
    [
        {"RescaleIntercept": None, "RescaleSlope": 1},
        {"RescaleIntercept": 0, "RescaleSlope": None},
        {"RescaleIntercept": "", "RescaleSlope": ""},
        {"RescaleSlope": "2"},
        {"VOILUTSequence": []},
        {"VOILUTSequence": [pydicom.Dataset()]},
        {"ModalityLUTSequence": [pydicom.Dataset()]},
        {"WindowCenter": "", "WindowWidth": ""},
        {"WindowCenter": "2048"},
        {"WindowWidth": "4096"},
        {"WindowCenter": "2048", "WindowWidth": "0"},
        {"WindowCenter": ["1", "2"], "WindowWidth": ["-5", "0"]},
        {"NumberOfFrames": ""},
        {"PixelPaddingValue": None},
        {"VOILUTFunction": ""},
    ],
)
def test_an_element_that_says_nothing_counts_as_absent(tmp_path, elements):
    present = {name: "" if value is None else value for name, value in elements.items()}
    write_dicom(tmp_path / "a.dcm", RAMP, **present)
    numpy.testing.assert_array_equal(levels_of(tmp_path / "a.dcm"), EVERY_LEVEL)


@pytest.mark.parametrize(
    ("centres", "widths", "function"),
    [
        (["9", "300"], ["0", "200"], None),
        (["9", "", "300"], ["", "70", "200"], ""),
        (["9", "300"], ["-1", "200"], "LINEAR_EXACT"),
        (["300"], ["200", "7"], "SIGMOID"),
    ],
)
def test_the_first_window_that_has_a_width_is_the_window(tmp_path, centres, widths, function):
    chosen = {} if function is None else {"VOILUTFunction": function}
    empty = {"VOILUTSequence": [pydicom.Dataset()], "RescaleSlope": ""}
    write_dicom(tmp_path / "a.dcm", RAMP, WindowCenter=centres, WindowWidth=widths, **chosen, **empty)
    expected = window(RAMP, 300, 200, function or "LINEAR")
    numpy.testing.assert_allclose(levels_of(tmp_path / "a.dcm"), expected, atol=0.5 + 1e-6)


@pytest.mark.parametrize(
    ("elements", "said"),
    [
        ({"RescaleSlope": "0", "RescaleIntercept": "1"}, "RescaleSlope is 0"),
        ({"VOILUTFunction": "CURVED", "WindowCenter": "1", "WindowWidth": "9"}, "VOI LUT Function value 'CURVED'"),
        ({"VOILUTSequence": ("descriptor", [4096, 0])}, "LUTDescriptor has 2 values"),
        ({"VOILUTSequence": ("entries", [1, 2, 3])}, "LUTData has 3 entries; LUTDescriptor says 4096"),
        ({"HighBit": 16}, "HighBit is 16 with BitsStored 12"),
        ({"HighBit": 7}, "HighBit is 7 with BitsStored 12"),
    ],
)
def test_what_makes_no_sense_is_said_in_the_words_of_dicom(tmp_path, elements, said):
    for name, value in elements.items():
        if name == "VOILUTSequence":
            changed, content = value
            [item] = lut(list(range(4096)), 0, 12)
            setattr(item, "LUTDescriptor" if changed == "descriptor" else "LUTData", content)
            elements = {name: [item]}
    write_dicom(tmp_path / "a.dcm", RAMP, **elements)
    with pytest.raises(decoding.Unreadable, match=said):
        decoding.read_gray(tmp_path / "a.dcm")


# Tables


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("vr", ["US", "OW"])
@pytest.mark.parametrize("windowed", [False, True])
def test_a_modality_table_of_any_number_of_bits(tmp_path, bits, vr, windowed):
    top = 2**bits - 1
    entries = [top - round(top * entry / 4095) for entry in range(4096)]
    table = lut(entries, 0, bits, vr)
    table[0].ModalityLUTType = "US"
    chosen = {"WindowCenter": top / 2 + 1, "WindowWidth": top / 2} if windowed else {}
    write_dicom(tmp_path / "a.dcm", RAMP, ModalityLUTSequence=table, **chosen)
    out = numpy.array(entries)[RAMP]
    expected = window(out, top / 2 + 1, top / 2) if windowed else out / top * 255
    numpy.testing.assert_allclose(levels_of(tmp_path / "a.dcm"), expected, atol=0.5 + 1e-6)


@pytest.mark.parametrize(("lowest", "highest"), [(0, 4095), (0, 1000), (0, 255), (20, 255), (300, 5000)])
def test_a_voi_table_whose_entries_do_not_fill_their_bits_is_scaled_by_its_own_range(tmp_path, lowest, highest):
    entries = [round(lowest + (highest - lowest) * entry / 4095) for entry in range(4096)]
    write_dicom(tmp_path / "a.dcm", RAMP, VOILUTSequence=lut(entries, 0, 16))
    levels = levels_of(tmp_path / "a.dcm")
    expected = (numpy.array(entries)[RAMP] - lowest) / (highest - lowest) * 255
    numpy.testing.assert_allclose(levels, expected, atol=0.5 + 1e-6)
    assert (levels.min(), levels.max()) == (0, 255)


def test_two_entries_of_eight_bits_in_a_word_and_a_table_that_begins_below_zero(tmp_path):
    entries = numpy.rint(255 * (numpy.arange(4096) / 4095) ** 2).astype(numpy.uint8)
    [item] = lut([0] * 4096, -2048, 8, "OW")
    item["LUTDescriptor"].VR = "SS"
    item.LUTData = entries.tobytes()
    signed = RAMP.astype(numpy.int16) - 2048
    write_dicom(tmp_path / "a.dcm", signed, VOILUTSequence=[item])
    numpy.testing.assert_array_equal(levels_of(tmp_path / "a.dcm"), entries[RAMP])


# Padding


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("filled", "value", "limit"), [(65535, 65535, None), (0, 0, None), (10, 0, 20), (65530, 65535, 65500)]
)
def test_padding_is_black_and_takes_no_part_in_the_stretch(tmp_path, kind, filled, value, limit):
    stored = RAMP + numpy.uint16(1000)
    stored[:, :9] = filled
    elements = {"PixelPaddingValue": value} | ({} if limit is None else {"PixelPaddingRangeLimit": limit})
    write_dicom(tmp_path / "a.dcm", stored, bits=16, kind=kind, **elements)
    levels = levels_of(tmp_path / "a.dcm")
    picture = stored[:, 9:].astype(float)
    expected = (picture - picture.min()) / (picture.max() - picture.min()) * 255
    expected = 255 - expected if kind == "MONOCHROME1" else expected
    numpy.testing.assert_allclose(levels[:, 9:], expected, atol=0.5 + 1e-6)
    assert levels[:, :9].max() == 0 and len(numpy.unique(levels[:, 9:])) == 256


def test_padding_of_signed_pixels_and_of_everything(tmp_path):
    signed = RAMP.astype(numpy.int16) - 1000
    signed[:9] = -2000
    write_dicom(tmp_path / "a.dcm", signed, bits=16, PixelPaddingValue=-2000)
    levels = levels_of(tmp_path / "a.dcm")
    assert levels[:9].max() == 0 and len(numpy.unique(levels[9:])) == 256
    write_dicom(tmp_path / "b.dcm", numpy.full((4, 4), 7, numpy.uint16), PixelPaddingValue=7)
    assert levels_of(tmp_path / "b.dcm").max() == 0


def test_padding_that_only_signed_pixels_may_wrap_or_that_lies_above_the_stored_bits(tmp_path):
    ramp = numpy.arange(256, dtype=numpy.uint8).reshape(16, 16)
    write_dicom(tmp_path / "a.dcm", ramp, bits=8, PixelPaddingValue=256)
    numpy.testing.assert_array_equal(levels_of(tmp_path / "a.dcm"), ramp)
    words = RAMP // 2
    words[:9] = 65535
    write_dicom(tmp_path / "b.dcm", words, PixelPaddingValue=65535)
    levels = levels_of(tmp_path / "b.dcm")
    assert levels[:9].max() == 0 and levels[9:].max() == 255


def test_a_voi_table_of_unsigned_pixels_that_begins_below_zero(tmp_path):
    table = lut(list(range(4096)), 64512, 12)
    write_dicom(tmp_path / "a.dcm", RAMP, VOILUTSequence=table, RescaleSlope=1, RescaleIntercept=-1024)
    numpy.testing.assert_array_equal(levels_of(tmp_path / "a.dcm"), EVERY_LEVEL)


@pytest.mark.parametrize(
    ("shape", "bits", "kind", "elements", "said"),
    [
        ((64, 64), 12, "MONOCHROME2", {"WindowCenter": 9000, "WindowWidth": 10}, "WindowCenter"),
        ((8, 8, 3), 8, "HSV", {}, "HSV"),
        ((8, 8, 3), 8, "MONOCHROME2", {}, "SamplesPerPixel 3"),
        ((8, 8, 3), 7, "RGB", {}, "BitsStored 7"),
    ],
)
def test_pixels_that_would_give_a_wrong_picture_are_refused(tmp_path, shape, bits, kind, elements, said):
    count = int(numpy.prod(shape))
    stored = (numpy.arange(count) % 2**bits).astype(numpy.uint16 if bits > 8 else numpy.uint8).reshape(shape)
    write_dicom(tmp_path / "a.dcm", stored, bits=bits, kind=kind, **elements)
    with pytest.raises(dicom.Unreadable, match=said), open(tmp_path / "a.dcm", "rb") as file:
        dicom.read(file)


# Where the bits are


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(("bits", "high"), [(12, 15), (10, 13), (12, 11)])
def test_the_stored_bits_may_lie_anywhere_in_their_word(tmp_path, signed, compressed, bits, high):
    """The others are set, or of an overlay: they belong to no level."""
    values = RAMP.astype(numpy.int32) % 2**bits - (2 ** (bits - 1) if signed else 0)
    below = high + 1 - bits
    words = (values % 2**bits << below) | (2**below - 1) | ((2**16 - 1) >> (high + 1) << (high + 1))
    words = words.astype(numpy.uint16).view(numpy.int16 if signed else numpy.uint16)
    write_dicom(tmp_path / "plain.dcm", values.astype(words.dtype), bits=bits)
    data = write_dicom(tmp_path / "a.dcm", words, bits=bits, HighBit=high)
    if compressed:
        data.compress(pydicom.uid.RLELossless)
        data.save_as(tmp_path / "a.dcm")
    levels = levels_of(tmp_path / "a.dcm")
    numpy.testing.assert_array_equal(levels, levels_of(tmp_path / "plain.dcm"))
    assert len(numpy.unique(levels)) == 256


def test_compressed_pixels_with_another_high_bit_are_refused(tmp_path):
    jpeg = io.BytesIO()
    Image.fromarray(RAMP.astype(numpy.uint8)).save(jpeg, "JPEG")
    write_dicom(
        tmp_path / "a.dcm",
        RAMP.astype(numpy.uint8),
        bits=8,
        HighBit=15,
        syntax=pydicom.uid.JPEGBaseline8Bit,
        pixels=jpeg.getvalue(),
    )
    with pytest.raises(decoding.Unreadable, match="HighBit is 15 .*JPEG Baseline.* it should be 7"):
        decoding.read_gray(tmp_path / "a.dcm")


# Lossless JPEG


def test_lossless_jpeg_gives_what_was_compressed(tmp_path):
    gdcm = pytest.importorskip("gdcm", reason="python-gdcm is not installed: pip install -r requirements-extra.txt")
    chosen = {"WindowCenter": 2000, "WindowWidth": 3000}
    write_dicom(tmp_path / "plain.dcm", RAMP, **chosen)
    reader, writer, change = gdcm.ImageReader(), gdcm.ImageWriter(), gdcm.ImageChangeTransferSyntax()
    reader.SetFileName(str(tmp_path / "plain.dcm"))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(tmp_path / "a.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    assert pydicom.dcmread(tmp_path / "a.dcm").file_meta.TransferSyntaxUID == LOSSLESS
    numpy.testing.assert_array_equal(levels_of(tmp_path / "a.dcm"), levels_of(tmp_path / "plain.dcm"))


def test_the_decoder_that_every_installation_has_is_asked_first(tmp_path):
    """So that levels do not depend on what else is installed."""
    jpeg = io.BytesIO()
    Image.fromarray((RAMP >> 4).astype(numpy.uint8)).save(jpeg, "JPEG", quality=90)
    levels = numpy.asarray(Image.open(jpeg))
    write_dicom(tmp_path / "a.dcm", levels, bits=8, syntax=pydicom.uid.JPEGBaseline8Bit, pixels=jpeg.getvalue())
    expected = (levels - float(levels.min())) / (float(levels.max()) - levels.min()) * 255
    numpy.testing.assert_allclose(levels_of(tmp_path / "a.dcm"), expected, atol=0.5 + 1e-6)


def test_a_decoder_that_crashes_or_never_ends_takes_one_image_with_it(tmp_path, monkeypatch):
    """Pillow stands for those that do: it is always there."""
    jpeg = io.BytesIO()
    Image.fromarray((RAMP >> 4).astype(numpy.uint8)).save(jpeg, "JPEG")
    levels, path = numpy.asarray(Image.open(jpeg)), str(tmp_path / "a.dcm")
    write_dicom(path, levels, bits=8, syntax=pydicom.uid.JPEGBaseline8Bit, pixels=jpeg.getvalue())
    numpy.testing.assert_array_equal(dicom._in_helper(path, "pillow"), levels)
    helper = dicom._helper()
    helper.process.kill()
    helper.process.join()
    with pytest.raises(decoding.Unreadable, match="pillow, crashed on it"):
        dicom._in_helper(path, "pillow")
    with monkeypatch.context() as patch, pytest.raises(decoding.Unreadable, match="pillow, did not end within 0 s"):
        patch.setattr(dicom, "SECONDS", 0)
        dicom._in_helper(path, "pillow")
    numpy.testing.assert_array_equal(dicom._in_helper(path, "pillow"), levels)
    with pytest.raises(decoding.Unreadable, match="no decoder|gone|valid|plugin"):
        dicom._in_helper(path, "gone")


# Real images


@pytest.mark.parametrize("name", ["RG1_UNCR.dcm", "RG3_UNCR.dcm"])
def test_real_radiographs_are_seen_through_their_window(name):
    path = real(name)
    data = pydicom.dcmread(path)
    levels = levels_of(path)
    assert levels.shape == (data.Rows, data.Columns) and len(numpy.unique(levels)) > 200
    shares = window(data.pixel_array[::50, ::50], float(data.WindowCenter), float(data.WindowWidth))
    expected = 255 - shares if data.PhotometricInterpretation == "MONOCHROME1" else shares
    numpy.testing.assert_allclose(levels[::50, ::50], expected, atol=0.5 + 1e-6)


@pytest.mark.parametrize("name", ["mlut_18.dcm", "vlut_04.dcm", "MR_small.dcm", "CT_small.dcm", "MR_small_padded.dcm"])
def test_real_images_with_tables_windows_and_padding_fill_the_range(name):
    levels = levels_of(real(name))
    assert len(numpy.unique(levels)) > 150 and levels.max() == 255


def test_real_lossless_jpeg():
    pytest.importorskip("gdcm", reason="python-gdcm is not installed: pip install -r requirements-extra.txt")
    levels = levels_of(real("SC_rgb_jpeg_gdcm.dcm"))
    numpy.testing.assert_array_equal(levels, levels_of(real("SC_rgb.dcm")))
