"""What the authors' code calls the parameters of IQE-CLIP."""

from anomalib_medclip.components.released import renamed

_OURS = {
    r"^trainable_layer\.fc\.": "linears.",
    r"^New_Lan_Embed\.prompt_temp$": "temperature",
    r"^New_Lan_Embed\.prompt_query$": "image_prompts.class_tokens.vectors",
    r"^New_Lan_Embed\.prompt_linear1\.fc\.": "image_prompts.class_tokens.convolution.",
    r"^clip\.": "image_prompts.deep.",
    r"^query_tokens$": "query_module.queries.vectors",
    r"^query_linear\.fc\.": "query_module.queries.convolution.",
    r"^iqm\.layernorm\.": "query_module.norm.",
    r"^iqm\.encoder\.layer\.": "query_module.blocks.",
    r"\.intermediate_query\.dense\.": ".feedforward.0.",
    r"\.output_query\.dense\.": ".feedforward.2.",
    r"\.output_query\.LayerNorm\.": ".norm.",
    r"\.text_crossattention\.": ".text_attention.",
    r"\.crossattention\.": ".image_attention.",
    r"\.attention\.(?=attention|output)": ".self_attention.",
    r"attention\.attention\.": "attention.",
    r"\.output\.dense\.": ".output.",
    r"\.output\.LayerNorm\.": ".norm.",
}
WITHOUT_EFFECT = r"clip\.prompt_text_projection|iqm\..*\.attention\.key\.bias"
"""The first is never used; a softmax does not see the second."""


def our_name(theirs: str) -> str:
    """What a parameter of the authors' is called here.

    Example:
        >>> our_name("iqm.encoder.layer.3.crossattention.attention.query.weight")
        'query_module.blocks.3.image_attention.query.weight'
    """
    return renamed(theirs, _OURS)
