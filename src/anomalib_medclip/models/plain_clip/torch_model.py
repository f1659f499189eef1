"""Plain CLIP's computation: images to heat maps, with nothing that learns."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anomalib_medclip.clip.towers import ImageTower
from anomalib_medclip.components.anomaly_map import (
    abnormal_map,
    align,
    image_probability,
    unit_interval,
)
from anomalib_medclip.components.channel_pooling import ChannelPooling
from anomalib_medclip.components.frozen_model import FrozenModel
from anomalib_medclip.components.memory_bank import MemoryBank
from anomalib_medclip.components.model import ModelOutput, NearestSupport, mean_patch
from anomalib_medclip.components.patch_memory import SupportScale, memory_maps, nearest_patches
from anomalib_medclip.components.prompts import PromptEncoder
from anomalib_medclip.errors import ConfigError

Mode = Literal["text", "memory", "hard_prompts"]
"""What images are compared with: sentences, normal images, or sentences by pooled channels."""

_QUARTERS: Mapping[Mode, Sequence[int]] = MappingProxyType(
    {"text": (4,), "memory": (1, 2, 3, 4), "hard_prompts": (2, 3, 4)}
)
"""Quarters of the tower's depth that each mode reads."""


class PlainCLIPModel(FrozenModel):
    """A frozen tower, and text or tokens of normal images to compare with.

    Zero-shot there are no such images, and the mode ``memory`` is refused.

    Args:
        clip: The frozen image tower.
        mode: What images are compared with.
        levels: Blocks to read, counted from 1; by default those of the mode. The mode ``text``
            reads the last one only.
        prompts: Gives the text features.
        add_text: In the mode ``memory``, let the score of the mode ``text`` be half of the score.
        bank_dtype: Precision of the memory bank's rows.

    Raises:
        ConfigError: Levels, ``add_text`` or the tower's pooling do not go with the mode.
    """

    has_memory: ClassVar[bool] = True
    without_support = "take mode: text"
    memory_bank: MemoryBank

    def __init__(
        self,
        clip: ImageTower,
        mode: Mode = "memory",
        levels: Sequence[int] | None = None,
        prompts: PromptEncoder | None = None,
        add_text: bool = False,
        bank_dtype: torch.dtype = torch.float16,
    ) -> None:
        if mode == "text" and levels is not None and list(levels) != [clip.depth]:
            msg = f"mode text reads block {clip.depth}, the last; leave levels out"
            raise ConfigError(msg)
        if add_text and mode != "memory":
            msg = f"add_text adds text to the mode memory, and the mode is {mode}; leave it out"
            raise ConfigError(msg)
        if mode == "text":
            clip.check_projects()
        by_default = [clip.depth * quarter // 4 for quarter in _QUARTERS[mode]]
        scored = clip.checked(by_default if levels is None else levels)
        last = () if clip.depth in scored or mode == "hard_prompts" else (clip.depth,)
        super().__init__(clip, (*scored, *last), prompts)
        self.mode, self.add_text, self.scored = mode, add_text, scored
        self.has_memory = mode == "memory"  # type: ignore[misc]  # of the class by default
        self.pooling = ChannelPooling(clip.width, clip.embed_dim)
        self.memory_bank = MemoryBank(bank_dtype)
        self.scale = SupportScale()

    @property
    def scored_levels(self) -> tuple[int, ...]:
        """Levels that scores are made of, counted from 1."""
        return self.scored if self.has_memory or self.mode == "hard_prompts" else self.levels[-1:]

    def score(
        self,
        encoded: Float[Tensor, "batch level token width"],
        text: Float[Tensor, "2 embed_dim"],
        leave_out: Int[Tensor, "batch"] | None = None,
    ) -> ModelOutput:
        """Score images that are encoded already; see ``ClipModel``.

        Raises:
            NotReadyError: There is no memory bank, or nothing in it to compare with.
        """
        if self.mode == "hard_prompts":
            logits = self._cosines(encoded, text).mean(dim=0)
            abnormal = abnormal_map(logits, self.clip.size)[:, 0]
            return ModelOutput(abnormal.amax(dim=(-2, -1)), abnormal)
        if not self.has_memory:
            return ModelOutput(self.text_score(encoded, text), self._text_maps(encoded, text)[0])
        abnormal = self.memory_map(encoded, leave_out)
        highest = abnormal.amax(dim=(-2, -1))
        if not self.add_text:
            return ModelOutput(highest, abnormal)
        score = (self.text_score(encoded, text) + self.scale(highest)) / 2
        return ModelOutput(unit_interval(score), abnormal)

    def text_score(
        self,
        encoded: Float[Tensor, "batch level token width"],
        text: Float[Tensor, "2 embed_dim"],
    ) -> Float[Tensor, "batch"]:
        """Probability of abnormal by the pooled image embedding, as CLIP classifies."""
        return image_probability(self.clip.pool(encoded[:, -1]), text)

    def memory_map(
        self,
        encoded: Float[Tensor, "batch level token width"],
        leave_out: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch side side"]:
        """Half the distance of each pixel to the nearest normal token, mean over levels.

        Raises:
            NotReadyError: There is no memory bank, or nothing in it to compare with.
        """
        return self._memory_maps(encoded, leave_out).mean(dim=0)

    @torch.no_grad()
    def fit_support(
        self,
        support: Float[Tensor, "image level token width"],
        copies: Float[Tensor, "copy normal level token width"],
        labels: Bool[Tensor, "image"],
        owners: Int[Tensor, "image"],
    ) -> None:
        """Keep the patches of the normal support images; with ``add_text``, set the scale."""
        self.memory_bank.fill(self.bank_tokens(copies[0]), owners[~labels])
        if self.add_text:
            self.scale.fit_left_out(
                self.memory_bank, support, labels, owners,
                lambda some, whose: self.memory_map(some, whose).amax(dim=(-2, -1)),
            )  # fmt: skip

    def bank_tokens(
        self, encoded: Float[Tensor, "image level token width"]
    ) -> Float[Tensor, "level image patch width"]:
        """What is kept of images: the patches of the levels scored, un-normalised."""
        return self.clip.patches(encoded[:, : len(self.scored)]).transpose(0, 1)

    def level_maps(
        self,
        encoded: Float[Tensor, "batch level token width"],
        text: Float[Tensor, "2 embed_dim"],
    ) -> dict[str, Float[Tensor, "level batch side side"]]:
        """Each level's map by itself: ``memory`` or ``text``, by what images are compared with."""
        if self.has_memory:
            return {"memory": self._memory_maps(encoded)}
        return {"text": self._text_maps(encoded, text)}

    def nearest_support(
        self, encoded: Float[Tensor, "batch level token width"]
    ) -> NearestSupport | None:
        """The rows of the memory bank behind each distance; ``None`` without a memory."""
        if not self.has_memory:
            return None
        return nearest_patches(self.memory_bank, self.bank_tokens(encoded))

    def embeddings(
        self,
        encoded: Float[Tensor, "batch level token width"],
        text: Float[Tensor, "2 embed_dim"],
    ) -> dict[str, Float[Tensor, "batch 1 width"]]:
        """The mean patch of the frozen tower."""
        del text
        return {"without adapters": mean_patch(self.bank_tokens(encoded))}

    def _text_maps(self, encoded: Tensor, text: Tensor) -> Float[Tensor, "level batch side side"]:
        if self.mode != "hard_prompts":
            projected = self.clip.project(self.clip.patches(encoded[:, -1]))
            logits = align(projected, text).unsqueeze(0)
        else:
            logits = self._cosines(encoded, text)
        return torch.stack([abnormal_map(one, self.clip.size)[:, 0] for one in logits])

    def _cosines(self, encoded: Tensor, text: Tensor) -> Float[Tensor, "level batch patch 2"]:
        pooled = self.pooling(self.bank_tokens(encoded))
        return torch.stack([align(one, text, scale=1.0) for one in pooled])

    def _memory_maps(
        self, encoded: Tensor, leave_out: Tensor | None = None
    ) -> Float[Tensor, "level batch side side"]:
        return memory_maps(self.memory_bank, self.bank_tokens(encoded), self.clip.size, leave_out)
