"""Lesions found, false positives for it, and overlap: what a map is worth to who reads it.

A lesion is what is connected in a mask, a detection what is connected in a map above a threshold;
in volumes through 26 neighbours, in single images through 8. A detection finds each lesion that it
overlaps; one that finds none is a false positive. The free-response curve (FROC) has the share of
lesions found over false positives per patient, while the threshold falls.

MONAI's ``monai.metrics.froc`` is for detections that are points with a score each, known before. It
leaves the lowest score out, and draws lines between thresholds, where there are none. Here each
value is of a threshold. Where scores of detections are all that a map holds, as on flat ground, the
points of both curves are the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import stats
from torch import Tensor

from anomalib_medclip.errors import MetricError
from anomalib_medclip.metrics.clustered import FEWEST_PATIENTS, Sample, clustered_interval
from anomalib_medclip.metrics.images import FloatArray
from anomalib_medclip.metrics.influence import Influence, by_leaving_out
from anomalib_medclip.metrics.intervals import Interval, mean_interval
from anomalib_medclip.metrics.lesion_counts import LesionCounts, Share
from anomalib_medclip.metrics.map_stacks import MapStacks


@dataclass(frozen=True)
class Figure:
    """A figure of a test, and what is known of its error.

    Attributes:
        value: The figure; ``None`` where there is nothing to compute it of, such as a lesion.
        interval: Of 95 %, by patient; ``None`` where fewer than five patients were tested, or, but
            for false positives, fewer than five with lesions.
        influence: What each patient adds to the error, to be taken together with other draws; of
            shares only.
    """

    value: float | None = None
    interval: Interval | None = None
    influence: Influence | None = None


@dataclass(frozen=True)
class LesionFigures:
    """How well lesions are found and outlined.

    Attributes:
        patients: How many were tested.
        patients_with_lesions: How many of them have one in their masks.
        volumes: How many volumes, and images by themselves.
        lesions: How many lesions.
        froc: By false positives per patient: share of lesions found at the lowest threshold such
            that there are no more at it and at all above.
        froc_mean: Mean of these shares.
        lesions_found: How many lesions are found at the threshold.
        sensitivity: Share of lesions found at the threshold.
        false_positives: Detections at the threshold that find no lesion, per patient.
        dice: Twice the pixels that map and mask share over the sum of both, at the threshold, of
            all volumes together, those without a lesion among them.
        dice_of_volumes: Its mean over volumes with a lesion. Where the mask is empty there is
            nothing to share: such a volume does not count here.
        dice_of_patients: Mean over patients with lesions of the mean over such volumes of each.
        by_volume: Its value in each such volume, by patient and volume.
    """

    patients: int
    patients_with_lesions: int
    volumes: int
    lesions: int
    froc: Mapping[float, Figure]
    froc_mean: Figure
    lesions_found: int | None = None
    sensitivity: Figure = Figure()
    false_positives: Figure = Figure()
    dice: Figure = Figure()
    dice_of_volumes: Figure = Figure()
    dice_of_patients: Figure = Figure()
    by_volume: Mapping[tuple[str, str], float] = field(default_factory=dict)


class LesionWise:
    """Collects maps and masks of a test, in any order, and finds the figures of lesions.

    While maps are collected a pixel takes 4 bytes and one bit, in memory up to 268 MB, then on
    disk; while figures are found, one byte more in memory, and 16 for a pixel of a lesion. What
    takes time is the curve, up to 96 times a search for what is connected in every map.

    Args:
        overlap: Share of a lesion that one detection has to cover to find it; 0 for a pixel.

    Raises:
        MetricError: The share is none.
    """

    def __init__(self, overlap: float = 0.0) -> None:
        if not 0 <= overlap <= 1:
            msg = f"overlap is {overlap}; give a share of a lesion from 0 to 1, such as 0.1"
            raise MetricError(msg)
        self.overlap = overlap
        self._stacks = MapStacks()

    def add(
        self,
        maps: Tensor,
        masks: Tensor,
        owners: Sequence[str],
        volumes: Sequence[str] | None = None,
        places: Sequence[int] | None = None,
        ignored: Tensor | None = None,
    ) -> None:
        """Take a batch into account.

        Args:
            maps: Anomaly maps of any range, ``(image, [1,] height, width)``.
            masks: 0 or 1, of the same shape.
            owners: Whose each image is; one whose patient is unknown stands for itself.
            volumes: The volume that each is a slice of, or an empty text where it is none.
            places: The number of each along the cut; of no meaning where it is no slice. Slices
                whose numbers are no neighbours do not touch.
            ignored: True where nobody knows; such pixels are of no lesion and of no detection.

        Raises:
            MetricError: A score is not finite, shapes differ, a slice of a volume has no place, or
                the disk is full.
        """
        self._stacks.add(maps, masks, owners, volumes, places, ignored)

    def figures(self, threshold: float | None = None) -> LesionFigures:
        """Figures of all that was added.

        Args:
            threshold: A pixel with a higher score is called abnormal; ``None`` where none is known,
                and then there are figures of the curve alone.

        Raises:
            MetricError: Nothing was added, slices of a volume do not fit together, or the threshold
                is no number.
        """
        if threshold is not None and not np.isfinite(threshold):
            msg = f"the threshold is {threshold}; give None where none is known"
            raise MetricError(msg)
        if not self._stacks.pixels:
            msg = "no map was added, so that no figure is known; test one image or more"
            raise MetricError(msg)
        called = np.inf if threshold is None else float(threshold)
        counts = LesionCounts(self._stacks, self.overlap, called)
        froc = counts.curve()
        mean = Share(*(np.mean(one, axis=0) for one in zip(*froc.values(), strict=True)))
        of_curve = LesionFigures(
            patients=len(counts.patients),
            patients_with_lesions=int(np.count_nonzero(counts.lesions)),
            volumes=int(counts.volumes.sum()),
            lesions=int(counts.lesions.sum()),
            froc={rate: _figure(share, counts) for rate, share in froc.items()},
            froc_mean=_figure(mean, counts),
        )
        if threshold is None:
            return of_curve
        dice, of_volumes, of_patients = (_figure(share, counts) for share in counts.dice())
        return replace(
            of_curve,
            lesions_found=int(counts.found.sum()),
            sensitivity=_figure(Share.of(counts.found, counts.lesions), counts),
            false_positives=_mean_count(counts.false),
            dice=dice,
            dice_of_volumes=of_volumes,
            dice_of_patients=of_patients,
            by_volume=counts.dice_by_volume(),
        )


def _figure(share: Share, counts: LesionCounts) -> Figure:
    """A share with its interval, where there are enough patients."""
    if np.isnan(share.value):
        return Figure()
    images = np.stack([counts.volumes, counts.lesions], axis=1).astype(np.int64)
    if np.count_nonzero(images, axis=0).min() < FEWEST_PATIENTS:
        return Figure(share.value)
    influence = by_leaving_out(share.value, share.without, counts.patients, images)
    return Figure(share.value, clustered_interval(Sample.of([influence]), "other"), influence)


def _mean_count(counts: FloatArray) -> Figure:
    """Mean over patients of a count, which is never below 0.

    Student's t, and never narrower than the exact interval of a Poisson mean (Garwood 1936): where
    all patients have the same count, none included, t would be sure of it.
    """
    if len(counts) < FEWEST_PATIENTS:
        return Figure(float(counts.mean()))
    mean, low, high = mean_interval(counts)
    total, doubled = float(counts.sum()), 2 * len(counts)
    least = float(stats.chi2.ppf(0.025, 2 * total)) / doubled if total else 0.0
    most = float(stats.chi2.ppf(0.975, 2 * total + 2)) / doubled
    return Figure(mean, Interval(mean, max(0.0, min(low, least)), max(high, most)))
