"""What the numbers of a mask mean: where it marks a lesion, or a question where it may be two."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from anomalib_medclip.errors import ImageReadError, MaskError
from anomalib_medclip.readers.stored import Stored

LesionLabels: TypeAlias = tuple[int, ...] | Literal["all"]
"""Which numbers of a mask are lesions: these, or all but 0."""

LESION, IGNORED = 1, 2
"""What a pixel of a mask is marked as, where it is not healthy, which is 0. What is ignored is not
known to be healthy or not, and counts in no loss and in no figure."""


@dataclass(frozen=True)
class MaskLabels:
    """What the numbers of masks mean.

    Attributes:
        lesion: Which are lesions, where there may be more than 0 and one other.
        ignored: Which mean that nobody knows, such as 255; one may be 0.

    Raises:
        MaskError: A number is to be both.
    """

    lesion: LesionLabels | None = None
    ignored: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse numbers that are to mean two things."""
        named = () if self.lesion is None or self.lesion == "all" else self.lesion
        if both := set(named) & set(self.ignored):
            msg = f"lesion_labels and ignore_labels both name {_some(sorted(both))}; leave out one"
            raise MaskError(msg)

    def marks(self, labels: NDArray[Any]) -> NDArray[np.uint8]:
        """``LESION``, ``IGNORED`` or 0 for each number of a map of labels of any shape.

        Without numbers of lesions all that are left beside 0 are.
        """
        ignored = np.isin(labels, self.ignored)
        if self.lesion is None or self.lesion == "all":
            lesion = (labels != 0) & ~ignored
        else:
            lesion = np.isin(labels, self.lesion)
        marks = lesion * np.uint8(LESION)
        marks[ignored] = IGNORED
        return marks

    def unclear(self, labels: NDArray[Any]) -> list[int]:
        """Numbers of a map of labels of which more than one may mean lesion, and none is named."""
        if self.lesion is not None:
            return []
        found = sorted({*np.unique(labels).tolist()} - {0, *self.ignored})
        return found if len(found) > 1 else []


_FEW = 8
"""Numbers beside 0 that a map of labels may have; the edges of a soft mask have more."""

_FLAT = (1 / 32, 1 / 12)
"""How little an area changes from pixel to pixel, as a part of the peak; more where its compression
has changed it."""

_BETWEEN = (0.2, 0.75)
"""What is neither black nor bright, as parts of the peak."""

_SOME = 0.02
"""Of what is not black, the part that such areas may be by chance."""

_ONE_HUE = 0.25
"""By how much the colours of one lesion may differ, each divided by its brightest channel."""

_AS_GREY = "store it as grey, with 255 on the lesion and 0 elsewhere"
_BY_LABELS = (
    "say which numbers are lesions by 'lesion_labels', an option of the data, such as [1], or all, "
    f"and which are not known by 'ignore_labels'; or {_AS_GREY}"
)


def _unclear(path: str | Path, said: str, what: str, remedy: str = _BY_LABELS) -> MaskError:
    return MaskError(f"mask {path} {said}, and {what} is not said; {remedy}")


class Outline(NamedTuple):
    """What a mask marks.

    Attributes:
        marks: ``LESION``, ``IGNORED`` or 0 at each pixel, ``(row, column)``.
        greys: Of a mask with soft edges, which is cut at half of its peak, how many greys it has
            beside black; else 0.
    """

    marks: NDArray[np.uint8]
    greys: int = 0

    @property
    def lesion(self) -> NDArray[np.bool_]:
        """Where there is a lesion."""
        return self.marks == LESION


def outline_of(stored: Stored, path: str | Path, labels: MaskLabels = MaskLabels()) -> Outline:
    """Where a mask marks a lesion.

    Without labels it holds 0 and one number, whichever, or soft edges of one grey or colour.

    Args:
        stored: What the mask file holds.
        path: What it is called.
        labels: What its numbers mean, see ``labels_of``.

    Raises:
        ImageReadError: Its numbers are not whole.
        MaskError: Its numbers, colours or transparency can mean several things.
    """
    if labels != MaskLabels():
        numbers = labels_of(stored, path)
        if several := labels.unclear(numbers):
            said = f"holds {_some(several)} beside 0 and {_some(labels.ignored)}"
            raise _unclear(path, said, "which of them mean lesion")
        return Outline(labels.marks(numbers))
    alpha = stored.alpha
    if alpha is not None and (alpha == alpha.flat[0]).all():
        alpha = None  # it says nothing
    if alpha is not None and (stored.numbers == stored.numbers[:1, :1]).all():
        return _cut(alpha, path, stored.lossy)  # nor does the one colour
    outline = _cut(_greys(stored, path), path, stored.lossy)
    if alpha is not None and (outline.lesion & (alpha == 0)).any():
        raise _unclear(path, "marks pixels that are transparent", "whether they count", _AS_GREY)
    return outline


def _some(numbers: Sequence[int]) -> str:
    return " and ".join(map(str, numbers[:3])) + (" and more" if len(numbers) > 3 else "")


