"""Files and tables fit to be trained and measured on; every fault is a problem with a remedy.

Each check is a generator of problems: training refuses the first, ``anomalib-medclip check`` lists
them all.
"""

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pandas import DataFrame, concat

from anomalib_medclip.data.batch import CLASS_NAMES
from anomalib_medclip.data.names_on_disk import NamesOnDisk
from anomalib_medclip.errors import (
    DataRootError,
    EmptySplitError,
    ImageReadError,
    MaskError,
    MedclipError,
    MissingMaskError,
    SupportError,
)
from anomalib_medclip.files import EMPTY, MISSING, fault_of
from anomalib_medclip.readers.lesion import IGNORED, LESION, MaskLabels
from anomalib_medclip.readers.picture import MOST, read_lesion

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Problem:
    """Something wrong with data.

    Attributes:
        kind: What is wrong, in a few words that all problems of the kind share.
        file: The file, or the set, that it is wrong with.
        problem: The rest of a sentence that begins with the file.
        remedy: What to do.
        severity: An ``error`` falsifies results or ends training; a ``warning`` may do so.
        error: What training raises.
        cause: The error itself, where reading the file raised one.
    """

    kind: str
    file: str
    problem: str
    remedy: str
    severity: Literal["error", "warning"] = "error"
    error: type[MedclipError] = DataRootError
    cause: MedclipError | None = field(default=None, compare=False)

    def as_plain(self) -> dict[str, str]:
        """What is said of it, as JSON holds it."""
        return {
            "severity": self.severity,
            "kind": self.kind,
            "file": self.file,
            "problem": self.problem,
            "remedy": self.remedy,
        }


def problem_of(error: MedclipError, kind: str, file: str) -> Problem:
    """What an error says, as a problem; errors of this package end in ``; <remedy>``."""
    said, _, remedy = str(error).rpartition("; ")
    if not said:
        said, remedy = remedy, "correct the data or the config"
    return Problem(kind, file, said, remedy, cause=error)


def refuse(problems: Iterable[Problem]) -> None:
    """Raise the first problem that is an error, and count those of its kind.

    Raises:
        MedclipError: Of the class that the problem names.
    """
    errors = [one for one in problems if one.severity == "error"]
    if errors:
        first = errors[0]
        alike = sum(one.kind == first.kind for one in errors)
        count = f" (1 of {alike} such)" if alike > 1 else ""
        said = f"{first.file} {first.problem}{count}; {first.remedy}"
        raise first.cause or first.error(said)


def cover_problems(path: str, marks: NDArray[Any]) -> Iterator[Problem]:
    """Warnings of a mask that covers most of its image, or of one of its slices.

    Args:
        path: The mask file.
        marks: ``LESION``, ``IGNORED`` or 0 at each pixel, ``(row, column)``, or
            ``(slice, row, column)``.
    """
    for mark, kind, words, remedy in _COVERS:
        shares = np.atleast_1d((marks == mark).mean(axis=(-2, -1)))
        worst = int(shares.argmax())
        where = "its image" if marks.ndim == 2 else f"slice {worst}"
        if shares[worst] > MOST:
            said = words.format(f"{shares[worst]:.0%} of {where}")
            yield Problem(kind, path, said, remedy, "warning", MaskError)


def volume_mask_problems(image: str, mask: str, marks: NDArray[Any]) -> Iterator[Problem]:
    """Warnings of the mask of a volume that covers most of a slice, or marks no lesion.

    Args:
        image: The volume.
        mask: Its mask.
        marks: See ``cover_problems``; ``(slice, row, column)``.
    """
    yield from cover_problems(mask, marks)
    if not (marks == LESION).any():
        said, remedy = "has no lesion in its mask, and counts as healthy", "look at both"
        yield Problem("volume without lesion", image, said, remedy, "warning")


_COVERS = (
    (LESION, "lesion of most of an image", "marks {} as lesion", "see that it is not inverted"),
    (IGNORED, "most of an image ignored", "says of {} that nobody knows", "see ignore_labels"),
)


def warn(problems: Iterable[Problem]) -> None:
    """Log those that are warnings."""
    for one in problems:
        if one.severity == "warning":
            logger.warning("%s %s; %s", one.file, one.problem, one.remedy)


def with_name(folder: str | Path) -> Path:
    """The folder by a path that ends in its name, under which heat maps are filed."""
    path = Path(os.path.expanduser(folder))  # noqa: PTH111 - Path's raises for an unknown user
    return path if path.name not in ("", "..") else path.resolve()


def file_problems(
    table: DataFrame, root: Path = Path(), labels: MaskLabels = MaskLabels()
) -> Iterator[Problem]:
    """Images listed twice or not there, and masks that miss or contradict the label.

    Args:
        table: The images, complete.
        root: Where to look for what is not where it should be.
        labels: What numbers of masks mean.
    """
    lost = _LostFiles(root)
    yield from _listed_twice(table)
    yield from _absent(table["image_path"], lost)
    yield from _missing_masks(table, lost)
    yield from _lesions_in_normal_images(table, labels)


def _listed_twice(table: DataFrame) -> Iterator[Problem]:
    """One file under two rows, whatever the spelling of its path."""
    first: dict[str, str] = {}
    for path in table["image_path"]:
        if (file := os.path.realpath(path)) in first:
            said = f"is listed twice, first as {first[file]}"
            remedy = "list it once, or it may be trained and tested on"
            yield Problem("file listed twice", path, said, remedy)
        first.setdefault(file, path)


