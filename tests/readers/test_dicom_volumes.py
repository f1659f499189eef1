"""Several volumes in one DICOM series are told apart, never mixed, and one of them is chosen."""

import re
import shutil

import numpy as np
import pydicom
import pytest
from dicom_series import UID, numbers, oblique, straight, write_series
from enhanced import as_series, geometry, write_enhanced

from anomalib_medclip.errors import ConfigError, VolumeError
from anomalib_medclip.readers.volume import read_volume
from anomalib_medclip.score.inputs import look_below

WINDOW = (-1000.0, 2000.0)
PRIVATE = "0019,100C"

WHEREVER = {
    "EchoNumbers": (1, 2, 3),
    "EchoTime": (2.46, 12.5, 80.0),
    "TemporalPositionIdentifier": (1, 2, 3),
    "DiffusionBValue": (0.0, 500.0, 1000.0),
    "ImageType": (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]),
    "ConvolutionKernel": ("B30f", "B70f", "H31s"),
    "KVP": (80.0, 140.0),
    "NominalPercentageOfCardiacPhase": (40.0, 70.0, 75.0),
    "PixelSpacing": ([1.0, 1.0], [0.5, 0.5]),
    "ImageOrientationPatient": ([1, 0, 0, 0, 1, 0], [0, 1, 0, -1, 0, 0]),
    "FrameOfReferenceUID": (f"{UID}21", f"{UID}22"),
    "PatientID": ("one", "two"),
}
"""What slices of one volume share, wherever they lie."""

AT_ONE_PLACE = {
    "AcquisitionNumber": (1, 2, 3),
    "TriggerTime": (10.0, 400.0, 800.0),
    "FlipAngle": (2.0, 15.0),
    "SeriesDescription": ("pre", "post"),
    "AcquisitionTime": ("101500", "101730", "102000"),
    PRIVATE: ("0", "500", "1000"),
}
"""What tells slices of one place apart."""

IN_FRAMES = {
    "EffectiveEchoTime": (4.6, 9.2, 13.8),
    "DiffusionBValue": (0.0, 800.0),
    "TemporalPositionIndex": (1, 2, 3),
    "StackID": ("1", "2"),
    "FrameType": (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]),
    "FlipAngle": (2.0, 15.0),
    "FrameAcquisitionNumber": (1, 2),
    "NominalCardiacTriggerDelayTime": (0.0, 40.0, 80.0),
}
"""The same in functional groups."""


def written(folder, number, keyword, value, count=3):
    """One volume of a series, whose files lie among those of others; its numbers."""
    pixels = numbers(6, 5, count, seed=number)
    shared, frames = geometry(straight(), count)
    said = {"AcquisitionTime": "101500", **({} if keyword == PRIVATE else {keyword: value})}
    if keyword != "AcquisitionTime":  # which then differs from place to place
        frames = [{**f, "AcquisitionTime": f"1015{k:02}"} for k, f in enumerate(frames)]
    tags = {"SOPInstanceUID": f"{UID}6.{number}.1", **said}
    paths = []
    for k, frame in enumerate(frames):
        one = {**shared, **frame, **tags, "InstanceNumber": 10 * number + k}
        paths += as_series(folder / f"{number}{k}", [pixels[..., k].T], [{}], one)
        paths[-1] = paths[-1].rename(folder / f"{k}_{number}.dcm")
        if keyword == PRIVATE:
            dataset = pydicom.dcmread(paths[-1])
            dataset.private_block(0x19, "SIEMENS MR HEADER", create=True).add_new(0x0C, "IS", value)
            dataset.save_as(paths[-1])
    return paths, np.clip((pixels.transpose(2, 1, 0) + 1000.0) / 3000, 0, 1)


def as_given(value):
    return "\\".join(map(str, value)) if isinstance(value, list) else value


@pytest.mark.parametrize("keyword", [*WHEREVER, *AT_ONE_PLACE])
def test_volumes_at_one_place_are_counted_named_and_chosen(tmp_path, keyword):
    options = {**WHEREVER, **AT_ONE_PLACE}[keyword]
    wanted = [written(tmp_path, n, keyword, value)[1] for n, value in enumerate(options)]
    with pytest.raises(VolumeError) as refusal:
        read_volume(tmp_path, WINDOW)
    said = str(refusal.value)
    assert f"holds {len(options)} volumes, which differ in {keyword}: " in said
    assert "(3 slices)" in said
    for value, expected in zip(options, wanted, strict=True):
        found = read_volume(tmp_path, WINDOW, dicom_where={keyword: as_given(value)})
        np.testing.assert_allclose(found.voxels, expected, rtol=0, atol=1e-6)
    with pytest.raises(VolumeError, match=rf"no slice of .* has {keyword}=77; .* have "):
        read_volume(tmp_path, WINDOW, dicom_where={keyword: 77})


