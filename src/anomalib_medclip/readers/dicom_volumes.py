"""Which volumes the slices of a DICOM series make: several may lie at one place.

That slices belong together is shown by their headers. Echoes, phases, b-values, acquisitions and
reconstructions are never mixed: it is said how many volumes there are and by which attribute they
differ, and a user chooses one by its value.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from anomalib_medclip.errors import VolumeError
from anomalib_medclip.readers.dicom_frames import Slice
from anomalib_medclip.readers.dicom_members import membership_of, series_of_slice, set_aside
from anomalib_medclip.readers.dicom_order import geometry_of, in_order
from anomalib_medclip.readers.dicom_values import (
    MOST_LETTERS,
    OF_PATIENT,
    DicomWhere,
    by_value,
    joined,
    listed,
    says,
    values,
)
from anomalib_medclip.readers.left_out import LeftOut
from anomalib_medclip.readers.tool_commands import by_dcm2niix

_OF_ONE_VOLUME = (
    "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "FrameOfReferenceUID",
    "Rows", "Columns", "BitsStored", "PixelRepresentation", "PhotometricInterpretation",
    "PixelSpacing", "ImageOrientationPatient", "StackID",
    "EchoNumbers", "EchoTime", "EffectiveEchoTime", "InversionTime", "DiffusionBValue",
    "TemporalPositionIdentifier", "TemporalPositionIndex", "NominalPercentageOfCardiacPhase",
    "ImageType", "FrameType", "ComplexImageComponent", "ConvolutionKernel", "KVP",
)  # fmt: skip
"""What all slices of a volume share, as far as they state it, wherever they lie."""

_OF_ONE_STACK = (
    "ContrastBolusAgent", "ContrastBolusVolume", "ContrastBolusStartTime", "FlipAngle",
    "RepetitionTime", "SeriesDescription", "ProtocolName", "SequenceName", "PulseSequenceName",
    "ScanningSequence", "SequenceVariant", "ScanOptions", "EchoTrainLength", "PatientPosition",
    "ImageLaterality", "FilterType",
)  # fmt: skip
"""What all slices of a volume share, wherever they lie, unless it differs from slice to slice."""

_SAID_OF_SOME = ("ContrastBolusAgent", "ContrastBolusVolume", "ContrastBolusStartTime")
"""What is said of the slices that have it: nothing is a value, too."""

_GATED = ("RepetitionTime",)
"""What heart or breath may set for each slice anew, so that several have one value by chance."""

_OF_ONE_PLACE = (
    "AcquisitionNumber", "TriggerTime", "NominalCardiacTriggerDelayTime",
    "DiffusionGradientOrientation", *_OF_ONE_STACK, "FrameAcquisitionNumber",
    "FrameReferenceDateTime", "AcquisitionDateTime", "AcquisitionTime", "FrameAcquisitionDateTime",
    "ContentTime",
)  # fmt: skip
"""What tells slices of one place apart; in one volume it may differ from place to place."""

_OF_EACH_FILE = {"SOPInstanceUID", "InstanceNumber"}
"""What differs wherever there are two files, and so means nothing."""


def the_volume(
    folder: Path, slices: Sequence[Slice], where: DicomWhere | None = None
) -> tuple[list[Slice], list[LeftOut]]:
    """The slices of the one volume that there is, or that is chosen, and what is set aside.

    See ``set_aside``.

    Args:
        folder: Where they lie, for error messages.
        slices: Pictures of DICOM files.
        where: Values by which to choose among them.

    Raises:
        ConfigError: ``where`` names what is no attribute of DICOM.
        VolumeError: There are several volumes, or none is like that.
    """
    left_out = set_aside([membership_of(one) for one in slices])
    gone = {one.path for one in left_out}
    chosen = _chosen(folder, [one for one in slices if one.path not in gone], where or {})
    series = [those for _, those in by_value(chosen, "SeriesInstanceUID")]
    if len(series) > 1:
        _refuse(folder, series, _telling(chosen, len(series)))
    groups, attributes = _told_apart(chosen)
    if attributes:
        _refuse(folder, groups, attributes)
    _check_copies(folder, chosen)
    return chosen, left_out


# --- which volumes there are


def _chosen(folder: Path, slices: list[Slice], where: DicomWhere) -> list[Slice]:
    """The slices that a user wants.

    Raises:
        VolumeError: There are none.
    """
    for keyword, wanted in where.items():
        kept = [one for one in slices if says(values(one.header, keyword), str(wanted))]
        if slices and not kept:
            there = listed(slices, keyword)
            msg = f"no slice of {folder} has {keyword}={wanted}; those that there are have {there}"
            raise VolumeError(msg)
        slices = kept
    return slices


def _told_apart(slices: list[Slice]) -> tuple[list[list[Slice]], list[str]]:
    """The volumes that slices are of, and by which attributes they differ; none, of one volume."""
    found: list[str] = []
    groups = [slices]
    for keyword in (*_OF_ONE_VOLUME, *_OF_ONE_STACK):
        part_of = _parts if keyword in _OF_ONE_VOLUME else _stacks
        finer = [part for group in groups for part in part_of(group, keyword)]
        if len(finer) > len(groups):
            found.append(keyword)
            groups = finer
    within = [_told_apart_at_one_place(group) for group in groups]
    found += [keyword for _, keywords in within for keyword in keywords]
    return [part for parts, _ in within for part in parts], list(dict.fromkeys(found))


def _told_apart_at_one_place(slices: list[Slice]) -> tuple[list[list[Slice]], list[str]]:
    """The same, where slices lie at one place."""
    keyword = _separating(slices, most) if (most := _at_one_place(slices)) > 1 else None
    if keyword is None:
        return [slices], []
    within = [_told_apart_at_one_place(part) for _, part in by_value(slices, keyword)]
    found = [keyword, *(deeper for _, keywords in within for deeper in keywords)]
    return [part for parts, _ in within for part in parts], found


def _parts(slices: list[Slice], keyword: str) -> list[list[Slice]]:
    """Slices that say different things of an attribute; one part, where some just say nothing."""
    parts = by_value(slices, keyword)
    if len([said for said, _ in parts if said]) < 2:
        return [slices]
    return [those for _, those in parts]


def _stacks(slices: list[Slice], keyword: str) -> list[list[Slice]]:
    """The same, where each value has a stack of its own; one, where each slice has a value."""
    is_said = keyword not in _SAID_OF_SOME
    parts = _parts(slices, keyword) if is_said else [p for _, p in by_value(slices, keyword)]
    by_chance = keyword in _GATED and not all(map(_is_stack, parts))
    return [slices] if 2 * len(parts) > len(slices) or by_chance else parts


def _is_stack(slices: Sequence[Slice]) -> bool:
    """Whether slices make a volume by themselves."""
    with suppress(VolumeError):
        return len(slices) > 2 and len(in_order(slices, uneven=False)[0]) == len(slices)
    return False


def _check_copies(folder: Path, slices: Sequence[Slice]) -> None:
    """Refuse volumes at one place that nothing tells apart: to take one of each would mix them.

    Raises:
        VolumeError: Of several slices at every place.
    """
    counts = set(_places(slices).values())
    if len(counts) == 1 and (each := counts.pop()) > 1 and len(slices) > each:
        msg = (
            f"{folder} holds {each} slices at each of {len(slices) // each} places, and no "
            "attribute tells them apart; give each volume a folder, or make NIfTI files of them by "
            f"{by_dcm2niix(slices[0].header, '-o', '.', folder)}"
        )
        raise VolumeError(msg)


def _at_one_place(slices: Sequence[Slice]) -> int:
    """How many slices lie at the place that has most."""
    return max(_places(slices).values())


def _places(slices: Sequence[Slice]) -> Counter[Any]:
    """How many slices lie where."""
    return Counter(tuple(geometry_of(one, "ImagePositionPatient").round(2) + 0.0) for one in slices)


def _separating(slices: list[Slice], most: int) -> str | None:
    """An attribute that tells slices of one place apart, and has no more values than it must."""
    for keyword in (*_OF_ONE_PLACE, *_others(slices[0])):
        if len({values(one.header, keyword) for one in slices}) > 2 * most:
            continue
        parts = by_value(slices, keyword)
        is_even = keyword in _OF_ONE_PLACE or len({len(those) for _, those in parts}) == 1
        fewer = 1 < len(parts) <= most and all(_at_one_place(those) < most for _, those in parts)
        if is_even and fewer:
            return keyword
    return None


def _others(one: Slice) -> Iterable[str]:
    """All other attributes of a header, private ones by their tags."""
    from pydicom.datadict import keyword_for_tag

    for tag in list(one.header.keys()):
        keyword = keyword_for_tag(tag)
        if keyword in (*_OF_EACH_FILE, *_OF_ONE_PLACE) or tag.group == OF_PATIENT:
            continue
        name = keyword or f"{tag.group:04X},{tag.element:04X}"
        said = values(one.header, name)
        if said and len("".join(said)) <= MOST_LETTERS:
            yield name


# --- what is said of them


def _telling(slices: list[Slice], count: int) -> list[str]:
    """An attribute that people know by which series differ as by their identifiers, or these."""
    for known in ("SeriesNumber", "SeriesDescription"):
        parts = by_value(slices, known)
        if len(parts) == count and all(said for said, _ in parts):
            return [known]
    return ["SeriesInstanceUID"]


def _refuse(folder: Path, groups: list[list[Slice]], attributes: list[str]) -> None:
    """Say how many volumes there are, by what they differ, and how to choose.

    Raises:
        VolumeError: Always.
    """
    slices = [one for group in groups for one in group]
    what, each = f"{len(groups)} volumes", "volume"
    if (series := len({series_of_slice(one) for one in slices})) > 1:
        what, each = f"files of {series} DICOM series", "series"
    said = ", and in ".join(f"{name}: {listed(slices, name)}" for name in attributes)
    choice = [(name, joined(name, values(groups[0][0].header, name))) for name in attributes]
    as_words = " ".join(f"'{name}={value}'" for name, value in choice)
    as_option = ", ".join(f"{name}: '{value}'" for name, value in choice)
    msg = (
        f"{folder} holds {what}, which differ in {said}; give each {each} a folder, or choose one, "
        f"such as by the option --dicom-where {as_words}, or of data by dicom_where: "
        f"{{{as_option}}}"
    )
    raise VolumeError(msg)
