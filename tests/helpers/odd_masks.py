"""Masks as people draw and store them, each with its lesion and what has to be said of it."""

from functools import partial

import cv2
import nibabel as nib
import numpy as np
import SimpleITK
import tifffile
from dicom_series import straight
from odd import READS_FAXES, ending
from PIL import Image as Pillow
from volume_formats import write_meta_image, write_mgh, write_nrrd, write_pair

SIZE = (40, 48)
ROWS, COLUMNS = np.mgrid[: SIZE[0], : SIZE[1]]
LESION = ((ROWS - 18) / 9) ** 2 + ((COLUMNS - 25) / 12) ** 2 <= 1
GREY = np.where(LESION, 255, 0).astype(np.uint8)


# --- pictures


def by_pillow(suffix, pixels, base, mode=None, **options):
    path = ending(base, suffix)
    picture = Pillow.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path, LESION


def by_tifffile(pixels, base, **options):
    path = ending(base, ".tif")
    tifffile.imwrite(path, pixels, **{"photometric": "minisblack", **options})
    return path, LESION


def by_opencv(suffix, pixels, base):
    path = ending(base, suffix)
    assert cv2.imwrite(str(path), pixels)
    return path, LESION


def of_palette(colours, base):
    path = ending(base, ".png")
    picture = Pillow.fromarray(LESION.astype(np.uint8), mode="P")
    picture.putpalette(colours)
    picture.save(path)
    return path, LESION


def blurred(base):
    soft = cv2.GaussianBlur(GREY, (0, 0), 1.5)
    path = ending(base, ".png")
    Pillow.fromarray(soft).save(path)
    return path, soft > soft.max() / 2


def two_labels(suffix, base):
    labels = LESION * 1
    labels[0] = 2
    path, _ = by_pillow(suffix, labels.astype(np.uint8), base)
    return path, None


def two_colours(base):
    pixels = np.dstack([GREY, GREY * 0, GREY * 0])
    pixels[0] = 0, 200, 0
    return by_pillow(".png", pixels, base)[0], None


def of_fractions(base):
    return by_tifffile(LESION * np.float32(0.5), base)[0], None


RED = np.dstack([GREY, GREY // 5, GREY // 5])
CUT_OUT = np.dstack([np.full((*SIZE, 3), 255, np.uint8), GREY])
MASKS = {
    **{f"drawing {suffix[1:]}": partial(by_pillow, suffix, GREY)
       for suffix in (".png", ".tif", ".bmp", ".gif")},
    **{f"drawing of {number}": partial(by_pillow, ".png", GREY // 255 * np.uint8(number))
       for number in (1, 7, 128)},
    **{f"drawing {mode}": partial(by_pillow, ".png", GREY, mode=mode)
       for mode in ("1", "P", "RGB", "LA", "RGBA")},
    "drawing webp": partial(by_pillow, ".webp", np.dstack([GREY] * 3), lossless=True),
    "drawing in red": partial(by_pillow, ".png", RED),
    "drawing cut out": partial(by_pillow, ".png", CUT_OUT),
    "drawing 16": partial(by_pillow, ".png", GREY.astype(np.uint16) * 257),
    **({"drawing fax": partial(by_pillow, ".tif", LESION, compression="group4")}
       if READS_FAXES else {}),
    **{f"drawing tiff {kind}": partial(by_tifffile, LESION.astype(kind))
       for kind in ("i1", "u2", "i2", "i4", "f4", "f8", "?")},
    "drawing tiff inverted": partial(by_tifffile, 255 - GREY, photometric="miniswhite"),
    "drawing tiff of tiles": partial(by_tifffile, GREY, tile=(16, 16), compression="zlib"),
    "drawing of opencv": partial(by_opencv, ".png", GREY),
    "drawing of opencv in colour": partial(by_opencv, ".bmp", np.dstack([GREY] * 3)),
    "drawing of a palette": partial(of_palette, [0, 0, 0, 200, 30, 30]),
    "drawing soft": blurred,
    "drawing of two labels": partial(two_labels, ".png"),
    "drawing of two colours": two_colours,
    "drawing of fractions": of_fractions,
    "drawing of a white ground": partial(of_palette, [255, 255, 255, 0, 0, 0]),
}  # fmt: skip
REFUSED_MASKS = {
    "drawing of two labels": r"holds 1 and 2 beside 0, .*'lesion_labels'",
    "drawing of two colours": "several colours.*; store it as grey",
    "drawing of fractions": "numbers that are not whole; threshold it first",
    "drawing of a white ground": r"shows its number 0 as red.*'lesion_labels'",
}
"""What can mean two things, and so is asked about."""

# --- volumes

VOXELS = np.zeros((12, 11, 3), np.uint8)
VOXELS[3:7, 4:9, 1] = 1


def outlined(write, suffix, base, voxels=VOXELS):
    """Labels of any format, on the grid of ``straight``."""
    return write(ending(base, suffix), voxels, straight()), VOXELS > 0


def nifti(path, voxels, affine):
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def by_itk(path, voxels, affine):
    """On a grid of ITK's, which counts towards left and posterior."""
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(voxels.transpose()))
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    SimpleITK.WriteImage(image, str(path), True)
    return path


VOLUME_MASKS = {
    **{f"outline nii {kind}": partial(outlined, nifti, ".nii", voxels=VOXELS.astype(kind))
       for kind in ("u1", "i2", "i4", "f4", "f8")},
    "outline nii gz": partial(outlined, nifti, ".nii.gz"),
    "outline of 255": partial(outlined, nifti, ".nii.gz", voxels=VOXELS * 255),
    "outline pair": partial(outlined, write_pair, ".hdr"),
    "outline nrrd": partial(outlined, write_nrrd, ".nrrd"),
    "outline mha": partial(outlined, write_meta_image, ".mha"),
    "outline mhd": partial(outlined, write_meta_image, ".mhd"),
    "outline mgz": partial(outlined, write_mgh, ".mgz"),
    "outline of ITK": partial(outlined, by_itk, ".nrrd"),
}  # fmt: skip
