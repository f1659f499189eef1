"""APRIL-GAN's mosaic: four images of a class become one, with their masks."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.tv_tensors import Image, Mask

from anomalib_medclip.readers.resize import MethodResize


def mosaic(tiles: Sequence[Float[Tensor, "*channel _ _"]]) -> Float[Tensor, "*channel _ _"]:
    """Paste four pictures, or masks, row by row on a canvas twice as large as the first.

    Larger ones are cut, or covered by the next; smaller ones leave the canvas black.

    Example:
        >>> mosaic([torch.full((1, 1), float(number)) for number in range(4)])
        tensor([[0., 1.],
                [2., 3.]])
    """
    height, width = tiles[0].shape[-2:]
    canvas = tiles[0].new_zeros(*tiles[0].shape[:-2], 2 * height, 2 * width)
    for number, tile in enumerate(tiles):
        top, left = number // 2 * height, number % 2 * width
        room = canvas[..., top : top + tile.shape[-2], left : left + tile.shape[-1]]
        room.copy_(tile[..., : room.shape[-2], : room.shape[-1]])
    return canvas


class Drawn(NamedTuple):
    """A mosaic at the model's size: image in [0, 1], mask of zeros, ones and NaN for unknown."""

    image: Float[Tensor, "3 side side"]
    mask: Float[Tensor, "1 side side"]


class Mosaics:
    """Draws mosaics of training images, each of one set.

    A folder of the set is drawn first, which in MVTec AD is a kind of defect or what is good, then
    an image of the folder; four times, and an image may come twice.

    Args:
        data: The training images, of this package.
        resize: The model's.
        seed: Of whatever is drawn.
    """

    def __init__(self, data: Any, resize: MethodResize, seed: int) -> None:  # noqa: ANN401 - a data set
        self._raw, self._resize, self._seed = copy.deepcopy(data), resize, seed
        self._raw.augmentations = None  # images and masks at their own size
        table = data.samples
        self._number = {str(path): row for row, path in enumerate(table["image_path"])}
        self._set = list(table["set_name"])
        self._folders: dict[str, dict[Path, list[int]]] = {}
        for row, (name, path) in enumerate(zip(self._set, table["image_path"], strict=True)):
            self._folders.setdefault(name, {}).setdefault(Path(path).parent, []).append(row)

    def draw(self, path: str, probability: float, epoch: int, number: int = 0) -> Drawn | None:
        """With a probability, a mosaic of images of the same set; the same for the same seed.

        Args:
            path: Of the training image that it stands for.
            probability: How often there is one.
            epoch: Which epoch.
            number: Which copy of the image.
        """
        row = self._number[path]
        random = np.random.default_rng([self._seed, epoch, row, number])
        if random.random() >= probability:
            return None
        folders = list(self._folders[self._set[row]].values())
        chosen = [folders[random.integers(len(folders))] for _ in range(4)]
        items = [self._raw[int(random.choice(rows))] for rows in chosen]
        image = self._resize(Image(mosaic([one.image.as_subclass(Tensor) for one in items])))
        marks = self._resize(Mask(mosaic([_marks(one) for one in items]))).as_subclass(Tensor)
        mask = (marks == _LESION).float().masked_fill(marks == _IGNORED, torch.nan)
        return Drawn(image.as_subclass(Tensor), mask[None])


_LESION, _IGNORED = 1, 2


def _marks(item: Any) -> Tensor:  # noqa: ANN401 - an item of a data set
    """What is lesion and what nobody knows, as numbers that a resize does not mix."""
    marks: Tensor = item.gt_mask.as_subclass(Tensor).to(torch.uint8) * _LESION
    if item.ignored is None:
        return marks
    return marks.masked_fill(item.ignored.as_subclass(Tensor), _IGNORED)
