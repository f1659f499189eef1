"""Everything that can be found wrong with data before a method learns from them."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pandas import DataFrame, concat
from torch import Tensor

from anomalib_medclip.data.datamodule import MedicalDataModule
from anomalib_medclip.data.duplicates import (
    UNUSED,
    exact_duplicates,
    near_duplicate_problems,
    small_picture,
)
from anomalib_medclip.data.few_shot import count_support, patients
from anomalib_medclip.data.integrity import (
    Problem,
    is_usable,
    patient_problems,
    problem_of,
)
from anomalib_medclip.data.lesions import LesionCount, count_lesions, lesion_problems, total
from anomalib_medclip.data.shortcuts import separations, shortcut_problems
from anomalib_medclip.errors import ImageReadError, IntensityError, MaskError, MedclipError
from anomalib_medclip.files import sha256
from anomalib_medclip.readers.intensity import IntensityPolicy
from anomalib_medclip.readers.picture import mask_values, read_image, read_mask
from anomalib_medclip.readers.resize import MethodResize

_SQUASHED = 2.0  # the method's square would halve one side of such a picture
_SIDE = 240  # pixels, of the methods' square by default
_FEW_GREYS = 8  # labels of a label map; the edges of a soft mask have more


@dataclass
class Report:
    """What was found.

    Attributes:
        problems: All problems, errors first.
        splits: By split: ``normal`` and ``abnormal`` images, ``patients``, and ``unknown``, the
            images without a known patient, each of which counts as one.
        support: By class word, what K really means; see ``few_shot.count_support``.
        shortcuts: By set: how well mean intensity and size alone tell the classes apart, as the
            AUROC in whichever direction is better, from 0.5 to 1.
        side: Side of the square that lesions were counted at, in pixels.
        lesions: How many the masks outline, and how many are lost there; see ``lesions.total``.
    """

    problems: list[Problem] = field(default_factory=list)
    splits: dict[str, dict[str, int]] = field(default_factory=dict)
    support: dict[str, dict[str, int]] = field(default_factory=dict)
    shortcuts: dict[str, dict[str, float]] = field(default_factory=dict)
    side: int = _SIDE
    lesions: dict[str, int] = field(default_factory=dict)

    def count(self, severity: str) -> int:
        """Number of problems of a severity."""
        return sum(one.severity == severity for one in self.problems)


class CheckedImage(NamedTuple):
    """What is remembered of a picture file.

    Attributes:
        problems: What is wrong with it and its mask.
        digest: SHA-256 of the file; empty where it cannot be read.
        size: Height and width in pixels; zeros where it cannot be read.
        mean: Mean intensity in [0, 1]; not a number where it cannot be read.
        small: Picture to compare with others; ``None`` where there is nothing to see.
        lesions: What its mask outlines, and what the methods' resize leaves; ``None`` without one.
    """

    problems: list[Problem]
    digest: str
    size: tuple[int, int] = (0, 0)
    mean: float = float("nan")
    small: NDArray[np.uint8] | None = None
    lesions: LesionCount | None = None


def check_data(
    data: MedicalDataModule,
    progress: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, _: items,
    side: int = _SIDE,
) -> Report:
    """Read every file of some data, and list all that is wrong.

    Whatever fails becomes a problem, and the rest is checked all the same.

    Args:
        data: The data, which need not have been set up.
        progress: Passes an iterator on and shows how far it is, given the number of items.
        side: Side of the square that a method is to resize images and masks to, in pixels.
    """
    report = Report(side=side)
    table = _list_all(data, report)
    if len(table.columns):
        report.problems += data.file_problems(table)
        splits = _splits(data, table, report)
        rows = _readable(table) if data.in_files else table
        # One cache holds the slices of volumes, and its file has one place to read from.
        with ThreadPoolExecutor(None if data.in_files else 1) as pool:
            looks = list(
                progress(pool.map(_looker(data, side), rows.to_dict("records")), len(rows))
            )
        for look in looks:
            report.problems += look.problems
        report.lesions = total(look.lesions for look in looks if look.lesions)
        rows = rows.assign(
            digest=[look.digest for look in looks],
            mean=[look.mean for look in looks],
            height=[look.size[0] for look in looks],
            width=[look.size[1] for look in looks],
        )
        report.problems += exact_duplicates(rows)
        report.problems += near_duplicate_problems(rows, [look.small for look in looks])
        for name, images in rows[rows["height"] > 0].groupby("set_name"):
            report.shortcuts[str(name)] = separations(images)
            report.problems += shortcut_problems(images, str(name))
        report.splits = {name: _counts(images) for name, images in splits.items() if len(images)}
    own = list(_own_problems(data))
    causes = [id(one.cause) for one in own if one.cause]  # which may have ended the listing, too
    report.problems = own + [one for one in report.problems if id(one.cause) not in causes]
    unique = dict.fromkeys(report.problems)
    report.problems = sorted(unique, key=lambda one: (one.severity, one.kind))
    return report


def _own_problems(data: MedicalDataModule) -> Iterator[Problem]:
    try:
        yield from data.find_problems()
    except MedclipError as error:
        yield problem_of(error, "data cannot be checked", data.where)


def _list_all(data: MedicalDataModule, report: Report) -> DataFrame:
    """Every image that the data name, with its split, as far as lists and splits can be made."""
    found: list[DataFrame] = []
    for listed in (data.load_table, data.list_images):
        try:
            found.append(data.complete(listed()))
        except MedclipError as error:
            report.problems.append(problem_of(error, "data cannot be listed", data.where))
    if not found:
        return DataFrame()
    if len(found) == 1:
        return found[0] if "split" in found[0] else found[0].assign(split="unsplit")
    table, everything = found
    unused = everything[~everything["image_path"].isin(table["image_path"])]
    return concat([table, unused.assign(split=UNUSED)], ignore_index=True)


def _splits(data: MedicalDataModule, table: DataFrame, report: Report) -> dict[str, DataFrame]:
    """The splits and the support, as training makes them."""
    splits = data.split(table[table["split"] != UNUSED])
    if set(table["split"]) <= {"unsplit"}:
        return {"unsplit": table}
    report.problems += data.split_problems(splits)
    if data.zero_shot:
        return splits
    learnt = [splits["train"], splits["valid"], splits["support"]]
    report.problems += patient_problems(concat(learnt), splits["test"], data.published_test)
    try:
        splits["support"] = data.find_support(splits)
        report.support = count_support(splits["support"])
    except MedclipError as error:
        report.problems.append(problem_of(error, "support cannot be drawn", data.where))
    return {**splits, UNUSED: table[table["split"] == UNUSED]}


def _readable(table: DataFrame) -> DataFrame:
    """A row for each picture file that is there."""
    once = table[~table["image_path"].map(os.path.realpath).duplicated()]
    pictures = [is_usable(path) for path in once["image_path"]]
    return once.loc[pictures].reset_index(drop=True)


def _looker(data: MedicalDataModule, side: int) -> Callable[[dict[str, Any]], CheckedImage]:
    resize = MethodResize(side)

    def look_at(row: dict[str, Any]) -> CheckedImage:
        path, ill, outlined = row["image_path"], row["label_index"] == 1, bool(row["has_masks"])
        if not data.in_files:
            look, mask = look_at_pixels(path, data.read_picture(path)), path
        else:
            look, mask = look_at_image(path, data.intensity), row["mask_path"]
            outlined = outlined and is_usable(mask)
            if outlined:
                found = list(mask_problems(mask, look.size, ill, data.lesion_labels is not None))
                look.problems.extend(found)
                outlined = all(one.severity != "error" for one in found)
        if not (ill and outlined):
            return look
        count = count_lesions(data.read_lesion(row), resize)
        look.problems.extend(lesion_problems(mask, count, side))
        return look._replace(lesions=count)

    return look_at


def look_at_image(path: str, intensity: IntensityPolicy) -> CheckedImage:
    """Read a picture file as training does.

    Args:
        path: The file.
        intensity: What to do with more than 8 bits.
    """
    digest = ""
    try:
        digest = sha256(Path(path))
        image = read_image(path, intensity)
    except MedclipError as error:
        kind = "intensity" if isinstance(error, IntensityError) else "unreadable image"
        problems = [problem_of(error, kind, path)]
        if intensity is None and isinstance(error, IntensityError):
            problems += look_at_image(
                path, (0.0, 1.0)
            ).problems  # which only finds what no window can
        return CheckedImage([one for one in problems if one.severity == "error"], digest)
    except OSError as error:  # which no reader has put into words
        said, remedy = f"cannot be read: {error}", "let yourself read it"
        return CheckedImage([Problem("unreadable image", path, said, remedy)], digest)
    return look_at_pixels(path, image)._replace(digest=digest)


def look_at_pixels(path: str, image: Tensor) -> CheckedImage:
    """Look at a picture that has been read.

    Args:
        path: What it is called.
        image: Values in [0, 1], ``(3, height, width)``.
    """
    digest = hashlib.sha256(image.numpy().tobytes()).hexdigest()
    pixels = image.numpy().mean(axis=0)
    height, width = pixels.shape
    look = CheckedImage([], digest, (height, width), float(pixels.mean(dtype=np.float64)))
    if pixels.min() == pixels.max():
        said, remedy = f"has one value everywhere, {pixels.min():.3g}", "look at it, or take it out"
        look.problems.append(Problem("constant image", path, said, remedy, "warning"))
        return look._replace(digest="")  # which is no duplicate of other air
    if max(height, width) > _SQUASHED * min(height, width):
        said = f"is {height} x {width} pixels, and will be squashed to a square"
        remedy = "cut it to what matters, or expect lesions to lose their shape"
        look.problems.append(Problem("far from square", path, said, remedy, "warning"))
    return look._replace(small=small_picture(pixels))


def mask_problems(
    path: str, size: tuple[int, int], abnormal: bool, any_label: bool = False
) -> Iterator[Problem]:
    """What is wrong with a mask that is there.

    Args:
        path: The mask file.
        size: Height and width of its image; zeros where that is not known.
        abnormal: Whether its image is labelled abnormal.
        any_label: Whether the data say which labels are lesions.
    """
    try:
        values = mask_values(path)
    except ImageReadError as error:
        yield problem_of(error, "unreadable mask", path)
        return
    if abnormal:
        try:
            read_mask(path, size if any(size) else (values.shape[0], values.shape[1]))
        except MaskError as error:
            fits = not any(size) or values.shape == size
            kind = "empty mask of an abnormal image" if fits else "mask of another size"
            yield problem_of(error, kind, path)
    if not any_label:
        yield from _value_problems(path, np.unique(values))


def _value_problems(path: str, values: NDArray[Any]) -> Iterator[Problem]:
    """Numbers of a mask that may mean lesion or not."""
    odd = values[~np.isin(values, (0, 1, 255))]
    if not odd.size and not {1, 255} <= set(values.tolist()):
        return
    lossy = Path(path).suffix.lower() in (".jpg", ".jpeg")
    if values.dtype == np.uint8 and values.max() > 127 and (lossy or odd.size > _FEW_GREYS):
        said = f"has {odd.size} greys between black and white, and is cut at half"
        remedy = "store it as PNG of 0 and 255 if small lesions matter"
        yield Problem("soft mask", path, said, remedy, "warning", MaskError)
    else:
        shown = ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
        said = f"holds the values {shown}, and which of them mean lesion is not said"
        remedy = "store it with 0 and 255, or 0 and 1"
        yield Problem("mask values", path, said, remedy, error=MaskError)


def _counts(images: DataFrame) -> dict[str, int]:
    return {
        "normal": int((images["label_index"] == 0).sum()),
        "abnormal": int((images["label_index"] == 1).sum()),
        "patients": int(patients(images).nunique()),
        "unknown": int((images["group"] == "").sum()),
    }
