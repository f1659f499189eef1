"""One score for many images: of a volume from its slices, of a patient from all he has."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from anomalib_medclip.errors import MetricError

FloatArray = npt.NDArray[np.float64]

Kind = Literal["worst", "mean of worst", "area"]

WORST = 3
"""Images that the mean of the worst is of: a lesion that shows in one slice alone is noise more
often than disease, and few are thinner than three."""

ENOUGH = 20
"""Patients of each class from which on the way to aggregate is chosen, and a probability fitted."""


@dataclass(frozen=True)
class Aggregation:
    """How the images of a volume or patient become one score.

    Attributes:
        kind: ``worst`` is the highest score of an image; ``mean of worst`` the mean of the highest
            ``images``, or of all where there are fewer; ``area`` the area above the threshold of
            pixels in all images together, with one image as the unit.
        images: How many, of ``mean of worst``.

    Example:
        >>> Aggregation("mean of worst", 2).of([0.1, 0.9, 0.5])
        0.7
    """

    kind: Kind = "mean of worst"
    images: int = WORST

    def of(self, scores: npt.ArrayLike, areas: npt.ArrayLike | None = None) -> float:
        """The score of a unit.

        Args:
            scores: Of each of its images; one or more.
            areas: Share of each image that is above the threshold of pixels, for ``area``.

        Raises:
            MetricError: There are no scores, or no areas where these are wanted.
        """
        values = np.asarray(scores, dtype=np.float64)
        if not values.size or (self.kind == "area" and areas is None):
            msg = f"nothing to make {self.words} of; give scores and, for areas, a map of each"
            raise MetricError(msg)
        if self.kind == "area":
            return float(np.sum(np.asarray(areas, dtype=np.float64)))
        count = 1 if self.kind == "worst" else min(self.images, len(values))
        return float(np.sort(values)[-count:].mean())

    @property
    def words(self) -> str:
        """What a reader is told."""
        return {
            "worst": "the worst image",
            "mean of worst": f"the mean of the {self.images} worst images",
            "area": "the area above the threshold of pixels",
        }[self.kind]

    def as_plain(self) -> dict[str, Any]:
        """In values that JSON has; ``Aggregation(**plain)`` undoes it."""
        return asdict(self)


class Unit(NamedTuple):
    """A volume or a patient, of whom images were scored.

    Attributes:
        name: Of the unit.
        owner: The patient; the unit itself where no patient is known.
        abnormal: Whether any of its images is.
        scores: Of its images.
        areas: Share of each that is above the threshold of pixels, where that is known.
    """

    name: str
    owner: str
    abnormal: bool
    scores: FloatArray
    areas: FloatArray | None


def units(
    names: Sequence[str],
    owners: Sequence[str],
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    areas: npt.ArrayLike | None = None,
    of_ill: npt.ArrayLike | None = None,
) -> Iterator[Unit]:
    """Images put together to units, in the order of their names.

    Args:
        names: Unit of each image; images without one are left out.
        owners: Patient of each image.
        labels: Whether each image is abnormal.
        scores: Of each image.
        areas: Of each, as of ``Unit``.
        of_ill: Whether the patient of each has a lesion, be it in none of these images; units of
            his without any abnormal image are no normal ones, and left out.
    """
    of_unit: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        of_unit.setdefault(name, []).append(number)
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    above = None if areas is None else np.asarray(areas, dtype=np.float64)
    marks = np.asarray([] if of_ill is None else of_ill, dtype=bool)
    ill = {owner for owner, mark in zip(owners, marks, strict=False) if mark}
    for name in sorted(filter(None, of_unit)):
        rows = of_unit[name]
        owner, abnormal = owners[rows[0]], bool(truth[rows].any())
        if owner in ill and not abnormal:
            continue
        yield Unit(
            name=name,
            owner=owner,
            abnormal=abnormal,
            scores=values[rows],
            areas=None if above is None else above[rows],
        )


class Choice(NamedTuple):
    """How images are aggregated, and why so.

    Attributes:
        aggregation: The way.
        reason: What a reader is told.
        tried: AUROC of patients on validation by each way that was tried; empty where it is fixed.
    """

    aggregation: Aggregation
    reason: str
    tried: Mapping[str, float]


def choose(found: Sequence[Unit], fewest: int = ENOUGH) -> Choice:
    """The way to aggregate that ranks the patients of validation best, where there are enough.

    Below so many patients of either class it is the mean of the worst, for any choice would be
    chance. Ties are decided for the mean of the worst, then for the worst.

    Args:
        found: Patients of validation, never those of a test.
        fewest: Patients of each class that a choice needs.
    """
    default = Aggregation()
    truth = np.array([one.abnormal for one in found], dtype=bool)
    counts = int((~truth).sum()), int(truth.sum())
    if min(counts) < fewest:
        few = f"fixed, since validation has {counts[0]} normal and {counts[1]} abnormal patients"
        return Choice(default, f"{few}, and a choice needs {fewest} of each", {})
    ways = [default, Aggregation("worst")]
    if all(one.areas is not None for one in found):
        ways.append(Aggregation("area"))
    tried = {}
    for way in ways:
        scores = np.array([way.of(one.scores, one.areas) for one in found])
        tried[way] = _auroc(scores, truth)
    best = max(ways, key=lambda way: tried[way])
    among = ", ".join(f"{way.words} {tried[way]:.3f}" for way in ways)
    reason = f"chosen on {sum(counts)} patients of validation by their AUROC: {among}"
    return Choice(best, reason, {way.kind: auroc for way, auroc in tried.items()})


def _auroc(scores: FloatArray, abnormal: npt.NDArray[np.bool_]) -> float:
    ranks = rankdata(scores)[abnormal]
    ill, well = len(ranks), int((~abnormal).sum())
    return float((ranks.sum() - ill * (ill + 1) / 2) / (ill * well))
