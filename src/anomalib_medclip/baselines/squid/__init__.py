"""SQUID: windows of an image, made anew of memories of normal windows at their place.

Xiang, Zhang, Lu, Yuille, Zhang, Cai and Zhou, "SQUID: Deep Feature In-Painting for Unsupervised
Anomaly Detection", CVPR 2023. From normal images alone, of chest radiographs first of all.
``memory.py`` has the memories and the in-painting, ``autoencoder.py`` the generator and its
teacher.

Where its code differs from this package:

- There is no map. Ours is how far an image is from itself made anew; that of published pixel
  figures must have been of this kind, and nobody says so.
- Scores count from normal training images, moved and scaled by chance, at most 201. Here they are
  the support's, as they are, each left out of its own score where thresholds come from it.
- The discriminator stays in training mode, so that its batch norms learn from the images tested.
  Here it is in evaluation mode.
- Every second batch of an epoch trains the generator, so that of few images, with one batch an
  epoch, each does. Here batches are counted through all epochs.
- The file that is kept is the latest whose validation was within 0.5 of the best. Here it is the
  last epoch's, or the best by validation.
- Where in the queues of its memories it is, is not saved. Here it is.
- Its Gumbel noise is none, and its five nearest slots are four; so are ours.
"""

from anomalib_medclip.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
