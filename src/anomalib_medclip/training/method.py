"""A method under Lightning and anomalib: the hooks of training, and the options all methods share.

Its parts have a state each: ``model`` computes, ``text`` holds what the prompts say, ``features``
what the frozen tower says, ``support`` hands over the support, ``preparation`` knows what has to be
known before images are scored, ``schedule`` when training validates, ``exporter`` certifies.
"""

import logging
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from anomalib.data import ImageBatch
from lightning.pytorch import Callback
from torch import Tensor

from anomalib_medclip.components.augmentation import Copies
from anomalib_medclip.components.familiar import FamiliarImages
from anomalib_medclip.components.model import ClipModel
from anomalib_medclip.decisions.decisions import Decisions
from anomalib_medclip.export.exporter import CertifiedExporter
from anomalib_medclip.export.verbs import ExportVerbs
from anomalib_medclip.training.callbacks import callbacks_of
from anomalib_medclip.training.checkpoints import (
    Notes,
    complete,
    mark_chosen,
    read_checkpoint,
    read_checkpoints_plainly,
    slim,
    switched_off,
)
from anomalib_medclip.training.cross_fit import CrossFit
from anomalib_medclip.training.datamodule_view import DatamoduleView
from anomalib_medclip.training.epoch_choice import put_best_back
from anomalib_medclip.training.frozen_features import FrozenFeatures, scope_of
from anomalib_medclip.training.gaps import refuse_or_warn, refuse_precision
from anomalib_medclip.training.hub import HubVerbs
from anomalib_medclip.training.options import SharedOptions
from anomalib_medclip.training.preparation import Preparation
from anomalib_medclip.training.schedule import Schedule, is_last_epoch, no_step, save_again
from anomalib_medclip.training.support import SupportFitter
from anomalib_medclip.training.text_features import TextFeatures
from anomalib_medclip.training.threshold_source import (
    keep_if_learnt_from,
    source_of,
    warn_of_guesses,
)

logger = logging.getLogger(__name__)


