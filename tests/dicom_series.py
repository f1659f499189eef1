"""A DICOM series on disk, from voxels and an affine."""

import uuid

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

TO_DICOM = np.diag([-1.0, -1.0, 1.0, 1.0])
"""DICOM counts towards left and posterior, NIfTI towards right and anterior."""


def write_series(folder, voxels, affine, slope=1.0, intercept=0.0, **tags):
    """Write int16 ``voxels``, ``(slice, row, column)``, a file a slice under random names.

    ``affine`` leads from their indices to millimetres as NIfTI counts them. Stored numbers are
    taken as they are: a reader makes ``slope * voxels + intercept`` of them. ``tags`` are set
    in every file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    to_mm = TO_DICOM @ affine
    gaps = np.linalg.norm(to_mm[:3, :3], axis=0)
    uids = [generate_uid() for _ in range(3)]
    paths = []
    for number, pixels in enumerate(voxels):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        path = folder / f"{uuid.uuid4().hex}.dcm"
        dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        dataset.SOPClassUID = CTImageStorage
        dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = uids
        dataset.Modality = "CT"
        dataset.PatientName, dataset.PatientID = "Doe^Jane", "P-4711"
        dataset.PatientBirthDate, dataset.PatientSex = "19500101", "F"
        dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20200101", "120000", "1"
        dataset.AccessionNumber, dataset.ReferringPhysicianName = "A-1", ""
        dataset.SeriesNumber, dataset.InstanceNumber = 1, len(voxels) - number
        dataset.ImagePositionPatient = _numbers(to_mm[:3, 3] + number * to_mm[:3, 0])
        across, down = to_mm[:3, 2] / gaps[2], to_mm[:3, 1] / gaps[1]
        dataset.ImageOrientationPatient = _numbers([*across, *down])
        dataset.PixelSpacing = _numbers([gaps[1], gaps[2]])
        dataset.SliceThickness = float(gaps[0])
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation = 15, 1
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
        dataset.PixelData = pixels.astype("<i2").tobytes()
        for name, value in tags.items():
            setattr(dataset, name, value)
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _numbers(values):
    return [float(round(value, 6)) for value in values]