def drawn(random, folder):
    """One to six volumes of a series, told apart by one attribute or by two; each with its values.

    The second is one that tells slices of one place apart.
    """
    first = str(random.choice([*WHEREVER, *AT_ONE_PLACE]))
    values = {**WHEREVER, **AT_ONE_PLACE}[first]
    values = values[: int(random.integers(1, len(values) + 1))]
    others = [one for one in AT_ONE_PLACE if one not in (first, PRIVATE)]
    second = str(random.choice(others)) if random.random() < 0.3 else None
    count = int(random.integers(2, 5))
    volumes = []
    for value in values:
        for other in AT_ONE_PLACE[second][:2] if second else (None,):
            paths, voxels = written(folder, len(volumes), first, value, count)
            for path in paths if second else ():
                dataset = pydicom.dcmread(path)
                setattr(dataset, second, other)
                dataset.save_as(path)
            where = {first: as_given(value), **({second: other} if second else {})}
            volumes.append((where, voxels))
    return volumes


def check_drawn(home, seeds):
    refused = 0
    for seed in seeds:
        folder = home / str(seed)
        volumes = drawn(np.random.default_rng(seed), folder)
        if len(volumes) == 1:
            found = read_volume(folder, WINDOW).voxels
            np.testing.assert_allclose(found, volumes[0][1], rtol=0, atol=1e-6)
            continue
        refused += 1
        with pytest.raises(VolumeError, match=f"holds {len(volumes)} volumes, which differ in "):
            read_volume(folder, WINDOW)
        for where, expected in volumes:
            found = read_volume(folder, WINDOW, dicom_where=where).voxels
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6, err_msg=f"{seed}")
    assert refused > len(seeds) / 2


def test_volumes_of_a_series_are_never_mixed(tmp_path):
    check_drawn(tmp_path, range(50))


@pytest.mark.nightly(
    also="tests/readers/test_dicom_volumes.py::test_volumes_of_a_series_are_never_mixed"
)
def test_volumes_of_many_series_are_never_mixed(tmp_path):
    check_drawn(tmp_path, range(50, 500))


@pytest.mark.parametrize("keyword", WHEREVER)
@pytest.mark.parametrize("uneven", [False, True])
def test_halves_of_two_volumes_make_none(tmp_path, keyword, uneven):
    """Slices of two take turns, as where a copy was broken off: no place has two."""
    one, other, *_ = WHEREVER[keyword]
    for paths in zip(
        written(tmp_path, 0, keyword, one)[0], written(tmp_path, 1, keyword, other)[0], strict=True
    ):
        k = int(paths[0].name[0])
        paths[k % 2].unlink()
    with pytest.raises(VolumeError, match=f"holds 2 volumes, which differ in {keyword}"):
        read_volume(tmp_path, WINDOW, uneven)


APART = {
    "ContrastBolusAgent": ("none", "Gadovist"),
    "FlipAngle": (5.0, 30.0),
    "RepetitionTime": (8.5, 600.0),
    "SeriesDescription": ("pre", "post Gd"),
    "ProtocolName": ("t1 pre", "t1 post"),
    "SequenceName": ("*tse2d1", "*fl2d1"),
    "ScanOptions": ("FS", "PFP"),
    "EchoTime": (2.46, 80.0),
}
"""What stacks of one series differ in."""


def apart(folder, keyword, values, shift, count=4):
    """Stacks of a series that lie above one another by so much of a step; their voxels."""
    wanted = []
    for number, value in enumerate(values):
        affine = straight()
        affine[2, 3] += 3.0 * shift * number
        tags = {} if value == "none" else {keyword: value}
        voxels = numbers(6, 5, count, seed=number)
        stack = write_series(folder / str(number), voxels, affine, AcquisitionNumber=number, **tags)
        for k, path in enumerate(stack):
            dataset = pydicom.dcmread(path)
            dataset.SOPInstanceUID = f"{UID}9.{number}.{k + 1}"
            dataset.save_as(folder / f"{path.stem}_{number}.dcm")
        wanted.append(np.clip((voxels.transpose(2, 1, 0) + 1000.0) / 3000, 0, 1))
    return wanted


