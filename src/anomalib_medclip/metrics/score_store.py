"""Every score at 4 bytes, in memory and then on disk, read back in the order of the scores.

Ranks need the order of all scores, but not which pixel had which. So the keys of each class are
kept apart, and no label, index or second copy is stored.
"""

import tempfile
from collections.abc import Iterator
from functools import partial
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from anomalib_medclip.errors import MetricError
from anomalib_medclip.metrics.keys import BLOCK, BUCKETS, Keys, Words, histogram, keys_of
from anomalib_medclip.metrics.tallies import Tally, Weights, by_counting, by_sorting

_FIRST_BUFFER = 1 << 22
_FEW = 1 << 22
"""Words up to which sorting is faster than tables."""

_PASSES = 6
"""Passes over the words beyond which it is faster again."""

_SMALLEST = 1 << 12


class ScoreStore:
    """Scores of normal and abnormal pixels or images, read back as counts in order.

    One buffer holds both classes: normal keys from its beginning, abnormal ones from its end. It
    grows to the budget, and the system gives its memory only as it fills. When it is full it goes
    to disk. Reading needs up to a quarter of the budget besides, and 40 MB.

    Args:
        budget: Bytes of memory, 4096 or more.
        regions: Keep with every abnormal score the number of its region; it then takes 8 bytes.

    Attributes:
        normal: Normal scores kept; ``abnormal``: abnormal ones.
        region_sizes: Pixels of each region, an array a call of ``add``.

    Raises:
        MetricError: The budget is too small, or the disk is full.
    """

    def __init__(self, budget: int, *, regions: bool = False) -> None:
        if budget < _SMALLEST:
            msg = f"{budget} bytes are too few for scores; give memory of {_SMALLEST} bytes or more"
            raise MetricError(msg)
        self.normal = 0
        self.abnormal = 0
        self.region_sizes: list[npt.NDArray[np.int64]] = []
        self._budget = budget // 8 * 8
        self._word: np.dtype[Any] = np.dtype(np.uint64 if regions else np.uint32)
        self._buffer = np.empty(0, dtype=np.uint8)
        self._held = [0, 0]  # words of each class in the buffer
        self._spills: tuple[_Spill, _Spill] | None = None

    def empty(self) -> "ScoreStore":
        """Another one of the same kind, without scores."""
        return ScoreStore(self._budget, regions=self._word.itemsize == 8)

    @property
    def on_disk(self) -> bool:
        """Whether the budget was exceeded."""
        return self._spills is not None

    def add(
        self,
        scores: npt.NDArray[np.float32],
        abnormal: npt.NDArray[np.bool_],
        regions: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Keep finite scores, of one axis.

        Args:
            scores: Of all pixels.
            abnormal: Which of them are.
            regions: Of every abnormal pixel the number of its region, from 0 in each call.
        """
        known = sum(map(len, self.region_sizes))
        if regions is not None:
            self.region_sizes.append(np.bincount(regions))
        ahead = 0
        for start in range(0, len(scores), BLOCK):
            keys, ill = keys_of(scores[start : start + BLOCK]), abnormal[start : start + BLOCK]
            words: Words = keys[ill]
            if regions is not None:
                numbers = regions[ahead : ahead + len(words)].astype(np.uint64) + np.uint64(known)
                words = words.astype(np.uint64) << np.uint64(32) | numbers
            ahead += len(words)
            self.add_words(keys[~ill], words)

    def add_words(self, normal: Keys, abnormal: Words) -> None:
        """Keep what ``words`` of another store gave."""
        added = normal.nbytes + abnormal.nbytes
        self._make_room(added)
        if added > self._free():  # more than the whole budget
            self._write(normal, abnormal)
        else:
            self._held[0] += len(normal)
            self._held[1] += len(abnormal)
            self._front()[self._held[0] - len(normal) :] = normal
            self._back()[: len(abnormal)] = abnormal
        self.normal += len(normal)
        self.abnormal += len(abnormal)

    def word(self, kind: int) -> np.dtype[Any]:
        """Type of the words of the normal (0) or abnormal (1) class."""
        return (np.dtype(np.uint32), self._word)[kind]

    def words(self, kind: int) -> Iterator[Words]:
        """Everything kept of the normal (0) or abnormal (1) class, in blocks."""
        if self._spills is not None:
            yield from self._spills[kind].blocks()
        held = (self._front, self._back)[kind]()
        for start in range(0, len(held), BLOCK):
            yield held[start : start + BLOCK]

    def tallies(self, weights: Weights | None = None) -> Iterator[Tally]:
        """Counts at every distinct score of an abnormal pixel, from the lowest.

        Args:
            weights: What a pixel of each region counts, by the region's number; else one.

        Yields:
            Tallies of up to 2**20 scores; no score is in two of them.
        """
        in_memory = self._spills is None
        if in_memory and self.normal + self.abnormal <= _FEW:
            return by_sorting(self._front(), self._back(), weights)
        self._leave_buffer()
        counts = self._histogram(0), self._histogram(1)
        rows = max(1, self._budget >> (22 if in_memory else 20))
        if in_memory and np.count_nonzero(counts[1]) > _PASSES * rows:
            return by_sorting(self._front(), self._back(), weights)
        return by_counting(partial(self.words, 0), partial(self.words, 1), counts, weights, rows)

    def _histogram(self, kind: int) -> npt.NDArray[np.int64]:
        if self._spills is not None:
            return self._spills[kind].histogram
        return sum((histogram(words) for words in self.words(kind)), np.zeros(BUCKETS, np.int64))

    def _front(self) -> Keys:
        return self._buffer.view(np.uint32)[: self._held[0]]

    def _back(self) -> Words:
        words = self._buffer.view(self._word)
        return words[len(words) - self._held[1] :]

    def _free(self) -> int:
        return len(self._buffer) - 4 * self._held[0] - self._word.itemsize * self._held[1]

    def _make_room(self, size: int) -> None:
        """Enlarge the buffer up to the budget; if that is not enough, empty it to disk."""
        for length in (min(_FIRST_BUFFER, self._budget), self._budget):
            if size > self._free() and length > len(self._buffer):
                front, back = self._front(), self._back()
                self._buffer = np.empty(length, dtype=np.uint8)
                self._front()[:], self._back()[:] = front, back
        if size > self._free():
            self._write(self._front(), self._back())
            self._held = [0, 0]

    def _leave_buffer(self) -> None:
        """Bring the rest to disk, if there is something, so that tables may have the memory."""
        if self._spills is not None:
            self._write(self._front(), self._back())
            self._held = [0, 0]
            self._buffer = np.empty(0, dtype=np.uint8)

    def _write(self, normal: Keys, abnormal: Words) -> None:
        if self._spills is None:
            self._spills = _Spill(np.dtype(np.uint32)), _Spill(self._word)
        for spill, words in zip(self._spills, (normal, abnormal), strict=True):
            spill.write(words)

    def __getstate__(self) -> dict[str, Any]:
        """Only what the buffer holds, for a copy or another process."""
        if self._spills is not None:
            msg = "scores on disk cannot be copied; compute and reset first, or raise memory"
            raise MetricError(msg)
        held = {"front": self._front().copy(), "back": self._back().copy()}
        kind = {"budget": self._budget, "regions": self._word.itemsize == 8}
        return {**kind, **held, "region_sizes": list(self.region_sizes)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Put it into a buffer again."""
        ScoreStore.__init__(self, state["budget"], regions=state["regions"])
        self.region_sizes = state["region_sizes"]
        self.add_words(state["front"], state["back"])


class _Spill:
    """Words on disk in a file without a name, which vanishes with the process, however it ends."""

    def __init__(self, word: np.dtype[Any]) -> None:
        self.histogram = np.zeros(BUCKETS, dtype=np.int64)
        self._word = word
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the store

    def write(self, words: Words) -> None:
        """Append words."""
        try:
            self._file.seek(0, 2)
            for start in range(0, len(words), BLOCK):
                block = words[start : start + BLOCK]
                self._file.write(block.data)
                self.histogram += histogram(block)
            self._file.flush()
        except OSError as error:
            self._file.close()  # no figure may come from some of the scores
            msg = (
                f"cannot write scores to {tempfile.gettempdir()}: {error}; let TMPDIR name a "
                "folder with 4 bytes a pixel, or raise memory"
            )
            raise MetricError(msg) from error

    def blocks(self) -> Iterator[Words]:
        """All words, in the order of writing."""
        self._file.seek(0)
        while found := self._file.read(BLOCK * self._word.itemsize):
            yield np.frombuffer(found, dtype=self._word)
