"""What the frozen tower says of images: augmented as numbered, encoded once."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from anomalib.data import ImageBatch
from torch import Tensor

from anomalib_medclip.cache import CachePrecision, Shelf, TensorCache
from anomalib_medclip.components.augmentation import Augmentation, Copies, apply_copies
from anomalib_medclip.components.familiar import cell_vectors
from anomalib_medclip.components.model import ClipModel
from anomalib_medclip.files import as_json
from anomalib_medclip.metrics.known_pixels import ignored_of

_OF_TRAINING = {
    "seed", "lr", "loss_weights", "object_name", "prompts", "epoch_choice", "cross_fit",
    "cache_memory", "transductive", "decide_by", "insist",
}  # fmt: skip
"""Options that do not change what the frozen tower says of an image. Copies of an image are kept
apart by the seed."""


_AT_ONCE = 64
"""Images that are encoded together; a memory may be of hundreds."""


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


class SupportFeatures(NamedTuple):
    """What the frozen tower says of the support, as ``ClipModel.fit_support`` takes it."""

    images: Tensor
    copies_of_normal: Tensor


class FrozenFeatures:
    """Frozen features of images, kept while they are seen again and again.

    Args:
        model: Whose frozen tower it is.
        copies: The fixed copies of each support image.
        precision: How features are kept.
        memory: GB of memory for them; what exceeds it goes to disk.
        seed: Seed of copies that are drawn.
        scope: What tells these features from others of the same images.

    Attributes:
        shared: Where features of other runs lie, for this run and its tests.
        found: How many of them were of use.
        lent: The cache of another training on the same images, to be used instead of one's own.
    """

    def __init__(
        self,
        model: ClipModel,
        copies: Copies,
        precision: CachePrecision,
        memory: float,
        seed: int,
        scope: str,
    ) -> None:
        self.shared: SharedFeatures | None = None
        self.found = 0
        self.lent: TensorCache | None = None
        self.cache: TensorCache | None = None
        self.copies = copies
        self._model, self._precision, self._memory = model, precision, memory
        self._seed, self._scope = seed, scope
        self._vectors: dict[str, Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Without what is of one run."""
        return self.__dict__ | {"cache": None, "lent": None, "shared": None, "_vectors": {}}

    def open(self, folder: str | Path) -> None:
        """Begin to keep features; what memory does not hold goes to this folder."""
        self.cache = self.lent
        if self.cache is None and self._precision != "off":
            self.cache = TensorCache(self._memory, self._precision, folder, self._shelf())

    def open_shared(self, folder: str | Path) -> None:
        """The same, where other runs share theirs."""
        if self.shared is not None:
            self.open(folder)

    def close(self) -> None:
        """Let them go."""
        if self.cache is not None:
            self.found += self.cache.found
        self.cache, self._vectors = None, {}

    def of_batch(self, batch: ImageBatch) -> Tensor:
        """Frozen features of a batch, each image copied as numbered."""
        images = cast("Tensor", batch.image).as_subclass(Tensor)
        numbers = _numbers(batch)
        labels = [False] * len(images) if batch.gt_label is None else batch.gt_label.tolist()
        # Data of others' making may augment by chance; ours is the same in every epoch.
        paths = None if numbers is None else batch.image_path
        numbers = numbers or [0] * len(images)
        chosen = self.copies.of(labels, numbers)
        return self._encoded(images, paths, numbers, chosen)

    def vectors_of(self, batch: ImageBatch, encoded: Tensor) -> Tensor:
        """Vectors of a batch, by which images are told to be alike; each image has one for long.

        Args:
            batch: The images.
            encoded: What the frozen tower says of them.
        """
        paths = [str(path) for path in batch.image_path or ()]
        if not paths or any(path not in self._vectors for path in paths):
            patches = self._model.middle_patches(encoded)
            found = cell_vectors(patches).half().cpu()
            self._vectors.update(zip(paths, found, strict=False))
            return found
        return torch.stack([self._vectors[path] for path in paths])

    def masks_of(self, batch: ImageBatch) -> Tensor | None:
        """Masks ``(batch, 1, height, width)`` of zeros and ones, copied as the images are.

        They are NaN where what is ignored has a part in a pixel.
        """
        if batch.gt_mask is None:
            return None
        chosen = [self.copies.masks[n] for n in _numbers(batch) or [0] * len(batch.gt_mask)]

        def copied(mask: Tensor) -> Tensor:
            return apply_copies(mask.as_subclass(Tensor).float().unsqueeze(1), chosen)

        masks = (copied(batch.gt_mask) > 0.5).float()
        ignored = ignored_of(batch)
        return masks if ignored is None else masks.masked_fill(copied(ignored) > 0, torch.nan)

    def of_support(
        self, images: Tensor, paths: Sequence[str], labels: Sequence[bool]
    ) -> SupportFeatures:
        """Frozen features of support images, and of every copy of the normal ones.

        Args:
            images: ``(image, 3, side, side)`` in [0, 1].
            paths: Their names.
            labels: True for abnormal.
        """
        numbers = [0] * len(paths)
        support = self._encoded(images, paths, numbers, self.copies.of(labels, numbers))
        normal = ~torch.tensor(labels)
        names = [path for path, abnormal in zip(paths, labels, strict=True) if not abnormal]
        copies = [support[normal]]  # the first copy is the image itself
        for number, augment in list(enumerate(self.copies.normal))[1:]:
            numbers, chosen = [number] * len(names), [augment] * len(names)
            copies.append(self._encoded(images[normal], names, numbers, chosen))
        return SupportFeatures(support, torch.stack(copies))

    def _encoded(
        self,
        images: Tensor,
        paths: Sequence[str] | None,
        numbers: Sequence[int],
        augmentations: Sequence[Augmentation],
    ) -> Tensor:
        """Frozen features of images, by their paths and the numbers of their copies."""

        def compute(missing: list[int]) -> Tensor:
            copies = apply_copies(images[missing], [augmentations[i] for i in missing])
            parts = copies.to(self._model.device).split(_AT_ONCE)
            return torch.cat([self._model.encode(part) for part in parts])

        if self.cache is None or paths is None:
            return compute(list(range(len(images))))
        # A copy may be drawn by the seed, the image itself is not.
        named = zip(map(str, paths), numbers, strict=True)
        keys = [(path, number, self._seed) if number else (path, 0) for path, number in named]
        return self.cache.fetch(keys, compute).to(self._model.device)

    def _shelf(self) -> Shelf | None:
        """Features of other runs with the same tower, options and images."""
        if self.shared is None:
            return None
        scope = f"{self._scope} {self.shared.data}"
        return Shelf(self.shared.folder, scope, self.shared.gigabytes)


def scope_of(told: Sequence[str], options: Mapping[str, Any]) -> str:
    """What tells frozen features from others of the same images.

    Args:
        told: Of which method and tower they are.
        options: Those of the method; any may change what the tower says, but those of training.
    """
    of_tower = {k: v for k, v in options.items() if k not in _OF_TRAINING}
    return as_json([*told, of_tower], sort_keys=True, default=str)


def _numbers(batch: ImageBatch) -> list[int] | None:
    """Which copy each image is to become; batches of others' making know of none."""
    copy = getattr(batch, "copy", None)  # anomalib's batches have no such field
    return None if copy is None else copy.tolist()
