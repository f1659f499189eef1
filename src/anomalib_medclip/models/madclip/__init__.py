"""MadCLIP: dual-branch adapters and learnable prompts.

Shiri, Beyan and Murino, "MadCLIP: Few-shot Medical Anomaly Detection with CLIP", MICCAI 2025. At
each of four levels of a frozen CLIP one adapter learns what is normal and another what is abnormal;
both are compared with both prompts, and the other class is subtracted.

==========================  ====================================================
paper                       here
==========================  ====================================================
adapters of two branches    ``adapters.Adapter``
S_n and S_ab                ``MadCLIPModel.scores``
learnable prompts           ``components.learnable_prompts.LearnablePrompts``
SigLIP loss                 ``torch_model.siglip``
focal and dice loss         ``MadCLIPModel.loss_terms``
anomaly score and map       ``MadCLIPModel.score``
==========================  ====================================================

Where the paper and the authors' code part, this is the code, which made the published numbers:
leaky activations, and between an adapter's two layers a layer norm without weights; the SigLIP loss
takes raw patch scores and knows no temperature and no bias; the text tower attends to all 77
positions, padding included (``causal=True`` is CLIP as it was trained); eight context vectors, with
the phrase after, before and amid them; sixteen copies of each image where the paper speaks of
MVFA's eleven, four of them zooms and one a change of brightness and contrast that is drawn once for
the normal and once for the abnormal images and takes its mean column by column
(``jitter="image"`` takes it over the image, ``"off"`` leaves the copy as it is); image scores are
the maximum of the map where there are masks (``image_score="mean"`` is the paper's), else the mean
over patches; CLIP's mean and standard deviation are not applied, and its GELU is the exact one.

Where the authors use the test set, this does not: maps are not stretched to the extremes of the
test set, and a fixed number of epochs is trained without looking for the best.

The ablations (a) to (f) of section 3 are the options ``prompts``, ``object_name``, ``branches``,
``subtract``, ``loss`` and ``heads``.
"""

from anomalib_medclip.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
