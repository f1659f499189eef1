import logging
import re

import numpy as np
import pydicom
import pytest
from dicom_series import UID, change, numbers, oblique, straight, write_nifti, write_series
from highdicom import get_volume_from_series

from anomalib_medclip.errors import ImageReadError, IntensityError, VolumeError
from anomalib_medclip.readers.dicom import read_series
from anomalib_medclip.readers.volume import read_volume

WINDOW = (-1000.0, 2000.0)
AFFINE = straight()

AXES = {
    "axial": np.eye(3),
    "sagittal": np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]], dtype=float),
    "coronal": np.array([[1, 0, 0], [0, 0, 1], [0, 1, 0]], dtype=float),
    "oblique": oblique((1, 1, 1))[:3, :3],
    "feet first": np.diag([1.0, -1.0, -1.0]),
    "mirrored": np.diag([1.0, 1.0, -1.0]),
}


def standing(name):
    affine = np.eye(4)
    affine[:3, :3] = AXES[name] @ np.diag([2.0, 1.5, 3.0])
    affine[:3, 3] = [-20, 15, 7]
    return affine


def by_place(volume, affine):
    """Values by the millimetre, to a tenth, at which they lie."""
    indices = np.stack(np.indices(volume.shape), axis=-1).reshape(-1, 3)
    places = (indices @ affine[:3, :3].T + affine[:3, 3]).round(1) + 0.0
    return dict(zip(map(tuple, places.tolist()), volume.reshape(-1).tolist(), strict=True))


@pytest.fixture
def series(tmp_path):
    """Writes a series of 5 slices: ``series(**tags)`` gives its files in order."""

    def write(affine=AFFINE, shape=(6, 7, 5), **tags):
        return write_series(tmp_path / "series", numbers(*shape), affine, **tags)

    return write


# --- order and place


@pytest.mark.parametrize("name", AXES)
def test_a_series_is_the_nifti_of_the_same_volume(tmp_path, name):
    voxels, affine = numbers(6, 7, 5), standing(name)
    write_series(tmp_path / "series", voxels, affine, RescaleSlope=2, RescaleIntercept=-30)
    write_nifti(tmp_path / "a.nii.gz", (voxels * 2.0 - 30).astype(np.float32), affine)
    one = read_volume(tmp_path / "series", WINDOW)
    two = read_volume(tmp_path / "a.nii.gz", WINDOW)
    assert one.voxels.shape == (5, 7, 6)  # slice, row, column
    assert by_place(*one[:2]) == by_place(*two[:2])


@pytest.mark.parametrize("name", AXES)
def test_place_and_order_are_highdicoms(tmp_path, name):
    paths = write_series(tmp_path, numbers(6, 7, 5), standing(name))
    found = read_series(sorted(paths), WINDOW)
    theirs = get_volume_from_series([pydicom.dcmread(path) for path in paths])
    values = np.clip((theirs.array + 1000) / 3000, 0, 1).astype(np.float32)
    assert by_place(found.voxels, found.affine) == by_place(
        values, np.diag([-1.0, -1.0, 1.0, 1.0]) @ theirs.affine
    )


def test_names_and_numbers_of_slices_do_not_matter(series):
    paths = series()
    expected = read_series(paths, WINDOW)
    for path in paths:
        change(path, InstanceNumber=1)
    assert [path.name for path in paths] != sorted(path.name for path in paths)
    for order in (paths[::-1], sorted(paths)):
        found = read_series(order, WINDOW)
        assert np.array_equal(found.voxels, expected.voxels)
        assert np.array_equal(found.affine, expected.affine)


def test_a_single_slice_is_as_thick_as_it_says(series):
    found = read_series(series(shape=(6, 7, 1)), WINDOW)
    assert found.voxels.shape == (1, 7, 6)
    np.testing.assert_allclose(np.linalg.norm(found.affine[:3, 0]), 3.0)
    untold = read_series(series(shape=(6, 7, 1), SliceThickness=None), WINDOW)
    np.testing.assert_allclose(np.linalg.norm(untold.affine[:3, 0]), 1.0)


def test_places_rounded_to_a_hundredth_are_even(series):
    affine = straight((1.0, 1.0, 0.625))
    paths = series(affine)
    for path in paths:
        place = pydicom.dcmread(path).ImagePositionPatient
        change(path, ImagePositionPatient=[round(float(x), 2) for x in place])
    found = read_series(paths, WINDOW)
    np.testing.assert_allclose(np.linalg.norm(found.affine[:3, 0]), 0.625, atol=0.002)


