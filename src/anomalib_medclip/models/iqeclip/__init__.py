"""IQE-CLIP: Instance-aware Query Embedding.

Huang et al., "IQE-CLIP: Instance-aware Query Embedding for Zero-/Few-shot Anomaly Detection in
Medical Domain", 2025. Two sentences, normal and abnormal, end in vectors that depend on the image's
class token; two queries, normal and abnormal, read the image's patches and those sentences. Patches
are compared with both pairs, at each of four levels of CLIP's frozen image tower.

==========================  ===================================================
paper                       here
==========================  ===================================================
eq. 1-3 (class prompts)     ``ClassTokens`` and ``ImagePrompts`` of the components
eq. 4 (learnable prompts)   ``InsertedPrompts`` of the components
eq. 5 (query adapter)       ``IQECLIPModel.linears``
eq. 6-9 (query module)      ``query.QueryModule``
eq. 10, 11 (maps)           ``IQECLIPModel.logits``, ``IQECLIPModel.maps``
eq. 12 (fusion)             ``IQECLIPModel.mix``
eq. 13, 14 (losses)         ``IQECLIPModel.loss_terms``
==========================  ===================================================

Where the paper and the authors' code part, this is the code, which made the published numbers:

- Adam's step size is 1e-4, and 1e-2 for the temperature, not 1e-3; batches of 16, 50 epochs.
- There is one learnable prompt in a block, not four, and two class prompts; the text tower has 12
  blocks, not 24, and all of them have prompts.
- A block of the query module reads itself, the image, then the text, with one feed-forward network
  at the end; in the paper the text comes before the image, with a network after each.
- Queries have no position embedding; learnt vectors are added to what the image gives.
- The class token enters by a convolution of three taps along its features, neither cropped nor
  discretised, instead of by an MLP.
- The query adapter is linear, without ReLU.
- The losses of both branches are added, without alpha; alpha only mixes the maps at test time.
- The binary cross-entropy takes the mean patch probability, and as if it were a logit; the paper
  takes the map's maximum. ``bce="probabilities"`` mends the second half of this.
- The image score is a mean, too, and not the maximum: over patches zero-shot, over pixels few-shot.
- Text logits are sharpened by a learnt temperature, query logits by none.
- The map is smoothed with a Gaussian of 8 pixels.
- CLIP has exact GELU and unnormalised images; ``quick_gelu`` and ``normalize`` change that.
- The paper's [class] is literally ``<|class|>``, five tokens; class prompts stand where the
  end-of-text token was, and the last of them is read.
- Dropout of 0.1 in the query module is off but for the first epoch few-shot; here it is off.

Options restore what is printed, but for the MLPs and the position embedding, of which no more is
said; all of them together are in ``configs/models/iqeclip_paper.yaml``.

Where both use the test set, this does not: no scaling of scores by the whole set, and the published
number of epochs is trained, without looking for the best.

Three savings are exact: prompts are cut after the token that is read, as a causal tower sees
nothing later; all images, sentences and levels are batched; and attention folds its key and value
projections around the image's tokens, see ``FoldedAttention``.
"""

from anomalib_medclip.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
