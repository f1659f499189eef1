"""What the authors' code calls the parameters of VCP-CLIP."""

from anomalib_medclip.components.released import renamed

_OURS = {
    r"^clip\.": "image_prompts.deep.",
    r"^linear\.fc\.": "linears.",
    r"^pre\.prompt_query$": "image_prompts.class_tokens.vectors",
    r"^pre\.prompt_linear1\.fc\.": "image_prompts.class_tokens.convolution.",
    r"^pre\.prompt_temp$": "temperature",
    r"^post\.prompt_temp_l1$": "post_temperature",
    r"^post\.q_proj_pre\.": "post.query.",
    r"^post\.k_proj_pre_1\.": "post.key.",
    r"^post\.v_proj_pre_1\.": "post.value.",
    r"^post\.proj_post_t\.": "post.output.",
}
WITHOUT_EFFECT = r"clip\.prompt_text_projection|post\.k_proj_pre_1\.bias"
"""The first is never used; a softmax does not see the second."""


def our_name(theirs: str) -> str:
    """What a parameter of the authors' is called here.

    Example:
        >>> our_name("post.q_proj_pre.weight")
        'post.query.weight'
    """
    return renamed(theirs, _OURS)
