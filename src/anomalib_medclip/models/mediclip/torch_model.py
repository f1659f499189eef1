"""MediCLIP's computation: frozen tokens to heat maps, and the loss of adapters and prompts."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from anomalib_medclip.clip.towers import ImageTower
from anomalib_medclip.clip.weights import released_by_authors
from anomalib_medclip.components.anomaly_map import abnormal_map, align
from anomalib_medclip.components.channel_pooling import ChannelPooling
from anomalib_medclip.components.losses import LossTerms, dice, focal
from anomalib_medclip.components.model import ClipModel, ModelOutput, mean_patch
from anomalib_medclip.components.prompts import PromptEncoder
from anomalib_medclip.errors import NotReadyError

Projection = Literal["linear", "pooled"]
"""How tokens reach the shared space."""


Softmax = Literal["mean", "levels"]
"""What the softmax of normal and abnormal is taken of."""


class MediCLIPModel(ClipModel):
    """A linear adapter at each of three levels, and prompts that learn.

    Args:
        clip: The frozen image tower.
        prompts: Text features from the text tower; ``LearnablePrompts``, or fixed ones.
        levels: Blocks with adapters, counted from 1; by default half, three quarters and the whole
            of the tower.
        projection: Linear adapters, or pooled channels.
        temperature: What cosines are divided by before the softmax.
        softmax: After the ``mean`` over levels, or at each of the ``levels``.
        seed: Seed of the adapters' initial weights.
    """

    quarters: ClassVar[Sequence[int]] = (2, 3, 4)

    def __init__(
        self,
        clip: ImageTower,
        prompts: PromptEncoder,
        levels: Sequence[int] | None = None,
        projection: Projection = "linear",
        temperature: float = 1.0,
        softmax: Softmax = "mean",
        seed: int = 0,
    ) -> None:
        super().__init__(clip, levels, prompts)
        self.temperature, self.softmax = temperature, softmax
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.adapters = nn.ModuleList(
                nn.Linear(clip.width, clip.embed_dim)
                if projection == "linear"
                else ChannelPooling(clip.width, clip.embed_dim)
                for _ in self.levels
            )

    def score(
        self,
        encoded: Float[Tensor, "batch level token width"],
        text: Float[Tensor, "2 embed_dim"],
        leave_out: Int[Tensor, "batch"] | None = None,
    ) -> ModelOutput:
        """Score images that are encoded already: the map, and its maximum; see ``ClipModel``."""
        del leave_out
        abnormal = self.maps(encoded, text)[:, 0]
        return ModelOutput(abnormal.amax(dim=(-2, -1)), abnormal)

    def cosines(
        self,
        encoded: Float[Tensor, "batch level token width"],
        text: Float[Tensor, "2 embed_dim"],
    ) -> Float[Tensor, "level batch patch 2"]:
        """Cosine of each adapted patch with both texts."""
        return torch.stack([align(one, text, scale=1.0) for one in self._adapted(encoded)])

    def level_maps(
        self,
        encoded: Float[Tensor, "batch level token width"],
        text: Float[Tensor, "2 embed_dim"],
    ) -> dict[str, Float[Tensor, "level batch side side"]]:
        """What the heat map would be if there were one level: ``text``."""
        logits = self.cosines(encoded, text) / self.temperature
        return {"text": torch.stack([abnormal_map(one, self.clip.size)[:, 0] for one in logits])}

    def embeddings(
        self,
        encoded: Float[Tensor, "batch level token width"],
        text: Float[Tensor, "2 embed_dim"],
    ) -> dict[str, Float[Tensor, "batch 1 width"]]:
        """The mean patch without adapters and with them."""
        del text
        return {
            "without adapters": mean_patch(self.clip.patches(encoded).transpose(0, 1)),
            "with adapters": mean_patch(torch.stack(self._adapted(encoded))),
        }

    def maps(
        self,
        encoded: Float[Tensor, "batch level token width"],
        text: Float[Tensor, "2 embed_dim"],
    ) -> Float[Tensor, "batch 1 side side"]:
        """Probability of abnormal at each pixel.

        The softmax of two comes after the mean over levels, as in the authors' code; eq. 2 has it
        at each level.
        """
        if self.softmax == "levels":
            return self.level_maps(encoded, text)["text"].mean(dim=0).unsqueeze(1)
        logits = self.cosines(encoded, text).mean(dim=0) / self.temperature
        return abnormal_map(logits, self.clip.size)

    def loss_terms(
        self,
        encoded: Float[Tensor, "batch level token width"],
        masks: Float[Tensor, "batch 1 side side"] | None,
        labels: Bool[Tensor, "batch"],
        text: Float[Tensor, "2 embed_dim"],
    ) -> LossTerms:
        """The terms of ``loss``; for the focal loss, a label below 1 counts as normal.

        Args:
            encoded: What ``encode`` gives.
            masks: Labels of the synthesis, in [0, 1]; empty for images that stayed normal.
            labels: Not used: the masks say all.
            text: Text features with their gradient.

        Raises:
            NotReadyError: There are no masks.
        """
        del labels
        if masks is None:
            msg = "MediCLIP learns from masks; without synthesis the data must have some"
            raise NotReadyError(msg)
        maps = self.maps(encoded, text)
        of_map, of_overlap = focal(maps, masks.floor()), dice(maps, masks)
        return LossTerms(of_map.new_zeros(0), of_map, of_overlap)

    def _adapted(self, encoded: Tensor) -> list[Float[Tensor, "batch patch embed_dim"]]:
        levels = zip(self.adapters, self.clip.patches(encoded).unbind(dim=1), strict=True)
        return [adapter(one) for adapter, one in levels]

    def load_released(self, path: str | Path) -> None:
        """Load adapters and prompts as the authors' training writes them.

        Args:
            path: Torch file with ``adapter_state_dict`` and ``prompt_state_dict``.

        Raises:
            WeightsError: The file is missing, is no such file, or does not fit.
        """
        parts = "adapter_state_dict and prompt_state_dict for these levels and this backbone"
        with released_by_authors(path, "MediCLIP", parts) as state:
            self.load_adapters(state["adapter_state_dict"])
            if self.prompts.learns:
                self.prompts.load_state_dict(state["prompt_state_dict"])

    def load_adapters(self, weights: dict[str, Tensor]) -> None:
        """Load 1 x 1 convolutions, which the authors use, as the linear layers that they are."""
        renamed = {name.replace("_adapter.0", ""): value for name, value in weights.items()}
        self.adapters.load_state_dict(
            {n: v.flatten(1) if n.endswith("weight") else v for n, v in renamed.items()}
        )
