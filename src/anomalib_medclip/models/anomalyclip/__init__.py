"""AnomalyCLIP: Object-agnostic Prompt Learning for Zero-shot Anomaly Detection.

Zhou et al., "AnomalyCLIP: Object-agnostic Prompt Learning for Zero-shot Anomaly Detection", ICLR
2024. Two prompts, "[V1]...[V12] object." and "[W1]...[W12] damaged object.", have context words
that are learnt, and say nothing of what images show; in the text tower, further learnt vectors
overwrite their first words before several blocks. Patches come from a second stream beside CLIP's
frozen image tower, in which values attend to one another; both streams are compared with both
prompts.

==================================  ============================================
part of the method                  here
==================================  ============================================
object-agnostic prompts             ``LearnablePrompts`` of the components
learnable tokens of the text tower  ``OverwritingPrompts`` of the components
diagonally prominent attention      ``clip.value_path``
image score, map                    ``AnomalyCLIPModel.score``
losses                              ``AnomalyCLIPModel.loss_terms``
==================================  ============================================

Said is what the authors' code does; the paper was not read beyond its abstract. Where they could be
told apart, this is the code, which made the published numbers:

- One level is read, the last block; older versions read four, whose maps were equal by a mistake.
- The image's feature is CLIP's class token projected without the last layer norm.
- Probabilities are enlarged, edges aligned, and not logits.
- The position embedding is resized bilinearly.
- Fixed epochs, 15, and no look at the test set.

Where this is not the code:

- Learnt vectors are not rounded to half precision, which changes features by 5e-5.
- The map is the mean over levels, not the sum; with one level they are the same.
- Images without a mask teach the image score alone. The authors give them masks of zeros, and so
  teach that lesions are normal; one of them advises against it.
- Few-shot, which the authors have not, each image of the support comes in eleven copies.

Two savings are exact: text ends at the token that is read, and images are encoded once.
"""

from anomalib_medclip.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
