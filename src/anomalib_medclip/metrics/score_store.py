"""Every score at 4 bytes, in memory and then on disk, read back in the order of the scores.

Ranks need the order of all scores, but not which pixel had which. So a score is kept as a whole
number of the same order, its key, with the keys of its class: a plain in-place sort is then enough,
and no label, index or second copy is stored.
"""

import tempfile
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from anomalib_medclip.errors import MetricError

Keys = npt.NDArray[np.uint32]
Words = npt.NDArray[Any]
"""Keys, or keys above the 32 bits of a region's number."""

_BLOCK = 1 << 20
"""Scores handled at a time; what a step needs besides the store is some 30 times that in bytes."""

_FIRST_BUFFER = 1 << 22
_BUCKETS = 1 << 16
_SMALLEST = 1 << 12


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


class _Spill:
    """Words on disk in a file without a name, which vanishes with the process, however it ends."""

    def __init__(self, word: np.dtype[Any]) -> None:
        self.word = word
        self.histogram = np.zeros(_BUCKETS, dtype=np.int64)
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the store

    def write(self, words: Words) -> None:
        """Append words; full or not at all as far as the histogram knows."""
        try:
            self._file.seek(0, 2)
            for start in range(0, len(words), _BLOCK):
                block = words[start : start + _BLOCK]
                self._file.write(block.data)
                self.histogram += np.bincount(_bucket(block), minlength=_BUCKETS)
            self._file.flush()
        except OSError as error:
            msg = (
                f"cannot write scores to {tempfile.gettempdir()}: {error}; let TMPDIR name a folder "
                "with 4 bytes a pixel, or raise memory"
            )
            raise MetricError(msg) from error

    def blocks(self, first: int = 0, last: int = _BUCKETS) -> Iterator[Words]:
        """Words whose upper 16 bits are in [``first``, ``last``), in the order of writing."""
        if not self.histogram[first:last].any():
            return
        self._file.seek(0)
        while found := self._file.read(_BLOCK * self.word.itemsize):
            words = np.frombuffer(found, dtype=self.word)
            bucket = _bucket(words)
            yield words[(bucket >= first) & (bucket < last)]


