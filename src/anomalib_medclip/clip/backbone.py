"""Which CLIP: its configuration, weights, image size and fingerprint, over open_clip.

open_clip's own factory decides activation and grid by the name of the weights, and differently
from version to version; here the module is built from its configuration with both said
explicitly, and the weights are loaded into it.
"""

import copy
import hashlib
import logging
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import open_clip
import torch
from open_clip.model import resize_pos_embed
from torch import Tensor

from anomalib_medclip.clip.weights import find_weights, read_weights
from anomalib_medclip.errors import WeightsError
from anomalib_medclip.files import as_json
from anomalib_medclip.readers.size_limit import check_parameters

logger = logging.getLogger(__name__)

PositionResize = Literal["bicubic, antialiased", "bicubic", "bilinear"]
"""How a position embedding is brought to another grid. open_clip's is the first; codes that resize
by themselves take the others, and scores differ."""

CLIP_PREFIXES = ("model.clip.", "model.text_tower.")
"""Where frozen towers lie in the state of an anomalib model, whose torch model is ``model``; few
methods need the second after training."""


def without_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What was learnt: a model's state without the frozen towers."""
    return {name: value for name, value in state.items() if not name.startswith(CLIP_PREFIXES)}


class LoadedClip(NamedTuple):
    """A whole CLIP and its fingerprint.

    The fingerprint is sixteen hexadecimal digits that change with the weights and with how images
    enter. It is taken of what was read, not of what was computed from it, because
    another processor rounds the resize of the position embedding, and random numbers, differently.
    """

    clip: open_clip.CLIP
    fingerprint: str


@dataclass(frozen=True)
class Backbone:
    """Which CLIP, and how images enter it.

    Attributes:
        model: An open_clip model name such as ``"ViT-L-14-336"``, or the keyword arguments of
            ``open_clip.CLIP`` for a model of one's own.
        pretrained: An open_clip tag such as ``"openai"``, a local weights file, or ``None`` for
            random weights.
        image_size: Side of the square input in pixels; the position embedding is resized to it.
        quick_gelu: The sigmoid GELU that OpenAI trained with, instead of the exact one.
        normalize: Subtract CLIP's mean and divide by its standard deviation.
        seed: Seed of random weights.
        position_resize: How the position embedding is resized.
    """

    model: str | dict[str, Any]
    pretrained: str | None = None
    image_size: int = 240
    quick_gelu: bool = False
    normalize: bool = False
    seed: int = 0
    position_resize: PositionResize = "bicubic, antialiased"

    @property
    def name(self) -> str:
        """The model's name, for messages."""
        return self.model if isinstance(self.model, str) else "custom CLIP"

    @property
    def text_width(self) -> int:
        """Width of the text tower's token stream."""
        return int(self.config()["text_cfg"]["width"])

    @property
    def text_depth(self) -> int:
        """Number of blocks of the text tower."""
        return int(self.config()["text_cfg"]["layers"])

    def __str__(self) -> str:
        """All that matters, for messages and for files that travel: of a path its last name."""
        weights = (
            f"weights {Path(self.pretrained).name}"
            if self.pretrained
            else f"random seed {self.seed}"
        )
        activation = "QuickGELU" if self.quick_gelu else "exact GELU"
        entry = "CLIP's normalisation" if self.normalize else "no normalisation"
        return f"{self.name}, {weights}, {self.image_size} px, {activation}, {entry}"

    def config(self) -> dict[str, Any]:
        """Keyword arguments of ``open_clip.CLIP`` at this image size and activation.

        Raises:
            WeightsError: The name is unknown, or its towers are not CLIP's own transformers.
        """
        config = copy.deepcopy(self.model)
        if isinstance(config, str):
            if config not in open_clip.list_models():  # nor a folder, nor one to download
                msg = f"open_clip knows no model {self.model!r}; see open_clip.list_models()"
                raise WeightsError(msg)
            config = open_clip.get_model_config(config)
        _refuse_foreign_towers(self.name, config)
        config["vision_cfg"]["image_size"] = self.image_size
        config["quick_gelu"] = self.quick_gelu or config.get("quick_gelu", False)
        return config

    def load(self) -> LoadedClip:
        """Build the whole CLIP and load its weights.

        Raises:
            WeightsError: The weights cannot be found, downloaded, read or fitted to the model.
        """
        config = self.config()
        _refuse_huge(self.name, config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            clip = open_clip.CLIP(**config)
        settings = {
            "image_size": self.image_size,
            "normalize": self.normalize,
            "quick_gelu": config["quick_gelu"],
            "heads": clip.visual.transformer.resblocks[0].attn.num_heads,
        }
        if (
            self.position_resize != "bicubic, antialiased"
        ):  # others' fingerprints stay what they were
            settings["position_resize"] = self.position_resize
        if self.pretrained is None:
            logger.info("%s has random weights (seed %d)", self.name, self.seed)
            return LoadedClip(clip, _fingerprint(settings | {"config": config, "seed": self.seed}))
        path = find_weights(self.model, self.pretrained)
        state = read_weights(path)
        fingerprint = _fingerprint(settings, state)
        try:
            interpolation, *antialiased = self.position_resize.split(", ")
            resize_pos_embed(state, clip, interpolation, bool(antialiased))
            clip.load_state_dict(state)
        except (RuntimeError, KeyError) as error:
            reason = textwrap.shorten(str(error), 300, placeholder=" ...")  # else every key
            msg = f"weights file {path} does not fit {self.name}: {reason}"
            raise WeightsError(msg) from error
        return LoadedClip(clip, fingerprint)


_PLAIN_TEXT = {"context_length", "vocab_size", "width", "heads", "layers"}


def _fingerprint(settings: dict[str, Any], weights: Mapping[str, Tensor] | None = None) -> str:
    digest = hashlib.sha256(as_json(settings, sort_keys=True).encode())
    for name, value in sorted((weights or {}).items()):
        flat = value.detach().float().flatten()
        sample = flat[:: max(1, flat.numel() // 1024)]
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(sample.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


_MOST_BLOCKS = 512
"""Of a tower; the deepest of open_clip has 64."""


def _refuse_huge(name: str, config: dict[str, Any]) -> None:
    """A checkpoint may name any numbers; none take memory here."""
    if max(config[f"{tower}_cfg"]["layers"] for tower in ("vision", "text")) > _MOST_BLOCKS:
        msg = f"{name} has a tower of more than {_MOST_BLOCKS} blocks; correct its numbers"
        raise WeightsError(msg)
    with torch.device("meta"):
        clip = open_clip.CLIP(**config)
    check_parameters(name, sum(one.numel() for one in clip.parameters()))


def _refuse_foreign_towers(name: str, config: dict[str, Any]) -> None:
    """CLIP's own residual blocks are needed in both towers."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    if "timm_model_name" in vision or not isinstance(vision.get("layers"), int):
        tower = vision.get("timm_model_name", "ModifiedResNet")
        msg = f"{name} has the image tower {tower}, which has no residual blocks to tap; take a ViT"
        raise WeightsError(msg)
    if set(text) - _PLAIN_TEXT or config.get("custom_text") or "multimodal_cfg" in config:
        msg = f"{name} has a text tower that is not CLIP's own; take a plain ViT-*/CLIP model"
        raise WeightsError(msg)
