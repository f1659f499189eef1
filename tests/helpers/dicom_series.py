"""DICOM files and NIfTI volumes that the tests of the readers write."""

import nibabel as nib
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

UID = "1.2.826.0.1.3680043.8.498."  # pydicom's root; what follows is fixed, so files are the same
TO_DICOM = np.diag([-1.0, -1.0, 1.0, 1.0])  # from right and anterior to left and posterior


def numbers(*shape, low=-1000, high=2000, seed=0):
    return np.random.default_rng(seed).integers(low, high, shape).astype(np.int16)


def oblique(spacing=(2.0, 1.5, 3.0), degrees=20):
    """An affine that no axis of the patient is parallel to."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    about_z = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag(spacing)
    affine[:3, 3] = [-20, 15, 7]
    return affine


def straight(spacing=(2.0, 1.5, 3.0)):
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-20, 15, 7]
    return affine


def write_nifti(path, voxels, affine, kind=nib.Nifti1Image):
    nib.save(kind(voxels, affine), path)
    return path


def write_picture(path, pixels, **tags):
    """Write stored numbers ``(row, column)``, or ``(row, column, 3)``, as one DICOM file.

    ``tags`` stand above what follows from the pixels; ``None`` leaves one out.
    """
    depth = pixels.dtype.itemsize * 8
    plain = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": f"{UID}3.{sum(path.name.encode())}",
        "SeriesInstanceUID": f"{UID}1",
        "FrameOfReferenceUID": f"{UID}2",
        "PatientName": "Doe^Jane",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "SamplesPerPixel": 1 if pixels.ndim == 2 else 3,
        "PhotometricInterpretation": "MONOCHROME2" if pixels.ndim == 2 else "RGB",
        "BitsAllocated": depth,
        "BitsStored": depth,
        "PixelRepresentation": int(np.issubdtype(pixels.dtype, np.signedinteger)),
    }
    if pixels.ndim == 3:
        plain["PlanarConfiguration"] = 0
    chosen = {**plain, **tags}
    chosen.setdefault("HighBit", chosen["BitsStored"] - 1)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = chosen["SOPClassUID"]
    dataset.file_meta.MediaStorageSOPInstanceUID = chosen["SOPInstanceUID"]
    for keyword, value in chosen.items():
        if value is not None:
            setattr(dataset, keyword, value)
    if "PixelData" not in tags:
        raw = np.ascontiguousarray(pixels).tobytes()
        dataset.PixelData = raw + b"\0" * (len(raw) % 2)
        dataset["PixelData"].VR = "OW"
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_series(folder, voxels, affine, **tags):
    """Write a volume ``(i, j, k)`` of stored numbers as a series, a file each ``k``.

    Columns run along i and rows along j. File names say nothing of the order. ``affine`` is
    nibabel's, towards right, anterior and superior.

    Returns:
        The files in the order of ``k``.
    """
    placed = TO_DICOM @ affine
    across, down = (placed[:3, axis] / np.linalg.norm(placed[:3, axis]) for axis in (0, 1))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    names = np.random.default_rng(7).permutation(voxels.shape[2])
    paths = []
    for k, name in enumerate(names):
        place = placed @ [0, 0, k, 1]
        geometry = {
            "ImagePositionPatient": [round(float(x), 6) for x in place[:3]],
            "ImageOrientationPatient": [round(float(x), 9) for x in (*across, *down)],
            "PixelSpacing": [float(spacing[1]), float(spacing[0])],
            "SliceThickness": float(spacing[2]),
            "InstanceNumber": int(name) + 1,
            "SOPInstanceUID": f"{UID}4.{k + 1}",
        }
        path = folder / f"{name:03}.dcm"
        paths.append(write_picture(path, voxels[:, :, k].T, **{**geometry, **tags}))
    return paths


def change(path, **tags):
    """Set tags of a file that is there; ``None`` takes one out."""
    import pydicom

    dataset = pydicom.dcmread(path)
    for keyword, value in tags.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(path)
    return path
