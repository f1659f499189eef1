"""Maps of a DICOM series as DICOM: a parametric map and a segmentation, which point back to it.

They carry the patient and the study of the series, and its geometry, and nothing else of its
headers. Treat them as you treat it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomalib_medclip import __version__
from anomalib_medclip.errors import VolumeError
from anomalib_medclip.provenance import NOTICE

THRESHOLD = 0.5
"""Above it, a voxel of a map counts as abnormal."""

_PATIENT_AND_STUDY = (
    "SpecificCharacterSet", "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber",
)  # fmt: skip
"""What files of one patient and study must have in common: types 1 and 2 of DICOM's modules Patient
and General Study, but for the referring physician, who may be empty."""

_IMAGE = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality", "Rows", "Columns",
    "FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "SliceThickness", "SpacingBetweenSlices",
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
)  # fmt: skip
"""What references, geometry and quality of the pixels are made of."""

_SHARED, _OF_FRAMES = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
_GEOMETRY = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
"""The same of the frames of a multi-frame file."""


def write_dicom(
    folder: Path,
    series: Path,
    headers: Sequence[Any],
    voxels: NDArray[np.float32],
    model: str,
    *,
    has_threshold: bool = True,
) -> str:
    """Write ``map.dcm`` and, where a voxel is above the threshold, ``segmentation.dcm``.

    An empty segmentation is not written: many viewers take it for a broken file.

    Args:
        folder: Where to.
        series: Folder of the series that was scored, for error messages.
        headers: Headers of its slices, in their order, as ``dicom.read_series`` gives them.
        voxels: Its map, ``(slice, row, column)``; in [0, 1] if a threshold is known.
        model: Name of the method, for the files.
        has_threshold: Whether the model knows one of pixels; without it nothing is segmented.

    Returns:
        Name of the segmentation, or why there is none.

    Raises:
        VolumeError: The headers of the series lack what such files must say.
    """
    _check_identity(headers, series)
    if _OF_FRAMES in headers[0] and not _is_all_of_one_file(headers):
        return "none: DICOM maps point to whole files, and only some frames of some were scored"
    sources = _sources(headers, series)
    scale = _WITH_THRESHOLD if has_threshold else _without_threshold(voxels)
    made = partial(_parametric_map, headers, sources, voxels, model, scale)
    _save(folder / "map.dcm", series, made)
    abnormal = voxels > THRESHOLD
    if not has_threshold:
        return "none: the model knows no threshold of pixels"
    if not abnormal.any():
        return f"none: no voxel is above {THRESHOLD}"
    target = folder / "segmentation.dcm"
    _save(target, series, partial(_segmentation, headers, sources, abnormal, model))
    return target.name


class _Scale(NamedTuple):
    """What a viewer is told of the numbers of a map."""

    words: str
    lowest: float
    highest: float


_WITH_THRESHOLD = _Scale(f"How abnormal, {THRESHOLD} is the threshold", 0.0, 1.0)


def _without_threshold(voxels: NDArray[np.float32]) -> _Scale:
    """The range of the map itself."""
    return _Scale(
        "How abnormal, no threshold of pixels is known", float(voxels.min()), float(voxels.max())
    )


def _check_identity(sources: Sequence[Any], series: Path) -> None:
    """Refuse headers without the identifiers to point to; highdicom would copy empty ones."""
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
        if not all(source.get(name) for source in sources):
            msg = (
                f"files in {series} state no {name} to point to; complete them, or give --no-dicom"
            )
            raise VolumeError(msg)


def _is_all_of_one_file(headers: Sequence[Any]) -> bool:
    instances = {header.SOPInstanceUID for header in headers}
    return len(instances) == 1 and len(headers) == int(headers[0].get("NumberOfFrames") or 1)


def _sources(headers: Sequence[Any], series: Path) -> list[Any]:
    """What maps may say of their slices; the frames of one file are one source.

    Raises:
        VolumeError: Something of it cannot be understood.
    """
    try:
        if _OF_FRAMES not in headers[0]:
            return [_identified(header) for header in headers]
        source = _identified(headers[0])
        source.NumberOfFrames = len(headers)
        for groups in (_SHARED, _OF_FRAMES):
            found = headers[0].get(groups, [])
            setattr(source, groups, [_kept(group, _GEOMETRY) for group in found])
    except Exception as error:  # whatever stands in the file; reading did not need it
        msg = (
            f"a header of the series in {series} says what cannot be understood of its patient, "
            "study or place; repair it, or give --no-dicom"
        )
        raise VolumeError(msg) from error
    return [source]


def _identified(header: Any) -> Any:  # noqa: ANN401 - pydicom's
    """What maps may say of a slice; highdicom would copy people, places and comments, too."""
    return _kept(header, (*_PATIENT_AND_STUDY, *_IMAGE))


def _kept(header: Any, keywords: Sequence[str]) -> Any:  # noqa: ANN401 - pydicom's
    from pydicom.dataset import Dataset

    kept = Dataset()
    for keyword in keywords:
        if keyword in header:
            kept.add(header[keyword])
    return kept


def _save(path: Path, series: Path, make: Callable[[], Any]) -> None:
    """Write what highdicom makes; what it refuses is a fault of the series' headers.

    Its words may quote the patient's header, and errors go into tables: only those that name an
    attribute are passed on.
    """
    try:
        dataset = make()
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = error if isinstance(error, AttributeError) else type(error).__name__
        msg = (
            f"no {path.name} can be made for the series in {series}: {reason}; complete its "
            "headers, or give --no-dicom"
        )
        raise VolumeError(msg) from error
    dataset.save_as(path)


def _parametric_map(
    headers: Sequence[Any],
    sources: Sequence[Any],
    voxels: NDArray[np.float32],
    model: str,
    scale: _Scale,
) -> Any:  # noqa: ANN401
    from highdicom import VOILUTTransformation
    from highdicom.pm import ParametricMap, RealWorldValueMapping
    from pydicom.sr.codedict import codes

    mapping = RealWorldValueMapping(
        lut_label="abnormality",
        lut_explanation=scale.words,
        unit=codes.UCUM.NoUnits,
        value_range=(scale.lowest, scale.highest),
        slope=1.0,
        intercept=0.0,
    )
    return ParametricMap(
        source_images=sources,
        pixel_array=np.ascontiguousarray(voxels),
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[
            VOILUTTransformation(
                window_center=(scale.lowest + scale.highest) / 2,
                window_width=(scale.highest - scale.lowest) or 1.0,
            )
        ],
        content_label="ANOMALY_MAP",
        content_qualification="RESEARCH",
        plane_positions=_places(headers),
        series_description=f"Anomaly map, {NOTICE}",
        **_common(model),
    )


def _segmentation(
    headers: Sequence[Any], sources: Sequence[Any], abnormal: NDArray[np.bool_], model: str
) -> Any:  # noqa: ANN401
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import Segmentation, SegmentDescription
    from pydicom.sr.codedict import codes

    segment = SegmentDescription(
        segment_number=1,
        segment_label="abnormal",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.MorphologicallyAbnormalStructure,
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=model, version=__version__, family=codes.DCM.ArtificialIntelligence
        ),
    )
    return Segmentation(
        source_images=sources,
        pixel_array=abnormal.astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=[segment],
        content_label="ABNORMAL",
        plane_positions=_places(headers),
        content_description=NOTICE,
        series_description=f"Abnormal voxels, {NOTICE}",
        **_common(model),
    )


def _places(headers: Sequence[Any]) -> list[Any]:
    """Where each slice lies; the frames of a file may be in another order."""
    from highdicom import PlanePositionSequence

    return [PlanePositionSequence("PATIENT", one.ImagePositionPatient) for one in headers]


def _common(model: str) -> dict[str, Any]:
    """What both files say of themselves; each is a series of its own."""
    import highdicom

    return {
        "series_instance_uid": highdicom.UID(),
        "series_number": 1000,
        "sop_instance_uid": highdicom.UID(),
        "instance_number": 1,
        "manufacturer": "anomalib-medclip",
        "manufacturer_model_name": model,
        "software_versions": __version__,
        "device_serial_number": "none",
    }
