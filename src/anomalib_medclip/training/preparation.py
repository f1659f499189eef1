"""What has to be known before images are scored, with a training or without one."""

import logging
from typing import Any

import torch

from anomalib_medclip.components.model import ClipModel
from anomalib_medclip.components.processors import MedicalPreProcessor
from anomalib_medclip.errors import NotReadyError
from anomalib_medclip.export.exporter import CertifiedExporter
from anomalib_medclip.training.checkpoints import Notes
from anomalib_medclip.training.datamodule_view import DatamoduleView
from anomalib_medclip.training.support import Readiness, SupportFitter
from anomalib_medclip.training.text_features import TextFeatures

logger = logging.getLogger(__name__)


class Preparation:
    """Brings words, support and images to certify with from the data to those who need them.

    Args:
        model: What is to score.
        text: What its prompts say.
        support: Who hands over the support.
        exporter: Who keeps images to certify with.
        object_name: Words for the prompt that were asked for; may be empty, for prompts without an
            object.
        few_shot: Whether images to score are of the kind learnt from, where that was asked for.
    """

    def __init__(
        self,
        model: ClipModel,
        text: TextFeatures,
        support: SupportFitter,
        exporter: CertifiedExporter,
        object_name: str | None,
        few_shot: bool | None,
    ) -> None:
        self._model, self._text, self._support = model, text, support
        self._exporter = exporter
        self._asked_name, self._asked_few_shot = object_name, few_shot

    def meet(self, data: DatamoduleView, pre_processor: Any) -> None:  # noqa: ANN401 - of any making
        """Take over what the data say of their images.

        Raises:
            NotReadyError: They do not say what the images show, and the prompts need it; or they
                are zero-shot, and a comparison with their support was asked for.
        """
        self._model.has_masks = data.has_masks
        if self._asked_few_shot and self._model.has_memory and not data.has_support:
            msg = f"{type(self._model).__name__} is to compare with normal images of the target, "
            msg += f"and these data have none; give few-shot data, or {self._model.without_support}"
            raise NotReadyError(msg)
        if self._asked_few_shot is None:
            compares = data.has_support or not self._model.has_memory
            self._model.few_shot = compares and not data.zero_shot
        asked = self._asked_name
        self._text.object_name = data.object_name if asked is None else asked
        if self._text.names_the_object and asked is None and not data.object_name:
            msg = "the data do not say what the images show; pass --model.object_name"
            raise NotReadyError(msg)
        if isinstance(pre_processor, MedicalPreProcessor):
            if data.knows_intensity:
                pre_processor.intensity = data.intensity
            pre_processor.slicing = data.slicing

    def other_names(self, data: DatamoduleView) -> set[str]:
        """What the images of other sets show that batches may come from."""
        names = data.object_names if self._text.names_the_object else set()
        return names - {self._text.object_name}

    # Validation runs in inference mode, whose tensors could never be loaded into again.
    @torch.inference_mode(mode=False)
    def refit(
        self,
        data: DatamoduleView,
        pre_processor: Any,  # noqa: ANN401 - of any making
        *,
        keep_tower: bool = False,
    ) -> None:
        """Refit what depends on the adapters, if they have changed since.

        Args:
            data: Whose support it is.
            pre_processor: What its images pass.
            keep_tower: Whether prompts will change again.
        """
        if self._support.readiness.is_stale:
            if self._model.prompts.learns:
                self._text.refresh(self.other_names(data), keep_tower=keep_tower)
            self._support.refit(data, pre_processor)

    @torch.inference_mode(mode=False)
    def without_training(self, data: DatamoduleView, pre_processor: Any) -> None:  # noqa: ANN401
        """Encode prompts and fit the support, as far as the data allow.

        Raises:
            NotReadyError: The checkpoint is from the middle of training, and these data have no
                support to finish it with.
        """
        if self._support.wants(data):
            self.meet(data, pre_processor)
            self._text.refresh()
            self._support.ready(data, pre_processor)
            self.keep_probes(data)
        elif self._support.readiness is Readiness.STALE:
            self._support.check(data)
            self.refit(data, pre_processor)
        elif self._text.names_the_object:
            self._mind_the_words(data.object_name)

    def known(self) -> dict[str, Any]:
        """What a checkpoint notes of it."""
        model = {"has_masks": self._model.has_masks, "few_shot": self._model.few_shot}
        stale, probes = self._support.readiness.is_stale, self._exporter.probes
        return {"support_is_stale": stale, "probes": probes, "model": model}

    def restored(self, notes: Notes) -> None:
        """A checkpoint was loaded."""
        self._support.restored(is_stale=notes.support_is_stale)
        self._text.object_name = notes.object_name
        self._exporter.probes = notes.probes
        self._model.has_masks = notes.model["has_masks"]
        self._model.few_shot = notes.model.get("few_shot", self._model.few_shot)

    def keep_probes(self, data: DatamoduleView) -> None:
        """Keep images to certify exports with: of the support, of validation, or of training."""
        known = (data.support_data, data.val_data, data.train_data)
        if images := next((one for one in known if one), None):  # each may be empty
            self._exporter.keep_probes(images)

    def _mind_the_words(self, said: str) -> None:
        """Score with the words asked for, else with those of training, and say so."""
        asked, known = self._asked_name, self._text.object_name
        if asked is not None and asked != known:
            self._text.object_name = asked
            self._text.refresh()
        elif said and said != known:
            logger.warning(
                "the prompts say %r, as in training, and the data %r; --model.object_name decides",
                known,
                said,
            )
