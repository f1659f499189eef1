"""AnoDDPM as an anomalib model: its options, its optimiser, the average of its weights."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from anomalib.models.components.base import AnomalibModule

from anomalib_medclip.baselines.anoddpm.diffusion import FEWEST, Diffusion, Schedule
from anomalib_medclip.baselines.anoddpm.network import noise_network
from anomalib_medclip.baselines.anoddpm.torch_model import AnoDDPMModel, ImageScore
from anomalib_medclip.baselines.common.pixels import Pixels
from anomalib_medclip.baselines.common.redrawn import Redrawn
from anomalib_medclip.option_checks import checked
from anomalib_medclip.readers.resize import Resample

LARGEST_NORM = 1.0
"""What gradients are shortened to."""


class AnoDDPM(Redrawn, AnomalibModule):
    """Images made noisy and brought back by a network that knows normal ones (CVPR workshop 2022).

    The defaults are those of its authors' code, for which a GPU is needed: an image of 256 px takes
    an hour of a processor core. See ``anomalib_medclip.baselines.anoddpm``.

    Args:
        image_size: Side of the square input in pixels.
        base_channels: Channels of the network's first level, a multiple of 32.
        channel_multiples: Of these, level by level; by default the authors' for the image size.
        blocks: Residual blocks of a level.
        heads: Of attention.
        steps: From an image to noise.
        schedule: How the noise grows.
        distance: Steps that images to score are made noisy by; the authors' scripts take 200 or
            250.
        image_score: Mean or maximum of the map, of which the authors say nothing.
        average_decay: What is left of the average of the network's weights after a step. A short
            training needs less, or the average stays where it began.
        draws: Training images of an epoch, about; see ``Redrawn``.
        **kwargs: The options that all methods share; see ``SharedOptions``.

    Raises:
        ConfigError: A number cannot be, or sides and channels do not go with each other.
    """

    no_use_for = (*Redrawn.no_use_for, "backbone", "pretrained", "backbone_seed", "normalize")
    default_lr = 1e-4
    default_batch_size = 1
    default_epochs = 3001
    resample: ClassVar[Resample] = "bilinear"
    model: AnoDDPMModel

    def __init__(
        self,
        image_size: int = 256,
        base_channels: int = 128,
        channel_multiples: Sequence[int] | None = None,
        blocks: int = 2,
        heads: int = 2,
        steps: int = 1000,
        schedule: Schedule = "linear",
        distance: int = 250,
        image_score: ImageScore = "mean",
        average_decay: float = 0.9999,
        draws: int = 100,
        **kwargs: Any,  # noqa: ANN401 - the options that all methods share
    ) -> None:
        self._refuse(kwargs, self.no_use_for)
        super().__init__(
            backbone=None,
            pretrained=None,
            backbone_seed=0,
            image_size=image_size,
            normalize=False,
            **kwargs,
        )
        for name in ("base_channels", "blocks", "heads", "draws"):
            checked(name, self.hparams[name], 1, whole=True)
        checked("steps", steps, FEWEST[schedule], whole=True)
        for multiple in channel_multiples or ():
            checked("channel_multiples", multiple, 1, whole=True)
        checked("distance", distance, 1, steps, whole=True)
        checked("average_decay", average_decay, 0, 1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed := self.hparams["seed"])
            network = noise_network(image_size, base_channels, channel_multiples, blocks, heads)
        noise = Diffusion(steps, schedule), distance, image_score
        self.assemble(AnoDDPMModel(Pixels(self.backbone), network, *noise, average_decay, seed))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW without decay."""
        trained = self.model.network.parameters()
        return torch.optim.AdamW(trained, lr=self.learning_rate, weight_decay=0)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Shorten gradients as the code does, or as the trainer says."""
        limit = LARGEST_NORM if gradient_clip_val is None else gradient_clip_val
        super().configure_gradient_clipping(optimizer, limit, gradient_clip_algorithm)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Lightning's
        """Take a step, and let the average follow."""
        super().optimizer_step(*args, **kwargs)
        self.model.average.follow(self.model.network)
