"""Which volumes the slices of a DICOM series make: several may lie at one place.

That slices belong together is shown by their headers. Echoes, phases, b-values, acquisitions and
reconstructions are never mixed: it is said how many volumes there are and by which attribute they
differ, and a user chooses one by its value.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, MutableSequence, Sequence
from contextlib import suppress
from difflib import get_close_matches
from math import isclose
from pathlib import Path
from shlex import quote
from typing import Any, TypeAlias

from anomalib_medclip.errors import ConfigError, VolumeError
from anomalib_medclip.readers.dicom_frames import Slice
from anomalib_medclip.readers.dicom_header import value_of
from anomalib_medclip.readers.dicom_order import geometry_of
from anomalib_medclip.readers.left_out import LeftOut

DicomWhere: TypeAlias = Mapping[str, str | int | float]
"""Values that attributes of DICOM must have, by keyword, or by tag as ``"0019,100C"``."""

_OF_ONE_VOLUME = (
    "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "FrameOfReferenceUID",
    "Rows", "Columns", "BitsStored", "PixelRepresentation", "PhotometricInterpretation",
    "PixelSpacing", "ImageOrientationPatient", "StackID",
    "EchoNumbers", "EchoTime", "EffectiveEchoTime", "InversionTime", "DiffusionBValue",
    "TemporalPositionIdentifier", "TemporalPositionIndex", "NominalPercentageOfCardiacPhase",
    "ImageType", "FrameType", "ComplexImageComponent", "ConvolutionKernel", "KVP",
)  # fmt: skip
"""What all slices of a volume share, as far as they state it, wherever they lie."""

_OF_ONE_PLACE = (
    "AcquisitionNumber", "TriggerTime", "NominalCardiacTriggerDelayTime", "FlipAngle",
    "RepetitionTime", "DiffusionGradientOrientation", "ContrastBolusAgent", "SeriesDescription",
    "ProtocolName", "FrameAcquisitionNumber", "FrameReferenceDateTime", "AcquisitionDateTime",
    "AcquisitionTime", "FrameAcquisitionDateTime", "ContentTime",
)  # fmt: skip
"""What tells slices of one place apart; in one volume it may differ from place to place."""

_OF_EACH_FILE = {"SOPInstanceUID", "InstanceNumber"}
"""What differs wherever there are two files, and so means nothing."""

_OF_PATIENT = 0x0010
"""The group of attributes whose values name a patient, and so stand in no message."""

_SAME = 1e-4  # of a number, such as a direction cosine or a spacing
_MOST_NAMED = 6
_MOST_LETTERS = 60

_Values: TypeAlias = tuple[str, ...]


def the_volume(
    folder: Path, slices: Sequence[Slice], where: DicomWhere | None = None
) -> tuple[list[Slice], list[LeftOut]]:
    """The slices of the one volume that there is, or that is chosen, and what is set aside.

    Pictures of another series that do not say where they lie, such as screenshots, are set aside.

    Args:
        folder: Where they lie, for error messages.
        slices: Pictures of DICOM files.
        where: Values by which to choose among them.

    Raises:
        ConfigError: ``where`` names what is no attribute of DICOM.
        VolumeError: There are several volumes, or none is like that.
    """
    placed = {_series_of(one) for one in slices if one.is_placed}
    beside = [one for one in slices if placed and _series_of(one) not in placed]
    reason = "is a picture of another series that says nothing of its place"
    chosen = _chosen(folder, [one for one in slices if one not in beside], where or {})
    if len(placed & {_series_of(one) for one in chosen}) > 1:
        _refuse(folder, chosen, _telling("SeriesInstanceUID", chosen))
    attributes = _attributes(chosen)
    if attributes:
        _refuse(folder, chosen, attributes)
    _check_copies(folder, chosen)
    return chosen, [LeftOut(path, reason) for path in dict.fromkeys(one.path for one in beside)]


def _series_of(one: Slice) -> str:
    return str(value_of(one.header, "SeriesInstanceUID") or "")


# --- what a header says


def values(header: Any, keyword: str) -> _Values:  # noqa: ANN401 - a pydicom dataset
    """What a header says as text, number by number; nothing where it says nothing or too much."""
    from pydicom.sequence import Sequence

    said = value_of(header, _key(keyword))
    said = getattr(said, "value", said)  # of an element, which a tag gives
    if isinstance(said, Sequence):
        return ()
    if isinstance(said, bytes):  # of a private element, whose kind nobody knows
        said = said.decode("latin-1").strip(" \0").split("\\")
    several = list(said) if isinstance(said, MutableSequence) else [said]
    return () if said is None else tuple(map(str, several))


def _key(keyword: str) -> Any:  # noqa: ANN401 - what pydicom looks up
    """A keyword of DICOM, or a tag that is written as one.

    Raises:
        ConfigError: It is neither.
    """
    from pydicom.datadict import keyword_dict

    if keyword in keyword_dict:
        return keyword
    with suppress(ValueError):
        group, element = (int(part, 16) for part in keyword.strip("()").split(","))
        return (group, element)
    like = get_close_matches(keyword, keyword_dict, n=3)
    remedy = f"did you mean {', '.join(like)}?" if like else "give a keyword such as EchoNumbers"
    msg = f"{keyword!r} is no attribute of DICOM; {remedy}"
    raise ConfigError(msg)


def _alike(one: _Values, other: _Values) -> bool:
    """Whether two say the same, numbers up to their rounding."""
    return one == other or (len(one) == len(other) and all(map(_is_same, one, other)))


def _is_same(one: str, other: str) -> bool:
    with suppress(ValueError):
        return one == other or isclose(float(one), float(other), rel_tol=0, abs_tol=_SAME)
    return False


def _by_value(slices: Iterable[Slice], keyword: str) -> list[tuple[_Values, list[Slice]]]:
    """Slices by what they say, in the order in which it is first said."""
    exactly: dict[_Values, list[Slice]] = {}
    for one in slices:
        exactly.setdefault(values(one.header, keyword), []).append(one)
    found: list[tuple[_Values, list[Slice]]] = []
    for said, those in exactly.items():
        for other, group in found:
            if _alike(said, other):
                group += those
                break
        else:
            found.append((said, those))
    return found


# --- which volumes there are


def _chosen(folder: Path, slices: list[Slice], where: DicomWhere) -> list[Slice]:
    """The slices that a user wants.

    Raises:
        VolumeError: There are none.
    """
    for keyword, wanted in where.items():
        kept = [one for one in slices if _says(values(one.header, keyword), str(wanted))]
        if slices and not kept:
            there = _listed(slices, keyword)
            msg = f"no slice of {folder} has {keyword}={wanted}; those that there are have {there}"
            raise VolumeError(msg)
        slices = kept
    return slices


def _says(said: _Values, wanted: str) -> bool:
    """Whether what is wanted is all that is said, or one of several."""
    return _alike(said, tuple(wanted.split("\\"))) or any(_is_same(one, wanted) for one in said)


def _attributes(slices: list[Slice]) -> list[str]:
    """By which attributes the slices are of several volumes; none where they are of one."""
    found: list[str] = []
    groups = [slices]
    for keyword in _OF_ONE_VOLUME:
        finer = [part for group in groups for part in _parts(group, keyword)]
        if len(finer) > len(groups):
            found.append(keyword)
            groups = finer
    found += [keyword for group in groups for keyword in _within(group)]
    return list(dict.fromkeys(found))


def _within(slices: list[Slice]) -> list[str]:
    """Attributes that tell slices of one place apart."""
    keyword = _separating(slices, most) if (most := _at_one_place(slices)) > 1 else None
    if keyword is None:
        return []
    return [keyword, *(one for _, part in _by_value(slices, keyword) for one in _within(part))]


def _parts(slices: list[Slice], keyword: str) -> list[list[Slice]]:
    """Slices that say different things of an attribute; one part, where some just say nothing."""
    parts = _by_value(slices, keyword)
    if len([said for said, _ in parts if said]) < 2:
        return [slices]
    return [those for _, those in parts]


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
            f"'dcm2niix -o . {quote(str(folder))}'"
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
        parts = _by_value(slices, keyword)
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
        if keyword in (*_OF_EACH_FILE, *_OF_ONE_PLACE) or tag.group == _OF_PATIENT:
            continue
        name = keyword or f"{tag.group:04X},{tag.element:04X}"
        said = values(one.header, name)
        if said and len("".join(said)) <= _MOST_LETTERS:
            yield name


# --- what is said of them


def _telling(keyword: str, slices: list[Slice]) -> list[str]:
    """Attributes that people know by which series differ as by their identifiers, or these."""
    count = len(_by_value(slices, keyword))
    for known in ("SeriesNumber", "SeriesDescription"):
        parts = _by_value(slices, known)
        if len(parts) == count and all(said for said, _ in parts):
            return [known]
    return [keyword]


def _refuse(folder: Path, slices: list[Slice], attributes: list[str]) -> None:
    """Say how many volumes there are, by what they differ, and how to choose.

    Raises:
        VolumeError: Always.
    """
    groups = [slices]
    for keyword in attributes:
        groups = [part for group in groups for _, part in _by_value(group, keyword)]
    series = len({_series_of(one) for one in slices})
    what, each = f"{len(groups)} volumes", "volume"
    if series > 1:
        what, each = f"files of {series} DICOM series", "series"
    said = ", and in ".join(f"{name}: {_listed(slices, name)}" for name in attributes)
    choice = [(name, _joined(name, values(groups[0][0].header, name))) for name in attributes]
    as_words = " ".join(f"'{name}={value}'" for name, value in choice)
    as_option = ", ".join(f"{name}: '{value}'" for name, value in choice)
    msg = (
        f"{folder} holds {what}, which differ in {said}; give each {each} a folder, or choose one, "
        f"such as by the option --dicom-where {as_words}, or of data by dicom_where: "
        f"{{{as_option}}}"
    )
    raise VolumeError(msg)


def _listed(slices: list[Slice], keyword: str) -> str:
    """The values of an attribute, and how many slices have each, or which one."""
    parts = _by_value(slices, keyword)
    named = []
    for said, those in parts[:_MOST_NAMED]:
        which = those[0].path.name if len(those) == 1 else f"{len(those)} slices"
        named.append(f"{_joined(keyword, said)} ({which})")
    if (more := len(parts) - _MOST_NAMED) > 0:
        named.append(f"and {more} more")
    return ", ".join(named)


def _joined(keyword: str, said: _Values) -> str:
    """Values as DICOM writes them, but those that name a patient."""
    from pydicom.datadict import tag_for_keyword

    if (tag_for_keyword(keyword) or 0) >> 16 == _OF_PATIENT:
        return "..."
    return "\\".join(said)[:_MOST_LETTERS] or "none"