@pytest.mark.parametrize("keyword", APART)
@pytest.mark.parametrize("shift", [0.5, 4, 0])
@pytest.mark.parametrize("uneven", [False, True])
def test_stacks_are_told_apart_wherever_they_lie(tmp_path, keyword, shift, uneven):
    wanted = apart(tmp_path, keyword, APART[keyword], shift)
    words = rf"holds 2 volumes, which differ in {keyword}: .*\(4 slices\), .*\(4 slices\)"
    with pytest.raises(VolumeError, match=words):
        read_volume(tmp_path, WINDOW, uneven)
    for value, expected in zip(APART[keyword], wanted, strict=True):
        found = read_volume(tmp_path, WINDOW, dicom_where={keyword: value}).voxels
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("keyword", [one for one in APART if one != "EchoTime"])
def test_what_differs_from_slice_to_slice_tells_no_stacks_apart(tmp_path, keyword):
    folder = tmp_path / "ct"
    for k, path in enumerate(write_series(folder, numbers(6, 5, 6), straight())):
        dataset = pydicom.dcmread(path)
        numeric = isinstance(APART[keyword][1], float)
        setattr(dataset, keyword, 600.0 + k if numeric else f"SLICE {k}")
        dataset.AcquisitionNumber = k // 2  # as in a step and shoot CT
        dataset.save_as(path)
    assert len(read_volume(folder, WINDOW).voxels) == 6


def test_times_that_the_heart_sets_tell_no_stacks_apart(tmp_path):
    times = [812, 830, 812, 812, 830, 812, 830, 830]
    for time, path in zip(times, write_series(tmp_path, numbers(6, 5, 8), straight()), strict=True):
        dataset = pydicom.dcmread(path)
        dataset.RepetitionTime = time
        dataset.save_as(path)
    assert len(read_volume(tmp_path, WINDOW).voxels) == 8


def test_a_slice_of_another_stack_is_told_apart(tmp_path):
    for k, path in enumerate(write_series(tmp_path, numbers(6, 5, 8), straight())):
        dataset = pydicom.dcmread(path)
        dataset.FlipAngle = 30 if k == 3 else 5
        dataset.save_as(path)
    with pytest.raises(VolumeError, match=r"in FlipAngle: .*5.* \(7 slices\)"):
        read_volume(tmp_path, WINDOW)


@pytest.mark.parametrize("uneven", [False, True])
def test_volumes_that_nothing_tells_apart_are_counted(tmp_path, uneven):
    for number in range(3):
        written(tmp_path, number, "EchoNumbers", 1)
    with pytest.raises(VolumeError, match=r"3 slices at each of 3 places, .*`dcm2niix -o \. /"):
        read_volume(tmp_path, WINDOW, uneven)


def test_what_differs_from_place_to_place_is_of_one_volume(tmp_path):
    _, expected = written(tmp_path, 0, "EchoNumbers", 1)
    for k, path in enumerate(sorted(tmp_path.glob("*.dcm"))):
        dataset = pydicom.dcmread(path)
        dataset.AcquisitionNumber, dataset.TriggerTime, dataset.SeriesDescription = k, 7.0 * k, "ct"
        if k:
            dataset.EchoNumbers = None  # which says nothing
        dataset.save_as(path)
    np.testing.assert_allclose(read_volume(tmp_path, WINDOW).voxels, expected, atol=1e-6)


def test_two_attributes_are_named_where_it_takes_two(tmp_path):
    wanted = {}
    for number, (echo, trigger) in enumerate((e, t) for e in (1, 2) for t in (0.0, 40.0)):
        paths, wanted[echo, trigger] = written(tmp_path, number, "EchoNumbers", echo)
        for path in paths:
            dataset = pydicom.dcmread(path)
            dataset.TriggerTime = trigger
            dataset.save_as(path)
    words = (
        r"holds 4 volumes, which differ in EchoNumbers: 1 \(6 slices\), 2 \(6 slices\), and in Tr"
    )
    with pytest.raises(VolumeError, match=words) as refusal:
        read_volume(tmp_path, WINDOW)
    shown = re.search(r"--dicom-where '(\w+)=(\d)' '(\w+)=([\d.]+)'", str(refusal.value)).groups()
    as_shown = {shown[0]: shown[1], shown[2]: shown[3]}
    np.testing.assert_allclose(
        read_volume(tmp_path, WINDOW, dicom_where=as_shown).voxels, wanted[1, 0.0], atol=1e-6
    )
    with pytest.raises(VolumeError, match="holds 2 volumes, which differ in EchoNumbers"):
        read_volume(tmp_path, WINDOW, dicom_where={"TriggerTime": 40})


