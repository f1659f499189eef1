"""Which of some files are masks: by name, by folder or, beside an image, by what they show."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomalib_medclip.errors import ImageReadError, MedclipError
from anomalib_medclip.readers.file_kind import NRRD, kind_by
from anomalib_medclip.readers.left_out import LeftOut
from anomalib_medclip.readers.mask_names import (
    Place,
    alike,
    holds_masks,
    named_after,
    place_of_image,
    place_of_mask,
    place_of_tissue,
    says_labels,
    says_mask,
    shorter_places,
)
from anomalib_medclip.readers.picture import read_image
from anomalib_medclip.readers.unpacked import Unpacked

_REMEDY = (
    "if it is an image, rename it, and if it is a mask to train on, name its folder by mask_dir "
    "(--data.mask_dir)"
)
_AFTER_AN_IMAGE = "shows few values, as a mask does, and has an image's name with a word more"
_FEW = 9
"""Colours of a map of labels at most, black among them."""
_WHITE = 2**16 - 1
_SAMPLED = 64
"""Pixels along a side that tell most pictures from masks."""


def masks_among(files: Sequence[Path], folder: Path) -> list[LeftOut]:
    """Which of some images are masks of others, or of none, and by what that is known.

    Args:
        files: Files with a picture or a volume.
        folder: A folder above them, whose own name says nothing.
    """
    masks = [LeftOut(path, why, _REMEDY) for path, why in _masks_among(files, folder)]
    return sorted(masks)


def _masks_among(files: Sequence[Path], folder: Path) -> Iterator[tuple[Path, str]]:
    below = {path: unpacked_path(path.relative_to(folder)) for path in files}
    volumes = {path for path in files if _is_volume(path)}
    in_folder = {path for path in files if holds_masks(below[path], surely=True)}
    perhaps = {path for path in files if holds_masks(below[path])} - in_folder
    others = set(files) - in_folder - perhaps
    called = {path for path in others if says_mask(below[path].stem)}
    images = {place_of_image(below[path]) for path in others}
    scans = {place_of_image(below[path]) for path in volumes & others - called}
    by_name = set()
    for path in called | perhaps:
        place = place_of_mask(below[path])
        begins = path in called and any(one in images for one in shorter_places(place))
        if begins or place in images or (path in volumes and _is_of_scans(place, scans)):
            by_name.add(path)
    by_name |= {path for path in volumes & others if _is_of_tissue(below[path], scans)}
    rest = set(files) - in_folder - by_name
    alone = {path for path in rest if says_mask(below[path].stem, surely=True)}
    alone |= {path for path in rest & volumes if says_labels(below[path].stem)}
    by_header = {path for path in rest & volumes - alone if _has_segments(path)}
    if alone | by_header == rest:
        alone, by_header = set(), set()  # all are called so, and then they are the images
    yield from ((path, "lies in a folder of masks") for path in in_folder)
    yield from ((path, "is a mask by its name") for path in by_name | alone)
    yield from ((path, "is a segmentation by its header") for path in by_header)
    yield from _by_content(rest - alone - by_header - volumes)


def _is_volume(path: Path) -> bool:
    """Whether its name says that it is a volume."""
    kind = kind_by(path, b"")
    return kind is not None and kind.family == "volume"


def _is_of_scans(place: Place, scans: Collection[Place]) -> bool:
    """Whether volumes are named as a mask is, and by what tells them apart, such as T1 and T2.

    Or its folder holds a volume that is called image and no more.
    """
    begins = tuple(f"{place.name}{gap}" for gap in "_-. ") if place.name else ""
    return place._replace(name="") in scans or any(
        one.folders == place.folders and one.name.startswith(begins) for one in scans
    )


def _is_of_tissue(path: Path, scans: Collection[Place]) -> bool:
    place = place_of_tissue(path)
    return place in scans and place != place_of_image(path)


def _has_segments(path: Path) -> bool:
    """Whether a NRRD file says what its numbers are called, as Slicer's segmentations do."""
    try:
        with Unpacked(path) as file:
            is_nrrd = kind_by(path, file.head) == NRRD
            return is_nrrd and b"\nSegment0_" in file.head
    except ImageReadError:  # which will be said where it is read
        return False


def unpacked_path(path: Path) -> Path:
    """The path that a packed volume would have by itself."""
    return path.with_suffix("") if path.suffix.lower() == ".gz" else path


def _by_content(pictures: Collection[Path]) -> Iterator[tuple[Path, str]]:
    """Of pictures whose names are those of others, or have a word more, those that show masks."""
    folders: dict[Path, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in pictures:
        folders[path.parent][alike(path.stem)].append(path)
    shows = cache(shows_mask)
    for named in folders.values():
        for name, same in named.items():
            masks = [path for path in same if len(same) > 1 and shows(path)]
            image = named_after(name, named.keys())
            if 0 < len(masks) < len(same):
                yield from ((path, "is the mask of the image of its name") for path in masks)
            elif image and all(map(shows, same)) and not all(map(shows, named[image])):
                yield from ((path, _AFTER_AN_IMAGE) for path in same)


def shows_mask(path: Path) -> bool:
    """Whether a picture has two values, or few colours, as masks and maps of labels have."""
    try:
        pixels = read_image(path, "dtype").numpy()
    except MedclipError:  # which will be said where it is read as an image
        return False
    return has_two_values(pixels.max(axis=0)) or _has_few_colours(pixels)


def has_two_values(pixels: NDArray[Any]) -> bool:
    """Whether a picture has two values and almost nothing between, as JPEG makes of a mask."""
    low, high = pixels.min(), pixels.max()
    near = (high - low) / 20
    between = (pixels > low + near) & (pixels < high - near)
    return bool(high > low and np.mean(between) < 0.02)


def _has_few_colours(pixels: NDArray[np.float32]) -> bool:
    step = max(1, min(pixels.shape[1:]) // _SAMPLED)
    colours = np.rint(pixels * _WHITE).astype(np.int64)
    numbers = colours[0] << 32 | colours[1] << 16 | colours[2]
    few = (len(np.unique(part)) <= _FEW for part in (numbers[::step, ::step], numbers))
    return all(few)  # the first tells most pictures from masks
