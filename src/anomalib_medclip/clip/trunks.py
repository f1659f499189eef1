"""Image towers taken apart: images to a stream of tokens, blocks over it, the stream to a feature.

A trunk has no weights of its own: modules and weights are those of open_clip's ``visual``, and
only the order in which they run is written here, so that a method can act between two blocks.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from anomalib_medclip.clip.blocks import Precision, own_blocks
from anomalib_medclip.errors import ConfigError


class Trunk(ABC):
    """How one family of image towers runs.

    Attributes:
        kind: The family, for messages.
        visual: open_clip's image tower.
        prefix: Number of tokens before the patches: class token and registers.
        width: Width of the stream.
        embed_dim: Width of the space that images and text share.
        takes_tokens: Whether more tokens may stand in the stream; not so where blocks know the
            place of each.
    """

    takes_tokens: bool = True
    kind: str
    visual: Any
    prefix: int
    width: int
    embed_dim: int

    @abstractmethod
    def blocks_of(self, visual: Any) -> Sequence[nn.Module]:  # noqa: ANN401 - of any version
        """The residual blocks of the image tower, reached by it: graphs are named by that way."""

    @abstractmethod
    def embed(
        self, images: Float[Tensor, "batch 3 side side"]
    ) -> Float[Tensor, "batch token width"]:
        """The stream before the first block: what stands before the patches, then the patches."""

    def run(
        self,
        blocks: Sequence[nn.Module],
        stream: Float[Tensor, "batch token width"],
        start: int,
        end: int,
    ) -> Float[Tensor, "batch token width"]:
        """The stream after block number ``end``, of the one after block number ``start``."""
        for block in blocks[start:end]:
            stream = block(stream)
        return stream

    @abstractmethod
    def pool(self, stream: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch embed_dim"]:
        """The image's feature, un-normalised, of the stream after the last block.

        Raises:
            ConfigError: This tower gives no single feature of an image.
        """

    @abstractmethod
    def project(
        self, tokens: Float[Tensor, "*batch width"], norm: bool
    ) -> Float[Tensor, "*batch embed_dim"]:
        """Take each token where the tower takes the one that it pools.

        Raises:
            ConfigError: Its pooling attends to many tokens at once, and there is no such way.
        """

    def no_way_for_tokens(self) -> ConfigError:
        """What ``project`` raises where pooling attends."""
        msg = f"{self.kind} pools by attention: no single token has a way into the space that it "
        msg += "shares with text; take a method that learns one, or a tower without such a pooling"
        return ConfigError(msg)


class OpenClipTrunk(Trunk):
    """open_clip's ``VisionTransformer``, whatever its norms, positions and pooling.

    Args:
        visual: The tower; its blocks are replaced by ours, which have the same weights.
        precision: Of the blocks' products.
    """

    kind = "open_clip's vision transformer"
    prefix = 1

    def __init__(self, visual: Any, precision: Precision) -> None:  # noqa: ANN401 - of any version
        own_blocks(visual.transformer, precision)
        self.visual = visual
        self.width = int(visual.conv1.out_channels)
        self.embed_dim = int(visual.proj.shape[1])

    def blocks_of(self, visual: Any) -> Sequence[nn.Module]:  # noqa: ANN401 - of any version
        """Our blocks, in the place of open_clip's."""
        blocks: Sequence[nn.Module] = visual.transformer.resblocks
        return blocks

    def embed(
        self, images: Float[Tensor, "batch 3 side side"]
    ) -> Float[Tensor, "batch token width"]:
        """The class token and the patches, with their positions."""
        visual = self.visual
        patches = visual.conv1(images).flatten(2).transpose(1, 2)
        # Not len(patches), which would fix the batch size of a traced graph.
        token = visual.class_embedding.expand(patches.shape[0], 1, -1)
        embedded: Tensor = torch.cat([token, patches], dim=1) + visual.positional_embedding
        return visual.ln_pre(embedded)

    def pool(self, stream: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch embed_dim"]:
        """What ``encode_image`` makes of the stream: class token, mean patch, or by attention."""
        visual = self.visual
        if visual.attn_pool is not None:
            return self._attended(stream) @ visual.proj
        if visual.pool_type == "tok" or visual.final_ln_after_pool:
            return self.project(self._one_of(stream), norm=True)
        return self._one_of(visual.ln_post(stream)) @ visual.proj

    def project(
        self, tokens: Float[Tensor, "*batch width"], norm: bool
    ) -> Float[Tensor, "*batch embed_dim"]:
        """The last norm and the projection."""
        if self.visual.attn_pool is not None:
            raise self.no_way_for_tokens()
        return (self.visual.ln_post(tokens) if norm else tokens) @ self.visual.proj

    def _attended(self, stream: Tensor) -> Float[Tensor, "batch embed_dim"]:
        """What queries find in the stream."""
        visual = self.visual
        if visual.attn_pool_contrastive is None:
            return self._one_of(visual.ln_post(visual.attn_pool(stream)))
        stream = visual.ln_post(stream)
        if visual.attn_pool_type == "cascade":
            stream = visual.attn_pool(stream)
        return visual.attn_pool_contrastive(stream)[:, 0]

    def _one_of(self, tokens: Tensor) -> Float[Tensor, "batch width"]:
        if self.visual.pool_type == "tok":
            return tokens[:, 0]
        if self.visual.pool_type == "avg":
            return tokens[:, 1:].mean(dim=1)
        msg = f"this image tower has pool_type {self.visual.pool_type!r}, and so no feature of a "
        msg += "whole image; take a method that reads patches alone, or another pool_type"
        raise ConfigError(msg)
