"""What the modules of the report hand to one another."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from anomalib_medclip.compare.store import AT_THRESHOLD, CHOSEN_ON_TEST

METRICS = {
    "image_AUROC": "image AUROC",
    "image_AP": "image AP",
    "image_Sensitivity": "sensitivity",
    "image_Specificity": "specificity",
    "image_F1": "image F1",
    "image_F1Max": "image F1-max",
    "image_SpecificityAtSensitivity": "specificity at 95 % sensitivity",
    "image_ECE": "calibration error",
    "pixel_AUROC": "pixel AUROC",
    "pixel_AP": "pixel AP",
    "pixel_AUPRO": "AUPRO",
}
"""Figures of a record, in [0, 1], and their names; of the calibration error, less is better.
Sensitivity, specificity and F1 are those of images at the stored threshold."""


def protocols_of(metric: str) -> tuple[str, ...]:
    """Protocols by which a figure is shown.

    A threshold that is chosen on the test labels makes no honest figure, whatever the epoch; the
    stored threshold is that of the honest epoch.

    >>> protocols_of("image_F1Max"), protocols_of("image_F1")
    (('oracle',), ('honest',))
    """
    if metric in CHOSEN_ON_TEST:
        return ("oracle",)
    return ("honest",) if metric in AT_THRESHOLD else ("honest", "oracle", "gap")


class Estimate(NamedTuple):
    """A figure over draws and seeds: its mean, 95 % interval, and the values it is of.

    ``low`` and ``high`` are ``None`` where nothing supports an interval; ``source`` says over what
    it is: ``patients and draws``, of a single draw ``patients``, or nothing.
    """

    mean: float
    low: float | None
    high: float | None
    values: tuple[float, ...]
    source: str = ""


@dataclass(frozen=True)
class Row:
    """One line of the table: a model on one test set, for one K.

    Attributes:
        model: Name in the config.
        normals: ``support``, or ``train`` for a baseline that was given all normal images.
        kind: ``method``, ``baseline`` or ``trivial``.
        note: What the config says of the model, such as that its backbone is untrained.
        untrained: Whether its backbone has random weights.
        trained_on: Name of the data it learnt from.
        tested_on: Name of the data it was tested on.
        k_shot: K; ``None`` for all normal images, and zero-shot.
        draws: Number of draws and seeds that were finished.
        failed: Number of those that failed.
        honest: By metric of ``METRICS``: fixed or validation-chosen epoch. Absent if undefined.
        oracle: By metric: the epoch that was best on the test images, the published practice.
        gap: By metric: oracle less honest, draw by draw.
        best: Metrics (honest) in which the row is the best of its test set and K, and patients and
            draws support it.
        epoch: What chose the honest epoch, in words; nothing where there is one epoch.
        learns_abnormal: Whether it learns from abnormal images, too.
        published: Cells of ``anomalib_medclip.published`` of the same method, set and K, as dicts.
        cost: Medians of ``seconds_per_image``, ``train_seconds``, ``model_mb``, ``learnt_mb``.
        keys: Keys of the records.
        caveats: What has to be said with its intervals, in sentences.
    """

    model: str
    normals: str
    kind: str
    note: str
    untrained: bool
    trained_on: str
    tested_on: str
    k_shot: int | None
    draws: int
    failed: int
    honest: dict[str, Estimate]
    oracle: dict[str, Estimate]
    gap: dict[str, Estimate]
    best: frozenset[str] = frozenset()
    epoch: str = ""
    learns_abnormal: bool = False
    published: tuple[dict[str, Any], ...] = ()
    cost: dict[str, float] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()


class Chart(NamedTuple):
    """A figure of the page.

    Attributes:
        name: Identifier in the page, such as ``gap_heads``.
        section: Which section it stands in: ``gap``, ``curves``, ``calibration``, ``shots``,
            ``cost`` or ``explain``.
        title: Heading.
        caption: What it shows and how to read it, in one or two sentences.
        alt: The same figures in words, for those who cannot see it.
        figure: plotly figure as JSON holds it: ``data`` and ``layout``.
    """

    name: str
    section: str
    title: str
    caption: str
    alt: str
    figure: dict[str, Any]
