"""What a method learns from its datamodule before it can score: words, support, images to keep.

A model and a datamodule meet through plain attributes and do not import each other. The datamodule
offers ``object_name``, ``object_names``, ``has_masks``, ``zero_shot``, ``intensity``,
``support_data`` and ``validates_on_support``; the model offers ``wants_abnormal``, ``copies`` and
``default_batch_size``.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from anomalib import TaskType
from anomalib.data import ImageBatch
from torch import Tensor

from anomalib_medclip.components.encoding import EncodesOnce
from anomalib_medclip.components.memory_bank import number_owners
from anomalib_medclip.components.processors import MedicalPreProcessor
from anomalib_medclip.components.prompts import ensemble
from anomalib_medclip.components.towers import TextTower
from anomalib_medclip.errors import NotReadyError


class MeetsData(EncodesOnce):
    """Text features, support images and images to certify with, from whatever data there are."""

    pre_processor: Any
    object_name: str
    keep_probes: Any
    _support_is_stale: bool
    _texts: Mapping[str, Tensor] = MappingProxyType({})
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
        self.object_name = self.hparams["object_name"] or self._data("object_name", default="")
        if not self.object_name:
            msg = "the data do not say what the images show; pass --model.object_name"
            raise NotReadyError(msg)
        if isinstance(self.pre_processor, MedicalPreProcessor):
            self.pre_processor.intensity = self._data("intensity", default=None)

    def _other_names(self) -> set[str]:
        """What the images of every set show that batches may come from."""
        return set(self._data("object_names", default=[]))

    def _encode_prompts(self, names: set[str]) -> None:
        """Add text features of sets; the text tower is let go after that."""
        missing = sorted(names - self._texts.keys())
        if missing:
            tower = TextTower(self.model.clip.backbone).to(self.device)
            found = {name: ensemble(tower, name) for name in missing}
            self._texts = {**self._texts, **found}

    def _own_text(self, batch: ImageBatch) -> dict[str, Any]:
        """The text features of a batch's own set, if it is not the target."""
        names = getattr(batch, "object_name", None) or [self.object_name]
        if names[0] == self.object_name:
            return {}
        return {"text": self._texts[names[0]].to(self.device)}

    def _make_ready(self) -> None:
        """Without training: encode prompts and fit the support, as far as the data allow."""
        trainer: Any = self._trainer
        data = self._data("object_name", default="") and id(trainer.datamodule)
        untrained = self.model.text.numel() == 0 or self._readied_for is not None
        if data and untrained and data != self._readied_for:
            self._readied_for = data
            self._meet_data()
            self._encode_prompts({self.object_name})
            self.model.text = self._texts[self.object_name]
            self._support_is_stale = True
            self._refit_support()
            self._keep_probes()
        elif self.model.text.numel() and self._support_is_stale:
            if self._data("support_data", default=None) is None:
                msg = (
                    "the checkpoint was saved in the middle of training, before its support images "
                    "were fitted; pass the data it was trained on, or a finished checkpoint"
                )
                raise NotReadyError(msg)
            self._refit_support()

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
            self._refresh_text()
            support = self._data("support_data", default=None)
            if support is not None and hasattr(self.model, "fit_support"):
                self._fit_support([support[index] for index in range(len(support))])

    def _refresh_text(self) -> None:
        """Nothing to do where prompts are fixed."""

    def _fit_support(self, items: Sequence[Any]) -> None:
        images = torch.stack([item.image for item in items]).as_subclass(Tensor)
        labels = [bool(item.gt_label) for item in items]
        paths = [str(item.image_path) for item in items]
        owners = number_owners([item.group for item in items], labels)
        self._owners = dict(zip(paths, owners, strict=True))
        encoded = [
            self._encode(
                images,
                paths,
                [number] * len(items),
                [self.augmentations_of(abnormal)[number] for abnormal in labels],
            )
            for number in range(len(self.augmentations))
        ]
        self.model.fit_support(
            torch.stack(encoded),
            torch.tensor(labels, device=self.device),
            torch.tensor(owners, device=self.device),
        )
