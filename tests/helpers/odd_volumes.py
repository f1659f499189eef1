"""Volumes by nibabel, pynrrd, SimpleITK and byte by byte: NIfTI, Analyze, MGH, NRRD, MetaImage."""

import gzip
import struct
from functools import partial

import nibabel as nib
import numpy as np
import SimpleITK
from dicom_series import oblique, straight
from odd import drawn, ending, windowed
from volume_formats import SPACES, write_meta_image, write_mgh, write_nrrd, write_pair

SHAPE = (6, 5, 4)

# --- NIfTI


def nifti(kind, base, *, image=nib.Nifti1Image, affine=None, change=lambda one: None, **how):
    """By nibabel, and ``change`` of the image before it is written."""
    voxels = drawn(kind, *how.get("shape", SHAPE))
    affine = straight() if affine is None else affine
    # nibabel asks whether 64 bits are meant.
    made = image(voxels, affine, dtype=voxels.dtype) if voxels.dtype.itemsize == 8 else image(
        voxels, affine
    )  # fmt: skip
    change(made)
    if how.get("swapped"):
        made = image(voxels, made.affine, made.header.as_byteswapped())
    raw = made.to_bytes()
    path = ending(base, how.get("suffix", ".nii"))
    path.write_bytes(gzip.compress(raw) if how.get("packed") else raw)
    if how.get("refused"):
        return path, None
    return path, windowed(voxels).reshape((*voxels.shape, 1)[:3])


def of_one(shape, base):
    """Four dimensions, and one volume."""
    voxels, path = drawn("i2", *shape), ending(base, ".nii.gz")
    nib.save(nib.Nifti1Image(voxels, straight()), path)
    return path, windowed(voxels).reshape(shape[:3])


def scaled(slope, intercept, base):
    """Stored numbers, and a header that says what they stand for."""
    stored = drawn("u1", *SHAPE)
    made = nib.Nifti1Image(stored, straight())
    raw = bytearray(made.to_bytes())
    struct.pack_into("<ff", raw, 112, slope, intercept)
    path = ending(base, ".nii")
    path.write_bytes(raw)
    slope = slope if slope and np.isfinite(slope) else 1  # which stand for no rescaling
    return path, windowed(stored * np.float64(slope) + np.float64(intercept))


def placed(sform, qform, image):
    image.set_sform(oblique() if sform else None, code=int(bool(sform)))
    image.set_qform(oblique() if qform else None, code=int(bool(qform)))


def extended(image):
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"a word" * 99))


def spaced(image):
    image.header["pixdim"][4:] = 3
    image.header["xyzt_units"] = 10  # millimetres and seconds


def said_in(unit, image):
    image.header["xyzt_units"] = unit


def of_colours(base):
    voxels = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    path = ending(base, ".nii.gz")
    nib.save(nib.Nifti1Image(voxels, straight()), path)
    return path, None


def pair(kind, suffix, base, **how):
    voxels = drawn("i2", *SHAPE)
    return write_pair(ending(base, suffix), voxels, straight(), kind=kind, **how), windowed(voxels)


