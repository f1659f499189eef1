"""What there is to score below a path: NIfTI files, DICOM series, pictures."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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
from anomalib_medclip.readers.dicom import beside_a_series
from anomalib_medclip.readers.dicom_frames import slices_in
from anomalib_medclip.readers.dicom_members import Membership, membership_of, set_aside
from anomalib_medclip.readers.file_kind import DICOM, FileKind, kind_by, kind_of
from anomalib_medclip.readers.left_out import LeftOut
from anomalib_medclip.readers.listing import is_hidden, is_picture, stranger
from anomalib_medclip.readers.masks_among import masks_among
from anomalib_medclip.readers.unpacked import Unpacked
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
    out; so are masks among images, by their names or folders, and all else beside a series but
    volumes, such as previews and screenshots. A DICOM file that cannot be read may belong to any
    series of its folder, so it is left to each, which is then refused; so is what may not be read
    and does not say by its ending what it is. A folder that may not be read is an input, too, which
    fails. Links are followed, each folder is looked at once. Hidden files and folders do not count.

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
    masks = {one.path: one for one in masks_among([one.files[0] for one in found], root)}
    for one in found:
        if mask := masks.get(one.files[0]):
            left_out += [mask._replace(path=path) for path in one.files]
    found = [one for one in found if one.files[0] not in masks]
    found += [Input("picture", (one,), one.relative_to(root).as_posix()) for one in closed]
    left_out = [one._replace(path=one.path.relative_to(root)) for one in left_out]
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
    """A file that was given by itself; a DICOM file of one frame is a picture."""
    found = _by_content(path, where)
    if isinstance(found, Input):
        return found
    is_volume = isinstance(found, Membership) and _is_volume(found)
    return Input("series" if is_volume else "picture", (path,), where)  # or reading says why not


def _by_content(path: Path, where: str) -> Input | Membership | MedclipError | None:
    """What a file is by itself; of DICOM what it says, or why it cannot be read; or nothing.

    What may not be read, and does not say by its ending what it is, may be DICOM.
    """
    kind, said = _looked_at(path)
    if kind and kind.family == "volume":
        return Input("nifti", parts_of(path, kind), where)
    if kind != DICOM and is_picture(path):
        return Input("picture", (path,), where)
    return said


def _looked_at(path: Path) -> tuple[FileKind | None, Membership | MedclipError | None]:
    """What a file is, and of DICOM what it says; or why it cannot be read."""
    try:
        with Unpacked(path) as file:
            kind = kind_by(path, file.head)
            return kind, membership_of(slices_in(file)[0]) if kind == DICOM else None
    except MedclipError as error:
        return kind_of(path), error


def _is_volume(one: Membership) -> bool:
    """Whether it is of a file that is a volume by itself."""
    return one.frames > 1 and one.is_placed


def _in_folder(
    folder: Path, names: Sequence[str], root: Path, left_out: list[LeftOut]
) -> list[Input]:
    """What there is to score in a folder; what is not is added to ``left_out``."""
    below = folder.relative_to(root)
    there = {
        folder / name: _by_content(folder / name, (below / name).as_posix())
        for name in sorted(names)
        if not is_hidden(name)
    }
    inputs = [one for one in there.values() if isinstance(one, Input)]
    beside = {part for one in inputs for part in one.files[1:]}
    strangers = {path for path, one in there.items() if one is None} - beside
    whole = [one for path, one in there.items() if isinstance(one, Input) and path not in beside]
    dicom = _sorted_out({p: one for p, one in there.items() if one and not isinstance(one, Input)})
    if dicom.volumes:
        strangers |= {one.files[0] for one in whole if one.kind == "picture"}
        whole = [one for one in whole if one.kind != "picture"]
    why = beside_a_series if dicom.volumes else stranger
    left_out += [*map(why, sorted(strangers)), *dicom.left_out]
    place = below if below.name else Path(root.resolve().name or "volume")
    return [
        *(_series(files, dicom.whole, below, place) for files in dicom.volumes),
        *whole,
        *(Input("picture", (p,), (below / p.name).as_posix()) for p in dicom.pictures),
    ]


def _series(files: Sequence[Path], whole: Collection[Path], below: Path, place: Path) -> Input:
    """A volume: of the files of a folder, or in one of them."""
    is_one_file = len(files) == 1 and files[0] in whole
    where = below / files[0].name if is_one_file else place
    return Input("series", tuple(sorted(files)), where.as_posix())


class _Dicom(NamedTuple):
    """The DICOM files of a folder.

    Attributes:
        volumes: Files of each volume.
        whole: Multi-frame files, which are volumes by themselves.
        pictures: Files that are scored by themselves.
        left_out: Files that are not scored.
    """

    volumes: list[list[Path]]
    whole: list[Path]
    pictures: list[Path]
    left_out: list[LeftOut]


def _sorted_out(looked: Mapping[Path, Membership | MedclipError]) -> _Dicom:
    """What the DICOM files of a folder are, of which each says something, or cannot be read."""
    found = [one for one in looked.values() if isinstance(one, Membership)]
    no_pictures = {p: one for p, one in looked.items() if isinstance(one, NoPictureError)}
    left_out = [LeftOut(path, one.reason, one.remedy) for path, one in no_pictures.items()]
    left_out += set_aside(found)
    gone = {one.path for one in left_out}
    broken = [p for p, one in looked.items() if isinstance(one, ImageReadError) and p not in gone]
    pictures = [path for path, one in looked.items() if isinstance(one, VolumeError)]
    groups: dict[str, list[Path]] = {one.series: [] for one in found if one.is_placed}
    for one in found:
        if one.path not in gone:
            groups.get(one.series, pictures).append(one.path)
    volumes = [files + broken for files in groups.values()]
    whole = [one.path for one in found if _is_volume(one)]
    return _Dicom(volumes, whole, pictures if volumes else pictures + broken, left_out)


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
