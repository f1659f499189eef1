"""Before and after a model: one resize everywhere, and a normalisation that keeps every rank."""

import logging
from itertools import chain
from typing import Any

import torch
from anomalib.data import Batch, InferenceBatch
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from lightning import LightningModule, Trainer
from torch import Tensor

from anomalib_medclip.components.anomaly_map import unit_interval
from anomalib_medclip.components.prediction import check_opened, files_given, warn_of_folder
from anomalib_medclip.components.threshold import (
    FAIR_RATE,
    MidwayThreshold,
    has_pixel_threshold,
    has_threshold,
)
from anomalib_medclip.errors import MedclipError
from anomalib_medclip.metrics.raw import keep_raw
from anomalib_medclip.readers.graph_resize import GraphResize
from anomalib_medclip.readers.intensity import IntensityPolicy
from anomalib_medclip.readers.picture import read_image
from anomalib_medclip.readers.resize import MaskRule, MethodResize, Resample

logger = logging.getLogger(__name__)

_FLOAT32 = torch.float32.itemsize


def _is_traced() -> bool:
    """Whether a graph is being made, which holds no decisions that depend on numbers."""
    return torch.compiler.is_exporting() or torch.compiler.is_compiling()


class MedicalPreProcessor(PreProcessor):
    """Reads and resizes for prediction exactly as for training.

    anomalib's exported resize lacks antialiasing, and its prediction data set cuts 16-bit images
    to 8; both are set right here. The model itself subtracts mean and deviation where a method
    wants that.

    Args:
        side: Side of the model's square input in pixels.
        intensity: What to do with images of more than 8 bits given as files for prediction.
        resample: The resize's filter for images.
        slicing: How volumes are cut into images; nothing is done with it here, scoring asks for it.
        masks: The resize's rule for masks, those of training and of measuring.
    """

    slicing: dict[str, Any] | None = None  # pickles of former versions have none

    def __init__(
        self,
        side: int,
        intensity: IntensityPolicy = None,
        resample: Resample = "bicubic",
        slicing: dict[str, Any] | None = None,
        masks: MaskRule = "nearest",
    ) -> None:
        resize = MethodResize(side, resample, masks)
        super().__init__(transform=resize)
        self.resize = resize
        self.side, self.resample, self.masks = side, resample, masks
        self.export_transform = GraphResize(side, resample)
        self.intensity = intensity
        self.slicing = slicing

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say which files of a folder are not predicted, and which masks are."""
        del pl_module
        for listed in filter(None, files_given(trainer)):
            warn_of_folder(listed)

    def on_predict_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Batch[Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Read files given by path again, as the data modules of this package do, and resize."""
        if files_given(trainer)[dataloader_idx]:
            images = [read_image(path, self.intensity) for path in batch["image_path"]]
            batch.image = torch.stack([self.resize(i) for i in images]).to(pl_module.device)
        super().on_predict_batch_start(trainer, pl_module, batch, batch_idx, dataloader_idx)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Name the file at which prediction stopped; anomalib's reader does not.

        Raises:
            ImageReadError: The first file that cannot be decoded, here or by anomalib.
            IntensityError: The first file of more than 8 bits, without a policy.
        """
        del pl_module
        if not (isinstance(exception, Exception) and trainer.predicting):
            return
        try:
            for path in chain(*files_given(trainer)):
                read_image(path, self.intensity)
                check_opened(path)
        except MedclipError:
            trainer._signal_connector.teardown()  # which Lightning leaves out where a hook raises
            raise

    def forward(self, batch: Tensor) -> Tensor:
        """Resize images ``(batch, 3, height, width)`` in [0, 1], antialiased.

        Pillow, which does it, is no part of a traced graph: there it is done by ``GraphResize``.
        """
        if _is_traced():
            return super().forward(batch)
        resized: Tensor = self.resize(batch)
        return resized.as_subclass(Tensor)

    def checkpoint_config(self) -> dict[str, Any]:
        """Intensity policy and slicing; the resize follows from the model's own options."""
        return {"intensity": self.intensity, "slicing": self.slicing}

    def load_checkpoint_config(self, config: dict[str, Any]) -> None:
        """Restore intensity policy and slicing, each unless another was given."""
        if self.intensity is None:
            self.intensity = config.get("intensity")
        if self.slicing is None:
            self.slicing = config.get("slicing")


