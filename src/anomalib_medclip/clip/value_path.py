"""A second stream beside CLIP's image tower, of values that attend to one another.

Each patch keeps what it is itself, where CLIP's own last blocks gather what is elsewhere.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from anomalib_medclip.clip.blocks import Block
from anomalib_medclip.clip.partial_attention import values_of
from anomalib_medclip.clip.towers import ImageTower
from anomalib_medclip.errors import ConfigError


class Streams(NamedTuple):
    """What the tower gives, un-normalised, the class token first.

    Attributes:
        values: The second stream after each level; CLIP's own where that is before its begin.
        last: CLIP's own stream after the last block.
    """

    values: Float[Tensor, "batch level token width"]
    last: Float[Tensor, "batch token width"]


@torch.no_grad()
def value_path(
    tower: ImageTower,
    images: Float[Tensor, "batch 3 side side"],
    levels: Sequence[int],
    first: int,
) -> Streams:
    """Run the image tower, and beside it sum up what its values tell one another.

    To the stream before block ``first`` each block from there on adds its attention, with values
    in the place of queries and keys, of CLIP's own stream; no feed-forward network follows.

    Args:
        tower: The frozen image tower.
        images: RGB in [0, 1] at the tower's image size.
        levels: Block numbers counted from 1, in ascending order.
        first: The first block of the second stream, from 1.
    """
    stream = tower.taps(images, [0])[:, 0]
    values: Tensor | None = None
    found = []
    for number, block in enumerate(tower.blocks, start=1):
        if first <= number <= levels[-1]:
            values = (stream if values is None else values) + values_of(block, stream)
        stream = block(stream)
        if number in levels:
            found.append(stream if values is None else values)
    return Streams(torch.stack(found, dim=1), stream)


def check_value_path(tower: ImageTower, method: str) -> None:
    """Refuse a tower that has no such path.

    Args:
        tower: An image tower.
        method: Who asks for it, for the message.

    Raises:
        ConfigError: Its blocks are not CLIP's own, or it has no class token.
    """
    if not all(isinstance(block, Block) for block in tower.blocks) or not tower.prefix:
        msg = f"{method} takes values out of CLIP's own blocks, and projects its class token, and "
        msg += f"{tower.backbone.name} has none; take a plain ViT-*/CLIP model as backbone"
        raise ConfigError(msg)
