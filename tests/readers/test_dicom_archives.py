"""DICOM that is not by the book: sound pixels are read, strangers are named, damage is refused."""

import re
import warnings
from functools import partial

import numpy as np
import pydicom
import pytest
from dicom_series import change, numbers, straight, write_picture, write_series
from enhanced import stored_as
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    RLELossless,
    UID_dictionary,
)

from anomalib_medclip.errors import ImageReadError, MedclipError, NoPictureError, VolumeError
from anomalib_medclip.readers.file_kind import is_dicom
from anomalib_medclip.readers.picture import read_image
from anomalib_medclip.readers.volume import read_volume
from anomalib_medclip.score.inputs import look_below

WINDOW = (-1000.0, 2000.0)
STORAGE = {
    uid: name for uid, (name, kind, _, retired, _) in UID_dictionary.items()
    if kind == "SOP Class" and "Storage" in name and "Commitment" not in name
}  # fmt: skip
IMAGES = {uid: name for uid, name in STORAGE.items() if "Image" in name or "Volume Storage" in name}


# --- sound pixels in a file that breaks rules


def words_of(random, shape):
    """Numbers that are drawn, and the words that hold them, by PS3.5 8.1: junk in other bits."""
    depth = int(random.choice([8, 16, 32]))
    stored = int(random.integers(1, depth + 1))
    high = int(random.integers(stored - 1, depth))
    is_signed = bool(random.random() < 0.5)
    low = -(2 ** (stored - 1)) if is_signed else 0
    values = random.integers(low, low + 2**stored, shape)
    place = high + 1 - stored
    mask = ((1 << stored) - 1) << place
    junk = random.integers(0, 2**depth, shape) & ~mask
    words = ((values << place) & mask | junk).astype(f"u{depth // 8}")
    tags = {
        "BitsStored": stored,
        "HighBit": None if high == stored - 1 and random.random() < 0.3 else high,
        "PixelRepresentation": int(is_signed),
    }
    return values, words, tags


USELESS = (
    ("SOPClassUID", None), ("SOPClassUID", ""), ("SOPClassUID", "1.3.12.2.1107.5.9.1"),
    ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.6"), ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.3"),
    ("SOPInstanceUID", None), ("SeriesInstanceUID", None), ("PatientName", None),
    ("SourceImageSequence", pydicom.Sequence([pydicom.Dataset()])),
    ("ReferencedImageSequence", pydicom.Sequence([])), ("FrameOfReferenceUID", ""),
    ("SamplesPerPixel", None), ("PlanarConfiguration", 1), ("NumberOfFrames", 1),
    ("NumberOfFrames", ""), ("WindowCenter", ""), ("WindowWidth", ""), ("RescaleType", "US"),
    ("PixelSpacing", ""), ("ImagePositionPatient", ""), ("ImageType", ""),
    ("RequestedProcedureID", "?"), ("BurnedInAnnotation", "perhaps"),
)  # fmt: skip

GARBAGE = {
    "PatientBirthDate": b"19??????", "SliceThickness": b"thin", "WindowCenter": b"all",
    "ImagePositionPatient": b"here", "AcquisitionNumber": b"1st ", "PatientAge": b"old ",
    "SOPInstanceUID": b"one\0", "RescaleType": b"\xff\xfe",
}  # fmt: skip
"""Values that are none of their kind, of what no pixel depends on."""


def altered(path, tags, garbage=None):
    """Write a file again with other tags, and with a value that is none of its kind."""
    dataset = pydicom.dcmread(path)
    for keyword, value in tags.items():
        if value is None:
            dataset.pop(keyword, None)
        else:
            setattr(dataset, keyword, value)
    if garbage:
        tag = pydicom.tag.Tag(garbage)
        kind, raw = pydicom.datadict.dictionary_VR(tag), GARBAGE[garbage]
        is_little = dataset.original_encoding[1]
        element = pydicom.dataelem.RawDataElement(tag, kind, len(raw), raw, 0, False, is_little)
        dataset._dict[tag] = element
    pydicom.dcmwrite(path, dataset, enforce_file_format=False)


def deflated(path):
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path)


def without_preamble(path):
    path.write_bytes(path.read_bytes()[132:])


def bare(implicit, path):
    """Neither preamble nor file header."""
    plain = pydicom.Dataset(dict(pydicom.dcmread(path).items()))
    pydicom.dcmwrite(path, plain, implicit_vr=implicit, little_endian=True)


