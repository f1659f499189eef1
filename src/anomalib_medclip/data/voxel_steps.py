"""What MONAI's dictionary transforms lack for slices: steps of their kind."""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.intensity.array import GaussianSmooth
from monai.transforms.transform import MapTransform
from torch.nn.functional import max_pool3d

from anomalib_medclip.readers.lesion import IGNORED, LESION


class ColumnOfd(MapTransform):
    """The column through all slices that holds a label, so that a crop to it keeps their numbers.

    Args:
        key: Labels of 0 and 1.
        column: Key of the column.
    """

    def __init__(self, key: str, column: str) -> None:
        super().__init__(key)
        self.column = column

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The data, with the column."""
        labels = data[self.keys[0]]
        return {**data, self.column: labels.amax(dim=-1, keepdim=True).expand_as(labels)}


class WidenedForSpacingd(MapTransform):
    """What a coarser grid would step over, spread so far that it is met.

    MONAI's resampling takes single points. Images are blurred, lesions, and around them what
    is ignored, grow by less than a voxel of the coarser grid: one on a single slice is then still
    there. For a finer grid nothing changes.

    Args:
        keys: ``image`` and lesions.
        spacing: That of the coming grid, in millimetres.
    """

    def __init__(self, keys: Sequence[str], spacing: tuple[float, float, float]) -> None:
        super().__init__(keys)
        self.spacing = spacing

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The data, as finely as before."""
        spread = dict(data)
        for key in self.key_iterator(spread):
            steps = torch.tensor(self.spacing) / spread[key].pixdim
            steps[torch.tensor(spread[key].shape[1:]) == 1] = 1  # there is nothing to step over
            if key == "image":
                sigma = [max(float(step) - 1, 0.0) / 2 for step in steps]
                blur = GaussianSmooth([one or 1e-6 for one in sigma])
                if any(sigma):  # beyond its edge the image is not black, but not there
                    inside = blur(torch.ones_like(spread[key].as_tensor()))
                    spread[key] = blur(spread[key]) / inside
            else:
                reach = [math.ceil((float(step) - 1) / 2) if step > 1 else 0 for step in steps]
                size = [2 * one + 1 for one in reach]
                labels = spread[key].as_tensor()
                lesion, ignored = (
                    max_pool3d((labels == mark).float(), size, stride=1, padding=reach)
                    for mark in (LESION, IGNORED)
                )
                marks = lesion * LESION + (1 - lesion) * ignored * IGNORED
                spread[key] = MetaTensor(marks, meta=spread[key].meta)
                spread[key].applied_operations = data[key].applied_operations
        return spread
