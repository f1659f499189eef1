"""What every method's torch model has: a frozen tower, levels, text features, and its verbs."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from anomalib.data import InferenceBatch
from anomalib.models.components.base import DynamicBufferMixin
from jaxtyping import Bool, Float
from torch import Tensor

from anomalib_medclip.components.prompts import ensemble
from anomalib_medclip.components.towers import ImageTower, TextTower
from anomalib_medclip.errors import NotReadyError

PromptEncoder = Callable[[TextTower, str], Tensor]
"""The text tower and the object's name, to text features ``(2, embed_dim)``."""


class Terms(Protocol):
    """The terms of a loss, in whatever order a method has them."""

    def total(self) -> Float[Tensor, ""]:
        """All terms, each with weight 1."""


class ClipModel(DynamicBufferMixin):
    """``encode`` does what no training changes; ``score`` and ``loss`` go on from there.

    So frozen features are computed once, however often an image is seen. A method implements
    ``score(encoded, text)`` and ``loss_terms(encoded, masks, labels, text)``.

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
