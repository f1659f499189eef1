"""Which pictures of DICOM files belong to a volume, and which lie beside its slices."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from anomalib_medclip.files import sha256
from anomalib_medclip.readers.dicom_frames import Slice
from anomalib_medclip.readers.dicom_header import value_of
from anomalib_medclip.readers.left_out import LeftOut


class Membership(NamedTuple):
    """What says whether a picture is a slice of a volume.

    Attributes:
        path: The file that it is in.
        series: Of which series it is; empty where that is not said.
        kind: Of which SOP class; likewise.
        is_placed: Whether it says where it lies in the patient.
        frames: How many pictures the file has.
        instance: Its own identifier, which copies share; empty where that is not said.
    """

    path: Path
    series: str
    kind: str
    is_placed: bool
    frames: int
    instance: str


def membership_of(one: Slice) -> Membership:
    """What a header says of it."""
    kind = _said(one, "SOPClassUID")
    instance = _said(one, "SOPInstanceUID")
    return Membership(one.path, series_of_slice(one), kind, one.is_placed, one.frames, instance)


def set_aside(pictures: Sequence[Membership]) -> list[LeftOut]:
    """Pictures beside slices that are none themselves, such as screenshots of them, and copies.

    The former do not say where they lie, and no picture of their series and kind does.
    """
    placed = {(one.series, one.kind) for one in pictures if one.is_placed}

    def is_slice(one: Membership) -> bool:
        return any(one.series == series and _may_be(one.kind, kind) for series, kind in placed)

    beside = [one.path for one in pictures if placed and not is_slice(one)]
    left_out = [LeftOut(path, _NO_SLICE) for path in dict.fromkeys(beside)]
    return left_out + _copies([one for one in pictures if one.is_placed])


def _copies(slices: Sequence[Membership]) -> list[LeftOut]:
    """Files that are the same to the byte as another, which has the shortest name of them."""
    alike: dict[tuple[str, str], set[Path]] = defaultdict(set)
    for one in slices:
        alike[one.series, one.instance].add(one.path)
    several = [paths for (_, instance), paths in alike.items() if instance and len(paths) > 1]
    first: dict[str, Path] = {}
    copies = []
    for path in sorted(set().union(*several), key=lambda path: (len(path.name), path)):
        if (kept := first.setdefault(sha256(path), path)) != path:
            copies.append(LeftOut(path, f"is a copy of {kept.name}", "remove it"))
    return sorted(copies)


_NO_SLICE = "is a picture that says nothing of its place, beside the slices of a DICOM series"


def _may_be(one: str, other: str) -> bool:
    """Whether what is said of two may be the same, where it is said."""
    return not (one and other) or one == other


def series_of_slice(one: Slice) -> str:
    """The identifier of its series; empty where that is not said."""
    return _said(one, "SeriesInstanceUID")


def _said(one: Slice, keyword: str) -> str:
    return str(value_of(one.header, keyword) or "")
