"""Which files below folders are images, which are masks, and which are left out, and why."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomalib_medclip.errors import DataRootError, MaskError, MedclipError
from anomalib_medclip.files import A_FOLDER, MISSING, fault_of, is_folder
from anomalib_medclip.readers.file_kind import is_dicom, kind_of
from anomalib_medclip.readers.left_out import LeftOut
from anomalib_medclip.readers.mask_names import (
    Place,
    alike,
    holds_masks,
    place_of_image,
    place_of_mask,
    says_mask,
)
from anomalib_medclip.readers.picture import IMAGE_SUFFIXES, read_image


class Listing(NamedTuple):
    """What lies in a folder of images and below.

    Attributes:
        images: The images, by path.
        left_out: All other files but hidden ones.
    """

    images: list[Path]
    left_out: list[LeftOut]


_MASK_REMEDY = (
    "if it is an image, rename it, and if it is a mask to train on, name its folder by mask_dir "
    "(--data.mask_dir)"
)


def list_images(folder: Path, others: Collection[Path] = ()) -> Listing:
    """List the images in a folder and below; masks that lie among them are left out.

    An image is known by its ending, a DICOM file by its content.
    A mask is known by its name, such as ``3_mask.png`` beside ``3.png``, by that of its folder, or,
    beside a picture of the same name and another ending, by being black and white. Links are
    followed, and each folder is looked at once.

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
    """Whether a file is taken for an image: by its ending or, of DICOM, by its content."""
    return path.suffix.lower() in IMAGE_SUFFIXES or is_dicom(path)


def stranger(path: Path) -> LeftOut:
    """Why a file that is not taken for a picture is left out."""
    kind = kind_of(path)
    if fault := fault_of(path):
        return LeftOut(path, *fault)
    if kind and kind.family == "foreign":
        return LeftOut(path, f"is {kind.name}", kind.remedy)
    if kind and kind.family == "volume":
        remedy = "give it to anomalib_medclip.data.Volumes, or to anomalib-medclip score"
        return LeftOut(path, f"is a volume ({kind.name}) and no picture", remedy)
    ending = f"ends in {path.suffix}" if path.suffix else "has no ending"
    said = f"{ending}, as no picture that is read does"
    return LeftOut(path, said, "save it as PNG if it is an image")


def masks_among(files: Sequence[Path], folder: Path) -> list[LeftOut]:
    """Which of some images are masks of others, or of none, and by what that is known.

    Args:
        files: Files with a picture or a volume.
        folder: A folder above them, whose own name says nothing.
    """
    masks = [LeftOut(path, why, _MASK_REMEDY) for path, why in _masks_among(files, folder)]
    return sorted(masks)


def _masks_among(pictures: Sequence[Path], folder: Path) -> Iterator[tuple[Path, str]]:
    below = {path: _unpacked(path.relative_to(folder)) for path in pictures}
    in_folder = {path for path in pictures if holds_masks(below[path], surely=True)}
    perhaps = {path for path in pictures if holds_masks(below[path])} - in_folder
    others = set(pictures) - in_folder - perhaps
    images = {place_of_image(below[path]) for path in others}
    called = {path for path in others if says_mask(below[path].stem)}
    scans = {place_of_image(below[path]) for path in others - called if _is_volume(path)}
    by_name = set()
    for path in called | perhaps:
        place = place_of_mask(below[path])
        if place in images or (_is_volume(path) and _is_of_several(place, scans)):
            by_name.add(path)
    rest = set(pictures) - in_folder - by_name
    alone = {path for path in rest if says_mask(below[path].stem, surely=True)}
    if alone == rest:
        alone = set()  # all are called so, and then they are the images
    yield from ((path, "lies in a folder of masks") for path in in_folder)
    yield from ((path, "is a mask by its name") for path in by_name | alone)
    yield from (
        (path, "is the mask of the image of its name") for path in _black_and_white(rest - alone)
    )


def _is_volume(path: Path) -> bool:
    return path.suffix.lower() not in IMAGE_SUFFIXES


def _is_of_several(place: Place, scans: Collection[Place]) -> bool:
    """Whether volumes are named as a mask is, and by what tells them apart, such as T1 and T2."""
    begins = tuple(f"{place.name}{gap}" for gap in "_-. ") if place.name else ""
    return any(one.folders == place.folders and one.name.startswith(begins) for one in scans)


def _unpacked(path: Path) -> Path:
    """The path that a packed volume would have by itself."""
    return path.with_suffix("") if path.suffix.lower() == ".gz" else path


def _black_and_white(pictures: Collection[Path]) -> Iterator[Path]:
    """Of pictures that differ only in their endings, those that are masks of the others."""
    named = defaultdict(list)
    for path in pictures:
        named[path.parent, alike(path.stem)].append(path)
    for same in named.values():
        masks = [path for path in same if len(same) > 1 and _is_black_and_white(path)]
        if len(masks) < len(same):
            yield from masks


def _is_black_and_white(path: Path) -> bool:
    try:
        return has_two_values(read_image(path, "dtype").amax(dim=0).numpy())
    except MedclipError:  # which will be said where it is read as an image
        return False


def has_two_values(pixels: NDArray[Any]) -> bool:
    """Whether a picture has two values and almost nothing between, as JPEG makes of a mask."""
    low, high = pixels.min(), pixels.max()
    near = (high - low) / 20
    between = (pixels > low + near) & (pixels < high - near)
    return bool(high > low and np.mean(between) < 0.02)


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
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


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
    mask. It lies below its folder as the image does below its own; or one of the two lies there
    directly, and no other has the name.

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
            if path.suffix.lower() in IMAGE_SUFFIXES:
                there[of_mask(path.relative_to(folder))].append(path)
        called = [of_image(image.relative_to(home)) for image in images]
        count = Counter(called)
        for image, name in zip(images, called, strict=True):
            if image not in found and name in there and count[name] == 1:
                found[image] = _only_one(there[name], image)
        spare -= set(found.values())
    said, remedy = "is the mask of no abnormal image", "name it as its image"
    paths = [str(found.get(image, folder / image.relative_to(home))) for image in images]
    return Masks(paths, [LeftOut(path, said, remedy) for path in sorted(spare)])


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