NIFTIS = {
    **{f"nifti {kind}": partial(nifti, kind)
       for kind in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")},
    **{f"nifti big endian {kind}": partial(nifti, kind, swapped=True) for kind in ("i2", "f4")},
    "nifti packed": partial(nifti, "i2", suffix=".nii.gz", packed=True),
    "nifti-2": partial(nifti, "i2", image=nib.Nifti2Image),
    "nifti-2 packed big endian": partial(
        nifti, "f4", image=nib.Nifti2Image, swapped=True, suffix=".nii.gz", packed=True
    ),
    "nifti oblique": partial(nifti, "i2", affine=oblique()),
    "nifti sform only": partial(nifti, "i2", change=partial(placed, True, False)),
    "nifti qform only": partial(nifti, "i2", change=partial(placed, False, True)),
    "nifti without a place": partial(nifti, "i2", change=partial(placed, False, False)),
    "nifti with an extension": partial(nifti, "i2", change=extended),
    "nifti with a time step": partial(nifti, "i2", change=spaced),
    "nifti without a unit": partial(nifti, "i2", change=partial(said_in, 0)),
    **{f"nifti of shape {shape}": partial(nifti, "i2", shape=shape)
       for shape in ((6, 5), (1, 6, 5), (6, 1, 5), (6, 5, 1))},
    **{f"nifti of shape {shape}": partial(of_one, shape) for shape in ((*SHAPE, 1), (6, 5, 1, 1))},
    "nifti called nii.gz": partial(nifti, "i2", suffix=".nii.gz"),
    "nifti packed, called nii": partial(nifti, "i2", packed=True),
    "nifti called img": partial(nifti, "i2", suffix=".img"),
    "nifti in upper case": partial(nifti, "i2", suffix=".NII"),
    **{f"nifti times {slope} plus {shift}": partial(scaled, slope, shift)
       for slope, shift in ((2, -100), (-3, 700), (0, 0), (np.nan, 0))},
    **{f"pair {kind.__name__} {suffix[1:]}": partial(pair, kind, suffix)
       for kind in (nib.Nifti1Pair, nib.Nifti2Pair) for suffix in (".hdr", ".img")},
    "pair packed": partial(pair, nib.Nifti1Pair, ".img.gz", packed=True),
    "analyze": partial(pair, nib.AnalyzeImage, ".hdr"),
    "analyze of SPM": partial(pair, nib.Spm99AnalyzeImage, ".img"),
    "nifti of three volumes": partial(nifti, "i2", shape=(*SHAPE, 3), refused=True),
    "nifti in metres": partial(nifti, "i2", change=partial(said_in, 1), refused=True),
    "nifti of colours": of_colours,
    "nifti of a line": partial(nifti, "i2", shape=(6, 1, 1), refused=True),
}  # fmt: skip


# --- NRRD, MetaImage, MGH


def by_pynrrd(kind, suffix, base, **how):
    voxels = drawn(kind, *SHAPE)
    return write_nrrd(ending(base, suffix), voxels, oblique(), **how), windowed(voxels)


def meta_image(kind, suffix, base, **how):
    voxels = drawn(kind, *SHAPE)
    return write_meta_image(ending(base, suffix), voxels, oblique(), **how), windowed(voxels)


def by_itk(suffix, base, *, kind="i2", packed=False, shape=SHAPE, refused=False):
    voxels = drawn(kind, *shape)
    image = SimpleITK.GetImageFromArray(voxels.transpose(), isVector=False)
    image.SetSpacing([2.0, 1.5, 3.0][: len(shape)] + [1.0] * (len(shape) - 3))
    path = ending(base, suffix)
    SimpleITK.WriteImage(image, str(path), packed)
    return path, None if refused else windowed(voxels).reshape((*shape, 1)[:3])


def mgh(kind, suffix, base):
    voxels = drawn(kind, *SHAPE)
    return write_mgh(ending(base, suffix), voxels, oblique()), windowed(voxels)


def mgh_of_nibabel(base):
    voxels, path = drawn("f4", *SHAPE), ending(base, ".mgz")
    nib.save(nib.MGHImage(voxels, straight()), path)
    return path, windowed(voxels)


def text_meta_image(base):
    voxels, path = drawn("i2", *SHAPE), ending(base, ".mha")
    header = write_meta_image(path, voxels, straight()).read_bytes().partition(b"LOCAL\n")
    said = header[0].replace(b"BinaryData = True", b"BinaryData = False") + header[1]
    path.write_bytes(said + " ".join(map(str, voxels.ravel(order="F"))).encode())
    return path, windowed(voxels)


def packed_whole(base):
    path = ending(base, ".mha.gz")
    raw = write_meta_image(ending(base, ".mha"), drawn("i2", *SHAPE), straight()).read_bytes()
    path.write_bytes(gzip.compress(raw))
    ending(base, ".mha").unlink()
    return path, None


def foreign(suffix, content, base):
    path = ending(base, suffix)
    path.write_bytes(content + bytes(99))
    return path, None


OTHERS = {
    **{f"nrrd {kind}": partial(by_pynrrd, kind, ".nrrd")
       for kind in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")},
    **{f"nrrd {encoding}": partial(by_pynrrd, "i2", ".nrrd", encoding=encoding)
       for encoding in ("raw", "gzip", "bzip2", "ascii")},
    **{f"nrrd {space}": partial(by_pynrrd, "i2", ".nrrd", space=space) for space in SPACES},
    **{f"nrrd big endian {kind}": partial(by_pynrrd, kind, ".nrrd", endian="big", encoding="raw")
       for kind in ("i2", "f8")},
    "nhdr": partial(by_pynrrd, "i2", ".nhdr"),
    "nhdr raw": partial(by_pynrrd, "f4", ".nhdr", encoding="raw"),
    **{f"mha {kind}": partial(meta_image, kind, ".mha")
       for kind in ("u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8")},
    "mha packed": partial(meta_image, "i2", ".mha", packed=True),
    "mha big endian": partial(meta_image, "i2", ".mha", big=True),
    "mha packed big endian": partial(meta_image, "f4", ".mha", packed=True, big=True),
    "mha of text": text_meta_image,
    "mhd": partial(meta_image, "i2", ".mhd"),
    "mhd packed": partial(meta_image, "i2", ".mhd", packed=True),
    **{f"itk {suffix[1:]}": partial(by_itk, suffix)
       for suffix in (".mha", ".mhd", ".nrrd", ".nhdr", ".nii", ".hdr")},
    "itk nii packed": partial(by_itk, ".nii.gz"),
    **{f"itk {suffix[1:]} packed": partial(by_itk, suffix, packed=True)
       for suffix in (".mha", ".mhd", ".nrrd")},
    "itk flat mha": partial(by_itk, ".mha", shape=(6, 5)),
    "itk flat nii": partial(by_itk, ".nii.gz", shape=(6, 5)),
    **{f"mgh {kind}": partial(mgh, kind, ".mgh") for kind in ("u1", "i2", "i4", "f4")},
    "mgz": partial(mgh, "i2", ".mgz"),
    "mgz of nibabel": mgh_of_nibabel,
    "itk of three volumes": partial(by_itk, ".nrrd", shape=(*SHAPE, 3), refused=True),
    "mha packed whole": packed_whole,
    "zip": partial(foreign, ".nii", b"PK\3\4"),
    "hdf5": partial(foreign, ".nii", b"\x89HDF\r\n\x1a\n"),
    "Heidelberg": partial(foreign, ".vol", b"HSF-OCT-103"),
}  # fmt: skip

VOLUMES = {**NIFTIS, **OTHERS}
