"""What there is to score below a path: NIfTI files, DICOM series, pictures."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from anomalib_medclip.errors import DataRootError, ImageReadError, VolumeError
from anomalib_medclip.files import A_FOLDER, MISSING, fault_of
from anomalib_medclip.readers.dicom import is_slice, read_header
from anomalib_medclip.readers.file_kind import kind_of
from anomalib_medclip.readers.picture import IMAGE_SUFFIXES
from anomalib_medclip.readers.volume_file import parts_of

logger = logging.getLogger(__name__)

InputKind = Literal["nifti", "series", "picture"]
"""A file with a volume (NIfTI, or what is read as such: Analyze, MGH, NRRD, MetaImage), the DICOM
files of one volume, or a file with a picture."""


class Input(NamedTuple):
    """One thing to score.

    Attributes:
        kind: What it is.
        files: The file or, of a series, its files by name; of a volume in several files, such as
            header and voxels, the one to read first.
        where: The file, or the folder of the series, below the path that was given.
        name: Name for its results, different for each input whatever the case of its letters;
            made of names of files and folders only.
    """

    kind: InputKind
    files: tuple[Path, ...]
    where: str
    name: str = ""


def find_inputs(root: Path, leave_out: Path) -> list[Input]:
    """List what there is to score, in the order of its path.

    In a folder, a DICOM file that says where it lies belongs to the volume of its series; one that
    does not, such as an X-ray, is a picture. A DICOM file that cannot be read may belong to any
    series of its folder, so it is left to each, which is then refused; so is what may not be read
    and does not say by its ending what it is. A folder that may not be read is an input, too, which
    fails. Links are followed, each folder is looked at once. Hidden files and folders are left out.

    Args:
        root: A file or folder.
        leave_out: Folder of results, which may lie below the root.

    Raises:
        DataRootError: There is no such path, or it may not be read, there is nothing to score below
            it, or results lie there.
    """
    if (fault := fault_of(root)) is None:
        return _named([_of_file(root, root.name)])
    if fault is not A_FOLDER:
        said = f"no {root}" if fault is MISSING else f"{root} {fault.said}"
        msg = f"{said}; give a NIfTI file, a picture, or a folder of such or of DICOM files"
        raise DataRootError(msg)
    if root.resolve() == leave_out.resolve():
        msg = f"results would lie among the inputs in {root}; give another folder by --out"
        raise DataRootError(msg)
    closed: list[Path] = []
    folders = _folders(root, leave_out, closed)
    found = [one for folder, names in folders for one in _in_folder(folder, names, root)]
    found += [Input("picture", (one,), one.relative_to(root).as_posix()) for one in closed]
    if not found:
        msg = f"{root} holds no NIfTI file, DICOM file or picture; correct the path"
        raise DataRootError(msg)
    return _named(sorted(found, key=lambda one: (one.where, one.files)))


def _folders(
    root: Path, leave_out: Path, closed: list[Path]
) -> Iterator[tuple[Path, Sequence[str]]]:
    """The folder and all below it, each once, however many links lead there, with what lies in it.

    Those that cannot be listed are added to ``closed``.
    """
    seen = {root.resolve(), leave_out.resolve()}
    walk = os.walk(
        root, followlinks=True, onerror=lambda error: closed.append(Path(error.filename))
    )
    for folder, below, names in walk:
        fresh = []
        for name in sorted(below):
            place = Path(folder, name).resolve()
            if not name.startswith(".") and place not in seen:
                seen.add(place)
                fresh.append(name)
        below[:] = fresh
        yield Path(folder), names


def _of_file(path: Path, where: str) -> Input:
    """A file that is no slice of a series, by its content."""
    kind = kind_of(path)
    if kind is None or kind.family != "volume":
        return Input("picture", (path,), where)
    return Input("nifti", parts_of(path, kind), where)


def _in_folder(folder: Path, names: Sequence[str], root: Path) -> list[Input]:
    dicom: list[Path] = []
    whole: dict[Path, Input] = {}
    strangers: list[Path] = []
    below = folder.relative_to(root)
    for path in (folder / name for name in sorted(names) if not name.startswith(".")):
        one = _of_file(path, (below / path.name).as_posix())
        if one.kind == "nifti":
            whole[path] = one
        elif is_slice(path):
            dicom.append(path)
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            whole[path] = one
        elif fault_of(path):  # it may be a slice
            dicom.append(path)
        else:
            strangers.append(path)
    beside = {part for one in whole.values() for part in one.files[1:]}
    strangers = [path for path in strangers if path not in beside]
    if strangers:
        logger.info("%s: %d files are neither volumes nor pictures", folder, len(strangers))
    volumes, pictures = _series(dicom)
    place = (below if below.name else Path(root.resolve().name or "volume")).as_posix()
    return [
        *(Input("series", tuple(sorted(files)), place) for files in volumes),
        *(one for path, one in whole.items() if path not in beside),
        *(Input("picture", (p,), (below / p.name).as_posix()) for p in pictures),
    ]


def _series(paths: Sequence[Path]) -> tuple[list[list[Path]], list[Path]]:
    """DICOM files as volumes, and those that are pictures."""
    groups: dict[str, list[Path]] = {}
    placed: set[str] = set()
    alone, broken = [], []
    for path in paths:
        try:
            header = read_header(path)
        except ImageReadError:
            broken.append(path)
            continue
        except VolumeError:  # of several frames; reading it again will say so
            alone.append(path)
            continue
        series = str(header.get("SeriesInstanceUID", ""))
        groups.setdefault(series, []).append(path)
        if header.get("ImagePositionPatient"):
            placed.add(series)
    volumes = [files + broken for series, files in groups.items() if series in placed]
    alone += [p for series, files in groups.items() if series not in placed for p in files]
    return volumes, alone if volumes else alone + broken


def _named(found: Sequence[Input]) -> list[Input]:
    """The shortest names that differ: the stem, else the path, else with its ending or a number."""
    names: list[str] = [_stem(one) for one in found]
    longer: tuple[Callable[[Input], str], ...] = (
        lambda one: one.where.removesuffix(Path(one.where).name).replace("/", "_") + _stem(one),
        lambda one: one.where.replace("/", "_"),
    )
    for lengthen in longer:
        count = Counter(name.lower() for name in names)
        names = [
            lengthen(one) if count[name.lower()] > 1 else name
            for one, name in zip(found, names, strict=True)
        ]
    taken = {"scores.csv"}  # the table of all
    for index, name in enumerate(names):
        number, unique = 1, name
        while unique.lower() in taken:
            number += 1
            unique = f"{name}-{number}"
        taken.add(unique.lower())
        names[index] = unique
    return [one._replace(name=name) for one, name in zip(found, names, strict=True)]


def _stem(one: Input) -> str:
    """Name of a file without the endings of its format, or of a series' folder."""
    name = Path(one.where).name
    if one.kind == "series":
        return name
    stem = Path(name[:-3] if name.lower().endswith((".nii.gz", ".hdr.gz")) else name).stem
    return stem if stem.strip(".") else name  # "...png" would be the folder above all results