class ClipMethod(ExportVerbs, HubVerbs, SharedOptions):
    """What the methods share; a method derives from it and, after it, from ``AnomalibModule``.

    Its constructor names its own options, passes the others on, and gives the torch model to
    ``assemble``.

    Attributes:
        augmentations: The fixed copies made of each support image.
        default_batch_size: Training images a batch, where the data do not say.
        default_epochs: Epochs trained, where ``--trainer.max_epochs`` does not say.
        wants_abnormal: Whether it learns from abnormal images, too.
        makes_images: Whether each epoch has training images of its own, which nothing can keep.
        threshold_from: Which images the threshold was found on; empty while there is none.
        decisions: What volumes and patients are decided by; ``None`` before any validation.
        familiar: Images by which others are told to be like them; ``vectors``: of the last batch.
    """

    augmentations: Copies
    default_batch_size: ClassVar[int] = 1
    default_epochs: ClassVar[int] = 50
    wants_abnormal = True
    makes_images = False
    threshold_from = ""
    decisions: Decisions | None = None  # pickles of former versions have none
    familiar = FamiliarImages.none()
    vectors: Tensor | None = None
    model: ClipModel
    _trains_masks = False

    def assemble(self, model: ClipModel, few_shot: bool | None = None) -> None:
        """Take the torch model, and make the parts that serve it.

        Args:
            model: The method's.
            few_shot: See ``ClipModel.few_shot``; ``None`` to take it from the data.

        Raises:
            ConfigError: The words do not fit the method, or its backbone.
        """
        asked = self.say_words(model), few_shot
        self.model = model
        model.few_shot = few_shot is not False
        model.loss_weights = self.hparams.get("loss_weights") or {}
        options = self.hparams
        if adapters := options.pop("adapters", None):  # a checkpoint holds them; the file may go
            model.load_released(adapters)
        told = [type(self).__qualname__, model.clip.fingerprint, self.user_components.of_images]
        self.text = TextFeatures(model, self.names_the_object)
        cached = options["cache"], options["cache_memory"], options["seed"], scope_of(told, options)
        self.features = FrozenFeatures(model, self.augmentations, *cached)
        self.support = SupportFitter(model, self.features)
        self.schedule = Schedule(self.default_epochs)
        self.exporter = CertifiedExporter()
        self.preparation = Preparation(model, self.text, self.support, self.exporter, *asked)

    @property
    def data(self) -> DatamoduleView:
        """What the trainer's datamodule says of its images."""
        return DatamoduleView.of(self._trainer)

    @property
    def object_name(self) -> str:
        """What the images of the target show."""
        return self.text.object_name

    @property
    def features_found(self) -> int:
        """Images whose frozen features another run had computed."""
        return self.features.found

    @property
    def copies(self) -> int:
        """How many fixed augmentations of each image an epoch trains on."""
        return 1 if self.data.zero_shot else len(self.augmentations.masks)

    def configure_callbacks(self) -> list[Callback]:
        """See ``callbacks_of``."""
        components: Any = super().configure_callbacks()
        return callbacks_of(self.hparams, components, self._trainer)

    def configure_optimizers(self) -> torch.optim.Optimizer | None:
        """Adam on whatever requires a gradient, without weight decay; ``None`` if nothing does."""
        trained = [p for p in self.parameters() if p.requires_grad]
        if not trained:  # an ablation may leave nothing
            return None
        return torch.optim.Adam(trained, lr=self.learning_rate, betas=(0.5, 0.999))

    def setup(self, stage: str) -> None:
        """Learn from the datamodule what the images show, and settle epochs and seed."""
        read_checkpoints_plainly(self.trainer)
        refuse_precision(self.trainer)
        if stage != "fit":
            return
        self.user_components.check(self.trainer)
        self.preparation.meet(self.data, self.pre_processor)
        refuse_or_warn(self.data, self)
        self.features.open(self.trainer.default_root_dir)
        self.support.begin()
        self.exporter.checkpoint = None
        self.schedule.settle(self.trainer, chooses=self.hparams["epoch_choice"] == "validation")

    def on_fit_start(self) -> None:
        """Encode the prompts of every set trained on."""
        self.text.refresh(self.preparation.other_names(self.data), keep_tower=True)

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor | None:
        """Augment a batch and return its loss; ``None`` if nothing can learn from it."""
        del batch_idx
        self.support.learnt()
        self._trains_masks = self.schedule.is_finished = False
        if not self.model.learns_from(batch.gt_mask is not None):
            return no_step(self.trainer, self.model)
        encoded, masks, labels = self.examples(batch)
        self._trains_masks = masks is not None
        loss = self.model.loss(encoded, masks, labels, self.text.of_batch(batch, training=True))
        # A step counts as one, since of several processes each sees some of its images, or all.
        self.log("train_loss", loss, True, on_epoch=True, sync_dist=True, batch_size=1)
        return loss

    def examples(self, batch: ImageBatch) -> tuple[Tensor, Tensor | None, Tensor]:
        """What a training batch teaches: frozen features, masks if there are any, labels."""
        masks = self.features.masks_of(batch)
        return self.features.of_batch(batch), masks, cast("Tensor", batch.gt_label)

    def on_after_backward(self) -> None:
        """Take gradients from what this batch does not train; Adam then leaves it alone."""
        for parameter in self.model.idle_parameters(self._trains_masks):
            parameter.grad = None

    def on_validation_start(self) -> None:
        """Refit what depends on the adapters before thresholds are found with it."""
        if self.trainer.state.fn != "fit":
            self.preparation.without_training(self.data, self.pre_processor)
            self.text.encode(self.preparation.other_names(self.data), keep_tower=False)
            if not keep_if_learnt_from(self.post_processor, self.data):
                self.threshold_from = self._validated_with()
        elif not self.trainer.sanity_checking:
            self.ready_to_score()
            self.schedule.note_validation(self.trainer)
            self.threshold_from = self._validated_with()

    def validation_step(self, batch: Any, batch_idx: int) -> Any:  # noqa: ANN401 - a batch
        """Score a batch; support images without themselves, other sets with their own text."""
        del batch_idx
        if self._is_fitting and (cross_fit := CrossFit.of(self.trainer)).held_out:
            self.vectors = None
            return batch.update(**cast("Any", cross_fit.answers(batch, self.device)))
        on_support = self.data.validates_on_support
        again = self._is_fitting and (on_support or self.schedule.validates_often(self.trainer))
        encoded = self.features.of_batch(batch) if again else self.model.encode(batch.image)
        self.vectors = self.features.vectors_of(batch, encoded)
        text = self.text.of_batch(batch, training=False)
        leave_out = self.support.leave_out(batch) if on_support else None
        return batch.update(**self.model.score(encoded, text, leave_out)._asdict())

    def ready_to_score(self) -> None:
        """Refit what depends on the adapters, for whoever scores images between epochs."""
        self.preparation.refit(self.data, self.pre_processor, keep_tower=self._is_fitting)

    def on_train_epoch_end(self) -> None:
        """Validate at the end of training, however it came: thresholds need the last adapters."""
        if is_last_epoch(self.trainer):
            self._finish()
            put_best_back(self.trainer, self)

    def on_train_end(self) -> None:
        """Do so, too, where a callback has stopped training after its last epoch, and save it."""
        super().on_train_end()
        if not self.schedule.is_finished:
            self._finish()
            save_again(self.trainer)
        mark_chosen(self.trainer)

    def on_fit_end(self) -> None:
        """Let features and the text tower go."""
        super().on_fit_end()
        self.text.release()
        self.features.close()

    def on_test_start(self) -> None:
        """Make sure that there is something to score with."""
        self.preparation.without_training(self.data, self.pre_processor)
        warn_of_guesses(self.post_processor)
        self.features.open_shared(self.trainer.default_root_dir)

    def test_step(self, batch: Any, batch_idx: int, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - anomalib's
        """Score a batch, of which other runs may have encoded images."""
        if self.features.cache is None:
            return super().test_step(batch, batch_idx, *args, **kwargs)
        encoded = self.features.of_batch(batch)
        return batch.update(**self.model.score(encoded, self.model.known_text())._asdict())

    def on_test_end(self) -> None:
        """Let features go."""
        super().on_test_end()
        self.features.close()

    def on_predict_start(self) -> None:
        """Make sure that there is something to score with; say if it is not finished."""
        self.preparation.without_training(self.data, self.pre_processor)
        self.schedule.warn_if_unfinished()
        warn_of_guesses(self.post_processor)

    @property
    def _is_fitting(self) -> bool:
        return self.trainer.state.fn == "fit"

    def _finish(self) -> None:
        """Fit what depends on the adapters, and find the thresholds."""
        self.ready_to_score()
        self.preparation.keep_probes(self.data)
        (cross_fit := CrossFit.of(self.trainer)).score_apart(self.trainer, self)
        self.schedule.validate(self.trainer, anew=bool(cross_fit.held_out))
        self.schedule.is_finished = True

    def _validated_with(self) -> str:
        return source_of(self.data, self, apart=CrossFit.held_out_in(self.trainer) is not None)

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - Lightning's
        """As anomalib's, but no file is opened that the checkpoint names, except its backbone.

        Raises:
            CheckpointError: It is no checkpoint of this method.
            BackboneMismatchError: The weights it names are not those it was trained on.
        """
        found = read_checkpoint(checkpoint_path) if isinstance(checkpoint_path, str | Path) else {}
        held = {*cls.begins_from} - {*cls.no_use_for}
        given = {**dict.fromkeys(held), **switched_off(found), **kwargs}
        method: Any = super().load_from_checkpoint(checkpoint_path, *args, **given)
        if found:
            began = found.get("hyper_parameters", {})
            method.hparams.update({k: began[k] for k in held & began.keys() - kwargs.keys()})
            method.exporter.restored_from(checkpoint_path)
        return method

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out CLIP and, in a finished run, the optimiser; see ``checkpoints``."""
        super().on_save_checkpoint(checkpoint)
        finished = self.schedule.is_finished
        slim(checkpoint, Notes.of(self, **self.preparation.known(), is_finished=finished))
        if self._trainer is not None and is_last_epoch(self.trainer):
            checkpoint.update(optimizer_states=[], lr_schedulers=[])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check the backbone and restore what goes with the adapters; see ``checkpoints``.

        What has just gone on from a checkpoint is kept: anomalib's ``train`` would test that file.
        """
        if self.schedule.tests_where_it_resumed(self._trainer):
            logger.info("what was learnt is tested, not the checkpoint that training went on from")
            checkpoint.update(state_dict=self.state_dict(), callbacks={})
            return
        notes = complete(checkpoint, self)
        self.schedule.restored(self._trainer, is_finished=bool(notes.is_finished))
        super().on_load_checkpoint(checkpoint)
        self.preparation.restored(notes)
        notes.hand_to(self)
