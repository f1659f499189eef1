"""Lesions that a model's resize leaves nothing of."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.tv_tensors import Mask

from anomalib_medclip.data.integrity import Problem
from anomalib_medclip.readers.picture import lesion_numbers
from anomalib_medclip.readers.resize import MethodResize


class LesionCount(NamedTuple):
    """What is in the mask of one image, and what a resize takes from it.

    Attributes:
        lesions: Separate lesions.
        lost: Those of which no pixel is left.
    """

    lesions: int
    lost: int


def count_lesions(lesion: NDArray[np.bool_], resize: Callable[[Mask], Any]) -> LesionCount:
    """Count lesions before and after a resize.

    Args:
        lesion: Where there is one, ``(height, width)``.
        resize: What a model does to a mask: by nearest neighbour, or ``MethodResize`` by area.
    """
    numbers = lesion_numbers(lesion)
    every = set(range(1, int(numbers.max()) + 1))
    if (
        isinstance(resize, MethodResize) and resize.masks == "area"
    ):  # which loses none, and knows no numbers
        return LesionCount(len(every), 0)
    left = resize(Mask(torch.from_numpy(numbers))).unique().tolist()
    return LesionCount(len(every), len(every.difference(left)))


def total(counts: Iterable[LesionCount]) -> dict[str, int]:
    """Counts of many images together: ``images``, ``lesions``, and of both how many are lost."""
    every = [one for one in counts if one.lesions]
    return {
        "images": len(every),
        "images_lost": sum(one.lost == one.lesions for one in every),
        "lesions": sum(one.lesions for one in every),
        "lesions_lost": sum(one.lost for one in every),
    }


def lesion_problems(path: str, count: LesionCount, side: int) -> Iterator[Problem]:
    """A warning if a method would not be shown every lesion of a mask.

    Args:
        path: The mask.
        count: Its lesions.
        side: Side of the square it is resized to, in pixels.
    """
    if count.lost:
        kind = "no lesion left" if count.lost == count.lesions else "lesions lost"
        said = f"has {count.lesions} lesions, of which {count.lost} have no pixel left when it is "
        said += f"resized to {side} x {side}"
        remedy = "take a larger image_size, crop to the organ, or resize masks by area"
        yield Problem(kind, path, said, remedy, "warning")
