"""Scores of a series as a DICOM structured report: a Measurement Report, TID 1500 of PS3.16.

Whoever hands in numbers and words needs to know nothing of DICOM.
"""

from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Any, NamedTuple

from anomalib_medclip import __version__
from anomalib_medclip.errors import NonFiniteError
from anomalib_medclip.provenance import NOTICE
from anomalib_medclip.score.dicom_headers import Source
from anomalib_medclip.score.dicom_images import Maker

_SCHEME = "99ANOMALIB"
"""Of the concepts for which DICOM has no code; such names begin with 99, PS3.3 8.2."""

_NO_UNIT = "1"

_PROCEDURES = {
    "CT": ("77477000", "Computed tomography"),
    "MR": ("113091000", "Magnetic resonance imaging"),
    "PT": ("82918005", "Positron emission tomography"),
    "US": ("16310003", "Diagnostic ultrasonography"),
    "NM": ("371572003", "Nuclear medicine procedure"),
}
"""SNOMED's codes of how images are made, by DICOM's modality."""

_ANY_PROCEDURE = ("363679005", "Imaging procedure")


class Measurement(NamedTuple):
    """A number of a report.

    Attributes:
        code: What it is, in at most 16 characters, such as ``"score"``; the same in every report.
        meaning: The same in at most 64 characters, for whoever reads it.
        value: The number; finite.
        unit: Its unit in UCUM, such as ``"mm3"``.
        slice: Which slice of the series it was measured on, from 0; by default on all.
    """

    code: str
    meaning: str
    value: float
    unit: str = _NO_UNIT
    slice: int | None = None


class Statement(NamedTuple):
    """Words of a report.

    Attributes:
        code: What is stated, as of ``Measurement``.
        meaning: The same for whoever reads it.
        text: What is said of it.
    """

    code: str
    meaning: str
    text: str


class Findings(NamedTuple):
    """What a report says, in this order."""

    statements: Sequence[Statement]
    measurements: Sequence[Measurement]


def report_of(
    source: Source,
    findings: Findings,
    maker: Maker,
    segmentation: Any = None,  # noqa: ANN401
) -> Any:  # noqa: ANN401 - highdicom's
    """A Measurement Report.

    Args:
        source: The series that was scored.
        findings: What is said of it.
        maker: What says so.
        segmentation: As ``dicom_images.segmentation`` gives it, to point to.

    Raises:
        NonFiniteError: A number is NaN or infinite.
    """
    from highdicom.coding_schemes import CodingSchemeIdentificationItem
    from highdicom.sr import Comprehensive3DSR

    scheme = CodingSchemeIdentificationItem(
        _SCHEME, name="Results of anomalib-medclip", responsible_organization="anomalib-medclip"
    )
    evidence = [*source.images, *([] if segmentation is None else [segmentation])]
    made = Comprehensive3DSR(
        evidence=evidence,
        content=_content(source, findings, maker, segmentation),
        is_complete=True,
        coding_schemes=[scheme],
        **maker.series(source, 3, "Anomaly report"),
    )
    words = [one.meaning for one in findings.measurements]
    words += [one.meaning + one.text for one in findings.statements]
    return maker.finished(made, source, "".join(words))


def _content(source: Source, findings: Findings, maker: Maker, segmentation: Any) -> Any:  # noqa: ANN401
    from highdicom.sr import (
        CodedConcept,
        DeviceObserverIdentifyingAttributes,
        LanguageOfContentItemAndDescendants,
        MeasurementReport,
        ObservationContext,
        ObserverContext,
    )
    from pydicom.sr.codedict import codes

    device = DeviceObserverIdentifyingAttributes(
        uid=maker.uid("device"),
        name="anomalib-medclip",
        manufacturer_name="anomalib-medclip",
        model_name=maker.method,
        serial_number="none",
    )
    observer = ObserverContext(codes.DCM.Device, device)
    code, meaning = _PROCEDURES.get(source.modality, _ANY_PROCEDURE)
    groups = [_group(source, findings.measurements, maker)]
    if segmentation is not None:
        groups.append(_region(source, maker, segmentation))
    content = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=observer),
        procedure_reported=CodedConcept(code, "SCT", meaning),
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
        language_of_content_item_and_descendants=LanguageOfContentItemAndDescendants(
            CodedConcept("en", "RFC5646", "English")
        ),
    )
    content[0].ContentSequence.append(_words(findings.statements))
    return content


