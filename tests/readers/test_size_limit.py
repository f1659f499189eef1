"""What is too large is refused by its header, and a small file takes no memory."""

import json
import struct
import warnings
import zlib

import fresh_process
import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_series import numbers, straight, write_nifti, write_picture, write_series
from PIL import Image
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from anomalib_medclip.data.checks import check_data
from anomalib_medclip.data.folder import MedicalFolder
from anomalib_medclip.data.slicing import Slicing, cut
from anomalib_medclip.errors import ConfigError, ImageReadError
from anomalib_medclip.readers import dicom_pixels
from anomalib_medclip.readers.dicom_frames import slices_of
from anomalib_medclip.readers.picture import read_image, read_lesion
from anomalib_medclip.readers.size_limit import (
    LIMIT_VARIABLE,
    MOST_VOXELS,
    check_pixels,
    check_voxels,
)
from anomalib_medclip.readers.volume import read_labels, read_volume

WINDOW = (-1000.0, 2000.0)
MILLIONS = 1 << 24  # bytes of zeros in a piece


@pytest.fixture
def most(monkeypatch):
    """Sets the limit: ``most(100)``."""
    return lambda voxels: monkeypatch.setenv(LIMIT_VARIABLE, str(voxels))


def zeros(start, pieces):
    """``start`` and then so many pieces of zeros, deflated in no time."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    head = deflate.compress(start) + deflate.flush(zlib.Z_FULL_FLUSH)
    piece = deflate.compress(bytes(MILLIONS)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return head + piece * pieces + deflate.flush()


def nifti_bomb(path):
    """600 million voxels in 580 kB."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape((860, 840, 830))
    header.set_sform(np.eye(4), 1)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    packed = zeros(header.binaryblock + bytes(4), 36)
    path.write_bytes(b"\x1f\x8b\x08" + bytes(5) + b"\x02\xff" + packed + bytes(8))
    return path


def dicom_bomb(path):
    """A picture of 8 x 8 pixels, of which there are 400 MB in 390 kB."""
    write_picture(path, numbers(8, 8))
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path)
    begin = 132 + 12 + read_file_meta_info(path).FileMetaInformationGroupLength
    raw = path.read_bytes()
    inflated = zlib.decompress(raw[begin:], -zlib.MAX_WBITS)
    start = inflated[: -128 - 4] + struct.pack("<I", 24 * MILLIONS)
    path.write_bytes(raw[:begin] + zeros(start, 24))
    return path


def slide(path, width, height):
    """The header of a PNG of grey pixels, and the first of them."""

    def chunk(kind, data):
        named = kind + data
        return struct.pack(">I", len(data)) + named + struct.pack(">I", zlib.crc32(named))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(b"0" * 99)), (b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks))
    return path


READ = """
import json, resource, sys
from pathlib import Path
from anomalib_medclip.errors import MedclipError
from anomalib_medclip.readers.dicom import read_picture
from anomalib_medclip.readers.dicom_frames import slices_of
from anomalib_medclip.readers.volume import read_volume

def said_of(read, *given):
    try:
        return str(read(*given)[0].header.Rows)
    except MedclipError as error:
        return str(error)

import highdicom, nibabel
nifti, dicom = map(Path, sys.argv[1:])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
said = [said_of(read_volume, nifti, (0, 1)), said_of(slices_of, dicom)]
said.append(said_of(read_picture, dicom, "dtype"))
taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps([taken / 1024, *said]))
"""


def test_bombs_take_no_memory(tmp_path):
    bombs = nifti_bomb(tmp_path / "scan.nii.gz"), dicom_bomb(tmp_path / "scan.dcm")
    assert max(path.stat().st_size for path in bombs) < 600_000
    done = fresh_process.run("-c", READ, *bombs, timeout=120)
    megabytes, nifti, header, picture = json.loads(done.stdout)
    assert megabytes < 100
    assert "scan.nii.gz is of 860 x 840 x 830 voxels, 599,592,000 numbers in all" in nifti
    assert "at most 536,870,912 are read; crop or reduce it or, where there is memory" in nifti
    assert header == "8", "what the header says can be read"
    assert "scan.dcm: it inflates to more than" in picture


def test_a_deflated_file_is_read_as_any_other(tmp_path):
    pixels = numbers(600, 700)
    path = write_picture(tmp_path / "one.dcm", pixels)
    expected = read_image(path, WINDOW)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path)
    assert path.stat().st_size < pixels.nbytes, "it is deflated"
    assert (read_image(path, WINDOW) == expected).all()
    [one] = slices_of(path)
    assert one.header.PatientName == "Doe^Jane"
    assert "PixelData" not in one.header


