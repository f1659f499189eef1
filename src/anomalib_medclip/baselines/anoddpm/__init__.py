"""AnoDDPM: images made noisy and brought back by a network that knows normal ones.

Wyatt et al., "AnoDDPM: Anomaly Detection with Denoising Diffusion Probabilistic Models using
Simplex Noise", CVPR workshop 2022. From normal images alone. The network is MONAI's
``DiffusionModelUNet``, which computes the same; ``diffusion.py`` has the steps, ``simplex.py`` the
noise.

Where its code differs from this package:

- It draws the noise of images to score anew in each run. Here it follows from ``seed``, and is the
  same for all images, so that an image has one score, and no rounding of its pixels draws another.
- All images of a batch have one noise in its training, so it trains on single images. Here each has
  its own.
- Its script of detection builds the network with one head of attention, and loads weights of two.
  Here the number is that of training.
- It says of no image score. Here it is the mean of the map, or its maximum.
- It learns from slices of volumes, turned, shifted and cut by chance. Here from the images as they
  are.
- Maps are squared differences of grey levels in [-1, 1]; here a quarter of that.
"""

from anomalib_medclip.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
