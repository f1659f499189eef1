"""RegAD: Huang et al., "Registration based Few-Shot Anomaly Detection", ECCV 2022."""

from anomalib_medclip.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
