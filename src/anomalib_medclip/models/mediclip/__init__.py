"""MediCLIP: adapters and learnable prompts, trained on synthetic anomalies of normal images.

Zhang et al., "MediCLIP: Adapting CLIP for Few-shot Medical Image Anomaly Detection", MICCAI 2024.
K normal images are all it learns from: four tasks make anomalies on them, a linear adapter brings
the tokens of three levels to the text, and the context words of 21 class names learn.

====================  ======================================================================
paper                 here
====================  ======================================================================
learnable prompts     ``components.learnable_prompts``, ``components.class_names``
adapters              ``MediCLIPModel.adapters``
map and score         ``MediCLIPModel.maps``, ``MediCLIPModel.score``
loss                  ``MediCLIPModel.loss_terms``
anomaly synthesis     ``synthesis.synthesize``, ``tasks``, ``masks``
====================  ======================================================================

Where the paper and the authors' code part, this is the code, which made the published numbers: no
temperature (``temperature=0.07`` is the paper's); cosines are averaged over levels and enlarged
before the softmax, not after it (``softmax="levels"`` is the paper's); patches of CutPaste are
pasted hard (``poisson=True`` blends them); a fourth task leaves the image as it is, so that a
quarter of the training images is normal;
noise is stretched to [0, 1], and up to two patches are altered; the deformation's exponent is drawn
on a logarithmic scale; Perlin noise has a single cell; the text tower attends to all 77 positions
(``causal=True`` is CLIP as it was trained); class names have contexts of their own and a full stop;
CutPaste's label are the pixels that changed; text features are averaged before they are normalised.

The authors' random draws repeat in every worker and epoch; here each sample has a stream of its
own, made of seed, epoch and index. They keep the epoch that is best on the test set; here the last
one is kept, or the best on validation images if asked.

Tables 4 and 5 of the paper are the options ``prompts``, ``projection``, ``tasks`` and
``synthesis``.
"""

from anomalib_medclip.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
