"""MVFA's computation: images to heat maps, and the loss that trains the adapters."""

import logging
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from anomalib.data import InferenceBatch
from anomalib.models.components.base import DynamicBufferMixin
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from anomalib_medclip.components.anomaly_map import align, to_map, unit_interval
from anomalib_medclip.components.augmentation import ELEVEN_FOLD, all_copies
from anomalib_medclip.components.clip import ImageTower
from anomalib_medclip.components.losses import dice, focal
from anomalib_medclip.components.memory_bank import MemoryBank
from anomalib_medclip.errors import NotReadyError
from anomalib_medclip.models.mvfa.adapters import Adapters
from anomalib_medclip.models.mvfa.fusion import Branches, Fusion

logger = logging.getLogger(__name__)


class Adapted(NamedTuple):
    """What the adapted tower gives: tokens per level and branch, and the stream after the last.

    Tokens are ``(level, batch, token, embed_dim)``, un-normalised, the class token first.
    """

    segment: Float[Tensor, "level batch token embed_dim"]
    detect: Float[Tensor, "level batch token embed_dim"]
    stream: Float[Tensor, "batch token width"]


class LossTerms(NamedTuple):
    """Loss of each level (eq. 3); focal and dice are empty for images without masks."""

    detection: Float[Tensor, "level"]
    focal: Float[Tensor, "mask_level"]
    dice: Float[Tensor, "mask_level"]

    def total(self) -> Float[Tensor, ""]:
        """All terms of all levels, each with weight 1."""
        return torch.cat(self).sum()


