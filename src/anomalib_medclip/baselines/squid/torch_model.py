"""SQUID's computation: images made anew of memories of normal ones, and judged."""

from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anomalib_medclip.baselines.common.network_model import NetworkModel
from anomalib_medclip.baselines.common.owners import others
from anomalib_medclip.baselines.common.pixels import Pixels
from anomalib_medclip.baselines.squid.autoencoder import AutoEncoder, Made
from anomalib_medclip.baselines.squid.networks import Discriminator, in_grey
from anomalib_medclip.components.anomaly_map import unit_interval
from anomalib_medclip.components.losses import LossTerms, without_masks
from anomalib_medclip.components.model import ModelOutput
from anomalib_medclip.components.smoothing import GaussianSmoothing
from anomalib_medclip.errors import NotReadyError

RECONSTRUCTION, ADVERSARIAL, TEACHER = 10.0, 5e-3, 1e-2
"""Weights of the losses."""


class GeneratorLoss(NamedTuple):
    """Losses of the generator, weighed.

    Attributes:
        reconstruction: Of the images made anew.
        adversarial: Of what the discriminator says of them.
        teacher: Of the images that the teacher makes.
        distillation: Of the distance between both.
    """

    reconstruction: Float[Tensor, ""]
    adversarial: Float[Tensor, ""]
    teacher: Float[Tensor, ""]
    distillation: Float[Tensor, ""]


class SQUIDModel(NetworkModel):
    """A generator with memories of normal windows, and a discriminator.

    Args:
        clip: How images enter, which are not normalised.
        features: Channels of the generator's largest maps, an even number.
        slots: Of the memory of each window.
        part_slots: Of each memory in the decoder.
        distillation: Weight of the distance between the generator's decoder and its teacher's.
        sigma: Standard deviation of the Gaussian that smooths maps, in pixels; 0 for none.
        seed: Seed of the initial weights.

    Attributes:
        least_deviation: Of the logits of normal images; see ``standing``.
    """

    has_memory: ClassVar[bool] = True
    without_support = "give it normal images"
    least_deviation: float = 0.1
    logits: Tensor

    def __init__(
        self,
        clip: Pixels,
        features: int = 32,
        slots: int = 200,
        part_slots: int = 200,
        distillation: float = 1e-3,
        sigma: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(clip)
        self.distillation = distillation
        side, _ = clip.size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.generator = AutoEncoder(side, features, slots, part_slots)
            self.discriminator = Discriminator(side)
        self.smooth = GaussianSmoothing(side, sigma)
        self.register_buffer("logits", torch.empty(0))
        self._owners = torch.empty(0, dtype=torch.long)

    def score(
        self,
        encoded: Float[Tensor, "batch 3 side side"],
        text: Tensor,
        leave_out: Int[Tensor, "batch"] | None = None,
    ) -> ModelOutput:
        """How much less real than normal images an image made anew looks; see ``ClipModel``.

        The map is how far it is from the image itself.

        Raises:
            NotReadyError: No normal image was seen, or none but those to leave out.
        """
        del text
        grey = in_grey(encoded)
        made = self.generator(grey).images
        unlike = self.standing(self.discriminator(made), leave_out)
        return ModelOutput(unit_interval(-unlike, 0.0, 8.0), self.smooth((grey - made).abs()[:, 0]))

    def standing(
        self, logits: Float[Tensor, "batch"], leave_out: Int[Tensor, "batch"] | None = None
    ) -> Float[Tensor, "batch"]:
        """The discriminator's logits, from the mean of normal images in their deviations.

        A deviation counts as ``least_deviation`` at least: of few images it is chance, and would
        magnify rounding. That changes no rank.

        Args:
            logits: Of images.
            leave_out: See ``score``.

        Raises:
            NotReadyError: See ``score``.
        """
        if self.logits.numel() == 0:
            msg = "no normal image was seen: train with k_shot > 0, or load a checkpoint"
            raise NotReadyError(msg)
        if leave_out is None:
            return self._standard(logits, self.logits)
        pairs = zip(logits, others(self._owners, leave_out).to(self.logits.device), strict=True)
        return torch.stack([self._standard(logit, self.logits[seen]) for logit, seen in pairs])

    @torch.no_grad()
    def fit_support(
        self,
        support: Float[Tensor, "image 3 side side"],
        copies: Float[Tensor, "copy normal 3 side side"],
        labels: Bool[Tensor, "image"],
        owners: Int[Tensor, "image"],
    ) -> None:
        """Keep what the discriminator says of normal images made anew."""
        del copies
        with self.evaluated():
            parts = in_grey(support[~labels]).split(8)
            found = [self.discriminator(self.generator(one).images) for one in parts]
        self.logits, self._owners = torch.cat(found), owners[~labels].cpu()

    def loss_terms(
        self,
        encoded: Float[Tensor, "batch 3 side side"],
        masks: Float[Tensor, "batch 1 side side"] | None,
        labels: Bool[Tensor, "batch"],
        text: Tensor,
    ) -> LossTerms:
        """The generator's losses; all images are normal."""
        del masks, labels, text
        grey = in_grey(encoded)
        return without_masks(torch.stack(self.generator_loss(grey, self.generator(grey))))

    def generator_loss(
        self, images: Float[Tensor, "batch 1 side side"], made: Made
    ) -> GeneratorLoss:
        """Losses of the generator.

        Args:
            images: Grey.
            made: What it has made of them.
        """
        judged = self.discriminator(made.images)
        return GeneratorLoss(
            RECONSTRUCTION * F.mse_loss(made.images, images),
            ADVERSARIAL * _entropy(judged, real=True),
            TEACHER * F.mse_loss(made.by_teacher, images),
            self.distillation * made.distillation,
        )

    def discriminator_loss(
        self, images: Float[Tensor, "batch 1 side side"], made: Made
    ) -> Float[Tensor, ""]:
        """Loss of the discriminator.

        Args:
            images: Grey.
            made: What the generator has made of them; it takes no gradient here.
        """
        real, fake = self.discriminator(images), self.discriminator(made.images.detach())
        return ADVERSARIAL * (_entropy(real, real=True) + _entropy(fake, real=False))

    def _standard(self, logits: Tensor, normal: Tensor) -> Tensor:
        deviation = normal.std(correction=0).clamp(min=self.least_deviation)
        return (logits - normal.mean()) / deviation


def _entropy(logits: Float[Tensor, "batch"], *, real: bool) -> Float[Tensor, ""]:
    target = torch.ones_like(logits) if real else torch.zeros_like(logits)
    return F.binary_cross_entropy_with_logits(logits, target)
