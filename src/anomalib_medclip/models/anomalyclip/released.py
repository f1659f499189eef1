"""What the authors' code calls the parameters of AnomalyCLIP."""

from anomalib_medclip.components.released import renamed

_OURS = {
    r"^ctx_pos$": "prompts.ctx.normal_end",
    r"^ctx_neg$": "prompts.ctx.abnormal_end",
    r"^compound_prompts_text\.": "prompts.deep.vectors.",
}
WITHOUT_EFFECT = r"(?!ctx_(pos|neg)$|compound_prompts_text\.).*"
"""All else in the prompt learner: linear layers that are never used, tokens of the sentences."""


def our_name(theirs: str) -> str:
    """What a parameter of the authors' is called here.

    Example:
        >>> our_name("compound_prompts_text.7")
        'prompts.deep.vectors.7'
    """
    return renamed(theirs, _OURS)