class MVFAModel(DynamicBufferMixin):
    """Adapters on a frozen image tower, text features, and a memory bank of normal tokens.

    Args:
        clip: The frozen image tower.
        levels: Blocks with adapters, counted from 1; by default the four quarters of the tower.
        few_shot: Compare with support images as well as with text.
        bank_dtype: Precision of the memory bank's rows.
        seed: Seed of the adapters' initial weights.
    """

    text: Tensor

    def __init__(
        self,
        clip: ImageTower,
        levels: Sequence[int] | None = None,
        few_shot: bool = True,
        bank_dtype: torch.dtype = torch.float16,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.clip = clip
        self.levels = _checked_levels(levels, clip.depth)
        self.few_shot = few_shot
        self.has_masks = True
        self.adapters = Adapters(len(self.levels), clip.width, clip.embed_dim, seed)
        self.memory_bank = MemoryBank(bank_dtype)
        self.fusion = Fusion()
        self.register_buffer("text", torch.empty(0))

    def forward(
        self,
        images: Float[Tensor, "batch 3 side side"],
        text: Float[Tensor, "2 embed_dim"] | None = None,
        leave_out: Int[Tensor, "batch"] | None = None,
    ) -> InferenceBatch:
        """Score images, each by itself.

        Args:
            images: RGB in [0, 1] at the tower's image size.
            text: Text features of the images' own set, where it is not the target.
            leave_out: See ``MemoryBank.distance``.

        Returns:
            ``pred_score`` of shape ``(batch,)`` and ``anomaly_map`` of shape ``(batch, side,
            side)``, both in [0, 1].

        Raises:
            NotReadyError: There are no text features or, few-shot, no memory bank.
        """
        if self.few_shot:
            score, fused = self.fusion(self.branches(images, leave_out), self.has_masks)
            return InferenceBatch(unit_interval(score), anomaly_map=unit_interval(fused))
        adapted = self.adapted_tokens(images)
        tokens = adapted.segment if self.has_masks else adapted.detect
        return InferenceBatch(
            pred_score=self.text_score(adapted.detect, text),
            anomaly_map=self.text_map(tokens, _size(images), text),
        )

    def adapted_tokens(self, images: Float[Tensor, "batch 3 side side"]) -> Adapted:
        """Tokens of every level; each level's adapters feed the next block (eq. 2)."""
        segment, detect = [], []

        def adapt(level: int, stream: Tensor) -> Tensor:
            to_segment, to_detect, adapted = self.adapters(level, stream)
            segment.append(to_segment)
            detect.append(to_detect)
            return adapted

        stream = self.clip(images, self.levels, after_block=adapt)
        return Adapted(torch.stack(segment), torch.stack(detect), stream)

    def text_map(
        self,
        tokens: Float[Tensor, "level batch token embed_dim"],
        size: tuple[int, int],
        text: Float[Tensor, "2 embed_dim"] | None = None,
    ) -> Float[Tensor, "batch height width"]:
        """Probability of abnormal at each pixel, mean over levels (eq. 4)."""
        maps = [self._abnormal_map(t, size, text)[:, 0] for t in tokens]
        return torch.stack(maps).mean(dim=0)

    def text_score(
        self,
        tokens: Float[Tensor, "level batch token embed_dim"],
        text: Float[Tensor, "2 embed_dim"] | None = None,
    ) -> Float[Tensor, "batch"]:
        """Probability of abnormal, mean over patches and levels.

        Paper eq. 4 takes the maximum over patches; the authors' code takes the mean.
        """
        return torch.stack([self._patch_probability(t, text) for t in tokens]).mean(dim=0)

    def memory_map(
        self,
        tokens: Float[Tensor, "level batch token embed_dim"],
        size: tuple[int, int],
        leave_out: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch height width"]:
        """Distance of each pixel to the nearest normal token, mean over levels (eq. 5)."""
        distances = [
            self.memory_bank.distance(t[:, 1:], level, leave_out) for level, t in enumerate(tokens)
        ]
        return torch.stack([to_map(d.unsqueeze(-1), size)[:, 0] for d in distances]).mean(dim=0)

    def branches(
        self,
        images: Float[Tensor, "batch 3 side side"],
        leave_out: Int[Tensor, "batch"] | None = None,
    ) -> Branches:
        """Both branches, from the segmentation adapters where there are masks to train them."""
        adapted = self.adapted_tokens(images)
        tokens = adapted.segment if self.has_masks else adapted.detect
        memory_map = self.memory_map(tokens, _size(images), leave_out)
        return Branches(
            text_map=self.text_map(tokens, _size(images)),
            memory_map=memory_map,
            text_score=self.text_score(adapted.detect),
            # Pixels, not patches: enlarging with aligned corners gives border patches less weight.
            memory_score=memory_map.mean(dim=(-2, -1)),
        )

    def loss(
        self,
        images: Float[Tensor, "batch 3 side side"],
        masks: Float[Tensor, "batch 1 side side"] | None,
        labels: Bool[Tensor, "batch"],
        text: Float[Tensor, "2 embed_dim"] | None = None,
    ) -> Float[Tensor, ""]:
        """Loss of a batch, all levels summed (eq. 3).

        Args:
            images: RGB in [0, 1].
            masks: 1 on the lesion; ``None`` for a set with labels only.
            labels: True for abnormal.
            text: Text features of the batch's own set, where it is not the target.
        """
        return self.loss_terms(images, masks, labels, text).total()

    def loss_terms(
        self,
        images: Float[Tensor, "batch 3 side side"],
        masks: Float[Tensor, "batch 1 side side"] | None,
        labels: Bool[Tensor, "batch"],
        text: Float[Tensor, "2 embed_dim"] | None = None,
    ) -> LossTerms:
        """The terms of ``loss``, level by level."""
        adapted = self.adapted_tokens(images)
        # As the code: the sigmoid of this loss comes on top of a probability.
        detection = [
            F.binary_cross_entropy_with_logits(self._patch_probability(t, text), labels.float())
            for t in adapted.detect
        ]
        if masks is None:
            nothing = images.new_zeros(0)
            return LossTerms(torch.stack(detection), nothing, nothing)
        maps = [self._abnormal_map(t, _size(images), text) for t in adapted.segment]
        return LossTerms(
            torch.stack(detection),
            torch.stack([focal(m, masks) for m in maps]),
            torch.stack([dice(m, masks) for m in maps]),
        )

    def idle_parameters(self, has_masks: bool) -> Iterable[nn.Parameter]:
        """Parameters that a batch does not train: without masks, the segmentation adapters.

        They keep their initial values in a run without any masks, and still feed the stream.
        """
        return () if has_masks else self.adapters.seg_adapters.parameters()

    @torch.no_grad()
    def fit_support(
        self,
        images: Float[Tensor, "image 3 side side"],
        labels: Bool[Tensor, "image"],
        owners: Int[Tensor, "image"],
    ) -> None:
        """Fill the memory bank from the normal support images and set the branches' scales.

        The scales come from all support images, each scored against a bank without its owner.

        Args:
            images: Un-augmented support images.
            labels: True for abnormal.
            owners: Number of each image's patient or, where unknown, of the image.
        """
        copies = all_copies(images[~labels], ELEVEN_FOLD)
        tokens = torch.cat([self.bank_tokens(part) for part in torch.split(copies, 8)], dim=1)
        self.memory_bank.fill(tokens, owners[~labels].repeat(len(ELEVEN_FOLD)))
        scored = torch.tensor([self.memory_bank.has_others(int(o)) for o in owners])
        if not scored.all():
            logger.warning("one normal patient only: its own images cannot set the scales")
        parts = [torch.split(part, 8) for part in (images[scored], owners[scored])]
        self.set_scales(zip(*parts, strict=True))

    def bank_tokens(
        self, images: Float[Tensor, "image 3 side side"]
    ) -> Float[Tensor, "level image token embed_dim"]:
        """What the memory bank keeps of images: all tokens, the class token included."""
        adapted = self.adapted_tokens(images)
        return adapted.segment if self.has_masks else adapted.detect

    @torch.no_grad()
    def set_scales(self, batches: Iterable[tuple[Tensor, Tensor | None]]) -> None:
        """Bring the two branches to one scale on these images.

        Args:
            batches: Images ``(batch, 3, side, side)``, each with its ``leave_out`` or ``None``.
        """
        self.fusion.fit(self.branches(images, leave_out) for images, leave_out in batches)

    def _abnormal_map(
        self, tokens: Tensor, size: tuple[int, int], text: Tensor | None = None
    ) -> Tensor:
        """Probability of abnormal at each pixel of one level, ``(batch, 1, height, width)``.

        Enlarged before the softmax, as in the authors' code; a softmax of two is the sigmoid of
        their difference, so one channel is enough.
        """
        normal, abnormal = align(tokens[:, 1:], self._text(text)).split(1, dim=-1)
        return to_map(abnormal - normal, size).sigmoid()

    def _patch_probability(self, tokens: Tensor, text: Tensor | None = None) -> Tensor:
        return align(tokens[:, 1:], self._text(text)).softmax(dim=-1)[..., 1].mean(dim=1)

    def _text(self, text: Tensor | None) -> Tensor:
        if text is not None:
            return text
        if self.text.numel() == 0:
            msg = "no text features: train with an object_name, or load a checkpoint"
            raise NotReadyError(msg)
        return self.text


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]


def _checked_levels(levels: Sequence[int] | None, depth: int) -> tuple[int, ...]:
    if levels is None:
        levels = [depth * quarter // 4 for quarter in (1, 2, 3, 4)]
    if not levels or list(levels) != sorted(set(levels)) or levels[0] < 1 or levels[-1] > depth:
        msg = f"levels {list(levels)} do not ascend from 1 to at most {depth}, the tower's depth"
        raise ValueError(msg)
    return tuple(levels)
