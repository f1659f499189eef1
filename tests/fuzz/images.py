"""Pictures, masks, NIfTI, DICOM, and folders of these."""

import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import nibabel as nib
import numpy as np
import pydicom
from dicom_series import numbers, straight, write_nifti, write_picture, write_series
from fuzz import formats
from fuzz.damage import BYTES
from fuzz.target import Target, legal, writing
from pictures import noise, save
from PIL import Image as Pillow
from volume_formats import write_meta_image, write_mgh, write_nrrd, write_pair

from anomalib_medclip.data.image_checks import look_at_image, look_at_mask, look_at_pixels
from anomalib_medclip.data.slicing import Slicing, cut
from anomalib_medclip.readers.dicom_frames import slices_of
from anomalib_medclip.readers.file_kind import kind_of
from anomalib_medclip.readers.lesion import MaskLabels
from anomalib_medclip.readers.picture import (
    lesion_numbers,
    read_image,
    read_mask,
    read_outline,
)
from anomalib_medclip.readers.resize import MethodResize
from anomalib_medclip.readers.volume import read_labels, read_volume
from anomalib_medclip.readers.volume_file import parts_of, sha256_of_volume

WINDOW = (-1000.0, 2000.0)
POLICIES = (None, (0.0, 65535.0), "dtype", "unit", "voi", "brain", {"percentiles": (1.0, 99.0)})


def one_of(file, choices):
    """A choice that depends on the file alone."""
    return choices[zlib.crc32(file.read_bytes()) % len(choices)]


def deep(*shape):
    return noise(*shape, top=65535, dtype=np.uint16)


# --- pictures


def _read_picture(file):
    policy = one_of(file, POLICIES)
    for problem in look_at_image(str(file), policy).problems:  # as check does
        assert problem.file
    image = read_image(file, policy)
    assert image.shape[0] == 3
    legal(image.numpy())
    look_at_pixels(str(file), image)
    if max(image.shape) < 2000:
        legal(MethodResize(32)(image))


def _read_mask(file):
    for problem in look_at_mask(str(file), (24, 20), abnormal=True)[0]:  # as check does
        assert problem.file
    marks, greys, _ = read_outline(file)
    assert marks.ndim == 2
    assert greys >= 0
    assert lesion_numbers(marks == 1).shape == marks.shape
    mask = read_mask(file, (24, 20))
    legal(mask.numpy())
    legal(MethodResize(8, masks="area")(mask))


def _spots(dtype=np.uint8):
    lesion = np.zeros((24, 20), dtype=dtype)
    lesion[4:9, 6:12] = 255
    return lesion


def _deep_colours(path):
    assert cv2.imwrite(str(path), deep(24, 20, 3))


def _saved(name, pixels, mode=None, **options):
    return writing(name, save, pixels, mode, **options)