@pytest.mark.parametrize("keyword", IN_FRAMES)
def test_volumes_in_one_file_are_counted_named_and_chosen(tmp_path, keyword):
    options = IN_FRAMES[keyword]
    shared, places = geometry(oblique(), 4)
    pixels = numbers(4 * len(options), 6, 5)
    frames = [{**place, keyword: value} for place in places for value in options]
    path = write_enhanced(tmp_path / "e.dcm", pixels, frames, shared)
    words = rf"e.dcm holds {len(options)} volumes, which differ in {keyword}: .*\(4 slices\)"
    with pytest.raises(VolumeError, match=words):
        read_volume(path, WINDOW)
    for number, value in enumerate(options):
        alone = tmp_path / str(number)
        as_series(alone, pixels[number :: len(options)], places, shared)
        found = read_volume(path, WINDOW, dicom_where={keyword: as_given(value)})
        assert np.array_equal(found.voxels, read_volume(alone, WINDOW).voxels)


def test_series_are_told_apart_by_what_people_know(tmp_path):
    for number, name in enumerate(("T1", "T2")):
        tags = {"SeriesInstanceUID": f"{UID}3{number}", "SeriesDescription": name}
        folder = tmp_path / str(number)
        for path in write_series(folder, numbers(6, 5, 4, seed=number), straight(), **tags):
            path.rename(tmp_path / f"{path.stem}_{number}.dcm")
    words = (
        r"files of 2 DICOM series, which differ in SeriesDescription: T1 \(4 slices\), T2 \(4 sl"
    )
    with pytest.raises(VolumeError, match=words):
        read_volume(tmp_path, WINDOW)
    found = read_volume(tmp_path, WINDOW, dicom_where={"SeriesDescription": "T2"})
    assert len(found.voxels) == 4


def test_no_message_names_a_patient(tmp_path):
    for number, name in enumerate(("Doe^Jane", "Roe^Richard")):
        written(tmp_path, number, "PatientID", name)
    for where in (None, {"PatientID": "nobody"}):
        with pytest.raises(VolumeError) as refusal:
            read_volume(tmp_path, WINDOW, dicom_where=where)
        assert "Doe" not in str(refusal.value)


def test_an_attribute_that_there_is_not_is_refused_with_those_like_it(tmp_path):
    written(tmp_path, 0, "EchoNumbers", 1)
    with pytest.raises(ConfigError, match=r"'EchoNumber' is no attribute of DICOM; .*EchoNumbers"):
        read_volume(tmp_path, WINDOW, dicom_where={"EchoNumber": 1})


def test_copies_of_files_are_left_out_with_a_word(tmp_path):
    paths = write_series(tmp_path / "ct", numbers(6, 5, 4), straight())
    expected = read_volume(tmp_path / "ct", WINDOW).voxels
    copies = [path.with_name(f"{path.stem} (1).dcm") for path in paths[:3]]
    for path, copy in zip(paths, copies, strict=False):
        shutil.copy(path, copy)
    volume = read_volume(tmp_path / "ct", WINDOW)
    assert np.array_equal(volume.voxels, expected)
    wanted = {
        (copy, f"is a copy of {path.name}") for path, copy in zip(paths, copies, strict=False)
    }
    assert {(one.path, one.reason) for one in volume.left_out} == wanted
    found = look_below(tmp_path, tmp_path / "out")
    assert [one.files for one in found.inputs] == [tuple(sorted(paths))]
    told = {(tmp_path / one.path, one.reason) for one in found.left_out}
    assert told == wanted
    dataset = pydicom.dcmread(copies[0])
    dataset.PixelData = bytes(len(dataset.PixelData))
    dataset.save_as(copies[0])  # which is none then
    with pytest.raises(VolumeError, match="at the same place"):
        read_volume(tmp_path / "ct", WINDOW)
