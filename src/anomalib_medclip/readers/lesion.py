"""What the numbers of a mask mean: where it marks a lesion, or a question where it may be two."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from anomalib_medclip.errors import MaskError
from anomalib_medclip.readers.label_map import (
    AS_GREY,
    BY_LABELS,
    check_named,
    check_whole,
    labels_of,
    some,
    unclear,
)
from anomalib_medclip.readers.soft_mask import (
    FAINT,
    FEW,
    has_areas_apart,
    has_areas_between,
    is_flat,
    is_soft,
)
from anomalib_medclip.readers.stored import Stored

LesionLabels: TypeAlias = tuple[int, ...] | Literal["all"]
"""Which numbers of a mask are lesions: these, or all but 0."""

Number: TypeAlias = int | str
"""A number of a mask, or its colour in words."""

LESION, IGNORED = 1, 2
"""What a pixel of a mask is marked as, where it is not healthy, which is 0. What is ignored is not
known to be healthy or not, and counts in no loss and in no figure."""


_DARK = 32
"""Of 255: the peak of a mask below which its compression may have made it of an empty one."""

_ONE_HUE = 0.25
"""By how much the colours of one lesion may differ, each divided by its brightest channel."""


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
        if both := self._lesions & {*self.ignored}:
            msg = f"lesion_labels and ignore_labels both name {some(sorted(both))}; leave out one"
            raise MaskError(msg)

    @property
    def _lesions(self) -> set[int]:
        return set() if self.lesion is None or self.lesion == "all" else {*self.lesion}

    @property
    def named(self) -> set[int]:
        """Numbers that are said to mean something."""
        return self._lesions | {*self.ignored}

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
        """Numbers of a map of labels that may mean lesion or not, where none is named.

        One below 0 does so by itself: it is often what nobody knows.
        """
        found = self._left(labels)
        return found if len(found) > 1 or min(found, default=0) < 0 else []

    def number(self, labels: NDArray[Any]) -> int | None:
        """The one number of a map of labels that means lesion without being named."""
        return next((int(one) for one in self._left(labels)), None)

    def _left(self, labels: NDArray[Any]) -> list[int]:
        """Numbers beside 0 of which nothing is said."""
        if self.lesion is not None:
            return []
        return sorted({*np.unique(labels).tolist()} - {0, *self.ignored})


class Outline(NamedTuple):
    """What a mask marks.

    Attributes:
        marks: ``LESION``, ``IGNORED`` or 0 at each pixel, ``(row, column)``.
        greys: Of a mask with soft edges, which is cut at half of its peak, how many greys it has
            beside black; else 0.
        number: By which number or colour it marks a lesion, where that is not said, and it is
            neither soft nor of one bit; see ``anomalib_medclip.readers.lesion_number``.
    """

    marks: NDArray[np.uint8]
    greys: int = 0
    number: Number | None = None

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
    stored = _without_idle(stored, path, labels)
    outline = _drawn(stored, path) if labels == MaskLabels() else _labelled(stored, path, labels)
    if stored.alpha is not None and (outline.lesion & (stored.alpha == 0)).any():
        raise unclear(path, "marks pixels that are transparent", "whether they count", AS_GREY)
    return outline


def _without_idle(stored: Stored, path: str | Path, labels: MaskLabels) -> Stored:
    """Colours or transparency alone, where the other is one everywhere and so says nothing."""
    alpha = stored.alpha
    if alpha is None or (alpha == alpha.flat[0]).all():
        return stored._replace(alpha=None)
    colour = stored.numbers[:1, :1]
    if not (stored.numbers == colour).all():
        return stored
    named = labels.named - {*np.unique(alpha).tolist()}
    if idle := named.intersection(colour.ravel().tolist()):
        said = f"is {min(idle)} everywhere, a label, and marks something by its transparency"
        raise unclear(path, said, "which of the two counts", AS_GREY)
    return Stored(alpha, stored.bits, lossy=stored.lossy)


def _labelled(stored: Stored, path: str | Path, labels: MaskLabels) -> Outline:
    """What labels say of a mask's numbers."""
    numbers = labels_of(stored, path)
    if stored.palette is not None:
        check_named(stored, numbers, labels.named, path)
    if is_soft(numbers):
        raise unclear(path, "has soft edges", "which of its greys a label names", AS_GREY)
    if several := labels.unclear(numbers):
        said = f"holds {some(several)} beside 0 and {some(labels.ignored)}"
        raise unclear(path, said, "which of them mean lesion")
    number = None if stored.bits == 1 else labels.number(numbers)
    return Outline(labels.marks(numbers), number=number)


