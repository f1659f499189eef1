"""Frozen CLIP towers over open_clip: which weights, which image size, tokens at several levels.

open_clip's own factory decides activation and grid by the name of the weights, and differently
from version to version; here the module is built from its configuration with both said
explicitly, and the weights are loaded into it.
"""

import copy
import hashlib
import json
import logging
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import open_clip
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import resize_pos_embed
from torch import Tensor, nn

from anomalib_medclip.components.weights import find_weights, read_weights
from anomalib_medclip.errors import WeightsError

logger = logging.getLogger(__name__)

AfterBlock = Callable[[int, Tensor], Tensor]
"""Called after each tapped block with its level (from 0) and the token stream ``(batch, token,
width)``; what it returns enters the next block."""


CLIP_PREFIX = "model.clip."
"""Where the frozen tower lies in the state of an anomalib model, whose torch model is ``model``."""


def without_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What was learnt: a model's state without the frozen tower."""
    return {name: value for name, value in state.items() if not name.startswith(CLIP_PREFIX)}


class LoadedClip(NamedTuple):
    """A whole CLIP and its fingerprint.

    The fingerprint is sixteen hexadecimal digits that change with the image tower's weights and
    with how images enter. It is taken of what was read, not of what was computed from it, because
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
    """

    model: str | dict[str, Any]
    pretrained: str | None = None
    image_size: int = 240
    quick_gelu: bool = False
    normalize: bool = False
    seed: int = 0

    @property
    def name(self) -> str:
        """The model's name, for messages."""
        return self.model if isinstance(self.model, str) else "custom CLIP"

    def __str__(self) -> str:
        """All that matters, for messages."""
        weights = f"weights {self.pretrained}" if self.pretrained else f"random seed {self.seed}"
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
            config = open_clip.get_model_config(config)
            if config is None:
                msg = f"open_clip knows no model {self.model!r}; see open_clip.list_models()"
                raise WeightsError(msg)
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
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            clip = open_clip.CLIP(**config)
        settings = {
            "image_size": self.image_size,
            "normalize": self.normalize,
            "quick_gelu": config["quick_gelu"],
            "heads": clip.visual.transformer.resblocks[0].attn.num_heads,
        }
        if self.pretrained is None:
            logger.info("%s has random weights (seed %d)", self.name, self.seed)
            return LoadedClip(clip, _fingerprint(settings | {"config": config, "seed": self.seed}))
        path = find_weights(self.model, self.pretrained)
        state = read_weights(path)
        visual = {name: value for name, value in state.items() if name.startswith("visual.")}
        fingerprint = _fingerprint(settings, visual)
        try:
            resize_pos_embed(state, clip)
            clip.load_state_dict(state)
        except (RuntimeError, KeyError) as error:
            reason = textwrap.shorten(str(error), 300, placeholder=" ...")  # else every key
            msg = f"weights file {path} does not fit {self.name}: {reason}"
            raise WeightsError(msg) from error
        return LoadedClip(clip, fingerprint)


