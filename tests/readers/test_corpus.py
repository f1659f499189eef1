"""Damaged files: each is refused by a typed error that names it, or read as if it were whole.

Where a format has no checksum, a flipped bit of a number is another number, and a flipped bit of a
descriptive field another description; no reader can know. These, and only these, may change what
is read, and the tests bound how many do.
"""

import faulthandler
import gzip
import shutil
import sys
from collections import Counter
from dataclasses import dataclass
from functools import partial

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_series import change, numbers, straight, write_nifti, write_picture, write_series
from pictures import noise, save
from pydicom.uid import JPEGLSLossless, RLELossless
from volume_formats import write_meta_image, write_mgh, write_nrrd

from anomalib_medclip.errors import MedclipError
from anomalib_medclip.readers.picture import read_image, read_mask
from anomalib_medclip.readers.volume import read_labels, read_volume

WINDOW = (-1000.0, 2000.0)
SHAPE = (12, 10, 8)
HANGS = 300  # seconds after which the process is ended, with a traceback


def volume(path):
    return read_volume(path, WINDOW)[:2]


def labels(path):
    found = read_labels(path)
    return found.voxels / 2, found.affine


def picture(path):
    return (read_image(path, (0.0, 65535.0)).numpy(),)


def mask(path):
    return (read_mask(path, (24, 20)).numpy(),)


def spots(dtype):
    lesion = np.zeros((24, 20), dtype=dtype)
    lesion[4:9, 6:12] = 255
    return lesion


def outcome(read, path, whole, named):
    """What comes of a damaged file: refused, same or changed."""
    faulthandler.dump_traceback_later(HANGS, exit=True, file=sys.__stderr__)
    try:
        found = read(path)
    except MedclipError as error:
        if named not in str(error):
            pytest.fail(f"the error names no {named}: {error}")
        return "refused"
    finally:
        faulthandler.cancel_dump_traceback_later()
    assert [one.shape for one in found] == [one.shape for one in whole]
    assert all(np.isfinite(one).all() for one in found)
    assert found[0].min() >= 0
    assert found[0].max() <= 1
    return "same" if all(map(np.array_equal, found, whole)) else "changed"


# --- whole files of every format


def nifti(folder):
    return write_nifti(folder / "scan.nii", numbers(*SHAPE), straight())


def packed_nifti(folder):
    return write_nifti(folder / "scan.nii.gz", numbers(*SHAPE), straight())


def label_nifti(folder):
    values = np.random.default_rng(3).integers(0, 3, SHAPE).astype(np.uint8)
    return write_nifti(folder / "seg.nii.gz", values, straight())


def nrrd(encoding, folder):
    return write_nrrd(folder / "scan.nrrd", numbers(*SHAPE), straight(), encoding=encoding)


def meta_image(packed, folder):
    return write_meta_image(folder / "scan.mha", numbers(*SHAPE), straight(), packed=packed)


def packed_mgh(folder):
    return write_mgh(folder / "scan.mgz", numbers(*SHAPE), straight())


def dicom(folder):
    return write_picture(folder / "scan.dcm", noise(24, 20, top=65535, dtype=np.uint16))


def compressed(syntax, folder):
    path = dicom(folder)
    dataset = pydicom.dcmread(path)
    dataset.compress(syntax, generate_instance_uid=False)
    dataset.save_as(path)
    return path


def grey8_png(folder):
    return save(folder / "scan.png", noise(24, 20))


def grey16_png(folder):
    return save(folder / "scan.png", noise(24, 20, top=65535, dtype=np.uint16))


def colour16_png(folder):
    import cv2

    path = folder / "scan.png"
    assert cv2.imwrite(str(path), noise(24, 20, 3, top=65535, dtype=np.uint16))
    return path


def grey16_tiff(folder):
    return save(folder / "scan.tif", noise(24, 20, top=65535, dtype=np.uint16))


def float_tiff(folder):
    return save(folder / "scan.tif", noise(24, 20).astype(np.float32))


def mask_png(folder):
    return save(folder / "mask.png", spots(np.uint8))


@dataclass(frozen=True)
class Kind:
    """A kind of file, its reader, and where its unchecked bytes begin, counted from its end."""

    write: object
    read: object
    data: int | None = None  # bytes of numbers without checksum, at the end of the file
    header: float = 0  # the part of flips in its header that may change what is read
    tail: int = 0  # bytes at its end that say nothing: the length of a delimiter


