"""Where lesions are, and not whether there is one: figures of pixels and lesions of a test."""

import logging
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from anomalib.data import ImageBatch
from torch import Tensor

from anomalib_medclip.components.threshold import has_pixel_threshold
from anomalib_medclip.errors import MetricError
from anomalib_medclip.evaluation.levels import TOO_FEW, Found, of_few
from anomalib_medclip.metrics.clustered import FEWEST_PATIENTS, Sample, clustered_interval
from anomalib_medclip.metrics.influence import Influence
from anomalib_medclip.metrics.known_pixels import ignored_of
from anomalib_medclip.metrics.lesion_wise import Figure, LesionFigures, LesionWise
from anomalib_medclip.metrics.patient_pixels import PatientPixels
from anomalib_medclip.metrics.ranked import AUPRO
from anomalib_medclip.metrics.raw import raw

logger = logging.getLogger(__name__)

PIXEL_FIGURES = ("pixel_AUROC", "pixel_AP", "pixel_AUPRO")
"""Figures of ranks of pixels."""

LESION_FIGURES = {
    "lesion_Sensitivity": "sensitivity",
    "lesion_FalsePositives": "false_positives",
    "lesion_FROC": "froc_mean",
    "lesion_Dice": "dice_of_patients",
    "pixel_Dice": "dice",
}
"""Figures of lesions, and what ``LesionFigures`` calls them."""

COUNTS = ("lesion_FalsePositives",)
"""Figures per patient, which are no shares."""

SEVERAL_PROCESSES = "tested in several processes, which know no interval of pixels"


class MapBatch(NamedTuple):
    """Maps of a batch as the model gave them, masks, and what each is of; as of ``LesionWise``."""

    maps: Tensor
    masks: Tensor
    owners: list[str]
    volumes: list[str]
    places: list[int]
    ignored: Tensor | None

    @classmethod
    def of(cls, batch: ImageBatch, owners: list[str], volumes: Sequence[str]) -> "MapBatch | None":
        """What there is of it; nothing without maps or masks."""
        as_scored = raw(batch) or batch
        if as_scored.anomaly_map is None or batch.gt_mask is None:
            return None
        numbers = [re.search(r"_(\d+)\.png$", str(path)) for path in batch.image_path or ()]
        found = list(zip(volumes, numbers, strict=True)) if numbers else []
        ignored = ignored_of(batch)
        return cls(
            as_scored.anomaly_map.detach().cpu(),
            batch.gt_mask.detach().cpu(),
            owners,
            [volume if number else "" for volume, number in found] or [""] * len(owners),
            [int(number[1]) if number else 0 for _, number in found] or [0] * len(owners),
            None if ignored is None else ignored.cpu(),
        )


class Localised(NamedTuple):
    """Figures of pixels and lesions.

    Attributes:
        found: By name, each with its interval over patients.
        influences: Of every patient on them, where that is known.
        froc: Share of lesions found by false positives per patient; empty where no lesion is
            outlined.
    """

    found: dict[str, Found]
    influences: dict[str, Influence]
    froc: dict[str, float]


class Localisation:
    """Collects maps and masks of a test, in any order."""

    def __init__(self) -> None:
        self._lesions, self._pixels = LesionWise(), PatientPixels()
        self._is_empty = True

    def add(self, one: MapBatch) -> None:
        """Take a batch into account.

        Raises:
            MetricError: A score is not finite, shapes differ, or the disk is full.
        """
        self._is_empty = False
        self._lesions.add(*one)
        self._pixels.add(one.maps, one.masks, one.owners, one.ignored)

    def figures(
        self,
        known: dict[str, float | None],
        overlap: AUPRO | None,
        post_processor: Any,  # noqa: ANN401 - anyone's
    ) -> Localised:
        """Figures of all that was added.

        Args:
            known: Figures of ranks, by name.
            overlap: That has seen the same batches; ``None`` where others have seen some of them.
            post_processor: Which knows the threshold of pixels, if anyone does.
        """
        moved = {} if overlap is None else self._moved(known, overlap)
        lesions = self._counted(post_processor)
        patients = lesions.patients_with_lesions if lesions else 0
        words = SEVERAL_PROCESSES if overlap is None else _too_few(patients)
        found = {
            name: _of_pixels(known[name], moved.get(name), patients, words)
            for name in PIXEL_FIGURES
            if name in known
        }
        if lesions is None:
            nothing = Found(None, words="no lesion is outlined")
            return Localised(found | dict.fromkeys(LESION_FIGURES, nothing), moved, {})
        figures = {name: getattr(lesions, field) for name, field in LESION_FIGURES.items()}
        found |= {name: _of_lesions(name, one, lesions) for name, one in figures.items()}
        moved |= {name: one.influence for name, one in figures.items() if one.influence}
        known_shares = ((rate, one.value) for rate, one in lesions.froc.items())
        froc = {str(rate): float(share) for rate, share in known_shares if share is not None}
        return Localised(found, moved, froc)

    def _moved(self, known: dict[str, float | None], overlap: AUPRO) -> dict[str, Influence]:
        """Influence of every patient on the figures of ranks."""
        if known["pixel_AUROC"] is None:
            return {}
        try:
            moved = self._pixels.influences(overlap.thresholds(self._pixels.steps))
        except MetricError as error:
            logger.info("figures of pixels have no interval: %s", error)
            return {}
        return {f"pixel_{name}": influence for name, influence in moved.items()}

    def _counted(self, post_processor: Any) -> LesionFigures | None:  # noqa: ANN401 - anyone's
        if self._is_empty:
            return None
        threshold = None
        if has_pixel_threshold(post_processor):
            threshold = float(post_processor.pixel_threshold)
        return self._lesions.figures(threshold)


def _of_pixels(
    value: float | None, influence: Influence | None, patients: int, words: str
) -> Found:
    """A figure of ranks; without knowing how patients move it, it has but words."""
    if value is None:
        return Found(None, words="no lesion is outlined")
    if patients < FEWEST_PATIENTS:
        return of_few(value, _too_few(patients))
    if influence is None:
        return Found(value, words=words)
    of = clustered_interval(Sample.of([influence._replace(value=value)]), "other")
    return Found(value, of.low, of.high)


def _of_lesions(name: str, figure: Figure, lesions: LesionFigures) -> Found:
    if figure.value is None:
        return Found(None, words="no lesion is outlined, or no threshold of pixels is known")
    if figure.interval is None:
        certain = (0,) if name in COUNTS else (0, 1)
        return of_few(float(figure.value), _too_few(lesions.patients_with_lesions), certain)
    return Found(float(figure.value), figure.interval.low, figure.interval.high)


def _too_few(patients: int) -> str:
    have = f"lesions of {patients} are outlined"
    return f"{TOO_FEW}: {have}, and {FEWEST_PATIENTS} are needed"
