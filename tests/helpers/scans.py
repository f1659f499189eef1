"""Volumes, as NIfTI and as DICOM series of a patient, that the tests of scoring write."""

import json
import uuid

import numpy as np
from dicom_series import write_series
from pydicom.uid import generate_uid
from volumes import save_nifti

AFFINE = np.array([[1.5, 0, 0, -9.0], [0, 1.0, 0, 4.0], [0, 0, 2.0, -30.0], [0, 0, 0, 1]])
UP = np.array([[0, 0, -1.5, 20.0], [0, -1.0, 0, 15.0], [2.0, 0, 0, -8.0], [0, 0, 0, 1]])
"""Of a series: slices go up, rows back, columns to the left."""


def numbers(shape=(12, 10, 8), seed=0):
    """Noise between 100 and 1000, with a bright corner."""
    voxels = np.random.default_rng(seed).integers(100, 700, shape).astype(np.int16)
    voxels[tuple(slice(length // 2) for length in shape)] += 300
    return voxels


def write_stack(folder, voxels, affine, slope=1.0, intercept=0.0, **tags):
    """Write ``(slice, row, column)`` of a patient as a series, among whatever is in the folder.

    ``affine`` leads from these indices to millimetres. Returns the files in the order of slices.
    """
    patient = {
        "PatientID": "P-4711", "PatientBirthDate": "19500101", "PatientSex": "F",
        "StudyDate": "20200101", "StudyTime": "120000", "StudyID": "1", "AccessionNumber": "A-1",
        "ReferringPhysicianName": "", "Modality": "CT", "SeriesNumber": 1,
        "RescaleSlope": slope, "RescaleIntercept": intercept,
        **{f"{name}InstanceUID": generate_uid() for name in ("Study", "Series")},
        "FrameOfReferenceUID": generate_uid(),
    }  # fmt: skip
    apart = folder / uuid.uuid4().hex
    turned = voxels.transpose(2, 1, 0), affine[:, [2, 1, 0, 3]]
    paths = write_series(apart, *turned, **{**patient, **tags})
    moved = [path.rename(folder / f"{apart.name}{path.name}") for path in paths]
    apart.rmdir()
    return moved


def write_volume(path, voxels=None, affine=AFFINE):
    return save_nifti(path, numbers() if voxels is None else voxels, affine)


def record(folder):
    return json.loads((folder / "scores.json").read_text())
