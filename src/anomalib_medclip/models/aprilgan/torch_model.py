"""APRIL-GAN's computation: images to heat maps, and the loss that trains its layers."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from anomalib_medclip.clip.towers import ImageTower
from anomalib_medclip.clip.weights import released_by_authors
from anomalib_medclip.components.anomaly_map import (
    image_probability,
    text_maps,
    unit_interval,
)
from anomalib_medclip.components.losses import LossTerms, dice, focal, without_masks
from anomalib_medclip.components.memory_bank import MemoryBank
from anomalib_medclip.components.model import ClipModel, ModelOutput, NearestSupport, mean_patch
from anomalib_medclip.components.patch_memory import SupportScale, memory_maps, nearest_patches
from anomalib_medclip.components.prompts import PromptEncoder
from anomalib_medclip.errors import NotReadyError

ImageScore = Literal["published", "map_max"]
"""Which image score: that of the authors' code, or the maximum of the map."""


class APRILGANModel(ClipModel):
    """A linear layer at each level to the text, and a bank of frozen patches of normal images.

    Args:
        clip: The frozen image tower.
        levels: Blocks with layers, counted from 1; by default the four quarters of the tower.
        memory_levels: Blocks whose patches the bank keeps; by default the same.
        image_score: Which image score.
        bank_dtype: Precision of the bank's rows.
        seed: Seed of the layers' initial weights.
        prompts: Gives the text features; ``NoPrompts`` for a tower without text, whose layers and
            text score cannot be: the map is then the comparison's, and the score its maximum.

    Attributes:
        quarter_levels: Blocks with layers, where nobody says which.
        uses_layers: Whether the layers have a part in the map; not so where nothing taught them.

    Raises:
        ValueError: The tower has no such levels.
    """

    has_memory: ClassVar[bool] = True
    memory_bank: MemoryBank

    def __init__(
        self,
        clip: ImageTower,
        levels: Sequence[int] | None = None,
        memory_levels: Sequence[int] | None = None,
        image_score: ImageScore = "published",
        bank_dtype: torch.dtype = torch.float16,
        seed: int = 0,
        prompts: PromptEncoder | None = None,
    ) -> None:
        self.quarter_levels = [clip.depth * quarter // 4 for quarter in self.quarters]
        self.text_levels = clip.checked(self.quarter_levels if levels is None else levels)
        compared = self.text_levels if memory_levels is None else memory_levels
        self.memory_levels = clip.checked(compared)
        # The last one is pooled.
        read = sorted({*self.text_levels, *self.memory_levels, clip.depth})
        super().__init__(clip, read, prompts)
        self.image_score, self.uses_layers = image_score, self.prompts.reads_words
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.ModuleList(
                nn.Linear(clip.width, clip.embed_dim) for _ in self.text_levels
            )
        self.memory_bank = MemoryBank(bank_dtype)
        self.scale = SupportScale()

    def score(
        self,
        encoded: Float[Tensor, "batch level token width"],
        text: Float[Tensor, "2 embed_dim"],
        leave_out: Int[Tensor, "batch"] | None = None,
    ) -> ModelOutput:
        """Score images that are encoded already; see ``ClipModel``.

        Raises:
            NotReadyError: There is no memory bank, or nothing in it to compare with; or zero-shot,
                nothing has taught the layers.
        """
        fused = self.fused_map(encoded, text, leave_out)
        if self.image_score == "map_max":
            return ModelOutput(fused.amax(dim=(-2, -1)), fused)
        if not self.prompts.reads_words:
            return ModelOutput(unit_interval(self.scale(fused.amax(dim=(-2, -1)))), fused)
        of_image = self.text_score(encoded, text)
        if not self.few_shot:
            return ModelOutput(of_image, fused)
        return ModelOutput(unit_interval(self.averaged_score(of_image, fused)), fused)

    def text_score(
        self,
        encoded: Float[Tensor, "batch level token width"],
        text: Float[Tensor, "2 embed_dim"],
    ) -> Float[Tensor, "batch"]:
        """Probability of abnormal by the pooled image embedding, which no layer has a part in."""
        return image_probability(self.clip.pool(encoded[:, -1]), text)

    def averaged_score(
        self,
        text_score: Float[Tensor, "batch"],
        fused: Float[Tensor, "batch side side"],
    ) -> Float[Tensor, "batch"]:
        """Few-shot image score: the mean of text and the map's maximum on the support's scale."""
        return (text_score + self.scale(fused.amax(dim=(-2, -1)))) / 2

    def fused_map(
        self,
        encoded: Float[Tensor, "batch level token width"],
        text: Float[Tensor, "2 embed_dim"],
        leave_out: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch side side"]:
        """Both branches as the authors add them, divided by the largest sum there can be.

        They add a probability of each text level and a distance, up to 2, of each memory level.

        Raises:
            NotReadyError: As of ``score``.
        """
        parts, weight = [], 0
        if self.uses_layers:
            parts.append(self._text_maps(encoded, text).sum(dim=0))
            weight += len(self.text_levels)
        if self.few_shot:
            parts.append(2 * self._memory_maps(encoded, leave_out).sum(dim=0))
            weight += 2 * len(self.memory_levels)
        if not parts:
            msg = "nothing has taught the layers, and there are no normal images of the target to "
            msg += "compare with: train on images with masks, or give adapters"
            raise NotReadyError(msg)
        return torch.stack(parts).sum(dim=0) / weight

    def loss_terms(
        self,
        encoded: Float[Tensor, "batch level token width"],
        masks: Float[Tensor, "batch 1 side side"] | None,
        labels: Bool[Tensor, "batch"],
        text: Float[Tensor, "*per_image 2 embed_dim"],
    ) -> LossTerms:
        """Focal and dice loss of every level's map; without masks there is no term."""
        del labels
        nothing = encoded.new_zeros(0)
        if masks is None:
            return without_masks(nothing)
        maps = text_maps(self.projected(encoded), text, self.clip.size)
        return LossTerms(
            nothing,
            torch.stack([focal(one, masks) for one in maps]),
            torch.stack([dice(one, masks) for one in maps]),
        )

    def idle_parameters(self, has_masks: bool) -> Iterable[nn.Parameter]:
        """Parameters that a batch does not train: without masks, or any part in the map, all."""
        return () if has_masks and self.uses_layers else self.layers.parameters()

    @torch.no_grad()
    def fit_support(
        self,
        support: Float[Tensor, "image level token width"],
        copies: Float[Tensor, "copy normal level token width"],
        labels: Bool[Tensor, "image"],
        owners: Int[Tensor, "image"],
    ) -> None:
        """Keep the patches of the normal images, none of their copies, and set the scale."""
        self.memory_bank.fill(self.bank_tokens(copies[0]), owners[~labels])
        text = self.known_text()

        def highest(some: Tensor, whose: Tensor) -> Tensor:
            return self.fused_map(some, text, whose).amax(dim=(-2, -1))

        self.scale.fit_left_out(self.memory_bank, support, labels, owners, highest)

    def bank_tokens(
        self, encoded: Float[Tensor, "image level token width"]
    ) -> Float[Tensor, "level image patch width"]:
        """What the bank keeps of images: patches of the memory levels, un-normalised."""
        return self._patches(encoded, self.memory_levels)

    def projected(
        self, encoded: Float[Tensor, "image level token width"]
    ) -> list[Float[Tensor, "image patch embed_dim"]]:
        """Patches of the text levels, brought to the text by the layers, un-normalised."""
        patches = self._patches(encoded, self.text_levels)
        return [layer(one) for layer, one in zip(self.layers, patches, strict=True)]

    def load_released(self, path: str | Path) -> None:
        """Load layers as the authors release them, or those of a checkpoint of this package.

        Args:
            path: Torch file with the dictionary ``trainable_linearlayer``, or a checkpoint.

        Raises:
            WeightsError: The file is missing, is neither, or does not fit.
        """
        parts = "trainable_linearlayer, or be a checkpoint, for these levels and this backbone"
        with released_by_authors(path, "APRIL-GAN", parts) as state:
            held, before = state.get("trainable_linearlayer"), "fc."
            if held is None:
                held, before = state["state_dict"], "model.layers."
            own = {n.removeprefix(before): v for n, v in held.items() if n.startswith(before)}
            self.layers.load_state_dict(own)

    @property
    def scored_levels(self) -> tuple[int, ...]:
        """Levels that scores are made of; of two branches, those that both have."""
        if not self.few_shot:
            return self.text_levels
        if not self.uses_layers:
            return self.memory_levels
        return tuple(one for one in self.text_levels if one in self.memory_levels)

    def level_maps(
        self,
        encoded: Float[Tensor, "batch level token width"],
        text: Float[Tensor, "2 embed_dim"],
    ) -> dict[str, Float[Tensor, "level batch side side"]]:
        """Each level's ``text`` map and, few-shot, half the distances of its ``memory`` map."""
        found = {}
        if self.uses_layers:
            found["text"] = self._text_maps(encoded, text)[self._shown(self.text_levels)]
        if self.few_shot:
            found["memory"] = self._memory_maps(encoded)[self._shown(self.memory_levels)]
        return found if self.scored_levels else {}

    def nearest_support(
        self, encoded: Float[Tensor, "batch level token width"]
    ) -> NearestSupport | None:
        """The rows of the memory bank behind each distance; ``None`` zero-shot."""
        if not (self.few_shot and self.scored_levels):
            return None
        found = nearest_patches(self.memory_bank, self.bank_tokens(encoded))
        return NearestSupport(*(part[self._shown(self.memory_levels)] for part in found))

    def embeddings(
        self,
        encoded: Float[Tensor, "batch level token width"],
        text: Float[Tensor, "2 embed_dim"],
    ) -> dict[str, Float[Tensor, "batch 1 width"]]:
        """The mean patch without the layers, which are its adapters, and with them."""
        del text
        return {
            "without adapters": mean_patch(self._patches(encoded, self.text_levels)),
            "with adapters": mean_patch(torch.stack(self.projected(encoded))),
        }

    def get_extra_state(self) -> Tensor:
        """Whether the layers have a part in the map, for a checkpoint."""
        return torch.tensor(self.uses_layers)

    def set_extra_state(self, state: Tensor) -> None:
        """Take it from a checkpoint."""
        self.uses_layers = bool(state)

    def _patches(
        self, encoded: Tensor, levels: Sequence[int]
    ) -> Float[Tensor, "level batch patch width"]:
        at = [self.levels.index(level) for level in levels]
        return self.clip.patches(encoded[:, at]).transpose(0, 1)

    def _shown(self, levels: Sequence[int]) -> list[int]:
        return [levels.index(level) for level in self.scored_levels]

    def _text_maps(self, encoded: Tensor, text: Tensor) -> Float[Tensor, "level batch side side"]:
        return torch.stack(text_maps(self.projected(encoded), text, self.clip.size))[:, :, 0]

    def _memory_maps(
        self, encoded: Tensor, leave_out: Tensor | None = None
    ) -> Float[Tensor, "level batch side side"]:
        tokens = self.bank_tokens(encoded)
        return memory_maps(self.memory_bank, tokens, self.clip.size, leave_out)
