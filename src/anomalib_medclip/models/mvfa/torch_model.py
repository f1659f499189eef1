"""MVFA's computation: images to heat maps, and the loss that trains the adapters."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from anomalib_medclip.clip.towers import ImageTower
from anomalib_medclip.components.anomaly_map import text_maps, text_scores, to_map, unit_interval
from anomalib_medclip.components.faiss_index import IndexOptions
from anomalib_medclip.components.losses import LossTerms, cross_entropy, with_masks, without_masks
from anomalib_medclip.components.memory_bank import MemoryBank
from anomalib_medclip.components.model import ClipModel, ModelOutput, NearestSupport, mean_patch
from anomalib_medclip.components.prompts import PromptEncoder
from anomalib_medclip.models.mvfa.adapters import Adapters
from anomalib_medclip.models.mvfa.fusion import Branches, Fusion
from anomalib_medclip.models.mvfa.variant import Variant, positions

logger = logging.getLogger(__name__)


class Adapted(NamedTuple):
    """What the adapted tower gives: tokens per level and branch, and the stream after the last.

    Tokens are ``(level, batch, token, embed_dim)``, un-normalised, the class token, if any, first.
    """

    segment: Float[Tensor, "level batch token embed_dim"]
    detect: Float[Tensor, "level batch token embed_dim"]
    stream: Float[Tensor, "batch token width"]


class MVFAModel(ClipModel):
    """Adapters on a frozen image tower, text features, and a memory bank of normal tokens.

    Args:
        clip: The frozen image tower.
        levels: Blocks with adapters, counted from 1; by default the four quarters of the tower.
        scored_levels: Those of them that scores are made of; by default all.
        feed_back: Let adapters change the stream; without, they are projectors.
        bank_dtype: Precision of the memory bank's rows.
        seed: Seed of the adapters' initial weights.
        index_options: How GPUs hold the indexes that search the memory bank.
        prompts: What patches are compared with; by default the paper's sentences.
        variant: Where the paper and the code part.
    """

    has_memory: ClassVar[bool] = True
    part_names: ClassVar[Mapping[str, str]] = {"fusion": "maps"}
    memory_bank: MemoryBank

    def __init__(
        self,
        clip: ImageTower,
        levels: Sequence[int] | None = None,
        bank_dtype: torch.dtype = torch.float16,
        seed: int = 0,
        scored_levels: Sequence[int] | None = None,
        feed_back: bool = True,
        index_options: IndexOptions = IndexOptions(),
        prompts: PromptEncoder | None = None,
        variant: Variant = Variant(),
    ) -> None:
        super().__init__(clip, levels, prompts)
        self.scored = positions(
            self.levels if scored_levels is None else scored_levels, self.levels
        )
        self.variant = variant
        sizes = len(self.levels), clip.width, clip.embed_dim
        self.adapters = Adapters(*sizes, seed, feed_back, variant)
        self.memory_bank = MemoryBank(bank_dtype, index_options)
        self.fusion = Fusion(variant.memory_weight)

    def encode(
        self, images: Float[Tensor, "batch 3 side side"]
    ) -> Float[Tensor, "batch token width"]:
        """The stream after the first level, before any adapter: what no training changes."""
        return self.clip.taps(images, self.levels[:1])[:, 0]

    def middle_tokens(
        self, stream: Float[Tensor, "batch token width"]
    ) -> Float[Tensor, "batch token width"]:
        """Frozen tokens from the middle of the tower, without adapters."""
        start = self.levels[0]
        return self.clip.go_on(stream, start, max(start, self.clip.depth // 2))

    def score(
        self,
        stream: Float[Tensor, "batch token width"],
        text: Float[Tensor, "2 embed_dim"],
        leave_out: Int[Tensor, "batch"] | None = None,
    ) -> ModelOutput:
        """Score images that are encoded already; see ``ClipModel``.

        Raises:
            NotReadyError: Few-shot, there is no memory bank, or nothing in it to compare with.
        """
        if self.few_shot:
            branches = self.branches(stream, text, leave_out)
            score, fused = self.fusion(branches, self.variant.scores_by_map(self.has_masks))
            return ModelOutput(unit_interval(score), unit_interval(fused))
        adapted = self.scored_tokens(stream)
        tokens = adapted.segment if self.has_masks else adapted.detect
        return ModelOutput(self.text_score(adapted.detect, text), self.text_map(tokens, text))

    def adapted_tokens(self, stream: Float[Tensor, "batch token width"]) -> Adapted:
        """Tokens of every level; each level's adapters feed the next block (eq. 2)."""
        segment, detect = [], []

        def adapt(level: int, stream: Tensor) -> Tensor:
            to_segment, to_detect, adapted = self.adapters(level, stream)
            segment.append(to_segment)
            detect.append(to_detect)
            return adapted

        stream = self.clip.resume(stream, self.levels, after_block=adapt)
        return Adapted(torch.stack(segment), torch.stack(detect), stream)

    def scored_tokens(self, stream: Float[Tensor, "batch token width"]) -> Adapted:
        """Tokens of the levels that scores are made of."""
        segment, detect, stream = self.adapted_tokens(stream)
        return Adapted(segment[self.scored], detect[self.scored], stream)

    def text_map(
        self,
        tokens: Float[Tensor, "level batch token embed_dim"],
        text: Float[Tensor, "2 embed_dim"],
    ) -> Float[Tensor, "batch height width"]:
        """Probability of abnormal at each pixel, mean over levels (eq. 4)."""
        return self._text_maps(tokens, text).mean(dim=0)

    def text_score(
        self,
        tokens: Float[Tensor, "level batch token embed_dim"],
        text: Float[Tensor, "2 embed_dim"],
    ) -> Float[Tensor, "batch"]:
        """Probability of abnormal, mean over levels of what patches come to.

        Paper eq. 4 takes the maximum over patches; the authors' code takes the mean.
        """
        scores = text_scores(self.clip.patches(tokens), text, self.variant.patch_score)
        return torch.stack(scores).mean(dim=0)

    def memory_map(
        self,
        tokens: Float[Tensor, "level batch token embed_dim"],
        leave_out: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch height width"]:
        """Distance of each pixel to the nearest normal token, mean over levels (eq. 5)."""
        return self._memory_maps(tokens, leave_out).mean(dim=0)

    @property
    def scored_levels(self) -> tuple[int, ...]:
        """Levels that scores are made of, counted from 1."""
        return tuple(self.levels[position] for position in self.scored)

    def level_maps(
        self, stream: Float[Tensor, "batch token width"], text: Float[Tensor, "2 embed_dim"]
    ) -> dict[str, Float[Tensor, "level batch side side"]]:
        """Each level's ``text`` and, few-shot, ``memory`` map, scaled as their means are."""
        tokens = self.bank_tokens(stream)
        if not self.few_shot:
            return {"text": self._text_maps(tokens, text)}
        branches = {"text": self._text_maps(tokens, text), "memory": self._memory_maps(tokens)}
        return {
            name: unit_interval(self.fusion.scaled(number, maps))
            for number, (name, maps) in enumerate(branches.items())
        }

    def nearest_support(self, stream: Float[Tensor, "batch token width"]) -> NearestSupport | None:
        """The rows of the memory bank behind each distance; ``None`` zero-shot."""
        if not self.few_shot:
            return None
        tokens = self.bank_tokens(stream)
        found = [self.memory_bank.nearest(t, n) for n, t in enumerate(self.clip.patches(tokens))]
        distances, rows = (torch.stack(part) for part in zip(*found, strict=True))
        length = tokens.shape[2]  # rows are of whole images, what is no patch first
        patch = (rows % length - self.clip.prefix).clamp(min=-1)
        return NearestSupport(distances, rows // length, patch)

    def embeddings(
        self, stream: Float[Tensor, "batch token width"], text: Float[Tensor, "2 embed_dim"]
    ) -> dict[str, Float[Tensor, "batch 1 width"]]:
        """The mean patch of the tower as it was, and of the detection adapters."""
        del text
        frozen: list[Tensor] = []

        def keep(_level: int, stream: Tensor) -> Tensor:
            frozen.append(stream)
            return stream

        self.clip.resume(stream, self.levels, after_block=keep)
        without = torch.stack(frozen)[self.scored]
        adapted = self.scored_tokens(stream).detect
        return {
            "without adapters": mean_patch(self.clip.patches(without)),
            "with adapters": mean_patch(self.clip.patches(adapted)),
        }

    def branches(
        self,
        stream: Float[Tensor, "batch token width"],
        text: Float[Tensor, "2 embed_dim"],
        leave_out: Int[Tensor, "batch"] | None = None,
    ) -> Branches:
        """Both branches, from the segmentation adapters where there are masks to train them."""
        adapted = self.scored_tokens(stream)
        tokens = adapted.segment if self.has_masks else adapted.detect
        distances = self._distances(tokens, leave_out)
        memory_map = self._enlarged(distances).mean(dim=0)
        # Pixels, not patches: enlarging with aligned corners gives border patches less weight.
        memory_score = memory_map.mean(dim=(-2, -1))
        if self.variant.patch_score == "max":  # eq. 5
            memory_score = torch.stack(distances).amax(dim=-1).mean(dim=0)
        return Branches(
            text_map=self.text_map(tokens, text),
            memory_map=memory_map,
            text_score=self.text_score(adapted.detect, text),
            memory_score=memory_score,
        )

    def loss_terms(
        self,
        stream: Float[Tensor, "batch token width"],
        masks: Float[Tensor, "batch 1 side side"] | None,
        labels: Bool[Tensor, "batch"],
        text: Float[Tensor, "2 embed_dim"],
    ) -> LossTerms:
        """The terms of ``loss``, level by level."""
        adapted = self.adapted_tokens(stream)
        chosen = self.variant
        scores = text_scores(self.clip.patches(adapted.detect), text, chosen.patch_score)
        detection = torch.stack([cross_entropy(one, labels, chosen.bce) for one in scores])
        if masks is None:
            return without_masks(detection)
        maps = text_maps(self.clip.patches(adapted.segment), text, self.clip.size)
        return with_masks(detection, maps, masks)

    def idle_parameters(self, has_masks: bool) -> Iterable[nn.Parameter]:
        """Parameters that a batch does not train: without masks, the segmentation adapters.

        They keep their initial values in a run without any masks, and still feed the stream.
        """
        return () if has_masks else self.adapters.seg_adapters.parameters()

    @torch.no_grad()
    def fit_support(
        self,
        support: Float[Tensor, "image token width"],
        copies: Float[Tensor, "copy normal token width"],
        labels: Bool[Tensor, "image"],
        owners: Int[Tensor, "image"],
    ) -> None:
        """Fill the memory bank from the normal support images and set the branches' scales.

        The scales come from all support images, each scored against a bank without its owner.
        """
        tokens = [self.bank_tokens(part) for part in copies.flatten(0, 1).split(8)]
        self.memory_bank.fill(torch.cat(tokens, dim=1), owners[~labels].repeat(len(copies)))
        scored = torch.tensor([self.memory_bank.has_others(int(o)) for o in owners])
        if not scored.all():
            logger.warning("one normal patient only: its own images cannot set the scales")
        parts = [torch.split(part, 8) for part in (support[scored], owners[scored])]
        self.set_scales(zip(*parts, strict=True))

    def bank_tokens(
        self, stream: Float[Tensor, "image token width"]
    ) -> Float[Tensor, "level image token embed_dim"]:
        """What the memory bank keeps of images: all tokens, the class token included."""
        adapted = self.scored_tokens(stream)
        return adapted.segment if self.has_masks else adapted.detect

    @torch.no_grad()
    def set_scales(self, batches: Iterable[tuple[Tensor, Tensor | None]]) -> None:
        """Bring the two branches to one scale on these images of the target.

        Args:
            batches: What ``encode`` gives of images, each with its ``leave_out`` or ``None``.
        """
        text = self.known_text()
        self.fusion.fit(self.branches(stream, text, leave_out) for stream, leave_out in batches)

    def load_released(self, path: str | Path) -> None:
        """Load adapters as the authors release them; see ``Adapters.load_released``."""
        self.adapters.load_released(path)

    def _text_maps(self, tokens: Tensor, text: Tensor) -> Float[Tensor, "level batch side side"]:
        return torch.stack(text_maps(self.clip.patches(tokens), text, self.clip.size))[:, :, 0]

    def _distances(
        self, tokens: Tensor, leave_out: Tensor | None = None
    ) -> list[Float[Tensor, "batch patch"]]:
        bank, patches = self.memory_bank, self.clip.patches(tokens)
        return [bank.distance(one, level, leave_out) for level, one in enumerate(patches)]

    def _memory_maps(
        self, tokens: Tensor, leave_out: Tensor | None = None
    ) -> Float[Tensor, "level batch side side"]:
        return self._enlarged(self._distances(tokens, leave_out))

    def _enlarged(
        self, distances: list[Float[Tensor, "batch patch"]]
    ) -> Float[Tensor, "level batch side side"]:
        return torch.stack([to_map(d.unsqueeze(-1), self.clip.size)[:, 0] for d in distances])
