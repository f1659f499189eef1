"""What is wrong with one picture and its mask, and what to remember of it."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from anomalib_medclip.data.datamodule import MedicalDataModule
from anomalib_medclip.data.duplicates import small_picture
from anomalib_medclip.data.integrity import Problem, cover_problems, is_usable, problem_of
from anomalib_medclip.data.lesions import LesionCount, count_lesions, lesion_problems
from anomalib_medclip.errors import ImageReadError, IntensityError, MaskError, MedclipError
from anomalib_medclip.files import sha256
from anomalib_medclip.readers.intensity import IntensityPolicy
from anomalib_medclip.readers.lesion import MaskLabels, Number, Outline
from anomalib_medclip.readers.masks_among import has_two_values
from anomalib_medclip.readers.picture import check_lesion, read_image, read_outline
from anomalib_medclip.readers.resize import MethodResize

_SQUASHED = 2.0  # the method's square would halve one side of such a picture


class CheckedImage(NamedTuple):
    """What is remembered of a picture file.

    Attributes:
        problems: What is wrong with it and its mask.
        digest: SHA-256 of the file; empty where it cannot be read.
        size: Height and width in pixels; zeros where it cannot be read.
        mean: Mean intensity in [0, 1]; not a number where it cannot be read.
        small: Picture to compare with others; ``None`` where there is nothing to see.
        lesions: What its mask outlines, and what the methods' resize leaves; ``None`` without one.
        two_values: Whether it is black and white, as a mask is.
        number: By which number its mask marks lesions, where that is not said.
    """

    problems: list[Problem]
    digest: str
    size: tuple[int, int] = (0, 0)
    mean: float = float("nan")
    small: NDArray[np.uint8] | None = None
    lesions: LesionCount | None = None
    two_values: bool = False
    number: Number | None = None


def image_checker(data: MedicalDataModule, side: int) -> Callable[[dict[str, Any]], CheckedImage]:
    """What looks at a row of these data's table: its picture, its mask, and the lesions in that.

    Args:
        data: The data, which say how pictures and lesions are read.
        side: Side of the square that a method is to resize masks to, in pixels.
    """
    resize = MethodResize(side)

    def look_at(row: dict[str, Any]) -> CheckedImage:
        path, ill, outlined = row["image_path"], row["label_index"] == 1, bool(row["has_masks"])
        if not data.in_files:
            look, mask = look_at_pixels(path, data.read_picture(path)), path
        else:
            look, mask = look_at_image(path, data.intensity), row["mask_path"]
            outlined = outlined and is_usable(mask)
            if outlined:
                found, number = look_at_mask(mask, look.size, ill, data.mask_labels)
                look = look._replace(problems=[*look.problems, *found], number=number)
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
    return look._replace(small=small_picture(pixels), two_values=has_two_values(pixels))


def look_at_mask(
    path: str,
    size: tuple[int, int],
    abnormal: bool,
    labels: MaskLabels = MaskLabels(),
) -> tuple[list[Problem], Number | None]:
    """What is wrong with a mask that is there, and by which number it marks lesions.

    Args:
        path: The mask file.
        size: Height and width of its image; zeros where that is not known.
        abnormal: Whether its image is labelled abnormal.
        labels: What its numbers mean.
    """
    try:
        outline = read_outline(path, labels)
    except (ImageReadError, MaskError) as error:
        kind = "unreadable mask" if isinstance(error, ImageReadError) else "mask values"
        return [problem_of(error, kind, path)], None
    return list(_outline_problems(path, outline, size, abnormal)), outline.number


def _outline_problems(
    path: str, outline: Outline, size: tuple[int, int], abnormal: bool
) -> Iterator[Problem]:
    lesion = outline.lesion
    if abnormal:
        try:
            check_lesion(path, lesion, size if any(size) else (lesion.shape[0], lesion.shape[1]))
        except MaskError as error:
            fits = not any(size) or lesion.shape == size
            kind = "empty mask of an abnormal image" if fits else "mask of another size"
            yield problem_of(error, kind, path)
    yield from cover_problems(path, outline.marks)
    if outline.greys:
        said = f"has {outline.greys} greys beside black, and is cut at half of the brightest"
        remedy = "store it as PNG of 0 and 255 if small lesions matter"
        yield Problem("soft mask", path, said, remedy, "warning", MaskError)
