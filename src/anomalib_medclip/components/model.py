"""What every method's torch model has: a frozen tower, levels, text features, and its verbs."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from anomalib.data import InferenceBatch
from anomalib.models.components.base import DynamicBufferMixin
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anomalib_medclip.clip.towers import ImageTower, TextTower
from anomalib_medclip.components.prompts import ensemble
from anomalib_medclip.errors import NotReadyError

PromptEncoder = Callable[[TextTower, str], Tensor]
"""The text tower and the object's name, to text features ``(2, embed_dim)``."""


class Terms(Protocol):
    """The terms of a loss, in whatever order a method has them."""

    def total(self) -> Float[Tensor, ""]:
        """All terms, each with weight 1."""


class NearestSupport(NamedTuple):
    """The support token that is most like each patch, level by level.

    Attributes:
        distance: One minus their cosine, in [0, 2].
        image: Number of the normal support image, counted through its copies: copy 0 of every
            normal image in the support's order, then copy 1 of every one, ...
        patch: Number of the patch in that image, row by row; -1 for its class token.
    """

    distance: Float[Tensor, "level batch patch"]
    image: Int[Tensor, "level batch patch"]
    patch: Int[Tensor, "level batch patch"]


class ClipModel(DynamicBufferMixin):
    """``encode`` does what no training changes; ``score`` and ``loss`` go on from there.

    So frozen features are computed once, however often an image is seen. A method implements
    ``score(encoded, text)`` and ``loss_terms(encoded, masks, labels, text)``. To be explained, it
    also implements whichever of ``level_maps``, ``nearest_support`` and ``embeddings`` it can; they
    change nothing, and by default there is nothing to show.

    Args:
        clip: The frozen image tower.
        levels: Blocks to read, counted from 1; by default those at the method's ``quarters``.
        prompts: Gives the text features; a ``torch.nn.Module`` where prompts learn.

    Attributes:
        quarters: Quarters of the tower's depth that the method reads.
        text: Features ``(2, embed_dim)`` of the normal and the abnormal prompt; empty until known.
        has_masks: Whether the lesions of the images learnt from are outlined.

    Raises:
        ValueError: The tower has no such levels.
    """

    quarters: Sequence[int] = (1, 2, 3, 4)
    text: Tensor

    def __init__(
        self,
        clip: ImageTower,
        levels: Sequence[int] | None = None,
        prompts: PromptEncoder = ensemble,
    ) -> None:
        super().__init__()
        self.prompts = prompts
        self.clip = clip
        by_default = [clip.depth * quarter // 4 for quarter in self.quarters]
        self.levels = clip.checked(by_default if levels is None else levels)
        self.has_masks = True
        self.register_buffer("text", torch.empty(0))

    def forward(self, images: Float[Tensor, "batch 3 side side"]) -> InferenceBatch:
        """Score images, each by itself.

        Args:
            images: RGB in [0, 1] at the tower's image size.

        Returns:
            ``pred_score`` of shape ``(batch,)`` and ``anomaly_map`` of shape ``(batch, side,
            side)``, both in [0, 1].

        Raises:
            NotReadyError: Something is missing that training or a checkpoint gives.
        """
        return self.score(self.encode(images))

    def encode(
        self, images: Float[Tensor, "batch 3 side side"]
    ) -> Float[Tensor, "batch level token width"]:
        """Frozen tokens of every level, un-normalised, the class token first."""
        return self.clip.taps(images, self.levels)

    @abstractmethod
    def score(
        self, encoded: Tensor, text: Float[Tensor, "2 embed_dim"] | None = None
    ) -> InferenceBatch:
        """Score images that are encoded already; ``text`` only where it is not the target's."""

    @abstractmethod
    def loss_terms(
        self,
        encoded: Tensor,
        masks: Float[Tensor, "batch 1 side side"] | None,
        labels: Bool[Tensor, "batch"],
        text: Float[Tensor, "2 embed_dim"] | None = None,
    ) -> Terms:
        """The terms of ``loss``."""

    def loss(
        self,
        encoded: Tensor,
        masks: Float[Tensor, "batch 1 side side"] | None,
        labels: Bool[Tensor, "batch"],
        text: Float[Tensor, "2 embed_dim"] | None = None,
    ) -> Float[Tensor, ""]:
        """Loss of a batch: all terms, each with weight 1.

        Args:
            encoded: What ``encode`` gives.
            masks: 1 on the lesion; ``None`` for a set with labels only.
            labels: True for abnormal.
            text: Text features of the batch's own set, where it is not the target, or with their
                gradient where prompts learn.
        """
        return self.loss_terms(encoded, masks, labels, text).total()

    @property
    def scored_levels(self) -> tuple[int, ...]:
        """Levels that scores are made of, counted from 1."""
        return self.levels

    def level_maps(self, encoded: Tensor) -> dict[str, Float[Tensor, "level batch side side"]]:
        """Heat map of each of ``scored_levels`` by itself, in [0, 1], by branch.

        Args:
            encoded: What ``encode`` gives.

        Returns:
            By the branch's name, such as ``text``, maps on the scale of ``score``'s own.
        """
        del encoded
        return {}

    def nearest_support(self, encoded: Tensor) -> NearestSupport | None:
        """The normal support patches that a few-shot score compares with; ``None`` without any."""
        del encoded
        return None

    def embeddings(self, encoded: Tensor) -> dict[str, Float[Tensor, "batch vector width"]]:
        """Vectors of each image to be plotted, by what they are, such as ``with adapters``.

        Args:
            encoded: What ``encode`` gives.

        Returns:
            One vector an image, or two: of what is normal, and of what is abnormal. Each entry has
            its own width.
        """
        del encoded
        return {}

    def text_or(self, given: Tensor | None) -> Float[Tensor, "2 embed_dim"]:
        """The text features that are given, else the target's.

        Raises:
            NotReadyError: There are none.
        """
        if given is not None:
            return given
        if self.text.numel() == 0:
            msg = "no text features: train with an object_name, or load a checkpoint"
            raise NotReadyError(msg)
        return self.text


def side_by_side(
    tokens: Float[Tensor, "level batch vector width"],
) -> Float[Tensor, "batch vector all_levels"]:
    """One vector of all levels, each of length one, as cosines see them."""
    return F.normalize(tokens, dim=-1).movedim(0, -2).flatten(-2)


def mean_patch(
    patches: Float[Tensor, "level batch patch width"],
) -> Float[Tensor, "batch 1 all_levels"]:
    """An image in one vector: its mean patch token of each level, levels side by side."""
    return side_by_side(F.normalize(patches, dim=-1).mean(dim=2, keepdim=True))
