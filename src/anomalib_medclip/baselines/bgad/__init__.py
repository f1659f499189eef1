"""BGAD: flows of frozen features of normal images, kept off a boundary by a few outlined lesions.

Yao, Li, Zhang, Sun and Zhang, "Explicit Boundary Guided Semi-Push-Pull Contrastive Learning for
Supervised Anomaly Detection", CVPR 2023. From normal and abnormal images with masks. ``flows.py``
has the conditional flows, which are anomalib's of CFLOW, ``losses.py`` the likelihood, the boundary
and the focal weights, ``pasting.py`` more abnormal images.

Where its code differs from this package:

- The likelihoods of each level count from the highest on all test images together, so that no image
  can be scored alone, and the map from its own highest value there. Here they count from the
  highest on the normal support, and the map is 1 less their mean over levels.
- It looks at the test images after each meta epoch, and reports the best image AUROC and the best
  pixel AUROC, each for itself. Here the last epoch is kept, or the best by validation.
- A level with fewer positions in a batch than a step takes is never trained. Here a step takes what
  there is.
- Lesions are put onto normal images anew each time, by disturbances of albumentations, and, where a
  mask of the foreground says so, in another place. Here each is made five times and kept, by
  disturbances of torchvision that are like these, and stays in its place.
- The warm-up counts loaders for batches, and may end above the cosine. Here it ends there.
- A step of which no position lies beyond its boundary has the loss NaN. Here it has 0; both have
  the same gradient.
"""

from anomalib_medclip.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
