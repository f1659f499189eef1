"""DRA: anomalies like those seen, like those made, and like nothing among the normal images.

Ding, Pang and Shen, "Catching Both Gray and Black Swans: Open-set Supervised Anomaly Detection",
CVPR 2022, arXiv 2203.14506. From normal and a few abnormal images with labels; masks are not used.
``network.py`` has the four heads, ``losses.py`` the deviation loss (eq. 1 and 2),
``pseudo_anomalies.py`` what is made of normal images, ``training_images.py`` the mixture of a step.

Where paper, code and this package part:

- Paper: step size 1e-3 and decay 1e-2. Code, and here: 2e-4, 1e-5, and gradients shortened to 1.
- Code: images to score are compared with five normal images, drawn anew for each batch of the test,
  turned by chance, and half of them pasted into. Here the references are all normal images of the
  support, as they are, so that an image is scored by itself. In training it is as in the code.
- Paper: the medical pseudo anomalies are fundus images of another set. Code: pasted pieces. Here
  likewise, or images of one's own by ``outlier_root``.
- Code: no map. Ours is the sum of the heads' patch scores, enlarged; the head that looks at the
  whole image has no place in it.
- Code: a score without bounds. Here in (0, 1), in the same order.
- An epoch is 20 batches of 48, however many images there are; the mixture of a batch is the code's.
"""

from anomalib_medclip.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
