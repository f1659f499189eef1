"""IQE-CLIP's computation: images to heat maps, and the loss that trains prompts and queries."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from anomalib_medclip.clip.towers import ImageTower, TextTower
from anomalib_medclip.components.anomaly_map import abnormal_map, align
from anomalib_medclip.components.losses import LossTerms, with_masks, without_masks
from anomalib_medclip.components.model import (
    ClipModel,
    ModelOutput,
    mean_patch,
    side_by_side,
)
from anomalib_medclip.models.iqeclip.image_prompts import ImagePrompts
from anomalib_medclip.models.iqeclip.query import QueryModule
from anomalib_medclip.models.iqeclip.released import load_trained
from anomalib_medclip.models.iqeclip.smoothing import GaussianSmoothing

CrossEntropy = Literal["logits", "probabilities"]
"""What the binary cross-entropy takes the mean patch probability for."""


class Features(NamedTuple):
    """Adapted patches, and what they are compared with; nothing is normalised but the text."""

    patches: Float[Tensor, "level batch patch embed_dim"]
    text: Float[Tensor, "batch 2 embed_dim"]
    queries: Float[Tensor, "level batch 2 embed_dim"] | None


class IQECLIPModel(ClipModel):
    """Prompts and queries that depend on the image, on frozen towers of both kinds.

    There are two branches, text (0) and, with a query module, query (1).

    Args:
        clip: The frozen image tower.
        text_tower: The frozen text tower of the same CLIP; prompts go through it for each image.
        prompts: The text side.
        query_module: The query side, or ``None`` for the text branch alone.
        levels: Blocks to compare, from 1; by default the four quarters of the tower.
        alpha: Weight of the query map (eq. 12); 1 - alpha is that of the text map.
        sigma: Standard deviation of the map's smoothing in pixels.
        bce: What the mean patch probability is taken for; the authors' code says logits.

    Attributes:
        text: What no image changes of the prompts: embeddings ``(2, token, text_width)``.
        few_shot: Score images by the mean of their map's pixels, as the authors do few-shot, or of
            their patches, as zero-shot; enlarging gives border patches less weight.
    """

    part_names: ClassVar[Mapping[str, str]] = {
        "linears": "adapters",
        "image_prompts": "prompts",
        "smooth": "maps",
    }

    def __init__(
        self,
        clip: ImageTower,
        text_tower: TextTower,
        prompts: ImagePrompts,
        query_module: QueryModule | None,
        levels: Sequence[int] | None = None,
        alpha: float = 0.8,
        sigma: float = 8.0,
        bce: CrossEntropy = "logits",
    ) -> None:
        super().__init__(clip, levels, prompts.templates)
        self.bce = bce
        self.text_tower = text_tower
        self.image_prompts = prompts
        self.query_module = query_module
        self.linears = nn.ModuleList(nn.Linear(clip.width, clip.embed_dim) for _ in self.levels)
        self.temperature = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.smooth = GaussianSmoothing(clip.backbone.image_size, sigma)
        self.branch_weights = (1 - alpha, alpha) if query_module else (1.0,)

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
        logits = self.logits(self.features(encoded, text))
        maps = self.maps(logits)
        score = maps.mean(dim=(-2, -1)) if self.few_shot else self.patch_mean(logits)
        return ModelOutput(score.mean(dim=(0, 1)), self.smooth(self.mix(maps)))

    def level_maps(
        self,
        encoded: Float[Tensor, "batch tap token width"],
        text: Float[Tensor, "2 token text_width"],
    ) -> dict[str, Float[Tensor, "level batch side side"]]:
        """What the heat map is mixed of: ``text`` and, with a query module, ``query``."""
        maps = self.maps(self.logits(self.features(encoded, text)))
        return dict(zip(("text", "query"), self.smooth(maps), strict=False))

    def embeddings(
        self,
        encoded: Float[Tensor, "batch tap token width"],
        text: Float[Tensor, "2 token text_width"],
    ) -> dict[str, Float[Tensor, "batch vector width"]]:
        """The mean patch without adapters and with them, and the image's own text and queries."""
        patches, own_text, queries = self.features(encoded, text)
        frozen = self.clip.patches(encoded)
        found = {
            "without adapters": mean_patch(frozen[:, : len(self.levels)].transpose(0, 1)),
            "with adapters": mean_patch(patches),
            "text embeddings": own_text,
        }
        return found if queries is None else {**found, "query embeddings": side_by_side(queries)}

    def features(
        self,
        encoded: Float[Tensor, "batch tap token width"],
        text: Float[Tensor, "2 token text_width"],
    ) -> Features:
        """Adapted patches of each level (eq. 5), text features and queries, all of the image."""
        feature = self.clip.pool(encoded[:, -1])
        # As the code; eq. 5 has a ReLU.
        levels = zip(self.linears, self.clip.patches(encoded).unbind(dim=1), strict=False)
        patches = torch.stack([linear(one) for linear, one in levels])
        own_text = self.image_prompts(self.text_tower, text, feature)
        queries = None
        if self.query_module is not None:
            queries = self.query_module(feature, patches, own_text)
        return Features(patches, own_text, queries)

    def logits(self, features: Features) -> Float[Tensor, "branch level batch patch 2"]:
        """Each patch against text and queries (eq. 10, 11); only the text has a temperature."""
        patches, text, queries = features
        sides = [text.expand(len(self.levels), -1, -1, -1)]
        if queries is not None:
            sides.append(queries)
        together = align(patches, torch.cat(sides, dim=-2), scale=1.0)
        of_text, *of_queries = together.split(2, dim=-1)
        return torch.stack([self.temperature.exp() * of_text, *of_queries])

    def maps(
        self, logits: Float[Tensor, "branch level batch patch 2"]
    ) -> Float[Tensor, "branch level batch height width"]:
        """Probability of abnormal at each pixel."""
        enlarged = abnormal_map(logits.flatten(0, 2), self.clip.size)[:, 0]
        return enlarged.unflatten(0, (logits.shape[0], logits.shape[1], -1))

    @staticmethod
    def patch_mean(
        logits: Float[Tensor, "branch level batch patch 2"],
    ) -> Float[Tensor, "branch level batch"]:
        """Probability of abnormal, mean over patches; the paper takes the maximum."""
        return logits.softmax(dim=-1)[..., 1].mean(dim=-1)

    def mix(
        self, maps: Float[Tensor, "branch level batch height width"]
    ) -> Float[Tensor, "batch height width"]:
        """Mean over levels, weighed over branches (eq. 12)."""
        branches = zip(self.branch_weights, maps.mean(dim=1), strict=True)
        return torch.stack([weight * mean for weight, mean in branches]).sum(dim=0)

    def loss_terms(
        self,
        encoded: Float[Tensor, "batch tap token width"],
        masks: Float[Tensor, "batch 1 side side"] | None,
        labels: Bool[Tensor, "batch"],
        text: Float[Tensor, "2 token text_width"],
    ) -> LossTerms:
        """The terms of ``loss``, by branch and level."""
        logits = self.logits(self.features(encoded, text))
        detection = self._cross_entropy(self.patch_mean(logits), labels)
        if masks is None:
            return without_masks(detection)
        return with_masks(detection, self.maps(logits).flatten(0, 1).unsqueeze(2).unbind(), masks)

    def load_released(self, path: str | Path) -> None:
        """Load all that the authors train; see ``released.load_trained``."""
        load_trained(self, path)

    def _cross_entropy(
        self, probability: Float[Tensor, "branch level batch"], labels: Bool[Tensor, "batch"]
    ) -> Float[Tensor, "branch level"]:
        target = labels.float().expand_as(probability)
        if self.bce == "probabilities":
            # A GPU's autocast refuses it, for what half precision makes of probabilities near 0.
            with torch.autocast(probability.device.type, enabled=False):
                terms = F.binary_cross_entropy(probability.float(), target, reduction="none")
            return terms.mean(dim=-1)
        # As the code: the sigmoid of this loss comes on top of a probability.
        terms = F.binary_cross_entropy_with_logits(probability, target, reduction="none")
        return terms.mean(dim=-1)
