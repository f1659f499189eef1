"""Where MVFA's paper and its authors' code part: the code by default, or what is printed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from anomalib_medclip.components.anomaly_map import PatchScore
from anomalib_medclip.components.losses import CrossEntropy

Activation = Literal["leaky", "relu"]
"""Leaky ReLUs after both layers of an adapter, or a ReLU after the first alone (eq. 1)."""

LastLevel = Literal["adapter", "projector"]
"""What stands at the last level: a bottleneck as elsewhere, or a linear projector."""

ImageScore = Literal["map", "branches"]
"""What becomes the image's score few-shot: the fused map's maximum, or the branches' own scores."""


@dataclass(frozen=True)
class Variant:
    """Choices between the paper and the code; the defaults are the code's.

    Attributes:
        activation: Of the adapters.
        residual_ratio: Share of the stream that both adapters replace, each half of it (eq. 2).
        last_level: What stands there.
        memory_weight: Weight of the memory branch; the text branch has the rest to 1 (eq. 6).
        patch_score: What patches become in the losses and scores of images (eq. 3 to 5).
        image_score: By default the map for sets with masks, else the branches.
        bce: What the image loss takes the patch score for.
    """

    activation: Activation = "leaky"
    residual_ratio: float = 0.2
    last_level: LastLevel = "adapter"
    memory_weight: float = 0.5
    patch_score: PatchScore = "mean"
    image_score: ImageScore | None = None
    bce: CrossEntropy = "logits"

    def scores_by_map(self, has_masks: bool) -> bool:
        """Whether the image's score is the map's maximum."""
        return has_masks if self.image_score is None else self.image_score == "map"


def positions(scored: Sequence[int], levels: Sequence[int]) -> list[int]:
    """Where scored levels stand among all.

    Raises:
        ValueError: Some are none of them, or there is none.
    """
    if not scored or not set(scored) <= set(levels):
        msg = f"scored_levels {list(scored)} must be some of the levels {list(levels)}"
        raise ValueError(msg)
    return [levels.index(level) for level in scored]
