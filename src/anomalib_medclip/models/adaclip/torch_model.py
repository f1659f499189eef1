"""AdaCLIP's computation: images to heat maps, and the loss that trains prompts and layers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from anomalib_medclip.clip.towers import ImageTower, TextTower
from anomalib_medclip.components.anomaly_map import abnormal_map, align, image_probability
from anomalib_medclip.components.losses import (
    LossTerms,
    both_channels,
    focal_of_scores,
    without_masks,
)
from anomalib_medclip.components.model import ClipModel, ModelOutput, mean_patch
from anomalib_medclip.components.released import load_trained
from anomalib_medclip.components.smoothing import GaussianSmoothing
from anomalib_medclip.components.words import Words
from anomalib_medclip.models.adaclip.fusion import Fusion
from anomalib_medclip.models.adaclip.prompts import DynamicPrompts, static_prompts
from anomalib_medclip.models.adaclip.released import WITHOUT_EFFECT, our_name
from anomalib_medclip.models.adaclip.text_prompts import WORDS, TextPrompts

Dice = Literal["rows", "images"]
"""What the dice loss takes for one: each row of pixels, as the authors' code does, or an image."""


class Prompted(NamedTuple):
    """What the prompted image tower gives, without its prompts."""

    tokens: Float[Tensor, "level batch token width"]
    feature: Float[Tensor, "batch embed_dim"]


class Features(NamedTuple):
    """What is compared, each of length one."""

    patches: Float[Tensor, "level batch patch embed_dim"]
    token: Float[Tensor, "batch embed_dim"]
    text: Float[Tensor, "batch 2 embed_dim"]


