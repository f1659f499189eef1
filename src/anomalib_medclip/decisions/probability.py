"""How probable it is that a patient is abnormal, where enough patients are known to say."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from anomalib_medclip.decisions.aggregation import ENOUGH, FloatArray
from anomalib_medclip.decisions.reference import Reference
from anomalib_medclip.errors import ConfigError

MANY = 500
"""Patients from which on no form of the curve is assumed."""


@dataclass(frozen=True)
class Calibration:
    """A curve from scores to probabilities, in numbers that need nothing but NumPy.

    Attributes:
        kind: ``sigmoid`` (Platt 1999, with smoothed targets) or ``isotonic``.
        x: Of a sigmoid its slope and its intercept, of the logit; else the scores of the corners.
        y: Probabilities at the corners.
        prevalence: Share of abnormal patients among those it was fitted on.
        patients: How many they were.
    """

    kind: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    prevalence: float
    patients: int

    def probability(self, score: float, prevalence: float | None = None) -> float:
        """Probability that a patient with this score is abnormal.

        Args:
            score: Aggregated as those it was fitted on.
            prevalence: Share of abnormal patients where it is asked; by default that of those it
                was fitted on. Odds move by the ratio of the odds of the two (Elkan 2001).

        Raises:
            ConfigError: The prevalence is no share.
        """
        if self.kind == "sigmoid":
            logit = self.x[0] * score + self.x[1]
        else:
            share = float(np.interp(score, self.x, self.y))
            logit = float(np.log(share) - np.log1p(-share))
        if prevalence is not None:
            logit += log_odds(prevalence) - log_odds(self.prevalence)
        return float(0.5 + 0.5 * np.tanh(logit / 2))

    def as_plain(self) -> dict[str, Any]:
        """In values that JSON has; ``from_plain`` undoes it."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "Calibration":
        """Undo ``as_plain``; JSON has lists for tuples."""
        return cls(**{**plain, "x": tuple(plain["x"]), "y": tuple(plain["y"])})


def why_none(reference: Reference, *, learns_abnormal: bool) -> str:
    """Why no probability can be said; empty where one can.

    Args:
        reference: Patients it would be fitted on.
        learns_abnormal: Whether the model has learnt what is abnormal, too.
    """
    counts = len(reference.normal), len(reference.abnormal)
    if not learns_abnormal:
        return "the model knows normal images alone, and says how unlike them an image is"
    if not reference.one_each:
        return "patients have several images or volumes each, and are to be decided about as one"
    if min(counts) < ENOUGH:
        return (
            f"too few patients: {counts[0]} normal and {counts[1]} abnormal ones, and a "
            f"probability needs {ENOUGH} of each"
        )
    return ""


def calibrate(reference: Reference) -> Calibration:
    """Fit the curve: a sigmoid, and from ``MANY`` patients on whatever rises.

    A probability of 0 or 1 would be more than any number of patients shows: it is kept as far from
    them as one patient more would be.
    """
    from sklearn.isotonic import IsotonicRegression  # others need not wait for it
    from sklearn.linear_model import LogisticRegression

    normal, abnormal = len(reference.normal), len(reference.abnormal)
    scores, truth = reference.scores, np.repeat([0.0, 1.0], [normal, abnormal])
    count = normal + abnormal
    prevalence = abnormal / count
    if count >= MANY:
        low, high = 1 / (count + 2), 1 - 1 / (count + 2)
        found = IsotonicRegression(y_min=low, y_max=high, out_of_bounds="clip").fit(scores, truth)
        x, y = (tuple(map(float, one)) for one in (found.X_thresholds_, found.y_thresholds_))
        return Calibration("isotonic", x, y, prevalence, count)
    targets = np.where(truth == 1, (abnormal + 1) / (abnormal + 2), 1 / (normal + 2))
    spread = float(scores.std()) or 1.0
    centred: FloatArray = ((scores - scores.mean()) / spread)[:, None]
    fit = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(
        np.concatenate([centred, centred]),
        np.repeat([1, 0], count),
        sample_weight=np.concatenate([targets, 1 - targets]),
    )
    slope = max(0.0, float(fit.coef_[0, 0])) / spread  # a higher score is never less abnormal
    intercept = float(fit.intercept_[0]) - slope * float(scores.mean())
    if slope == 0:
        intercept = log_odds(prevalence)
    return Calibration("sigmoid", (slope, intercept), (), prevalence, count)


def log_odds(share: float) -> float:
    """Logarithm of the odds of a prevalence.

    Raises:
        ConfigError: It is no share.
    """
    if not 0 < share < 1:
        msg = f"the prevalence is {share}; give a share between 0 and 1, such as 0.1"
        raise ConfigError(msg)
    return float(np.log(share) - np.log1p(-share))
