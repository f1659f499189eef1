"""PatchSVDD: patches of normal images drawn together, and told apart by where they lie.

Yi and Yoon, "Patch SVDD: Patch-level SVDD for Anomaly Detection and Segmentation", ACCV 2020. From
normal images alone, with an encoder of its own that begins with random weights: ``networks.py``.
``pairs.py`` has the pairs of patches that it learns from, ``distances.py`` what scores are made of.

Where its code differs from this package:

- After every epoch it looks at the test images, and prints the best so far. Here the last epoch is
  kept, or the best by validation.
- It searches patches of 32 px approximately (NGT); here every search is exact.
- It cuts patches out of images one by one. Here the encoder runs once over the whole image, which
  gives the same numbers.
- An epoch is a hundred pairs an image there. Here it is ``pairs`` of them, and there are more
  epochs: as many pairs in all.
- Maps are distances ``d``, here ``d / (1 + d)``.

The weight of the last layer of its classifiers is divided by its norm where no gradient is kept, so
that it never learns. So it is here: paper and code part there, as nobody meant it.
"""

from anomalib_medclip.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