class AdaCLIPModel(ClipModel):
    """Static and dynamic prompts in frozen towers of both kinds, and layers after them.

    Args:
        clip: The frozen image tower.
        text_tower: The frozen text tower of the same CLIP; sentences go through it for each image.
        length: Number of prompts in each tower.
        blocks: Number of blocks, from the first, before which they are set anew.
        fusion: Makes the feature of the image score.
        levels: Blocks to compare, from 1; by default the four quarters of the tower.
        sigma: Standard deviation of the map's smoothing in pixels.
        dice: What the dice loss takes for one.
        words: What the sentences are made of.

    Attributes:
        text: All sentences about the target after the text tower's first block.
    """

    part_names: ClassVar[Mapping[str, str]] = {
        "patch_layers": "adapters",
        "token_layer": "adapters",
        "text_prompts": "prompts",
        "smooth": "maps",
    }

    def __init__(
        self,
        clip: ImageTower,
        text_tower: TextTower,
        length: int = 5,
        blocks: int = 4,
        fusion: Fusion | None = None,
        levels: Sequence[int] | None = None,
        sigma: float = 4.0,
        dice: Dice = "rows",
        words: Words = WORDS,
    ) -> None:
        clip.check_takes_tokens()
        text_prompts = TextPrompts(text_tower, length, blocks, words)
        super().__init__(clip, levels, text_prompts.first_block)
        self.text_tower = text_tower
        self.text_prompts = text_prompts
        width, embed_dim = clip.width, clip.embed_dim
        self.static = static_prompts(min(blocks, clip.depth), length, width)
        self.dynamic = DynamicPrompts(embed_dim, width, length)
        self.dynamic_text = DynamicPrompts(embed_dim, text_tower.width, length)
        self.patch_layers = nn.ModuleList(nn.Linear(width, embed_dim) for _ in self.levels)
        self.token_layer = nn.Linear(embed_dim, embed_dim)
        self.fusion = fusion or Fusion()
        if self.fusion.kind == "clusters":
            self.untraceable = "graphs know no k-means: train AdaCLIP with fusion mean to export it"
        self.smooth = GaussianSmoothing(clip.backbone.image_size, sigma)
        self.by_rows = dice == "rows"

    def encode(
        self, images: Float[Tensor, "batch 3 side side"]
    ) -> Float[Tensor, "batch tap token width"]:
        """Frozen tokens before the first block, in the middle of the tower, and after its last.

        The first are where prompts come in, the last have the image's feature; see
        ``middle_tokens`` for the second.
        """
        depth = self.clip.depth
        return self.clip.taps(images, [0, max(1, depth // 2), depth])

    def middle_tokens(
        self, encoded: Float[Tensor, "batch tap token width"]
    ) -> Float[Tensor, "batch token width"]:
        """Frozen tokens from the middle of the tower, without prompts."""
        return encoded[:, 1]

    def score(
        self,
        encoded: Float[Tensor, "batch tap token width"],
        text: Float[Tensor, "2 sentence token text_width"],
        leave_out: Int[Tensor, "batch"] | None = None,
    ) -> ModelOutput:
        """Score images that are encoded already; see ``ClipModel``."""
        del leave_out
        features = self.features(encoded, text)
        logits = self.logits(features)
        # Enlarging is linear, so the mean over levels comes before it.
        maps = abnormal_map(logits.mean(dim=0), self.clip.size)[:, 0]
        return ModelOutput(self.image_probability(features, logits), self.smooth(maps))

    def level_maps(
        self,
        encoded: Float[Tensor, "batch tap token width"],
        text: Float[Tensor, "2 sentence token text_width"],
    ) -> dict[str, Float[Tensor, "level batch side side"]]:
        """What each level by itself says: ``text``."""
        logits = self.logits(self.features(encoded, text))
        return {"text": self.smooth(self.maps(logits)[:, :, 0])}

    def embeddings(
        self,
        encoded: Float[Tensor, "batch tap token width"],
        text: Float[Tensor, "2 sentence token text_width"],
    ) -> dict[str, Float[Tensor, "batch vector width"]]:
        """The mean patch, the class token before and after the fusion, and the image's own text."""
        features = self.features(encoded, text)
        fused = self.fused(features, self.logits(features))
        return {
            "with adapters": mean_patch(features.patches),
            "class token": features.token.unsqueeze(1),
            "class token, fused": fused.unsqueeze(1),
            "text embeddings": features.text,
        }

    def prompted(
        self,
        stream: Float[Tensor, "batch token width"],
        feature: Float[Tensor, "batch embed_dim"],
    ) -> Prompted:
        """Run the image tower with prompts after the patches.

        Args:
            stream: Tokens before the first block.
            feature: The image's, of the tower without prompts, un-normalised.
        """
        own, count, found = self.dynamic(feature), stream.shape[1], []
        points = sorted({*range(len(self.static)), *self.levels, self.clip.depth})

        def prompt(point: int, stream: Tensor) -> Tensor:
            number = points[point]
            if number in self.levels:
                found.append(stream[:, :count])
            if number < len(self.static):
                stream = torch.cat([stream[:, :count], own + self.static[number]], dim=1)
            return stream

        last = self.clip.resume(stream, points, prompt)
        return Prompted(torch.stack(found), self.clip.pool(last[:, :count]))

    def features(
        self,
        encoded: Float[Tensor, "batch tap token width"],
        text: Float[Tensor, "2 sentence token text_width"],
    ) -> Features:
        """Patches of each level, class token and text of each image."""
        feature = self.clip.pool(encoded[:, -1])
        tokens, pooled = self.prompted(encoded[:, 0], feature)
        pairs = zip(self.patch_layers, self.clip.patches(tokens), strict=True)
        patches = torch.stack([layer(level) for layer, level in pairs])
        own_text = self.text_prompts(self.text_tower, text, self.dynamic_text(feature))
        token = F.normalize(self.token_layer(pooled), dim=-1)
        return Features(F.normalize(patches, dim=-1), token, own_text)

    def logits(self, features: Features) -> Float[Tensor, "level batch patch 2"]:
        """Each patch against the text."""
        return align(features.patches, features.text)

    def maps(
        self, logits: Float[Tensor, "level batch patch 2"]
    ) -> Float[Tensor, "level batch 1 side side"]:
        """Probability of abnormal at each pixel, of each level."""
        enlarged = abnormal_map(logits.flatten(0, 1), self.clip.size)
        return enlarged.unflatten(0, logits.shape[:2])

    def fused(
        self, features: Features, logits: Float[Tensor, "level batch patch 2"]
    ) -> Float[Tensor, "batch embed_dim"]:
        """The class token with the most abnormal patches."""
        abnormal = logits.mean(dim=0).softmax(dim=-1)[..., 1]
        return self.fusion(features.token, features.patches, abnormal)

    def image_probability(
        self, features: Features, logits: Float[Tensor, "level batch patch 2"]
    ) -> Float[Tensor, "batch"]:
        """Probability that the image is abnormal."""
        return image_probability(self.fused(features, logits), features.text)

    def loss_terms(
        self,
        encoded: Float[Tensor, "batch tap token width"],
        masks: Float[Tensor, "batch 1 side side"] | None,
        labels: Bool[Tensor, "batch"],
        text: Float[Tensor, "2 sentence token text_width"],
    ) -> LossTerms:
        """Focal loss of the image and, with masks, focal and dice losses of every level's map."""
        features = self.features(encoded, text)
        logits = self.logits(features)
        detection = focal_of_scores(self.image_probability(features, logits), labels)
        if masks is None:
            return without_masks(detection)
        return both_channels(detection, self.maps(logits).unbind(), masks, self.by_rows)

    def load_released(self, path: str | Path) -> None:
        """Load what the authors train; see ``load_trained``."""
        load_trained(self, path, "AdaCLIP", our_name, WITHOUT_EFFECT)
