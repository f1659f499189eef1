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

from anomalib_medclip.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
