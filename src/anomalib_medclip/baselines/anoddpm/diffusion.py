"""How AnoDDPM makes images noisy, step by step, and how a network's estimate leads back."""

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

Schedule = Literal["linear", "cosine"]
"""How the noise grows."""

FEWEST = {"linear": 21, "cosine": 2}
"""Steps at least: of fewer, one would leave nothing of an image, or none comes before another."""

Grey = Float[Tensor, "batch 1 side side"]
"""Grey levels in [-1, 1], and beyond where noise is added."""


class Variances(NamedTuple):
    """What each step does, in float64.

    Attributes:
        betas: Variance that it adds.
        kept: Part of an image's own variance that is left after it.
        posterior: Variance of the step before, of an image that is known.
        of_image: Part that the image has in the mean of the step before.
        of_noisy: Part that the noisy image has in it.
    """

    betas: Float[Tensor, "step"]
    kept: Float[Tensor, "step"]
    posterior: Float[Tensor, "step"]
    of_image: Float[Tensor, "step"]
    of_noisy: Float[Tensor, "step"]

    @classmethod
    def of(cls, steps: int, schedule: Schedule) -> "Variances":
        """Those of a number of steps from an image to noise."""
        betas = _betas(steps, schedule)
        kept = (1 - betas).cumprod(dim=0)
        before = torch.cat([kept.new_ones(1), kept[:-1]])
        return cls(
            betas,
            kept,
            betas * (1 - before) / (1 - kept),
            betas * before.sqrt() / (1 - kept),
            (1 - before) * (1 - betas).sqrt() / (1 - kept),
        )


class StepBefore(NamedTuple):
    """What is known of images one step less noisy.

    Attributes:
        mean: Of them.
        variance: Likewise.
        image: Estimate of the images without noise, in [-1, 1].
    """

    mean: Grey
    variance: Float[Tensor, "batch 1 1 1"]
    image: Grey


class Diffusion(nn.Module):
    """Noise in and out.

    Args:
        steps: From an image to noise.
        schedule: How the noise grows.
    """

    def __init__(self, steps: int = 1000, schedule: Schedule = "linear") -> None:
        super().__init__()
        self.steps, known = steps, Variances.of(steps, schedule)
        named = {
            "image_part": known.kept.sqrt(),
            "noise_part": (1 - known.kept).sqrt(),
            "of_image": known.of_image,
            "of_noisy": known.of_noisy,
            # As the code; of the last step it would be 0, and is of no use.
            "variance": torch.cat([known.posterior[1:2], known.betas[1:]]),
        }
        for name, values in named.items():
            self.register_buffer(name, values.float(), persistent=False)

    def noisy(self, images: Grey, steps: Int[Tensor, "batch"], noise: Grey) -> Grey:
        """Images after some steps, in one jump."""
        return self._at("image_part", steps) * images + self._at("noise_part", steps) * noise

    def before(self, noisy: Grey, steps: Int[Tensor, "batch"], noise: Grey) -> StepBefore:
        """What is known of the step before.

        Args:
            noisy: Images after some steps.
            steps: How many, counted from 0.
            noise: Estimate of what was added to the images in all.
        """
        found = (noisy - self._at("noise_part", steps) * noise) / self._at("image_part", steps)
        image = found.clamp(-1, 1)
        mean = self._at("of_image", steps) * image + self._at("of_noisy", steps) * noisy
        return StepBefore(mean, self._at("variance", steps), image)

    def _at(self, name: str, steps: Int[Tensor, "batch"]) -> Float[Tensor, "batch 1 1 1"]:
        return self.get_buffer(name)[steps][:, None, None, None]


def _betas(steps: int, schedule: Schedule) -> Float[Tensor, "step"]:
    if schedule == "linear":
        scale = 1000 / steps
        return torch.linspace(scale * 1e-4, scale * 0.02, steps, dtype=torch.float64)
    places = torch.arange(steps + 1, dtype=torch.float64) / steps
    left = ((places + 0.008) / 1.008 * math.pi / 2).cos() ** 2
    return (1 - left[1:] / left[:-1]).clamp(max=0.999)
