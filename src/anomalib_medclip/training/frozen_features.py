"""From a batch to what the frozen tower says of it: augmented as numbered, encoded once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from anomalib.data import ImageBatch
from lightning import LightningModule
from torch import Tensor

from anomalib_medclip.cache import Shelf, TensorCache
from anomalib_medclip.components.augmentation import Augmentation, apply_copies
from anomalib_medclip.files import as_json

_OF_TRAINING = (
    "seed", "lr", "object_name", "adapters", "epoch_choice", "cross_fit", "cache_memory",
    "transductive",
)  # fmt: skip
"""Options that do not change what the frozen tower says of an image; any other may. Copies of an
image are kept apart by the seed."""


class SharedFeatures(NamedTuple):
    """Frozen features that several runs share.

    Attributes:
        folder: Where they lie.
        data: What tells these images, and how they are read, from others of the same paths.
        gigabytes: Budget of the folder.
    """

    folder: Path
    data: str
    gigabytes: float


class EncodesOnce(LightningModule):
    """Frozen features of images that are seen in every epoch, from a cache.

    Attributes:
        augmentations: The fixed copies made of each support image and its mask; the first is the
            image.
        shared_features: Where features of other runs lie, for this run and its tests.
        features_found: How many of them were of use.
        lent_cache: The cache of another training on the same images, to be used instead of one of
            its own.
    """

    model: Any
    augmentations: Sequence[Augmentation]
    shared_features: SharedFeatures | None = None
    features_found = 0
    lent_cache: TensorCache | None = None
    _cache: TensorCache | None = None

    def augmentations_of(self, abnormal: bool) -> Sequence[Augmentation]:
        """The copies made of normal or of abnormal images, if more is done than to masks."""
        del abnormal
        return self.augmentations

    def __getstate__(self) -> dict[str, Any]:
        """Without the cache, which is of one run."""
        of_the_run = ("_cache", "lent_cache", "shared_features")
        return {k: v for k, v in super().__getstate__().items() if k not in of_the_run}

    def on_fit_end(self) -> None:
        """Let the cache go."""
        super().on_fit_end()
        self._close_cache()

    def on_test_end(self) -> None:
        """Let the cache go."""
        super().on_test_end()
        self._close_cache()

    def test_step(self, batch: Any, batch_idx: int, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Score a batch, of which other runs may have encoded images."""
        if self._cache is None:
            return super().test_step(batch, batch_idx, *args, **kwargs)
        return batch.update(**self.model.score(self._encoded(batch))._asdict())

    def _open_cache(self) -> None:
        precision = self.hparams["cache"]
        self._cache = self.lent_cache
        if self._cache is None and precision != "off":
            folder, memory = self.trainer.default_root_dir, self.hparams["cache_memory"]
            self._cache = TensorCache(memory, precision, folder, self._shelf())

    def _close_cache(self) -> None:
        if self._cache is not None:
            self.features_found += self._cache.found
        self._cache = None

    def _shelf(self) -> Shelf | None:
        """Features of other runs with the same tower, options and images."""
        if self.shared_features is None:
            return None
        options = {k: v for k, v in self.hparams.items() if k not in _OF_TRAINING}
        told = [type(self).__qualname__, self.model.clip.fingerprint, options]
        scope = as_json([*told, self.shared_features.data], sort_keys=True, default=str)
        return Shelf(self.shared_features.folder, scope, self.shared_features.gigabytes)

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
        # A copy may be drawn by the seed, the image itself is not.
        seed = self.hparams["seed"]
        named = zip(map(str, paths), numbers, strict=True)
        keys = [(path, number, seed) if number else (path, 0) for path, number in named]
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