class RankPreservingPostProcessor(PostProcessor):
    """Puts the threshold at one half without clipping: no tie but that of float32 itself.

    anomalib's own clips to [0, 1], which makes ties and so changes AUROC and average precision, and
    calls the image normal that its threshold was taken from; see ``MidwayThreshold``. Give this one
    to any anomalib model, for a fair comparison: ``--model.post_processor
    anomalib_medclip.components.processors.RankPreservingPostProcessor``.

    Args:
        **kwargs: As of ``anomalib.post_processing.PostProcessor``.
    """

    keeps_threshold = False
    """Whether a validation leaves threshold and normalisation as they are."""

    knows: tuple[bool, bool] | None = None
    """Whether it knows thresholds of images and of pixels, while it is traced; see ``no_guess``."""

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401 - anomalib's options
        super().__init__(**kwargs)
        self._image_threshold_metric = MidwayThreshold(
            fields=["pred_score", "gt_label"], strict=False
        )
        self._pixel_threshold_metric = MidwayThreshold(
            fields=["anomaly_map", "gt_mask"], strict=False
        )

    @property
    def own_rates(self) -> dict[str, float]:
        """``sensitivity`` and ``specificity`` on the images that the threshold was found on.

        NaN where it was found elsewhere, or there was no image of that class.
        """
        found: Any = self._image_threshold_metric
        return {"sensitivity": found.sensitivity, "specificity": found.specificity}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find a new threshold."""
        del trainer, pl_module
        self.keeps_threshold = False

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - anomalib's
        """Take a batch into account, unless the threshold stays."""
        if not self.keeps_threshold:
            super().on_validation_batch_end(*args, **kwargs)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn of a threshold that does badly even on the images that it was chosen on."""
        del trainer, pl_module
        for name, rate in self.own_rates.items():
            if rate < FAIR_RATE:
                logger.warning(
                    "on the very images that the threshold was chosen on, its %s is only %.2f: "
                    "this model hardly tells normal from abnormal images",
                    name,
                    rate,
                )

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say that nothing is called normal or abnormal, where no threshold is known."""
        del trainer, pl_module
        if not has_threshold(self):
            logger.warning(
                "no threshold is known, since none was found or asked for: nothing is called "
                "normal or abnormal"
            )

    on_test_start = on_predict_start

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn likewise after a validation by itself."""
        if trainer.state.fn == "validate":
            self.on_fit_end(trainer, pl_module)

    def post_process_batch(self, batch: Batch[Any]) -> None:
        """Normalise scores and maps in place, and keep beside them what the model gave.

        Without a threshold of images there are no labels, without one of pixels no masks.
        """
        keep_raw(batch)
        super().post_process_batch(batch)
        if not has_threshold(self):
            batch.pred_label = None
        if not has_pixel_threshold(self):
            batch.pred_mask = None

    def forward(self, predictions: InferenceBatch) -> InferenceBatch:
        """The same for what a model gives, which is not kept."""
        found: InferenceBatch = super().forward(predictions)
        if self.knows is None and _is_traced():  # and so cannot ask
            return found
        labels, masks = self.knows or (has_threshold(self), has_pixel_threshold(self))
        return found._replace(
            pred_label=found.pred_label if labels else None,
            pred_mask=found.pred_mask if masks else None,
        )

    @staticmethod
    def _normalize(
        preds: Tensor | None, norm_min: Tensor, norm_max: Tensor, threshold: Tensor
    ) -> Tensor | None:
        if preds is None:
            return None
        if preds.dtype.itemsize < _FLOAT32:  # whose steps are too wide to tell scores apart
            preds = preds.float()
        centre = torch.where(torch.isnan(threshold), (norm_max + norm_min) / 2, threshold)
        spread = torch.where(norm_max > norm_min, norm_max - norm_min, 1.0)
        known = ~torch.isnan(norm_min) & ~torch.isnan(norm_max)
        placed = unit_interval(preds, centre, spread)
        # A score that exceeds the threshold by less than can be told from one half stays above.
        above = 0.5 + torch.finfo(placed.dtype).eps / 2  # the next number
        placed = torch.where(preds > centre, placed.clamp(min=above), placed)
        return torch.where(known, placed, preds)

    @property
    def normalized_image_threshold(self) -> Tensor:
        """Where a normalised score becomes abnormal; the raw threshold without normalisation."""
        half: Tensor = super().normalized_image_threshold
        return half if self.enable_normalization else _known(self.image_threshold, half)

    @property
    def normalized_pixel_threshold(self) -> Tensor:
        """Where a normalised pixel becomes abnormal; the raw threshold without normalisation."""
        half: Tensor = super().normalized_pixel_threshold
        return half if self.enable_normalization else _known(self.pixel_threshold, half)


def placed(post_processor: Any, scores: Tensor) -> Tensor:  # noqa: ANN401 - anyone's, or none
    """A model's own scores of images as a post-processor places them, in float64.

    Float32 has few numbers far from the threshold, and a mean of scores would lose their order.
    They are on the processor, since not every device has float64.
    """
    values = scores.cpu().double()
    if not getattr(post_processor, "enable_normalization", False):
        return values
    post = post_processor
    known = (post.image_min, post.image_max, post.image_threshold)
    found: Tensor = post._normalize(values, *(one.cpu() for one in known))
    return found


def _known(threshold: Tensor, otherwise: Tensor) -> Tensor:
    """A threshold, or what takes its place where no validation has found one."""
    return torch.where(torch.isnan(threshold), otherwise, threshold)
