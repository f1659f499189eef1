"""What a trainer's loggers are told of a test: its figures, and the pictures of its worst errors.

Lightning tells them losses, options and the four figures that a method logs. anomalib's visualizer
tells them nothing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from anomalib.loggers.base import ImageLoggerBase
from lightning import Trainer
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger
from PIL import Image

WORST = 8
"""Pictures of each class that a logger is given: a set may have thousands."""


class Pictured(NamedTuple):
    """A picture of a tested image, as ``HeatMapVisualizer`` draws it.

    Attributes:
        name: Its path below the pictures' folder, the same on every system.
        file: Where it lies.
    """

    name: str
    file: Path


def tell_figures(trainer: Trainer, record: Mapping[str, Any]) -> None:
    """Tell loggers every figure that a test has found, and both ends of its interval.

    Args:
        trainer: Which has tested.
        record: What ``run_record`` gives. A figure that is ``None`` is not told.
    """
    ends = {"value": "", "low": "_low", "high": "_high"}
    figures = {
        f"{name}{ending}": found[key]
        for name, found in record["figures"].items()
        for key, ending in ends.items()
        if found.get(key) is not None
    }
    for one in trainer.loggers:
        one.log_metrics(figures, step=trainer.global_step)


def tell_pictures(trainer: Trainer, pictures: Sequence[Pictured]) -> None:
    """Give pictures to those loggers that can keep any."""
    for one in trainer.loggers if pictures else ():
        _give(one, pictures, trainer.global_step)


def _give(one: Any, pictures: Sequence[Pictured], step: int) -> None:  # noqa: ANN401 - a logger
    """Give a logger pictures; one that keeps none, such as Lightning's of CSV, gets none."""
    match one:
        case WandbLogger():
            files, names = [str(each.file) for each in pictures], [each.name for each in pictures]
            one.log_image("images", files, caption=names)
        case MLFlowLogger():
            for name, file in pictures:
                folder = Path("images", name).parent.as_posix()
                one.experiment.log_artifact(one.run_id, str(file), folder)
        case TensorBoardLogger():
            for name, pixels in _opened(pictures):
                one.experiment.add_image(name, pixels, step, dataformats="HWC")
        case ImageLoggerBase():
            for name, pixels in _opened(pictures):
                one.add_image(pixels, name=name, global_step=step)


def _opened(pictures: Iterable[Pictured]) -> Iterator[tuple[str, Any]]:
    for name, file in pictures:
        with Image.open(file) as picture:
            yield f"images/{name}", np.asarray(picture.convert("RGB"))


def worst(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Images that a model is most wrong about, or least right: of each class ``WORST``.

    Args:
        rows: ``image``, ``pred_score`` and, where the truth is known, ``gt_label`` of each.

    Example:
        >>> rows = [("a", 0.9, 1), ("b", 0.2, 1), ("c", 0.7, 0), ("d", 0.1, 0)]
        >>> names = ("image", "pred_score", "gt_label")
        >>> worst([dict(zip(names, row)) for row in rows])
        ['c', 'd', 'b', 'a']
    """
    normal = sorted((r for r in rows if not r.get("gt_label")), key=lambda r: -r["pred_score"])
    abnormal = sorted((r for r in rows if r.get("gt_label")), key=lambda r: r["pred_score"])
    return [str(row["image"]) for row in (*normal[:WORST], *abnormal[:WORST])]
