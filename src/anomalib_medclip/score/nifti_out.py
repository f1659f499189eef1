"""Which slices of a volume are scored; its map on the grid of the file."""

import logging
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from anomalib_medclip.errors import VolumeError
from anomalib_medclip.provenance import NOTICE

logger = logging.getLogger(__name__)


def slices_to_score(
    shown: Bool[Tensor, "slice"],
    chosen: tuple[int, int] | None,
    trained: tuple[int, int] | None = None,
) -> list[int]:
    """Numbers of the slices that are asked for and show something.

    Args:
        shown: See ``Sliced.shown``. Training had no others.
        chosen: First and last slice that are asked for, both included; by default as trained.
        trained: First and last slice that training had, as far as there are so many; or all.

    Raises:
        VolumeError: There are no such slices.
    """
    count = len(shown)
    first, last = chosen or trained or (0, count - 1)
    if chosen is None and trained is not None:
        last = min(last, count - 1)
        logger.info("slices %d to %d are scored, as trained; others by --slices", first, last)
    if not 0 <= first <= last < count:
        msg = f"the cut has slices 0 to {count - 1}, not {first} to {last}; correct --slices"
        raise VolumeError(msg)
    numbers = [number for number in range(first, last + 1) if shown[number]]
    if not numbers:
        msg = f"slices {first} to {last} show nothing, or not the organ; correct --slices"
        raise VolumeError(msg)
    return numbers


def write_nifti(
    path: Path,
    voxels: NDArray[np.float32],
    affine: NDArray[np.float64],
    like: Any = None,  # noqa: ANN401 - a header of nibabel's
) -> None:
    """Write a map as NIfTI.

    Args:
        path: Where to.
        voxels: The map, ``(i, j, k)``.
        affine: From voxel indices to millimetres.
        like: Header of the NIfTI file that was scored, whose shape, codes and units the map takes;
            its free texts and extensions, which may name a patient, it does not take.
    """
    if like is None:
        image = nib.Nifti1Image(voxels, affine)
        image.header.set_xyzt_units("mm")
        image.set_sform(affine, code="scanner")
        image.set_qform(affine, code="scanner")
    else:
        header = like.copy()
        header.extensions.clear()
        for field in ("aux_file", "intent_name", "db_name", "data_type"):
            if field in header:
                header[field] = b""
        header.set_intent("none")
        kind: Any = nib.Nifti2Image if isinstance(like, nib.Nifti2Header) else nib.Nifti1Image
        image = kind(voxels.reshape(header.get_data_shape()), affine, header)
    image.set_data_dtype(np.float32)
    image.header["descrip"] = f"anomaly map, {NOTICE}".encode()
    image.header["cal_min"], image.header["cal_max"] = 0, 1
    nib.save(image, path)
