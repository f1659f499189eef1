"""Multi-frame DICOM files are the volumes that their frames make as files of their own."""

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_series import UID, numbers, oblique, straight, write_picture, write_series
from enhanced import as_series, geometry, stored_as, write_enhanced
from pydicom.uid import ExplicitVRBigEndian, RLELossless

from anomalib_medclip.errors import ImageReadError, VolumeError
from anomalib_medclip.readers import dicom_frames
from anomalib_medclip.readers.picture import read_image
from anomalib_medclip.readers.volume import read_volume

WINDOW = (-1000.0, 2000.0)
PATIENT = {
    **dict.fromkeys(
        ("PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
         "AccessionNumber", "ReferringPhysicianName", "Manufacturer"), "",
    ),
    "StudyInstanceUID": f"{UID}7",
    "SeriesNumber": 3,
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
}  # fmt: skip


def same(one, other):
    assert np.array_equal(one.voxels, other.voxels)
    np.testing.assert_allclose(one.affine, other.affine, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["CT", "MR"])
def test_a_series_converted_by_highdicom_is_the_same_volume(tmp_path, kind):
    classic = {"CT": "1.2.840.10008.5.1.4.1.1.2", "MR": "1.2.840.10008.5.1.4.1.1.4"}[kind]
    tags = {"RescaleSlope": 2, "RescaleIntercept": -30, "WindowCenter": 40, "WindowWidth": 400}
    paths = write_series(
        tmp_path / "series", numbers(6, 7, 5), oblique(), SOPClassUID=classic, Modality=kind,
        **tags, **PATIENT,
    )  # fmt: skip
    convert = getattr(highdicom.legacy, f"LegacyConvertedEnhanced{kind}Image")
    datasets = [pydicom.dcmread(path) for path in paths]
    convert(datasets, f"{UID}10", 1, f"{UID}11", 1).save_as(tmp_path / "enhanced.dcm")
    for policy in (WINDOW, "voi", "dtype", {"percentiles": (1, 99)}):
        same(*(read_volume(tmp_path / name, policy) for name in ("enhanced.dcm", "series")))


def drawn(random):
    """A multi-frame file that is drawn: pixels, what each frame says, what all share, tags."""
    count = int(random.integers(1, 6))
    affine = oblique(tuple(random.uniform(0.5, 4, 3)), float(random.uniform(0, 80)))
    shared, frames = geometry(affine, count)
    if random.random() < 0.5:  # place, size and rescaling of each frame, or of all
        frames = [{**frame, **shared} for frame in frames]
        shared = {}
    for number, frame in enumerate(frames):
        if random.random() < 0.5:  # as PET has it
            frame |= {"RescaleSlope": 1.0 + number, "RescaleIntercept": float(-100 * number)}
    order = random.permutation(count)
    shape = (count, int(random.integers(1, 9)), int(random.integers(1, 9)))
    bits = int(random.choice([8, 12, 16]))
    is_signed = bool(random.random() < 0.5)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if is_signed else (0, 2**bits)
    kind = np.dtype(f"{'i' if is_signed else 'u'}{1 if bits == 8 else 2}")
    pixels = random.integers(low, high, shape).astype(kind)
    colours = str(random.choice(["MONOCHROME1", "MONOCHROME2"]))
    tags = {"BitsStored": bits, "PhotometricInterpretation": colours}
    return pixels, [frames[i] for i in order], shared, tags


def read_right(tmp_path, count):
    for seed in range(count):
        random = np.random.default_rng(seed)
        pixels, frames, shared, tags = drawn(random)
        # What groups say stands above what the file says at its beginning.
        old = {"PixelSpacing": [9, 9], "ImagePositionPatient": [9, 9, 9]}
        path = write_enhanced(tmp_path / f"{seed}.dcm", pixels, frames, shared, **old, **tags)
        as_series(tmp_path / str(seed), pixels, frames, shared, **tags)
        if (syntax := random.choice([None, RLELossless, ExplicitVRBigEndian])) is not None:
            stored_as(path, syntax)
        policy = [WINDOW, {"centre": 40, "width": 400}][int(random.integers(2))]
        expected = read_volume(tmp_path / str(seed), policy)
        if len(pixels) > 1:
            same(read_volume(path, policy), expected)
        else:  # of one frame it is a picture
            assert np.array_equal(read_image(path, policy)[0].numpy(), expected.voxels[0])


