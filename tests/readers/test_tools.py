"""Commands that errors name are run on the file that was refused, and give what was in it.

Each is taken out of the error's own words; those of other programs run where these are installed.
"""

import gzip
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import imagecodecs
import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_series import UID, change, numbers, straight, write_picture, write_series
from odd import windowed
from odd_dicom import packed
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, UltrasoundMultiFrameImageStorage
from scipy.io import netcdf_file
from volume_formats import write_meta_image, write_nrrd

from anomalib_medclip.errors import ImageReadError, VolumeError
from anomalib_medclip.readers.picture import read_image
from anomalib_medclip.readers.volume import read_volume

WINDOW = (-1000.0, 2000.0)
STUDY = {
    "PatientID": "p", "StudyDate": "20200101", "StudyTime": "120000", "SeriesNumber": 1,
    "StudyInstanceUID": f"{UID}7", "Modality": "CT",
}  # fmt: skip


def needs(tool):
    return pytest.mark.skipif(not shutil.which(tool), reason=f"Debian's {tool} is not installed")


def words_of(read, path, kind=VolumeError):
    """What the error says that refuses a file."""
    with pytest.raises(kind) as refusal:
        read(path, WINDOW)
    return str(refusal.value)


def run(command, home):
    """Run a command in a folder, and return the files that it has made."""
    home.mkdir(exist_ok=True)
    before = set(home.iterdir())
    words = shlex.split(command)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    tool = shutil.which(words[0], path=path)
    done = subprocess.run([tool, *words[1:]], cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return sorted(set(home.iterdir()) - before)


def copied(said, tool):
    """The call of a program that stands between backquotes."""
    [command] = re.findall(rf"`({tool} .+?)`", said)
    return command


def nifti_of(made):
    [found] = [path for path in made if path.name.endswith(".nii")]
    return found


def as_dcm2niix(voxels):
    """``(i, j, k)`` as it turns them: rows from the back."""
    return windowed(voxels)[:, ::-1]


# --- frames of which nothing is said

RANDOM = np.random.default_rng(0)
CINES = {
    "bytes": (RANDOM.integers(0, 256, (3, 7, 9)).astype(np.uint8), {}),
    "colours": (RANDOM.integers(0, 256, (3, 7, 9, 3)).astype(np.uint8), {}),
    "12 bits": (RANDOM.integers(0, 1500, (3, 8, 9)).astype(np.uint16), {"BitsStored": 12}),
    "12 bits with a sign": (
        RANDOM.integers(-1000, 1500, (3, 8, 9)).astype(np.int16), {"BitsStored": 12},
    ),
    "rescaled": (
        RANDOM.integers(0, 1500, (3, 8, 9)).astype(np.uint16),
        {"RescaleSlope": 2, "RescaleIntercept": -900},
    ),
    "inverted": (
        RANDOM.integers(0, 1500, (3, 8, 9)).astype(np.uint16),
        {"PhotometricInterpretation": "MONOCHROME1"},
    ),
}  # fmt: skip


def cine(path, frames, **tags):
    said = {"NumberOfFrames": len(frames), "PixelData": frames.tobytes() + bytes(frames.size % 2)}
    kind = UltrasoundMultiFrameImageStorage
    return write_picture(path, frames[0], SOPClassUID=kind, **said, **STUDY | tags)


def expected_of(frames, tags):
    if frames.dtype == np.uint8:
        return frames / 255
    slope, intercept = tags.get("RescaleSlope", 1), tags.get("RescaleIntercept", 0)
    placed = windowed(frames * float(slope) + intercept)
    return 1 - placed if "PhotometricInterpretation" in tags else placed


@pytest.mark.parametrize("name", CINES)
def test_frames_are_taken_apart_to_the_number(tmp_path, name, monkeypatch):
    frames, tags = CINES[name]
    path = cine(tmp_path / "it's a cine" / "us 1.dcm", frames, **tags)
    command = copied(words_of(read_image, path), "python")
    assert words_of(read_volume, path) == words_of(read_image, path)
    if name == "bytes":
        made = run(command, tmp_path / "out")
    else:  # as Python would, but in a process that has its packages
        monkeypatch.chdir(tmp_path)
        exec(shlex.split(command)[2], {})
        made = sorted(tmp_path.glob("us 1_*.dcm"))
    assert [one.name for one in made] == [f"us 1_000{number}.dcm" for number in range(3)]
    for one, expected in zip(made, expected_of(frames, tags), strict=True):
        found = read_image(one, WINDOW).permute(1, 2, 0).numpy()
        if expected.ndim == 2:
            expected = np.repeat(expected[..., None], 3, axis=2)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def test_compressed_frames_are_unpacked_on_the_way(tmp_path, monkeypatch):
    frames = RANDOM.integers(0, 1500, (3, 8, 9)).astype(np.uint16)
    path = cine(tmp_path / "us.dcm", frames)
    dataset = pydicom.dcmread(path)
    codes = [imagecodecs.jpeg2k_encode(one, level=0, codecformat="j2k") for one in frames]
    dataset.PixelData = encapsulate(codes)
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.save_as(path)
    monkeypatch.chdir(tmp_path)
    exec(shlex.split(copied(words_of(read_image, path), "python"))[2], {})
    for number, expected in enumerate(windowed(frames)):
        found = read_image(tmp_path / f"us_000{number}.dcm", WINDOW)[0].numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


@needs("dcm2niix")
def test_frames_that_are_a_volume_become_one_by_dcm2niix(tmp_path):
    frames = RANDOM.integers(0, 60000, (3, 8, 9)).astype(np.uint16)
    path = cine(tmp_path / "a folder" / "nm.dcm", frames)
    cine(tmp_path / "a folder" / "other.dcm", frames + 1, SeriesInstanceUID=f"{UID}99")
    made = run(copied(words_of(read_image, path), "dcm2niix"), tmp_path / "out")
    found = read_volume(nifti_of(made), (0.0, 60000.0)).voxels
    np.testing.assert_allclose(found[:, ::-1], frames.transpose(2, 1, 0) / 60000, atol=1e-6)


# --- slices in one picture, at one place, or sheared


@needs("dcm2niix")
@pytest.mark.parametrize("counted", [True, False])
def test_a_mosaic_becomes_its_slices(tmp_path, counted):
    slices = numbers(9, 16, 16, low=0).astype(np.uint16)
    tiles = np.block([[slices[3 * row + column] for column in range(3)] for row in range(3)])
    path = write_picture(
        tmp_path / "bold 1" / "0.IMA", tiles, **STUDY, Manufacturer="SIEMENS", BitsStored=12,
        ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"], AcquisitionMatrix=[16, 0, 0, 16],
        SOPClassUID="1.2.840.10008.5.1.4.1.1.4", ImagePositionPatient=[-32, -28, -30],
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0], PixelSpacing=[2, 2], SliceThickness=3,
        SpacingBetweenSlices=4,
    )  # fmt: skip
    if counted:
        dataset = pydicom.dcmread(path)
        dataset.private_block(0x19, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", 9)
        dataset.save_as(path)
    made = run(copied(words_of(read_volume, path.parent), "dcm2niix"), tmp_path / "out")
    volume = read_volume(nifti_of(made), WINDOW)
    np.testing.assert_allclose(
        volume.voxels, as_dcm2niix(slices.transpose(2, 1, 0)), rtol=0, atol=2e-6
    )
    # The corner of a mosaic is that of its slices, farther out by half of what it is wider.
    np.testing.assert_allclose(volume.affine @ [0, 15, 0, 1], [0, -4, -30, 1], atol=1e-4)


@needs("dcm2niix")
def test_volumes_that_nothing_tells_apart_become_one_file_of_several(tmp_path):
    folder = tmp_path / "three"
    for number in range(3):
        voxels = numbers(6, 5, 3, seed=number)
        for k, path in enumerate(write_series(tmp_path / str(number), voxels, straight(), **STUDY)):
            dataset = pydicom.dcmread(path)
            dataset.InstanceNumber = 3 * number + k + 1
            dataset.SOPInstanceUID = f"{UID}8.{number + 1}{k}"
            folder.mkdir(exist_ok=True)
            dataset.save_as(folder / f"{number}{k}.dcm")
    made = nifti_of(run(copied(words_of(read_volume, folder), "dcm2niix"), tmp_path / "out"))
    run(words_of(read_volume, made).partition("the first by ")[2], tmp_path / "out")
    [first] = (tmp_path / "out").glob("*_0.nii.gz")
    np.testing.assert_allclose(
        read_volume(first, WINDOW).voxels, as_dcm2niix(numbers(6, 5, 3)), rtol=0, atol=2e-6
    )


ROD = (0.0, 3.0)  # x and y, in DICOM's millimetres


def tilted(folder, degrees, **tags):
    """Slices of a rod along the table, leaning by so many degrees."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    rows, columns = np.mgrid[:48, :40]
    for k in range(12):
        corner = np.array([-20, -24 * cosine, 5 * k - 24 * sine])
        x, y = corner[0] + columns, corner[1] + rows * cosine
        pixels = np.where((x - ROD[0]) ** 2 + (y - ROD[1]) ** 2 <= 49, 700, -1000)
        write_picture(
            folder / f"{k:02}.dcm", pixels.astype(np.int16), **STUDY | tags,
            ImagePositionPatient=[round(float(one), 5) for one in corner],
            ImageOrientationPatient=[1, 0, 0, 0, round(cosine, 7), round(sine, 7)],
            PixelSpacing=[1, 1], SliceThickness=5, InstanceNumber=k + 1,
            SOPInstanceUID=f"{UID}4.{k + 1}",
        )  # fmt: skip
    return folder


def assert_straight(path):
    """The rod is at its place in the slices of the middle, where nothing of it was cut off."""
    volume = read_volume(path, WINDOW)
    count = volume.voxels.shape[2]
    for k in range(count // 3, 2 * count // 3):
        places = np.argwhere(volume.voxels[:, :, k] > 0.4)
        middle = volume.affine @ [*places.mean(axis=0), k, 1]
        np.testing.assert_allclose(middle[:2], np.negative(ROD), atol=0.6)


@needs("dcm2niix")
@pytest.mark.parametrize("degrees", [-12, 20])
@pytest.mark.parametrize("said", [True, False])
def test_a_tilted_stack_is_straightened(tmp_path, degrees, said):
    tags = {"GantryDetectorTilt": -degrees} if said else {}
    folder = tilted(tmp_path / "head CT", degrees, **tags)
    words = words_of(read_volume, folder)
    made = run(copied(words, "dcm2niix"), tmp_path / "out")
    part = re.search(r"the file with (\S+) in its name, not (\S+)$", words)
    [straightened] = [one for one in made if part[1] in one.name and one.suffix == ".nii"]
    assert_straight(straightened)
    # Of its file that is not straightened, no other program can be told to straighten it.
    again = words_of(read_volume, tmp_path / "out" / part[2])
    assert re.search(rf"{part[1]} in its name, or convert its DICOM files again", again)


MISREAD = {
    "12 bits with a sign": ({"BitsStored": 12}, lambda voxels: voxels),
    "12 bits at the top": (
        {"BitsStored": 12, "HighBit": 15}, lambda voxels: (voxels << 4).astype(np.uint16),
    ),
    "inverted": ({"PhotometricInterpretation": "MONOCHROME1"}, lambda voxels: voxels),
}  # fmt: skip


@needs("dcm2niix")
@pytest.mark.parametrize("name", MISREAD)
def test_where_dcm2niix_misreads_numbers_that_is_said(tmp_path, name):
    tags, stored = MISREAD[name]
    low = 0 if "top" in name else -1000
    voxels = numbers(6, 5, 3, low=low)
    folder = tmp_path / "ct"
    write_series(folder, stored(voxels), straight(), **STUDY, **tags)
    expected = read_volume(folder, WINDOW).voxels.transpose(2, 1, 0)
    for k, path in enumerate(sorted(folder.iterdir())):
        again = shutil.copy(path, folder / f"again{k}.dcm")
        change(again, SOPInstanceUID=f"{UID}5.{k}")  # else it would be a copy
    words = words_of(read_volume, folder)
    assert "exported as MONOCHROME2 of 16 bits, since dcm2niix misreads numbers like these" in words
    for path in folder.glob("again*"):
        path.unlink()
    made = run(copied(words, "dcm2niix"), tmp_path / "out")
    found = read_volume(nifti_of(made), WINDOW).voxels[:, ::-1]
    assert np.abs(found - expected).max() > 0.1


# --- compressed pixels


def compressed(path, pixels, syntax, code, **tags):
    write_picture(path, pixels, BitsStored=12, **STUDY, **tags)
    packed(syntax, lambda _: code, path)
    return path


@needs("gdcmconv")
def test_what_no_decoder_here_reads_is_unpacked(tmp_path):
    pixels = numbers(8, 9, low=0).astype(np.uint16)
    code = imagecodecs.ljpeg_encode(pixels, bitspersample=16)
    path = compressed(tmp_path / "x ray" / "a.dcm", pixels, JPEGLosslessSV1, code)
    words = words_of(read_image, path, ImageReadError)
    [made] = run(copied(words, "gdcmconv"), tmp_path / "out")
    np.testing.assert_allclose(read_image(made, WINDOW)[0], windowed(pixels), atol=2e-6)


@needs("gdcmconv")
@needs("dcmcjpeg")
def test_jpeg_of_twelve_bits_is_unpacked(tmp_path):
    ramp = np.add.outer(np.arange(40) * 20, np.arange(48) * 10).astype(np.uint16)
    plain = write_picture(tmp_path / "plain.dcm", ramp, BitsStored=12, **STUDY)
    path = tmp_path / "a.dcm"
    subprocess.run(["dcmcjpeg", "+ee", plain, path], check=True)
    words = words_of(read_image, path, ImageReadError)
    assert "compressed as JPEG Extended" in words
    [made] = run(copied(words, "gdcmconv"), tmp_path / "out")
    np.testing.assert_allclose(read_image(made, WINDOW)[0], windowed(ramp), atol=0.01)


@needs("dcmdjpeg")
def test_words_that_hold_more_than_a_number_are_unpacked_as_they_are(tmp_path):
    pixels = numbers(8, 9, low=0).astype(np.uint16)
    code = imagecodecs.ljpeg_encode(pixels << 4, bitspersample=16)
    path = compressed(tmp_path / "a.dcm", pixels << 4, JPEGLosslessSV1, code, HighBit=15)
    words = words_of(read_image, path, ImageReadError)
    [made] = run(copied(words, "dcmdjpeg"), tmp_path / "out")
    np.testing.assert_allclose(read_image(made, WINDOW)[0], windowed(pixels), atol=2e-6)
    code = imagecodecs.jpeg2k_encode(pixels << 4, level=0, codecformat="j2k")
    path = compressed(tmp_path / "b.dcm", pixels << 4, JPEG2000Lossless, code, HighBit=15)
    assert "; have it exported without" in words_of(read_image, path, ImageReadError)


# --- other programs' volumes


@needs("gunzip")
@pytest.mark.parametrize("name", ["a.mha.gz", "it's a.mha", "a.nrrd.GZ", "b.nrrd"])
def test_what_is_packed_as_a_whole_is_unpacked(tmp_path, name):
    voxels = numbers(4, 5, 6)
    write = write_meta_image if "mha" in name else write_nrrd
    plain = write(tmp_path / f"plain.{'mha' if 'mha' in name else 'nrrd'}", voxels, straight())
    path = tmp_path / name
    path.write_bytes(gzip.compress(plain.read_bytes()))
    [command] = re.findall("`(.+?)`", words_of(read_volume, path, ImageReadError))
    made = run(shlex.join(["sh", "-c", command]), tmp_path / "out")
    assert np.array_equal(read_volume(made[0], WINDOW).voxels, windowed(voxels).astype(np.float32))


@needs("dcm2niix")
def test_a_philips_volume_becomes_nifti(tmp_path):
    told = Path(nib.__file__).parent / "tests" / "data" / "Phantom_EPI_3mm_tra_SENSE_6_1.PAR"
    if not told.exists():
        pytest.skip("nibabel came without its test data")
    folder = tmp_path / "philips"
    folder.mkdir()
    path = shutil.copy(told, folder / "EPI.PAR")
    header = nib.parrec.PARRECHeader.from_fileobj(path.open(), permit_truncated=True)
    stored = RANDOM.integers(0, 4000, int(np.prod(header.get_data_shape()))).astype("<u2")
    (folder / "EPI.REC").write_bytes(stored.tobytes())
    [command] = re.findall("`(.+?)`", words_of(read_volume, path, ImageReadError))
    made = run(command, folder)
    wanted = nib.parrec.load(path, scaling="fp", permit_truncated=True).get_fdata()
    window = (0.0, float(wanted.max()))
    found = read_volume(nifti_of(made), window).voxels[:, ::-1]
    np.testing.assert_allclose(found, wanted / window[1], rtol=0, atol=1e-6)


def write_minc(path, voxels, starts, steps, ranges):
    """Write MINC 1, which is netCDF, by the MINC 1 programmer's guide.

    Args:
        path: The file.
        voxels: Stored numbers, ``(z, y, x)``, from 0 to 4000.
        starts: Of the first voxel, in millimetres along z, y and x.
        steps: Likewise.
        ranges: Least and largest number that those of each slice stand for.
    """
    with netcdf_file(path, "w", version=1) as file:
        names = ("zspace", "yspace", "xspace")
        for name, side, start, step in zip(names, voxels.shape, starts, steps, strict=True):
            file.createDimension(name, side)
            one = file.createVariable(name, "i4", ())
            one.varid, one.vartype = "MINC standard variable", "dimension____"
            one.spacing, one.start, one.step = "regular__", np.float64(start), np.float64(step)
        for name, values in zip(("image-min", "image-max"), np.transpose(ranges), strict=True):
            one = file.createVariable(name, "f8", ("zspace",))
            one.varid, one.vartype = "MINC standard variable", "var_attribute"
            one[:] = values
        image = file.createVariable("image", "i2", names)
        image.varid, image.vartype, image.complete = (
            "MINC standard variable",
            "group________",
            "true_",
        )
        image.signtype, image.valid_range = "signed__", np.array([0.0, 4000.0])
        setattr(image, "image-min", "--->image-min")
        setattr(image, "image-max", "--->image-max")
        image[:] = voxels


@needs("mnc2nii")
@pytest.mark.parametrize("steps", [(3.0, 2.0, 1.5), (3.0, -2.0, 1.5), (-3.0, 2.0, -1.5)])
def test_a_minc_volume_becomes_nifti(tmp_path, steps):
    stored = RANDOM.integers(0, 4001, (4, 5, 6)).astype(np.int16)
    ranges = np.array([[-1000.0, 2000.0], [0.0, 900.0], [-500.0, 1500.0], [10.0, 20.0]])
    path = tmp_path / "it's a head.mnc"
    write_minc(path, stored, (7.0, 15.0, -20.0), steps, ranges)
    low, high = ranges.T[:, :, None, None]
    placed = stored / 4000 * (high - low) + low
    [made] = run(copied(words_of(read_volume, path, ImageReadError), "mnc2nii"), tmp_path / "out")
    volume = read_volume(made, WINDOW)
    for index in np.ndindex(stored.shape):
        place = np.array([-20.0, 15.0, 7.0]) + np.array(index[::-1]) * steps[::-1]
        i, j, k = np.rint(np.linalg.inv(volume.affine) @ [*place, 1])[:3].astype(int)
        assert abs(volume.voxels[i, j, k] - windowed(placed[index])) < 1e-6


@needs("mnc2nii")
@needs("mincconvert")
def test_a_minc_volume_in_hdf5_becomes_nifti(tmp_path):
    stored = RANDOM.integers(0, 4001, (4, 5, 6)).astype(np.int16)
    write_minc(tmp_path / "one.mnc", stored, (0.0,) * 3, (3.0, 2.0, 1.5), [[-1000, 2000]] * 4)
    path = tmp_path / "a head"
    run(shlex.join(["mincconvert", "-2", str(tmp_path / "one.mnc"), str(path)]), tmp_path)
    words = words_of(read_volume, path, ImageReadError)
    assert "is a MINC file; " in words
    [made] = run(copied(words, "mnc2nii"), tmp_path / "out")
    found = read_volume(made, WINDOW).voxels
    np.testing.assert_allclose(found, windowed(stored.T * 0.75 - 1000), rtol=0, atol=1e-6)
