"""Counts at each score, from words in any order: by sorting a few, by tables of counts for many."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from anomalib_medclip.metrics.keys import (
    BLOCK,
    BUCKETS,
    Keys,
    Words,
    bucket_of,
    scores_of,
    split,
)

Weights = npt.NDArray[np.float64]
Blocks = Callable[[], Iterator[Words]]
"""Begins to read all words of a class again."""


class Tally(NamedTuple):
    """Some of the distinct scores of abnormal pixels, lowest first, with what lies there and below.

    All are arrays of one length. Scores of normal pixels alone are left out: between two abnormal
    ones they change no figure but ``below``.
    """

    scores: npt.NDArray[np.float32]
    abnormal: npt.NDArray[Any]
    """Abnormal pixels of this score, or the sum of their weights."""
    equal: npt.NDArray[np.int64]
    """Normal pixels of this score."""
    below: npt.NDArray[np.int64]
    """Normal pixels of lower scores."""

    def part(self, start: int | None, stop: int | None) -> "Tally":
        """Some of its scores."""
        at = slice(start, stop)
        return Tally(self.scores[at], self.abnormal[at], self.equal[at], self.below[at])


def by_sorting(normal: Keys, abnormal: Words, weights: Weights | None) -> Iterator[Tally]:
    """Sort both classes in place, and count.

    Args:
        normal: Keys; left sorted, as is ``abnormal``.
        abnormal: Words.
        weights: What an abnormal word of each region counts; else one.
    """
    normal.sort()
    abnormal.sort()
    held: Tally | None = None
    for start in range(0, len(abnormal), BLOCK):
        tally = _of_sorted(normal, abnormal[start : start + BLOCK], weights)
        if held is not None and held.scores[0] == tally.scores[0]:  # a tie across blocks
            tally.abnormal[0] += held.abnormal[0]
        elif held is not None:
            yield held
        yield tally.part(None, -1)
        held = tally.part(-1, None)
    if held is not None:
        yield held


def by_counting(
    normal: Blocks,
    abnormal: Blocks,
    histograms: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    weights: Weights | None,
    rows: int,
) -> Iterator[Tally]:
    """Count in tables: a row for each bucket with abnormal words, a column for each key in it.

    Every pass over the words fills so many rows. Words stay as they are and where they are.

    Args:
        normal: Reads the words of normal pixels.
        abnormal: Reads those of abnormal ones.
        histograms: Normal and abnormal words in each bucket.
        weights: What an abnormal word of each region counts; else one.
        rows: Rows of a table; each takes up to 1 MB.
    """
    lower = np.cumsum(histograms[0]) - histograms[0]
    filled = np.flatnonzero(histograms[1])
    # A count in four bytes, unless so many of one score are possible.
    wide = max(int(counts.max()) for counts in histograms) >= 1 << 32
    kind = np.dtype(np.uint64 if wide else np.uint32)
    for start in range(0, len(filled), rows):
        buckets = filled[start : start + rows]
        tables = [
            _table(normal, buckets, None, kind),
            _table(abnormal, buckets, weights, kind if weights is None else _FLOAT),
        ]
        for number, bucket in enumerate(buckets.tolist()):
            yield _of_tables(bucket, tables[0][number], tables[1][number], int(lower[bucket]))
        del tables  # before the next ones are made


def _of_tables(bucket: int, row: npt.NDArray[Any], amounts: npt.NDArray[Any], lower: int) -> Tally:
    """Counts of one bucket: normal and abnormal words by lower 16 bits, normal ones below it."""
    here = np.flatnonzero(amounts)
    equal = row.astype(np.int64)
    below = np.cumsum(equal) - equal + lower
    amount = amounts[here].astype(np.float64 if amounts.dtype == _FLOAT else np.int64)
    scores = scores_of((here + (bucket << 16)).astype(np.uint32))
    return Tally(scores, amount, equal[here], below[here])


_FLOAT = np.dtype(np.float64)


def _of_sorted(normal: Keys, words: Words, weights: Weights | None) -> Tally:
    keys, numbers = split(words)
    first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    if weights is None or numbers is None:
        amount: npt.NDArray[Any] = np.diff(first, append=len(keys))
    else:
        amount = np.add.reduceat(weights[numbers], first)
    distinct = keys[first]
    below = np.searchsorted(normal, distinct, side="left")
    equal = np.searchsorted(normal, distinct, side="right") - below
    return Tally(scores_of(distinct), amount, equal, below)


def _table(
    blocks: Blocks, buckets: npt.NDArray[np.int64], weights: Weights | None, kind: np.dtype[Any]
) -> npt.NDArray[Any]:
    """Counts, or sums of weights, ``[bucket, lower 16 bits of the key]``."""
    table = np.zeros((len(buckets), BUCKETS), dtype=kind)
    row_of = np.full(BUCKETS, -1, dtype=np.int64)
    row_of[buckets] = np.arange(len(buckets)) * BUCKETS
    one = kind.type(1)
    for words in blocks():
        rows = row_of[bucket_of(words)]
        inside = np.flatnonzero(rows >= 0)
        keys, numbers = split(words[inside])
        places = rows[inside] + (keys & np.uint32(0xFFFF))
        added = one if weights is None or numbers is None else weights[numbers]
        np.add.at(table.reshape(-1), places, added)
    return table
