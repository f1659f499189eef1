"""IQE-CLIP's computation: images to heat maps, and the loss that trains prompts and queries."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from anomalib_medclip.clip.towers import ImageTower, TextTower
from anomalib_medclip.components.anomaly_map import PatchScore, abnormal_map, align
from anomalib_medclip.components.image_prompts import ImagePrompts
from anomalib_medclip.components.losses import (
    CrossEntropy,
    LossTerms,
    cross_entropy,
    with_masks,
    without_masks,
)
from anomalib_medclip.components.model import (
    ClipModel,
    ModelOutput,
    mean_patch,
    side_by_side,
)
from anomalib_medclip.components.released import load_trained
from anomalib_medclip.components.smoothing import GaussianSmoothing
from anomalib_medclip.models.iqeclip.query import QueryModule
from anomalib_medclip.models.iqeclip.released import WITHOUT_EFFECT, our_name


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
        image_score: What patches, or the map, become in losses and scores of images.
        bce: What an image's probability is taken for; the authors' code says logits.
        weigh_losses: Weigh the branches' losses, as eq. 14.
        sharpens: Have a temperature for the text branch.
        rectifies: Put a ReLU after the linear layers, as eq. 5.

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
        image_score: PatchScore = "mean",
        bce: CrossEntropy = "logits",
        weigh_losses: bool = False,
        sharpens: bool = True,
        rectifies: bool = False,
    ) -> None:
        super().__init__(clip, levels, prompts.templates)
        self.image_score, self.bce = image_score, bce
        self.sharpens, self.rectifies = sharpens, rectifies
        self.text_tower = text_tower
        self.image_prompts = prompts
        self.query_module = query_module
        self.linears = nn.ModuleList(nn.Linear(clip.width, clip.embed_dim) for _ in self.levels)
        start = torch.tensor(math.log(1 / 0.07))
        self.temperature = nn.Parameter(start, requires_grad=sharpens)
        self.smooth = GaussianSmoothing(clip.backbone.image_size, sigma)
        self.branch_weights = (1 - alpha, alpha) if query_module else (1.0,)
        # Printed the other way round than in eq. 12.
        self.branch_loss_weights = (alpha, 1 - alpha) if weigh_losses and query_module else None

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
        final = self.smooth(self.mix(maps))
        if self.image_score == "max":
            return ModelOutput(final.amax(dim=(-2, -1)), final)
        score = maps.mean(dim=(-2, -1)) if self.few_shot else self.patch_mean(logits)
        return ModelOutput(score.mean(dim=(0, 1)), final)

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
        levels = zip(self.linears, self.clip.patches(encoded).unbind(dim=1), strict=False)
        patches = torch.stack([linear(one) for linear, one in levels])
        if self.rectifies:
            patches = F.relu(patches)
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
        sharpened = self.temperature.exp() * of_text if self.sharpens else of_text
        return torch.stack([sharpened, *of_queries])

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
        by_map = self.image_score == "max"
        maps = self.maps(logits) if by_map or masks is not None else logits.new_zeros(0)
        probability = maps.amax(dim=(-2, -1)) if by_map else self.patch_mean(logits)
        terms = without_masks(cross_entropy(probability, labels, self.bce))
        if masks is not None:
            of_maps = maps.flatten(0, 1).unsqueeze(2).unbind()
            terms = with_masks(terms.detection, of_maps, masks)
        return self._weighed(terms)

    def load_released(self, path: str | Path) -> None:
        """Load all that the authors train; see ``load_trained``."""
        load_trained(self, path, "IQE-CLIP", our_name, WITHOUT_EFFECT)

    def _weighed(self, terms: LossTerms) -> LossTerms:
        """Losses of the text and of the query branch, by their weights (eq. 14)."""
        if self.branch_loss_weights is None:
            return terms
        weights = terms.detection.new_tensor(self.branch_loss_weights).unsqueeze(-1)
        return LossTerms(*(one * weights if one.numel() else one for one in terms))
