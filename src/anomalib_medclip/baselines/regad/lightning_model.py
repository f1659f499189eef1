"""RegAD as an anomalib model: its options, its stage of registration, its optimiser."""

import logging
import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from anomalib.models.components.base import AnomalibModule
from torch import Tensor

from anomalib_medclip.baselines.common.baseline import Baseline
from anomalib_medclip.baselines.common.pixels import Pixels
from anomalib_medclip.baselines.regad.copies import COPIES
from anomalib_medclip.baselines.regad.network import Mode, RegistrationNetwork
from anomalib_medclip.baselines.regad.registration_file import load_registration
from anomalib_medclip.baselines.regad.torch_model import RegADModel
from anomalib_medclip.option_checks import checked
from anomalib_medclip.readers.resize import Resample
from anomalib_medclip.training.datamodule_view import REFERENCES

logger = logging.getLogger(__name__)


class RegAD(Baseline, AnomalibModule):
    """Gaussians of a few normal images, on a network that registers images (ECCV 2022).

    As published it has two stages. With ``register`` it learns from normal images of other sets to
    bring images of a set on each other; that is one training, such as on BMAD's other five sets.
    Another run takes its checkpoint by ``registration``, trains nothing, and compares with the K
    normal images of its own set. Without either it is PaDiM with RegAD's copies and features. See
    ``anomalib_medclip.baselines.regad``.

    Args:
        backbone: Residual network of timm's, of which three stages are used.
        pretrained: Local file of its weights; ``None`` for random ones.
        image_size: Side of the square input in pixels.
        mode: What maps may be moved by.
        register: Learn to register, from the normal images of training.
        registration: Checkpoint of such a training, to start from.
        shots: Other images of its set that each image is registered with in training.
        **kwargs: The options that all methods share; see ``SharedOptions``. The authors take pixels
            in [0, 1] as they are.

    Raises:
        ConfigError: An option of training where nothing trains, or a number that cannot be.
        WeightsError: The network or a file cannot be found or read, or does not fit.
        BackboneMismatchError: ``registration`` was trained on images that entered otherwise.
    """

    no_use_for = (*Baseline.no_use_for, "normalize")
    augmentations = COPIES
    default_lr = 1e-4
    default_batch_size = 32
    default_epochs = 1
    learns = False
    copies = 1
    begins_from = ("pretrained", "registration")  # a checkpoint holds all weights
    resample: ClassVar[Resample] = "bilinear"
    model: RegADModel

    def __init__(
        self,
        backbone: dict[str, Any] | str = "timm:resnet18",
        pretrained: str | None = None,
        image_size: int = 224,
        mode: Mode = "rotation_scale",
        register: bool = False,
        registration: str | None = None,
        shots: int = 4,
        **kwargs: Any,  # noqa: ANN401 - the options that all methods share
    ) -> None:
        self._refuse(kwargs, self.no_use_for)
        self.learns = register  # type: ignore[misc]  # of the class by default
        super().__init__(
            backbone=backbone,
            pretrained=pretrained,
            image_size=image_size,
            normalize=False,
            **kwargs,
        )
        checked("shots", shots, 1, whole=True)
        if register:
            self.default_epochs = 50  # type: ignore[misc]  # likewise
        trunk = self.backbone.load({}, num_classes=0).network
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.hparams["seed" if register else "backbone_seed"])
            network = RegistrationNetwork(trunk, image_size, mode)
            # All weights are in a checkpoint; what it has to fit is the kind of network.
            entry = Pixels(self.backbone, self.backbone.fingerprint(network=self.backbone.model))
            model = RegADModel(entry, network, shots)
        if registration is not None:
            load_registration(registration, model)
            # A checkpoint holds all of it, and needs the file no more.
            self.hparams["registration"] = Path(registration).name
        self.assemble(model.requires_grad_(register), few_shot=None if register else True)

    @property
    def untrained(self) -> bool:
        """Whether its network has random weights, and nothing has trained them."""
        return super().untrained and self.hparams["registration"] is None

    def on_train_epoch_start(self) -> None:
        """Set the step size: a cosine that ends at 0, with the last epoch, as the code has it."""
        size = self.learning_rate * self._share(self.current_epoch)
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = size

    def configure_optimizers(self) -> torch.optim.Optimizer | None:
        """Gradient descent with momentum; ``None`` without ``register``."""
        if not self.learns:
            return None
        return torch.optim.SGD(self.model.parameters(), lr=self.learning_rate, momentum=0.9)

    def ready_to_score(self) -> None:
        """Compare with normal images of the sets learnt from, where there are none of the target.

        Such scores say little. The checkpoint is for ``registration``.
        """
        alone = self.support.readiness.is_stale and self.data.zero_shot
        super().ready_to_score()
        if alone:
            logger.warning(
                "RegAD compares with normal images of the target, and these data have none: its "
                "scores are distances to other sets; give the checkpoint to registration, and data "
                "with a support"
            )
            self._fit_other_sets()

    # Validation runs in inference mode, whose tensors could never be loaded into again.
    @torch.inference_mode(mode=False)
    def _fit_other_sets(self) -> None:
        """Take images of training for a support, spread evenly over the sets."""
        data = self.data.train_data  # of normal images alone
        chosen = np.linspace(0, len(data) - 1, min(REFERENCES, len(data))).round().astype(int)
        items = [data[int(index)] for index in chosen]
        images = torch.stack([item.image for item in items]).as_subclass(Tensor)
        paths, labels = [str(item.image_path) for item in items], [False] * len(items)
        found = self.features.of_support(images, paths, labels)
        owners = torch.arange(len(items), device=self.device)
        self.model.fit_support(*found, torch.zeros_like(owners, dtype=torch.bool), owners)

    def _share(self, epoch: int) -> float:
        """Part of the step size that an epoch has."""
        return 0.5 * (1 + math.cos(math.pi * (epoch + 1) / (self.trainer.max_epochs or 1)))
