"""What travels to a model: anomalib's image batch, and where each image is from."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from anomalib import TaskType
from anomalib.data import AnomalibDataset, ImageBatch, ImageItem
from numpy.typing import NDArray
from pandas import DataFrame
from torchvision.transforms.v2 import Transform
from torchvision.tv_tensors import Image, Mask

from anomalib_medclip.data.shared_number import SharedLesionNumber
from anomalib_medclip.errors import MissingMaskError
from anomalib_medclip.files import fault_of
from anomalib_medclip.readers.intensity import IntensityPolicy
from anomalib_medclip.readers.lesion import IGNORED, LESION, MaskLabels, Outline
from anomalib_medclip.readers.lesion_number import LesionNumber
from anomalib_medclip.readers.picture import mask_of, read_image, read_outline

CLASS_NAMES = ("normal", "abnormal")
"""Words for the labels 0 and 1."""


@dataclass
class MedicalItem(ImageItem):
    """One image of shape ``(3, height, width)`` in [0, 1], and what a method may ask about it.

    Attributes:
        object_name: Words for the prompt, such as ``"retinal OCT"``.
        group: Patient of the image; empty where unknown.
        copy: Which of the method's augmentations to apply; 0 is the image itself.
        ignored: True at pixels of which nobody knows, ``(height, width)``; ``None`` if all are
            known.
    """

    object_name: str = ""
    group: str = ""
    copy: int = 0
    ignored: Mask | None = None


@dataclass
class MedicalBatch(ImageBatch):
    """Images ``(batch, 3, height, width)`` of one set: all have masks, or none has.

    Attributes:
        object_name: Words for the prompt, one per image and all the same.
        group: Patient of each image.
        copy: Which augmentation to apply to each image, shape ``(batch,)``.
        ignored: True at pixels of which nobody knows, as large as the masks, where they are not
            lesion; they count in no loss and in no figure. ``None`` if all are known.
    """

    item_class: ClassVar[type[MedicalItem]] = MedicalItem
    object_name: list[str] | None = None
    group: list[str] | None = None
    copy: torch.Tensor | None = None
    ignored: Mask | None = None


def collate(items: Sequence[MedicalItem]) -> MedicalBatch:
    """Stack items of one size into a batch.

    anomalib's own collation drops every mask of a batch in which one is missing, and enlarges
    images of different sizes without antialiasing; here the first is an error and the second
    cannot happen, because every dataset resizes.

    Raises:
        MissingMaskError: Some items have masks and some have none.
    """
    without = [item.image_path for item in items if item.gt_mask is None]
    if without and len(without) < len(items):
        msg = f"no mask for {without[0]}, but other images of its batch have one; give it a mask"
        raise MissingMaskError(msg)
    masks: list[Any] = [item.gt_mask for item in items if item.gt_mask is not None]
    images: list[Any] = [item.image for item in items]
    return MedicalBatch(
        image=torch.stack(images),
        gt_mask=torch.stack(masks) if masks else None,
        gt_label=torch.stack([torch.as_tensor(item.gt_label) for item in items]),
        image_path=[str(item.image_path) for item in items],
        mask_path=[str(item.mask_path or "") for item in items],
        object_name=[item.object_name for item in items],
        group=[item.group for item in items],
        copy=torch.tensor([item.copy for item in items]),
        ignored=_ignored(items),
    )


def _ignored(items: Sequence[MedicalItem]) -> Mask | None:
    if all(item.ignored is None for item in items):
        return None
    masks: list[Any] = [(item.gt_mask, item.ignored) for item in items]
    return Mask(torch.stack([torch.zeros_like(m) if one is None else one for m, one in masks]))


class MedicalDataset(AnomalibDataset):
    """Images of a table, each ``copies`` times for a model that augments.

    Normal images of a set with masks come with a mask of zeros, or with what theirs says is not
    known; sets without masks have none.

    Args:
        samples: Table with the columns that ``MedicalDataModule.load_table`` lists.
        intensity: What to do with images of more than 8 bits.
        copies: How often each image comes, numbered by ``MedicalItem.copy``.
        in_memory: Keep what was read and resized, for a few images seen very often.
        labels: What the numbers of masks mean.
        numbers: By set, the number that means lesion, which other splits share.

    Raises:
        MaskError: When a mask is read that marks lesions by another number than one of its set that
            was read before, whichever process has read it.
    """

    def __init__(
        self,
        samples: DataFrame,
        intensity: IntensityPolicy = None,
        copies: int = 1,
        in_memory: bool = False,
        labels: MaskLabels = MaskLabels(),
        numbers: dict[str, LesionNumber] | None = None,
    ) -> None:
        self._memory: dict[int, tuple[Image, Mask | None]] = {}
        super().__init__()
        self.intensity = intensity
        self.copies = copies
        self.in_memory = in_memory
        self.mask_labels = labels
        self._numbers = {} if numbers is None else numbers
        for name in samples["set_name"].unique():
            self._numbers.setdefault(name, SharedLesionNumber())
        samples = samples.copy()
        masks = bool(samples["has_masks"].any())
        samples.attrs["task"] = TaskType.SEGMENTATION if masks else TaskType.CLASSIFICATION
        self.samples = samples

    @property
    def augmentations(self) -> Transform | None:
        """What every image and its mask pass through together: the model's resize."""
        return self._augmentations

    @augmentations.setter
    def augmentations(self, transform: Transform | None) -> None:
        self._augmentations = transform
        self._memory.clear()

    @property
    def set_names(self) -> list[str]:
        """Name of the set of every item, copies included."""
        return list(self.samples["set_name"]) * self.copies

    @property
    def collate_fn(self) -> Callable[..., MedicalBatch]:
        """How items become a batch."""
        return collate

    def __len__(self) -> int:
        """Return the number of images times the number of copies."""
        return len(self.samples) * self.copies

    def __getitem__(self, index: int) -> MedicalItem:
        """Read one image, shape ``(3, height, width)`` in [0, 1]; copies follow one another."""
        if not 0 <= index < len(self):
            msg = f"index {index} is outside the {len(self)} items"
            raise IndexError(msg)
        copy, row = divmod(index, len(self.samples))
        sample = self.samples.iloc[row]
        image, mask = self._memory.get(row) or self._read(sample)
        if self.in_memory:
            self._memory[row] = image, mask
        return MedicalItem(
            image=image,
            gt_mask=None if mask is None else Mask(mask == LESION),
            gt_label=torch.tensor(int(sample["label_index"])),
            image_path=str(sample["image_path"]),
            mask_path=str(sample["mask_path"]),
            object_name=str(sample["object_name"]),
            group=str(sample["group"]),
            copy=copy,
            ignored=Mask(mask == IGNORED) if mask is not None and (mask == IGNORED).any() else None,
        )

    def lesions(self) -> Iterator[NDArray[np.bool_]]:
        """The mask of each abnormal image that has one, at the image's own size."""
        outlined = self.samples["has_masks"].astype(bool) & (self.samples["label_index"] == 1)
        for _, sample in self.samples[outlined].iterrows():
            yield self._lesion(sample)

    def _lesion(self, sample: Any) -> NDArray[np.bool_]:  # noqa: ANN401 - a row of any table
        return self._outline(sample).lesion

    def _outline(self, sample: Any) -> Outline:  # noqa: ANN401 - a row of any table
        outline = read_outline(sample["mask_path"], self.mask_labels)
        self._numbers[sample["set_name"]].meet(outline.number, sample["mask_path"])
        return outline

    def _read(self, sample: Any) -> tuple[Image, Mask | None]:  # noqa: ANN401 - a row of any table
        """Read image and mask, and pass both through the augmentations."""
        image = read_image(sample["image_path"], self.intensity)
        size = (image.shape[-2], image.shape[-1])
        if not sample["has_masks"]:
            return (self.augmentations(image) if self.augmentations else image), None
        mask = Mask(torch.zeros(size, dtype=torch.uint8))
        is_normal, path = sample["label_index"] == 0, sample["mask_path"]
        if not is_normal or (self.mask_labels.ignored and fault_of(path) is None):
            mask = mask_of(self._outline(sample), path, size, may_be_empty=is_normal)
        return self.augmentations(image, mask) if self.augmentations else (image, mask)


