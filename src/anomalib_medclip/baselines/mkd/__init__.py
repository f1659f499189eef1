"""MKD: a small network imitates a large one on normal images; elsewhere the two part.

Salehi, Sadjadi, Baselizadeh, Rohban and Rabiee, "Multiresolution Knowledge Distillation for Anomaly
Detection", CVPR 2021. From normal images alone. ``networks.py`` has the small network and both
distances, ``maps.py`` what becomes of gradients, ``trunk.py`` the large network.

The defaults are those of BMAD's copy of its code, the likely source of medical tables: 224 px, with
ImageNet's mean and deviation, 200 epochs, a weight of 0.01 on the distance in value. The authors'
own settings are 128 px without mean and deviation, one smoothing, and for MVTec AD a weight of 0.5.

Where its code differs from this package:

- It trains an epoch more than it is asked to, and tests a checkpoint that is never written. Here
  there are as many epochs as asked for.
- It looks at the test images every ten epochs, and leaves the choice to who reads the figures. Here
  the last epoch is kept, or the best by validation.
- Its pixel AUROC is of abnormal images alone, and of maps thresholded and opened. Ours is plain.
- The noise of ``smooth_grad`` is drawn anew for each image. Here it is the same for all.
- Scores are its own, moved into [0, 1) by x / (1 + x).

The paper is said to weigh the distance in direction; the code weighs that in value, and so do we.
"""

from anomalib_medclip.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
