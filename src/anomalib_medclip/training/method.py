"""A method under Lightning and anomalib: training, thresholds, slim checkpoints.

A method's torch model is a ``ClipModel``. It may offer ``fit_support`` (whatever it keeps of the
support images) and ``idle_parameters`` (what a batch without masks does not train).
"""

import logging
import sys
from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from anomalib import LearningType
from anomalib.data import ImageBatch
from anomalib.metrics import Evaluator, F1Score
from anomalib.post_processing import PostProcessor
from lightning import seed_everything
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from anomalib_medclip.components.processors import (
    MedicalPreProcessor,
    RankPreservingPostProcessor,
)
from anomalib_medclip.components.threshold import CROSS_FITTED, VALIDATION, learnt_from
from anomalib_medclip.export.exporter import CertifiedExport
from anomalib_medclip.metrics.ranked import AUROC
from anomalib_medclip.readers.resize import Resample
from anomalib_medclip.training.checkpoints import SlimCheckpoints
from anomalib_medclip.training.cross_fit import CrossFit, HeldOut
from anomalib_medclip.training.divergence import FiniteOnly
from anomalib_medclip.training.epoch_choice import BestEpoch
from anomalib_medclip.training.results import HeatMapVisualizer, ResultsWriter
from anomalib_medclip.training.support import MeetsData

logger = logging.getLogger(__name__)

EpochChoice = Literal["last", "validation"]

_LIGHTNING_EPOCHS = 1000
"""What Lightning's trainer says when nobody chose a number of epochs."""

_NEVER = sys.maxsize
"""Epochs between Lightning's own validations, where one at the end of training is enough."""


