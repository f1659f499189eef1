"""Whether a score of 0.8 is right in 8 of 10 cases: reliability curve and calibration error."""

import logging
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from anomalib.metrics import AnomalibMetric
from torch import Tensor
from torchmetrics import Metric

from anomalib_medclip.devices import most_exact
from anomalib_medclip.errors import MetricError
from anomalib_medclip.metrics.pairs import pairs

logger = logging.getLogger(__name__)

_UNITS = 2**32
"""Sums of scores are whole numbers of these parts of one: not every device has float64, and float32
would lose small scores in a large sum. Two thousand million scores fit."""


class Reliability(NamedTuple):
    """A row for each bin of equal width, from 0 to 1; NaN where a bin is empty."""

    mean_score: npt.NDArray[np.float64]
    """Mean of the scores in the bin."""
    abnormal: npt.NDArray[np.float64]
    """Share of abnormal images or pixels."""
    scores: npt.NDArray[np.int64]
    """How many scores are in the bin."""

    @property
    def error(self) -> float:
        """Mean of |mean_score - abnormal| over all scores: expected calibration error."""
        filled = self.scores > 0
        gaps = np.abs(self.mean_score - self.abnormal)[filled]
        return (
            float(np.average(gaps, weights=self.scores[filled])) if filled.any() else float("nan")
        )


def reliability_curve(scores: npt.ArrayLike, labels: npt.ArrayLike, bins: int = 15) -> Reliability:
    """Curve of scores in [0, 1], each with its label 0 or 1.

    Bins are closed above, the lowest on both sides, as in scikit-learn's ``calibration_curve``.
    Scores and the borders of bins are taken as float32: 0.2 is on the border at 0.2.

    Raises:
        MetricError: A score lies outside [0, 1], a label is neither 0 nor 1, or shapes differ.
    """
    metric = _CalibrationError(bins=bins)
    metric.update(torch.as_tensor(np.asarray(scores)), torch.as_tensor(np.asarray(labels)))
    return metric.curve()


class _CalibrationError(Metric):
    full_state_update = False
    higher_is_better = False
    is_differentiable = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0
    count: Tensor
    score: Tensor
    abnormal: Tensor

    def __init__(self, bins: int = 15, **options: Any) -> None:  # noqa: ANN401 - torchmetrics'
        if bins < 1:
            msg = f"{bins} bins hold no scores; give 1 or more"
            raise MetricError(msg)
        super().__init__(**options)
        self.bins = bins
        for name in ("count", "abnormal", "score"):
            zeros = torch.zeros(bins, dtype=torch.int64)
            self.add_state(name, zeros, dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add scores in [0, 1] and labels of one shape, apart from axes of length one."""
        scores, abnormal = pairs(preds, target)
        if scores.size and (scores.min() < 0 or scores.max() > 1):
            msg = (
                f"scores from {scores.min():g} to {scores.max():g} are no probabilities; give "
                "calibration scores between 0 and 1"
            )
            raise MetricError(msg)
        # In the precision of the scores: 0.2 as float32 lies above 0.2 as float64, and a score of
        # 0.2 would leave the bin that ends there.
        borders = np.linspace(0, 1, self.bins + 1)[1:-1].astype(scores.dtype)
        bin_of = np.searchsorted(borders, scores)
        self.count += self._sums(bin_of, None)
        self.abnormal += self._sums(bin_of[abnormal], None)
        self.score += self._sums(bin_of, scores * np.float64(_UNITS))

    def compute(self) -> Tensor:
        """Expected calibration error in [0, 1], on the processor; in float64 as ``RankMetric``."""
        error = self.curve().error
        if np.isnan(error):
            logger.warning("%s is undefined: no score came", type(self).__name__)
        return torch.tensor(error, dtype=most_exact(self.device))

    def curve(self) -> Reliability:
        """Reliability curve of this process's scores."""
        count = self.count.cpu().numpy()
        filled = np.where(count, count, np.nan)
        return Reliability(
            self.score.cpu().numpy() / _UNITS / filled,
            self.abnormal.cpu().numpy() / filled,
            count.copy(),
        )

    def _sums(self, bin_of: npt.NDArray[np.int64], of: npt.NDArray[Any] | None) -> Tensor:
        sums = np.bincount(bin_of, weights=of, minlength=self.bins)
        return torch.from_numpy(np.rint(sums).astype(np.int64)).to(self.device)


class CalibrationError(AnomalibMetric, _CalibrationError):  # type: ignore[misc]
    """Expected calibration error: mean gap between score and share of abnormal, in ``bins`` (15).

    Bins are of equal width, as those of ``reliability_curve``; ``curve`` draws them. The state is
    three numbers a bin, in no ``state_dict``, and is summed over processes. Without scores it is
    NaN, with a warning.

    Raises:
        MetricError: A score lies outside [0, 1], a label is neither 0 nor 1, or shapes differ.
    """