def _words(statements: Iterable[Statement]) -> Any:  # noqa: ANN401 - highdicom's
    """Row 12 of the template, of which highdicom knows nothing; the notice comes first."""
    from highdicom.sr import CodedConcept, ContainerContentItem, ContentSequence, TextContentItem
    from pydicom.sr.codedict import codes

    said = [(CodedConcept.from_code(codes.DCM.Comment), NOTICE)]
    said += [(CodedConcept(one.code, _SCHEME, one.meaning), one.text) for one in statements]
    found = ContainerContentItem(
        CodedConcept("C0034375", "UMLS", "Qualitative Evaluations"), relationship_type="CONTAINS"
    )
    found.ContentSequence = ContentSequence(
        [TextContentItem(name, text, relationship_type="CONTAINS") for name, text in said]
    )
    return found


def _group(source: Source, measurements: Sequence[Measurement], maker: Maker) -> Any:  # noqa: ANN401
    """TID 1501: what was measured on the images."""
    from highdicom.sr import (
        MeasurementsAndQualitativeEvaluations,
        SourceImageForMeasurementGroup,
        TrackingIdentifier,
    )

    images = [SourceImageForMeasurementGroup.from_source_image(one) for one in source.images]
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(maker.uid("volume"), "volume"),
        algorithm_id=_algorithm(maker),
        measurements=[_number(source, one) for one in measurements],
        source_images=images,
    )


def _number(source: Source, one: Measurement) -> Any:  # noqa: ANN401 - highdicom's
    """TID 300, with the image of its slice."""
    from highdicom.sr import CodedConcept, SourceImageForMeasurement
    from highdicom.sr import Measurement as Number

    if not isfinite(one.value):
        msg = f"{one.meaning} is {one.value}, which is no measurement; {NonFiniteError.remedy}"
        raise NonFiniteError(msg)
    images = None
    if one.slice is not None:
        image, frame = source.frames[one.slice]
        images = [
            SourceImageForMeasurement.from_source_image(
                source.images[image], None if frame is None else [frame]
            )
        ]
    meaning = "no units" if one.unit == _NO_UNIT else one.unit
    return Number(
        CodedConcept(one.code, _SCHEME, one.meaning),
        one.value,
        CodedConcept(one.unit, "UCUM", meaning),
        referenced_images=images,
    )


def _region(source: Source, maker: Maker, segmentation: Any) -> Any:  # noqa: ANN401
    """TID 1411: which voxels are meant, by their segment."""
    from highdicom.sr import (
        ReferencedSegment,
        SourceSeriesForSegmentation,
        TrackingIdentifier,
        VolumetricROIMeasurementsAndQualitativeEvaluations,
    )
    from pydicom.sr.codedict import codes

    series = SourceSeriesForSegmentation(source.images[0].SeriesInstanceUID)
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(maker.uid("segment"), "abnormal"),
        referenced_segment=ReferencedSegment(
            segmentation.SOPClassUID, segmentation.SOPInstanceUID, 1, source_series=series
        ),
        finding_type=codes.SCT.MorphologicallyAbnormalStructure,
        algorithm_id=_algorithm(maker),
    )


def _algorithm(maker: Maker) -> Any:  # noqa: ANN401 - highdicom's
    from highdicom.sr import AlgorithmIdentification

    return AlgorithmIdentification(
        maker.method, __version__, parameters=[NOTICE], manufacturer="anomalib-medclip"
    )
