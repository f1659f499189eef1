"""What there is to score below a path: NIfTI files, DICOM series, pictures."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from anomalib_medclip.errors import (
    DataRootError,
    ImageReadError,
    MedclipError,
    NoPictureError,
    VolumeError,
)
from anomalib_medclip.files import A_FOLDER, MISSING, fault_of
from anomalib_medclip.readers.dicom_frames import Slice, slices_of
from anomalib_medclip.readers.dicom_header import value_of
from anomalib_medclip.readers.file_kind import kind_of
from anomalib_medclip.readers.left_out import LeftOut
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
        where: The file, or the folder of the series, below the path that was given; the file of a
            series that is one multi-frame file.
        name: Name for its results, different for each input whatever the case of its letters;
            made of names of files and folders only.
    """

    kind: InputKind
    files: tuple[Path, ...]
    where: str
    name: str = ""


class Found(NamedTuple):
    """What lies below a path.

    Attributes:
        inputs: What there is to score, in the order of its path.
        left_out: What is not, by its path below the one that was given, and why.
    """

    inputs: list[Input]
    left_out: list[LeftOut]


def find_inputs(root: Path, leave_out: Path) -> list[Input]:
    """What there is to score below a path; see ``look_below``."""
    return look_below(root, leave_out).inputs


def look_below(root: Path, leave_out: Path) -> Found:
    """List what there is to score, and what is left out.

    In a folder, a DICOM file that says where it lies belongs to the volume of its series; one that
    does not, such as an X-ray, is a picture. One that holds no image, such as a report, is left
    out; so are pictures beside a series, which are its previews. A DICOM file that cannot be read
    may belong to any series of its folder, so it is left to each, which is then refused; so is what
    may not be read and does not say by its ending what it is. A folder that may not be read is an
    input, too, which fails. Links are followed, each folder is looked at once. Hidden files and
    folders are left out.

    Args:
        root: A file or folder.
        leave_out: Folder of results, which may lie below the root.

    Raises:
        DataRootError: There is no such path, or it may not be read, there is nothing to score below
            it, or results lie there.
    """
    if (fault := fault_of(root)) is None:
        return Found(_named([_of_file(root, root.name)]), [])
    if fault is not A_FOLDER:
        said = f"no {root}" if fault is MISSING else f"{root} {fault.said}"
        msg = f"{said}; give a NIfTI file, a picture, or a folder of such or of DICOM files"
        raise DataRootError(msg)
    if root.resolve() == leave_out.resolve():
        msg = f"results would lie among the inputs in {root}; give another folder by --out"
        raise DataRootError(msg)
    closed: list[Path] = []
    left_out: list[LeftOut] = []
    folders = _folders(root, leave_out, closed)
    found = [one for folder, names in folders for one in _in_folder(folder, names, root, left_out)]
    found += [Input("picture", (one,), one.relative_to(root).as_posix()) for one in closed]
    if not found:
        only = f" but {left_out[0].path}, which {left_out[0].reason}" if left_out else ""
        msg = f"{root} holds no NIfTI file, DICOM file or picture{only}; correct the path"
        raise DataRootError(msg)
    return Found(_named(sorted(found, key=lambda one: (one.where, one.files))), left_out)


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
    """A file by its content; a multi-frame file is a volume, any other DICOM file a picture."""
    kind = kind_of(path)
    if kind and kind.family == "volume":
        return Input("nifti", parts_of(path, kind), where)
    if kind and kind.family == "dicom":
        with suppress(MedclipError):  # which reading it will say again
            return Input("series" if _is_volume(slices_of(path)) else "picture", (path,), where)
    return Input("picture", (path,), where)


def _why(path: Path) -> str:
    """Why a file that is no picture and no volume is left out."""
    if (kind := kind_of(path)) and kind.family == "foreign":
        return f"is {kind.name}; {kind.remedy}"
    ending = f"ends in {path.suffix}" if path.suffix else "has no ending"
    return f"{ending}, as nothing that is read does"


def _is_volume(slices: Sequence[Slice]) -> bool:
    return len(slices) > 1 and slices[0].is_placed


def _in_folder(
    folder: Path, names: Sequence[str], root: Path, left_out: list[LeftOut]
) -> list[Input]:
    """What there is to score in a folder; what is not is added to ``left_out``."""
    dicom: list[Path] = []
    whole: dict[Path, Input] = {}
    strangers: list[Path] = []
    below = folder.relative_to(root)
    for path in (folder / name for name in sorted(names) if not name.startswith(".")):
        kind, where = kind_of(path), (below / path.name).as_posix()
        if kind and kind.family == "volume":
            whole[path] = Input("nifti", parts_of(path, kind), where)
        elif kind and kind.family == "dicom":
            dicom.append(path)
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            whole[path] = Input("picture", (path,), where)
        elif fault_of(path):  # it may be a slice
            dicom.append(path)
        else:
            strangers.append(path)
    beside = {part for one in whole.values() for part in one.files[1:]}
    strangers = [path for path in strangers if path not in beside]
    left_out += [LeftOut(below / path.name, _why(path)) for path in strangers]
    volumes, pictures, strangers_of_dicom = _sorted_out(dicom)
    left_out += [one._replace(path=below / one.path.name) for one in strangers_of_dicom]
    if volumes:
        previews = [path for path, one in whole.items() if one.kind == "picture"]
        reason = "is a picture beside a DICOM series"
        left_out += [LeftOut(below / path.name, reason) for path in previews]
        whole = {path: one for path, one in whole.items() if path not in previews}
    place = below if below.name else Path(root.resolve().name or "volume")
    return [
        *(_series(files, is_one_file, below, place) for files, is_one_file in volumes),
        *(one for path, one in whole.items() if path not in beside),
        *(Input("picture", (p,), (below / p.name).as_posix()) for p in pictures),
    ]


def _series(files: Sequence[Path], is_one_file: bool, below: Path, place: Path) -> Input:
    """A volume: of the files of a folder, or in one of them."""
    where = below / files[0].name if is_one_file else place
    return Input("series", tuple(sorted(files)), where.as_posix())


def _sorted_out(
    paths: Sequence[Path],
) -> tuple[list[tuple[list[Path], bool]], list[Path], list[LeftOut]]:
    """DICOM files as volumes, each with whether it is one multi-frame file; pictures; others."""
    groups: dict[str, list[Path]] = {}
    placed: set[str] = set()
    whole: set[Path] = set()
    alone, broken, left_out = [], [], []
    for path in paths:
        try:
            slices = slices_of(path)
        except NoPictureError as error:
            left_out.append(LeftOut(path, error.reason))
            continue
        except ImageReadError:
            broken.append(path)
            continue
        except VolumeError:  # of several slices in one picture; reading it again will say so
            alone.append(path)
            continue
        series = str(value_of(slices[0].header, "SeriesInstanceUID") or "")
        groups.setdefault(series, []).append(path)
        if slices[0].is_placed:
            placed.add(series)
        if _is_volume(slices):
            whole.add(path)
    volumes = [files + broken for series, files in groups.items() if series in placed]
    alone += [p for series, files in groups.items() if series not in placed for p in files]
    found = [(files, len(files) == 1 and files[0] in whole) for files in volumes]
    return found, alone if volumes else alone + broken, left_out


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
        return name.removesuffix(".dcm")
    stem = Path(name[:-3] if name.lower().endswith((".nii.gz", ".hdr.gz")) else name).stem
    return stem if stem.strip(".") else name  # "...png" would be the folder above all results
