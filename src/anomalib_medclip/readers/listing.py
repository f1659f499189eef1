"""Which files below folders are images, which are masks, and which are left out, and why."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from anomalib_medclip.errors import DataRootError, MaskError
from anomalib_medclip.files import A_FOLDER, MISSING, fault_of, is_folder
from anomalib_medclip.readers.file_kind import DICOM, JPEG_2000, NIFTI, kind_of
from anomalib_medclip.readers.flat import is_flat
from anomalib_medclip.readers.left_out import LeftOut
from anomalib_medclip.readers.mask_names import (
    Place,
    alike,
    named_after,
    place_of_image,
    place_of_mask,
)
from anomalib_medclip.readers.masks_among import masks_among, shows_mask, unpacked_path
from anomalib_medclip.readers.picture import IMAGE_SUFFIXES

_IN_CLOUD = ".icloud"
_OTHER_ENDINGS = re.compile(r"\.(?:jfif|jpe|jif|pjpe?g?|jpg[_-]large|dib|btf|tf8|\d+)|")
"""Of files whose content tells whether they are pictures; other endings say that they are none."""


class Listing(NamedTuple):
    """What lies in a folder of images and below.

    Attributes:
        images: The images, by path.
        left_out: All other files but hidden ones.
    """

    images: list[Path]
    left_out: list[LeftOut]


def list_images(folder: Path, others: Collection[Path] = ()) -> Listing:
    """List the images in a folder and below; masks that lie among them are left out.

    An image is known by its ending or by its content; see ``is_picture``.
    A mask is known by its name, such as ``3_mask.png`` beside ``3.png``, by that of its folder, or,
    beside a picture of the same name, or of its name but for a word, by having two values or few
    colours. Links are followed, and each folder is looked at once.

    Args:
        folder: The folder; there may be none, and then it holds nothing.
        others: Folders that are not looked into.

    Raises:
        DataRootError: A folder cannot be looked into.
    """
    files = list(files_below(folder, others))
    pictures = [path for path in files if is_picture(path)]
    masks = masks_among(pictures, folder)
    taken = set(pictures)
    strangers = [stranger(path) for path in files if path not in taken]
    left_out = sorted(strangers + masks)
    gone = {one.path for one in masks}
    return Listing([path for path in pictures if path not in gone], left_out)


def is_picture(path: Path) -> bool:
    """Whether a file is taken for an image: by its ending or by its content.

    The latter counts for DICOM, for NIfTI that is one voxel thick, and for pictures without an
    ending or with another one of theirs, such as ``.jfif``.
    """
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return True
    kind = kind_of(path)
    if kind is None or kind == DICOM:
        return kind == DICOM
    is_read = kind.family == "picture" and kind != JPEG_2000
    return (is_read and bool(_OTHER_ENDINGS.fullmatch(suffix))) or (kind == NIFTI and is_flat(path))


def stranger(path: Path) -> LeftOut:
    """Why a file that is not taken for a picture is left out."""
    kind = kind_of(path)
    if fault := fault_of(path):
        return LeftOut(path, *fault)
    if path.suffix == _IN_CLOUD:
        return LeftOut(path, "stands for a file that is in iCloud and not here", "download it")
    if kind and kind.family == "foreign":
        return LeftOut(path, f"is {kind.name}", kind.remedy)
    if kind and kind.family == "volume":
        remedy = "give it to anomalib_medclip.data.Volumes, or to anomalib-medclip score"
        return LeftOut(path, f"is a volume ({kind.name}) and no picture", remedy)
    ending = f"ends in {path.suffix}" if path.suffix else "has no ending"
    said = f"{ending}, as no picture that is read does"
    return LeftOut(path, said, "save it as PNG if it is an image")


def rest_below(
    folder: Path, taken: Collection[str], reason: str, remedy: str, deep: bool = True
) -> Iterator[LeftOut]:
    """What lies in a folder and below, and is not taken.

    Args:
        folder: The folder.
        taken: Paths of what is taken.
        reason: Why a picture is left out; other files have their own reason.
        remedy: What to do if a picture should be taken.
        deep: Whether folders below are looked into.
    """
    known = {*taken, *map(os.path.realpath, taken)}
    files = files_below(folder) if deep else (p for p in entries_of(folder) if not is_folder(p))
    for path in files:
        if not (str(path) in known or os.path.realpath(path) in known):
            yield LeftOut(path, reason, remedy) if is_picture(path) else stranger(path)


def files_below(folder: Path, others: Collection[Path] = ()) -> Iterator[Path]:
    """All files in a folder and below, as ``list_images`` looks at them.

    A folder below that cannot be looked into is given in the place of its files.
    """
    return _walk(folder, set(map(os.path.realpath, others)) - {os.path.realpath(folder)})


def _walk(folder: Path, seen: set[str]) -> Iterator[Path]:
    seen.add(os.path.realpath(folder))
    for path in entries_of(folder):
        if not is_folder(path):
            yield path
        elif os.path.realpath(path) not in seen:
            yield from _walk(path, seen)


def entries_of(folder: Path) -> list[Path]:
    """What is in a folder by name, hidden things left out; nothing if there is no such folder.

    Raises:
        DataRootError: It cannot be looked into.
    """
    fault = fault_of(folder)
    if fault is None or fault is MISSING:
        return []
    if fault is not A_FOLDER:
        raise DataRootError(fault.about(folder))
    return sorted(path for path in folder.iterdir() if not is_hidden(path.name))


def is_hidden(name: str) -> bool:
    """Whether a file or folder does not count; what stands for a file in iCloud does."""
    return name.startswith(".") and not name.endswith(_IN_CLOUD)


class Masks(NamedTuple):
    """The masks of images.

    Attributes:
        paths: For each image, the file of its mask, or where one would be expected.
        left_out: What else lies in the folder of masks.
    """

    paths: list[str]
    left_out: list[LeftOut]


def masks_for(images: Sequence[Path], home: Path, folder: Path) -> Masks:
    """Find the masks of images.

    A mask has the name of its image, whatever the ending, or one that says besides that it is a
    mask, or another word more, if it is seen to be one. It lies below its folder as the image does
    below its own; or one of the two lies there directly, and no other has the name.

    Args:
        images: The images.
        home: The folder of images.
        folder: The folder of masks, which may be that of the images.

    Raises:
        DataRootError: A folder cannot be looked into.
        MaskError: An image has several masks.
    """
    spare = set(files_below(folder)) - set(images)
    found: dict[Path, Path] = {}
    for of_image, of_mask in _WAYS:
        there: dict[Hashable, list[Path]] = defaultdict(list)
        for path in spare:
            if is_picture(path):
                there[of_mask(unpacked_path(path.relative_to(folder)))].append(path)
        called = [of_image(unpacked_path(image.relative_to(home))) for image in images]
        count = Counter(called)
        for image, name in zip(images, called, strict=True):
            if image not in found and name in there and count[name] == 1:
                found[image] = _only_one(there[name], image)
        spare -= set(found.values())
    lacking = [image for image in images if image not in found]
    found |= _named_after_images(lacking, home, folder, spare)
    spare -= set(found.values())
    said, remedy = "is the mask of no abnormal image", "name it as its image"
    paths = [str(found.get(image, folder / image.relative_to(home))) for image in images]
    return Masks(paths, [LeftOut(path, said, remedy) for path in sorted(spare)])


def _named_after_images(
    images: Sequence[Path], home: Path, folder: Path, spare: Collection[Path]
) -> dict[Path, Path]:
    """Masks, seen to be such, that have the name of an image and words more, by image."""
    called: dict[Hashable, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for image in images:
        called[image.relative_to(home).parent][alike(image.stem)].append(image)
    places = {place_of_image(Path(image.name)) for image in images}
    there: dict[Path, list[Path]] = defaultdict(list)
    for path in sorted(spare):
        named = called.get(path.relative_to(folder).parent, {})
        name = named_after(alike(path.stem), named.keys())
        if name is None or len(named[name]) > 1 or place_of_mask(Path(path.name)) in places:
            continue  # which is of one of several
        if is_picture(path) and shows_mask(path):
            there[named[name][0]].append(path)
    return {image: _only_one(masks, image) for image, masks in there.items()}


def _same(path: Path) -> Hashable:
    return path.with_suffix("")


def _by_name(place: Callable[[Path], Place], path: Path) -> Hashable:
    return place(Path(path.name))


def _at_the_top(place: Callable[[Path], Place], path: Path) -> Hashable:
    return place(path) if path.parent == Path() else path  # which is no place


_WAYS: Sequence[tuple[Callable[[Path], Hashable], Callable[[Path], Hashable]]] = (
    (_same, _same),
    (place_of_image, place_of_mask),
    (partial(_by_name, place_of_image), partial(_at_the_top, place_of_mask)),
    (partial(_at_the_top, place_of_image), partial(_by_name, place_of_mask)),
)
"""What an image and its mask have in common below their folders, surest first."""


def _only_one(masks: Sequence[Path], image: Path) -> Path:
    if len(masks) > 1:
        said = ", ".join(sorted(path.name for path in masks))
        msg = f"{image} has {len(masks)} masks, {said}; join them into one file"
        raise MaskError(msg)
    return masks[0]
