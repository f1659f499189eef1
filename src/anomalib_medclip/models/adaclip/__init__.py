"""AdaCLIP: Adapting CLIP with Hybrid Learnable Prompts for Zero-Shot Anomaly Detection.

Cao et al., "AdaCLIP: Adapting CLIP with Hybrid Learnable Prompts for Zero-Shot Anomaly Detection",
ECCV 2024. Prompts are sums of static vectors, learnt for each block, and of dynamic ones, made of
the image's own feature. In the image tower they stand after the patches and are set anew before
each of the first blocks; in the text tower they overwrite the first words. Patches of four levels
and the class token, each through a linear layer, are compared with the sentences; for the image
score the class token is mixed with the centre of the most abnormal patches.

==================================  ============================================
part of the method                  here
==================================  ============================================
dynamic prompts                     ``prompts.DynamicPrompts``
prompts of the image tower          ``AdaCLIPModel.prompted``
prompts of the text tower           ``text_prompts.TextPrompts``
hybrid semantic fusion              ``fusion.Fusion``
losses                              ``AdaCLIPModel.loss_terms``
==================================  ============================================

Said is what the authors' code does; the paper was not read beyond its abstract. Where they are
known to part, this is the code, which made the published numbers:

- The 5K patches of the largest mean over levels are grouped into K clusters, and the mean of all
  centres is taken; the paper takes the cluster that is most abnormal.
- Dice is taken of rows of pixels, since the code trains on one image at a time and drops that axis;
  ``dice: images`` is the usual one.
- Exact GELU, and a position embedding resized without antialiasing.

Where this is not the code:

- Chance in the clusters is drawn anew for each image, from the method's seed: a score depends on
  nothing but the image. Empty clusters are left out, and there are never more than patches.
- Batches may be of any size, and teach what their images do one by one.
- Images without a mask teach the image score alone. The authors give them masks of zeros, which
  teaches that lesions are normal.
- The number of epochs is fixed; the authors keep the one that is best on a test set, and the best
  of several runs.
- There are no mosaics of four images. Few-shot, which the authors have not, each image of the
  support comes in eleven copies.
- Names of data sets, such as ``br35h``, are no words for what images show; ``object_name`` is.

Four savings are exact: the text tower's first block is run once for an object, and of its later
ones the words that are overwritten once for all sentences of an image; sentences are cut after
their end; and images pass the tower without prompts once.
"""

from anomalib_medclip.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
