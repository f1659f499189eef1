"""Multi-frame DICOM files as DICOM PS3.3 C.7.6.16 defines them, written by pydicom alone."""

import numpy as np
import pydicom
from dicom_series import TO_DICOM, UID, write_picture
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import RLELossless

ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"

_GROUP_OF = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "WindowCenter": "FrameVOILUTSequence",
    "WindowWidth": "FrameVOILUTSequence",
    "EffectiveEchoTime": "MREchoSequence",
    "FlipAngle": "MRTimingAndRelatedParametersSequence",
    "DiffusionBValue": "MRDiffusionSequence",
    "TemporalPositionIndex": "FrameContentSequence",
    "StackID": "FrameContentSequence",
    "FrameAcquisitionNumber": "FrameContentSequence",
    "FrameType": "MRImageFrameTypeSequence",
    "NominalCardiacTriggerDelayTime": "CardiacSynchronizationSequence",
}
"""Which functional group says an attribute."""


def _groups(said):
    """What is said, in its functional groups."""
    found = Dataset()
    for keyword, value in said.items():
        name = _GROUP_OF[keyword]
        if name not in found:
            setattr(found, name, Sequence([Dataset()]))
        setattr(found[name].value[0], keyword, value)
    return found


def write_enhanced(path, pixels, frames, shared=None, **tags):
    """Write frames ``(frame, row, column)`` as one file.

    ``frames`` says what is of each frame, ``shared`` what is of all, by keyword.
    """
    multi = {
        "SOPClassUID": ENHANCED_MR,
        "NumberOfFrames": len(pixels),
        "SharedFunctionalGroupsSequence": Sequence([_groups(shared or {})]),
        "PerFrameFunctionalGroupsSequence": Sequence(list(map(_groups, frames))),
        "PixelData": np.ascontiguousarray(pixels).tobytes(),
    }
    return write_picture(path, pixels[0], **{**multi, **tags})


def geometry(affine, count):
    """What frames along the third axis of an affine share, and where each lies."""
    placed = TO_DICOM @ affine
    across, down = (placed[:3, axis] / np.linalg.norm(placed[:3, axis]) for axis in (0, 1))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    shared = {
        "ImageOrientationPatient": [round(float(x), 9) for x in (*across, *down)],
        "PixelSpacing": [float(spacing[1]), float(spacing[0])],
        "SliceThickness": float(spacing[2]),
    }
    places = [(placed @ [0, 0, k, 1])[:3] for k in range(count)]
    return shared, [{"ImagePositionPatient": [round(float(x), 6) for x in p]} for p in places]


def as_series(folder, pixels, frames, shared=None, **tags):
    """The same frames as classic files, whose headers say all themselves."""
    return [
        write_picture(
            folder / f"{number:03}.dcm",
            one,
            **{**(shared or {}), **frame, "SOPInstanceUID": f"{UID}5.{number + 1}", **tags},
        )
        for number, (one, frame) in enumerate(zip(pixels, frames, strict=True))
    ]


def stored_as(path, syntax):
    """Write a file again, in run lengths or in big endian."""
    dataset = pydicom.dcmread(path)
    if syntax == RLELossless:
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.save_as(path)
        return
    swapped = Dataset()
    for element in dataset:
        swapped.add(element)
    swapped.file_meta = dataset.file_meta
    swapped.file_meta.TransferSyntaxUID = syntax
    of_bytes = dataset.BitsAllocated == 8
    words = np.frombuffer(dataset.PixelData, f"u{dataset.BitsAllocated // 8}")
    swapped.PixelData = words.byteswap().tobytes()
    swapped["PixelData"].VR = "OB" if of_bytes else "OW"
    swapped.preamble = bytes(128)
    swapped.save_as(path, implicit_vr=False, little_endian=False, enforce_file_format=False)
