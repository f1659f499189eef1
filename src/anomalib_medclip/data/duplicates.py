"""Pictures that are one picture twice: by their bytes, or by how they look.

A perceptual hash (Zauner 2010) finds candidates, a correlation confirms them. Resizing, another
file format, brightness and contrast change neither; turning, mirroring and cropping do.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pandas import DataFrame
from PIL import Image
from scipy.fft import dctn

from anomalib_medclip.data.few_shot import UNUSED
from anomalib_medclip.data.integrity import Problem

COMPARED_SIDE = 32
"""Side in pixels of the pictures that are compared."""

# On 253 brain MRI and 149 breast ultrasound pictures with known near-duplicates, these two find
# every known pair, and of 240,000 pairs of brain slices of different patients not one. With 8 bits
# and 0.96, or 6 and 0.95, four of these are taken for one patient.
_FARTHEST = 8
_ALIKE = 0.97
_BLOCK = 1024


class Pair(NamedTuple):
    """Two pictures that look alike.

    Attributes:
        first: Number of one.
        second: Number of the other, which is larger.
        correlation: Of their small pictures, up to 1.
    """

    first: int
    second: int
    correlation: float


def small_picture(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Reduce a picture to ``(SIDE, SIDE)``, stretched to the range 0 to 255.

    Args:
        image: Grey values of any range, ``(height, width)``.
    """
    grey = Image.fromarray(np.ascontiguousarray(image, dtype=np.float32))
    small = np.asarray(grey.resize((COMPARED_SIDE, COMPARED_SIDE), Image.Resampling.LANCZOS))
    low, high = small.min(), small.max()
    stretched: NDArray[np.uint8] = np.rint(255 * (small - low) / max(high - low, 1e-12)).astype(
        np.uint8
    )
    return stretched


def perceptual_hash(small: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The 64 signs of the lowest frequencies, compared with their median.

    Args:
        small: A picture as ``small_picture`` returns it.
    """
    lowest = dctn(small.astype(np.float64), norm="ortho")[:8, :8].ravel()
    signs: NDArray[np.bool_] = lowest > np.median(lowest[1:])
    return signs


def near_duplicates(pictures: Sequence[NDArray[np.uint8]]) -> Iterator[Pair]:
    """All pairs of pictures whose hashes differ in 8 bits at most and that correlate above 0.97.

    Time grows with the square of the number of pictures; memory does not.

    Args:
        pictures: As ``small_picture`` returns them; none is constant.
    """
    if not pictures:
        return
    signs = np.stack([perceptual_hash(one) for one in pictures]).astype(np.float32) * 2 - 1
    for start in range(0, len(signs), _BLOCK):
        block = signs[start : start + _BLOCK]
        differing = (64 - block @ signs[start:].T) / 2
        for row, column in np.argwhere(differing <= _FARTHEST):
            if column > row:
                first, second = int(start + row), int(start + column)
                alike = np.corrcoef(pictures[first].ravel(), pictures[second].ravel())[0, 1]
                if alike > _ALIKE:
                    yield Pair(first, second, float(alike))


def _is_leak(one: Any, other: Any) -> bool:  # noqa: ANN401 - rows
    """Whether one of two rows is learnt from and the other one tested on."""
    return (one.split == "test") != (other.split == "test")


def exact_duplicates(rows: DataFrame) -> Iterator[Problem]:
    """Files with the same bytes: an error across splits or under two labels, else a warning.

    Args:
        rows: Table with ``image_path``, ``split``, ``label_index`` and ``digest``.
    """
    compared = rows[(rows["split"] != UNUSED) & (rows["digest"] != "")]
    for _, same in compared.groupby("digest", sort=False):
        # Learnt ones first, so that it is the tested one that is named.
        ordered: list[Any] = list(
            same.assign(last=same["split"] == "test").sort_values("last").itertuples()
        )
        first = ordered[0]
        for other in ordered[1:]:
            known = f"{first.image_path} ({first.split})"
            if other.label_index != first.label_index:
                said = f"is byte for byte {known}, which has another label"
                remedy = "find out which label is right, and keep that one"
                yield Problem("one image under two labels", other.image_path, said, remedy)
            leak = _is_leak(first, other)
            yield Problem(
                f"duplicate {'across' if leak else 'within'} splits",
                other.image_path,
                f"({other.split}) is byte for byte {known}",
                "keep one of them",
                "error" if leak else "warning",
            )


def near_duplicate_problems(
    rows: DataFrame, pictures: Sequence[NDArray[np.uint8] | None]
) -> Iterator[Problem]:
    """Pictures that look alike, once for each, by the one it is most alike.

    Slices of one known patient in one split are expected to look alike.

    Args:
        rows: Table with ``image_path``, ``split``, ``group``, ``set_name`` and ``digest``.
        pictures: Their small pictures.
    """
    shown = [i for i, one in enumerate(pictures) if one is not None]
    shown = [i for i in shown if rows.at[i, "split"] != UNUSED]
    table: list[Any] = list(rows.iloc[shown].itertuples())
    alike: dict[int, list[tuple[bool, float, int]]] = defaultdict(list)
    for pair in near_duplicates([one for one in (pictures[i] for i in shown) if one is not None]):
        first, second = sorted(pair[:2], key=lambda i: table[i].split == "test")
        one, other = table[first], table[second]
        leak = _is_leak(one, other)
        one_patient = one.group and (one.group, one.set_name) == (other.group, other.set_name)
        if one.digest != other.digest and (leak or not one_patient):
            alike[second].append((leak, pair.correlation, first))
    for number, found in alike.items():
        leak, correlation, first = max(found)
        rest = f", and {len(found) - 1} more" if len(found) > 1 else ""
        yield Problem(
            f"near-duplicate {'across' if leak else 'within'} splits",
            table[number].image_path,
            f"({table[number].split}) looks like {table[first].image_path} ({table[first].split}), "
            f"correlation {correlation:.3f}{rest}",
            "compare them; images of one patient belong in one split",
            "warning",
        )
