"""Whether an image is like those that a model was made with, by what its frozen tower says."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from anomalib_medclip.decisions.aggregation import FloatArray

FEWEST = 8
"""Patients below which nobody can say what is unlike them."""

_FOLDS = 8
_TOO_OFTEN = 1 / 160  # of new images that are like these, if the logarithms of distances are normal
_AS_DEVIATION = 1.4826  # of the median distance from the median, for normal numbers


class Unlike(NamedTuple):
    """How far images are from those that a model was made with.

    Attributes:
        distance: Of the middle one of the images.
        limit: Above it an image is unlike them.
        words: How often an image that is like them is above the limit.
    """

    distance: float
    limit: float
    words: str

    @property
    def abstains(self) -> bool:
        """Whether nothing is to be decided about these images."""
        return self.distance > self.limit


class _Cloud:
    """Vectors, and how far others are from them: Mahalanobis' distance, with a ridge.

    The covariance of a few long vectors is singular; a diagonal of its mean variance is added, so
    that directions in which these vectors do not differ at all count most, and none without end.
    """

    def __init__(self, vectors: FloatArray) -> None:
        self._mean, spread = vectors.mean(axis=0), vectors.std(axis=0)
        self._spread = spread + 1e-3 * vectors.std()
        own = (vectors - self._mean) / self._spread
        variances, axes = np.linalg.eigh(own @ own.T / len(own))
        kept = variances > 1e-6 * max(variances.max(), 1e-12)
        self._variances = variances[kept]
        self._axes = own.T @ (axes[:, kept] / np.sqrt(len(own) * self._variances))
        self._ridge = max(float((own**2).mean()), 1e-6)

    def distances(self, vectors: FloatArray) -> FloatArray:
        own = (vectors - self._mean) / self._spread
        along = (own @ self._axes) ** 2
        rest = np.maximum((own**2).sum(axis=1) - along.sum(axis=1), 0)
        squares = (along / (self._variances + self._ridge)).sum(axis=1) + rest / self._ridge
        found: FloatArray = np.sqrt(squares / own.shape[1])
        return found


class Familiarity:
    """Images that a model was made with, as vectors, and the limit of what is like them.

    Each of them is tried against those of other patients. The limit is where a new one would lie
    above it in one case of 160, if the logarithms of these distances were normal; median and median
    deviation say how they spread, so that a few odd images among them do not move it. Where one in
    ten of them would be beyond, it is where no more are.

    Args:
        vectors: Of the images, ``(image, value)``.
        owners: Patient of each.

    Attributes:
        limit: Above it an image is unlike them; infinite where patients are too few to say.
        words: How often images that are like them are above it.
    """

    def __init__(self, vectors: npt.ArrayLike, owners: Sequence[int]) -> None:
        known = np.asarray(vectors, dtype=np.float64)
        patients = np.unique(np.asarray(owners))
        self._cloud = _Cloud(known) if len(known) else None
        if len(patients) < FEWEST:
            self.limit = float("inf")
            self.words = (
                f"nobody can say what is unlike {len(patients)} patients; {FEWEST} can tell"
            )
            return
        apart = _apart(known, np.asarray(owners), patients)
        self.limit = _limit(np.log(apart))
        strange = [apart[owners == one] > self.limit for one in patients]
        self.words = _said(sum(one.mean() > 0.5 for one in strange), len(patients), "patients")
        of_images = int(sum(one.sum() for one in strange)), len(known), "images"
        self._words_of_one = self.words if len(known) == len(patients) else _said(*of_images)

    def judge(self, vectors: npt.ArrayLike) -> Unlike | None:
        """How unlike the images of one input are; ``None`` where nobody can say.

        Args:
            vectors: Of its images, ``(image, value)``.
        """
        if self._cloud is None or not np.isfinite(self.limit):
            return None
        found = self._cloud.distances(np.asarray(vectors, dtype=np.float64))
        words = self._words_of_one if len(found) == 1 else self.words
        return Unlike(float(np.median(found)), self.limit, words)


def _said(beyond: int, of: int, what: str) -> str:
    """How often what is like them is taken for unlike; of images of a patient without a bound."""
    bound = stats.beta.ppf(0.95, beyond + 1, of - beyond) if beyond < of else 1.0
    new = f", and of new ones like them at most {100 * bound:.0f} % with 95 % confidence"
    known = f"{beyond} of {of} {what} that the model was made with would be taken for unlike"
    return known + new if what == "patients" else known


def _apart(
    known: FloatArray, owners: npt.NDArray[np.int64], patients: npt.NDArray[np.int64]
) -> FloatArray:
    """Distance of each image from those of other patients."""
    found = np.empty(len(known))
    for part in np.array_split(np.random.default_rng(0).permutation(patients), _FOLDS):
        out = np.isin(owners, part)
        found[out] = _Cloud(known[~out]).distances(known[out])
    return found


def _limit(logarithms: FloatArray) -> float:
    middle = float(np.median(logarithms))
    spread = _AS_DEVIATION * float(np.median(np.abs(logarithms - middle)))
    count = len(logarithms)
    quantile = float(stats.t.ppf(1 - _TOO_OFTEN, count - 1))
    limit = middle + quantile * spread * np.sqrt(1 + 1 / count)
    return float(np.exp(max(limit, np.quantile(logarithms, 0.9, method="higher"))))