class SliceDataset(MedicalDataset):
    """Slices of volumes, which are no files of their own.

    Args:
        samples: As for ``MedicalDataset``; ``image_path`` is what ``read`` understands.
        read: Gives a slice ``(3, height, width)`` in [0, 1] and its mask ``(height, width)``.
        copies: How often each slice comes.
        in_memory: Keep what was resized.
    """

    def __init__(
        self,
        samples: DataFrame,
        read: Callable[[str], tuple[Image, Mask]],
        copies: int = 1,
        in_memory: bool = False,
    ) -> None:
        self._read_slice = read
        super().__init__(samples, copies=copies, in_memory=in_memory)

    @property
    def samples(self) -> DataFrame:
        """The table."""
        return super().samples

    @samples.setter
    def samples(self, samples: DataFrame) -> None:
        """Take a table; anomalib's own setter wants every image to be a file."""
        self._samples = samples.sort_values(by="image_path", ignore_index=True)

    def _lesion(self, sample: Any) -> NDArray[np.bool_]:  # noqa: ANN401 - a row of any table
        return self._read_slice(sample["image_path"])[1].numpy() == LESION

    def _read(self, sample: Any) -> tuple[Image, Mask | None]:  # noqa: ANN401 - a row of any table
        image, mask = self._read_slice(sample["image_path"])
        if not sample["has_masks"]:
            return (self.augmentations(image) if self.augmentations else image), None
        return self.augmentations(image, mask) if self.augmentations else (image, mask)