# --- stacks that are not whole


def test_a_missing_slice_is_refused_by_its_neighbours(series):
    paths = series()
    names = rf"{paths[1].name} and .*{paths[3].name} are 6.000 mm apart, other slices 3.000"
    with pytest.raises(VolumeError, match=names):
        read_series([*paths[:2], *paths[3:]], WINDOW)


def test_a_doubled_slice_is_refused_by_both_names(series):
    paths = series()
    place = pydicom.dcmread(paths[1]).ImagePositionPatient
    change(paths[4], ImagePositionPatient=place)
    first, second = sorted([paths[1].name, paths[4].name])
    with pytest.raises(VolumeError, match=rf"{first} and .*{second} are at the same place"):
        read_series(paths, WINDOW)


def test_an_uneven_slice_is_refused(series):
    paths = series()
    place = pydicom.dcmread(paths[2]).ImagePositionPatient
    change(paths[2], ImagePositionPatient=[place[0], place[1], place[2] + 1])
    with pytest.raises(VolumeError, match=r"missing or uneven; .* uneven: true .*--uneven$"):
        read_series(paths, WINDOW)


def test_uneven_slices_are_taken_as_they_come_if_asked(series, caplog):
    paths = series()
    whole = read_series(paths, WINDOW)
    place = pydicom.dcmread(paths[0]).ImagePositionPatient
    change(paths[3], ImagePositionPatient=place)  # one missing, one doubled
    with caplog.at_level(logging.WARNING):
        found = read_series(paths, WINDOW, uneven=True)
    assert "1 doubled slices left out; gaps of 3.00 to 6.00 mm taken as even" in caplog.text
    first = min((paths[0], paths[3]), key=lambda path: path.name)
    assert np.array_equal(found.voxels[1:], whole.voxels[[1, 2, 4]])
    assert np.array_equal(found.voxels[0], whole.voxels[paths.index(first)])
    np.testing.assert_allclose(found.affine, whole.affine)


@pytest.mark.parametrize("uneven", [False, True])
def test_a_tilted_stack_is_refused(series, uneven):
    paths = series()
    for k, path in enumerate(paths):
        place = pydicom.dcmread(path).ImagePositionPatient
        change(path, ImagePositionPatient=[place[0], place[1] + 0.3 * k, place[2]])
    # 0.3 mm aside for each step of 3 mm along the normal
    words = r"tilted by 5.71 degrees.*`dcm2niix -f straight -o \. .*series`.*_Tilt_ in its name"
    with pytest.raises(VolumeError, match=words):
        read_series(paths, WINDOW, uneven)


def test_one_slice_pushed_aside_is_refused(series):
    paths = series()
    place = pydicom.dcmread(paths[2]).ImagePositionPatient
    change(paths[2], ImagePositionPatient=[place[0] + 1, place[1], place[2]])
    with pytest.raises(VolumeError, match=r"not stacked along their normal: one lies aside"):
        read_series(paths, WINDOW)


# --- files that do not belong together


@pytest.mark.parametrize(
    ("keyword", "value", "stated"),
    [
        ("SeriesInstanceUID", UID + "9", None),
        ("FrameOfReferenceUID", UID + "9", None),
        ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.4", None),
        ("PhotometricInterpretation", "MONOCHROME1", None),
        ("BitsStored", 12, None),
        ("PixelSpacing", [1, 1], r"1.0\1.0"),
        ("ImageOrientationPatient", [1, 0, 0, 0, 0.8, 0.6], r"1.0\0.0\0.0\0.0\0.8\0.6"),
    ],
)
def test_files_of_two_kinds_are_refused_and_told_apart(series, keyword, value, stated):
    paths = series()
    change(paths[2], **{keyword: value})
    those = "files of 2 DICOM series" if keyword == "SeriesInstanceUID" else "2 volumes"
    said = re.escape(f"{stated or value} ({paths[2].name})")
    with pytest.raises(VolumeError, match=rf"{those}, which differ in {keyword}: .*{said}"):
        read_series(paths, WINDOW)


