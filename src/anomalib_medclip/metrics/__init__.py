"""Figures of images and pixels, exact and bounded in memory, and how sure one may be of them.

=================  ============================================================================
``keys``           scores as whole numbers of the same order
``tallies``        counts at each score, by sorting or in tables
``score_store``    every score at 4 bytes, in memory and then on disk, read back in order
``rank_figures``   AUROC, average precision, F1, specificity and region overlap, from counts
``images``         images of patients, checked
``pairs``          scores with labels, checked, and the regions of masks
``gathering``      the scores of several processes in one store
``ranked``         these as metrics for anomalib's ``Evaluator``
``calibration``    how often a score of 0.8 is right: curve and expected calibration error
``intervals``      textbook intervals: of a mean, by bootstrap; two methods on the same images
``influence``      how much each patient moves a figure
``clustered``      intervals and comparisons over patients and draws together
``patient_pixels`` the same of figures of pixels
=================  ============================================================================
"""

from importlib import import_module
from typing import Any

_HOME = {
    "AUPRO": "ranked",
    "AUROC": "ranked",
    "AveragePrecision": "ranked",
    "CalibrationError": "calibration",
    "PairedDifference": "intervals",
    "F1Max": "ranked",
    "Interval": "intervals",
    "SpecificityAtSensitivity": "ranked",
    "bootstrap": "intervals",
    "compare_by_patient": "intervals",
    "delong": "intervals",
    "mean_interval": "intervals",
    "reliability_curve": "calibration",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a metric or function, known only once imported
    """Import the module of a metric when it is first asked for."""
    if name not in _HOME:
        msg = f"{__name__} has no {name!r}; it has {', '.join(_HOME)}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