def test_frames_are_read_as_files_of_their_own(tmp_path):
    read_right(tmp_path, 30)


@pytest.mark.nightly(
    also="tests/readers/test_dicom_enhanced.py::test_frames_are_read_as_files_of_their_own"
)
def test_many_frames_are_read_as_files_of_their_own(tmp_path):
    read_right(tmp_path, 500)


def test_affine_and_numbers_are_those_that_the_groups_state(tmp_path):
    """By hand, from the definition: the frames lie 3 mm apart, from the feet."""
    shared, frames = geometry(straight((2.0, 1.5, 3.0)), 3)
    pixels = np.arange(3 * 2 * 4, dtype=np.int16).reshape(3, 2, 4)
    path = write_enhanced(
        tmp_path / "e.dcm", pixels[[2, 0, 1]], [frames[i] for i in (2, 0, 1)], shared
    )
    found = read_volume(path, (0, 100))
    np.testing.assert_allclose(found.voxels, pixels / 100, atol=1e-6)
    np.testing.assert_allclose(found.affine @ [1, 0, 0, 1], [-20, 15, 10, 1])  # the next slice
    np.testing.assert_allclose(found.affine @ [0, 1, 0, 1], [-20, 16.5, 7, 1])  # the next row
    np.testing.assert_allclose(found.affine @ [0, 0, 1, 1], [-18, 15, 7, 1])  # the next column


def test_a_volume_is_no_picture_and_says_who_reads_it(tmp_path):
    shared, frames = geometry(straight(), 3)
    path = write_enhanced(tmp_path / "e.dcm", numbers(3, 4, 5), frames, shared)
    with pytest.raises(VolumeError, match=r"e.dcm is a multi-frame file of 3 frames \(Enhanced MR"):
        read_image(path, WINDOW)


def test_frames_without_place_are_refused_with_the_tool_that_takes_them_apart(tmp_path):
    path = write_picture(tmp_path / "us.dcm", numbers(4, 5), NumberOfFrames=3)
    for read in (read_image, read_volume):
        with pytest.raises(
            VolumeError, match=r"us.dcm .*`python -c .*us.dcm.*`dcm2niix -s y -o \. .*us.dcm`"
        ):
            read(path, WINDOW)


@pytest.mark.parametrize("change", ["fewer groups", "fewer pixels", "more pixels"])
def test_a_file_that_counts_its_frames_otherwise_is_refused(tmp_path, change):
    shared, frames = geometry(straight(), 4)
    pixels = numbers(4, 4, 5)
    raw = {"fewer pixels": pixels[:3], "more pixels": np.repeat(pixels, 2, axis=0)}.get(
        change, pixels
    )
    said = frames[:3] if change == "fewer groups" else frames
    tags = {"PixelData": raw.tobytes(), "NumberOfFrames": 4}
    path = write_enhanced(tmp_path / "e.dcm", pixels, said, shared, **tags)
    with pytest.raises(
        ImageReadError, match=r"describes 3|bytes of pixels, but its header wants 160"
    ):
        read_volume(path, WINDOW)


def test_headers_of_a_folder_are_read_once(tmp_path, monkeypatch):
    write_series(tmp_path, numbers(6, 5, 7), straight())
    read, count = dicom_frames.read_header, []
    monkeypatch.setattr(dicom_frames, "read_header", lambda file: count.append(1) or read(file))
    read_volume(tmp_path, WINDOW)
    assert len(count) == 7
