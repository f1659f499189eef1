"""The torch model of a baseline that is no CLIP method."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from anomalib_medclip.baselines.common.pixels import Pixels
from anomalib_medclip.components.model import ClipModel
from anomalib_medclip.components.prompts import NoPrompts

_CELL = 8
"""Side of each of the 4 x 4 cells by which images are told to be alike, in pixels."""


class NetworkModel(ClipModel):
    """``ClipModel`` without text: ``encode`` does what no training changes, ``score`` the rest.

    Where a whole network trains, ``encode`` gives the normalised images themselves. The argument
    ``text`` of the verbs is of no meaning.

    Args:
        clip: In the place of CLIP's image tower, where images enter: ``Pixels``, or a ``Trunk``.
    """

    clip: Pixels  # type: ignore[assignment]  # what is asked of a tower here, it has

    def __init__(self, clip: Pixels) -> None:
        super().__init__(clip, prompts=NoPrompts(2))  # type: ignore[arg-type]  # as above

    def encode(self, images: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch ..."]:
        """What no training changes: the normalised images."""
        return self.clip(images)

    def middle_patches(self, encoded: Tensor) -> Float[Tensor, "batch 16 192"]:
        """The pixels of each cell of a coarse grid of the images; see ``ClipModel``."""
        small = F.interpolate(encoded, (4 * _CELL, 4 * _CELL), mode="bilinear", antialias=True)
        return F.unfold(small, _CELL, stride=_CELL).transpose(1, 2)

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        """In evaluation mode for a while: training ends in the middle of an epoch."""
        training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(training)

    def _levels_of(self, clip: object, levels: Sequence[int] | None) -> tuple[int, ...]:
        """One level: all there is."""
        del clip, levels
        return (1,)
