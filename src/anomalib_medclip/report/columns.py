"""The figures and the costs that table, charts and files show: one list of each."""

from typing import NamedTuple

from anomalib_medclip.evaluation.figures import CHOSEN_ON_TEST, of_test_alone
from anomalib_medclip.evaluation.levels import UNIT_FIGURES

_NAMES = {"Sensitivity": "sensitivity", "Specificity": "specificity"}

METRICS = {
    **{
        f"{level}_{name}": f"{level} {_NAMES.get(name, name)}"
        for level in ("patient", "volume", "image")
        for name in UNIT_FIGURES
    },
    "image_F1Max": "image F1-max",
    "image_SpecificityAtSensitivity": "specificity at 95 % sensitivity",
    "image_ECE": "calibration error",
    "pixel_AUROC": "pixel AUROC",
    "pixel_AP": "pixel AP",
    "pixel_AUPRO": "AUPRO",
}
"""Figures of a record, in [0, 1], and their names; of the calibration error, less is better.
Sensitivity, specificity and F1 are those at the threshold of the level."""

PROTOCOLS = ("honest", "oracle", "gap")
"""Which epoch a figure is of: fixed or chosen by validation, best on the test images, and the
second less the first."""


def protocols_of(metric: str) -> tuple[str, ...]:
    """Protocols by which a figure is shown.

    A threshold that is chosen on the test labels makes no honest figure, whatever the epoch;
    thresholds, and how images are aggregated, are those of the honest epoch.

    >>> protocols_of("image_F1Max"), protocols_of("image_F1"), protocols_of("patient_AUROC")
    (('oracle',), ('honest',), ('honest',))
    """
    if metric in CHOSEN_ON_TEST:
        return ("oracle",)
    only_tested = of_test_alone(metric) and metric != "image_ECE"
    return ("honest",) if only_tested else PROTOCOLS


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
