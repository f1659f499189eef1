"""AnoDDPM: Wyatt et al., "AnoDDPM: Anomaly Detection with [...] Simplex Noise", CVPR workshop 2022."""

from anomalib_medclip.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
