"""Volumes in files of many formats, written by the format's own definition or another library."""

import gzip
import struct
import zlib

import nibabel as nib
import nrrd
import numpy as np

TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SPACES = {
    "left-posterior-superior": (-1, -1, 1),
    "right-anterior-superior": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "LPS": (-1, -1, 1),
    "RAS": (1, 1, 1),
}
MET_TYPES = {
    "u1": "MET_UCHAR", "i1": "MET_CHAR", "i2": "MET_SHORT", "u2": "MET_USHORT",
    "i4": "MET_INT", "u4": "MET_UINT", "f4": "MET_FLOAT", "f8": "MET_DOUBLE",
}  # fmt: skip


def write_nrrd(path, voxels, affine, *, space="RAS", encoding="gzip", endian="little"):
    """By pynrrd, whose axes are those of the array."""
    signs = np.diag([*SPACES[space], 1.0]) @ affine
    header = {
        "space": space, "space directions": signs[:3, :3].T, "space origin": signs[:3, 3],
        "encoding": encoding, "endian": endian,
    }  # fmt: skip
    detached = path.suffix == ".nhdr"
    nrrd.write(str(path), voxels, header, detached_header=detached, index_order="F")
    return path


def write_meta_image(path, voxels, affine, *, packed=False, big=False):
    """Bytes by the definition: x runs fastest, a row of the matrix is an axis of the volume."""
    lps = TO_LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    order = ">" if big else "<"
    raw = voxels.astype(voxels.dtype.newbyteorder(order)).tobytes(order="F")
    raw = zlib.compress(raw) if packed else raw
    lines = {
        "ObjectType": "Image", "NDims": 3, "BinaryData": True, "BinaryDataByteOrderMSB": big,
        "CompressedData": packed, **({"CompressedDataSize": len(raw)} if packed else {}),
        "TransformMatrix": " ".join(map(str, (lps[:3, :3] / spacing).T.ravel())),
        "Offset": " ".join(map(str, lps[:3, 3])),
        "ElementSpacing": " ".join(map(str, spacing)),
        "DimSize": " ".join(map(str, voxels.shape)),
        "ElementType": MET_TYPES[voxels.dtype.newbyteorder("=").str[1:]],
    }  # fmt: skip
    voxels_file = "LOCAL" if path.suffix == ".mha" else f"{path.stem}.{'z' * packed}raw"
    text = "".join(f"{name} = {value}\n" for name, value in lines.items())
    text = (text + f"ElementDataFile = {voxels_file}\n").encode()
    if voxels_file == "LOCAL":
        path.write_bytes(text + raw)
    else:
        path.write_bytes(text)
        (path.parent / voxels_file).write_bytes(raw)
    return path


def write_mgh(path, voxels, affine):
    """Bytes by FreeSurfer's definition, big-endian; the place is that of the middle."""
    types = {"u1": 0, "i4": 1, "f4": 3, "i2": 4}
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    middle = affine @ [*(np.array(voxels.shape) / 2), 1]
    type_ = types[voxels.dtype.newbyteorder("=").str[1:]]
    head = struct.pack(">7ih", 1, *voxels.shape, 1, type_, 0, 1)
    head += struct.pack(">15f", *spacing, *(affine[:3, :3] / spacing).T.ravel(), *middle[:3])
    raw = head.ljust(284, b"\0") + voxels.astype(voxels.dtype.newbyteorder(">")).tobytes(order="F")
    path.write_bytes(gzip.compress(raw) if path.suffix == ".mgz" else raw)
    return path


def write_pair(path, voxels, affine, *, kind=nib.Nifti1Pair, packed=False):
    """Header and voxels; returns the one that ``path`` names."""
    stem = path.name.partition(".")[0]
    nib.save(kind(voxels, affine), path.with_name(f"{stem}.img"))
    if packed:
        for one in (".img", ".hdr"):
            plain = path.with_name(stem + one)
            plain.with_name(f"{plain.name}.gz").write_bytes(gzip.compress(plain.read_bytes()))
            plain.unlink()
    return path
