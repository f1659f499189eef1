"""Single DICOM pictures; series are in test_dicom_series.py."""

import struct
import tracemalloc
import warnings
from contextlib import suppress

import numpy as np
import pydicom
import pytest
from dicom_series import change, numbers, write_picture
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from anomalib_medclip.errors import ImageReadError, IntensityError, VolumeError
from anomalib_medclip.readers import dicom_pixels
from anomalib_medclip.readers.dicom import read_picture
from anomalib_medclip.readers.dicom_frames import slices_of
from anomalib_medclip.readers.file_kind import is_dicom
from anomalib_medclip.readers.picture import read_image


def unsigned(*shape, top=4095, dtype=np.uint16):
    return np.random.default_rng(1).integers(0, top, shape, dtype=dtype, endpoint=True)


def window(values, low, high):
    return np.clip((values.astype(np.float64) - low) / (high - low), 0, 1).astype(np.float32)


# --- what is stored


def test_an_x_ray_without_geometry_is_read_by_its_window(tmp_path):
    pixels = unsigned(6, 8)
    path = write_picture(tmp_path / "chest.dcm", pixels, BitsStored=12)
    assert np.array_equal(read_picture(path, (100, 3000)), window(pixels, 100, 3000))


def test_the_full_range_is_that_of_the_bits_stored(tmp_path):
    pixels = unsigned(6, 8)
    path = write_picture(tmp_path / "chest.dcm", pixels, BitsStored=12)
    assert np.array_equal(read_picture(path, "dtype"), window(pixels, 0, 4095))


def test_signed_numbers_of_twelve_bits_are_negative(tmp_path):
    pixels = numbers(6, 8, low=-2048, high=2047)
    path = write_picture(tmp_path / "ct.dcm", pixels, BitsStored=12)
    assert np.array_equal(read_picture(path, (-1000, 1000)), window(pixels, -1000, 1000))
    assert np.array_equal(read_picture(path, "dtype"), window(pixels, -2048, 2047))


@pytest.mark.parametrize(("stored", "high"), [(12, 10), (12, 16), (17, 16)])
def test_bits_that_cannot_be_are_refused(tmp_path, stored, high):
    path = write_picture(tmp_path / "a.dcm", unsigned(4, 5), BitsStored=stored, HighBit=high)
    with pytest.raises(ImageReadError, match=rf"it stores {stored}, of which bit {high} is the"):
        read_picture(path, "dtype")


def test_windows_are_in_rescaled_units_and_the_full_range_in_stored_ones(tmp_path):
    pixels = unsigned(6, 8)
    rescale = {"RescaleSlope": 0.5, "RescaleIntercept": -1024, "BitsStored": 12}
    path = write_picture(tmp_path / "ct.dcm", pixels, **rescale)
    assert np.array_equal(read_picture(path, (-500, 500)), window(pixels * 0.5 - 1024, -500, 500))
    assert np.array_equal(read_picture(path, "dtype"), window(pixels, 0, 4095))


def test_inverted_greys_are_turned_round_after_the_window(tmp_path):
    pixels = unsigned(6, 8)
    inverted = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12}
    path = write_picture(tmp_path / "mammogram.dcm", pixels, **inverted)
    assert np.array_equal(read_picture(path, (100, 3000)), 1 - window(pixels, 100, 3000))
    assert np.array_equal(read_picture(path, "dtype"), 1 - window(pixels, 0, 4095))


def test_percentiles_of_inverted_greys_leave_out_what_is_dark_in_the_picture(tmp_path):
    tissue = unsigned(6, 8, top=3000)
    ground = np.full((6, 8), 4095, dtype=np.uint16)  # air, which is black on the film
    inverted = np.concatenate([tissue, ground])
    policy = {"percentiles": (1, 99)}
    one = write_picture(
        tmp_path / "a.dcm", inverted, BitsStored=12, PhotometricInterpretation="MONOCHROME1"
    )
    two = write_picture(tmp_path / "b.dcm", 4095 - inverted, BitsStored=12)
    assert np.array_equal(read_picture(one, policy), read_picture(two, policy))
    assert (read_picture(one, policy)[6:] == 0).all()


