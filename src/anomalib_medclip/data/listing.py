"""Which files below folders are images, which are masks, and which are left out, and why."""

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomalib_medclip.data.mask_names import (
    Place,
    alike,
    holds_masks,
    place_of_image,
    place_of_mask,
    says_mask,
)
from anomalib_medclip.errors import DataRootError, MaskError, MedclipError
from anomalib_medclip.files import A_FOLDER, MISSING, fault_of
from anomalib_medclip.readers.dicom import is_dicom
from anomalib_medclip.readers.picture import IMAGE_SUFFIXES, read_image

logger = logging.getLogger(__name__)


class LeftOut(NamedTuple):
    """A file below a folder of data that is not taken.

    Attributes:
        file: Its path.
        why: Why, as the rest of a sentence that begins with the path; many files may share it.
        remedy: What to do if it should be taken.
    """

    file: str
    why: str
    remedy: str


class Listing(NamedTuple):
    """What lies in a folder of images and below.

    Attributes:
        images: The images, by path.
        left_out: All other files but hidden ones.
    """

    images: list[Path]
    left_out: list[LeftOut]


_MASK_REMEDY = "name the folder by mask_dir (--data.mask_dir) if it is a mask, else rename it"


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
    left_out: list[LeftOut] = []
    pictures: list[Path] = []
    for path in files_below(folder, others):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            pictures.append(path)
        elif fault := fault_of(path):
            left_out.append(LeftOut(str(path), *fault))
        elif is_dicom(path):
            pictures.append(path)
        else:
            ending = f"ends in {path.suffix}" if path.suffix else "has no ending"
            said = f"{ending}, as no picture that is read does"
            left_out.append(LeftOut(str(path), said, "save it as PNG if it is an image"))
    masks = dict(_masks_among(pictures, folder))
    left_out += [LeftOut(str(path), why, _MASK_REMEDY) for path, why in masks.items()]
    return Listing([path for path in pictures if path not in masks], sorted(left_out))


def _masks_among(pictures: Sequence[Path], folder: Path) -> Iterator[tuple[Path, str]]:
    """Those pictures that are masks, and by what they are known."""
    below = {path: path.relative_to(folder) for path in pictures}
    in_folder = {path for path in pictures if holds_masks(below[path], surely=True)}
    perhaps = {path for path in pictures if holds_masks(below[path])} - in_folder
    images = {place_of_image(below[path]) for path in pictures if path not in in_folder | perhaps}
    by_name, alone = set(), set()
    for path in set(pictures) - in_folder:
        if place_of_mask(below[path]) in images and (says_mask(path.stem) or path in perhaps):
            by_name.add(path)
        elif says_mask(path.stem, surely=True):
            alone.add(path)
    if len(in_folder | by_name | alone) == len(pictures):
        alone = set()  # all are called so, and then they are the images
    rest = [path for path in pictures if path not in in_folder | by_name | alone]
    yield from ((path, "lies in a folder of masks") for path in in_folder)
    yield from ((path, "is a mask by its name") for path in by_name | alone)
    yield from ((path, "is the mask of the image of its name") for path in _black_and_white(rest))


def _black_and_white(pictures: Sequence[Path]) -> Iterator[Path]:
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
        if fault_of(path) is not A_FOLDER:
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


def warn_of(left_out: Sequence[LeftOut]) -> None:
    """Log a warning for each reason why files are left out, with their number and the first."""
    for why, count in Counter(one.why for one in left_out).items():
        first = next(one for one in left_out if one.why == why)
        more = f" (1 of {count} such)" if count > 1 else ""
        logger.warning("%s %s%s, and is left out; %s", first.file, why, more, first.remedy)


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
    return Masks(paths, [LeftOut(str(path), said, remedy) for path in sorted(spare)])


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
