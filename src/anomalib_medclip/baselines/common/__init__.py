"""What baselines stand on that are no CLIP methods: where images enter, a torch model, options.

Such a baseline is a folder beside this one: a torch model that derives from ``NetworkModel``, and a
class of options that derives from ``Baseline``. See ``docs/add_a_baseline.md``.
"""

from anomalib_medclip.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