class ClipMethodMixin(MeetsData, SlimCheckpoints, CertifiedExport):
    """What the methods share, to be mixed into an ``AnomalibModule``.

    A mixin and not a base class, because anomalib takes every direct subclass of
    ``AnomalibModule`` for a model.

    Attributes:
        default_batch_size: Training images a batch, where the data do not say.
        default_epochs: Epochs trained, where ``--trainer.max_epochs`` does not say.
        resample: Filter of the resize of images.
        wants_abnormal: Whether it learns from abnormal images, too.
    """

    default_batch_size = 1
    default_epochs = 50
    resample: Resample = "bicubic"
    wants_abnormal = True
    _validated_at: int | None = None
    _finished_at: int | None = None

    @property
    def learning_type(self) -> LearningType:
        """One class: anomalib skips training for what it calls few-shot or zero-shot."""
        return LearningType.ONE_CLASS

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """Only what no user would want otherwise: whatever stands here silently wins."""
        return {"num_sanity_val_steps": 0}

    @property
    def copies(self) -> int:
        """How many fixed augmentations of each image an epoch trains on."""
        return 1 if self._data("zero_shot", default=False) else len(self.augmentations)

    def configure_pre_processor(
        self, image_size: tuple[int, int] | None = None
    ) -> MedicalPreProcessor:
        """The one resize, to the backbone's image size."""
        side = image_size[0] if image_size else self.hparams["image_size"]
        return MedicalPreProcessor(side, resample=self.resample)

    def configure_post_processor(self) -> PostProcessor:
        """Threshold at one half, every rank kept.

        A set without masks has no pixel threshold; that of its images is on another scale, so maps
        are then centred on the middle of their own range.
        """
        return RankPreservingPostProcessor(enable_threshold_matching=False)

    @staticmethod
    def configure_evaluator() -> Evaluator:
        """AUROC and F1 of images and, with masks, pixels; AUROC on validation images, too.

        The AUROCs are exact and of the model's own scores, whatever a post-processor makes of them.
        """
        metrics: dict[str, list[Any]] = {"val_": [], "": []}
        for stage, found in metrics.items():
            for prefix, score, truth, strict in (
                (f"{stage}image_", "pred_score", "gt_label", True),
                (f"{stage}pixel_", "anomaly_map", "gt_mask", False),
            ):
                found.append(AUROC(fields=[score, truth], prefix=prefix, strict=strict))
        for prefix, decision, truth, strict in (
            ("image_", "pred_label", "gt_label", True),
            ("pixel_", "pred_mask", "gt_mask", False),
        ):
            metrics[""].append(F1Score(fields=[decision, truth], prefix=prefix, strict=strict))
        return Evaluator(val_metrics=metrics["val_"], test_metrics=metrics[""])

    @classmethod
    def configure_visualizer(cls) -> HeatMapVisualizer:
        """A picture per image, none overwritten."""
        return HeatMapVisualizer()

    def configure_callbacks(self) -> list[Callback]:
        """What stops at NaN, what anomalib calls back, results, cross-fitting, the best epoch."""
        callbacks = [FiniteOnly(), *cast("Sequence[Callback]", super().configure_callbacks())]
        callbacks += [ResultsWriter(), CrossFit(self.hparams.get("cross_fit"))]
        if self.hparams["epoch_choice"] == "validation":
            callbacks.append(BestEpoch())
        return callbacks

    def setup(self, stage: str) -> None:
        """Learn from the datamodule what the images show, and settle epochs and seed."""
        self.read_checkpoints_plainly()
        if stage != "fit":
            return
        seed_everything(self.hparams["seed"], workers=True)
        self._meet_data()
        self._open_cache()
        self._validated_at = self._finished_at = self._readied_for = self._checkpoint = None
        trainer = self.trainer
        if trainer.max_epochs == _LIGHTNING_EPOCHS:
            logger.info("training %d epochs, the default of this method", self.default_epochs)
            trainer.fit_loop.max_epochs = self.default_epochs
        if not self._validation_chooses() and trainer.check_val_every_n_epoch == 1:
            logger.info("the epochs are fixed beforehand: validation comes after the last one")
            trainer.check_val_every_n_epoch = _NEVER
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback._save_on_train_epoch_end is None:
                callback._save_on_train_epoch_end = True  # a crash then loses one epoch at most

    def on_fit_start(self) -> None:
        """Encode the prompts of every set trained on."""
        self._refresh_text(self._other_names())

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor | None:
        """Augment a batch and return its loss; ``None`` if nothing can learn from it."""
        del batch_idx
        self._support_is_stale = self.has_learnt = True
        encoded, masks, labels = self._examples(batch)
        self._trains_masks = masks is not None
        loss: Tensor = self.model.loss(encoded, masks, labels, **self._own_text(batch))
        self.log("train_loss", loss, prog_bar=True, on_epoch=True, batch_size=len(encoded))
        return loss if loss.requires_grad else None

    def on_after_backward(self) -> None:
        """Take gradients from what this batch does not train; Adam then leaves it alone."""
        if hasattr(self.model, "idle_parameters"):
            for parameter in self.model.idle_parameters(self._trains_masks):
                parameter.grad = None

    def configure_optimizers(self) -> torch.optim.Optimizer | None:
        """Adam on whatever requires a gradient, without weight decay; ``None`` if nothing does."""
        trained = [p for p in self.parameters() if p.requires_grad]
        if not trained:  # an ablation may leave nothing
            return None
        return torch.optim.Adam(trained, lr=self.learning_rate, betas=(0.5, 0.999))

    @property
    def learning_rate(self) -> float:
        """Step size of Adam."""
        return float(self.hparams["lr"])

    def on_validation_start(self) -> None:
        """Refit what depends on the adapters before thresholds are found with it."""
        if self.trainer.state.fn != "fit":
            self._make_ready()
            self._encode_prompts(self._other_names())
            self._mind_the_threshold()
        elif not self.trainer.sanity_checking:
            self._refit_support()
            self._validated_at = self.global_step
            self.threshold_from = self._validated_with()

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> Any:  # noqa: ANN401 - a batch
        """Score a batch; support images without themselves, other sets with their own text."""
        del batch_idx
        if held_out := self._held_out():
            found = [held_out[str(path)] for path in batch.image_path or ()]
            parts: dict[str, Any] = {
                name: torch.stack([one[name] for one in found]).to(self.device) for name in found[0]
            }
            return batch.update(**parts)
        options = self._own_text(batch)
        if self._data("validates_on_support", default=False) and hasattr(self, "_owners"):
            owners = [self._owners.get(path, -1) for path in batch.image_path or ()]
            options["leave_out"] = torch.tensor(owners, device=self.device)
        encoded = self._encoded(batch) if self._sees_again() else self.model.encode(batch.image)
        return batch.update(**self.model.score(encoded, **options)._asdict())

    def ready_to_score(self) -> None:
        """Refit what depends on the adapters, for whoever scores images between epochs."""
        self._refit_support()

    def on_train_epoch_end(self) -> None:
        """Validate at the end of training, however it came: thresholds need the last adapters."""
        if self.is_last_epoch():
            self._finish()

    def on_train_end(self) -> None:
        """Do so, too, where a callback has stopped training after its last epoch, and save it."""
        super().on_train_end()
        if self._finished_at == self.global_step:
            return
        self._finish()
        for callback in self.trainer.checkpoint_callbacks:
            last = getattr(callback, "best_model_path", "")
            if last and getattr(callback, "monitor", None) is None:
                self.trainer.save_checkpoint(last)

    def _finish(self) -> None:
        """Fit what depends on the adapters, and find the thresholds."""
        self._finished_at = self.global_step
        self._refit_support()
        self._keep_probes()
        self._cross_fit().score_apart(self.trainer, self)
        if self._held_out() or self._validated_at != self.global_step:
            # As Lightning's own training loop does it.
            self.trainer.validating = True
            self.trainer.fit_loop.epoch_loop.val_loop.run()
            self.trainer.training = True

    def on_test_start(self) -> None:
        """Make sure that there is something to score with."""
        self._make_ready()
        if self.shared_features is not None:
            self._open_cache()

    def on_predict_start(self) -> None:
        """Make sure that there is something to score with."""
        self._make_ready()

    def _sees_again(self) -> bool:
        """Whether images of validation come back, or were learnt from."""
        again = self.trainer.check_val_every_n_epoch != _NEVER
        on_support = self._data("validates_on_support", default=False)
        return self.trainer.state.fn == "fit" and (again or on_support)

    def _cross_fit(self) -> CrossFit:
        """The one of ``configure_callbacks``."""
        callbacks: Any = self.trainer.callbacks  # type: ignore[attr-defined]
        return next(one for one in callbacks if isinstance(one, CrossFit))

    def _held_out(self) -> HeldOut:
        """Scores of support images by models that have not seen them, where training made any."""
        return self._cross_fit().held_out if self.trainer.state.fn == "fit" else {}

    def _mind_the_threshold(self) -> None:
        """Keep the threshold of training, where these data have only images that it learnt from."""
        post: Any = self.post_processor
        known = post is not None and bool(post.image_threshold.isfinite())
        keeps = known and self._data("validates_on_support", default=False)
        if isinstance(post, RankPreservingPostProcessor):
            post.keeps_threshold = keeps
        if keeps:
            logger.info("only support images are left for validation: the threshold stays")
        else:
            self.threshold_from = self._validated_with()

    def _validated_with(self) -> str:
        """Which images the threshold comes from, for whoever asks later."""
        if not self._data("validates_on_support", default=False):
            return VALIDATION
        return CROSS_FITTED if self._held_out() else learnt_from(self.wants_abnormal)

    def _validation_chooses(self) -> bool:
        """Whether an epoch is kept, or training stopped, for what validation says."""
        trainer: Any = self.trainer
        monitors = [str(getattr(callback, "monitor", None)) for callback in trainer.callbacks]
        return self.hparams["epoch_choice"] == "validation" or any("val" in m for m in monitors)