@pytest.mark.parametrize("missing", ["Rows", "BitsStored", "PhotometricInterpretation"])
def test_a_file_that_does_not_say_what_its_pixels_are_is_refused(tmp_path, missing):
    path = change(write_picture(tmp_path / "x.dcm", unsigned(4, 5)), **{missing: None})
    with pytest.raises(ImageReadError, match=f"CT Image Storage file that states no {missing}"):
        read_picture(path, "dtype")


@pytest.mark.parametrize("rows", [3, 7])
def test_more_or_fewer_pixels_than_the_header_says_are_refused(tmp_path, rows):
    path = write_picture(tmp_path / "x.dcm", unsigned(5, 6), Rows=rows)
    with pytest.raises(ImageReadError, match=r"cannot decode the pixels of .*x.dcm: .*bytes"):
        read_picture(path, "dtype")


@pytest.mark.parametrize(
    ("tag", "stated"),
    [
        ("BitsStored", (0x00280101, "LO", "many")),
        ("Rows", (0x00280010, "US", [4, 4])),
        ("WindowWidth", (0x00281051, "LO", "400")),
        ("RescaleSlope", (0x00281053, "LO", "steep")),
    ],
)
def test_numbers_that_are_stated_as_words_or_as_several_are_refused(tmp_path, tag, stated):
    dataset = pydicom.dcmread(write_picture(tmp_path / "x.dcm", unsigned(4, 5)))
    dataset.add_new(*stated)
    dataset.save_as(tmp_path / "x.dcm")
    with pytest.raises(ImageReadError, match=rf"cannot read .*x\.dcm .*it states {tag} as "):
        read_picture(tmp_path / "x.dcm", "voi")


def test_several_transfer_syntaxes_are_none(tmp_path):
    path = write_picture(tmp_path / "x.dcm", unsigned(4, 5))
    one = b"1.2.840.10008.1.2.1\0"
    path.write_bytes(path.read_bytes().replace(one, one[:9] + b"\\" + one[10:]))
    with pytest.raises(ImageReadError, match=r"x\.dcm .*states its transfer syntax as \['1"):
        read_picture(path, "dtype")


@pytest.mark.parametrize("read", [slices_of, lambda path: read_picture(path, "dtype")])
@pytest.mark.parametrize("tag", [b"\x20\x00\x52\x00UI", b"\xe0\x7f\x10\x00OW\0\0"])
def test_no_memory_is_taken_for_bytes_that_are_not_there(tmp_path, read, tag):
    path = write_picture(tmp_path / "x.dcm", unsigned(4, 5))
    content = path.read_bytes()
    at = content.index(tag) + len(tag)
    said = b"UN\0\0" if tag.endswith(b"UI") else tag[4:]
    start = content[: at - len(tag)] + tag[:4] + said + (2**31).to_bytes(4, "little")
    path.write_bytes(start + content[at:])
    tracemalloc.start()
    try:
        with suppress(ImageReadError):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


# --- windows of the file


def test_the_window_of_the_file_is_taken_the_first_where_there_are_several(tmp_path):
    pixels = numbers(6, 8)
    tags = {"WindowCenter": [40, 400], "WindowWidth": [401, 1001], "RescaleIntercept": -10}
    path = write_picture(tmp_path / "ct.dcm", pixels, RescaleSlope=1, **tags)
    # DICOM PS3.3 C.11.2.1.2.1: linear, the width less one.
    expected = np.clip((pixels - 10.0 - 39.5) / 400 + 0.5, 0, 1)
    np.testing.assert_allclose(read_picture(path, "voi"), expected, atol=1e-6)


def test_a_file_without_window_is_refused_by_that_policy(tmp_path):
    path = write_picture(tmp_path / "ct.dcm", numbers(4, 5))
    with pytest.raises(IntensityError, match=r"ct.dcm has no window of its own"):
        read_picture(path, "voi")


def test_a_window_without_width_is_none(tmp_path):
    path = write_picture(tmp_path / "ct.dcm", numbers(4, 5), WindowCenter=40, WindowWidth=0)
    with pytest.raises(IntensityError, match=r"ct.dcm has no window of its own"):
        read_picture(path, "voi")


# --- 8 bits and colour


def test_ultrasound_of_eight_bits_needs_no_policy_and_none_changes_it(tmp_path):
    pixels = unsigned(6, 8, top=255, dtype=np.uint8)
    path = write_picture(tmp_path / "us.dcm", pixels)
    for policy in (None, "dtype", (10, 20)):
        assert np.array_equal(read_picture(path, policy), (pixels / 255).astype(np.float32))


