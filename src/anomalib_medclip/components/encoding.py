"""From a batch to what the frozen tower says of it: augmented as numbered, encoded once."""

from collections.abc import Sequence
from typing import Any, cast

from anomalib.data import ImageBatch
from lightning import LightningModule
from torch import Tensor

from anomalib_medclip.cache import TensorCache
from anomalib_medclip.components.augmentation import Augmentation, apply_copies


class EncodesOnce(LightningModule):
    """Frozen features of images that are seen in every epoch, from a cache.

    Attributes:
        augmentations: The fixed copies made of each support image and its mask; the first is the
            image.
    """

    model: Any
    augmentations: Sequence[Augmentation]
    _cache: TensorCache | None = None

    def augmentations_of(self, abnormal: bool) -> Sequence[Augmentation]:
        """The copies made of normal or of abnormal images, if more is done than to masks."""
        del abnormal
        return self.augmentations

    def __getstate__(self) -> dict[str, Any]:
        """Without the cache, which is of one run."""
        return {k: v for k, v in super().__getstate__().items() if k != "_cache"}

    def on_fit_end(self) -> None:
        """Let the cache go."""
        super().on_fit_end()
        self._cache = None

    def _open_cache(self) -> None:
        precision = self.hparams["cache"]
        self._cache = None
        if precision != "off":
            folder = self.trainer.default_root_dir
            self._cache = TensorCache(self.hparams["cache_memory"], precision, folder)

    def _examples(self, batch: ImageBatch) -> tuple[Tensor, Tensor | None, Tensor]:
        """What a training batch teaches: frozen features, masks if there are any, labels."""
        return self._encoded(batch), self._masks(batch), cast("Tensor", batch.gt_label)

    def _encoded(self, batch: ImageBatch) -> Tensor:
        """Frozen features of a batch, each image copied as numbered."""
        images = cast("Tensor", batch.image).as_subclass(Tensor)
        # Data of others' making may augment by chance; ours is the same in every epoch.
        paths = batch.image_path if hasattr(batch, "copy") else None
        return self._encode(images, paths, _numbers(batch), self._augmentations(batch))

    def _encode(
        self,
        images: Tensor,
        paths: Sequence[str] | None,
        numbers: Sequence[int],
        augmentations: Sequence[Augmentation],
    ) -> Tensor:
        """Frozen features of images, by their paths and the numbers of their copies."""

        def compute(missing: list[int]) -> Tensor:
            copies = apply_copies(images[missing], [augmentations[i] for i in missing])
            found: Tensor = self.model.encode(copies.to(self.device))
            return found

        if self._cache is None or paths is None:
            return compute(list(range(len(images))))
        keys = list(zip(map(str, paths), numbers, strict=True))
        return self._cache.fetch(keys, compute).to(self.device)

    def _masks(self, batch: ImageBatch) -> Tensor | None:
        """Masks ``(batch, 1, height, width)`` of zeros and ones, copied as the images are."""
        if batch.gt_mask is None:
            return None
        masks = batch.gt_mask.as_subclass(Tensor).float().unsqueeze(1)
        copies = [self.augmentations[number] for number in _numbers(batch)]
        return (apply_copies(masks, copies) > 0.5).float()

    def _augmentations(self, batch: ImageBatch) -> list[Augmentation]:
        numbers = _numbers(batch)
        labels = [False] * len(numbers) if batch.gt_label is None else batch.gt_label.tolist()
        pairs = zip(labels, numbers, strict=True)
        return [self.augmentations_of(bool(label))[number] for label, number in pairs]


def _numbers(batch: ImageBatch) -> list[int]:
    """Which copy each image is to become; data of others' making know of none."""
    copy = getattr(batch, "copy", None)
    return [0] * batch.batch_size if copy is None else copy.tolist()
