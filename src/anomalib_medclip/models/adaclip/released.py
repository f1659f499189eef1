"""What the authors' code calls the parameters of AdaCLIP."""

import re

from anomalib_medclip.components.released import renamed

_OURS = {
    r"^clip_model\.": "",
    r"^visual_prompter\.static_prompts\.": "static.",
    r"^patch_token_layer\.head\.": "patch_layers.",
    r"^cls_token_layer\.head\.0\.": "token_layer.",
    r"^dynamic_visual_prompt_generator\.": "dynamic.",
    r"^dynamic_text_prompt_generator\.": "dynamic_text.",
}
WITHOUT_EFFECT = r"(clip_model\.)?text_prompter\.static_prompts\.0"
"""The first block sees the words."""


def our_name(theirs: str) -> str:
    """What a parameter of the authors' is called here; its text prompts begin with block 2.

    Example:
        >>> our_name("clip_model.patch_token_layer.head.3.bias")
        'patch_layers.3.bias'
        >>> our_name("clip_model.text_prompter.static_prompts.3")
        'text_prompts.static.2'
    """
    name = renamed(theirs, _OURS)
    if found := re.fullmatch(r"text_prompter\.static_prompts\.(\d+)", name):
        return f"text_prompts.static.{int(found[1]) - 1}"
    return name
