"""Models to compare with that are not methods of this package: anomalib's, put right."""

from anomalib_medclip.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