KINDS = {
    "nifti": Kind(nifti, volume, data=2 * 12 * 10 * 8, header=0.25),
    "nifti.gz": Kind(packed_nifti, volume),
    "labels": Kind(label_nifti, labels),
    "nrrd": Kind(partial(nrrd, "raw"), volume, data=2 * 12 * 10 * 8, header=0.3),
    "nrrd, packed": Kind(partial(nrrd, "gzip"), volume, header=0.1),
    "meta image": Kind(partial(meta_image, False), volume, data=2 * 12 * 10 * 8, header=0.3),
    "meta image, packed": Kind(partial(meta_image, True), volume, header=0.1),
    "mgz": Kind(packed_mgh, volume),
    "dicom": Kind(dicom, picture, data=2 * 24 * 20, header=0.1),
    # Compressed without a checksum: a flipped bit is another picture of the same size.
    "dicom RLE": Kind(partial(compressed, RLELossless), picture, data=960, header=0.15, tail=4),
    "dicom JPEG-LS": Kind(
        partial(compressed, JPEGLSLossless), picture, data=960, header=0.15, tail=4
    ),
    "png of 8 bits": Kind(grey8_png, picture),
    "png of 16 bits": Kind(grey16_png, picture),
    "png of 16-bit colour": Kind(colour16_png, picture),
    "tiff of 16 bits": Kind(grey16_tiff, picture, data=2 * 24 * 20, header=0.1),
    "tiff of floats": Kind(float_tiff, picture, data=4 * 24 * 20, header=0.2),
    "mask": Kind(mask_png, mask),
}
CUTS = 20
FLIPS = 30


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def outcomes(kind, path, damaged):
    """Count what comes of each damaged content of the file."""
    whole = kind.read(path)
    count = Counter()
    for content in damaged:
        path.write_bytes(content)
        count[outcome(kind.read, path, whole, path.name)] += 1
    return count


def flipped(raw, places, seed):
    bits = np.random.default_rng(seed).integers(0, 8, len(places))
    for place, bit in zip(places, bits, strict=True):
        content = bytearray(raw)
        content[place] ^= 1 << int(bit)
        yield bytes(content)


def header_of(kind, raw):
    """Where the header is: before the numbers, or all of the file; Pillow's TIFF begins with it."""
    return len(raw) - (kind.data or 0)


@pytest.mark.filterwarnings("ignore")
def test_a_file_that_is_cut_off_is_refused(kind, tmp_path):
    path = kind.write(tmp_path)
    raw = path.read_bytes()
    ends = [0, *np.linspace(1, len(raw) - 1 - kind.tail, CUTS - 1).astype(int)]
    assert outcomes(kind, path, [raw[:end] for end in ends]) == {"refused": CUTS}


@pytest.mark.filterwarnings("ignore")
def test_a_flipped_bit_of_a_header_is_seldom_overlooked(kind, tmp_path):
    path = kind.write(tmp_path)
    raw = path.read_bytes()
    places = np.random.default_rng(5).integers(0, header_of(kind, raw), FLIPS)
    found = outcomes(kind, path, flipped(raw, places, seed=6))
    assert found.total() == FLIPS
    assert found["changed"] <= kind.header * FLIPS


@pytest.mark.filterwarnings("ignore")
def test_a_flipped_bit_of_a_number_is_a_number_or_an_error(kind, tmp_path):
    path = kind.write(tmp_path)
    raw = path.read_bytes()
    first = len(raw) - kind.data if kind.data else len(raw) // 3
    places = np.random.default_rng(7).integers(first, len(raw), FLIPS)
    found = outcomes(kind, path, flipped(raw, places, seed=8))
    assert found.total() == FLIPS
    if not kind.data:  # what has a checksum is never another picture
        assert found["changed"] == 0


# --- files that are not what they say


def as_text(path):
    path.write_text("a report about a patient, by someone\n" * 40)


def as_folder(path):
    path.unlink()
    path.mkdir()


def zeroed(path):
    path.write_bytes(bytes(path.stat().st_size))


def beheaded(path):
    path.write_bytes(b"\0\0\0\0" + path.read_bytes()[4:])


def emptied(path):
    path.write_bytes(b"")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("damage", [as_text, as_folder, zeroed, emptied])
def test_what_is_something_else_is_refused(kind, tmp_path, damage):
    path = kind.write(tmp_path)
    whole = kind.read(path)
    damage(path)
    assert outcome(kind.read, path, whole, path.name) == "refused"


@pytest.mark.filterwarnings("ignore")
def test_a_wrong_mark_at_the_beginning_is_refused(kind, tmp_path):
    path = kind.write(tmp_path)
    whole = kind.read(path)
    beheaded(path)
    # The first bytes of DICOM mean nothing, those of MetaImage are one of many lines of text.
    expected = "same" if path.suffix in (".dcm", ".mha") else "refused"
    assert outcome(kind.read, path, whole, path.name) == expected


