"""SimpleNet's computation: frozen features to scores, and the loss of its two heads."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from anomalib_medclip.baselines.common.network_model import NetworkModel
from anomalib_medclip.baselines.common.trunk import Trunk
from anomalib_medclip.components.anomaly_map import to_map
from anomalib_medclip.components.losses import LossTerms, without_masks
from anomalib_medclip.components.model import ModelOutput
from anomalib_medclip.components.smoothing import GaussianSmoothing

PATCH = 3
"""Side of the neighbourhood in which the values of a position are taken together."""


class SimpleNetModel(NetworkModel):
    """An adaptor of frozen features, and a discriminator that is high on normal ones.

    Args:
        clip: The frozen network.
        layer_width: Values of a position and stage.
        width: Values of a position.
        hidden: Width of the discriminator's hidden layer.
        noise_std: Standard deviation of the noise that makes features abnormal.
        margin: How far scores are to be on their side of zero.
        sigma: Standard deviation of the Gaussian that smooths maps, in pixels.
        seed: Seed of the initial weights.
    """

    clip: Trunk

    def __init__(
        self,
        clip: Trunk,
        layer_width: int = 1536,
        width: int = 1536,
        hidden: int = 1024,
        noise_std: float = 0.015,
        margin: float = 0.5,
        sigma: float = 4.0,
        seed: int = 0,
    ) -> None:
        super().__init__(clip)
        self.layer_width, self.width = layer_width, width
        self.noise_std, self.margin = noise_std, margin
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.adaptor = nn.Linear(width, width)
            first, last = nn.Linear(width, hidden), nn.Linear(hidden, 1, bias=False)
            for layer in (self.adaptor, first, last):
                nn.init.xavier_normal_(layer.weight)
        norm, activation = nn.BatchNorm1d(hidden), nn.LeakyReLU(0.2)
        self.discriminator = nn.Sequential(first, norm, activation, last)
        self.smooth = GaussianSmoothing(clip.size[0], sigma)

    @torch.no_grad()
    def encode(
        self, images: Float[Tensor, "batch 3 side side"]
    ) -> Float[Tensor, "batch patch width"]:
        """Features of each position of the first stage's grid, row by row; see ``embedding``."""
        return embedding(self.clip.maps(images), self.layer_width, self.width)

    def middle_patches(
        self, encoded: Float[Tensor, "batch patch width"]
    ) -> Float[Tensor, "batch patch width"]:
        """The features; see ``ClipModel``."""
        return encoded

    def patch_scores(
        self, encoded: Float[Tensor, "batch patch width"]
    ) -> Float[Tensor, "batch patch"]:
        """How abnormal each position is: any number, around zero."""
        return -self._judged(self.adaptor(encoded).flatten(0, 1)).view(encoded.shape[:2])

    def raw_map(self, patches: Float[Tensor, "batch patch"]) -> Float[Tensor, "batch side side"]:
        """Scores of positions, enlarged and smoothed."""
        return self.smooth(to_map(patches.unsqueeze(-1), self.clip.size, corners=False)[:, 0])

    def score(
        self,
        encoded: Float[Tensor, "batch patch width"],
        text: Tensor,
        leave_out: Int[Tensor, "batch"] | None = None,
    ) -> ModelOutput:
        """The highest score of a position, before maps are smoothed; see ``ClipModel``."""
        del text, leave_out
        patches = self.patch_scores(encoded)
        return ModelOutput(patches.amax(dim=1).sigmoid(), self.raw_map(patches).sigmoid())

    def loss_terms(
        self,
        encoded: Float[Tensor, "batch patch width"],
        masks: Float[Tensor, "batch 1 side side"] | None,
        labels: Bool[Tensor, "batch"],
        text: Tensor,
    ) -> LossTerms:
        """Hinge loss of features and of the same with noise; all images are normal."""
        del masks, labels, text
        noise = self.noise_std * torch.randn_like(encoded)
        return without_masks(self.hinge(*self.judgements(encoded, noise)).view(1))

    def hinge(
        self, normal: Float[Tensor, "position"], noisy: Float[Tensor, "position"]
    ) -> Float[Tensor, ""]:
        """Loss of scores that are not ``margin`` above zero, or below it with noise."""
        return F.relu(self.margin - normal).mean() + F.relu(self.margin + noisy).mean()

    def judgements(
        self,
        encoded: Float[Tensor, "batch patch width"],
        noise: Float[Tensor, "batch patch width"],
    ) -> tuple[Float[Tensor, "position"], Float[Tensor, "position"]]:
        """What the discriminator says of adapted features, and of the same with noise.

        It is shown both at once, so that its batch norm is of both.
        """
        adapted = self.adaptor(encoded)
        both = torch.cat([adapted, adapted + noise]).flatten(0, 1)
        normal, noisy = self._judged(both).chunk(2)
        return normal, noisy

    def _judged(self, features: Float[Tensor, "position width"]) -> Float[Tensor, "position"]:
        found: Tensor = self.discriminator(features)
        return found[:, 0]


def embedding(
    maps: Sequence[Float[Tensor, "batch _ _ _"]], layer_width: int, width: int
) -> Float[Tensor, "batch patch width"]:
    """PatchCore's features of positions: values of a neighbourhood and of all stages, pooled.

    Args:
        maps: Of each stage, ``(batch, channel, height, width)``; the first has the most positions.
        layer_width: Values of a position and stage.
        width: Values of a position.
    """
    grid = maps[0].shape[-2:]
    stages = []
    for found in maps:
        values = F.unfold(found, PATCH, padding=PATCH // 2).unflatten(2, found.shape[-2:])
        if values.shape[-2:] != grid:
            values = F.interpolate(values, grid, mode="bilinear", align_corners=False)
        stages.append(F.adaptive_avg_pool1d(values.flatten(2).transpose(1, 2), layer_width))
    return F.adaptive_avg_pool1d(torch.cat(stages, dim=2), width)
