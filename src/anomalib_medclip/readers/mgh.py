"""MGH files of FreeSurfer (.mgh, .mgz), read by nibabel from bytes that are all accounted for."""

import logging
from math import prod

import numpy as np

from anomalib_medclip.errors import ImageReadError, VolumeError
from anomalib_medclip.readers.grid import Voxels, nifti_header, sound_affine, three_sides
from anomalib_medclip.readers.size_limit import check_voxels
from anomalib_medclip.readers.unpacked import Unpacked, said_of

logger = logging.getLogger(__name__)

_LONGEST_TAIL = 2**26  # bytes behind the voxels: parameters of the scan, and tags


def read_mgh(file: Unpacked) -> Voxels:
    """Read an MGH file, packed or not.

    Raises:
        ImageReadError: The file is missing, too large, cut off, or cannot be decoded.
        VolumeError: It holds several volumes, or does not know where it lies.
    """
    from nibabel.freesurfer.mghformat import MGHError, MGHHeader, MGHImage

    with said_of(path := file.path, "MGH", MGHError):
        header = MGHHeader(file.read(MGHHeader._hdrdtype.itemsize), check=False)
        shape = header.get_data_shape()
        sides = three_sides(path, shape)
        begin = header.get_data_offset()
        end = begin + prod(sides) * header.get_data_dtype().itemsize
        if not file.could_hold(end):
            msg = f"{path} says its shape is {shape}, which is more than can be in it; replace it"
            raise VolumeError(msg)
        check_voxels(path, *sides)
        raw = file.read(end + _LONGEST_TAIL)  # to its end, so that the checksum counts
        if not end <= len(raw) < end + _LONGEST_TAIL:
            msg = f"{path} holds {len(raw)} bytes, but its header wants {end}; replace it"
            raise ImageReadError(msg)
        image = MGHImage.from_bytes(raw)
        affine = sound_affine(path, image.affine, sides, tuple(header["delta"]))
        if header["goodRASFlag"] != 1:
            logger.warning("%s does not say how it lies in the patient", path)
        numbers = np.asanyarray(image.dataobj).reshape(sides)
        return Voxels(numbers, affine, nifti_header(shape, affine))
