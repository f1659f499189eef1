"""What travels from a dataset to a model: anomalib's image batch, and where each image is from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from anomalib.data import ImageBatch, ImageItem

from anomalib_medclip.errors import MissingMaskError


@dataclass
class MedicalItem(ImageItem):
    """One image of shape ``(3, height, width)`` in [0, 1], and what a method may ask about it.

    Attributes:
        object_name: Words for the prompt, such as ``"retinal OCT"``.
        group: Patient of the image; empty where unknown.
        copy: Which of the method's augmentations to apply; 0 is the image itself.
    """

    object_name: str = ""
    group: str = ""
    copy: int = 0


@dataclass
class MedicalBatch(ImageBatch):
    """Images ``(batch, 3, height, width)`` of one set: all have masks, or none has.

    Attributes:
        object_name: Words for the prompt, one per image and all the same.
        group: Patient of each image.
        copy: Which augmentation to apply to each image, shape ``(batch,)``.
    """

    item_class: ClassVar[type[MedicalItem]] = MedicalItem
    object_name: list[str] | None = None
    group: list[str] | None = None
    copy: torch.Tensor | None = None


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
    masks = [item.gt_mask for item in items if item.gt_mask is not None]
    return MedicalBatch(
        image=torch.stack([item.image for item in items]),
        gt_mask=torch.stack(masks) if masks else None,
        gt_label=torch.stack([torch.as_tensor(item.gt_label) for item in items]),
        image_path=[str(item.image_path) for item in items],
        mask_path=[str(item.mask_path or "") for item in items],
        object_name=[item.object_name for item in items],
        group=[item.group for item in items],
        copy=torch.tensor([item.copy for item in items]),
    )