def untold(path):
    """The file header names no transfer syntax."""
    dataset = pydicom.dcmread(path)
    del dataset.file_meta.TransferSyntaxUID
    order = {"implicit_vr": False, "little_endian": True}
    pydicom.dcmwrite(path, dataset, enforce_file_format=False, **order)


SYNTAXES = {
    "little endian": lambda path: None,
    "big endian": partial(stored_as, syntax=ExplicitVRBigEndian),
    "run lengths": partial(stored_as, syntax=RLELossless),
    "deflated": deflated,
}


def said_otherwise(path):
    """The file header names the other of the two little endian syntaxes."""
    raw = path.read_bytes()
    explicit = b"1.2.840.10008.1.2.1\0"
    assert raw.count(explicit) == 1
    path.write_bytes(raw.replace(explicit, b"1.2.840.10008.1.2\0\0\0"))


WRAPPED = {
    "said to be implicit": said_otherwise,
    "in a file header": lambda path: None,
    "without preamble": without_preamble,
    "implicit and bare": partial(bare, True),
    "explicit and bare": partial(bare, False),
    "without syntax": untold,
}


def strange_picture(path, random):
    """A file that is drawn, what it is, and what it should be read as in ``WINDOW``."""
    shape = tuple(random.integers(1, 9, 2))
    values, words, tags = words_of(random, shape)
    slope, intercept = 1.0, 0.0
    if random.random() < 0.5:
        slope, intercept = float(random.choice([0.5, 2, -1])), float(random.integers(-900, 900))
        tags |= {"RescaleSlope": slope, "RescaleIntercept": intercept}
    for index in random.permutation(len(USELESS))[: int(random.integers(0, 4))]:
        tags[USELESS[index][0]] = USELESS[index][1]
    colours = str(random.choice(["MONOCHROME1", "MONOCHROME2"]))
    syntax, wrap = str(random.choice(list(SYNTAXES))), str(random.choice(list(WRAPPED)))
    if syntax == "run lengths" and words.itemsize > 2:  # DICOM allows no others
        syntax = "little endian"
    if syntax != "little endian" and wrap != "without preamble":
        wrap = "in a file header"
    garbage = str(random.choice(list(GARBAGE))) if random.random() < 0.4 else None
    write_picture(path, words, PhotometricInterpretation=colours)
    SYNTAXES[syntax](path)
    altered(path, tags, garbage)
    WRAPPED[wrap](path)
    is_plain = (slope, intercept) == (1, 0) and not tags["PixelRepresentation"]
    shallow = is_plain and tags["BitsStored"] <= 8
    low, high = (0, 2 ** tags["BitsStored"] - 1) if shallow else WINDOW
    placed = np.clip((values * slope + intercept - low) / (high - low), 0, 1)
    told = (syntax, wrap, garbage, tags)
    return told, 1 - placed if colours == "MONOCHROME1" else placed


def read_right(tmp_path, count):
    path = tmp_path / "odd.dcm"
    for seed in range(count):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's, of what is wrong on purpose
            told, expected = strange_picture(path, np.random.default_rng(seed))
            found = read_image(path, WINDOW)[0].numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6, err_msg=f"{seed}: {told}")


def test_sound_pixels_are_read(tmp_path):
    read_right(tmp_path, 100)


@pytest.mark.nightly(also="tests/readers/test_dicom_archives.py::test_sound_pixels_are_read")
def test_many_sound_pixels_are_read(tmp_path):
    read_right(tmp_path, 2000)


@pytest.mark.parametrize("wrap", ["without preamble", "implicit and bare", "explicit and bare"])
def test_a_file_without_mark_and_ending_is_known_by_how_it_begins(tmp_path, wrap):
    path = write_picture(tmp_path / "IM_0001", numbers(4, 5))
    expected = read_image(path, WINDOW)
    WRAPPED[wrap](path)
    assert is_dicom(path)
    assert (read_image(path, WINDOW) == expected).all()


@pytest.mark.parametrize(
    "begin", [b"", b"\x08", b"GIF89a", b"\x89PNG\r\n", b"II*\0", b"\x5c\1\0\0", b"08"]
)
def test_other_files_are_none(tmp_path, begin):
    (tmp_path / "other").write_bytes(begin + bytes(200 if begin else 0))
    assert not is_dicom(tmp_path / "other")
    (tmp_path / "other.dcm").write_bytes(begin + bytes(200 if begin else 0))
    words = rf"other.dcm .*: it {'does not begin as DICOM does' if begin else 'is empty'}"
    if begin[1:4] in (b"IF8", b"I*\0"):  # of which it claims to be by its content
        words = r"cannot read image .*other.dcm: "
    with pytest.raises(ImageReadError, match=words):
        read_image(tmp_path / "other.dcm", WINDOW)


