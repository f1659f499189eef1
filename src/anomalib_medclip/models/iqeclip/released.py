"""Weights under the names that the authors' code gives them."""

import logging
import re
from pathlib import Path

from torch import nn

from anomalib_medclip.clip.weights import released_by_authors

logger = logging.getLogger(__name__)

_OURS = (
    (r"^trainable_layer\.fc\.", "linears."),
    (r"^New_Lan_Embed\.prompt_temp$", "temperature"),
    (r"^New_Lan_Embed\.prompt_query$", "image_prompts.class_tokens.vectors"),
    (r"^New_Lan_Embed\.prompt_linear1\.fc\.", "image_prompts.class_tokens.convolution."),
    (r"^clip\.", "image_prompts.deep."),
    (r"^query_tokens$", "query_module.queries.vectors"),
    (r"^query_linear\.fc\.", "query_module.queries.convolution."),
    (r"^iqm\.layernorm\.", "query_module.norm."),
    (r"^iqm\.encoder\.layer\.", "query_module.blocks."),
    (r"\.intermediate_query\.dense\.", ".feedforward.0."),
    (r"\.output_query\.dense\.", ".feedforward.2."),
    (r"\.output_query\.LayerNorm\.", ".norm."),
    (r"\.text_crossattention\.", ".text_attention."),
    (r"\.crossattention\.", ".image_attention."),
    (r"\.attention\.(?=attention|output)", ".self_attention."),
    (r"attention\.attention\.", "attention."),
    (r"\.output\.dense\.", ".output."),
    (r"\.output\.LayerNorm\.", ".norm."),
)
_WITHOUT_EFFECT = re.compile(r"clip\.prompt_text_projection|iqm\..*\.attention\.key\.bias")
"""The first is never used; a softmax does not see the second."""


def our_name(theirs: str) -> str:
    """What a parameter of the authors' is called here.

    Example:
        >>> our_name("iqm.encoder.layer.3.crossattention.attention.query.weight")
        'query_module.blocks.3.image_attention.query.weight'
    """
    for pattern, replacement in _OURS:
        theirs = re.sub(pattern, replacement, theirs)
    return theirs


def load_trained(model: nn.Module, path: str | Path) -> None:
    """Load a file of all that the authors train.

    Args:
        model: An ``IQECLIPModel`` with the published parts.
        path: Torch file of tensors by the authors' names.

    Raises:
        WeightsError: The file is missing, is no such file, or does not fit.
    """
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    parts = "what the authors' code trains, for these levels, prompts, query module and backbone"
    with released_by_authors(path, "IQE-CLIP", parts) as state:
        unused = [name for name in state if _WITHOUT_EFFECT.fullmatch(name)]
        weights = {our_name(n): v for n, v in state.items() if n not in unused}
        if differing := sorted(weights.keys() ^ trained.keys()):
            raise KeyError(differing[0])
        model.load_state_dict(weights, strict=False)
    if unused:
        logger.info("%s: %d tensors without effect are left out: %s", path, len(unused), unused[0])
