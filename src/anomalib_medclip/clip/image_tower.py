"""CLIP's frozen image tower: images to tokens at several levels."""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.clip.blocks import Block, Precision
from anomalib_medclip.clip.source import differences
from anomalib_medclip.clip.timm_trunk import trunk_of
from anomalib_medclip.clip.trunks import OpenClipTrunk
from anomalib_medclip.errors import ConfigError

AfterBlock = Callable[[int, Tensor], Tensor]
"""Called after each tapped block with its level (from 0) and the token stream ``(batch, token,
width)``; what it returns enters the next block."""


class ImageTower(nn.Module):
    """CLIP's vision transformer, frozen: tokens after some of its blocks.

    What no training changes is ``taps``; a method that feeds something back into the stream goes
    on from the first of them by ``resume``.

    Args:
        backbone: Which weights, at which image size.
        precision: What its blocks compute their products in. The stream between them, and so what
            they give, is float32.

    Attributes:
        fingerprint: That of ``LoadedClip``.
        stated: How images entered when it was trained.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, precision: Precision = "fp32") -> None:
        super().__init__()
        self.backbone = backbone
        self.precision = precision
        clip, self.fingerprint, self.stated = backbone.load()
        self.visual = clip.visual.requires_grad_(requires_grad=False).eval()
        self._trunk = trunk_of(backbone.name, self.visual, precision)
        for name, values in (("mean", self.stated.mean), ("std", self.stated.std)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    @property
    def width(self) -> int:
        """Width of the token stream."""
        return self._trunk.width

    @property
    def embed_dim(self) -> int:
        """Width of the space that images and text share."""
        return self._trunk.embed_dim

    @property
    def blocks(self) -> Sequence[Block]:
        """The residual blocks, frozen.

        Raises:
            ConfigError: They are not CLIP's own, and nobody else's can be looked into.
        """
        if isinstance(self._trunk, OpenClipTrunk):
            return cast("Sequence[Block]", self._blocks)
        msg = (
            f"{self.backbone.name} has an image tower of timm's, into whose blocks nothing can be "
        )
        msg += "put; take a ViT of open_clip's own, or a method that only reads its tokens"
        raise ConfigError(msg)

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self._blocks)

    @property
    def prefix(self) -> int:
        """Number of tokens before the patches in the stream: class token and registers, or none."""
        return self._trunk.prefix

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images, and of the maps made of them, in pixels."""
        return self.backbone.image_size, self.backbone.image_size

    def entry_differences(self, interpolation: str) -> Sequence[str]:
        """In what images enter otherwise than when the weights were trained, in words.

        Args:
            interpolation: The filter by which images are resized before.
        """
        if self.backbone.pretrained is None:
            return ()
        quick_gelu = self.backbone.config()["quick_gelu"]
        return differences(self.stated, quick_gelu, self.backbone.normalize, interpolation)

    def check_takes_tokens(self) -> None:
        """Refuse a tower to whose stream no tokens can be added.

        Raises:
            ConfigError: Its blocks know where each token stands.
        """
        if not self._trunk.takes_tokens:
            msg = f"{self._trunk.kind} knows in every block where each token stands, and takes no "
            msg += "tokens of a method's own; take a ViT whose positions are added once"
            raise ConfigError(msg)

    @torch.no_grad()
    def check_projects(self) -> None:
        """Refuse a tower in which no single token has a way into the space shared with text.

        Raises:
            ConfigError: It pools by attention.
        """
        self.project(self.mean.new_zeros(1, 1, self.width))

    def train(self, mode: bool = True) -> "ImageTower":
        """Stay in evaluation mode: a frozen tower has nothing to train."""
        del mode
        return super().train(mode=False)

    def checked(self, levels: Sequence[int]) -> tuple[int, ...]:
        """The levels, if the tower has them.

        Raises:
            ValueError: They do not ascend from 1 to the tower's depth.
        """
        ascend = bool(levels) and list(levels) == sorted(set(levels))
        if not ascend or levels[0] < 1 or levels[-1] > self.depth:
            msg = f"levels {list(levels)} do not ascend from 1 to at most {self.depth}, the "
            msg += "tower's depth"
            raise ValueError(msg)
        return tuple(levels)

    @torch.no_grad()
    def taps(
        self, images: Float[Tensor, "batch 3 side side"], levels: Sequence[int]
    ) -> Float[Tensor, "batch level token width"]:
        """The token stream after each level, un-normalised; ``prefix`` tokens, then the patches.

        Args:
            images: RGB in [0, 1] at the tower's image size.
            levels: Block numbers counted from 1, in ascending order.

        Raises:
            ConfigError: They are of another size.
        """
        found: list[Tensor] = []

        def keep(_level: int, stream: Tensor) -> Tensor:
            found.append(stream)
            return stream

        self._run(self._embed(images), 0, levels, keep)
        return torch.stack(found, dim=1)

    def resume(
        self,
        stream: Float[Tensor, "batch token width"],
        levels: Sequence[int],
        after_block: AfterBlock,
    ) -> Float[Tensor, "batch token width"]:
        """Go on from the stream after the first level, acting on it after every level.

        Args:
            stream: Tokens after block ``levels[0]``, as ``taps`` gives them.
            levels: Block numbers counted from 1, in ascending order.
            after_block: What to do to the token stream.

        Returns:
            The token stream after the last level, un-normalised.
        """

        def after(level: int, stream: Tensor) -> Tensor:
            return after_block(level + 1, stream)

        return self._run(after_block(0, stream), levels[0], levels[1:], after)

    @torch.no_grad()
    def go_on(
        self, stream: Float[Tensor, "batch token width"], start: int, end: int
    ) -> Float[Tensor, "batch token width"]:
        """The stream after a later block, of the one after an earlier one; nothing is fed back."""
        return self._run(stream, start, [end], lambda _level, stream: stream)

    def patches(
        self, tokens: Float[Tensor, "*batch token width"]
    ) -> Float[Tensor, "*batch patch width"]:
        """The patches among the tokens of a stream, row by row of the image."""
        return tokens[..., self.prefix :, :]

    def pool(self, stream: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch embed_dim"]:
        """The image's feature in the shared space, un-normalised, as CLIP pools the last block.

        Raises:
            ConfigError: This tower gives no single feature of an image.
        """
        return self._trunk.pool(stream)

    def project(
        self, tokens: Float[Tensor, "*batch width"], norm: bool = True
    ) -> Float[Tensor, "*batch embed_dim"]:
        """Take any tokens where CLIP takes the class token: into the shared space, un-normalised.

        Args:
            tokens: Of the stream after the last block or an earlier one.
            norm: Apply the tower's last layer norm first, as CLIP does.

        Raises:
            ConfigError: The tower pools by attention, and takes no single token.
        """
        return self._trunk.project(tokens, norm)

    def _embed(self, images: Tensor) -> Tensor:
        refuse_other_size(images, self.size)
        if self.backbone.normalize:
            images = (images - self.mean) / self.std
        return self._trunk.embed(images)

    def _run(
        self, stream: Tensor, start: int, levels: Sequence[int], after_block: AfterBlock
    ) -> Tensor:
        """Run the blocks after number ``start``, up to the last level."""
        for level, number in enumerate(levels):
            stream = self._trunk.run(self._blocks, stream, start, number)
            stream, start = after_block(level, stream), number
        return stream

    @property
    def _blocks(self) -> Sequence[nn.Module]:
        return self._trunk.blocks_of(self.visual)


def refuse_other_size(images: Tensor, size: tuple[int, int]) -> None:
    """Refuse images that are not of the size that a network takes.

    Args:
        images: ``(batch, channel, height, width)``.
        size: Height and width wanted.

    Raises:
        ConfigError: They are of another, or not of three channels.
    """
    if images.shape[1:] != (3, *size):
        came, wanted = (" x ".join(map(str, shape)) for shape in (images.shape[1:], size))
        msg = f"images of {came} came (channels, rows, columns), and this model takes 3 x "
        msg += f"{wanted}; resize them as the model's pre_processor does, or set image_size"
        raise ConfigError(msg)
