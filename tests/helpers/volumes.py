"""Small volumes on disk, with lesions."""

import numpy as np
from dicom_series import write_nifti

SIDE, DEPTH = 24, 6


def save_nifti(path, voxels, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_nifti(path, voxels, np.diag([1.0, 1, 2, 1]) if affine is None else affine)


def volume(seed, lesions=()):
    """Grey tissue on air, with a bright square on some slices, and the square's mask."""
    random = np.random.default_rng(seed)
    voxels = np.zeros((SIDE, SIDE, DEPTH), dtype=np.int16)
    voxels[3:-3, 3:-3] = random.integers(300, 500, (SIDE - 6, SIDE - 6, DEPTH))
    mask = np.zeros_like(voxels, dtype=np.uint8)
    for number in lesions:
        row, column = random.integers(5, 13, 2)
        mask[row : row + 6, column : column + 6, number] = 1
    voxels[mask > 0] += 400
    return voxels, mask


def write_patients(root, count=6, lesions=(1, 3)):
    """A folder a patient, with ``flair.nii.gz`` and ``seg.nii.gz``."""
    for patient in range(count):
        voxels, mask = volume(patient, lesions)
        save_nifti(root / f"P{patient}" / "flair.nii.gz", voxels)
        save_nifti(root / f"P{patient}" / "seg.nii.gz", mask)
    return root
