"""One file with a volume, of any format that is read."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from anomalib_medclip.errors import ImageReadError, MedclipError
from anomalib_medclip.files import sha256, sha256_of_all
from anomalib_medclip.readers import file_kind
from anomalib_medclip.readers.file_kind import FileKind, kind_by, kind_of
from anomalib_medclip.readers.grid import Voxels
from anomalib_medclip.readers.meta_image import read_meta_header, read_meta_image
from anomalib_medclip.readers.mgh import read_mgh
from anomalib_medclip.readers.nifti import parts_of_pair, read_nifti, read_pair
from anomalib_medclip.readers.nrrd import read_nrrd, read_nrrd_header
from anomalib_medclip.readers.unpacked import Unpacked

_READERS: dict[FileKind, Callable[[Unpacked], Voxels]] = {
    file_kind.NIFTI: read_nifti,
    file_kind.PAIR: read_pair,
    file_kind.MGH: read_mgh,
    file_kind.NRRD: read_nrrd,
    file_kind.META_IMAGE: read_meta_image,
}
"""Who reads which kind."""


def read_volume_file(file: Unpacked) -> Voxels:
    """Read a file with a volume, by what its content is.

    Raises:
        ImageReadError: It is none, too large, cut off or cannot be decoded.
        VolumeError: It is no volume of real numbers, or does not know where it lies.
    """
    kind = kind_by(file.path, file.head)
    if kind not in _READERS:
        raise ImageReadError(_no_volume(file.path, kind))
    return _READERS[kind](file)


def _no_volume(path: Path, kind: FileKind | None) -> str:
    """Why a file is not read as a volume, and what to do then."""
    if kind is None:
        return f"{path} is no volume: of no format that is known; correct the path"
    if kind.family == "foreign":
        return kind.about(path)
    return (
        f"{path} is a single file of {kind.name} and no volume; give the folder of all its slices, "
        "or pictures to MedicalFolder"
    )


def sha256_of_volume(path: Path) -> str:
    """SHA-256 of a file, of all the files of a volume, or of a folder; see ``sha256_of_all``."""
    parts = parts_of(path, kind_of(path))
    if len(parts) == 1:
        return sha256_of_all(path)
    return hashlib.sha256("".join(map(sha256, parts)).encode()).hexdigest()


def parts_of(path: Path, kind: FileKind | None) -> tuple[Path, ...]:
    """The files that a volume is made of, the one to read first; the file alone if it is whole.

    Args:
        path: One of them.
        kind: What it is.
    """
    found: tuple[Path, ...] = (path,)
    with suppress(MedclipError, OSError, ValueError):  # reading it will say what is wrong
        match kind:
            case file_kind.PAIR:
                found = parts_of_pair(path)
            case file_kind.NRRD:
                found = (path, read_nrrd_header(path).voxels)
            case file_kind.META_IMAGE:
                found = (path, read_meta_header(path).voxels)
    return tuple(dict.fromkeys(found))
