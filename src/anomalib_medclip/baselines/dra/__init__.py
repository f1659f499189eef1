"""DRA: Ding, Pang and Shen, "Catching Both Gray and Black Swans", CVPR 2022, arXiv 2203.14506."""

from anomalib_medclip.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