def test_a_whole_slide_gets_a_sentence_about_its_size(tmp_path):
    path = slide(tmp_path / "slide.png", 98304, 73728)
    words = (
        r"slide\.png is of 98,304 x 73,728 pixels \(a whole slide\?\) in three colours, "
        r"21,743,271,936 numbers in all, and at most 536,870,912 are read; crop or reduce it or, "
        rf"where there is memory for it, set {LIMIT_VARIABLE}=21743271936$"
    )
    for read in (read_image, read_lesion):
        with pytest.raises(ImageReadError, match=words):
            read(path)


def test_what_clinics_have_is_admitted(tmp_path):
    check_voxels("ct", 512, 512, 2000)
    check_pixels("mammogram", 10_000, 10_000)
    path = slide(tmp_path / "film.png", 12_000, 9_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow's, of an attack, is none of ours
        with pytest.raises(ImageReadError, match="cut off or damaged"):
            read_image(path)


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "tif"])
def test_one_limit_holds_for_every_kind_of_picture(tmp_path, most, ending):
    path = tmp_path / f"one.{ending}"
    Image.fromarray(np.full((30, 40), 255, np.uint8)).save(path)
    most(30 * 40 * 3 - 1)
    words = rf"one\.{ending} is of 40 x 30 pixels .*at most 3,599 are"
    for read in (read_image, read_lesion):
        with pytest.raises(ImageReadError, match=words):
            read(path)
    most(30 * 40 * 3)
    assert read_image(path).shape == (3, 30, 40)
    assert read_lesion(path).all()


def test_it_holds_for_dicom_before_pixels_are_decoded(tmp_path, most, monkeypatch):
    paths = write_series(tmp_path / "ct", numbers(10, 12, 5), straight())
    most(12 * 10 * 5)
    assert read_volume(tmp_path / "ct", WINDOW).voxels.shape == (5, 12, 10)
    monkeypatch.setattr(dicom_pixels, "_stored", None)  # is not come to
    most(12 * 10 * 5 - 1)
    with pytest.raises(ImageReadError, match=r"ct is of 5 x 12 x 10 voxels, 600 numbers in all"):
        read_volume(tmp_path / "ct", WINDOW)
    most(12 * 10 * 3 - 1)
    with pytest.raises(ImageReadError, match=r"\.dcm is of 10 x 12 pixels"):
        read_image(paths[0], WINDOW)
    assert slices_of(paths[0])[0].header.Rows == 12, "a header takes no memory"


def test_it_holds_for_nifti_and_stacks_and_what_is_resampled(tmp_path, most):
    path = write_nifti(tmp_path / "scan.nii", numbers(4, 5, 6), straight((1.0, 1.0, 2.0)))
    stack = tmp_path / "stack"
    stack.mkdir()
    for number in range(4):
        Image.fromarray(np.full((4, 5), number, np.uint8)).save(stack / f"{number}.png")
    most(4 * 5 * 6 - 1)
    for read in (read_labels, lambda one: read_volume(one, WINDOW)):
        with pytest.raises(ImageReadError, match=r"scan\.nii is of 4 x 5 x 6 voxels, 120 numbers"):
            read(path)
    most(4 * 5 * 6)
    read_volume(path, WINDOW)
    with pytest.raises(ImageReadError, match=r"has 10 x 8 x 24 voxels at a spacing of \(0\.5, "):
        cut(path, WINDOW, Slicing(spacing=(0.5, 0.5, 0.5)))
    assert cut(path, WINDOW, Slicing(spacing=(1.0, 1.0, 2.0))).images.shape == (6, 5, 4)
    assert read_volume(stack).voxels.shape == (4, 5, 4)
    most(4 * 5 * 4 - 1)
    with pytest.raises(ImageReadError, match=r"stack is of 4 x 4 x 5 voxels, 80 numbers in all"):
        read_volume(stack)


def test_check_lists_what_is_too_large_with_the_remedy(tmp_path, most):
    for name in ("normal", "abnormal"):
        (tmp_path / name).mkdir()
    for number in range(8):
        side = 40 if number == 5 else 20
        pixels = np.random.default_rng(number).integers(0, 255, (side, side), np.uint8)
        name = ("normal", "abnormal")[number % 2]
        Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    most(20 * 20 * 3)
    problems = check_data(MedicalFolder(root=tmp_path, k_shot=1)).problems
    [large] = [one for one in problems if one.kind == "unreadable image"]
    assert large.file.endswith("abnormal/5.png")
    assert large.remedy.startswith("crop or reduce it or, where there is memory for it, set ")


@pytest.mark.parametrize("given", ["", "0", "-3", "1e9", "many"])
def test_a_limit_that_is_none_is_refused(most, given):
    most(given)
    with pytest.raises(ConfigError, match=rf"{LIMIT_VARIABLE} is '{given}', and must be a whole"):
        check_voxels("scan", 1)


def test_the_default_is_what_documents_say():
    assert MOST_VOXELS == 536_870_912
