"""When a model has seen its support, and what it is told of it."""

from collections.abc import Sequence
from enum import Enum
from typing import Any

import torch
from anomalib.data import ImageBatch
from torch import Tensor

from anomalib_medclip.components.familiar import SeenImage, seen_images
from anomalib_medclip.components.memory_bank import number_owners
from anomalib_medclip.components.model import ClipModel
from anomalib_medclip.data.batch import collate
from anomalib_medclip.errors import NotReadyError
from anomalib_medclip.training.datamodule_view import DatamoduleView
from anomalib_medclip.training.frozen_features import FrozenFeatures


class Readiness(Enum):
    """What a model knows, and whether its memory of the support fits its adapters."""

    NEW = "nothing but its initial weights"
    READIED = "initial weights, and the words and support of some data"
    STALE = "trained since it has last seen its support"
    FITTED = "trained, and has seen its support since"

    @property
    def has_learnt(self) -> bool:
        """Whether it was trained, here or before it was restored."""
        return self in (Readiness.STALE, Readiness.FITTED)

    @property
    def is_stale(self) -> bool:
        """Whether it has to see its support before it scores."""
        return self in (Readiness.NEW, Readiness.STALE)


_ONCE_FITTED = {Readiness.NEW: Readiness.READIED, Readiness.STALE: Readiness.FITTED}
"""What becomes of a model that sees its support."""


class SupportFitter:
    """Hands the support images to the model whenever its adapters have changed.

    Args:
        model: What fits itself to the support.
        features: Where frozen features come from.

    Attributes:
        readiness: What the model knows.
        compared_with: How many normal images were handed over; ``None`` before that.
    """

    def __init__(self, model: ClipModel, features: FrozenFeatures) -> None:
        self.readiness = Readiness.NEW
        self.compared_with: int | None = None
        self._model, self._features = model, features
        self._owners: dict[str, int] = {}
        self._data: int | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the paths of support images, which may name patients and must not be exported."""
        return self.__dict__ | {"_owners": {}, "_data": None}

    def begin(self) -> None:
        """A training begins: what was readied without one is nothing to build on."""
        if self.readiness is Readiness.READIED:
            self.readiness = Readiness.NEW

    def learnt(self) -> None:
        """The adapters have changed."""
        self.readiness = Readiness.STALE

    def wants(self, data: DatamoduleView) -> bool:
        """Whether these data have to be met before anything is scored without a training."""
        if self.readiness.has_learnt or data.identity is None:
            return False
        return self.readiness is Readiness.NEW or data.identity != self._data

    def ready(self, data: DatamoduleView, pre_processor: Any) -> None:  # noqa: ANN401
        """Take words and support of these data, without a training."""
        self.readiness, self._data = Readiness.NEW, data.identity
        self.refit(data, pre_processor)

    def refit(self, data: DatamoduleView, pre_processor: Any) -> None:  # noqa: ANN401
        """Hand over the support images, unless the adapters are as they were then.

        Where training is on the normal images of a split, hand over these.

        Args:
            data: Whose support it is.
            pre_processor: What images of batches pass, of any making; ``None`` for nothing.
        """
        if not self.readiness.is_stale:
            return
        self.readiness = _ONCE_FITTED[self.readiness]
        if self._model.has_memory and data.has_support:
            self._fit(data, pre_processor)

    def check(self, data: DatamoduleView) -> None:
        """Refuse data that cannot finish a checkpoint from the middle of training.

        Raises:
            NotReadyError: The support images that it takes are not at hand.
        """
        needed = self._model.has_memory and self._model.few_shot
        if needed and not data.has_support:
            msg = (
                "the checkpoint was saved in the middle of training, before its support images "
                "were fitted; pass the data it was trained on, or a finished checkpoint"
            )
            raise NotReadyError(msg)

    def restored(self, *, is_stale: bool) -> None:
        """A checkpoint was loaded, with its memory or, if that is stale, without."""
        self.readiness = Readiness.STALE if is_stale else Readiness.FITTED

    def leave_out(self, batch: ImageBatch) -> Tensor | None:
        """Owner of each image that was handed over here, -1 for others; ``None`` if none was."""
        if not self._owners:
            return None
        owners = [self._owners.get(path, -1) for path in batch.image_path or ()]
        return torch.tensor(owners, device=self._model.device)

    def seen(self, data: DatamoduleView, pre_processor: Any) -> list[SeenImage]:  # noqa: ANN401
        """What the frozen tower says of the support; of nothing where nobody drew one.

        Args:
            data: Whose support it is.
            pre_processor: What images of batches pass, of any making; ``None`` for nothing.
        """
        if data.support_data is None:
            return []
        batch = collate(data.support_items())
        if pre_processor is not None:
            batch.image = pre_processor(batch.image)
        encoded = self._features.of_batch(batch)
        return seen_images(batch, self._features.vectors_of(batch, encoded))

    def _fit(self, data: DatamoduleView, pre_processor: Any) -> None:  # noqa: ANN401 - as above
        items = data.compared_items(self._model.most_normal)
        images = torch.stack([item.image for item in items]).as_subclass(Tensor)
        images = images if pre_processor is None else pre_processor(images)
        labels = [bool(item.gt_label) for item in items]
        paths = [str(item.image_path) for item in items]
        self.compared_with = labels.count(False)
        owners = self._number(items, data)
        found, device = self._features.of_support(images, paths, labels), self._model.device
        self._model.fit_support(
            found.images,
            found.copies_of_normal,
            torch.tensor(labels, device=device),
            torch.tensor(owners, device=device),
        )

    def _number(self, items: Sequence[Any], data: DatamoduleView) -> list[int]:
        """Owner of each image handed over; those of other support images are known as well.

        These are scored without the images of their patients, too.
        """
        taken = {str(item.image_path) for item in items}
        support = [] if data.support_data is None else data.support_items()
        others = [item for item in support if str(item.image_path) not in taken]
        # Items of other data sets than ours know no patient.
        groups = [getattr(item, "group", "") for item in (*items, *others)]
        to_compare = [*(bool(item.gt_label) for item in items), *[True] * len(others)]
        owners = number_owners(groups, to_compare)
        paths = [str(item.image_path) for item in (*items, *others)]
        self._owners = dict(zip(paths, owners, strict=True))
        return owners[: len(items)]
