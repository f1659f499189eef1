"""RegAD: normal images of other sets teach to bring images on each other; a few are compared with.

Huang et al., "Registration based Few-Shot Anomaly Detection", ECCV 2022. From normal images alone.
``network.py`` has the stages and their spatial transformers, ``copies.py`` the 22 copies of each
normal image, ``gaussian.py`` the Gaussian at each position.

Where its code differs from this package:

- It keeps the epoch of the best AUROC on the test images, looked at before each epoch. Here it is
  the last, or the best by validation.
- It scales maps by the extremes of the test images. Here a distance ``d`` becomes
  ``d / (d + sqrt(channels))``, image by image.
- It holds a covariance of 448 x 448 at each of 3136 positions. Here what is held has as many rows
  as there are samples, as long as these are fewer; the distances are the same.
- Its other images of a set, which an image is registered with, are of all its images; here they
  are of the batch.
- It has no seed unless one is given.
"""

from anomalib_medclip.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