GREY, COLOUR = noise(24, 20), noise(24, 20, 3)
PNG = (
    _saved("p.png", GREY), _saved("p.png", COLOUR), _saved("p.png", deep(24, 20)),
    _saved("p.png", GREY, "P"), _saved("p.png", COLOUR, "RGBA"), _saved("p.png", GREY, "1"),
    writing("p.png", _deep_colours),
)  # fmt: skip
JPEG = (
    _saved("p.jpg", GREY), _saved("p.jpg", COLOUR, quality=95),
    _saved("p.jpeg", noise(40, 50, 3), progressive=True), _saved("p.jpg", noise(24, 20, 4), "CMYK"),
)  # fmt: skip
BMP = (_saved("p.bmp", GREY), _saved("p.bmp", COLOUR), _saved("p.bmp", GREY, "1"))
TIFF = (
    _saved("p.tif", GREY), _saved("p.tif", COLOUR), _saved("p.tif", deep(24, 20)),
    _saved("p.tif", GREY.astype(np.float32)), _saved("p.tif", GREY.astype(np.int32)),
    *(_saved("p.tiff", COLOUR, compression=name) for name in ("tiff_lzw", "jpeg", "packbits")),
    _saved("p.tif", deep(24, 20), compression="tiff_adobe_deflate"),
)  # fmt: skip
MASKS = (
    _saved("m.png", _spots()), _saved("m.png", _spots() // 255), _saved("m.png", _spots(), "1"),
    _saved("m.tif", _spots(np.int32)), _saved("m.tif", _spots(np.float32)),
    _saved("m.bmp", _spots()), _saved("m.jpg", _spots()),
    _saved("m.png", _spots().astype(np.uint16)),
)  # fmt: skip
OTHERS = tuple(
    writing(
        f"p{under}", lambda path, kind: Pillow.fromarray(noise(24, 20, 3)).save(path, kind), kind
    )
    for under, kind in zip(
        (".png",) * 7, ("GIF", "WEBP", "PPM", "TGA", "ICO", "JPEG2000", "PCX"), strict=True
    )
)
"""Formats that Pillow knows by their content, under the name of another."""

# --- NIfTI


def _placed(volume):
    assert volume.voxels.ndim == 3
    assert volume.affine.shape == (4, 4)
    assert np.isfinite(volume.affine).all()


def _read_nifti(file):
    volume = read_volume(file, one_of(file, (WINDOW, "dtype", {"percentiles": (1.0, 99.0)}, None)))
    _placed(volume)
    legal(volume.voxels)


def _read_labels(file):
    _placed(read_labels(file))


def _scan(shape=(12, 10, 8)):
    return numbers(*shape), straight()


def _outlines(*_):
    return np.random.default_rng(3).integers(0, 3, (12, 10, 8)).astype(np.uint8), straight()


def _in_two(damaged):
    """A volume in two files, of which one is damaged."""

    def whole(folder):
        write = write_meta_image if damaged == "s.mhd" else write_pair
        write(folder / damaged, *_scan())
        return folder / damaged

    return whole


def _read_other(file):
    volume = read_volume(file, one_of(file, (WINDOW, {"percentiles": (1.0, 99.0)})))
    _placed(volume)
    legal(volume.voxels)


def _read_two(file):
    _read_other(file)
    assert parts_of(file, kind_of(file))
    assert sha256_of_volume(file)


_FLOATS = (numbers(6, 5, 4).astype(np.float64), straight())
NIFTI = (
    writing("s.nii", write_nifti, *_scan()), writing("s.nii", write_nifti, *_FLOATS),
    writing("s.nii", write_nifti, *_scan(), kind=nib.Nifti2Image),
)  # fmt: skip
PACKED = (
    writing("s.nii.gz", write_nifti, *_scan()),
    writing("s.nii.gz", write_nifti, *_scan(), kind=nib.Nifti2Image),
)
LABELS = (
    writing("s.nii.gz", write_nifti, *_outlines()),
    writing("s.nii", write_nifti, *_outlines()),
)
OTHER_VOLUMES = {
    "nrrd": (
        writing("s.nrrd", write_nrrd, *_scan(), encoding="raw"),
        writing("s.nrrd", write_nrrd, *_scan(), encoding="gzip", space="RAS"),
        writing("s.nrrd", write_nrrd, *_scan(), encoding="ascii"),
    ),
    "meta image": (
        writing("s.mha", write_meta_image, *_scan()),
        writing("s.mha", write_meta_image, *_scan(), packed=True),
    ),
    "mgh": (writing("s.mgh", write_mgh, *_scan()), writing("s.mgz", write_mgh, *_scan())),
}
IN_TWO = tuple(map(_in_two, ("s.hdr", "s.img", "s.mhd")))
OF_NIFTI = (formats.nifti_field,) * 6 + BYTES
OF_PACKED = (*(formats.in_gzip(one) for one in OF_NIFTI), formats.gzip_bomb, *BYTES)


def _either(file_damage, packed_damage):
    """Damage for files of which some are packed."""

    def damage(content, random, others):
        ways = packed_damage if content[:2] == b"\x1f\x8b" else file_damage
        return ways[int(random.integers(len(ways)))](content, random, others)

    return (damage,)


# --- volumes, cut


def _patient(damaged):
    def whole(folder):
        write_nifti(folder / "image.nii.gz", *_scan())
        write_nifti(folder / "mask.nii.gz", *_outlines())
        write_nifti(folder / "organ.nii.gz", *_outlines())
        return folder / f"{damaged}.nii.gz"

    return whole


def _read_cut(file):
    home = file.parent
    slicing = one_of(file, (
        Slicing(), Slicing("coronal"), Slicing(spacing=(1.0, 2.0, 3.0)),
        Slicing("sagittal", organ_labels=(1,), organ_margin=1),
    ))  # fmt: skip
    mask, organ = home / "mask.nii.gz", home / "organ.nii.gz"
    labels = one_of(file, (MaskLabels("all"), MaskLabels((1,)), MaskLabels("all", (2,))))
    sliced = cut(home / "image.nii.gz", WINDOW, slicing, mask, labels, organ)
    legal(sliced.images.numpy())
    assert sliced.masks.shape == sliced.images.shape
    restored = sliced.restore(sliced.images)
    assert np.isfinite(restored).all()


# --- DICOM


def _deflated(path, **tags):
    write_picture(path, deep(24, 20), **tags)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)


