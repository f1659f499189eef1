"""The pictures of a DICOM file: one, or the frames of a multi-frame file.

A file of the newer kinds (Enhanced CT and MR) says what its frames share and what is of each in
functional groups, DICOM PS3.3 C.7.6.16. Here each frame gets a header as if it was a file of its
own, so that all that follows knows one kind of header.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from anomalib_medclip.errors import ImageReadError, MedclipError, VolumeError
from anomalib_medclip.readers.dicom_file import FaultyFileError, read_header
from anomalib_medclip.readers.dicom_header import (
    DESCRIBED,
    check_described,
    kind_of,
    numbers_of,
    refuse_strangers,
    value_of,
)
from anomalib_medclip.readers.tool_commands import by_dcm2niix, frames_apart
from anomalib_medclip.readers.unpacked import Unpacked

_SHARED, _OF_FRAMES = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
_OF_FILE = {*DESCRIBED, "NumberOfFrames", "PlanarConfiguration"}
"""What no functional group may say otherwise."""

_DIRECTION = "DiffusionGradientDirectionSequence"
"""A group within a group, by which volumes may differ."""


class Slice(NamedTuple):
    """One picture of a DICOM file.

    Attributes:
        path: The file.
        header: What it says besides pixels, as a file says it that holds this picture alone.
        frame: Which of the file's pictures it is, from 0.
        frames: How many the file has.
        start: The byte at which its pixels begin.
    """

    path: Path
    header: Any
    frame: int = 0
    frames: int = 1
    start: int = 0

    @property
    def is_placed(self) -> bool:
        """Whether it says where it lies in the patient."""
        return value_of(self.header, "ImagePositionPatient") is not None


def place_of(slices: Sequence[Slice]) -> Path:
    """The file whose frames these are, or the folder of their files."""
    first = slices[0]
    is_one_file = first.frames > 1 and all(one.path == first.path for one in slices)
    return first.path if is_one_file else first.path.parent


def slices_of(path: Path) -> list[Slice]:
    """The pictures of a file; see ``slices_in``."""
    with Unpacked(path) as file:
        return slices_in(file)


def slices_in(file: Unpacked) -> list[Slice]:
    """The pictures of a file that is open, of which nothing but the header is read.

    Raises:
        ImageReadError: The file is none that can be read as DICOM.
        NoPictureError: It is something else than an image, such as a report.
        VolumeError: Its picture is made of slices, or its frames say nothing of themselves.
    """
    path = file.path
    file.refuse_packed()
    try:
        header = read_header(whole := file.from_start())
        start = whole.tell()
        _check_syntax(header)
        refuse_strangers(path, header)
        check_described(path, header)
        return list(_frames(path, header, start))
    except MedclipError:
        raise
    except FaultyFileError as error:
        raise _unreadable(path, str(error)) from error
    except Exception as error:  # damaged files reach every corner of pydicom
        raise _unreadable(path, "its header is damaged") from error


@contextmanager
def telling_of(path: Path) -> Iterator[None]:
    """Tell which file lacks something.

    Raises:
        ImageReadError: Within, it was found to.
    """
    try:
        yield
    except FaultyFileError as error:
        raise _unreadable(path, str(error)) from error


def _unreadable(path: Path, reason: str) -> ImageReadError:
    msg = f"cannot read {path} as a DICOM picture: {reason}; replace it or take it out"
    return ImageReadError(msg)


def _check_syntax(header: Any) -> None:  # noqa: ANN401 - a pydicom dataset
    if not isinstance(syntax := header.file_meta.TransferSyntaxUID, str):
        msg = f"it states its transfer syntax as {syntax}"
        raise FaultyFileError(msg)


def _frames(path: Path, header: Any, start: int) -> Iterator[Slice]:  # noqa: ANN401
    count = max(1, int((numbers_of(header, "NumberOfFrames") or [1])[0]))  # 0 is said of one
    groups = value_of(header, _OF_FRAMES) or []
    shared = value_of(header, _SHARED) or []
    if count == 1 and not (groups or shared):
        yield Slice(path, header, start=start)
        return
    if count > 1 and not groups:
        msg = (
            f"{path} is a multi-frame file of {count} frames ({kind_of(header)}) that says nothing "
            "of each, such as its place, and so is neither one picture nor a volume; take it apart "
            f"into files of one frame by {frames_apart(path)} or, if it is a volume, make a NIfTI "
            f"file of it by {by_dcm2niix(header, '-s', 'y', '-o', '.', path)}"
        )
        raise VolumeError(msg)
    if groups and len(groups) != count:
        msg = f"it says that it has {count} frames, but describes {len(groups)}"
        raise FaultyFileError(msg)
    common = _with(header, shared)
    for frame in range(count):
        yield Slice(path, _with(common, groups[frame : frame + 1]), frame, count, start)


def _with(header: Any, groups: Any) -> Any:  # noqa: ANN401 - pydicom datasets
    """A copy of a header that says itself what functional groups say."""
    from pydicom.dataset import Dataset

    found = Dataset(dict(header.items()))
    found.file_meta = header.file_meta
    is_implicit, is_little = header.original_encoding
    found.set_original_encoding(is_implicit, is_little, header.original_character_set)
    for kind in (kind for group in groups for kind in _understood(group) if kind.VR == "SQ"):
        items = list(kind.value)
        if len(items) == 1:  # of several, none holds for all
            items += value_of(items[0], _DIRECTION) or []
            for said in (said for item in items for said in _understood(item)):
                if said.keyword not in _OF_FILE:
                    found[said.tag] = said
    return found


def _understood(dataset: Any) -> Iterator[Any]:  # noqa: ANN401 - pydicom's
    """The elements of a dataset but those that nobody understands, on which nothing may depend."""
    for tag in list(dataset.keys()):
        with suppress(Exception):
            yield dataset[tag]
