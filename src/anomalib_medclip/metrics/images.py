"""Images of patients with their scores and labels, checked, and patients drawn with replacement."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from anomalib_medclip.errors import MetricError

FloatArray = npt.NDArray[np.float64]
Statistic = Callable[[FloatArray, npt.NDArray[np.bool_], FloatArray], FloatArray]
"""``(scores [image], abnormal [image], weights [draw, image]) -> [draw]``, both classes in each."""

AT_A_TIME = 4_000_000
"""Weights, of draws or patients times images, that are in memory at once."""

_TRIES = 100
"""Rounds of drawing again what lacks a class, before we say that the patients are too few."""


class ScoredImages(NamedTuple):
    """Images of patients, checked."""

    scores: FloatArray
    """``[method or seed, image]``."""
    abnormal: npt.NDArray[np.bool_]
    owner: npt.NDArray[np.int64]
    """The patient's number, of each image."""

    @classmethod
    def of(
        cls, scores: npt.ArrayLike, labels: npt.ArrayLike, patients: Sequence[Any]
    ) -> "ScoredImages":
        """Check them.

        Raises:
            MetricError: Lengths differ, a value is odd, or a class is missing.
        """
        values = np.atleast_2d(np.asarray(scores, dtype=np.float64))
        truth, names = np.asarray(labels), np.asarray(patients)
        if not values.shape[1:] == truth.shape == names.shape:
            msg = (
                f"{values.shape[1]} scores, {truth.size} labels and {names.size} patients; give "
                "one of each for every image"
            )
            raise MetricError(msg)
        if not np.isfinite(values).all():
            msg = "a score is NaN or infinite; look for what made it before comparing"
            raise MetricError(msg)
        if set(np.unique(truth).tolist()) != {0, 1}:
            found = np.unique(truth).tolist()
            msg = f"labels are {found}; give images of both classes, 0 normal and 1 abnormal"
            raise MetricError(msg)
        owner = np.unique(names, return_inverse=True)[1].astype(np.int64)
        return cls(values, truth.astype(bool), owner)

    @property
    def once(self) -> FloatArray:
        """Weights of the images as they are."""
        return np.ones((1, len(self.owner)))

    def figure(self, statistic: Statistic, weights: FloatArray) -> FloatArray:
        """A figure of each draw, the mean over the seeds."""
        every = [statistic(scores, self.abnormal, weights) for scores in self.scores]
        mean: FloatArray = np.mean(every, axis=0)
        return mean

    def weights(self, draws: int, seed: int) -> Iterator[FloatArray]:
        """How often each image is in each draw of patients, ``[some draws, image]``."""
        if draws < 1:
            msg = f"{draws} draws make no interval; give 1000 or more"
            raise MetricError(msg)
        random = np.random.default_rng(seed)
        size = max(1, AT_A_TIME // len(self.owner))
        for start in range(0, draws, size):
            times = self._draw(min(size, draws - start), random)
            # Draws lie side by side in memory, because all work on them goes image by image.
            yield np.ascontiguousarray(times.T)[self.owner].T

    def _draw(self, draws: int, random: np.random.Generator) -> FloatArray:
        """How often each patient is drawn, both classes among their images."""
        count = int(self.owner.max()) + 1
        ill = np.bincount(self.owner, self.abnormal, count) > 0
        well = np.bincount(self.owner, ~self.abnormal, count) > 0
        times = np.zeros((draws, count))
        lacking = np.arange(draws)
        for _ in range(_TRIES):
            times[lacking] = random.multinomial(count, np.full(count, 1 / count), len(lacking))
            drawn = times[lacking] > 0
            both = (drawn & ill).any(axis=1) & (drawn & well).any(axis=1)
            lacking = lacking[~both]
            if not len(lacking):
                return times
        msg = f"{count} patients hardly ever give both classes; add patients of the rarer one"
        raise MetricError(msg)
