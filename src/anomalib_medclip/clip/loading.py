"""From a configuration to a module of open_clip's, and weights into it.

open_clip's factory does this, too, but decides by names, differently from version to version, and
downloads what is not asked for; here all is said explicitly.
"""

from importlib import import_module
from typing import Any

import open_clip
from open_clip.model import (
    _build_vision_tower,
    convert_to_custom_text_state_dict,
    resize_pos_embed,
)
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from anomalib_medclip.clip.timm_trunk import family_of
from anomalib_medclip.errors import ConfigError, WeightsError


class ImageOnly(nn.Module):
    """An image tower in the place of a CLIP that has no text.

    Args:
        embed_dim: Width of its features.
        vision_cfg: As open_clip's.
        quick_gelu: The activation.
    """

    def __init__(self, embed_dim: int, vision_cfg: dict[str, Any], quick_gelu: bool) -> None:
        super().__init__()
        self.visual = _build_vision_tower(embed_dim, vision_cfg, quick_gelu)

    def encode_image(self, images: Tensor) -> Tensor:
        """Features of images, un-normalised."""
        found: Tensor = self.visual(images)
        return found


def build(name: str, config: dict[str, Any]) -> Any:  # noqa: ANN401 - of one of four classes
    """The module of a configuration, with random weights; one of timm's at its own image size.

    Args:
        name: For messages.
        config: Keyword arguments of open_clip's classes, with ``custom_text`` or without.

    Raises:
        WeightsError: The configuration does not fit open_clip, or its image tower is none that
            runs block by block.
    """
    config = dict(config)
    custom = config.pop("custom_text", False) or "hf_model_name" in config.get("text_cfg", {})
    if "text_cfg" not in config:
        made: Any = ImageOnly
    elif not custom:
        made = open_clip.CLIP
    else:
        made = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP
    try:
        clip = made(**config)
    except WeightsError:
        raise
    except Exception as error:  # of any library below, on what a file says
        msg = f"open_clip cannot build {name}: {error or type(error).__name__}; correct its "
        msg += "configuration, or take another version of open_clip"
        raise WeightsError(msg) from error
    if "timm_model_name" in config["vision_cfg"]:
        family_of(name, clip.visual.trunk)
    return clip.float()


def fit(clip: Any, state: dict[str, Tensor], interpolation: str, antialiased: bool) -> None:  # noqa: ANN401
    """Load weights, those of former layouts and other grids, too.

    Args:
        clip: What ``build`` made.
        state: Weights in open_clip's names, or of an image tower alone in timm's.
        interpolation: How an embedding of positions is brought to this grid.
        antialiased: Likewise.

    Raises:
        RuntimeError: They do not fit.
        KeyError: Likewise.
    """
    if isinstance(clip, ImageOnly):
        state = _of_image_tower(clip.visual, state)
    if "positional_embedding" in state and hasattr(clip, "text"):
        state = convert_to_custom_text_state_dict(state)
    for name, of in clip.named_parameters():
        if name in ("logit_scale", "logit_bias") and name in state:  # a number, or a row of one
            state[name] = state[name].reshape(of.shape)
    state.pop("text.transformer.embeddings.position_ids", None)  # saved by transformers until 4.31
    resize_pos_embed(state, clip, interpolation, antialiased)
    clip.load_state_dict(state)


def _of_image_tower(visual: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:  # noqa: ANN401
    """Weights of an image tower alone, of a whole CLIP or in the names of timm or of its makers."""
    if own := {name: value for name, value in state.items() if name.startswith("visual.")}:
        return own
    if not hasattr(visual, "trunk"):
        return {f"visual.{name}": value for name, value in state.items()}
    renamed = import_module(type(visual.trunk).__module__).checkpoint_filter_fn(state, visual.trunk)
    return {f"visual.trunk.{name}": value for name, value in renamed.items()}


def resize_timm(
    name: str,
    visual: Any,  # noqa: ANN401 - of any version
    side: int,
    interpolation: str,
    antialiased: bool,
) -> None:
    """Bring a tower of timm's, and its embedding of positions, to another image size.

    Raises:
        ConfigError: The tower takes whole patches only, and the size is none of them.
    """
    trunk = visual.trunk
    patch = getattr(trunk.patch_embed, "patch_size", (1, 1))[0]
    if side % patch and not getattr(trunk.patch_embed, "strict_img_size", True):
        msg = f"image_size is {side}, and must be a multiple of {patch} for {name}, such as "
        msg += f"{max(1, side // patch) * patch}"
        raise ConfigError(msg)
    if tuple(trunk.patch_embed.img_size) == (side, side):
        return
    positions = getattr(trunk, "pos_embed", None)
    trunk.set_input_size((side, side))
    visual.image_size = (side, side)
    if positions is not None:
        resized = resample_abs_pos_embed(
            positions,
            new_size=list(trunk.patch_embed.grid_size),
            num_prefix_tokens=0 if trunk.no_embed_class else trunk.num_prefix_tokens,
            interpolation=interpolation,
            antialias=antialiased,
        )
        trunk.pos_embed = nn.Parameter(resized)
