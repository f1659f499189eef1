"""Mean intensity and image size as scores: what a method has to beat before it has seen a lesion.

Neither learns more than a sign: whether abnormal images of the support are the higher ones. The
threshold comes from validation images, as for any model.
"""

import logging
from typing import Any

import torch
from anomalib import LearningType
from anomalib.data import ImageBatch, InferenceBatch
from anomalib.models.components.base import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from jaxtyping import Float
from lightning.pytorch import Callback
from torch import Tensor, nn
from torchvision.transforms.v2 import Resize
from torchvision.tv_tensors import Image

from anomalib_medclip.components.processors import RankPreservingPostProcessor
from anomalib_medclip.components.threshold import SUPPORT, VALIDATION
from anomalib_medclip.devices import most_exact
from anomalib_medclip.training.callbacks import common_callbacks
from anomalib_medclip.training.datamodule_view import DatamoduleView

logger = logging.getLogger(__name__)

_PIXELS = 1_000_000
"""Pixels of an image whose size is said to be one half."""


class Brightness(nn.Module):
    """The mean of an image as score, its pixels as map, both with a sign."""

    sign: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sign", torch.ones(()))

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> InferenceBatch:
        """Score images."""
        grey = images.as_subclass(Tensor).mean(dim=1)
        mean = grey.to(most_exact(grey.device)).mean(dim=(1, 2)).to(grey)
        return InferenceBatch(pred_score=self.sign * mean, anomaly_map=self.sign * grey)


class TrivialMixin:
    """What the two share: one look at the support.

    Attributes:
        wants_abnormal: Whether it trains on abnormal images, which it does on none.
        threshold_from: Which images its threshold was found on; empty before it is fitted.
    """

    model: Any
    trainer: Any
    _trainer: Any
    wants_abnormal = False
    threshold_from = ""

    @property
    def learning_type(self) -> LearningType:
        """One class, as anomalib calls what is trained on normal images."""
        return LearningType.ONE_CLASS

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """One epoch, in which nothing happens."""
        return {"max_epochs": 1, "num_sanity_val_steps": 0}

    def configure_callbacks(self) -> list[Callback]:
        """Processes, signals, then what anomalib calls back."""
        of_anomalib: Any = super().configure_callbacks()  # type: ignore[misc] # of the next base
        return [*common_callbacks(self._trainer), *of_anomalib]

    def configure_optimizers(self) -> None:
        """Nothing is optimised."""

    def configure_post_processor(self) -> PostProcessor:
        """Threshold at one half, every rank kept."""
        return RankPreservingPostProcessor(enable_threshold_matching=False)

    def on_fit_start(self) -> None:
        """See whether the abnormal images of the support are the higher ones."""
        self.model.sign.fill_(1)
        data = DatamoduleView(self.trainer.datamodule)
        support = data.support_data
        self.threshold_from = SUPPORT if data.validates_on_support else VALIDATION
        means: dict[bool, list[float]] = {False: [], True: []}
        for index in range(0 if support is None else len(support)):
            item = support[index]
            image = item.image[None].to(self.model.sign.device)
            means[bool(item.gt_label)].append(float(self.model(image).pred_score))
        if all(means.values()):
            normal, abnormal = (sum(m) / len(m) for m in means.values())
            self.model.sign.fill_(1 if abnormal >= normal else -1)
        else:
            logger.info("no support of both classes: the higher score is taken for abnormal")

    def training_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Learn nothing."""
        del batch, batch_idx

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> Any:  # noqa: ANN401 - a batch
        """Score a batch."""
        del batch_idx
        return batch.update(**self.model(batch.image)._asdict())


class MeanIntensity(TrivialMixin, AnomalibModule):  # type: ignore[misc] # anomalib's own bases
    """How bright an image is.

    Args:
        image_size: Side of the square that images are resized to.
        **kwargs: anomalib's components.
    """

    def __init__(self, image_size: int = 240, **kwargs: Any) -> None:  # noqa: ANN401 - anomalib's
        super().__init__(**kwargs)
        self.model = Brightness()

    def configure_pre_processor(self, image_size: tuple[int, int] | None = None) -> PreProcessor:  # type: ignore[override]
        """One resize."""
        side = image_size[0] if image_size else self.hparams["image_size"]
        return PreProcessor(transform=Resize((side, side), antialias=True))


class SizeAsBrightness(Resize):
    """An image becomes a square, the brighter the more pixels the image has; masks are resized."""

    def __init__(self, side: int = 32) -> None:
        super().__init__((side, side), antialias=True)

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:  # noqa: ANN401 - torchvision's
        """Fill an image, resize a mask."""
        resized = super().transform(inpt, params)
        again = inpt.ndim == 4 and inpt.shape == resized.shape  # a batch, whose images were here
        if again or not isinstance(inpt, Image):
            return resized
        pixels = inpt.shape[-2] * inpt.shape[-1]
        return torch.full_like(resized, pixels / (pixels + _PIXELS))


class ImageSize(TrivialMixin, AnomalibModule):  # type: ignore[misc] # anomalib's own bases
    """How many pixels an image has, which should say nothing; its map is the same everywhere."""

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401 - anomalib's
        super().__init__(**kwargs)
        self.model = Brightness()

    @staticmethod
    def configure_pre_processor(image_size: tuple[int, int] | None = None) -> PreProcessor:
        """The size instead of the image."""
        del image_size
        return PreProcessor(transform=SizeAsBrightness())
