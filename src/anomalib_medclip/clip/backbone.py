"""Which CLIP: its configuration, weights, image size and fingerprint, over open_clip.

open_clip's own factory decides activation and grid by the name of the weights, and differently
from version to version; here the module is built from its configuration with both said
explicitly, and the weights are loaded into it.
"""

import copy
import hashlib
import logging
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from anomalib_medclip.clip.configuration import check_timm
from anomalib_medclip.clip.hugging_face import hf_folder, no_blocks_of, text_width, tokenizer_folder
from anomalib_medclip.clip.loading import build, fit, resize_timm
from anomalib_medclip.clip.source import (
    Source,
    Stated,
    name_of,
    read_source,
    weights_of,
)
from anomalib_medclip.clip.weights import read_weights
from anomalib_medclip.errors import ConfigError, WeightsError
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
    """A whole CLIP, or an image tower alone, its fingerprint, and how images entered it.

    The fingerprint is sixteen hexadecimal digits that change with the weights and with how images
    enter. It is taken of what was read, not of what was computed from it, because
    another processor rounds the resize of the position embedding, and random numbers, differently.
    """

    clip: Any
    fingerprint: str
    stated: Stated


@dataclass(frozen=True)
class Backbone:
    """Which CLIP, and how images enter it.

    Attributes:
        model: An open_clip model name such as ``"ViT-L-14-336"``, a folder, a repository, timm's
            name of an image tower, or the keyword arguments of ``open_clip.CLIP`` for a model of
            one's own; see ``source``.
        pretrained: An open_clip tag such as ``"openai"``, a local weights file, or ``None`` for
            random weights.
        image_size: Side of the square input in pixels; the position embedding is resized to it.
        quick_gelu: The sigmoid GELU that OpenAI trained with, instead of the exact one.
        normalize: Subtract the mean and divide by the standard deviation that the weights were
            trained with, which are CLIP's where nothing else is said.
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
        return name_of(self.model)

    @property
    def text_width(self) -> int:
        """Width of the text tower's token stream.

        Raises:
            ConfigError: There is no text tower.
        """
        return text_width(self.text_source())

    def settled(self) -> "Backbone":
        """The same by its numbers and its file of weights, where it came from a folder or the hub.

        A checkpoint keeps these, and names neither.
        """
        source = read_source(self.model)
        if source.folder is None:
            return self
        content = {
            "name": source.repository or source.folder.resolve().name,
            "model_cfg": source.config,
            "preprocess_cfg": dict(source.preprocess),
        }
        text = source.config.get("text_cfg", {})
        for part, folder in (("hf_model_name", hf_folder), ("hf_tokenizer_name", tokenizer_folder)):
            if text.get(part):
                text[part] = str(folder(source))
        file = None if self.pretrained is None else str(weights_of(source, self.pretrained))
        return replace(self, model=content, pretrained=file)

    def text_source(self) -> Source:
        """Where the text tower and its tokenizer come from.

        Raises:
            ConfigError: There is no text tower.
        """
        if not self.has_text:
            msg = f"{self.name} is an image tower without text; take a CLIP, or a method that can "
            msg += "do without words, such as MVFA with prompts: anchors"
            raise ConfigError(msg)
        return read_source(self.model)

    @property
    def has_text(self) -> bool:
        """Whether there is a text tower."""
        return "text_cfg" in read_source(self.model).config

    @property
    def has_own_activation(self) -> bool:
        """Whether ``quick_gelu`` changes nothing, as with towers of timm and of Hugging Face."""
        config = read_source(self.model).config
        text = config.get("text_cfg", {"hf_model_name": None})
        return "timm_model_name" in config["vision_cfg"] and "hf_model_name" in text

    @property
    def text_depth(self) -> int:
        """Number of blocks of CLIP's own text tower.

        Raises:
            ConfigError: There is no text tower, or it is not CLIP's own.
        """
        text = self.text_source().config["text_cfg"]
        if "hf_model_name" in text:
            raise no_blocks_of(self.name)
        return int(text.get("layers", 12))

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
        """Keyword arguments of open_clip's classes at this image size and activation.

        Raises:
            WeightsError: The name is unknown, or its image tower has no blocks to tap.
        """
        config = copy.deepcopy(read_source(self.model).config)
        vision, text = config["vision_cfg"], config.get("text_cfg", {})
        if "timm_model_name" in vision:
            check_timm(vision["timm_model_name"], self.name)
            vision["timm_model_pretrained"] = False  # nothing is downloaded but what is asked for
        elif not isinstance(vision.get("layers", 12), int):
            msg = f"{self.name} has the image tower ModifiedResNet, which has no residual blocks "
            msg += "to tap; take a ViT"
            raise WeightsError(msg)
        if "hf_model_name" in text:
            text["hf_model_pretrained"] = False
        vision["image_size"] = self.image_size
        config["quick_gelu"] = self.quick_gelu or config.get("quick_gelu", False)
        return config

    def build(self) -> Any:  # noqa: ANN401 - of one of open_clip's classes
        """The module at this image size, with random weights of the global generator.

        Raises:
            WeightsError: open_clip cannot build it, or its image tower cannot be run.
        """
        clip = self._build(self.config())
        self._resize(clip)
        return clip

    def load(self) -> LoadedClip:
        """Build the whole CLIP and load its weights.

        Raises:
            WeightsError: The weights cannot be found, downloaded, read or fitted to the model.
        """
        config, source = self.config(), read_source(self.model)
        _refuse_huge(self.name, config, self._build)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            clip = self._build(config)
        stated = source.stated(self.pretrained)
        settings = self._settings(config, clip, stated)
        if self.pretrained is None:
            logger.info("%s has random weights (seed %d)", self.name, self.seed)
            self._resize(clip)
            told = settings | {"config": config, "seed": self.seed}
            return LoadedClip(clip, fingerprint_of(told), stated)
        path = weights_of(source, self.pretrained)
        state = read_weights(path)
        fingerprint = fingerprint_of(settings, state)
        try:
            fit(clip, state, *self._interpolation)
        except (RuntimeError, KeyError) as error:
            reason = textwrap.shorten(str(error), 300, placeholder=" ...")  # else every key
            msg = f"weights file {path} does not fit {self.name}: {reason}"
            raise WeightsError(msg) from error
        self._resize(clip)
        return LoadedClip(clip, fingerprint, stated)

    @property
    def _interpolation(self) -> tuple[str, bool]:
        """How positions are resized: the filter, and whether it is antialiased."""
        interpolation, *antialiased = self.position_resize.split(", ")
        return interpolation, bool(antialiased)

    def _build(self, config: dict[str, Any]) -> Any:  # noqa: ANN401 - of one of open_clip's classes
        if "hf_model_name" in config.get("text_cfg", {}):
            folder = hf_folder(read_source(self.model))
            text = config["text_cfg"] | {"hf_model_name": str(folder)}
            config = config | {"text_cfg": text}
        return build(self.name, config)

    def _resize(self, clip: Any) -> None:  # noqa: ANN401 - of one of open_clip's classes
        if hasattr(clip.visual, "trunk"):
            resize_timm(self.name, clip.visual, self.image_size, *self._interpolation)

    def _settings(
        self,
        config: dict[str, Any],
        clip: Any,  # noqa: ANN401 - of one of open_clip's classes
        stated: Stated,
    ) -> dict[str, Any]:
        """What the fingerprint is of, besides weights.

        What is as it always was is left out, so that fingerprints stay what they were.
        """
        settings = {
            "image_size": self.image_size,
            "normalize": self.normalize,
            "quick_gelu": config["quick_gelu"],
        }
        if hasattr(clip.visual, "transformer"):
            settings["heads"] = clip.visual.transformer.resblocks[0].attn.num_heads
        if self.position_resize != "bicubic, antialiased":
            settings["position_resize"] = self.position_resize
        if self.normalize and (stated.mean, stated.std) != (Stated.mean, Stated.std):
            settings |= {"mean": stated.mean, "std": stated.std}
        return settings


def fingerprint_of(settings: dict[str, Any], weights: Mapping[str, Tensor] | None = None) -> str:
    """Sixteen hexadecimal digits of settings and of weights; see ``LoadedClip``."""
    digest = hashlib.sha256(as_json(settings, sort_keys=True).encode())
    for name, value in sorted((weights or {}).items()):
        flat = value.detach().float().flatten()
        sample = flat[:: max(1, flat.numel() // 1024)]
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(sample.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _refuse_huge(
    name: str,
    config: dict[str, Any],
    build: Callable[[dict[str, Any]], Any],
) -> None:
    """A checkpoint may name any numbers; none take memory here."""
    with torch.device("meta"):
        clip = build(config)
    check_parameters(name, sum(one.numel() for one in clip.parameters()))
