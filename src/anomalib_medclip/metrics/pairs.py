"""Scores with their labels, checked: nothing that cannot be ranked gets into a figure."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from anomalib_medclip.errors import MetricError
from anomalib_medclip.readers.picture import lesion_numbers


def pairs(
    scores: Tensor, labels: Tensor, ignored: Tensor | None = None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Scores and whether they are abnormal's, each along one axis.

    Args:
        scores: Finite as float32.
        labels: 0 or 1, of the same shape but for axes of length one.
        ignored: True where a pair is left out, likewise.

    Raises:
        MetricError: A score is not finite, a label neither 0 nor 1, or the shapes differ.
    """
    if _shape(scores) != _shape(labels):
        shapes = f"{tuple(scores.shape)} and labels of {tuple(labels.shape)}"
        msg = f"scores of shape {shapes} are no pairs; give one label for every score"
        raise MetricError(msg)
    found = scores.detach().to("cpu", torch.float32).flatten().numpy()
    _check_finite(found)
    abnormal = _abnormal(labels.detach().cpu().flatten())
    if ignored is None:
        return found, abnormal
    known = ~ignored.detach().cpu().flatten().numpy()
    return found[known], abnormal[known]


def regions_of(masks: Tensor) -> npt.NDArray[np.int64]:
    """Of every abnormal pixel, in order, the number of its connected region, from 0 over all masks.

    Args:
        masks: 0 or 1, ``[..., height, width]``; pixels touch by sides and corners.

    Raises:
        MetricError: The masks have fewer than two axes.
    """
    if masks.ndim < 2:
        msg = f"masks of shape {tuple(masks.shape)} are no images; give fields of maps and masks"
        raise MetricError(msg)
    found, ahead = [np.empty(0, dtype=np.int64)], 0
    stack = masks.detach().cpu().reshape(-1, *masks.shape[-2:]).numpy().astype(np.uint8) > 0
    for mask in stack[stack.any(axis=(1, 2))]:
        numbers = lesion_numbers(mask)[mask].astype(np.int64)
        found.append(numbers - 1 + ahead)  # number 0 is the background
        ahead += int(numbers.max())
    return np.concatenate(found)


def _shape(values: Tensor) -> tuple[int, ...]:
    return tuple(length for length in values.shape if length != 1)


def _check_finite(scores: npt.NDArray[Any]) -> None:
    if not np.isfinite(scores).all():
        count = int(np.count_nonzero(~np.isfinite(scores)))
        msg = (
            f"{count} of {scores.size} scores are NaN or infinite; a rank among them would mean "
            "nothing: look for a division by zero or half precision in the model"
        )
        raise MetricError(msg)


def _abnormal(labels: Tensor) -> npt.NDArray[np.bool_]:
    if labels.dtype != torch.bool and not ((labels == 0) | (labels == 1)).all():
        odd = labels[(labels != 0) & (labels != 1)][0].item()
        msg = f"a label is {odd}; give 0 for normal and 1 for abnormal"
        raise MetricError(msg)
    return labels.bool().numpy()
