"""VCP-CLIP: Visual Context Prompting for zero-shot anomaly segmentation.

Qu et al., "VCP-CLIP: A visual context prompting model for zero-shot anomaly segmentation", ECCV
2024. Two sentences, "a photo of a good" and "a photo of a damaged", end in vectors that depend on
the image's class token (Pre-VCP), with learnable prompts before each block of the text tower.
Patches of CLIP's frozen image tower are compared with both by a linear layer at each of four
levels; and each sentence reads the patches of a level, and is compared with them once more, in the
tower's own width (Post-VCP).

==================================  ============================================
part of the method                  here
==================================  ============================================
Pre-VCP, deep text prompts          ``ImagePrompts`` of the components
Post-VCP                            ``post_prompts.PostPrompts``
maps of both                        ``VCPCLIPModel.logits``, ``VCPCLIPModel.maps``
image score, anomaly map            ``VCPCLIPModel.score``
losses                              ``VCPCLIPModel.loss_terms``
==================================  ============================================

Said is what the authors' code does; the paper was not read beyond its abstract. Where this is not
the code:

- No score is scaled by the extremes of the whole test set, which changes no AUROC of a set.
- The image score is the mean of the largest 0.75 % of pixels, which are their 2000 of 518 x 518,
  and half of their sum over both maps, so that it lies in [0, 1].
- Dropout in the learnable prompts, 0.1 in their training, is off unless ``dropout`` says otherwise:
  a batch then teaches what its parts do.
- Masks are needed: there is no loss of the image score. Their images without a mask have one of
  zeros, which teaches that lesions are normal; here these sets teach nothing, and it is said.
- Training images are not altered at random in each epoch. Few-shot, which the authors have not,
  each image of the support comes in eleven copies.
- The number of epochs is fixed; the authors leave it open which is taken.

Three savings are exact: sentences are cut after the token that is read; what they begin with is run
once for all images; and no patch is projected to keys and values, see ``FoldedAttention``.
"""

from anomalib_medclip.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
