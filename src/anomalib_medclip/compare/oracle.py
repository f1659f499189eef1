"""The epoch that is best on the test images, as published tables have it."""

from collections.abc import Mapping
from typing import NamedTuple

from anomalib_medclip.evaluation.figures import Figures, of_test_alone

_CHOOSING = ("image_AUROC", "pixel_AUROC")


class Oracle(NamedTuple):
    """The best epoch on the test images; see ``DatasetResult``."""

    oracle: Figures
    oracle_epoch: int | None
    epochs: tuple[Figures, ...]


def oracle_of(honest: Figures, epoch: int, others: Mapping[int, Figures], trained: int) -> Oracle:
    """The best epoch on the test images, by the sum of both AUROCs as authors choose it.

    Where no other of several epochs was recorded, nobody knows it.

    Args:
        honest: Figures of the epoch that was tested.
        epoch: That epoch, from 1.
        others: Figures after other epochs.
        trained: Number of epochs.
    """
    known = {**others, epoch: honest}
    recorded = sorted(known)
    best = max(recorded, key=lambda one: sum(known[one].get(name) or 0.0 for name in _CHOOSING))
    nobody_knows = trained > 1 and not others
    figures = {} if nobody_knows else known[best]
    return Oracle(
        {
            name: figures.get(name)
            for name in honest
            if name == "image_ECE" or not of_test_alone(name)
        },
        None if nobody_knows else best,
        tuple(
            {"epoch": one, **{k: v for k, v in known[one].items() if not of_test_alone(k)}}
            for one in recorded
        ),
    )
