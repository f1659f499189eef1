"""How the picture of each image is named, so that no two have one name."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anomalib.data import PredictDataset
from lightning import Trainer
from torch.utils.data import DataLoader


def picture_name(path: Path, base: Path) -> Path:
    """Path of a picture below the pictures' folder, different for every image.

    Example:
        >>> picture_name(Path("/data/test/good/1.jpg"), Path("/data/test"))
        PosixPath('good/1.jpg.png')
    """
    relative = _plain(path).relative_to(base)
    # Only names with one ending may keep it: 1.jpg and 1.jpg.png can lie side by side.
    keeps = path.suffix == ".png" and "." not in path.stem
    return relative if keeps else relative.with_name(relative.name + ".png")


def common_folder(paths: Sequence[str | Path]) -> Path:
    """The folder that all images lie in, or below."""
    return Path(os.path.commonpath([_plain(path).parent for path in paths]))


def _plain(path: str | Path) -> Path:
    """Absolute and without ``..``, which would lead out of the pictures' folder."""
    return Path(os.path.normpath(Path(path).absolute()))


def loaders_of(trainer: Trainer) -> list[Any]:
    """Those of the evaluation at hand."""
    loaders: Any = trainer.predict_dataloaders if trainer.predicting else trainer.test_dataloaders
    return loaders if isinstance(loaders, list) else [loaders]


def paths_under_evaluation(trainer: Trainer, dataloader_idx: int) -> list[str | Path]:
    """Every image of a loader, those of other processes, too.

    Raises:
        TypeError: It is no ``DataLoader``, which knows its data.
    """
    loader = loaders_of(trainer)[dataloader_idx]
    if not isinstance(loader, DataLoader):
        msg = f"cannot name pictures of a {type(loader).__name__}; pass a torch DataLoader"
        raise TypeError(msg)
    dataset: Any = loader.dataset
    if isinstance(dataset, PredictDataset):
        return list(dataset.image_filenames)
    return list(dataset.samples.image_path)


def name_pictures(trainer: Trainer) -> dict[str, Path]:
    """The picture of each image under evaluation, by the image's path, below their folder."""
    names = dict[str, Path]()
    for number in range(len(loaders_of(trainer))):
        paths = paths_under_evaluation(trainer, number)
        base = common_folder(paths)
        names |= {str(path): picture_name(Path(path), base) for path in paths}
    return names
