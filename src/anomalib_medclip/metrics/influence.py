"""How much each patient moves a figure of a test set: what intervals by patient are made of.

A figure is an estimate from a sample of patients. To first order it is its true value plus a sum
over patients; the terms of that sum, estimated, are here. For AUROC they are the placements of
DeLong, DeLong and Clarke-Pearson (1988), summed over the images of a patient (Obuchowski 1997);
for shares, those of a ratio; for other figures, what leaving the patient out changes (jackknife).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from anomalib_medclip.errors import MetricError
from anomalib_medclip.metrics.images import AT_A_TIME, FloatArray, ScoredImages
from anomalib_medclip.metrics.intervals import placements, weighted_average_precision


class Influence(NamedTuple):
    """A figure of one test set, and what each of its patients adds to the figure's error.

    Attributes:
        value: The figure, in [0, 1].
        patients: Who was tested.
        parts: ``[patient, class]``: by his normal images (0), by his abnormal ones (1).
        images: ``[patient, class]``: how many he has of each.
    """

    value: float
    patients: tuple[Any, ...]
    parts: FloatArray
    images: npt.NDArray[np.int64]

    def as_plain(self) -> dict[str, Any]:
        """For JSON, what patients add in nine digits."""
        parts = [[float(f"{value:.9g}") for value in row] for row in self.parts.tolist()]
        images = self.images.tolist()
        return {"value": self.value, "patients": [*self.patients], "parts": parts, "images": images}

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> "Influence":
        """Undo ``as_plain``."""
        parts, images = np.array(plain["parts"]), np.array(plain["images"], dtype=np.int64)
        return cls(plain["value"], tuple(plain["patients"]), parts, images)


def of_auroc(scores: npt.ArrayLike, labels: npt.ArrayLike, patients: Sequence[Any]) -> Influence:
    """AUROC of images, ties counted one half.

    Args:
        scores: Of each image, finite.
        labels: 0 or 1, of each image.
        patients: Of each image, whose it is: names or numbers.

    Raises:
        MetricError: Lengths differ, a value is odd, or a class is missing.

    Example:
        >>> of_auroc([0.1, 0.7, 0.4, 0.9], [0, 0, 1, 1], ["a", "b", "a", "b"]).value
        0.75
    """
    table = ScoredImages.of(scores, labels, patients)
    ill, well = table.scores[:, table.abnormal], table.scores[:, ~table.abnormal]
    of_ill, of_well = placements(ill, well)
    value = float(of_ill.mean())
    influence = np.empty(len(table.abnormal))
    influence[table.abnormal] = (of_ill[0] - value) / of_ill.shape[1]
    influence[~table.abnormal] = (of_well[0] - value) / of_well.shape[1]
    return _of_images(value, influence, table, patients)


def of_average_precision(
    scores: npt.ArrayLike, labels: npt.ArrayLike, patients: Sequence[Any]
) -> Influence:
    """Average precision of images, in steps, leaving out one patient at a time.

    Arguments and errors are those of ``of_auroc``, and a class must not be of one patient alone.
    """
    table = ScoredImages.of(scores, labels, patients)
    known, images = _counts(table, patients)
    if (np.count_nonzero(images, axis=0) < 2).any():
        msg = "without its one patient a class is empty; add patients of the rarer class"
        raise MetricError(msg)

    def figure(weights: FloatArray) -> FloatArray:
        return weighted_average_precision(table.scores[0], table.abnormal, weights)

    rows = max(1, AT_A_TIME // len(table.owner))
    every = np.arange(len(known))
    without = [
        figure((table.owner != every[start : start + rows, None]).astype(np.float64))
        for start in range(0, len(known), rows)
    ]
    value = float(figure(table.once)[0])
    return by_leaving_out(value, np.concatenate(without), known, images)


def of_sensitivity(
    called: npt.ArrayLike, labels: npt.ArrayLike, patients: Sequence[Any]
) -> Influence:
    """Share of abnormal images that are called abnormal; ``called`` is 0 or 1 of each image."""
    table = ScoredImages.of(called, labels, patients)
    hit = table.scores[0] * table.abnormal
    return _of_ratio(hit, table.abnormal.astype(np.float64), table, patients)


def of_specificity(
    called: npt.ArrayLike, labels: npt.ArrayLike, patients: Sequence[Any]
) -> Influence:
    """Share of normal images that are not called abnormal; see ``of_sensitivity``."""
    table = ScoredImages.of(called, labels, patients)
    passed = (1 - table.scores[0]) * ~table.abnormal
    return _of_ratio(passed, (~table.abnormal).astype(np.float64), table, patients)


def of_f1(called: npt.ArrayLike, labels: npt.ArrayLike, patients: Sequence[Any]) -> Influence:
    """F1 of the abnormal class, 2 TP / (2 TP + FP + FN); see ``of_sensitivity``."""
    table = ScoredImages.of(called, labels, patients)
    hit = table.scores[0] * table.abnormal
    return _of_ratio(2 * hit, table.scores[0] + table.abnormal, table, patients)


def by_leaving_out(
    value: float, without: FloatArray, patients: Sequence[Any], images: npt.NDArray[np.int64]
) -> Influence:
    """Any figure, from what it is without each patient.

    Patients with images of one class only, of the other only, and of both are three strata, within
    which the jackknife compares; a stratum of one is compared with all. What a patient of both
    classes adds is given half to either, which changes no sum.

    Args:
        value: The figure with all patients.
        without: The figure without each, finite.
        patients: Who they are.
        images: ``[patient, class]``: how many images each has; of pixels any counts will do.
    """
    present = images > 0
    moved = np.empty(len(without))
    for members in strata(present):
        among = members if np.count_nonzero(members) > 1 else np.ones_like(members)
        count = np.count_nonzero(among)
        moved[members] = (count - 1) / count * (without[among].mean() - without[members])
    parts = moved[:, None] * present / present.sum(axis=1, keepdims=True)
    return Influence(float(value), tuple(patients), parts, images)  # NumPy's is no number of JSON


def strata(present: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.bool_]]:
    """Members of each stratum: patients with images of the same classes.

    Args:
        present: ``[patient, class]``: whether he has images of it.

    Example:
        >>> [one.tolist() for one in strata(np.array([[True, False], [True, True], [True, True]]))]
        [[True, False, False], [False, True, True]]
    """
    stratum = present @ np.array([1, 2])
    return [stratum == kind for kind in np.unique(stratum)]


def averaged(seeds: Sequence[Influence]) -> Influence:
    """The mean of a figure over the seeds of one draw, on the same images.

    Raises:
        MetricError: The seeds have not the same patients with as many images.
    """
    first = seeds[0]
    for other in seeds[1:]:
        if other.patients != first.patients or not np.array_equal(other.images, first.images):
            msg = "seeds of one draw are averaged over the same images; give no others"
            raise MetricError(msg)
    value = float(np.mean([one.value for one in seeds]))
    return first._replace(value=value, parts=np.mean([one.parts for one in seeds], axis=0))


def _of_ratio(
    over: FloatArray, under: FloatArray, table: ScoredImages, patients: Sequence[Any]
) -> Influence:
    whole = float(under.sum())
    value = float(over.sum()) / whole
    return _of_images(value, (over - value * under) / whole, table, patients)


def _of_images(
    value: float, influence: FloatArray, table: ScoredImages, patients: Sequence[Any]
) -> Influence:
    known, images = _counts(table, patients)
    parts = np.zeros((len(known), 2))
    np.add.at(parts, (table.owner, table.abnormal.astype(np.int64)), influence)
    return Influence(value, known, parts, images)


def _counts(
    table: ScoredImages, patients: Sequence[Any]
) -> tuple[tuple[Any, ...], npt.NDArray[np.int64]]:
    """Who they are, in order, and how many images of each class they have."""
    known = tuple(np.unique(np.asarray(patients)).tolist())
    counts = [np.bincount(table.owner, of, len(known)) for of in _classes(table)]
    return known, np.stack(counts, axis=1).astype(np.int64)


def _classes(table: ScoredImages) -> Iterator[npt.NDArray[np.bool_]]:
    yield ~table.abnormal
    yield table.abnormal
