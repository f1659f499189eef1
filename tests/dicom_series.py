"""A DICOM series on disk, from voxels and an affine."""

import uuid

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

TO_DICOM = np.diag([-1.0, -1.0, 1.0, 1.0])
"""DICOM counts towards left and posterior, NIfTI towards right and anterior."""

PATIENT = {
    "PatientName": "Doe^Jane",
    "PatientID": "P-4711",
    "PatientBirthDate": "19500101",
    "PatientSex": "F",
    "StudyDate": "20200101",
    "StudyTime": "120000",
    "StudyID": "1",
    "AccessionNumber": "A-1",
    "ReferringPhysicianName": "",
}

PIXELS = {
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "BitsAllocated": 16,
    "BitsStored": 16,
    "HighBit": 15,
    "PixelRepresentation": 1,
}


def write_series(folder, voxels, affine, slope=1.0, intercept=0.0, **tags):
    """Write int16 ``voxels``, ``(slice, row, column)``, a file a slice under random names.

    ``affine`` leads from their indices to millimetres as NIfTI counts them. Stored numbers are
    taken as they are: a reader makes ``slope * voxels + intercept`` of them. ``tags`` are set
    in every file. Returns the paths, in the order of the slices.
    """
    folder.mkdir(parents=True, exist_ok=True)
    uids = {f"{name}InstanceUID": generate_uid() for name in ("Study", "Series")}
    uids["FrameOfReferenceUID"] = generate_uid()
    paths = []
    for number, pixels in enumerate(voxels):
        path = folder / f"{uuid.uuid4().hex}.dcm"
        values = {
            **PATIENT, **PIXELS, **uids, **place(affine, number),
            "Modality": "CT", "SeriesNumber": 1, "InstanceNumber": len(voxels) - number,
            "Rows": pixels.shape[0], "Columns": pixels.shape[1],
            "RescaleSlope": slope, "RescaleIntercept": intercept,
            "PixelData": pixels.astype("<i2").tobytes(), **tags,
        }  # fmt: skip
        save(path, values)
        paths.append(path)
    return paths


def place(affine, number):
    """Where a slice lies, in DICOM's words."""
    to_mm = TO_DICOM @ affine
    gaps = np.linalg.norm(to_mm[:3, :3], axis=0)
    position = to_mm[:3, 3] + number * to_mm[:3, 0]
    axes = [*(to_mm[:3, 2] / gaps[2]), *(to_mm[:3, 1] / gaps[1])]
    return {
        "ImagePositionPatient": [float(round(x, 6)) for x in position],
        "ImageOrientationPatient": [float(round(x, 6)) for x in axes],
        "PixelSpacing": [float(gaps[1]), float(gaps[2])],
        "SliceThickness": float(gaps[0]),
    }


def save(path, values):
    """Write a file of computed tomography with these values."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    for name, value in values.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