def test_its_own_window_applies_to_eight_bits_if_asked(tmp_path):
    pixels = unsigned(6, 8, top=255, dtype=np.uint8)
    path = write_picture(tmp_path / "us.dcm", pixels, WindowCenter=128, WindowWidth=101)
    expected = np.clip((pixels - 127.5) / 100 + 0.5, 0, 1)
    np.testing.assert_allclose(read_picture(path, "voi"), expected, atol=1e-6)


def test_rescaled_or_signed_eight_bits_need_a_policy(tmp_path):
    pixels = unsigned(4, 5, top=255, dtype=np.uint8)
    rescaled = write_picture(tmp_path / "a.dcm", pixels, RescaleSlope=2, RescaleIntercept=0)
    signed = write_picture(tmp_path / "b.dcm", pixels.view(np.int8))
    for path in (rescaled, signed):
        with pytest.raises(IntensityError, match=r"set 'intensity'"):
            read_picture(path, None)


def test_colour_keeps_its_channels(tmp_path):
    pixels = unsigned(6, 8, 3, top=255, dtype=np.uint8)
    path = write_picture(tmp_path / "us.dcm", pixels, SOPClassUID=SecondaryCaptureImageStorage)
    assert np.array_equal(read_picture(path, None), (pixels / 255).astype(np.float32))
    assert np.array_equal(read_image(path).permute(1, 2, 0).numpy(), read_picture(path, None))


def test_colour_of_sixteen_bits_is_refused(tmp_path):
    path = write_picture(tmp_path / "us.dcm", unsigned(4, 5, 3, top=200))
    with pytest.raises(IntensityError, match=r"us.dcm has colours of 16 bits"):
        read_picture(path, "dtype")


def test_colours_below_zero_are_refused(tmp_path):
    path = write_picture(tmp_path / "c.dcm", np.full((4, 5, 3), 200, np.uint8))
    change(path, PixelRepresentation=1)
    with pytest.raises(ImageReadError, match=r"c\.dcm holds colours from -56\.0 to -56\.0"):
        read_picture(path, None)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_is_looked_up(tmp_path, bits):
    table = np.random.default_rng(2).integers(0, 2**bits, (3, 256)).astype(f"u{bits // 8}")
    tags = {}
    for colour, row in zip(("Red", "Green", "Blue"), table, strict=True):
        tags[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        tags[f"{colour}PaletteColorLookupTableData"] = row.tobytes()
    pixels = unsigned(6, 8, top=255, dtype=np.uint8)
    path = write_picture(
        tmp_path / "us.dcm", pixels, PhotometricInterpretation="PALETTE COLOR", **tags
    )
    expected = (table[:, pixels] / (2**bits - 1)).transpose(1, 2, 0)
    np.testing.assert_allclose(read_picture(path, None), expected, atol=1e-6)


# --- compressed files


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless], ids=["RLE", "JPEG-LS"])
def test_compressed_pixels_are_read_exactly(tmp_path, syntax):
    pixels = unsigned(12, 10)
    path = write_picture(tmp_path / "ct.dcm", pixels, BitsStored=12)
    dataset = pydicom.dcmread(path)
    dataset.compress(syntax, generate_instance_uid=False)
    dataset.save_as(path)
    assert np.array_equal(read_picture(path, "dtype"), window(pixels, 0, 4095))


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless], ids=["RLE", "JPEG-LS"])
@pytest.mark.parametrize("tags", [{"Rows": 10}, {"Columns": 8}, {"Rows": 14}], ids=str)
def test_compressed_pixels_of_another_size_are_refused(tmp_path, syntax, tags):
    path = write_picture(tmp_path / "ct.dcm", unsigned(12, 10))
    dataset = pydicom.dcmread(path)
    dataset.compress(syntax, generate_instance_uid=False)
    dataset.save_as(path)
    with pytest.raises(ImageReadError, match=r"cannot decode the pixels of .*ct.dcm"):
        read_picture(change(path, **tags), "dtype")


