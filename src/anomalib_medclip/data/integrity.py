"""Files and tables fit to be trained and measured on; every fault is a typed error."""

import os
from collections.abc import Sequence
from pathlib import Path

from anomalib.utils.path import generate_output_filename
from anomalib.visualization import ImageVisualizer
from pandas import DataFrame

from anomalib_medclip.data.batch import CLASS_NAMES
from anomalib_medclip.dicom import is_dicom
from anomalib_medclip.errors import (
    DataRootError,
    EmptySplitError,
    ImageReadError,
    MaskError,
    MissingMaskError,
    SupportError,
)
from anomalib_medclip.imaging import IMAGE_SUFFIXES, read_image, read_mask


def images_in(folder: Path) -> list[Path]:
    """Images of a folder by name, hidden files left out; none if there is no such folder."""
    if not folder.is_dir():
        return []
    files = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in files if path.suffix.lower() in IMAGE_SUFFIXES)


def masks_for(images: Sequence[Path], folder: Path) -> list[str]:
    """For each image, the file of ``folder`` with its stem, or where one would be expected."""
    there = {path.stem: path for path in images_in(folder)}
    return [str(there.get(image.stem, folder / image.name)) for image in images]


def with_name(folder: str | Path) -> Path:
    """The folder by a path that ends in its name, under which heat maps are filed."""
    path = Path(folder)
    return path if path.name not in ("", "..") else path.resolve()


def check_files(table: DataFrame) -> None:
    """Refuse images listed twice or not there, and masks that miss or contradict the label.

    Raises:
        DataRootError: An image is listed twice, under one path or two.
        ImageReadError: An image does not exist, or the mask of a normal one cannot be read.
        MissingMaskError: An abnormal image of a set with masks has none.
        MaskError: The mask of a normal image marks a lesion.
    """
    _check_twice(table)
    absent = table[~table["image_path"].map(lambda path: Path(path).is_file()).astype(bool)]
    if len(absent):
        msg = f"{_first(absent)} missing; restore it or take it out of the data"
        raise ImageReadError(msg)
    owed = table[table["has_masks"].astype(bool) & (table["label_index"] == 1)]
    bare = owed[~owed["mask_path"].map(lambda path: path != "" and Path(path).is_file())]
    if len(bare):
        place = bare["mask_path"].iloc[0]
        looked = f"looked for {place}" if place else "no mask file is named for it"
        msg = (
            f"no mask for abnormal image {_first(bare)}: {looked}; add the mask, or label a "
            "healthy image normal: a missing mask is never taken for a healthy patient"
        )
        raise MissingMaskError(msg)
    _check_normal_masks(table)


def _check_twice(table: DataFrame) -> None:
    """Refuse one file under two rows, whatever the spelling of its path."""
    files = table["image_path"].map(os.path.realpath)
    again = files.duplicated()
    if again.any():
        first = table[files == files[again].iloc[0]]["image_path"].iloc[0]
        msg = (
            f"{_first(table[again])} listed twice, first as {first}; list it once, or it may be "
            "trained and tested on"
        )
        raise DataRootError(msg)


def _check_normal_masks(table: DataFrame) -> None:
    """Refuse a lesion in the mask of a normal image: it would be learnt as healthy tissue."""
    normal = table[table["has_masks"].astype(bool) & (table["label_index"] == 0)]
    # A path may only say where a mask would be; and many rows may share one empty mask.
    named = [path for path in normal["mask_path"].unique() if path and Path(path).is_file()]
    lesions = [path for path in named if _marks_lesion(path)]
    if len(ill := normal[normal["mask_path"].isin(lesions)]):
        msg = (
            f"{_first(ill)} labelled normal, but mask {ill['mask_path'].iloc[0]} marks a lesion; "
            "correct the label, or empty the mask"
        )
        raise MaskError(msg)


def _marks_lesion(path: str) -> bool:
    height, width = read_image(path, intensity=(0.0, 1.0)).shape[-2:]
    try:
        read_mask(path, (height, width))
    except MaskError:  # not for its size, which is its own: it is empty
        return False
    return True


def check_classes(
    table: DataFrame,
    split: str,
    where: str,
    labels: tuple[int, ...] = (0, 1),
    remedy: str = "add some, or check folder names and labels",
) -> None:
    """Refuse a split that lacks a class.

    Raises:
        EmptySplitError: No image of one of ``labels``.
    """
    for label in labels:
        if not (table["label_index"] == label).any():
            msg = (
                f"the {split} split of {where} holds no {CLASS_NAMES[label]} image "
                f"({len(table)} images in all); {remedy}"
            )
            raise EmptySplitError(msg)


def shared_patients(seen: DataFrame, test: DataFrame) -> DataFrame:
    """Test images of patients that were seen before; images of unknown patients do not count."""
    known = set(seen["group"]) - {""}
    return test[test["group"].isin(known)]


def check_patients(seen: DataFrame, test: DataFrame) -> None:
    """Refuse a test split with patients that the support, training or validation has seen.

    Raises:
        SupportError: A patient is on both sides.
    """
    if len(shared := shared_patients(seen, test)):
        patient = shared["group"].iloc[0]
        other = seen[seen["group"] == patient]["image_path"].iloc[0]
        msg = (
            f"patient {patient!r} is on both sides: {other} is learnt from and {_first(shared)} "
            "in the test split; move all images of a patient into one split"
        )
        raise SupportError(msg)


def check_heat_map_names(table: DataFrame, name: str, category: str) -> None:
    """Refuse a data set name under which anomalib would write two heat maps to one file.

    Raises:
        DataRootError: Two images would share a file.
    """
    targets = table["image_path"].map(
        lambda path: str(generate_output_filename(path, "", name, category, mkdir=False))
    )
    if len(twice := table[targets.duplicated(keep=False)]):
        msg = (
            f"{_first(twice)} sharing a heat-map file with another; set 'name' to a folder "
            "that holds all images, or leave it out"
        )
        raise DataRootError(msg)


def check_drawable(table: DataFrame, callbacks: Sequence[object]) -> None:
    """Refuse DICOM where anomalib's own visualizer draws: it opens files again, and fails at test.

    Raises:
        ImageReadError: There is a DICOM file in ``table`` and such a visualizer.
    """
    if not any(type(callback) is ImageVisualizer for callback in callbacks):
        return
    unread = table[table["image_path"].map(lambda path: is_dicom(Path(path))).astype(bool)]
    if len(unread):
        msg = (
            f"{_first(unread)} DICOM, which anomalib's visualizer cannot open; give the model "
            "visualizer=anomalib_medclip.components.results.HeatMapVisualizer(), or False"
        )
        raise ImageReadError(msg)


def _first(table: DataFrame) -> str:
    """The first offending image, and how many there are."""
    count = len(table)
    return f"{table['image_path'].iloc[0]} ({count} {'is' if count == 1 else 'are'})"
