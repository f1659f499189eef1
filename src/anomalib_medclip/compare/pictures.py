"""Which test images are kept to look at, and what they look like."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import UInt8
from pandas import DataFrame
from torch import Tensor
from torchvision.transforms.v2 import Resize

from anomalib_medclip.compare.cell_record import Arrays
from anomalib_medclip.compare.dataset_result import KeptPictures
from anomalib_medclip.data.datamodule import MedicalDataModule
from anomalib_medclip.data.few_shot import common_folder

PICTURE_SIDE = 128
"""Height and width of pictures and maps that are kept."""

_OF_EACH_CLASS = 24
_VOLUMES = 2


def paths_to_keep(data: MedicalDataModule) -> list[str]:
    """Paths of the test images to keep, the same for every model: some of each class, by name.

    Of volumes also all slices of those with the most abnormal ones.
    """
    table = data.test_data.samples
    base = common_folder(table)
    order = table["image_path"].map(
        lambda path: hashlib.sha256(str(Path(path).relative_to(base)).encode()).hexdigest()
    )
    shuffled = table.loc[order.sort_values().index]
    kept = set(shuffled.groupby("label_index").head(_OF_EACH_CLASS)["image_path"])
    return sorted(kept | set(_stacks(data)))


def _stacks(data: MedicalDataModule) -> dict[str, tuple[str, int]]:
    """Of each slice of the volumes that are kept whole, by path: which one's, and its number."""
    table = data.test_data.samples
    if data.in_files and not data.stacks:
        return {}
    above = Path(common_folder(table)).parent
    whole = table["image_path"].map(lambda path: Path(path).parent.relative_to(above).as_posix())
    volumes = table["group"] if data.in_files else whole
    ill = table.groupby(volumes)["label_index"].sum().sort_values(ascending=False, kind="stable")
    rows = zip(table["image_path"], volumes, strict=True)
    return {
        path: (str(volume), int(Path(path).stem.rpartition("_")[2]))
        for path, volume in rows
        if volume in ill.index[:_VOLUMES]
    }


def keep(
    data: MedicalDataModule, maps: Mapping[str, npt.NDArray[np.uint8]], prefix: str
) -> tuple[KeptPictures, Arrays]:
    """What the record says of the pictures kept, and the pictures themselves.

    Pictures are ``(image, side, side)`` with the side ``PICTURE_SIDE``, and a last axis of 3 if any
    is coloured; they are as the methods see them, square. Lesions and maps are ``(image, side,
    side)``; all are in 0 to 255.

    Args:
        data: The data, after a test.
        maps: Map of each image, by its path.
        prefix: Begins the names of the arrays.
    """
    table = data.test_data.samples
    index_of = {path: index for index, path in enumerate(table["image_path"])}
    paths = paths_to_keep(data)
    found = load_pictures(data, [index_of[path] for path in paths])
    if set(paths) <= set(maps):
        found["maps"] = np.stack([maps[path] for path in paths])
    named = {kind: f"{prefix}{kind}" for kind in found}
    stacks = _stacks(data)
    places = [stacks.get(path, ("", 0)) for path in paths]
    kept = KeptPictures(
        image=tuple(index_of[path] for path in paths),
        volume=tuple(volume for volume, _ in places),
        slice=tuple(number for _, number in places),
        pictures=named["pictures"],
        masks=named.get("masks"),
        maps=named.get("maps"),
    )
    return kept, {named[kind]: array for kind, array in found.items()}


def load_pictures(data: MedicalDataModule, positions: Sequence[int]) -> Arrays:
    """Pictures of some test images and, where the data have masks, their lesions; see ``keep``."""
    shown = data._dataset(data.test_data.samples)
    shown.augmentations = Resize((PICTURE_SIDE, PICTURE_SIDE), antialias=True)
    items: list[Any] = [shown[index] for index in positions]
    colours = np.stack([as_255ths(item.image) for item in items]).transpose(0, 2, 3, 1)
    grey = bool((colours == colours[..., :1]).all())
    masks = [as_255ths(item.gt_mask) for item in items if item.gt_mask is not None]
    found: Arrays = {"pictures": colours[..., 0] if grey else colours}
    return found | ({"masks": np.stack(masks)} if masks else {})


def relative_paths(table: DataFrame) -> list[str]:
    """Path of each image below the folder of all."""
    base = common_folder(table)
    return [str(Path(path).relative_to(base)) for path in table["image_path"]]


def as_255ths(values: Tensor) -> UInt8[np.ndarray, "*any"]:
    """Numbers in [0, 1] as whole 255ths."""
    plain = values.detach().as_subclass(Tensor).float().cpu()
    return (plain.clamp(0, 1) * 255).round().byte().numpy()
