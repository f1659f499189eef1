"""CutPaste: a network that tells normal images from the same with a part pasted elsewhere.

Li, Sohn, Yoon and Pfister, "CutPaste: Self-Supervised Learning for Anomaly Detection and
Localization", CVPR 2021. From normal images alone: ``synthesis.py`` pastes, ``torch_model.py`` has
the network and its loss, ``density.py`` the Gaussian of normal features that scores come from.

There is no code of the authors. This follows an unofficial one, and its numbers, which differs from
the paper, as far as that is known: 256 steps of 32 images a class by default, and 10,000 for the
figures of its page, where the paper takes 256 times 256 steps; a head of one layer of 512 and one
of 128; no translation of images.

Where this package differs from that code:

- A few images are repeated to the 32 of a step, and a step is an epoch; there they are repeated to
  3000, of which each step draws 32.
- It prints figures of the test images while it trains. Here nothing looks at them.
- That code gives no map. The map here is ours: of each position of the last stage, how far it is
  from the Gaussian of all positions of normal images. The paper trains another network on patches.
- Of distances ``d``, scores are ``d / (d + sqrt(width))``: one half is usual in a Gaussian.

MediCLIP's task of the same name blends what it pastes, and knows masks: see
``anomalib_medclip.models.mediclip``.
"""

from anomalib_medclip.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