class ScoreStore:
    """Scores of normal and abnormal pixels or images, read back as counts in order.

    One buffer holds both classes: normal keys from its beginning, abnormal ones from its end. It
    grows to the budget, and the system gives its memory only as it fills. When it is full it goes
    to disk. Reading needs about 40 MB besides.

    Args:
        budget: Bytes of memory, 4096 or more.
        regions: Keep with every abnormal score the number of its region; it then takes 8 bytes.

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
        for start in range(0, len(scores), _BLOCK):
            keys, ill = keys_of(scores[start : start + _BLOCK]), abnormal[start : start + _BLOCK]
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
        for start in range(0, len(held), _BLOCK):
            yield held[start : start + _BLOCK]

    def tallies(self, weights: npt.NDArray[np.float64] | None = None) -> Iterator[Tally]:
        """Counts at every distinct score of an abnormal pixel, from the lowest.

        Args:
            weights: What a pixel of each region counts, by the region's number; else one.

        Yields:
            Tallies of up to 2**20 scores; no score is in two of them.
        """
        if self._spills is None:
            found = _of_sorted(self._front(), self._back(), weights)
            yield from _whole_ties(found)
            return
        self._write(self._front(), self._back())
        self._held = [0, 0]
        try:
            yield from _whole_ties(self._from_disk(weights))
        finally:
            self._held = [0, 0]  # what was loaded is still on disk

    def _from_disk(self, weights: npt.NDArray[np.float64] | None) -> Iterator[Tally]:
        """Load one range of scores after another; a range holds whole ties."""
        normal, abnormal = self._on_disk()
        below = 0
        for first, last in self._ranges(normal.histogram, abnormal.histogram):
            count = [int(spill.histogram[first:last].sum()) for spill in (normal, abnormal)]
            if count[1] == 0:
                found: Iterator[Tally] = iter(())
            elif 4 * count[0] + self._word.itemsize * count[1] > self._budget:
                found = _of_one_bucket(normal.blocks(first, last), abnormal, first, last, weights)
            else:
                self._held = count
                for part, spill in ((self._front(), normal), (self._back(), abnormal)):
                    _fill(part, spill.blocks(first, last))
                found = _of_sorted(self._front(), self._back(), weights)
            for tally in found:
                yield tally._replace(below=tally.below + below)
            below += count[0]

    def _ranges(
        self, normal: npt.NDArray[np.int64], abnormal: npt.NDArray[np.int64]
    ) -> Iterator[tuple[int, int]]:
        """Ranges of buckets that fit the budget; a bucket that does not is a range of its own."""
        size = 4 * normal + self._word.itemsize * abnormal
        first = filled = 0
        for bucket in np.flatnonzero(size).tolist():
            if filled and filled + size[bucket] > self._budget:
                yield first, bucket
                first, filled = bucket, 0
            filled += int(size[bucket])
        yield first, _BUCKETS

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

    def _on_disk(self) -> tuple[_Spill, _Spill]:
        if self._spills is None:
            self._spills = _Spill(np.dtype(np.uint32)), _Spill(self._word)
        return self._spills

    def _write(self, normal: Keys, abnormal: Words) -> None:
        for spill, words in zip(self._on_disk(), (normal, abnormal), strict=True):
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


def _bucket(words: Words) -> npt.NDArray[np.int64]:
    return (words >> words.dtype.type(8 * words.itemsize - 16)).astype(np.int64)


def _split(words: Words) -> tuple[Keys, npt.NDArray[np.int64] | None]:
    """Keys and, of words of 8 bytes, the numbers of the regions."""
    if words.dtype == np.uint32:
        return words, None
    numbers = (words & np.uint64(0xFFFFFFFF)).astype(np.int64)
    return (words >> np.uint64(32)).astype(np.uint32), numbers


def _fill(part: Words, blocks: Iterator[Words]) -> None:
    start = 0
    for block in blocks:
        part[start : start + len(block)] = block
        start += len(block)


def _of_sorted(
    normal: Keys, abnormal: Words, weights: npt.NDArray[np.float64] | None
) -> Iterator[Tally]:
    """Sort both classes in place and count; a score at the border of blocks comes twice."""
    normal.sort()
    abnormal.sort()
    for start in range(0, len(abnormal), _BLOCK):
        keys, numbers = _split(abnormal[start : start + _BLOCK])
        first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
        if weights is None or numbers is None:
            amount: npt.NDArray[Any] = np.diff(first, append=len(keys))
        else:
            amount = np.add.reduceat(weights[numbers], first)
        distinct = keys[first]
        below = np.searchsorted(normal, distinct, side="left")
        equal = np.searchsorted(normal, distinct, side="right") - below
        yield Tally(scores_of(distinct), amount, equal, below)


def _of_one_bucket(
    normal: Iterator[Words],
    abnormal: _Spill,
    first: int,
    last: int,
    weights: npt.NDArray[np.float64] | None,
) -> Iterator[Tally]:
    """Count scores that agree in their upper 16 bits: however many, they have 65,536 values."""
    equal, seen = np.zeros((2, _BUCKETS), dtype=np.int64)
    amount = np.zeros(_BUCKETS, dtype=np.int64 if weights is None else np.float64)
    upper = 0
    for words in normal:
        equal += np.bincount(words & np.uint32(0xFFFF), minlength=_BUCKETS)
    for words in abnormal.blocks(first, last):
        keys, numbers = _split(words)
        if not len(keys):
            continue
        upper, low = int(keys[0] >> np.uint32(16)), (keys & np.uint32(0xFFFF)).astype(np.int64)
        seen += np.bincount(low, minlength=_BUCKETS)
        share = None if weights is None or numbers is None else weights[numbers]
        amount += np.bincount(low, weights=share, minlength=_BUCKETS)
    here = np.flatnonzero(seen)
    below = np.cumsum(equal) - equal
    scores = scores_of((here + (upper << 16)).astype(np.uint32))
    yield Tally(scores, amount[here], equal[here], below[here])


def _whole_ties(tallies: Iterator[Tally]) -> Iterator[Tally]:
    """Join a score that ends one tally and begins the next."""
    held: Tally | None = None
    for tally in tallies:
        if held is not None and held.scores[0] == tally.scores[0]:
            tally.abnormal[0] += held.abnormal[0]
        elif held is not None:
            yield held
        yield Tally(*(column[:-1] for column in tally))
        held = Tally(*(column[-1:] for column in tally))
    if held is not None:
        yield held
