"""APRIL-GAN: linear layers from frozen levels to the text, and a bank of frozen patches.

Chen, Han and Zhang, "APRIL-GAN: A Zero-/Few-Shot Anomaly Classification and Segmentation Method for
CVPR 2023 VAND Workshop Challenge Tracks 1&2", 2023 (there is no GAN in it).

====================  =========================================================
the authors' code     here
====================  =========================================================
linear layers         ``APRILGANModel.layers``, ``projected``
maps                  ``APRILGANModel.fused_map``, ``components.patch_memory``
image scores          ``APRILGANModel.text_score``, ``averaged_score``
losses                ``APRILGANModel.loss_terms``
mosaics               ``mosaic.Mosaics``
====================  =========================================================

Settings. *Zero-shot*: layers learn from other sets' masks, or come by ``adapters``. *Few-shot as
published*: these layers as they are, and K normal images to compare with: ``adapters``, or a
checkpoint. *Few-shot as in the papers' medical tables*: the layers learn from K normal and K
abnormal images of the target with their masks, and the K normal ones are compared with. What these
tables trained on sets without masks is not known; here the layers have then no part in the map.

What is easily expected otherwise, and is as the authors' code has it: the zero-shot image score is
that of the pooled embedding, in which no layer has a part (``image_score="map_max"``: the map's
maximum, presumably that of IQE-CLIP's tables); the map adds probabilities and distances that weigh
little beside them; CLIP's mean and deviation are applied, and its GELU is the exact one, unless at
336 px (``quick_gelu``); there are two lists of levels; the bank keeps no class token, and no copy.

Where the code has a fault or uses the test set, this does not: the Dice loss is of each image in a
batch of one, too, where the code takes rows for images; references are drawn without repetition;
maxima of maps are brought to one scale by constants from support images, each left out, where the
code takes the extremes of the test images (``transductive=True`` restores that). Masks are resized
to the nearest neighbour; the code's are bilinear, and their borders differ by a pixel. A batch has
images of one set; the code mixes them. Epochs are the 15 that the authors train on VisA; on MVTec
AD they train 3, with mosaics. Why, and which epoch was released, is not said.
"""

from anomalib_medclip.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