ENDINGS = (".nii", ".nii.gz", ".dcm", ".png", ".tif", ".jpg", ".bmp")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ending", ENDINGS)
def test_another_ending_is_refused_or_does_no_harm(kind, tmp_path, ending):
    path = kind.write(tmp_path)
    whole = kind.read(path)
    other = path.rename(path.with_name(f"other{ending}"))
    found = outcome(kind.read, other, whole, other.name)
    assert found in {"refused", "same"}
    if path.name.endswith(ending):
        assert found == "same"


def rewrite(path, voxels, header=lambda h: None):
    image = nib.Nifti1Image(voxels, straight())
    nib.save(image, path)
    raw = bytearray(
        gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    )
    changed = nib.Nifti1Header(bytes(raw[:348]), check=False)
    header(changed)
    raw[:348] = changed.binaryblock
    path.write_bytes(gzip.compress(bytes(raw)) if path.suffix == ".gz" else bytes(raw))


def with_number(number):
    voxels = numbers(*SHAPE).astype(np.float32)
    voxels[3, 4, 5] = number
    return voxels


def put(field, index, value):
    return lambda header: header[field].put(index, value)


def set_(field, value):
    return lambda header: header.__setitem__(field, value)


NIFTIS = {
    "NaN": (with_number(np.nan), set_("descrip", b"")),
    "infinity": (with_number(np.inf), set_("descrip", b"")),
    "minus infinity": (with_number(-np.inf), set_("descrip", b"")),
    "a dimension of zero": (numbers(*SHAPE), put("dim", 2, 0)),
    "a negative dimension": (numbers(*SHAPE), put("dim", 1, -12)),
    "huge dimensions": (numbers(*SHAPE), put("dim", [1, 2, 3], 32767)),
    "large dimensions": (numbers(*SHAPE), put("dim", [1, 2], 1000)),
    "smaller dimensions": (numbers(*SHAPE), put("dim", 3, 7)),
    "eight dimensions": (numbers(*SHAPE), put("dim", 0, 8)),
    "negative count of dimensions": (numbers(*SHAPE), put("dim", 0, -1)),
    "another dtype": (numbers(*SHAPE), set_("datatype", 16)),
    "no dtype": (numbers(*SHAPE), set_("datatype", 0)),
    "bits alone": (numbers(*SHAPE), set_("bitpix", 32)),
    "a zero affine": (numbers(*SHAPE), put("srow_x", [0, 1, 2, 3], 0)),
    "an affine of NaN": (numbers(*SHAPE), put("srow_z", 3, np.nan)),
    "spacing of zero": (numbers(*SHAPE), put("pixdim", 3, 0)),
    "spacing of NaN": (numbers(*SHAPE), put("pixdim", 1, np.nan)),
    "an offset too far": (numbers(*SHAPE), set_("vox_offset", 400)),
    "an offset beyond all": (numbers(*SHAPE), set_("vox_offset", 1e30)),
    "an offset of NaN": (numbers(*SHAPE), set_("vox_offset", np.nan)),
    "a negative offset": (numbers(*SHAPE), set_("vox_offset", -352)),
    "an infinite slope": (numbers(*SHAPE), set_("scl_slope", np.inf)),
    "an intercept of NaN": (
        numbers(*SHAPE),
        lambda h: (set_("scl_slope", 1)(h), set_("scl_inter", np.nan)(h)),
    ),
    "a slope beyond all": (
        numbers(*SHAPE).astype(np.float64) * 1e200,
        lambda h: (set_("scl_slope", 1e38)(h), set_("scl_inter", 0)(h)),
    ),
    "another magic": (numbers(*SHAPE), set_("magic", b"nii")),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("name", NIFTIS)
def test_a_nifti_that_cannot_be_true_is_refused(tmp_path, name, ending):
    path = tmp_path / f"scan{ending}"
    rewrite(path, *NIFTIS[name])
    if name == "a slope beyond all":  # 1e238 is a number: it only leaves the window
        assert set(np.unique(volume(path)[0])) == {0, 1}
        return
    assert outcome(volume, path, None, path.name) == "refused"


# --- series


def one_out(k, folder, paths):
    del folder
    paths[k].unlink()


def doubled(k, folder, paths):
    change(shutil.copy(paths[k], folder / "again.dcm"), SOPInstanceUID="1.2.3")


def cut_off(k, folder, paths):
    del folder
    paths[k].write_bytes(paths[k].read_bytes()[:-100])


def retagged(tags, k, folder, paths):
    del folder
    change(paths[k], **tags)


def replaced(damage, k, folder, paths):
    del folder
    damage(paths[k])


def moved(k, folder, paths):
    del folder
    x, y, z = pydicom.dcmread(paths[k]).ImagePositionPatient
    change(paths[k], ImagePositionPatient=[x, y, z + 1.2])


FOREIGN = {
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4",
    "SeriesInstanceUID": "1.2.3.4",
    "Rows": 9,
    "Columns": 13,
    "BitsStored": 8,
    "BitsAllocated": 8,
    "PixelSpacing": [9, 9],
    "ImageOrientationPatient": [0, 1, 0, 1, 0, 0],
    "ImagePositionPatient": None,
    "NumberOfFrames": 4,
    "PixelData": None,
    "PhotometricInterpretation": "MONOCHROME1",
    "SamplesPerPixel": 3,
}
SERIES = {
    **{f"{f.__name__} {k}": partial(f, k) for f in (one_out, cut_off, moved) for k in range(1, 5)},
    **{f"doubled {k}": partial(doubled, k) for k in range(6)},
    **{name: partial(retagged, {name: tag}, 2) for name, tag in FOREIGN.items()},
    **{d.__name__: partial(replaced, d, 3) for d in (as_text, zeroed, emptied)},
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SERIES)
def test_a_series_that_is_not_whole_is_refused(tmp_path, name):
    folder = tmp_path / "series"
    paths = write_series(folder, numbers(12, 10, 6), straight())
    whole = volume(folder)
    SERIES[name](folder, paths)
    assert outcome(volume, folder, whole, "series") == "refused"


@pytest.mark.filterwarnings("ignore")
def test_a_flipped_bit_of_a_slices_header_is_seldom_overlooked(tmp_path):
    folder = tmp_path / "series"
    path = write_series(folder, numbers(12, 10, 6), straight())[2]
    whole, raw, found = volume(folder), path.read_bytes(), Counter()
    places = np.random.default_rng(9).integers(0, len(raw) - 2 * 12 * 10, 2 * FLIPS)
    for content in flipped(raw, places, seed=10):
        path.write_bytes(content)
        found[outcome(volume, folder, whole, "series")] += 1
    assert found.total() == 2 * FLIPS
    assert found["changed"] <= 0.05 * 2 * FLIPS


# --- masks


@pytest.mark.parametrize(
    "pixels",
    [spots(np.uint8)[:-1], spots(np.uint8)[:, 1:], spots(np.uint8) * 0, spots(np.float32) / 300],
    ids=["a row less", "a column less", "empty", "fractions"],
)
def test_a_mask_that_is_none_is_refused(tmp_path, pixels):
    path = save(tmp_path / "mask.tif", pixels)
    assert outcome(mask, path, None, "mask.tif") == "refused"


@pytest.mark.parametrize("number", [0.5, np.nan, np.inf, 1e20])
def test_labels_that_are_none_are_refused(tmp_path, number):
    path = write_nifti(tmp_path / "seg.nii.gz", with_number(number), straight())
    assert outcome(labels, path, None, "seg.nii.gz") == "refused"


# --- many files


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_loses_none_of_the_others(tmp_path):
    homes = {name: tmp_path / name.replace(" ", "_") for name in KINDS}
    paths, whole = {}, {}
    for name, kind in KINDS.items():
        homes[name].mkdir()
        paths[name] = kind.write(homes[name])
        whole[name] = kind.read(paths[name])
    broken = set(list(KINDS)[::3])
    for name in broken:
        paths[name].write_bytes(paths[name].read_bytes()[:60])
    found, errors = {}, {}
    for name, kind in KINDS.items():
        try:
            found[name] = kind.read(paths[name])
        except MedclipError as error:
            errors[name] = str(error)
    assert set(errors) == broken
    assert all(str(paths[name]) in words for name, words in errors.items())
    for name in set(KINDS) - broken:
        assert all(map(np.array_equal, found[name], whole[name]))


def test_pillow_set_to_fill_up_damage_is_refused(tmp_path, monkeypatch):
    from PIL import ImageFile

    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    path = grey8_png(tmp_path)
    assert outcome(picture, path, None, path.name) == "refused"


def test_the_corpus_is_large():
    each = CUTS + 2 * FLIPS + 4 + 1 + len(ENDINGS)
    assert len(KINDS) * each + 2 * len(NIFTIS) + len(SERIES) + 2 * FLIPS + 8 > 1000