class _LostFiles:
    """What to do about missing files, after a look round for the first of them."""

    def __init__(self, root: Path) -> None:
        self._root, self._names = root, NamesOnDisk()
        self._looks = 20  # more would take long where everything is missing

    def remedy(self, path: str, otherwise: str) -> str:
        self._looks -= 1
        found = self._names.remedy(path, self._root) if self._looks >= 0 else None
        return found or otherwise


def _absent(paths: Iterable[str], lost: _LostFiles) -> Iterator[Problem]:
    """Files that are not there, cannot be read, or hold nothing."""
    for path in paths:
        if (fault := fault_of(path)) is MISSING:
            remedy = lost.remedy(path, fault.remedy)
            yield Problem("missing file", path, fault.said, remedy, error=ImageReadError)
        elif fault:
            yield Problem("unreadable file", path, *fault, error=ImageReadError)
        elif not is_usable(path):
            yield Problem("empty file", path, *EMPTY, error=ImageReadError)


def is_usable(path: str) -> bool:
    """Whether there is a file that can be read and holds something."""
    return bool(path) and fault_of(path) is None and Path(path).stat().st_size > 0


def _missing_masks(table: DataFrame, lost: _LostFiles) -> Iterator[Problem]:
    owed = table[table["has_masks"].astype(bool) & (table["label_index"] == 1)]
    remedy = (
        "add the mask, or label a healthy image normal: a missing mask is never taken for a "
        "healthy patient"
    )
    for image, mask in zip(owed["image_path"], owed["mask_path"], strict=True):
        if mask and fault_of(mask) is not MISSING:
            yield from _absent([mask], lost)
        else:
            looked = f"looked for {mask}" if mask else "no mask file is named for it"
            said = f"is abnormal and has no mask: {looked}"
            helps = lost.remedy(mask, remedy) if mask else remedy
            yield Problem("missing mask", image, said, helps, error=MissingMaskError)


def _lesions_in_normal_images(table: DataFrame, labels: MaskLabels) -> Iterator[Problem]:
    """Lesions in masks of normal images: they would be learnt as healthy tissue."""
    normal = table[table["has_masks"].astype(bool) & (table["label_index"] == 0)]
    # A path may only say where a mask would be; and many rows may share one empty mask.
    for mask in filter(is_usable, normal["mask_path"].unique()):
        try:
            marks = read_lesion(mask, labels).any()
        except (ImageReadError, MaskError) as error:
            kind = "unreadable mask" if isinstance(error, ImageReadError) else "mask values"
            yield problem_of(error, kind, mask)
            continue
        for image in normal[normal["mask_path"] == mask]["image_path"] if marks else ():
            said = f"is labelled normal, but mask {mask} marks a lesion"
            remedy = "correct the label, or empty the mask"
            yield Problem("lesion in a normal image", image, said, remedy, error=MaskError)


def class_problems(
    table: DataFrame,
    split: str,
    where: str,
    labels: tuple[int, ...] = (0, 1),
    remedy: str = "add some, or check folder names and labels",
) -> Iterator[Problem]:
    """Classes among ``labels`` that a split lacks."""
    for label in labels:
        if not (table["label_index"] == label).any():
            lack = f"no {CLASS_NAMES[label]} image"
            said = f"holds {lack} ({len(table)} images in all)"
            name = f"the {split} split of {where}"
            yield Problem(lack, name, said, remedy, error=EmptySplitError)


def shared_patients(seen: DataFrame, test: DataFrame) -> DataFrame:
    """Test images of patients that were seen before; images of unknown patients do not count."""
    known = set(seen["group"]) - {""}
    return test[test["group"].isin(known)]


def patient_problems(
    seen: DataFrame, test: DataFrame, published: bool = False
) -> Iterator[Problem]:
    """Patients that the support, training or validation has, and the test split, too.

    In a test split that is kept as published they are warnings. Files are named, patients are not:
    what names a patient should not travel in a report.
    """
    for patient, shared in shared_patients(seen, test).groupby("group"):
        other = seen[seen["group"] == patient]["image_path"].iloc[0]
        rest = f", with {len(shared) - 1} more test images" if len(shared) > 1 else ""
        yield Problem(
            "patient on both sides",
            shared["image_path"].iloc[0],
            f"is in the test split{rest}, and {other} of the same patient is learnt from",
            "move all images of a patient into one split",
            "warning" if published else "error",
            SupportError,
        )


def check_patients(splits: dict[str, DataFrame], published: bool, where: str) -> None:
    """Refuse patients on both sides; in a test split kept as published, count the support's.

    Raises:
        SupportError: A patient is on both sides.
    """
    test, support = splits["test"], splits["support"]
    if not published:
        refuse(patient_problems(concat([support, splits["train"], splits["valid"]]), test))
    elif len(shared := shared_patients(support, test)):
        logger.warning(
            "%d of %d test images of %s are of %d patients that the support has, too; "
            "the test split is kept as published",
            len(shared),
            len(test),
            where,
            shared["group"].nunique(),
        )


def unlearnable_problems(method: str, where: str) -> Iterator[Problem]:
    """A method that learns from both classes, where only the test split has abnormal images."""
    said = f"learns from normal and abnormal images, but {where} holds only normal images outside "
    remedy = (
        "use a method that learns from normal images, such as MediCLIP, or add abnormal ones for "
        "training or validation"
    )
    said += "the test split"
    yield Problem("no abnormal image to learn from", method, said, remedy, error=SupportError)
