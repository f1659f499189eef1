"""AnoDDPM's computation: images made noisy and brought back, and what has changed."""

from collections.abc import Iterable
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from anomalib_medclip.baselines.anoddpm.diffusion import Diffusion, Grey
from anomalib_medclip.baselines.anoddpm.network import Average
from anomalib_medclip.baselines.anoddpm.simplex import SimplexNoise, octaves
from anomalib_medclip.baselines.common.network_model import NetworkModel
from anomalib_medclip.baselines.common.pixels import Pixels
from anomalib_medclip.components.losses import LossTerms, without_masks
from anomalib_medclip.components.model import ModelOutput

ImageScore = Literal["mean", "map_max"]
"""Mean or maximum of the map."""

_GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue."""

_LARGEST = 4.0
"""Of squared differences of numbers in [-1, 1]."""

TRAINED_STEPS = 800
"""Steps that training draws from, of those there are."""


class AnoDDPMModel(NetworkModel):
    """A network that estimates noise, and the noise.

    Args:
        clip: How images enter.
        network: What trains.
        diffusion: How images become noisy.
        distance: Steps that images to score are made noisy by.
        image_score: What an image's score is.
        decay: Of the average of the network's weights.
        seed: Of the noise on images to score.
    """

    def __init__(
        self,
        clip: Pixels,
        network: nn.Module,
        diffusion: Diffusion,
        distance: int,
        image_score: ImageScore = "mean",
        decay: float = 0.9999,
        seed: int = 0,
    ) -> None:
        super().__init__(clip)
        self.network, self.diffusion = network, diffusion
        self.average = Average(network, decay)
        self.distance, self.image_score, self.seed = distance, image_score, seed
        self.untraceable = (
            f"AnoDDPM asks its network {distance} times, one after the other, and a graph would "
            "hold it as often; score with the checkpoint"
        )

    def encode(self, images: Float[Tensor, "batch 3 side side"]) -> Grey:
        """Grey levels in [-1, 1]."""
        weights = images.new_tensor(_GREY).view(1, 3, 1, 1)
        return 2 * (self.clip(images) * weights).sum(dim=1, keepdim=True) - 1

    def score(
        self, encoded: Grey, text: Tensor, leave_out: Int[Tensor, "batch"] | None = None
    ) -> ModelOutput:
        """Score images by what comes back otherwise than it was; see ``ClipModel``."""
        del text, leave_out
        back = self.brought_back(encoded, self.noises.to(encoded))
        heat = (encoded - back)[:, 0].square() / _LARGEST
        over = (1, 2)
        score = heat.mean(dim=over) if self.image_score == "mean" else heat.amax(dim=over)
        return ModelOutput(score, heat)

    @cached_property
    def noises(self) -> Float[Tensor, "distance 1 side side"]:
        """What is added to every image alike: at once, then after each step back but the last.

        So a score depends on the image alone. The authors draw anew each time.
        """
        steps = [self.distance - 1, *range(self.distance - 1, 0, -1)]
        drawn = [self._noise(SimplexNoise(self.seed + n), step) for n, step in enumerate(steps)]
        return torch.stack(drawn)

    def brought_back(self, images: Grey, noises: Iterable[Tensor]) -> Grey:
        """Images made noisy and brought back, with the averaged weights.

        Args:
            images: Grey levels in [-1, 1].
            noises: First what is added, then what each step back adds, until none is left; each for
                all images, ``(1, side, side)``, or one for each image.
        """
        added, last = iter(noises), self.distance - 1
        steps = torch.full((len(images),), last, device=images.device)
        stream = self.diffusion.noisy(images, steps, next(added))
        for step in range(last, -1, -1):
            steps = torch.full_like(steps, step)
            estimate = self.average.estimate(self.network, stream, steps)
            stream, variance, _ = self.diffusion.before(stream, steps, estimate)
            if step:
                stream = stream + variance.sqrt() * next(added)
        return stream

    def loss_terms(
        self,
        encoded: Grey,
        masks: Float[Tensor, "batch 1 side side"] | None,
        labels: Bool[Tensor, "batch"],
        text: Tensor,
    ) -> LossTerms:
        """Squared error of the estimate of some noise at some step; see ``ClipModel``."""
        del masks, labels, text
        most = min(TRAINED_STEPS, self.diffusion.steps)
        steps = torch.randint(most, (len(encoded),))
        seeds = torch.randint(2**62, (len(encoded),)).tolist()
        pairs = zip(seeds, steps.tolist(), strict=True)
        noise = torch.stack([self._noise(SimplexNoise(seed), step) for seed, step in pairs])
        steps, noise = steps.to(encoded.device), noise.to(encoded)
        return without_masks(self.errors(encoded, steps, noise).mean())

    def errors(
        self, images: Grey, steps: Int[Tensor, "batch"], noise: Grey
    ) -> Float[Tensor, "batch"]:
        """Mean squared error of the network's estimate of the noise, image by image."""
        found = self.network(self.diffusion.noisy(images, steps, noise), steps)
        return (found - noise).square().mean(dim=(1, 2, 3))

    def _noise(self, noise: SimplexNoise, step: int) -> Float[Tensor, "1 side side"]:
        return torch.from_numpy(octaves(noise, self.clip.size[0], step)).float()[None]
