"""Scores of support images by models that have not seen them, for the threshold."""

import copy
import logging
import time
from tempfile import TemporaryDirectory
from typing import Any

import torch
from anomalib.data import ImageBatch
from lightning import LightningModule, Trainer
from lightning.pytorch import Callback
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from anomalib_medclip.components.familiar import SeenImage, seen_images
from anomalib_medclip.training.datamodule_view import DatamoduleView

logger = logging.getLogger(__name__)

FOLDS = 3
"""Parts of the support; each is scored by a model that learnt from the others."""

AFFORDABLE = 30.0
"""Seconds that training all of these models may take where nobody asked for it."""

HeldOut = dict[str, dict[str, Tensor]]
"""Score and map of each image, by its path and by their names in a batch."""


class CrossFit(Callback):
    """Finds scores for the threshold where no images are left but those that were learnt from.

    On these the trained model is too sure, and its threshold would be off. So when training ends, a
    copy of the model as it was before is trained on the support without a third of its patients,
    with the same options for as many epochs, and scores that third; and so for all thirds. What the
    frozen tower says of an image is kept, and computed once for all. Callbacks of a user's own have
    no part in it. Of several processes each does all of it.

    Args:
        asked: Whether to do so; ``None`` where it takes less than ``AFFORDABLE`` seconds.

    Attributes:
        held_out: What was found, once training has ended; empty where it was not done. Other images
            of the support's patients are among it.
        samples: The rows of these images.
        seen: What the frozen tower says of them.
        seconds: How long it took.
    """

    def __init__(self, asked: bool | None) -> None:
        self.held_out: HeldOut = {}
        self.samples: list[Any] = []
        self.seen: list[SeenImage] = []
        self.seconds = 0.0
        self._asked = asked
        self._untrained: Any = None
        self._epochs: list[float] = []
        self._batch_began = 0.0

    @classmethod
    def of(cls, trainer: Trainer) -> "CrossFit":
        """The one of a trainer that trains or tests a method."""
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        return next(one for one in callbacks if isinstance(one, cls))

    @classmethod
    def held_out_in(cls, trainer: Trainer) -> "CrossFit | None":
        """The one of a trainer that has just found something, of any model; else ``None``."""
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        found = (one for one in callbacks if isinstance(one, cls) and one.held_out)
        return next(found, None) if trainer.state.fn == "fit" else None

    def answers(self, batch: ImageBatch, device: torch.device) -> dict[str, Tensor]:
        """What was found of the images of a batch, by the names of its fields."""
        found = [self.held_out[str(path)] for path in batch.image_path or ()]
        return {name: torch.stack([one[name] for one in found]).to(device) for name in found[0]}

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:  # noqa: ANN401 - a method
        """Keep what the model is before it learns anything."""
        if stage != "fit":
            return
        self.held_out, self.samples, self.seen, self.seconds = {}, [], [], 0.0
        self._epochs, self._untrained = [], None
        if not self._is_wanted(trainer, pl_module.data):
            return
        if pl_module.support.readiness.has_learnt:
            logger.warning(
                "the model was trained before, and may have seen any patient: no part of the "
                "support can be scored by a model that has not; begin with a new model for that"
            )
        else:
            self._untrained = _twin(pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count seconds of an epoch."""
        del trainer, pl_module
        self._epochs.append(0.0)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:  # noqa: ANN401
        """Begin to take the time of a batch."""
        del trainer, pl_module
        self._batch_began = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:  # noqa: ANN401
        """Take the time of a batch, and after the first epoch say what is to be expected."""
        self._epochs[-1] += time.perf_counter() - self._batch_began
        if self._asked and self._untrained and trainer.is_last_batch and len(self._epochs) == 1:
            parts = len(pl_module.data.support_folds(FOLDS))
            logger.info(
                "after training, %d parts of the support are scored by models trained without "
                "them: about %.0f s more",
                parts,
                self._cost(max(1, trainer.max_epochs or 1)) if parts else 0,
            )

    def score_apart(self, trainer: Trainer, pl_module: Any) -> None:  # noqa: ANN401 - a method
        """Now that training has ended, train without each part of the support, and score it."""
        if self._untrained is None:
            return
        folds = pl_module.data.support_folds(FOLDS)
        if not folds:
            logger.warning(
                "the support has too few patients to leave some out: the threshold comes from "
                "images that the model learnt from"
            )
            return
        expected = trainer.strategy.broadcast(self._cost(_epochs(trainer)))
        if self._asked is None and expected > AFFORDABLE:
            logger.warning(
                "the threshold comes from images that the model learnt from; --model.cross_fit "
                "true finds it by models that have not seen them, in about %.0f s more",
                expected,
            )
            return
        begun = time.perf_counter()
        for number, fold in enumerate(folds, start=1):
            images = len(fold.val_data)
            said = "scoring part %d of %d, %d images, by a model trained without its patients"
            logger.info(said, number, len(folds), images)
            with isolate_rng():
                self.held_out |= self._scored_apart(trainer, pl_module, fold)
            self.samples.append(fold.val_data.samples)
            # Lightning takes what it has trained off the device, and with it the shared tower.
            pl_module.to(trainer.strategy.root_device)
        self.seconds = time.perf_counter() - begun

    def _scored_apart(self, trainer: Trainer, module: Any, fold: Any) -> HeldOut:  # noqa: ANN401
        """Train a copy on a fold's support, and score its validation images."""
        twin = _twin(self._untrained)
        twin.features.lent = module.features.cache
        twin.hparams["epoch_choice"] = "last"  # nor may a part choose the model that scores it
        twin.post_processor = twin.evaluator = None  # of no use, and with words of their own
        scores = HeldOutScores()
        device = trainer.strategy.root_device
        with TemporaryDirectory() as scratch:
            apart = Trainer(
                max_epochs=_epochs(trainer),
                max_steps=_steps(trainer, fold),
                accelerator=device.type,
                devices=1 if device.index is None else [device.index],
                precision=trainer.precision,
                accumulate_grad_batches=trainer.accumulate_grad_batches,
                gradient_clip_val=trainer.gradient_clip_val,
                gradient_clip_algorithm=trainer.gradient_clip_algorithm,
                limit_train_batches=trainer.limit_train_batches,
                callbacks=[scores],
                num_sanity_val_steps=0,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                default_root_dir=scratch,
            )
            apart.fit(twin, datamodule=fold)
        self.seen += scores.seen
        return scores.found

    def _is_wanted(self, trainer: Trainer, data: DatamoduleView) -> bool:
        return bool(
            self._asked is not False
            and data.validates_on_support
            and data.has_folds
            and trainer.limit_val_batches
        )

    def _cost(self, epochs: int) -> float:
        """Seconds of training so many epochs for each part, without that part."""
        later = self._epochs[1:] or self._epochs  # in the first, the frozen tower was run
        return (FOLDS - 1) * epochs * sum(later) / len(later)


def _epochs(trainer: Trainer) -> int:
    """How many epochs were trained, the last of them perhaps in part."""
    progress: Any = trainer.fit_loop.epoch_progress.current
    return int(progress.processed)


def _steps(trainer: Trainer, fold: Any) -> int:  # noqa: ANN401 - a datamodule
    """Steps of a last epoch that was cut short, for the images there are; -1 is no limit."""
    if trainer.is_last_batch:
        return -1
    everything = len(trainer.datamodule.support_data)  # type: ignore[attr-defined]
    return max(1, round(trainer.global_step * len(fold.support_data) / everything))


def _twin(module: LightningModule) -> Any:  # noqa: ANN401 - a method
    """A copy that learns by itself; what is frozen is not copied, but shared."""
    return copy.deepcopy(module, {id(p): p for p in module.parameters() if not p.requires_grad})


class HeldOutScores(Callback):
    """Keeps what validation says of each image."""

    def __init__(self) -> None:
        self.found: HeldOut = {}
        self.seen: list[SeenImage] = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: Any,  # noqa: ANN401 - a method
        outputs: Any,  # noqa: ANN401 - a batch
        *_: Any,  # noqa: ANN401 - Lightning's
    ) -> None:
        """Take the answers of a batch."""
        del trainer
        self.seen += seen_images(outputs, pl_module.vectors)
        given = {"pred_score": outputs.pred_score, "anomaly_map": outputs.anomaly_map}
        for index, path in enumerate(outputs.image_path):
            self.found[str(path)] = {
                name: values[index].detach().cpu().clone()
                for name, values in given.items()
                if values is not None
            }