def test_pixels_left_over_are_refused_whatever_other_threads_do_to_warnings(tmp_path, monkeypatch):
    path = write_picture(tmp_path / "ct.dcm", unsigned(12, 10))
    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.save_as(path)
    other, stored = warnings.catch_warnings(), dicom_pixels._stored

    def meanwhile(*args):
        """Another thread's filters, which began before ours, end."""
        other.__exit__(None, None, None)
        return stored(*args)

    monkeypatch.setattr(dicom_pixels, "_stored", meanwhile)
    other.__enter__()
    with pytest.raises(ImageReadError, match=r"ct.dcm: a segment holds 120 bytes .* wants 100"):
        read_picture(change(path, Rows=10), "dtype")


@pytest.mark.parametrize("end", [b"", b"\0", b"\x80", b"\xff"], ids=["none", "0", "128", "255"])
def test_run_lengths_may_end_with_bytes_that_unpack_to_nothing(tmp_path, end):
    path = write_picture(tmp_path / "us.dcm", np.full((1, 5), 7, np.uint8))
    dataset = pydicom.dcmread(path)
    # One literal, 128 for nothing, then four times the next byte.
    frame = struct.pack("<16L", 1, 64, *[0] * 14) + b"\0\7\x80\xfd\7" + end
    dataset.file_meta.TransferSyntaxUID = RLELossless
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    assert np.array_equal(read_picture(path, "dtype"), window(np.full((1, 5), 7), 0, 255))


def jpeg2000(path):
    dataset = pydicom.dcmread(write_picture(path, unsigned(4, 5)))
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.PixelData = encapsulate([b"\xff\x4f\xff\x51 no decoder comes to read this"])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    return path


def test_a_syntax_without_decoder_names_the_package(tmp_path, monkeypatch):
    from pydicom.pixels.decoders import JPEG2000LosslessDecoder

    monkeypatch.setattr(JPEG2000LosslessDecoder, "_available", {})
    path = jpeg2000(tmp_path / "ct.dcm")
    words = r"compressed as JPEG 2000 .*; run pip install 'pylibjpeg\[openjpeg\]'"
    with pytest.raises(ImageReadError, match=words):
        read_picture(path, "dtype")


# --- what is no single picture


def test_several_frames_are_refused_by_the_name_of_their_kind(tmp_path):
    frames = {"NumberOfFrames": 3, "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2.1"}
    path = write_picture(tmp_path / "ct.dcm", unsigned(4, 5), **frames)
    words = r"ct.dcm is a multi-frame file of 3 frames \(Enhanced CT Image Storage\)"
    with pytest.raises(VolumeError, match=words):
        read_picture(path, "dtype")


def test_an_enhanced_object_of_one_frame_is_rescaled_by_what_its_frames_share(tmp_path):
    rescaled = pydicom.Dataset()
    rescaled.RescaleSlope, rescaled.RescaleIntercept = 2, -1024
    group = pydicom.Dataset()
    group.PixelValueTransformationSequence = pydicom.Sequence([rescaled])
    shared = {"SharedFunctionalGroupsSequence": pydicom.Sequence([group])}
    pixels = unsigned(4, 5)
    path = write_picture(tmp_path / "ct.dcm", pixels, **shared)
    assert np.array_equal(read_picture(path, (0, 4000)), window(pixels * 2.0 - 1024, 0, 4000))


def test_a_report_is_no_picture(tmp_path):
    gone = dict.fromkeys(["Rows", "Columns", "BitsAllocated", "SamplesPerPixel"])
    path = write_picture(tmp_path / "sr.dcm", unsigned(4, 5))
    change(path, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", PixelData=None, **gone)
    with pytest.raises(ImageReadError, match=r"sr.dcm .* a Basic Text SR Storage file"):
        read_picture(path, "dtype")


def test_dicom_is_known_by_its_mark_where_the_name_says_nothing(tmp_path):
    for name in ("IM_0001", "1.2.840.113.5", "slice.IMA", "x.dcm"):
        assert is_dicom(write_picture(tmp_path / name, unsigned(4, 5)))
    (tmp_path / "notes").write_text("none")
    assert not is_dicom(tmp_path / "notes")
    assert not is_dicom(tmp_path)
    assert not is_dicom(tmp_path / "nowhere")


def test_a_name_without_ending_is_read_where_it_is_named(tmp_path):
    pixels = unsigned(4, 5)
    path = write_picture(tmp_path / "1.2.840.5", pixels)
    assert np.array_equal(read_image(path, "dtype")[1].numpy(), window(pixels, 0, 65535))
