"""MVFA: Multi-level Visual Feature Adaptation.

Huang et al., "Adapting Visual-Language Models for Generalizable Anomaly Detection in Medical
Images", CVPR 2024. Two bottleneck adapters at each of four levels of CLIP's image tower, one for
segmentation and one for detection, feed back into the stream; adapted tokens are compared with
text (zero-shot branch) and with tokens of the normal support images (few-shot branch).

====================  =========================================================
paper                 here
====================  =========================================================
eq. 1, 2 (adapters)   ``adapters``, ``MVFAModel.adapted_tokens``
eq. 3 (losses)        ``MVFAModel.loss_terms``
eq. 4 (zero-shot)     ``MVFAModel.text_map``, ``components.anomaly_map.align``
eq. 5 (few-shot)      ``MVFAModel.memory_map``, ``components.memory_bank``
eq. 6 (fusion)        ``fusion.Fusion``
====================  =========================================================

Where the paper and the authors' code part, this is the code, which made the published numbers:
leaky activations after both layers of an adapter; 0.8 of the stream and 0.1 of each adapter; the
last level has the same adapter as the others; image scores are means over patches (label-only
sets, zero-shot) or the maximum of the fused map (sets with masks); the binary cross-entropy puts
a sigmoid on what is a probability already; batches of one image; the zero-shot learning rate is
1e-4; the bank holds class tokens and the augmented copies; CLIP's mean and standard deviation are
not applied, and its GELU is the exact one. Options restore what is printed, all of them together in
``configs/models/mvfa_paper.yaml``; see ``variant``.

Where both use the test set, this does not: the branches are brought to one scale with constants
from support images, and the published number of epochs is trained, without looking for the best.
``transductive=True`` restores the authors' scaling for comparison with their tables.
"""

from anomalib_medclip.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
