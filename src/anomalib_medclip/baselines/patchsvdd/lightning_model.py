"""PatchSVDD as an anomalib model: its options, and the mean image."""

from typing import Any

import torch
from anomalib.models.components.base import AnomalibModule
from torch import Tensor

from anomalib_medclip.baselines.common.baseline import Baseline
from anomalib_medclip.baselines.common.pixels import Pixels
from anomalib_medclip.baselines.patchsvdd.torch_model import Combine, PatchSVDDModel
from anomalib_medclip.errors import NotReadyError
from anomalib_medclip.option_checks import checked


class PatchSVDD(Baseline, AnomalibModule):
    """Vectors of patches of normal images, by an encoder that learns from them (ACCV 2020).

    See ``anomalib_medclip.baselines.patchsvdd`` for where its authors' code differs.

    Args:
        image_size: Side of the square input in pixels: 64, 80, 96, ...
        width: Length of a patch's vector.
        pairs: Pairs of patches of each kind that are drawn of an image and step.
        weight: Of the losses that draw patches together; the authors take 1e-3 to 1.
        combine: Multiply the maps of patches of 64 and of 32 px, or add them.
        **kwargs: The options that all methods share; see ``SharedOptions``. It has an encoder of
            its own, and no backbone.

    Raises:
        ConfigError: A number cannot be, or patches do not fill images of this size.
    """

    no_use_for = (*Baseline.no_use_for, "backbone", "pretrained", "backbone_seed", "normalize")
    default_lr = 1e-4
    default_epochs = 3750
    model: PatchSVDDModel

    def __init__(
        self,
        image_size: int = 256,
        width: int = 64,
        pairs: int = 8,
        weight: float = 1.0,
        combine: Combine = "product",
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
        checked("width", width, 1, whole=True)
        checked("pairs", pairs, 1, whole=True)
        checked("weight", weight, 0)
        numbers = width, pairs, weight, combine
        pixels = Pixels(self.backbone)
        self.assemble(PatchSVDDModel(pixels, *numbers, self.hparams["seed"]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, with torch's own numbers."""
        trained = [one for one in self.parameters() if one.requires_grad]
        return torch.optim.Adam(trained, lr=self.learning_rate)

    def on_fit_start(self) -> None:
        """Take the mean image of all that is learnt from.

        Raises:
            NotReadyError: There is no datamodule.
        """
        super().on_fit_start()
        if self.data.train_data is None:
            msg = "PatchSVDD takes the mean of the images of a datamodule; pass one"
            raise NotReadyError(msg)
        self.model.mean_image.copy_(_mean_image(self.data.train_data, self.pre_processor))


def _mean_image(data: Any, pre_processor: Any) -> Tensor:  # noqa: ANN401 - of anyone's making
    """Mean of the images of a data set, as the model takes them, in the order of their numbers."""
    total: Tensor | int = 0
    for index in range(len(data)):
        image = data[index].image.as_subclass(Tensor)[None]
        total = total + (image if pre_processor is None else pre_processor(image))[0].double()
    return torch.as_tensor(total / max(len(data), 1)).float()