# --- strangers beside a series


def without_pixels(path, sop_class, series):
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SeriesInstanceUID = sop_class, series
    pydicom.dcmwrite(path, dataset, enforce_file_format=False)


def test_strangers_of_every_kind_are_left_out_and_named(tmp_path):
    write_series(tmp_path, numbers(6, 5, 3), straight())
    expected = read_volume(tmp_path, WINDOW).voxels
    strangers = {uid: name for uid, name in STORAGE.items() if uid not in IMAGES}
    assert len(strangers) > 100
    strangers["1.3.12.2.1107.5.9.1"] = "1.3.12.2.1107.5.9.1"  # a private kind
    for number, uid in enumerate(strangers):
        without_pixels(tmp_path / f"x{number:03}", uid, "1.2.3")
    write_picture(tmp_path / "y-seg.dcm", numbers(6, 5), SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4")
    found = read_volume(tmp_path, WINDOW)
    assert np.array_equal(found.voxels, expected)
    assert len(found.left_out) == len(strangers) + 1
    for one, name in zip(found.left_out[:-1], strangers.values(), strict=True):
        assert name in one.reason
    assert found.left_out[-1].reason == "is a Segmentation Storage file and no image"


def test_images_of_every_kind_are_read(tmp_path):
    for uid in IMAGES:
        path = write_picture(tmp_path / "x.dcm", numbers(4, 5), SOPClassUID=uid)
        assert read_image(path, WINDOW).shape == (3, 4, 5)


@pytest.mark.parametrize("missing", ["PlanarConfiguration", "PixelRepresentation", "HighBit"])
@pytest.mark.parametrize("wrap", ["little endian", "big endian", "run lengths"])
def test_colours_do_without_what_follows_from_the_rest(tmp_path, missing, wrap):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    path = write_picture(tmp_path / "us.dcm", pixels)
    SYNTAXES[wrap](path)
    altered(path, {missing: None})
    found = read_image(path).permute(1, 2, 0).numpy()
    assert np.array_equal(found, (pixels / 255).astype(np.float32))


def test_a_screenshot_of_another_series_is_left_out(tmp_path):
    paths = write_series(tmp_path, numbers(6, 5, 3), straight())
    place = {"ImagePositionPatient": None, "ImageOrientationPatient": None}
    write_picture(tmp_path / "shot.dcm", numbers(40, 50), SeriesInstanceUID="1.2.9", **place)
    found = read_volume(tmp_path, WINDOW)
    assert len(found.voxels) == len(paths)
    [one] = found.left_out
    assert one.path.name == "shot.dcm"
    words = "is a picture that says nothing of its place, beside the slices of a DICOM series"
    assert one.reason == words


def test_a_folder_of_reports_is_none(tmp_path):
    without_pixels(tmp_path / "sr.dcm", "1.2.840.10008.5.1.4.1.1.88.11", "1.2.3")
    with pytest.raises(ImageReadError, match="holds neither DICOM files nor pictures"):
        read_volume(tmp_path, WINDOW)
    with pytest.raises(NoPictureError, match=r"sr.dcm is a Basic Text SR Storage file and no im"):
        read_image(tmp_path / "sr.dcm", WINDOW)


@pytest.mark.parametrize("word", ["MOSAIC", "VFRAME"])
def test_slices_side_by_side_are_refused_with_the_tool_that_parts_them(tmp_path, word):
    path = write_picture(tmp_path / "bold" / "1.IMA", numbers(8, 8), ImageType=["ORIGINAL", word])
    for read, given in ((read_image, path), (read_volume, path.parent)):
        with pytest.raises(VolumeError, match=r"1.IMA is a mosaic: .*`dcm2niix -o \. .*bold`"):
            read(given, WINDOW)


def test_slices_side_by_side_are_known_by_their_makers_count(tmp_path):
    dataset = pydicom.dcmread(write_picture(tmp_path / "1.dcm", numbers(8, 8)))
    dataset.private_block(0x19, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", 1)
    dataset.save_as(tmp_path / "1.dcm")
    assert read_image(tmp_path / "1.dcm", WINDOW).shape == (3, 8, 8)
    dataset.private_block(0x19, "SIEMENS MR HEADER")[0x0A].value = 16
    dataset.save_as(tmp_path / "1.dcm")
    with pytest.raises(VolumeError, match=r"1.dcm is a mosaic"):
        read_image(tmp_path / "1.dcm", WINDOW)


# --- words of errors

FOREIGN = re.compile(
    r"force=|has no attribute|NoneType|object is|unpack requires|buffer|invalid literal|IOD|"
    r"pydicom|highdicom|numpy|Traceback|Error|dataset|argument|VR|codec|list index"
)


@pytest.mark.filterwarnings("ignore")
def test_no_error_of_a_damaged_file_has_a_librarys_words(tmp_path):
    refused = 0
    for seed in range(150):
        random = np.random.default_rng(seed)
        path = tmp_path / "odd.dcm"
        write_picture(path, numbers(4, 5), RescaleSlope=1, RescaleIntercept=0)
        SYNTAXES[str(random.choice(list(SYNTAXES)))](path)
        raw = bytearray(path.read_bytes())
        for at in random.integers(128, len(raw), int(random.integers(1, 8))):
            raw[at] = random.integers(256)
        path.write_bytes(raw[: len(raw) if seed % 3 else int(random.integers(1, len(raw)))])
        try:
            read_image(path, WINDOW)
        except MedclipError as error:
            refused += 1
            said = re.sub("`.+?`", "", str(error).replace(str(path), ""))  # but for commands
            assert not FOREIGN.search(said), said
            assert "; " in said, "it has a remedy"
    assert refused > 50


@pytest.mark.parametrize("place", ["before the pixels", "behind them"])
def test_elements_without_end_are_refused_or_passed_over(tmp_path, place):
    path = write_picture(tmp_path / "p.dcm", np.arange(48, dtype=np.uint16).reshape(6, 8))
    content, pixels = path.read_bytes(), b"\xe0\x7f\x10\x00"
    before, _, after = content.partition(pixels)
    empty = b"\x29\x00\x10\x10SH\0\0" * 200_000
    if place == "behind them":
        path.write_bytes(content + empty.replace(b"\x29\x00", b"\xf1\x7f"))
        assert read_image(path, WINDOW).shape == (3, 6, 8)
        return
    path.write_bytes(before + empty + pixels + after)
    with pytest.raises(ImageReadError, match="it has more than 100000 elements"):
        read_image(path, WINDOW)


@pytest.mark.parametrize("count", ["0", "-1"])
def test_a_picture_that_says_it_has_no_frames_is_one(tmp_path, count):
    voxels = numbers(6, 5, 4)
    paths = write_series(tmp_path / "ct", voxels, straight())
    expected = read_volume(tmp_path / "ct", WINDOW).voxels
    for path in paths:
        change(path, NumberOfFrames=count)
        assert len(read_volume(tmp_path / "ct", WINDOW).voxels) == 4
    assert np.array_equal(read_volume(tmp_path / "ct", WINDOW).voxels, expected)
    assert np.array_equal(read_image(paths[2], WINDOW)[0], expected[2])
    [found] = look_below(tmp_path, tmp_path / "out").inputs
    assert (found.kind, len(found.files)) == ("series", 4)


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("rest", [b"\0\0", b"\0" * 32, b"\0" * 31 + b"\1", b"\0" * 80])
def test_zeros_behind_pixels_are_padding_and_all_else_is_not(tmp_path, frames, rest):
    pixels = numbers(frames, 8, 5)
    path = write_picture(tmp_path / "a.dcm", pixels[0], PixelData=pixels.tobytes() + rest)
    if frames > 1:
        places = [
            {"PlanePositionSequence": [dataset_of(ImagePositionPatient=[0, 0, k])]}
            for k in range(frames)
        ]
        shared = {
            "PlaneOrientationSequence": [dataset_of(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
            "PixelMeasuresSequence": [dataset_of(PixelSpacing=[1, 1])],
        }
        change(
            path, NumberOfFrames=frames,
            PerFrameFunctionalGroupsSequence=[dataset_of(**one) for one in places],
            SharedFunctionalGroupsSequence=[dataset_of(**shared)],
        )  # fmt: skip
    read = read_image if frames == 1 else read_volume
    if any(rest) or len(rest) == 80:  # of the last, a whole picture
        with pytest.raises(ImageReadError, match=f"{80 * frames + len(rest)} bytes of pixels, but"):
            read(path, WINDOW)
    else:
        found = read(path, WINDOW)
        found = found[:1].numpy() if frames == 1 else found.voxels
        np.testing.assert_allclose(found, np.clip((pixels + 1000.0) / 3000, 0, 1), atol=1e-6)


def dataset_of(**said):
    dataset = pydicom.Dataset()
    for keyword, value in said.items():
        setattr(dataset, keyword, value)
    return dataset
