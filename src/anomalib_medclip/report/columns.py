"""The figures and the costs that table, charts and files show: one list of each."""

from typing import NamedTuple

from anomalib_medclip.decisions.reference import LEVELS
from anomalib_medclip.evaluation.figures import CHOSEN_ON_TEST, of_test_alone
from anomalib_medclip.evaluation.levels import UNIT_FIGURES

_NAMES = {"Sensitivity": "sensitivity", "Specificity": "specificity"}

METRICS = {
    **{
        f"{level}_{name}": f"{level} {_NAMES.get(name, name)}"
        for level in reversed(LEVELS)
        for name in UNIT_FIGURES
    },
    "image_F1Max": "image F1-max",
    "image_SpecificityAtSensitivity": "specificity at 95 % sensitivity",
    "image_ECE": "calibration error",
    "pixel_AUROC": "pixel AUROC",
    "pixel_AP": "pixel AP",
    "pixel_AUPRO": "AUPRO",
    "pixel_Dice": "pixel Dice",
    "lesion_Dice": "Dice per patient",
    "lesion_Sensitivity": "lesion sensitivity",
    "lesion_FalsePositives": "false positives per patient",
    "lesion_FROC": "FROC",
}
"""Figures of a record, in [0, 1] but for counts, and their names; of the calibration error and
of false positives, less is better.
Sensitivity, specificity and F1 are those at the threshold of the level."""

_OF_UNITS = {
    "AUROC": "The chance that an abnormal {unit} scores higher than a normal one, each picked at "
    "random: 50 % is a coin, 100 % is always.",
    "AP": "Of the {unit}s with the highest scores, the share that is abnormal, averaged down the "
    "list until all abnormal ones are found.",
    "Sensitivity": "Of 100 abnormal {unit}s, so many are called abnormal at the threshold; the "
    "others are missed.",
    "Specificity": "Of 100 normal {unit}s, so many are not called abnormal at the threshold; the "
    "others are false alarms.",
    "F1": "Missed and falsely alarmed {unit}s at the threshold in one number, which is high only "
    "where both are few beside the abnormal ones that are found.",
}

MEANINGS = {
    **{
        f"{level}_{name}": words.format(unit=level)
        for level in reversed(LEVELS)
        for name, words in _OF_UNITS.items()
    },
    "image_F1Max": "The F1 that the best threshold for these very test images gives, which nobody "
    "knows beforehand: it is too good.",
    "image_SpecificityAtSensitivity": "Of 100 normal images, so many are spared by the threshold "
    "that finds 95 % of these very abnormal ones, which nobody knows beforehand: it is too good.",
    "image_ECE": "How far scores, read as the chance of being abnormal, are from the share of "
    "images that are so, on average: 0 is best.",
    "pixel_AUROC": "The chance that a pixel of a lesion is hotter in the map than a pixel outside; "
    "it is high for coarse maps, too, since most pixels are far from any lesion.",
    "pixel_AP": "Of the hottest pixels, the share that is of a lesion, averaged until all of all "
    "lesions are found; small lesions make it low.",
    "pixel_AUPRO": "The share of each lesion that the map covers, every lesion counting the same "
    "however small, averaged over thresholds that mark up to 30 % of what is healthy.",
    "pixel_Dice": "How well marks at the threshold and true lesions agree, of all pixels taken "
    "together: large lesions count most, and marks on healthy images count against it.",
    "lesion_Dice": "In a patient with lesions, how well the marked and the true area agree at the "
    "threshold: 0 is not at all, 100 % is to the pixel.",
    "lesion_Sensitivity": "Of 100 lesions, so many are touched by a mark at the threshold.",
    "lesion_FalsePositives": "So many marks at the threshold are on no lesion, in each patient.",
    "lesion_FROC": "Of 100 lesions, so many are found if a reader accepts 1/8, 1/4, 1/2, 1, 2, 4 "
    "or 8 marks on no lesion in each patient, averaged over these.",
}
"""Each figure in a sentence for who reads images, and not tables."""

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
