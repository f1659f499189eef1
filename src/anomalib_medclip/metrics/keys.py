"""Scores as whole numbers of the same order: a plain sort or a table of counts is then enough."""

from typing import Any

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint32]
Words = npt.NDArray[Any]
"""Keys as they are, or as the upper half of 8 bytes, above the number of a region."""

BLOCK = 1 << 20
"""Words handled at a time; a step needs some 30 times that in bytes."""

BUCKETS = 1 << 16
"""Values of the upper 16 bits of a key, and as many of the lower ones."""


def keys_of(scores: npt.NDArray[np.float32]) -> Keys:
    """Whole numbers in the order of finite scores, equal where those are; -0.0 equals 0.0.

    Example:
        >>> keys_of(np.array([-2.0, -0.0, 0.0, 1.0], dtype=np.float32))
        array([1073741823, 2147483648, 2147483648, 3212836864], dtype=uint32)
    """
    bits = (scores + np.float32(0)).view(np.uint32)  # adding zero makes -0.0 to 0.0
    # Negative floats are ordered from their sign bit downwards, the others upwards.
    return bits ^ np.where(bits >> 31, np.uint32(0xFFFFFFFF), np.uint32(0x80000000))


def scores_of(keys: Keys) -> npt.NDArray[np.float32]:
    """Undo ``keys_of``."""
    bits = keys ^ np.where(keys >> 31, np.uint32(0x80000000), np.uint32(0xFFFFFFFF))
    return bits.view(np.float32)


def bucket_of(words: Words) -> Words:
    """Upper 16 bits of each key."""
    return words >> words.dtype.type(8 * words.itemsize - 16)


def histogram(words: Words) -> npt.NDArray[np.int64]:
    """How many keys are in each bucket."""
    return np.bincount(bucket_of(words).astype(np.int64), minlength=BUCKETS)


def split(words: Words) -> tuple[Keys, npt.NDArray[np.int64] | None]:
    """Keys and, of words of 8 bytes, the numbers of their regions."""
    if words.dtype == np.uint32:
        return words, None
    numbers = (words & np.uint64(0xFFFFFFFF)).astype(np.int64)
    return (words >> np.uint64(32)).astype(np.uint32), numbers
