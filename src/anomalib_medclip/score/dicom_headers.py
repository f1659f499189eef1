"""What DICOM files made of a series may say of it: looked up before a pixel is read.

Files made of a series say whose it is, which study it belongs to, to which images they point and
where these lie, and nothing else of its headers. Of that, DICOM wants some (type 1), and some may
be empty (type 2). What is empty or faulty of the latter is left empty. What is missing of the
former is never made up but for one: study, series and image have got their identifiers from whoever
made them, and under others nobody would find them (PS3.3 C.7.2.1, C.7.3.1, C.12.1). The frame of
reference says no more than that places are told in one system of coordinates; where the slices of
one series were found to stand on one another, it is one, whatever its name (PS3.3 C.7.4.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomalib_medclip.errors import VolumeError
from anomalib_medclip.readers.dicom_file import FaultyFileError
from anomalib_medclip.readers.dicom_header import numbers_of
from anomalib_medclip.score import dicom_normal as normal
from anomalib_medclip.score.dicom_patient import dataset_of, nobody, terms_of, text_of, who_of

_OF_SERIES = ("StudyInstanceUID", "SeriesInstanceUID")
_OF_IMAGE = ("SOPClassUID", "SOPInstanceUID")
_OF_FILE = {name: f"MediaStorage{name}" for name in _OF_IMAGE}
"""Where the file says it, too, in front of its data set."""

_SHARED, _OF_FRAMES = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"


@dataclass(frozen=True)
class Source:
    """A series, as DICOM files made of it may tell of it.

    Attributes:
        images: Identifiers and geometry of its files, for highdicom: they name nobody. A
            multi-frame file is one.
        places: Where each slice lies, millimetres towards left, posterior and superior.
        frames: Which of ``images`` each slice is, and which of its frames, from 1, if it has some.
        who: Patient and study; to be added to what is made.
        charset: Character sets of the files, if they state some.
        number: Of the series, if it states one.
        modality: How the images were made, such as CT; ``OT`` if that is not stated.
        notes: What stands in ``who`` and ``images`` and not in the files, without its values.
    """

    images: tuple[Any, ...]
    places: NDArray[np.float64]
    frames: tuple[tuple[int, int | None], ...]
    who: Any
    charset: list[str]
    number: int | None
    modality: str
    notes: tuple[str, ...]


def source_of(headers: Sequence[Any], where: str) -> Source:
    """Look up all that DICOM files made of a series must say of it.

    Args:
        headers: Headers of its slices, in their order, as ``dicom.read_series`` gives them; of
            single frames, or of all frames of one file.
        where: Name of the series, for messages.

    Raises:
        VolumeError: What must be said is not stated, or cannot be; all of that is named.
    """
    has_frames = _OF_FRAMES in headers[0]
    files = headers[:1] if has_frames else headers
    notes: list[str] = []
    identity = _identity(files, where, notes)
    places = np.array([numbers_of(one, "ImagePositionPatient") for one in headers])
    common = _geometry(headers, places, notes) | _quality(files)
    if has_frames:
        images, frames = _multi_frame(headers[0], places, identity[0], common)
    else:
        images = tuple(
            dataset_of(**one, **common, ImagePositionPatient=_decimals(place))
            for one, place in zip(identity, places, strict=True)
        )
        frames = tuple((index, None) for index in range(len(images)))
    who = who_of(files, notes)
    number, modality = _series_number(files), common["Modality"]
    charset = terms_of(files[0])
    return Source(images, places, frames, who, charset, number, modality, tuple(notes))


def is_of_some_frames(headers: Sequence[Any]) -> bool:
    """Whether slices are frames, and not all frames of one file."""
    if _OF_FRAMES not in headers[0]:
        return False
    instances = {text_of(header, "SOPInstanceUID") for header in headers}
    frames = numbers_of(headers[0], "NumberOfFrames") or [1]
    return len(instances) > 1 or len(headers) < int(frames[0])


# --- identifiers


def _identity(files: Sequence[Any], where: str, notes: list[str]) -> list[dict[str, Any]]:
    """The identifiers of each file.

    Raises:
        VolumeError: Some are not stated, or cannot be.
    """
    from pydicom.uid import UID

    said = _uids(files, notes)
    faults = [_said_of(name, sum(not one[name] for one in said), len(said)) for name in said[0]]
    instances = [one["SOPInstanceUID"] for one in said if one["SOPInstanceUID"]]
    if len(set(instances)) < len(instances):
        faults.append("SOPInstanceUID of its own (some files share one)")
    kinds = {one["SOPClassUID"] for one in said if one["SOPClassUID"]}
    if any("Storage" not in UID(kind).name for kind in kinds):
        faults.append("SOPClassUID that DICOM knows")
    if missing := "; ".join(fault for fault in faults if fault):
        msg = (
            f"no DICOM files can be made for {where}, since its files state no usable {missing}; "
            "map and scores are written all the same; complete the headers, or give --no-dicom"
        )
        raise VolumeError(msg)
    frame = _frame_of_reference(files, said[0]["SeriesInstanceUID"], notes)
    return [{**nobody(), **one, "FrameOfReferenceUID": frame} for one in said]


def _uids(files: Sequence[Any], notes: list[str]) -> list[dict[str, str]]:
    """What each file states of its identifiers, or what else says them; empty, if nothing does."""
    names = (*_OF_SERIES, *_OF_IMAGE)
    said = [{name: normal.uid(text_of(one, name)) for name in names} for one in files]
    for name in _OF_SERIES:  # the reader has found that all files are of one
        known = next((one[name] for one in said if one[name]), "")
        if known and not all(one[name] for one in said):
            notes.append(f"{name}: in files that do not state it, that of the others")
        for one in said:
            one[name] = one[name] or known
    for name, in_front in _OF_FILE.items():
        silent = [place for place, one in enumerate(files) if not text_of(one, name)]
        for place in silent:
            said[place][name] = normal.uid(text_of(files[place].file_meta, in_front))
        if any(said[place][name] for place in silent):
            notes.append(f"{name}: in files that do not state it, {in_front}")
    return said


def _said_of(name: str, missing: int, count: int) -> str:
    if not missing:
        return ""
    return name if missing == count else f"{name} (in {missing} of {count} files)"


def _frame_of_reference(files: Sequence[Any], series: str, notes: list[str]) -> str:
    from pydicom.uid import generate_uid

    stated = {normal.uid(text_of(one, "FrameOfReferenceUID")) for one in files} - {""}
    if len(stated) == 1:
        return str(stated.pop())
    notes.append("FrameOfReferenceUID is not stated, or is none: made of SeriesInstanceUID")
    return str(generate_uid(entropy_srcs=[series, "FrameOfReferenceUID"]))


def _series_number(files: Sequence[Any]) -> int | None:
    try:
        return int(text_of(files[0], "SeriesNumber"))
    except ValueError:
        return None


# --- place and quality of the pixels


def _geometry(
    headers: Sequence[Any], places: NDArray[np.float64], notes: list[str]
) -> dict[str, Any]:
    """What all slices share; the reader has seen that they do."""
    first = headers[0]
    thickness = next((float(one) for one in map(_thickness, headers) if one > 0), 0.0)
    if not thickness:
        steps = np.linalg.norm(np.diff(places, axis=0), axis=1)
        thickness = float(np.median(steps)) if len(steps) else 1.0
        notes.append("SliceThickness is not stated, or is none: the distance of slices is taken")
    return {
        "Modality": normal.term(text_of(first, "Modality")) or "OT",
        "Rows": first.Rows,
        "Columns": first.Columns,
        "ImageOrientationPatient": _decimals(numbers_of(first, "ImageOrientationPatient")),
        "PixelSpacing": _decimals(numbers_of(first, "PixelSpacing")),
        "SliceThickness": _decimals([thickness])[0],
    }


def _thickness(header: Any) -> float:  # noqa: ANN401 - pydicom's
    try:
        return (numbers_of(header, "SliceThickness") or [0.0])[0]
    except FaultyFileError:
        return 0.0


def _decimals(numbers: Sequence[float] | NDArray[np.float64]) -> list[Any]:
    """Numbers as DICOM writes them, in 16 characters at most."""
    from pydicom.valuerep import DSfloat

    return [DSfloat(float(one), auto_format=True) for one in numbers]


def _quality(files: Sequence[Any]) -> dict[str, Any]:
    """Whether pixels were compressed with loss, once and for all, and how."""
    lossy = [one for one in files if text_of(one, "LossyImageCompression") == "01"]
    if not lossy:
        return {"LossyImageCompression": "00"}
    found: dict[str, Any] = {"LossyImageCompression": "01"}
    try:
        ratios = [one for one in numbers_of(lossy[0], "LossyImageCompressionRatio") if one > 0]
    except FaultyFileError:
        ratios = []
    words = text_of(lossy[0], "LossyImageCompressionMethod").split("\\")
    methods = [word for word in map(normal.term, words) if word]
    if ratios and len(ratios) == len(methods):
        found["LossyImageCompressionMethod"] = methods
    if ratios:
        found["LossyImageCompressionRatio"] = _decimals(ratios)
    return found


def _multi_frame(
    header: Any,  # noqa: ANN401 - pydicom's
    places: NDArray[np.float64],
    identity: dict[str, Any],
    common: dict[str, Any],
) -> tuple[tuple[Any, ...], tuple[tuple[int, int | None], ...]]:
    """One file whose frames may lie in another order than its slices."""
    stored = places
    if len(places) > 1:
        groups = [group.PlanePositionSequence[0] for group in header[_OF_FRAMES].value]
        stored = np.array([numbers_of(one, "ImagePositionPatient") for one in groups])
    distance = np.linalg.norm(places[:, None] - stored[None], axis=2)
    frames = tuple((0, int(number) + 1) for number in distance.argmin(axis=1))
    of_all = dict(common)
    orientation = {"ImageOrientationPatient": of_all.pop("ImageOrientationPatient")}
    measures = {name: of_all.pop(name) for name in ("PixelSpacing", "SliceThickness")}
    shared = dataset_of(
        PlaneOrientationSequence=[dataset_of(**orientation)],
        PixelMeasuresSequence=[dataset_of(**measures)],
    )
    positions = [dataset_of(ImagePositionPatient=_decimals(place)) for place in stored]
    more = {
        "NumberOfFrames": len(places),
        _SHARED: [shared],
        _OF_FRAMES: [dataset_of(PlanePositionSequence=[one]) for one in positions],
    }
    return (dataset_of(**identity, **of_all, **more),), frames
