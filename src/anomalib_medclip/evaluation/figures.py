"""Names of the figures of a test, the metrics they come from, and what they are at a threshold."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from anomalib_medclip.metrics.ranked import (
    AUPRO,
    AUROC,
    AveragePrecision,
    F1Max,
    SpecificityAtSensitivity,
)

Figures = dict[str, float | None]
"""By name, in [0, 1] but for counts; ``None`` where the images do not define it."""

CHOSEN_ON_TEST = ("image_F1Max", "image_SpecificityAtSensitivity")
"""Figures whose threshold is chosen on the test labels, so that they are no honest ones."""

AT_THRESHOLD = ("image_Sensitivity", "image_Specificity", "image_F1")
"""Figures of images at the stored threshold, which is that of the honest epoch alone."""

_SHORT = {"AveragePrecision": "AP", "CalibrationError": "ECE"}


_OF_RANKS = (
    "image_AUROC", "image_AP", *CHOSEN_ON_TEST, "pixel_AUPRO", "pixel_AUROC", "pixel_AP",
)  # fmt: skip


def of_test_alone(name: str) -> bool:
    """Whether a figure is found by a test, and not after each epoch, where ``rank_metrics`` are.

    >>> [of_test_alone(name) for name in ("image_F1", "patient_AUROC", "image_AUROC")]
    [True, True, False]
    """
    return name not in _OF_RANKS


def rank_metrics(memory: float = 1.0) -> list[Any]:
    """Figures of ranks of images and pixels; each as ``docs/metrics.md`` says.

    Args:
        memory: GB for the scores of pixels; what exceeds them goes to disk.
    """
    image: dict[str, Any] = {"fields": ["pred_score", "gt_label"], "prefix": "image_"}
    pixel: dict[str, Any] = {
        "fields": ["anomaly_map", "gt_mask"],
        "prefix": "pixel_",
        "strict": False,
    }
    overlap = AUPRO(**pixel, memory=memory)
    return [
        *(kind(**image) for kind in (AUROC, AveragePrecision, F1Max, SpecificityAtSensitivity)),
        overlap,
        *(kind(**pixel, scores_of=overlap) for kind in (AUROC, AveragePrecision)),
    ]


def figures(metrics: Sequence[Any]) -> Figures:
    """The value of each metric by its short name; ``None`` where these images do not define it."""
    found = {}
    for metric in metrics:
        prefix, _, name = metric.name.rpartition("_")
        value = metric.compute() if metric.update_count else None  # such as pixels without masks
        undefined = value is None or not torch.isfinite(value)
        found[f"{prefix}_{_SHORT.get(name, name)}"] = None if undefined else float(value)
    return found


def at_threshold(called: Sequence[int] | None, labels: Sequence[int]) -> Figures:
    """Sensitivity, specificity and F1 of the images called abnormal; ``None`` without a threshold.

    Example:
        >>> at_threshold([True, True, False, False], [True, False, True, False])
        {'image_Sensitivity': 0.5, 'image_Specificity': 0.5, 'image_F1': 0.5}
    """
    if called is None or len(set(labels)) < 2:
        return dict.fromkeys(AT_THRESHOLD)
    found, ill = np.asarray(called, dtype=bool), np.asarray(labels, dtype=bool)
    f1 = 2 * np.count_nonzero(found & ill) / (np.count_nonzero(found) + np.count_nonzero(ill))
    values = found[ill].mean(), (~found[~ill]).mean(), f1
    return dict(zip(AT_THRESHOLD, map(float, values), strict=True))