def test_a_folder_of_two_series_is_refused_and_told_apart(series, tmp_path):
    paths = series()
    for path in (paths[2], paths[3]):
        change(path, SeriesInstanceUID=UID + "9")
    found = rf"SeriesInstanceUID: {UID}1 \(3 slices\), {UID}9 \(2 slices\); give each .* a folder"
    with pytest.raises(VolumeError, match=found):
        read_volume(tmp_path / "series", WINDOW)
    chosen = read_volume(tmp_path / "series", WINDOW, dicom_where={"SeriesInstanceUID": UID + "9"})
    assert len(chosen.voxels) == 2


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "PixelSpacing"])
def test_a_slice_without_place_is_refused(series, keyword):
    paths = series()
    change(paths[2], **{keyword: None})
    with pytest.raises(VolumeError, match=rf"{paths[2].name} states no {keyword}"):
        read_series(paths, WINDOW)


@pytest.mark.parametrize(
    "tags",
    [
        {"PixelSpacing": [0, 1]},
        {"PixelSpacing": [1, -1]},
        {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
        {"ImageOrientationPatient": [2, 0, 0, 0, 2, 0]},
        {"SliceThickness": -3},
    ],
    ids=str,
)
def test_geometry_that_is_none_is_refused(series, tags):
    paths = series(shape=(6, 7, 1), **tags)
    with pytest.raises(VolumeError, match=r"repair"):
        read_series(paths, WINDOW)


def test_a_series_without_files_is_refused():
    with pytest.raises(VolumeError, match=r"without files"):
        read_series([], WINDOW)


def test_a_damaged_slice_is_named(series):
    paths = series()
    paths[3].write_bytes(paths[3].read_bytes()[:-10])
    with pytest.raises(ImageReadError, match=paths[3].name):
        read_series(paths, WINDOW)


def test_files_beside_a_series_are_left_out_with_the_reason(series, picture, tmp_path):
    alone = read_series(series(), WINDOW)
    picture(tmp_path / "series" / "preview.png")
    (tmp_path / "series" / "notes.txt").write_text("tired")
    found = read_volume(tmp_path / "series", WINDOW)
    assert np.array_equal(found.voxels, alone.voxels)
    assert [one.path.name for one in found.left_out] == ["notes.txt", "preview.png"]
    assert {one.reason for one in found.left_out} == {
        "is no DICOM file, and lies beside a DICOM series"
    }


# --- intensities


def test_eight_bits_need_no_policy(tmp_path):
    voxels = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    paths = write_series(tmp_path, voxels, straight())
    expected = (voxels.transpose(2, 1, 0) / 255).astype(np.float32)
    assert np.array_equal(read_series(paths, None).voxels, expected)


def test_percentiles_are_those_of_the_volume_not_of_a_slice(series):
    paths = series()
    found = read_series(paths, {"percentiles": (1, 99)})
    stored = np.stack([pydicom.dcmread(path).pixel_array for path in paths])
    low, high = np.percentile(stored[stored > 0], (1, 99))
    expected = np.clip((stored - low) / (high - low), 0, 1)
    np.testing.assert_allclose(found.voxels, expected, atol=1e-6)


def test_slices_are_rescaled_each_by_its_own_numbers_as_pet_is(series):
    paths = series(RescaleIntercept=0, RescaleSlope=1)
    stored = np.stack([pydicom.dcmread(path).pixel_array for path in paths])
    for k, path in enumerate(paths):
        change(path, RescaleSlope=k + 1)
    scaled = stored * np.arange(1.0, 6)[:, None, None]
    expected = np.clip((scaled + 1000) / 3000, 0, 1).astype(np.float32)
    assert np.array_equal(read_series(paths, WINDOW).voxels, expected)
    with pytest.raises(IntensityError, match=r"differ in RescaleSlope, so 'dtype' would"):
        read_series(paths, "dtype")


def test_slices_with_windows_of_their_own_have_no_common_one(series):
    paths = series(WindowCenter=40, WindowWidth=400)
    assert read_series(paths, "voi").voxels.max() == 1
    change(paths[2], WindowCenter=50)
    with pytest.raises(IntensityError, match=r"differ in WindowCenter, so 'voi' would"):
        read_series(paths, "voi")


def test_a_value_that_nobody_understands_is_no_obstacle_where_nothing_depends_on_it(tmp_path):
    paths = write_series(tmp_path, numbers(6, 5, 3), AFFINE, PatientName="")
    expected = read_series(paths, WINDOW).voxels
    name = b"\x10\x00\x10\x00PN"
    content = paths[1].read_bytes()
    assert content.count(name) == 1
    paths[1].write_bytes(content.replace(name, name[:4] + b"M\2"))
    assert np.array_equal(read_series(paths, WINDOW).voxels, expected)
