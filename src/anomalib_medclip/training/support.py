"""What a method learns from its datamodule before it can score: words, support, images to keep.

A model and a datamodule meet through plain attributes and do not import each other. The datamodule
offers ``object_name``, ``object_names``, ``has_masks``, ``zero_shot``, ``intensity``, ``slicing``
(where its images are slices of volumes), ``support_data``, ``support_counts`` and
``validates_on_support``; the model offers ``wants_abnormal``, ``copies`` and
``default_batch_size``.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from anomalib import TaskType
from torch import Tensor

from anomalib_medclip.components.memory_bank import number_owners
from anomalib_medclip.components.processors import MedicalPreProcessor
from anomalib_medclip.errors import NotReadyError
from anomalib_medclip.training.text_features import Prompts

logger = logging.getLogger(__name__)


class MeetsData(Prompts):
    """Text features, support images and images to certify with, from whatever data there are."""

    pre_processor: Any
    keep_probes: Any
    _support_is_stale: bool
    _readied_for: int | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the paths of support images, which may name patients and must not be exported."""
        return {k: v for k, v in super().__getstate__().items() if k != "_owners"}

    def _data(self, name: str, *, default: Any) -> Any:  # noqa: ANN401 - any attribute
        """An attribute of the datamodule, where there is one that has it."""
        trainer = self._trainer
        return getattr(getattr(trainer, "datamodule", None), name, default)

    def _meet_data(self) -> None:
        task = self._data("task", default=TaskType.CLASSIFICATION)
        self.model.has_masks = self._data("has_masks", default=task == TaskType.SEGMENTATION)
        given = self.hparams.get("object_name")  # may be empty, for prompts without an object
        self.object_name = self._data("object_name", default="") if given is None else given
        if self.names_the_object and given is None and not self.object_name:
            msg = "the data do not say what the images show; pass --model.object_name"
            raise NotReadyError(msg)
        if isinstance(self.pre_processor, MedicalPreProcessor):
            self.pre_processor.intensity = self._data("intensity", default=None)
            slicing = self._data("slicing", default=None)
            self.pre_processor.slicing = slicing and slicing.as_plain()

    def _other_names(self) -> set[str]:
        """What the images of other sets show that batches may come from."""
        names = self._data("object_names", default=[]) if self.names_the_object else []
        return set(names) - {self.object_name}

    def _make_ready(self) -> None:
        """Without training: encode prompts and fit the support, as far as the data allow."""
        trainer: Any = self._trainer
        data = self._data("object_name", default="") and id(trainer.datamodule)
        untrained = self.model.text.numel() == 0 or self._readied_for is not None
        if data and untrained and data != self._readied_for:
            self._readied_for = data
            self._meet_data()
            self._refresh_text(set())
            self._support_is_stale = True
            self._refit_support()
            self._keep_probes()
        elif self.model.text.numel() and self._support_is_stale:
            if self._needs_support() and self._data("support_data", default=None) is None:
                msg = (
                    "the checkpoint was saved in the middle of training, before its support images "
                    "were fitted; pass the data it was trained on, or a finished checkpoint"
                )
                raise NotReadyError(msg)
            self._refit_support()
        elif self.names_the_object:
            self._mind_the_words()

    def _needs_support(self) -> bool:
        return hasattr(self.model, "fit_support") and getattr(self.model, "few_shot", True)

    def _mind_the_words(self) -> None:
        """Score with the words asked for, else with those of training, and say so."""
        given, data = self.hparams.get("object_name"), self._data("object_name", default="")
        if given is not None and given != self.object_name:
            self.object_name = given
            self._refresh_text(set())
        elif data and data != self.object_name:
            logger.warning(
                "the prompts say %r, as in training, and the data %r; --model.object_name decides",
                self.object_name,
                data,
            )

    def _keep_probes(self) -> None:
        """Keep images to certify exports with: of the support, or else of validation."""
        validation = self._data("val_data", default=None)
        images = self._data("support_data", default=None) or validation
        if images is not None:
            self.keep_probes(images)

    def _refit_support(self) -> None:
        """Hand the support images to the model, unless its adapters are as they were then."""
        if not self._support_is_stale:
            return
        self._support_is_stale = False
        # Validation runs in inference mode, whose tensors could never be loaded into again.
        with torch.inference_mode(mode=False):
            if self._prompts_learn:
                self._refresh_text(self._other_names())
            support = self._data("support_data", default=None)
            if support is not None and hasattr(self.model, "fit_support"):
                self._fit_support([support[index] for index in range(len(support))])

    def _fit_support(self, items: Sequence[Any]) -> None:
        images = torch.stack([item.image for item in items]).as_subclass(Tensor)
        labels = [bool(item.gt_label) for item in items]
        paths = [str(item.image_path) for item in items]
        owners = number_owners([item.group for item in items], labels)
        self._owners = dict(zip(paths, owners, strict=True))
        support = self._encode(
            images, paths, [0] * len(items), [self.augmentations_of(a)[0] for a in labels]
        )
        abnormal = torch.tensor(labels)
        normal = [path for path, ill in zip(paths, labels, strict=True) if not ill]
        copies = [support[~abnormal]]  # the first copy is the image itself
        for number, augment in list(enumerate(self.augmentations_of(abnormal=False)))[1:]:
            numbers, augmentations = [number] * len(normal), [augment] * len(normal)
            copies.append(self._encode(images[~abnormal], normal, numbers, augmentations))
        self.model.fit_support(
            support,
            torch.stack(copies),
            abnormal.to(self.device),
            torch.tensor(owners, device=self.device),
        )
