"""Models to compare with that are no methods: WinCLIP put right, MedCLIP, and trivial cues."""

from anomalib_medclip.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