class ImageTower(nn.Module):
    """CLIP's vision transformer, frozen, with a place to act after each tapped block.

    Args:
        backbone: Which weights, at which image size.

    Attributes:
        fingerprint: That of ``LoadedClip``.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        clip, self.fingerprint = backbone.load()
        self.visual = clip.visual.requires_grad_(requires_grad=False).eval()
        statistics = (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
        for name, values in zip(("mean", "std"), statistics, strict=True):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    @property
    def width(self) -> int:
        """Width of the token stream."""
        return int(self.visual.conv1.out_channels)

    @property
    def embed_dim(self) -> int:
        """Width of the space that images and text share."""
        return int(self.visual.proj.shape[1])

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.visual.transformer.resblocks)

    def train(self, mode: bool = True) -> "ImageTower":
        """Stay in evaluation mode: a frozen tower has nothing to train."""
        del mode
        return super().train(mode=False)

    def forward(
        self,
        images: Float[Tensor, "batch 3 side side"],
        levels: Sequence[int],
        after_block: AfterBlock,
    ) -> Float[Tensor, "batch token width"]:
        """Run the blocks up to the last level, acting on the stream after each level.

        No gradient is recorded up to the first level, because nothing before it learns.

        Args:
            images: RGB in [0, 1] at the tower's image size.
            levels: Block numbers counted from 1, in ascending order.
            after_block: What to do to the token stream; token 0 is the class token.

        Returns:
            The token stream after the last level, un-normalised.
        """
        blocks = list(self.visual.transformer.resblocks)
        with torch.no_grad():
            stream = self._embed(images)
            for block in blocks[: levels[0]]:
                stream = self._run(block, stream)
        stream = after_block(0, stream)
        for number in range(levels[0] + 1, levels[-1] + 1):
            stream = self._run(blocks[number - 1], stream)
            if number in levels:
                stream = after_block(list(levels).index(number), stream)
        return stream

    def pool(self, stream: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch embed_dim"]:
        """Project the class token of the last block into the shared space, un-normalised."""
        return self.visual.ln_post(stream[:, 0]) @ self.visual.proj

    def _embed(self, images: Tensor) -> Tensor:
        visual = self.visual
        if self.backbone.normalize:
            images = (images - self.mean) / self.std
        patches = visual.conv1(images).flatten(2).transpose(1, 2)
        # Not len(patches), which would fix the batch size of a traced graph.
        token = visual.class_embedding.expand(patches.shape[0], 1, -1)
        return visual.ln_pre(torch.cat([token, patches], dim=1) + visual.positional_embedding)

    def _run(self, block: nn.Module, stream: Tensor) -> Tensor:
        # open_clip turned its transformers from (token, batch) to (batch, token) in 2.26.1.
        if getattr(self.visual.transformer, "batch_first", False):
            return block(stream)
        return block(stream.transpose(0, 1)).transpose(0, 1)


class TextTower(nn.Module):
    """CLIP's text transformer, frozen: sentences to features in the shared space.

    Args:
        backbone: The same one as the image tower's.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        clip = backbone.load().clip.requires_grad_(requires_grad=False).eval()
        self.token_embedding = clip.token_embedding
        self.positional_embedding = clip.positional_embedding
        self.transformer = clip.transformer
        self.ln_final = clip.ln_final
        self.text_projection = clip.text_projection
        self.context_length = int(clip.positional_embedding.shape[0])
        self.register_buffer("causal_mask", clip.attn_mask, persistent=False)

    def tokenize(self, sentences: Sequence[str]) -> Int[Tensor, "sentence context"]:
        """CLIP's byte-pair tokens, padded to the context length."""
        return open_clip.tokenize(list(sentences), self.context_length)

    def forward(
        self, tokens: Int[Tensor, "sentence context"]
    ) -> Float[Tensor, "sentence embed_dim"]:
        """Encode tokens and read the end-of-text position; un-normalised."""
        stream = self.token_embedding(tokens) + self.positional_embedding
        batch_first = getattr(self.transformer, "batch_first", False)
        stream = stream if batch_first else stream.transpose(0, 1)
        stream = self.transformer(stream, attn_mask=self.causal_mask)
        stream = self.ln_final(stream if batch_first else stream.transpose(0, 1))
        rows = torch.arange(len(tokens), device=tokens.device)
        return stream[rows, tokens.argmax(dim=-1)] @ self.text_projection

    @torch.no_grad()
    def encode(
        self, sentences: Sequence[str], chunk: int = 64
    ) -> Float[Tensor, "sentence embed_dim"]:
        """L2-normalised features of sentences, a chunk at a time."""
        tokens = self.tokenize(sentences).to(self.positional_embedding.device)
        return F.normalize(torch.cat([self(part) for part in tokens.split(chunk)]), dim=-1)


_PLAIN_TEXT = {"context_length", "vocab_size", "width", "heads", "layers"}


def _fingerprint(settings: dict[str, Any], weights: Mapping[str, Tensor] | None = None) -> str:
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, value in sorted((weights or {}).items()):
        flat = value.detach().float().flatten()
        sample = flat[:: max(1, flat.numel() // 1024)]
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(sample.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


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
