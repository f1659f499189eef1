"""Real images to certify exports with, and to calibrate integers with."""

from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from anomalib.data import AnomalibDataModule
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from anomalib_medclip.components.augmentation import ELEVEN_FOLD, all_copies
from anomalib_medclip.readers.resize import MethodResize

CALIBRATION = 300
"""How many validation images quantisation is calibrated with, at most; as NNCF advises."""

PROBES = 8
"""How many real images a checkpoint keeps to certify exports with."""

SCALES = ((0.6, 0.8), (1.5, 2.1), (3.3, 1.2))
"""Height and width of images that a graph is to resize, in sides of its square."""


def probes_of(dataset: Any) -> UInt8[Tensor, "image 3 side side"]:  # noqa: ANN401 - any data set of anomalib's
    """A few images of a data set, both classes in turn, and copies where there are few."""
    chosen = in_turn(dataset)[:PROBES]
    images = torch.stack([dataset[index].image for index in chosen]).as_subclass(Tensor)
    copies = all_copies(images, ELEVEN_FOLD)[:PROBES]
    return (copies.cpu() * 255).round().to(torch.uint8)


def of_validation(
    datamodule: AnomalibDataModule, resize: MethodResize
) -> list[Float[Tensor, "1 3 side side"]]:
    """Images of a datamodule to calibrate with, one by one, at the model's size."""
    datamodule.prepare_data()
    datamodule.setup("fit")
    items: Any = datamodule.val_data
    chosen = in_turn(items)[:CALIBRATION]
    return [resize(items[index].image).as_subclass(Tensor)[None] for index in chosen]


def at_other_sizes(
    images: Float[Tensor, "image 3 side side"],
) -> list[Float[Tensor, "image 3 height width"]]:
    """Images smaller and larger than a model's square, every second one of more than 8 bits."""
    side, images = images.shape[-1], images[:3]
    sizes = [(round(side * rows), round(side * columns)) for rows, columns in SCALES]
    found = [nn.functional.interpolate(images, size, mode="nearest") for size in sizes]
    for batch in found:
        batch[1::2] *= 0.9  # no more whole 255ths
    return found


def in_turn(dataset: Any) -> list[int]:  # noqa: ANN401 - any data set of anomalib's
    """Indices of a data set's images, normal and abnormal in turn."""
    abnormal = dataset.samples["label_index"].to_numpy() == 1
    pairs = zip_longest(np.flatnonzero(~abnormal), np.flatnonzero(abnormal))
    return [int(index) for pair in pairs for index in pair if index is not None]
