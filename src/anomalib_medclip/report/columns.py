"""The figures and the costs that table, charts and files show: one list of each."""

from typing import NamedTuple

from anomalib_medclip.compare.dataset_result import AT_THRESHOLD, CHOSEN_ON_TEST

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

PROTOCOLS = ("honest", "oracle", "gap")
"""Which epoch a figure is of: fixed or chosen by validation, best on the test images, and the
second less the first."""


def protocols_of(metric: str) -> tuple[str, ...]:
    """Protocols by which a figure is shown.

    A threshold that is chosen on the test labels makes no honest figure, whatever the epoch; the
    stored threshold is that of the honest epoch.

    >>> protocols_of("image_F1Max"), protocols_of("image_F1")
    (('oracle',), ('honest',))
    """
    if metric in CHOSEN_ON_TEST:
        return ("oracle",)
    return ("honest",) if metric in AT_THRESHOLD else PROTOCOLS


class CostColumn(NamedTuple):
    """A cost of a row.

    Attributes:
        name: As ``MeasuredCost`` and ``ReportRow.cost`` have it.
        heading: In the table.
        unit: In words.
        main: Whether the table opens with it, and charts say it.
        axis: Whether accuracy is drawn against it.
    """

    name: str
    heading: str
    unit: str
    main: bool
    axis: bool


COSTS = (
    CostColumn("seconds_per_image", "s / image", "seconds per image", main=True, axis=True),
    CostColumn("train_seconds", "train s", "seconds of training", main=True, axis=True),
    CostColumn("model_mb", "MB", "MB", main=True, axis=False),
    CostColumn("learnt_mb", "learnt MB", "MB learnt", main=False, axis=False),
)
