"""Models to compare with that are no methods: rivals of papers' tables, and trivial cues.

A folder here with a ``lightning_model.py`` is a baseline, found without a list and imported when it
is asked for; ``common`` is what such folders stand on. Files beside them are of WinCLIP put right,
of MedCLIP, and of the trivial cues.
"""

from anomalib_medclip.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__, folders="lightning_model")


def list_baselines() -> list[str]:
    """Class names of all baselines, in alphabetical order; none is imported.

    Example:
        >>> {"MeanIntensity", "SimpleNet", "WinCLIP"} <= {*list_baselines()}
        True
    """
    return list(__all__)
