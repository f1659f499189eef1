"""AnomalyCLIP's computation: images to heat maps, and the loss that trains its prompts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anomalib_medclip.clip.towers import ImageTower
from anomalib_medclip.clip.value_path import check_value_path, value_path
from anomalib_medclip.components.anomaly_map import align, to_map
from anomalib_medclip.components.learnable_prompts import LearnablePrompts
from anomalib_medclip.components.losses import LossTerms, both_channels, without_masks
from anomalib_medclip.components.model import ClipModel, ModelOutput, mean_patch
from anomalib_medclip.components.released import load_trained
from anomalib_medclip.components.smoothing import GaussianSmoothing
from anomalib_medclip.models.anomalyclip.released import WITHOUT_EFFECT, our_name
from anomalib_medclip.option_checks import checked


class AnomalyCLIPModel(ClipModel):
    """Prompts that learn, and a second stream of values beside the frozen image tower.

    Args:
        clip: The frozen image tower.
        prompts: The two prompts.
        levels: Blocks to compare, from 1; by default the last.
        value_blocks: Blocks, counted from the end, that the second stream passes; by default as
            large a part of the tower as the authors' 19 of 24.
        temperature: What cosines are divided by.
        sigma: Standard deviation of the map's smoothing in pixels.
        pixel_weight: Weight of the maps' losses; that of the image's is 1.

    Raises:
        ConfigError: The tower has no such path or pools by attention, or a number cannot be.
    """

    quarters: ClassVar[Sequence[int]] = (4,)
    part_names: ClassVar[Mapping[str, str]] = {"smooth": "maps"}

    def __init__(
        self,
        clip: ImageTower,
        prompts: LearnablePrompts,
        levels: Sequence[int] | None = None,
        value_blocks: int | None = None,
        temperature: float = 0.07,
        sigma: float = 4.0,
        pixel_weight: float = 4.0,
    ) -> None:
        check_value_path(clip, "AnomalyCLIP")
        clip.check_projects()
        super().__init__(clip, levels, prompts)
        depth = clip.depth
        count = round(depth * 19 / 24) if value_blocks is None else value_blocks
        self.first = depth - checked("value_blocks", count, 1, depth, whole=True) + 1
        self.scale = 1 / temperature
        self.pixel_weight = pixel_weight
        self.smooth = GaussianSmoothing(clip.backbone.image_size, sigma)

    def encode(
        self, images: Float[Tensor, "batch 3 side side"]
    ) -> Float[Tensor, "batch level token embed_dim"]:
        """Tokens of the second stream in the shared space, at every level, un-normalised.

        The first token is the image's feature, of CLIP's own stream.
        """
        streams = value_path(self.clip, images, self.levels, self.first)
        # As the code, without the last norm.
        feature = self.clip.project(streams.last[:, :1], norm=False)
        tokens = self.clip.project(streams.values)[:, :, 1:]
        return torch.cat([feature.unsqueeze(1).expand(-1, tokens.shape[1], -1, -1), tokens], dim=2)

    def score(
        self,
        encoded: Float[Tensor, "batch level token embed_dim"],
        text: Float[Tensor, "2 embed_dim"],
        leave_out: Int[Tensor, "batch"] | None = None,
    ) -> ModelOutput:
        """Score images that are encoded already; see ``ClipModel``."""
        del leave_out
        maps = torch.stack(self.maps(encoded, text)).mean(dim=0)[:, 0]
        return ModelOutput(self.logits(encoded, text).softmax(dim=-1)[:, 1], self.smooth(maps))

    def level_maps(
        self,
        encoded: Float[Tensor, "batch level token embed_dim"],
        text: Float[Tensor, "2 embed_dim"],
    ) -> dict[str, Float[Tensor, "level batch side side"]]:
        """What the heat map is the mean of: ``text``."""
        return {"text": self.smooth(torch.stack(self.maps(encoded, text))[:, :, 0])}

    def embeddings(
        self,
        encoded: Float[Tensor, "batch level token embed_dim"],
        text: Float[Tensor, "2 embed_dim"],
    ) -> dict[str, Float[Tensor, "batch vector width"]]:
        """The image's feature, and its mean patch."""
        del text
        patches = self.clip.patches(encoded).transpose(0, 1)
        return {"image feature": encoded[:, 0, :1], "without adapters": mean_patch(patches)}

    def logits(
        self,
        encoded: Float[Tensor, "batch level token embed_dim"],
        text: Float[Tensor, "2 embed_dim"],
    ) -> Float[Tensor, "batch 2"]:
        """The image's feature against both prompts."""
        return align(encoded[:, 0, :1], text, self.scale)[:, 0]

    def patch_probabilities(
        self,
        encoded: Float[Tensor, "batch level token embed_dim"],
        text: Float[Tensor, "2 embed_dim"],
    ) -> list[Float[Tensor, "batch patch 2"]]:
        """Probabilities of normal and abnormal, patch by patch, of each level."""
        levels = self.clip.patches(encoded).unbind(dim=1)
        return [align(tokens, text, self.scale).softmax(dim=-1) for tokens in levels]

    def maps(
        self,
        encoded: Float[Tensor, "batch level token embed_dim"],
        text: Float[Tensor, "2 embed_dim"],
    ) -> list[Float[Tensor, "batch 1 side side"]]:
        """Probability of abnormal at each pixel, of each level."""
        found = self.patch_probabilities(encoded, text)
        return [to_map(one[..., 1:], self.clip.size, corners=False) for one in found]

    def loss_terms(
        self,
        encoded: Float[Tensor, "batch level token embed_dim"],
        masks: Float[Tensor, "batch 1 side side"] | None,
        labels: Bool[Tensor, "batch"],
        text: Float[Tensor, "2 embed_dim"],
    ) -> LossTerms:
        """Cross-entropy of the image and, with masks, focal and dice losses of each map."""
        detection = F.cross_entropy(self.logits(encoded, text), labels.long())
        if masks is None:
            return without_masks(detection)
        terms = both_channels(detection, self.maps(encoded, text), masks)
        weight = self.pixel_weight
        return terms._replace(focal=weight * terms.focal, dice=weight * terms.dice)

    def load_released(self, path: str | Path) -> None:
        """Load what the authors train; see ``load_trained``."""
        load_trained(self, path, "AnomalyCLIP", our_name, WITHOUT_EFFECT)
