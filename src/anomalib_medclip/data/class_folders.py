"""A folder of normal images, one of abnormal images, and perhaps one of masks."""

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pandas import DataFrame

from anomalib_medclip.data.names_on_disk import NamesOnDisk
from anomalib_medclip.data.patients import first_spellings
from anomalib_medclip.errors import DataRootError
from anomalib_medclip.files import A_FOLDER, fault_of, is_folder
from anomalib_medclip.readers.left_out import LeftOut
from anomalib_medclip.readers.listing import Masks, entries_of, files_below, list_images, masks_for
from anomalib_medclip.readers.mask_names import patient_folder


class ClassFolders(NamedTuple):
    """Folders below the root, by the options that name them."""

    normal_dir: str
    abnormal_dir: str
    mask_dir: str | None


def read_folders(
    root: Path, folders: ClassFolders, needs_abnormal: bool, masks_of_normal: bool = False
) -> tuple[DataFrame, list[LeftOut]]:
    """List the images in and below two folders, with their masks.

    Args:
        root: The folder that holds them.
        folders: Their names.
        needs_abnormal: Whether there must be abnormal images.
        masks_of_normal: Whether normal images may have masks, too, of what nobody knows.

    Returns:
        The table of ``MedicalFolder.list_images``, in which the patient is the first folder below
        that of the class, if there is one; and what lies there besides.

    Raises:
        DataRootError: There is no image of a class, or no folder of masks.
        MaskError: An image has several masks.
    """
    names = NamesOnDisk()
    normal, abnormal, outlines = (names.find(root / (folder or "")) for folder in folders)
    homes = [normal, abnormal, *([outlines] if folders.mask_dir else ())]
    rows: list[dict[str, Any]] = []
    named = {os.path.realpath(home) for home in homes}
    left_out = [] if os.path.realpath(root) in named else list(_beside(root, named))
    for label, home in enumerate((normal, abnormal)):
        images, others = list_images(home, homes)
        if not images and (label == 0 or needs_abnormal):
            raise _no_images(home, folders._fields[label], root, others)
        masks = Masks([""] * len(images), [])
        if label == 1 and folders.mask_dir:
            if fault_of(outlines) is not A_FOLDER:
                raise _no_images(outlines, "mask_dir", root, ())
            masks = masks_for(images, home, outlines)
        left_out += [*others, *masks.left_out]
        rows += [
            {
                "image_path": str(image),
                "label_index": label,
                "mask_path": mask,
                "group": patient_folder(image.relative_to(home)),
            }
            for image, mask in zip(images, masks.paths, strict=True)
        ]
    if masks_of_normal and folders.mask_dir:
        _add_masks_of_normal(rows, normal, outlines)
    taken = {row[what] for row in rows for what in ("image_path", "mask_path")}
    table = DataFrame(rows).assign(group=first_spellings(row["group"] for row in rows))
    return table, [one for one in dict.fromkeys(left_out) if str(one.path) not in taken]


def _add_masks_of_normal(rows: Sequence[dict[str, Any]], home: Path, outlines: Path) -> None:
    """Give normal images the masks that are left, where one has their name."""
    of_abnormal = {row["mask_path"] for row in rows}
    normal = [row for row in rows if row["label_index"] == 0]
    found = masks_for([Path(row["image_path"]) for row in normal], home, outlines).paths
    for row, mask in zip(normal, found, strict=True):
        row["mask_path"] = "" if mask in of_abnormal else mask


def _no_images(home: Path, option: str, root: Path, left_out: Sequence[LeftOut]) -> DataRootError:
    """The error that says what there is in the place of images."""
    if left_out:
        path, reason, remedy = left_out[0]
        more = f" (1 of {len(left_out)} files)" if len(left_out) > 1 else ""
        return DataRootError(f"no images in {home}: {path} {reason}{more}; {remedy}")
    names, folders = NamesOnDisk(), [p for p in entries_of(root) if fault_of(p) is A_FOLDER]
    places = (root.absolute().parent, *folders)
    holding = [p for p in places if fault_of(names.find(p / home.name)) is A_FOLDER]
    remedy = f"correct --data.root and --data.{option}"
    if holding:
        remedy = f"give {holding[0]} by --data.root, which has a folder {home.name}"
    elif folders:
        remedy += f": there are {', '.join(path.name for path in folders)}"
    elif (fault := fault_of(root)) is not A_FOLDER:
        remedy += f": {root} {fault.said if fault else 'is a file and no folder'}"
    return DataRootError(f"no images in {home}; {remedy}")


def _beside(folder: Path, named: Collection[str]) -> Iterator[LeftOut]:
    """What lies beside the folders that options name, real paths, but empty folders."""
    for path in entries_of(folder):
        place = os.path.realpath(path)
        if place in named:
            continue
        if any(os.path.commonpath([place, home]) == place for home in named):
            yield from _beside(path, named)
        elif not is_folder(path) or next(files_below(path), None):
            yield LeftOut(path, "is named by no option", "name its folder, or move it away")
