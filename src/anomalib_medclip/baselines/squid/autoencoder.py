"""SQUID's generator: an image, made anew of what memories of normal images have of its windows."""

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from anomalib_medclip.baselines.squid.memory import InPainting, PartMemory
from anomalib_medclip.baselines.squid.networks import Block, cut, glued

PARTS = 2
"""Windows of a row."""

DEPTH = 4
"""Blocks that halve the windows, and as many that double them."""

GLUE_AT = 2
"""The last blocks, so many, have whole images; those before have windows."""


class Made(NamedTuple):
    """What the generator makes of images.

    Attributes:
        images: Made anew.
        by_teacher: The same, without memories.
        distillation: How far both are apart, block by block.
        asked: The vectors of the windows.
    """

    images: Float[Tensor, "batch 1 side side"]
    by_teacher: Float[Tensor, "batch 1 side side"]
    distillation: Float[Tensor, ""]
    asked: Float[Tensor, "batch place width"]


class AutoEncoder(nn.Module):
    """Windows of an image are made small, painted in, and made large again; a teacher does so too.

    Args:
        side: Of the images in pixels, a multiple of 32.
        features: Channels of the largest maps.
        slots: Of each memory of windows.
        part_slots: Of each memory of parts of maps.
    """

    def __init__(
        self, side: int, features: int = 32, slots: int = 200, part_slots: int = 200
    ) -> None:
        super().__init__()
        widths = [features << depth for depth in range(DEPTH + 1)]
        small = side // PARTS >> DEPTH
        self.in_conv = Block(1, features)
        pairs = list(pairwise(widths))
        self.down_blocks = nn.ModuleList(Block(a, b, stride=2) for a, b in pairs)
        self.inpaint_block = InPainting(widths[-1], 4 * features, small, PARTS, slots)
        self.memories = nn.ModuleList(
            PartMemory(part_slots, widths[DEPTH - 1 - at] * (small << at) ** 2) for at in range(2)
        )
        self.up_blocks, self.out_conv = _decoder(pairs), nn.Conv2d(features, 1, 1)
        self.teacher_ups, self.teacher_out = _decoder(pairs), nn.Conv2d(features, 1, 1)

    def forward(self, images: Float[Tensor, "batch 1 side side"]) -> Made:
        """Images made anew.

        Args:
            images: Grey levels in [0, 1].
        """
        stream, skips = self.in_conv(cut(images, PARTS)), []
        for block in self.down_blocks:
            skips.append(stream)
            stream = block(stream)
        painted, asked = self.inpaint_block(stream)
        made = self._decoded(painted, skips, self.up_blocks, self.memories)
        taught = self._decoded(stream.detach(), [one.detach() for one in skips], self.teacher_ups)
        apart = torch.stack([F.mse_loss(a, b) for a, b in zip(made, taught, strict=True)]).sum()
        outputs = self.out_conv(made[-1]).sigmoid(), self.teacher_out(taught[-1]).sigmoid()
        return Made(*outputs, apart, asked)

    @staticmethod
    def _decoded(
        stream: Tensor,
        skips: list[Tensor],
        blocks: Iterable[nn.Module],
        memories: Iterable[nn.Module] = (),
    ) -> list[Tensor]:
        """The map after each block; the first two see the maps on the way down, too."""
        found, memories = [], list(memories)
        for at, (block, skip) in enumerate(zip(blocks, reversed(skips), strict=True)):
            if at == DEPTH - GLUE_AT:
                stream = glued(stream, PARTS)
            larger = F.interpolate(stream, scale_factor=2.0, mode="bilinear", align_corners=False)
            stream = block(torch.cat([skip, larger], dim=1) if at < DEPTH - GLUE_AT else larger)
            stream = memories[at](stream) if at < len(memories) else stream
            found.append(stream)
        return found


def _decoder(pairs: list[tuple[int, int]]) -> nn.ModuleList:
    """Blocks on the way up; the first two take the maps on the way down besides."""
    return nn.ModuleList(
        Block(b + a if at < DEPTH - GLUE_AT else b, a) for at, (a, b) in enumerate(reversed(pairs))
    )
