"""SimpleNet: an adaptor and a discriminator of normal features from the same with noise.

Liu, Zhou, Xu and Wang, "SimpleNet: A Simple Network for Image Anomaly Detection and Localization",
CVPR 2023. From normal images alone: ``torch_model.py`` has the embedding, as PatchCore's, the
adaptor, the discriminator and the loss.

Where its code differs from this package:

- It keeps the epoch of the best image AUROC on the test images, of forty looks at them. Here it is
  the last, or the best by validation.
- Images are resized to 329 px and cropped to the inner 288, so that nothing is said of the border.
  Here they are resized to a square of 288 px.
- Before training, one image of ones goes through the backbone in training mode, and moves the
  running statistics of its batch norms by a tenth. So it does with ``moved_statistics``, off by
  default.
- What it calls an epoch is four passes over the images; here an epoch is one.
- Scores are its own, ``-D``, through a sigmoid.
"""

from anomalib_medclip.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
