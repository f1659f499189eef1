"""Files that anomalib's prediction was given by path, and those of their folder that it leaves out.

It lists a folder by the endings of torchvision, and says nothing of the rest.
"""

import os
from collections.abc import Iterator, Sequence
from logging import getLogger
from pathlib import Path
from typing import Any

from anomalib.data import PredictDataset
from anomalib.data.utils import get_image_filenames
from anomalib.data.utils import read_image as read_by_anomalib
from lightning import Trainer
from torch.utils.data import DataLoader

from anomalib_medclip.errors import ImageReadError
from anomalib_medclip.readers.file_kind import is_volume, kind_of
from anomalib_medclip.readers.left_out import LeftOut, warn_of
from anomalib_medclip.readers.listing import files_below, is_picture, stranger
from anomalib_medclip.readers.masks_among import masks_among

logger = getLogger(__name__)


def files_given(trainer: Trainer) -> list[list[Path]]:
    """Of each loader, files by path, which anomalib reads with 8 bits.

    There are none where the data read their own.
    """
    loaders: Any = trainer.predict_dataloaders
    return [
        list(one.dataset.image_filenames)
        if isinstance(one, DataLoader) and isinstance(one.dataset, PredictDataset)
        else []
        for one in (loaders if isinstance(loaders, list) else [loaders])
    ]


def check_opened(path: Path) -> None:
    """Name a file that can be read here, but not by anomalib, which opens it before.

    Raises:
        ImageReadError: Of such a file.
    """
    try:
        read_by_anomalib(path)
    except Exception as error:  # its reader's own words are no help
        msg = f"{path} is read by this package, but not by anomalib's own prediction; give it to "
        msg += "anomalib-medclip score or anomalib_medclip.Inferencer, or convert it to PNG"
        raise ImageReadError(msg) from error


def warn_of_folder(listed: Sequence[Path]) -> None:
    """Log which files of a folder are not predicted, and which masks are, where a folder was given.

    Args:
        listed: What anomalib has made of the path that it was given.
    """
    folder = Path(os.path.commonpath([path.parent for path in listed]))
    if set(get_image_filenames(folder)) != set(listed):
        return  # some of its files were given one by one
    warn_of(list(_not_listed(folder, set(listed))))
    if masks := masks_among(listed, folder):
        logger.warning(
            "%s %s (1 of %d such), and is predicted as an image; move masks to another folder, or "
            "give this one to anomalib-medclip score, which leaves them out",
            masks[0].path, masks[0].reason, len(masks),
        )  # fmt: skip


def _not_listed(folder: Path, listed: set[Path]) -> Iterator[LeftOut]:
    for path in files_below(folder):
        if path in listed:
            continue
        kind = kind_of(path)
        if is_picture(path) or is_volume(path):
            name = kind.name if kind else "a picture"
            said = f"is {name}, which anomalib's prediction does not list"
            remedy = "give it to anomalib-medclip score or to anomalib_medclip.Inferencer"
            yield LeftOut(path, said, remedy)
        else:
            yield stranger(path)
