"""VCP-CLIP's computation: images to heat maps, and the loss that trains prompts and layers."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from anomalib_medclip.clip.towers import ImageTower, TextTower
from anomalib_medclip.components.anomaly_map import abnormal_map, align
from anomalib_medclip.components.image_prompts import ImagePrompts
from anomalib_medclip.components.losses import LossTerms, dice, focal, without_masks
from anomalib_medclip.components.model import ClipModel, ModelOutput, mean_patch, side_by_side
from anomalib_medclip.components.released import load_trained
from anomalib_medclip.components.smoothing import GaussianSmoothing
from anomalib_medclip.models.vcpclip.post_prompts import PostPrompts
from anomalib_medclip.models.vcpclip.released import WITHOUT_EFFECT, our_name

TOP_PIXELS = 2000 / 518**2
"""Share of a map's pixels that the image score is the mean of: the authors' 2000 at 518 px."""


class Features(NamedTuple):
    """What is compared, un-normalised but for the text."""

    patches: Float[Tensor, "level batch patch width"]
    adapted: Float[Tensor, "level batch patch embed_dim"]
    text: Float[Tensor, "batch 2 embed_dim"]
    post: Float[Tensor, "level batch 2 width"]


class VCPCLIPModel(ClipModel):
    """Prompts that depend on the image, on frozen towers of both kinds.

    There are two branches, pre (0) and post (1).

    Args:
        clip: The frozen image tower.
        text_tower: The frozen text tower of the same CLIP; prompts go through it for each image.
        prompts: The sentences.
        heads: Attention heads of the post branch; they divide the width of the image tower.
        levels: Blocks to compare, from 1; by default the four quarters of the tower.
        alpha: Weight of the post map in the anomaly map; 1 - alpha is that of the pre map.
        sigma: Standard deviation of the map's smoothing in pixels.
        top_pixels: Share of pixels, the largest of each map, that the image score is the mean of.

    Attributes:
        text: What no image changes of the sentences: embeddings ``(2, token, text_width)``.

    Raises:
        ValueError: The heads do not divide the width.
    """

    part_names: ClassVar[Mapping[str, str]] = {
        "linears": "adapters",
        "image_prompts": "prompts",
        "post": "prompts",
        "smooth": "maps",
    }

    def __init__(
        self,
        clip: ImageTower,
        text_tower: TextTower,
        prompts: ImagePrompts,
        heads: int = 8,
        levels: Sequence[int] | None = None,
        alpha: float = 0.8,
        sigma: float = 8.0,
        top_pixels: float = TOP_PIXELS,
    ) -> None:
        super().__init__(clip, levels, prompts.templates)
        self.text_tower = text_tower
        self.image_prompts = prompts
        self.linears = nn.ModuleList(nn.Linear(clip.width, clip.embed_dim) for _ in self.levels)
        self.post = PostPrompts(clip.width, clip.embed_dim, heads)
        self.temperature = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.post_temperature = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.smooth = GaussianSmoothing(clip.backbone.image_size, sigma)
        self.branch_weights = 1 - alpha, alpha
        self.top = max(1, round(top_pixels * math.prod(clip.size)))

    def encode(
        self, images: Float[Tensor, "batch 3 side side"]
    ) -> Float[Tensor, "batch tap token width"]:
        """Frozen tokens of every level and, last, of the last block, whose class token is read."""
        return self.clip.taps(images, sorted({*self.levels, self.clip.depth}))

    def score(
        self,
        encoded: Float[Tensor, "batch tap token width"],
        text: Float[Tensor, "2 token text_width"],
        leave_out: Int[Tensor, "batch"] | None = None,
    ) -> ModelOutput:
        """Score images that are encoded already; see ``ClipModel``."""
        del leave_out
        maps = self.maps(self.logits(self.features(encoded, text))).mean(dim=1)
        largest = maps.flatten(2).topk(self.top, dim=-1).values
        return ModelOutput(largest.mean(dim=(0, 2)), self.smooth(self.mix(maps)))

    def level_maps(
        self,
        encoded: Float[Tensor, "batch tap token width"],
        text: Float[Tensor, "2 token text_width"],
    ) -> dict[str, Float[Tensor, "level batch side side"]]:
        """What the heat map is mixed of: ``pre`` and ``post``."""
        pre, post = self.smooth(self.maps(self.logits(self.features(encoded, text))))
        return {"pre": pre, "post": post}

    def embeddings(
        self,
        encoded: Float[Tensor, "batch tap token width"],
        text: Float[Tensor, "2 token text_width"],
    ) -> dict[str, Float[Tensor, "batch vector width"]]:
        """The mean patch without adapters and with them, and the image's text of both branches."""
        found = self.features(encoded, text)
        return {
            "without adapters": mean_patch(found.patches),
            "with adapters": mean_patch(found.adapted),
            "text embeddings": found.text,
            "post text embeddings": side_by_side(found.post),
        }

    def features(
        self,
        encoded: Float[Tensor, "batch tap token width"],
        text: Float[Tensor, "2 token text_width"],
    ) -> Features:
        """Patches of each level, and what both branches compare them with, all of the image."""
        patches = self.clip.patches(encoded)[:, : len(self.levels)].transpose(0, 1)
        pairs = zip(self.linears, patches, strict=True)
        adapted = torch.stack([linear(level) for linear, level in pairs])
        own_text = self.image_prompts(self.text_tower, text, self.clip.pool(encoded[:, -1]))
        return Features(patches, adapted, own_text, self.post(own_text, patches))

    def logits(self, features: Features) -> Float[Tensor, "branch level batch patch 2"]:
        """Each patch against the sentences, sharpened by a learnt temperature of each branch."""
        patches, adapted, text, post = features
        of_pre = self.temperature.exp() * align(adapted, text, scale=1.0)
        return torch.stack([of_pre, self.post_temperature.exp() * align(patches, post, scale=1.0)])

    def maps(
        self, logits: Float[Tensor, "branch level batch patch 2"]
    ) -> Float[Tensor, "branch level batch height width"]:
        """Probability of abnormal at each pixel."""
        enlarged = abnormal_map(logits.flatten(0, 2), self.clip.size)[:, 0]
        return enlarged.unflatten(0, (logits.shape[0], logits.shape[1], -1))

    def mix(
        self, maps: Float[Tensor, "branch batch height width"]
    ) -> Float[Tensor, "batch height width"]:
        """Weighed over branches."""
        pre, post = self.branch_weights
        return pre * maps[0] + post * maps[1]

    def loss_terms(
        self,
        encoded: Float[Tensor, "batch tap token width"],
        masks: Float[Tensor, "batch 1 side side"] | None,
        labels: Bool[Tensor, "batch"],
        text: Float[Tensor, "2 token text_width"],
    ) -> LossTerms:
        """Focal and dice loss by branch and level; without masks there is nothing to learn."""
        del labels
        nothing = encoded.new_zeros(0)
        if masks is None:
            return without_masks(nothing)
        maps = self.maps(self.logits(self.features(encoded, text)))
        flat, shape = maps.flatten(0, 1).unsqueeze(2), maps.shape[:2]
        focals, dices = (torch.stack([term(one, masks) for one in flat]) for term in (focal, dice))
        return LossTerms(nothing, focals.view(shape), dices.view(shape))

    def idle_parameters(self, has_masks: bool) -> Iterable[nn.Parameter]:
        """All, where there are no masks."""
        return () if has_masks else self.parameters()

    def load_released(self, path: str | Path) -> None:
        """Load all that the authors train; see ``load_trained``."""
        load_trained(self, path, "VCP-CLIP", our_name, WITHOUT_EFFECT)
