"""MedCLIP's computation: images to heat maps, with nothing that learns."""

from collections.abc import Sequence
from typing import ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from anomalib_medclip.baselines.medclip_tower import MedCLIPTower
from anomalib_medclip.components.anomaly_map import abnormal_map, along
from anomalib_medclip.components.frozen_model import FrozenModel
from anomalib_medclip.components.memory_bank import MemoryBank
from anomalib_medclip.components.model import ModelOutput
from anomalib_medclip.components.patch_memory import memory_maps
from anomalib_medclip.components.prompts import PromptEncoder

Mode = Literal["text", "memory"]
"""What images are compared with: sentences, or normal images."""

ImageScore = Literal["map_max", "embedding"]
"""In the mode ``memory``: the map's maximum, or the distance of the image's embedding."""


class MedCLIPModel(FrozenModel):
    """A frozen tower, and text or patches of normal images to compare with.

    Zero-shot there are no such images, and the mode ``memory`` is refused.

    Args:
        clip: The frozen image tower.
        prompts: Gives the text features.
        mode: What images are compared with.
        levels: Stages whose patches are compared, counted from 1; by default the second to fourth.
        image_score: Which image score.
        bank_dtype: Precision of the banks' rows.
    """

    has_memory: ClassVar[bool] = True
    without_support = "take mode: text"
    clip: MedCLIPTower

    def __init__(
        self,
        clip: MedCLIPTower,
        prompts: PromptEncoder,
        mode: Mode = "memory",
        levels: Sequence[int] | None = None,
        image_score: ImageScore = "map_max",
        bank_dtype: torch.dtype = torch.float16,
    ) -> None:
        scored = clip.checked(levels or (2, 3, 4))
        super().__init__(clip, sorted({*scored, clip.depth}), prompts)  # the last one is pooled
        self.mode, self.image_score, self.scored = mode, image_score, scored
        self.has_memory = mode == "memory"  # type: ignore[misc]  # of the class by default
        # Stages have widths of their own, and so each has a bank.
        self.banks = nn.ModuleList(MemoryBank(bank_dtype) for _ in scored)
        self.embedding_bank = MemoryBank(bank_dtype)

    @property
    def scored_levels(self) -> tuple[int, ...]:
        """Stages that scores are made of, counted from 1."""
        return self.scored if self.has_memory else self.levels[-1:]

    def middle_tokens(
        self, encoded: Float[Tensor, "batch value"]
    ) -> Float[Tensor, "batch patch width"]:
        """Patches of the stage before the last, or of the first read, if that is later."""
        return self.clip.parted(encoded, self.levels)[-2:][0]

    def score(
        self,
        encoded: Float[Tensor, "batch value"],
        text: Float[Tensor, "2 embed_dim"],
        leave_out: Int[Tensor, "batch"] | None = None,
    ) -> ModelOutput:
        """Score images that are encoded already; see ``ClipModel``.

        Raises:
            NotReadyError: There is no memory bank, or nothing in it to compare with.
        """
        if not self.has_memory:
            return ModelOutput(self.text_score(encoded, text), self._text_map(encoded, text))
        abnormal = self._memory_maps(encoded, leave_out).mean(dim=0)
        if self.image_score == "map_max":
            return ModelOutput(abnormal.amax(dim=(-2, -1)), abnormal)
        embedding = self._embedding(encoded).unsqueeze(1)
        distance = self.embedding_bank.distance(embedding, 0, leave_out)[:, 0]
        return ModelOutput(distance / 2, abnormal)

    def text_score(
        self, encoded: Float[Tensor, "batch value"], text: Float[Tensor, "2 embed_dim"]
    ) -> Float[Tensor, "batch"]:
        """Probability of abnormal by the mean cosine with the sentences of each class."""
        return self._logits(self._embedding(encoded).unsqueeze(1), text).softmax(dim=-1)[:, 0, 1]

    @torch.no_grad()
    def fit_support(
        self,
        support: Float[Tensor, "image value"],
        copies: Float[Tensor, "copy normal value"],
        labels: Bool[Tensor, "image"],
        owners: Int[Tensor, "image"],
    ) -> None:
        """Keep patches and embeddings of the normal support images."""
        del support
        normal, owners = copies[0], owners[~labels]
        self.embedding_bank.fill(self._embedding(normal)[None, :, None], owners)
        for bank, patches in zip(self._stage_banks, self._scored_patches(normal), strict=True):
            bank.fill(patches[None], owners)

    def level_maps(
        self, encoded: Float[Tensor, "batch value"], text: Float[Tensor, "2 embed_dim"]
    ) -> dict[str, Float[Tensor, "level batch side side"]]:
        """Each stage's map by itself: ``memory`` or ``text``, by what images are compared with."""
        if self.has_memory:
            return {"memory": self._memory_maps(encoded)}
        return {"text": self._text_map(encoded, text)[None]}

    @property
    def _stage_banks(self) -> list[MemoryBank]:
        return [cast("MemoryBank", bank) for bank in self.banks]

    def _scored_patches(self, encoded: Tensor) -> list[Float[Tensor, "batch _ _"]]:
        parts = dict(zip(self.levels, self.clip.parted(encoded, self.levels), strict=True))
        return [parts[level] for level in self.scored]

    def _last(self, encoded: Tensor) -> Float[Tensor, "batch patch width"]:
        return self.clip.parted(encoded, self.levels)[-1]

    def _embedding(self, encoded: Tensor) -> Float[Tensor, "batch embed_dim"]:
        return self.clip.pool(self._last(encoded))

    def _logits(self, tokens: Tensor, text: Tensor) -> Float[Tensor, "batch token 2"]:
        """Mean cosine with the sentences of each class, times the trained factor."""
        return self.clip.factor * along(tokens, text.T)

    def _text_map(self, encoded: Tensor, text: Tensor) -> Float[Tensor, "batch side side"]:
        """The same for each patch, whose mean the embedding is."""
        logits = self._logits(self.clip.project(self._last(encoded)), text)
        return abnormal_map(logits, self.clip.size)[:, 0]

    def _memory_maps(
        self, encoded: Tensor, leave_out: Tensor | None = None
    ) -> Float[Tensor, "level batch side side"]:
        """Half the distance of each pixel to the nearest normal patch of its stage."""
        pairs = zip(self._stage_banks, self._scored_patches(encoded), strict=True)
        found = [memory_maps(bank, some[None], self.clip.size, leave_out) for bank, some in pairs]
        return torch.cat(found)

    def embeddings(
        self, encoded: Float[Tensor, "batch value"], text: Float[Tensor, "2 embed_dim"]
    ) -> dict[str, Float[Tensor, "batch 1 width"]]:
        """The image's embedding."""
        del text
        return {"frozen": F.normalize(self._embedding(encoded), dim=-1).unsqueeze(1)}