def _drawn(stored: Stored, path: str | Path) -> Outline:
    """The one thing that a mask can mean of which nothing is said."""
    numbers = _greys(stored, path)
    outline = _cut(numbers, path, stored.lossy)
    if outline.greys or stored.lossy or stored.bits == 1 or not outline.lesion.any():
        return outline
    shown = stored.numbers if stored.numbers.ndim == 3 else numbers
    first = np.atleast_1d(shown[outline.lesion][0]).tolist()
    if len({*first}) == 1:
        return outline._replace(number=int(first[0]))
    return outline._replace(number=f"red, green and blue {first}")


def _greys(stored: Stored, path: str | Path) -> NDArray[Any]:
    """The numbers of a mask, ``(row, column)``, where they can mean one thing only."""
    if stored.palette is not None:
        shown = stored.as_bytes()
        odd = (shown.max(axis=2) == 0) != (stored.numbers == 0)
        if odd.any():
            number, colour = stored.numbers[odd][0], shown[odd][0].tolist()
            said = f"has a palette that shows its number {number} as red, green and blue {colour}"
            raise unclear(path, said, "whether it means lesion")
        if len(np.unique(stored.numbers)) <= FEW + 1:
            return labels_of(stored, path)
        stored = Stored(shown)  # with soft edges, of which places in a palette know nothing
    numbers = stored.numbers
    if numbers.ndim == 2 or (numbers == numbers[..., :1]).all():
        return labels_of(stored._replace(lossy=False), path)
    return _one_colour(numbers, path, stored.lossy)


def _one_colour(colours: NDArray[Any], path: str | Path, lossy: bool) -> NDArray[Any]:
    """The brightest channel of a mask in which one colour marks the lesion on black."""
    check_whole(colours, path)
    if (colours < 0).any():
        said = f"has colours below 0, such as {colours.min()}"
        raise unclear(path, said, "whether they mean lesion", AS_GREY)
    brightest: NDArray[Any] = colours.max(axis=2)
    different = np.unique(colours[brightest > 0], axis=0)
    if not lossy and len(different) <= FEW:
        several = len(different) > 1
    else:  # edges may have any colour, areas have one
        grey = (colours / brightest.max()).astype(np.float32)
        areas = colours[is_flat(grey, lossy) & (grey.max(axis=2) > FAINT)]
        hues = areas / areas.max(axis=1, keepdims=True)
        several = len(hues) > 0 and bool((np.ptp(hues, axis=0) > _ONE_HUE).any())
    if several:
        three = different[:: -(-len(different) // 3)].tolist()
        said = f"has several colours, such as {some(three)} of red, green and blue"
        raise unclear(path, said, "which of them mean lesion", AS_GREY)
    return brightest


def _cut(numbers: NDArray[Any], path: str | Path, lossy: bool) -> Outline:
    """The pixels that are not 0, or of a soft mask those above half of its peak."""
    values = np.unique(numbers)
    beside = values[values != 0]
    if not len(beside):
        return _marked(numbers != 0)
    few = not lossy and len(beside) <= FEW
    if beside[0] < 0 or (few and len(beside) > 1):
        said = f"holds {some(beside)}{' beside 0' if len(beside) < len(values) else ''}"
        raise unclear(path, said, "which of them mean lesion")
    if lossy and beside[-1] < _DARK:
        said = f"is dark all over, {beside[-1]} of 255 at its brightest, and of a lossy kind"
        raise unclear(path, said, "whether that is a lesion", f"{AS_GREY}, as PNG")
    if len(beside) == 1:
        return _marked(numbers != 0)
    if has_areas_between(numbers, lossy) or has_areas_apart(numbers, lossy):
        said = f"has areas of grey between black and its brightest, {beside[-1]}"
        remedy = AS_GREY if lossy else BY_LABELS
        raise unclear(path, said, "whether they mean lesion", remedy)
    return _marked(numbers > beside[-1] / 2, len(beside))


def _marked(lesion: NDArray[np.bool_], greys: int = 0) -> Outline:
    return Outline(lesion * np.uint8(LESION), greys)
