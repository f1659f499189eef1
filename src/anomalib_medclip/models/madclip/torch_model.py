"""MadCLIP's computation: frozen tokens to heat maps, and the loss of adapters and prompts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from anomalib_medclip.clip.towers import ImageTower
from anomalib_medclip.components.anomaly_map import abnormal_map, along
from anomalib_medclip.components.losses import LossTerms, with_masks, without_masks
from anomalib_medclip.components.model import ClipModel, ModelOutput, mean_patch
from anomalib_medclip.components.prompts import PromptEncoder
from anomalib_medclip.models.madclip.adapters import HEADS, Adapter, Head, load_branches

Loss = Literal["sigmoid", "softmax"]
"""How patch scores meet the label: SigLIP's loss, or cross-entropy after a softmax."""

ImageScore = Literal["max", "mean"]
"""What becomes the image's score: the map's maximum, or the mean over patches."""


class Scores(NamedTuple):
    """S_n and S_ab of every patch and level, in [-2, 2], for detection and for segmentation."""

    detect: Float[Tensor, "level batch patch 2"]
    segment: Float[Tensor, "level batch patch 2"]


class MadCLIPModel(ClipModel):
    """A normal and an abnormal branch of adapters on frozen tokens, and prompts that learn.

    Args:
        clip: The frozen image tower.
        prompts: Text features from the text tower and the object's name; ``LearnablePrompts``, or
            fixed ones.
        levels: Blocks with adapters, counted from 1; by default the four quarters of the tower.
        shared: One set of adapters for both branches.
        one_head: One layer for detection and segmentation.
        subtract: Subtract a token's likeness to the other class.
        loss: The image-level loss.
        image_score: By default the maximum for sets with masks, as in the authors' code, else the
            mean.
        seed: Seed of the adapters' initial weights.
    """

    part_names: ClassVar[Mapping[str, str]] = {
        "normal_det_adapters": "adapters",
        "abnormal_det_adapters": "adapters",
    }

    def __init__(
        self,
        clip: ImageTower,
        prompts: PromptEncoder,
        levels: Sequence[int] | None = None,
        shared: bool = False,
        one_head: bool = False,
        subtract: bool = True,
        loss: Loss = "sigmoid",
        image_score: ImageScore | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(clip, levels, prompts)
        self.subtract = subtract
        self.kind = loss
        self.image_score = image_score
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            normal, abnormal = (
                nn.ModuleList(Adapter(clip.width, clip.embed_dim, one_head) for _ in self.levels)
                for _ in range(2)
            )
        self.normal_det_adapters = normal
        self.abnormal_det_adapters = normal if shared else abnormal

    def score(
        self,
        encoded: Float[Tensor, "batch level token width"],
        text: Float[Tensor, "2 embed_dim"],
        leave_out: Int[Tensor, "batch"] | None = None,
    ) -> ModelOutput:
        """Score images that are encoded already; see ``ClipModel``."""
        del leave_out
        by_map = self.has_masks if self.image_score is None else self.image_score == "max"
        heads = [self._map_head] if by_map else [self._map_head, "detect"]
        for_map, *for_image = self.head_scores(encoded, text, heads)
        maps = self._level_maps(for_map).mean(dim=0)
        score = self.patch_score(*for_image) if for_image else maps.amax(dim=(-2, -1))
        return ModelOutput(score, maps)

    def level_maps(
        self,
        encoded: Float[Tensor, "batch level token width"],
        text: Float[Tensor, "2 embed_dim"],
    ) -> dict[str, Float[Tensor, "level batch side side"]]:
        """What the heat map is the mean of: ``text``."""
        return {"text": self._level_maps(*self.head_scores(encoded, text, [self._map_head]))}

    def embeddings(
        self,
        encoded: Float[Tensor, "batch level token width"],
        text: Float[Tensor, "2 embed_dim"],
    ) -> dict[str, Float[Tensor, "batch vector width"]]:
        """The mean patch without adapters, and with those of the normal and the abnormal branch."""
        del text
        patches = self.clip.patches(encoded).transpose(0, 1)
        adapted = [
            torch.stack([one(p, HEADS[:1])[0] for one, p in zip(branch, patches, strict=True)])
            for branch in (self.normal_det_adapters, self.abnormal_det_adapters)
        ]
        return {
            "without adapters": mean_patch(patches),
            "with adapters": torch.cat([mean_patch(branch) for branch in adapted], dim=1),
        }

    def scores(
        self,
        encoded: Float[Tensor, "batch level token width"],
        text: Float[Tensor, "2 embed_dim"],
    ) -> Scores:
        """What both heads say; see ``head_scores``."""
        return Scores(*self.head_scores(encoded, text))

    def head_scores(
        self,
        encoded: Float[Tensor, "batch level token width"],
        text: Float[Tensor, "2 embed_dim"],
        heads: Sequence[Head] = HEADS,
    ) -> list[Float[Tensor, "level batch patch 2"]]:
        """Likeness of each patch to its branch's class, less that to the other class, by head."""
        normal, abnormal = text
        # Only the difference of the two texts is needed: one product for each branch and head.
        towards_normal = normal - abnormal if self.subtract else normal
        towards_abnormal = abnormal - normal if self.subtract else abnormal
        levels = []
        for level, stream in enumerate(encoded.unbind(dim=1)):
            patches = self.clip.patches(stream)  # adapters see each token alone
            by_normal = self.normal_det_adapters[level](patches, heads)
            by_abnormal = self.abnormal_det_adapters[level](patches, heads)
            for of_normal, of_abnormal in zip(by_normal, by_abnormal, strict=True):
                s_n = along(of_normal, towards_normal[:, None])
                s_ab = along(of_abnormal, towards_abnormal[:, None])
                levels.append(torch.cat([s_n, s_ab], dim=-1))
        return [torch.stack(levels[number :: len(heads)]) for number in range(len(heads))]

    def patch_score(self, detect: Float[Tensor, "level batch patch 2"]) -> Float[Tensor, "batch"]:
        """Probability of abnormal, mean over patches and levels."""
        return detect.softmax(dim=-1)[..., 1].mean(dim=(0, 2))

    def loss_terms(
        self,
        encoded: Float[Tensor, "batch level token width"],
        masks: Float[Tensor, "batch 1 side side"] | None,
        labels: Bool[Tensor, "batch"],
        text: Float[Tensor, "2 embed_dim"],
    ) -> LossTerms:
        """The terms of ``loss``, level by level."""
        detect, *segment = self.head_scores(
            encoded, text, HEADS if masks is not None else HEADS[:1]
        )
        of_image = siglip if self.kind == "sigmoid" else cross_entropy
        detection = torch.stack([of_image(s, labels) for s in detect])
        if masks is None:
            return without_masks(detection)
        return with_masks(detection, [abnormal_map(s, self.clip.size) for s in segment[0]], masks)

    def load_released(self, path: str | Path) -> None:
        """Load adapters and prompts as the authors release them; see ``adapters.load_branches``."""
        load_branches(self.normal_det_adapters, self.abnormal_det_adapters, self.prompts, path)

    @property
    def _map_head(self) -> Head:
        return "segment" if self.has_masks else "detect"

    def _level_maps(
        self, scores: Float[Tensor, "level batch patch 2"]
    ) -> Float[Tensor, "level batch side side"]:
        return torch.stack([abnormal_map(s, self.clip.size)[:, 0] for s in scores])


def siglip(
    scores: Float[Tensor, "batch patch 2"], labels: Bool[Tensor, "batch"]
) -> Float[Tensor, ""]:
    """SigLIP's loss of every patch and branch, without temperature and bias.

    Args:
        scores: S_n and S_ab.
        labels: True for abnormal: then S_n should be low and S_ab high.

    Returns:
        Sum over the branches, mean over patches and images.
    """
    sign = torch.where(labels, 1.0, -1.0).view(-1, 1)
    normal, abnormal = scores.unbind(dim=-1)
    return -(F.logsigmoid(-sign * normal) + F.logsigmoid(sign * abnormal)).mean()


def cross_entropy(
    scores: Float[Tensor, "batch patch 2"], labels: Bool[Tensor, "batch"]
) -> Float[Tensor, ""]:
    """The ablation's loss: both channels' probability of abnormal, each taken for a logit."""
    probability = scores.softmax(dim=-1)[..., 1].mean(dim=1)
    return 2 * F.binary_cross_entropy_with_logits(probability, labels.float())
