"""CutPaste as an anomalib model: its options, its training images, its optimiser."""

import math
from typing import Any, Literal, cast

import numpy as np
import torch
from anomalib.data import ImageBatch
from anomalib.models.components.base import AnomalibModule
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from anomalib_medclip.baselines.common.pixels import Pixels
from anomalib_medclip.baselines.common.redrawn import Redrawn
from anomalib_medclip.baselines.cutpaste.synthesis import (
    jittered,
    random_rectangle,
    random_scar,
)
from anomalib_medclip.baselines.cutpaste.torch_model import CutPasteModel
from anomalib_medclip.errors import NotReadyError
from anomalib_medclip.option_checks import Idle, checked

Pasted = Literal["both", "rectangle", "scar", "union"]
"""Kinds of pasted images: each a class, one alone, or both in one class."""

KINDS = {"both": 3, "rectangle": 2, "scar": 2, "union": 2}
"""How many classes there are."""


class CutPaste(Redrawn, AnomalibModule):
    """A network that tells normal images from pasted ones, and a Gaussian (CVPR 2021).

    There is no code of its authors; see ``anomalib_medclip.baselines.cutpaste``.

    Args:
        backbone: Network of timm's, which trains: ``timm:NAME``, or ``{timm: NAME, ...}`` with
            numbers for one of one's own.
        pretrained: Local file of weights to begin with; ``None`` for random ones, as published. A
            checkpoint needs it no more.
        image_size: Side of the square input in pixels.
        pasted: Rectangles and scars as a class each, one of them, or both in one class.
        head_layers: Layers of 512 numbers in the head, before one of 128.
        frozen_steps: Steps in which weights of a file stay as they are.
        draws: Training images of an epoch, about (see ``Redrawn``): one step, as published.
        **kwargs: The options that all methods share; see ``SharedOptions``.

    Raises:
        ConfigError: A number cannot be.
        WeightsError: The network or its weights cannot be found or read.
    """

    default_lr = 0.03
    default_batch_size = 32
    default_epochs = 256
    makes_images = True
    begins_from = ("pretrained",)  # all weights train
    begins_random = True
    idle = (Idle(("frozen_steps",), lambda given: given["pretrained"] is None, "random weights"),)
    model: CutPasteModel

    def __init__(
        self,
        backbone: dict[str, Any] | str = "timm:resnet18",
        pretrained: str | None = None,
        image_size: int = 256,
        pasted: Pasted = "both",
        head_layers: int = 1,
        frozen_steps: int = 20,
        draws: int = 32,
        **kwargs: Any,  # noqa: ANN401 - the options that all methods share
    ) -> None:
        super().__init__(backbone=backbone, pretrained=pretrained, image_size=image_size, **kwargs)
        for name, least in (("draws", 1), ("head_layers", 0), ("frozen_steps", 0)):
            checked(name, self.hparams[name], least, whole=True)
        self.frozen_steps = 0 if pretrained is None else frozen_steps
        self._numbers: dict[str, int] = {}
        trunk = self.backbone.load({}, num_classes=0).network
        entry = Pixels(self.backbone, self.backbone.fingerprint(network=self.backbone.model))
        numbers = KINDS[pasted], head_layers, self.hparams["seed"]
        self.assemble(CutPasteModel(entry, trunk, *numbers), few_shot=True)

    def __getstate__(self) -> dict[str, Any]:
        """Without the names of the training images."""
        return super().__getstate__() | {"_numbers": {}}

    def on_fit_start(self) -> None:
        """Number the training images, so that each has chances of its own.

        Raises:
            NotReadyError: There is no datamodule.
        """
        super().on_fit_start()
        samples = getattr(self.data.train_data, "samples", None)  # of anyone's making
        if samples is None:
            msg = "CutPaste makes its training images from those of a datamodule; pass one"
            raise NotReadyError(msg)
        paths = dict.fromkeys(map(str, samples["image_path"]))
        self._numbers = {path: number for number, path in enumerate(paths)}

    def examples(self, batch: ImageBatch) -> tuple[Tensor, Tensor | None, Tensor]:
        """Samples of each class, one class after the other; the labels are their numbers."""
        images = cast("Tensor", batch.image).as_subclass(Tensor)
        paths = cast("list[str]", batch.image_path)
        copies = getattr(batch, "copy", None)  # of batches of others' making none is known
        draws = [0] * len(paths) if copies is None else copies.tolist()
        numbers = [self._numbers[str(path)] for path in paths]
        samples = list(map(self._samples, images, numbers, draws))
        classes = [torch.stack(of_class) for of_class in zip(*samples, strict=True)]
        labels = torch.arange(len(classes)).repeat_interleave(len(samples))
        made = torch.cat(classes).to(self.device).float() / 255
        return self.model.encode(made), None, labels.to(self.device)

    def _samples(self, image: Tensor, number: int, draw: int) -> list[Tensor]:
        """An image as it is, and pasted: each with chances of its own, so that runs repeat."""
        seed = self.hparams["seed"], self.current_epoch, number, draw
        random = np.random.default_rng(seed)
        source = jittered(to_pil_image((image.cpu() * 255).round().byte()), random)
        kinds = {
            "both": (random_rectangle, random_scar),
            "rectangle": (random_rectangle,),
            "scar": (random_scar,),
            "union": ((random_rectangle, random_scar)[random.integers(2)],),
        }[self.hparams["pasted"]]
        return [pil_to_tensor(one) for one in (source, *(paste(source, random) for paste in kinds))]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD with momentum; its step size falls along a cosine."""
        trained = [one for one in self.parameters() if one.requires_grad]
        return torch.optim.SGD(trained, lr=self.learning_rate, momentum=0.9, weight_decay=3e-5)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:  # noqa: ANN401 - Lightning's
        """Set the step size."""
        del batch, batch_idx
        share = self.trainer.global_step / self.trainer.estimated_stepping_batches
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate * (1 + math.cos(math.pi * share)) / 2

    def on_after_backward(self) -> None:
        """Leave weights of a file alone at first; their batch norms move all the same."""
        super().on_after_backward()
        if self.trainer.global_step < self.frozen_steps:
            for parameter in self.model.trunk.parameters():
                parameter.grad = None
