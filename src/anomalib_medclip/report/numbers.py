"""Figures and intervals in words: in percent everywhere, counts alone excepted."""

from anomalib_medclip.evaluation.localisation import COUNTS
from anomalib_medclip.report.rows import Estimate


def percent(value: float) -> str:
    r"""A figure in [0, 1] as percent with one decimal and a true minus, as the field prints it.

    >>> percent(0.9123), ascii(percent(-0.004))
    ('91.2', "'\\u22120.4'")
    """
    return f"{100 * value:.1f}".replace("-", "\u2212")


def figure_in_words(metric: str, value: float) -> str:
    """A figure as the table has it: in percent, but for counts.

    >>> figure_in_words("image_AUROC", 0.9123), figure_in_words("lesion_FalsePositives", 1.166)
    ('91.2', '1.17')
    """
    return f"{value:.2f}" if metric in COUNTS else percent(value)


def interval_in_words(metric: str, estimate: Estimate) -> str:
    r"""The 95 % interval as the table has it; empty where nothing supports one.

    One that reaches from 0 to 100 says no more than how many patients there were.

    >>> ascii(interval_in_words("image_AUROC", Estimate(0.912, 0.904, 0.92, (0.912,), "patients")))
    "'90.4\\u201392.0'"
    >>> interval_in_words("image_AUROC", Estimate(0.9, 0.0, 1.0, (0.9,), "patients", 2))
    'n = 2'
    """
    if estimate.low is None or estimate.high is None:
        return ""
    if metric not in COUNTS and estimate.says_nothing:
        return f"n = {estimate.patients}"
    low, high = (figure_in_words(metric, end) for end in (estimate.low, estimate.high))
    return f"{low}\u2013{high}"


def estimate_in_words(estimate: Estimate) -> str:
    """An estimate in percent, with its interval.

    >>> estimate_in_words(Estimate(0.9123, 0.85, 0.95, (0.9, 0.9246)))
    '91.2 % (85.0 to 95.0)'
    """
    mean = f"{percent(estimate.mean)} %"
    if estimate.low is None or estimate.high is None:
        return mean
    if estimate.says_nothing:
        return f"{mean} (n = {estimate.patients} patients)"
    return f"{mean} ({percent(estimate.low)} to {percent(estimate.high)})"
