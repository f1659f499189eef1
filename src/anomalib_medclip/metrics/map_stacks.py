"""Maps and masks of a test, put together to the volumes that they are slices of."""

import tempfile
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from anomalib_medclip.errors import MetricError
from anomalib_medclip.metrics.pairs import pairs

_IN_MEMORY = 1 << 28
"""Bytes of maps and masks beyond which they go to a file without a name."""


class Stack(NamedTuple):
    """Neighbouring slices of a volume, or one image.

    Attributes:
        owner: Whose it is.
        volume: What it is a part of, among those of its owner.
        scores: ``[slice, row, column]``; minus infinity where a pixel is ignored.
        lesion: Where there is one, likewise; nowhere where a pixel is ignored.
    """

    owner: str
    volume: str
    scores: npt.NDArray[np.float32]
    lesion: npt.NDArray[np.bool_]


class _Slice(NamedTuple):
    owner: str
    volume: str
    place: int
    start: int
    shape: tuple[int, int]


class MapStacks:
    """Slices in any order, kept until all are there.

    A pixel takes 4 bytes and one bit, in memory up to 268 MB, then on disk.
    """

    def __init__(self) -> None:
        self._slices: list[_Slice] = []
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - kept

    def add(
        self,
        maps: Tensor,
        masks: Tensor,
        owners: Sequence[str],
        volumes: Sequence[str] | None = None,
        places: Sequence[int] | None = None,
        ignored: Tensor | None = None,
    ) -> None:
        """Keep a batch; see ``LesionWise.add``."""
        count = len(owners)
        named = volumes or [""] * count
        numbers = [0] * count if places is None else places
        self._file.seek(0, 2)
        for at, (one, mask, owner, volume, place) in enumerate(
            zip(maps, masks, owners, named, numbers, strict=True)
        ):
            if volume and places is None:
                msg = f"a slice of volume {volume} has no place; give the numbers of slices"
                raise MetricError(msg)
            scores, lesion = pairs(one, mask)
            if ignored is not None:
                hidden = ignored[at].cpu().numpy().astype(bool).ravel()
                scores, lesion = np.where(hidden, np.float32("-inf"), scores), lesion & ~hidden
            height, width = mask.shape[-2:]
            name = volume or f"image//{len(self._slices)}"  # which no volume is called
            kept = _Slice(owner, name, int(place), self._file.tell(), (height, width))
            self._write(scores.astype(np.float32).tobytes() + np.packbits(lesion).tobytes())
            self._slices.append(kept)

    def __iter__(self) -> Iterator[Stack]:
        """Put slices together; between two whose numbers are no neighbours a stack ends.

        Raises:
            MetricError: A volume has two slices of one place, or slices of other sizes.
        """
        for (_, name), of_volume in groupby(sorted(self._slices), key=lambda one: one[:2]):
            run: list[_Slice] = []
            for one in of_volume:
                if run and one.shape != run[0].shape:
                    sizes = f"{run[0].shape} and of {one.shape} pixels"
                    msg = f"slices of volume {name} are of {sizes}; give all at one size"
                    raise MetricError(msg)
                if run and one.place == run[-1].place:
                    msg = f"slice {one.place} of volume {name} was given twice; give it once"
                    raise MetricError(msg)
                if run and one.place > run[-1].place + 1:
                    yield self._stack(run)
                    run = []
                run.append(one)
            yield self._stack(run)

    @property
    def owners(self) -> list[str]:
        """Whose they are, in order."""
        return sorted({one.owner for one in self._slices})

    @property
    def pixels(self) -> int:
        """How many are kept."""
        return sum(int(np.prod(one.shape)) for one in self._slices)

    def _write(self, written: bytes) -> None:
        try:
            self._file.write(written)
        except OSError as error:
            msg = (
                f"cannot write maps to {tempfile.gettempdir()}: {error}; let TMPDIR name a "
                "folder with 5 bytes a pixel"
            )
            raise MetricError(msg) from error

    def _stack(self, run: Sequence[_Slice]) -> Stack:
        first = run[0]
        scores = np.empty((len(run), *first.shape), dtype=np.float32)
        lesion = np.empty(scores.shape, dtype=bool)
        size = int(np.prod(first.shape))
        for at, one in enumerate(run):
            self._file.seek(one.start)
            read = np.frombuffer(self._file.read(4 * size), dtype=np.float32)
            scores[at] = read.reshape(first.shape)
            packed = np.frombuffer(self._file.read((size + 7) // 8), dtype=np.uint8)
            lesion[at] = np.unpackbits(packed, count=size).reshape(first.shape)
        return Stack(first.owner, first.volume, scores, lesion)
