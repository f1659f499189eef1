"""The numbers of a map of labels, however it is stored, or why it has none."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomalib_medclip.errors import ImageReadError, MaskError
from anomalib_medclip.readers.stored import Stored

AS_GREY = "store it as grey, with 255 on the lesion and 0 elsewhere"
"""What helps, whatever a mask is."""

BY_LABELS = (
    "say which numbers are lesions by 'lesion_labels', an option of the data, such as [1], or all, "
    f"and which are not known by 'ignore_labels'; or {AS_GREY}"
)
"""What helps where a mask has labels."""


def unclear(path: str | Path, said: str, what: str, remedy: str = BY_LABELS) -> MaskError:
    """The error of a mask that can mean two things: what it is, and what of it is not said."""
    return MaskError(f"mask {path} {said}, and {what} is not said; {remedy}")


def some(numbers: Sequence[object]) -> str:
    """The first few numbers, as words of a sentence."""
    return " and ".join(map(str, numbers[:3])) + (" and more" if len(numbers) > 3 else "")


def labels_of(stored: Stored, path: str | Path) -> NDArray[Any]:
    """The numbers of a map of labels: its greys, or the places in a coloured palette.

    Which of the two, the whole palette says, and not what of it one file happens to use.

    Raises:
        ImageReadError: They are not whole.
        MaskError: It is in colour, or its compression has changed them.
    """
    if stored.lossy:
        msg = f"mask {path} has no labels left, since JPEG has blurred them; store it as PNG"
        raise MaskError(msg)
    numbers = stored.numbers
    if stored.palette is not None:
        return stored.as_bytes()[..., 0] if _is_grey(stored.palette) else numbers
    if numbers.ndim == 3 and (numbers != numbers[..., :1]).any():
        msg = f"mask {path} is in colour, and so has no labels; store it as grey or by a palette"
        raise MaskError(msg)
    numbers = numbers[..., 0] if numbers.ndim == 3 else numbers
    check_whole(numbers, path)
    if not stored.inverted:
        return numbers
    if numbers.dtype.kind != "u":
        msg = f"mask {path} calls 0 white, but has numbers with a sign; store it with 0 as black"
        raise MaskError(msg)
    return stored.white - numbers


def check_whole(numbers: NDArray[Any], path: str | Path) -> None:
    """Refuse numbers that are not whole.

    Raises:
        ImageReadError: Of such.
    """
    with np.errstate(invalid="ignore"):  # NaN, which is not whole either
        whole = (numbers == np.rint(numbers)).all()
    if not whole:
        msg = f"cannot read image {path}: a mask of numbers that are not whole; threshold it first"
        raise ImageReadError(msg)


def _is_grey(colours: NDArray[np.uint8]) -> bool:
    """Whether colours ``(..., channel)`` are greys."""
    return bool((colours == colours[..., :1]).all())


def check_named(stored: Stored, numbers: NDArray[Any], named: set[int], path: str | Path) -> None:
    """Refuse labels that name greys where places in a palette count, or the other way round.

    Args:
        stored: A mask with a palette.
        numbers: What ``labels_of`` takes for its labels.
        named: Numbers that are said to mean something.
        path: What it is called.

    Raises:
        MaskError: Of such.
    """
    shown = stored.as_bytes()
    if not _is_grey(shown):
        return
    greys, places = shown[..., 0], stored.numbers
    other = greys if numbers is places else places
    strange = np.isin(other, [*named]) & (other != 0)
    if strange.any() and not (np.isin(numbers, [*named]) & (numbers != 0)).any():
        place, grey, right = places[strange][0], greys[strange][0], numbers[strange][0]
        said = f"has a palette that shows its number {place} as grey {grey}"
        remedy = f"name {right} in 'lesion_labels' or 'ignore_labels', or store it as grey"
        raise unclear(path, said, "which of the two a label names", remedy)