def _compressed(path, syntax, **tags):
    write_picture(path, deep(24, 20), **tags)
    dataset = pydicom.dcmread(path)
    dataset.compress(getattr(pydicom.uid, syntax), generate_instance_uid=False)
    dataset.save_as(path)


def _palette(path):
    table = np.arange(256, dtype=np.uint16) * 257
    tags = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name in ("Red", "Green", "Blue"):
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        tags[f"{name}PaletteColorLookupTableData"] = table.tobytes()
    write_picture(path, noise(24, 20), **tags)


_WINDOW = {"WindowCenter": 40, "WindowWidth": 400}
_RESCALED = {"RescaleSlope": 2.0, "RescaleIntercept": -1000.0, "Modality": "CT", **_WINDOW}
DICOM = tuple(
    writing("s.dcm", write_picture, pixels, **tags)
    for pixels, tags in (
        (deep(24, 20), {}), (numbers(24, 20), _RESCALED), (noise(24, 20, 3), {}),
        (noise(24, 20), {"PhotometricInterpretation": "MONOCHROME1"}),
        (deep(24, 20), {"WindowCenter": [40, 80], "WindowWidth": [400, 80]}),
    )
)  # fmt: skip
COMPRESSED = tuple(
    writing("s.dcm", _compressed, name, **window)
    for name in ("RLELossless", "JPEGLSLossless")
    for window in ({}, _WINDOW)
)
DEFLATED = (
    writing("s.dcm", _deflated),
    writing("s.dcm", _deflated, WindowCenter=40, WindowWidth=400),
)
OF_DICOM = (formats.dicom_element,) * 8 + BYTES
OF_DEFLATED = (*map(formats.in_deflated, OF_DICOM), *BYTES)


def load_lists():
    """Have highdicom read what it reads once, its lists of DICOM's attributes."""
    with TemporaryDirectory() as folder:
        _read_dicom(DICOM[0](Path(folder)))


def _read_dicom(file):
    slices_of(file)
    _read_picture(file)


def _series(folder):
    return write_series(folder, numbers(12, 10, 4), straight(), **_RESCALED)[1]


def _read_folder(file):
    volume = read_volume(
        file.parent, one_of(file, (WINDOW, "voi", "dtype")), one_of(file, (True, False))
    )
    _placed(volume)
    legal(volume.voxels)


def _stack(folder):
    return [save(folder / f"s{n}.png", noise(24, 20, seed=n)) for n in range(3)][1]


def _mask_stack(folder):
    return [save(folder / f"s{n}.png", _spots()) for n in range(3)][1]


def _read_mask_folder(file):
    _placed(read_labels(file.parent))


TARGETS = (
    Target("png", PNG, (formats.png_chunk,) * 8 + BYTES, _read_picture),
    Target("jpeg", JPEG, (formats.jpeg_segment,) * 4 + BYTES, _read_picture),
    Target("bmp", BMP, (formats.bmp_field,) * 4 + BYTES, _read_picture),
    Target("tiff", TIFF, (formats.tiff_tag,) * 8 + BYTES, _read_picture),
    Target("picture of another format", OTHERS, BYTES, _read_picture),
    Target("mask", MASKS, (formats.tiff_tag, formats.png_chunk, *BYTES), _read_mask),
    Target("nifti", NIFTI, OF_NIFTI, _read_nifti),
    Target("nifti.gz", PACKED, OF_PACKED, _read_nifti),
    *(Target(name, made, BYTES, _read_other) for name, made in OTHER_VOLUMES.items()),
    Target("volume in two files", IN_TWO, BYTES, _read_two),
    Target("labels", LABELS, _either(OF_NIFTI, OF_PACKED), _read_labels),
    Target(
        "volume, mask and organ",
        tuple(map(_patient, ("image", "mask", "organ"))),
        OF_PACKED,
        _read_cut,
    ),
    Target("dicom", (*DICOM, writing("s.dcm", _palette)), OF_DICOM, _read_dicom),
    Target("dicom, compressed", COMPRESSED, OF_DICOM, _read_dicom),
    Target("dicom, deflated", DEFLATED, OF_DEFLATED, _read_dicom),
    Target("dicom series", (_series,), OF_DICOM, _read_folder),
    Target("stack of pictures", (_stack,), (formats.png_chunk, *BYTES), _read_folder),
    Target("stack of masks", (_mask_stack,), (formats.png_chunk, *BYTES), _read_mask_folder),
)
