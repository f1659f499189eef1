"""CutPaste's computation: features of a network to distances from a Gaussian, and its loss."""

from itertools import pairwise
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from anomalib_medclip.baselines.common.network_model import NetworkModel
from anomalib_medclip.baselines.common.pixels import Pixels
from anomalib_medclip.baselines.cutpaste.density import Gaussian
from anomalib_medclip.components.anomaly_map import to_map
from anomalib_medclip.components.losses import LossTerms, without_masks
from anomalib_medclip.components.model import ModelOutput

HIDDEN, LAST = 512, 128
"""Widths of the head's layers."""


class CutPasteModel(NetworkModel):
    """A network that tells pasted images from normal ones, and a Gaussian of its features.

    Args:
        clip: Where images enter.
        trunk: A network of timm's without its classifier.
        classes: Normal, and kinds of pasted images.
        head_layers: Layers of ``HIDDEN`` numbers before the last.
        seed: Seed of the head's initial weights.
    """

    has_memory: ClassVar[bool] = True

    def __init__(
        self,
        clip: Pixels,
        trunk: Any,  # noqa: ANN401 - timm's
        classes: int = 3,
        head_layers: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(clip)
        self.trunk, self.classes = trunk, classes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            widths = (trunk.num_features, *[HIDDEN] * head_layers, LAST)
            layers = [_layer(*pair) for pair in pairwise(widths)]
            self.head = nn.Sequential(*(part for layer in layers for part in layer))
            self.out = nn.Linear(LAST, classes)
        self.of_images, self.of_positions = Gaussian(), Gaussian()

    def score(
        self,
        encoded: Float[Tensor, "batch 3 side side"],
        text: Tensor,
        leave_out: Int[Tensor, "batch"] | None = None,
    ) -> ModelOutput:
        """How far images and positions are from normal ones; see ``ClipModel``.

        Raises:
            NotReadyError: There are no normal images to compare with.
        """
        del text
        images, positions = self.features(encoded)
        score = self.of_images.distance(images, leave_out)[:, 0]
        patches = self.of_positions.distance(positions, leave_out)
        found = to_map(self._in_one(patches).unsqueeze(-1), self.clip.size, corners=False)
        return ModelOutput(self._in_one(score), found[:, 0])

    def features(
        self, encoded: Float[Tensor, "batch 3 side side"]
    ) -> tuple[Float[Tensor, "batch 1 width"], Float[Tensor, "batch position width"]]:
        """Of images and of the positions of the last stage, whose mean an image's are."""
        positions = self.trunk.forward_features(encoded).flatten(2).transpose(1, 2)
        return positions.mean(dim=1, keepdim=True), positions

    def logits(self, encoded: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch class"]:
        """Of the classes: normal, and each kind of pasted images."""
        found: Tensor = self.out(self.head(self.features(encoded)[0][:, 0]))
        return found

    def loss_terms(
        self,
        encoded: Float[Tensor, "batch 3 side side"],
        masks: Float[Tensor, "batch 1 side side"] | None,
        labels: Bool[Tensor, "batch"] | Int[Tensor, "batch"],
        text: Tensor,
    ) -> LossTerms:
        """Cross-entropy of the classes, whose numbers the labels are."""
        del masks, text
        return without_masks(F.cross_entropy(self.logits(encoded), labels.long()).view(1))

    @torch.no_grad()
    def fit_support(
        self,
        support: Float[Tensor, "image 3 side side"],
        copies: Float[Tensor, "copy normal 3 side side"],
        labels: Bool[Tensor, "image"],
        owners: Int[Tensor, "image"],
    ) -> None:
        """Take the Gaussians of the normal support images and of their positions."""
        del support
        with self.evaluated():  # their features, not those of a batch
            found = [self.features(image) for image in copies[0].split(1)]
        for gaussian, parts in zip(
            (self.of_images, self.of_positions), zip(*found, strict=True), strict=True
        ):
            gaussian.fill(torch.cat(parts), owners[~labels])

    def _in_one(self, distances: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Distances brought into [0, 1]; those of a Gaussian are about the root of its width."""
        return distances / (distances + self.trunk.num_features**0.5)


def _layer(before: int, after: int) -> tuple[nn.Module, ...]:
    return nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()