def labels_of(stored: Stored, path: str | Path) -> NDArray[Any]:
    """The numbers of a map of labels: its greys, or the places in a coloured palette.

    Raises:
        ImageReadError: They are not whole.
        MaskError: It is in colour, or its compression has changed them.
    """
    if stored.lossy:
        msg = f"mask {path} has no labels left, since JPEG has blurred them; store it as PNG"
        raise MaskError(msg)
    numbers = stored.numbers
    if stored.palette is not None:
        return _palette_greys(stored.palette, numbers)
    if numbers.ndim == 3 and (numbers != numbers[..., :1]).any():
        msg = f"mask {path} is in colour, and so has no labels; store it as grey or by a palette"
        raise MaskError(msg)
    numbers = numbers[..., 0] if numbers.ndim == 3 else numbers
    with np.errstate(invalid="ignore"):  # NaN, which is not whole either
        whole = (numbers == np.rint(numbers)).all()
    if not whole:
        msg = f"cannot read image {path}: a mask of numbers that are not whole; threshold it first"
        raise ImageReadError(msg)
    if not stored.inverted:
        return numbers
    if numbers.dtype.kind != "u":
        msg = f"mask {path} calls 0 white, but has numbers with a sign; store it with 0 as black"
        raise MaskError(msg)
    return stored.white - numbers


def _palette_greys(palette: NDArray[np.uint8], numbers: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What a palette without colours shows; else the places in it."""
    used = palette[np.unique(numbers)]
    return palette[numbers][..., 0] if (used == used[:, :1]).all() else numbers


def _greys(stored: Stored, path: str | Path) -> NDArray[Any]:
    """The numbers of a mask, ``(row, column)``, where they can mean one thing only."""
    if stored.palette is not None:
        shown, numbers = stored.as_bytes(), labels_of(stored._replace(lossy=False), path)
        odd = (shown.max(axis=2) == 0) != (stored.numbers == 0)
        if odd.any():
            number, colour = stored.numbers[odd][0], shown[odd][0].tolist()
            said = f"has a palette that shows its number {number} as red, green and blue {colour}"
            raise _unclear(path, said, "whether it means lesion")
        return numbers
    numbers = stored.numbers
    if numbers.ndim == 2 or (numbers == numbers[..., :1]).all():
        return labels_of(stored._replace(lossy=False), path)
    return _one_colour(numbers, path, stored.lossy)


def _one_colour(colours: NDArray[Any], path: str | Path, lossy: bool) -> NDArray[Any]:
    """The brightest channel of a mask in which one colour marks the lesion on black."""
    brightest: NDArray[Any] = colours.max(axis=2)
    different = np.unique(colours[brightest > 0], axis=0)
    if not lossy and len(different) <= _FEW:
        several = len(different) > 1
    else:  # edges may have any colour, areas have one
        grey = (colours / brightest.max()).astype(np.float32)
        areas = colours[_is_flat(grey, lossy) & (grey.max(axis=2) > _BETWEEN[0])]
        hues = areas / areas.max(axis=1, keepdims=True)
        several = len(hues) > 0 and bool((np.ptp(hues, axis=0) > _ONE_HUE).any())
    if several:
        some = different[:: -(-len(different) // 3)].tolist()
        said = f"has several colours, such as {' and '.join(map(str, some))} of red, green and blue"
        raise _unclear(path, said, "which of them mean lesion", _AS_GREY)
    return brightest


def _cut(numbers: NDArray[Any], path: str | Path, lossy: bool) -> Outline:
    """The pixels that are not 0, or of a soft mask those above half of its peak."""
    values = np.unique(numbers)
    beside = values[values != 0]
    if len(beside) <= 1:
        return _marked(numbers != 0)
    if not lossy and (len(beside) <= _FEW or beside[0] < 0):
        said = f"holds {_some(beside)}{' beside 0' if len(beside) < len(values) else ''}"
        raise _unclear(path, said, "which of them mean lesion")
    grey = (numbers / beside[-1]).astype(np.float32)
    if _has_areas_between(grey, lossy):
        said = f"has areas of grey between black and its brightest, {beside[-1]}"
        raise _unclear(path, said, "whether they mean lesion")
    return _marked(grey > 0.5, len(beside))


def _marked(lesion: NDArray[np.bool_], greys: int = 0) -> Outline:
    return Outline(lesion * np.uint8(LESION), greys)


def _has_areas_between(grey: NDArray[np.float32], lossy: bool) -> bool:
    """Whether a soft mask has more than edges between black and its peak, which is 1."""
    between = _is_flat(grey, lossy) & (grey > _BETWEEN[0]) & (grey < _BETWEEN[1])
    return bool(np.count_nonzero(between) > _FEW + _SOME * np.count_nonzero(grey > _BETWEEN[0]))


def _is_flat(grey: NDArray[np.float32], lossy: bool) -> NDArray[np.bool_]:
    """Where a picture, whose peak is 1, hardly changes from pixel to pixel in any channel."""
    import cv2  # only for the rare soft mask; the import takes a while

    around = np.ones((3, 3), np.uint8)
    flat: NDArray[np.bool_] = cv2.dilate(grey, around) - cv2.erode(grey, around) <= _FLAT[lossy]
    return flat if flat.ndim == 2 else np.all(flat, axis=2)
