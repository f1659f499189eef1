"""SQUID as an anomalib model: its options, and the steps of its two networks."""

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from anomalib.data import ImageBatch
from anomalib.models.components.base import AnomalibModule
from jaxtyping import Float
from torch import Tensor

from anomalib_medclip.baselines.common.baseline import Baseline
from anomalib_medclip.baselines.common.pixels import Pixels
from anomalib_medclip.baselines.common.stepwise import Stepwise, mean_loss
from anomalib_medclip.baselines.squid.networks import in_grey
from anomalib_medclip.baselines.squid.torch_model import SQUIDModel
from anomalib_medclip.errors import ConfigError
from anomalib_medclip.option_checks import checked

_SHIFT, _SCALE = 0.05, 0.05
"""Share of the side by which training images are moved at most, and of their size."""


class SQUID(Stepwise, AnomalibModule):
    """Images made anew of memories of normal windows (CVPR 2023), from normal images alone.

    Made for chest radiographs: it sees grey levels. See ``anomalib_medclip.baselines.squid`` for
    where its authors' code differs.

    Args:
        image_size: Side of the square input in pixels, a multiple of 32.
        features: Channels of the generator's largest maps, an even number.
        slots: Of the memory of each window.
        part_slots: Of each memory in the decoder.
        distillation: Weight of the distance between the generator's decoder and its teacher's;
            the authors take 0.01 for ZhangLab's images.
        critic: The generator learns from every so many batches, the discriminator from each.
        augment: Move and scale training images by up to 5 %.
        sigma: Standard deviation of the Gaussian that smooths maps, in pixels; 0 for none.
        **kwargs: The options that all methods share; see ``SharedOptions``. It has networks of its
            own, and no backbone.
    """

    no_use_for = (*Baseline.no_use_for, "backbone", "pretrained", "backbone_seed", "normalize")
    default_batch_size = 16
    default_epochs = 200
    default_lr = 1e-4
    model: SQUIDModel

    def __init__(
        self,
        image_size: int = 128,
        features: int = 32,
        slots: int = 200,
        part_slots: int = 200,
        distillation: float = 1e-3,
        critic: int = 2,
        augment: bool = True,
        sigma: float = 0.0,
        **kwargs: Any,  # noqa: ANN401 - the options that all methods share
    ) -> None:
        self._refuse(kwargs, self.no_use_for)
        super().__init__(
            backbone=None, pretrained=None, image_size=image_size, normalize=False, **kwargs
        )
        sides = ("image_size", image_size, 64, 32), ("features", features, 2, 2)
        for name, value, least, step in sides:
            if checked(name, value, least, whole=True) % step:
                msg = f"{name} is {value}, and must be a multiple of {step}; correct it"
                raise ConfigError(msg)
        checked("slots", slots, 2, whole=True)
        checked("part_slots", part_slots, 2, whole=True)
        checked("distillation", distillation, 0)
        checked("critic", critic, 1, whole=True)
        checked("sigma", sigma, 0)
        sizes = features, slots, part_slots, distillation, sigma
        model = SQUIDModel(Pixels(self.backbone), *sizes, self.hparams["seed"])
        self.assemble(model, few_shot=True)

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - Lightning's
        """Adam of the generator, and Adam of the discriminator."""
        lr, betas = self.learning_rate, (0.5, 0.999)
        generator, discriminator = self.model.generator, self.model.discriminator
        return [
            torch.optim.Adam(generator.parameters(), lr, betas, eps=1e-7, weight_decay=1e-5),
            torch.optim.Adam(discriminator.parameters(), lr, betas),
        ]

    def learn(self, batch: ImageBatch, batch_idx: int) -> Float[Tensor, ""] | None:
        """A step of the discriminator and, for some batches, one of the generator.

        Batches are counted through all epochs: of few images an epoch has one.
        """
        images = in_grey(self.examples(batch)[0])
        if self.hparams["augment"]:
            images = moved(images)
        of_generator, of_discriminator = cast("Any", self.optimizers())
        loss = self.model.discriminator_loss(images, self.model.generator(images))
        self.step(of_discriminator, loss)
        number = self.current_epoch * int(self.trainer.num_training_batches) + batch_idx
        if number % self.hparams["critic"] or not self.may_step:
            return loss.detach()
        for group in of_generator.param_groups:
            group["lr"] = generator_lr(self.learning_rate, self.current_epoch, self.epochs)
        made = self.model.generator(images)
        total = torch.stack(self.model.generator_loss(images, made)).sum()
        self.step(of_generator, total)
        self.model.generator.inpaint_block.push(made.asked.detach())
        return mean_loss([loss.detach(), total.detach()])


def generator_lr(lr: float, epoch: int, epochs: int) -> float:
    """Step size of the generator: two thirds of a cosine that goes down to half.

    Args:
        lr: At the start.
        epoch: Which, from 0.
        epochs: How many there are.

    Example:
        >>> [round(generator_lr(1.0, epoch, 200), 3) for epoch in (0, 150, 300)]
        [1.0, 0.75, 0.5]
    """
    return lr * (0.75 + 0.25 * math.cos(math.pi * epoch / (1.5 * epochs)))


def moved(images: Float[Tensor, "batch 1 side side"]) -> Float[Tensor, "batch 1 side side"]:
    """Images moved and scaled by chance, each otherwise, mirrored at the edges."""
    shift = 2 * _SHIFT * (2 * torch.rand(len(images), 2, 1) - 1)  # in halves of the side
    scale = 1 + _SCALE * (2 * torch.rand(len(images), 1, 1) - 1)
    theta = torch.cat([torch.eye(2) / scale, shift], dim=2).to(images)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
