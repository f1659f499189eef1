"""Plain CLIP: CLIP's frozen towers and nothing else, the row that methods are compared with.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021.
No paper says in full what CLIP does to a medical anomaly. Here it is one of three modes:

==================  ================================================================================
``mode``            score and map
==================  ================================================================================
``text``            probability of abnormal by the pooled embedding and MVFA's ensemble of
                    sentences; the map projects each patch of the last block as the class token is
``memory``          distance of each patch to the nearest one of K normal images, mean over four
                    levels; its maximum is the score, with ``add_text`` half of it
``hard_prompts``    MediCLIP's map and score, of channels averaged down to the width of the text,
                    with its class names in fixed sentences
==================  ================================================================================

Nothing is trained: one epoch passes, in which it meets support and validation.

The score of ``text`` is APRIL-GAN's zero-shot image score, and the map of ``memory`` is half the
mean of its memory branch: both are pinned by numbers of its authors' code. ``hard_prompts`` is row
1 of MediCLIP's table 4, AUROC 42 to 53: averaged channels have nothing to do with the text, so
chance is what to expect. That bins of equal width are averaged is our reading of "average pooling".

Of the row "CLIP, few-normal-shot" of MVFA's table 1, which IQE-CLIP's table 2 copies, it is said
that OpenCLIP makes "feature comparisons", and no more: weights, levels and score are not known,
there is no code, and ``memory`` is our definition. The maps of ``text`` are poor and often
inverted, as is known of CLIP: no patch of the last block was trained to meet the text.
"""

from anomalib_medclip.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
