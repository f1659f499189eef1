"""What a model costs: seconds, and megabytes of what it holds and of what it learnt."""

import hashlib
import os
import platform
import time
from statistics import median
from typing import Any, NamedTuple

import torch
from anomalib.engine import Engine
from anomalib.models.components.base import AnomalibModule
from torch import Tensor

from anomalib_medclip.compare.declared import declared_by
from anomalib_medclip.compare.epochs import EpochScores, callbacks_of
from anomalib_medclip.compare.untouched import untouched
from anomalib_medclip.data.datamodule import MedicalDataModule
from anomalib_medclip.devices import device_name, wait_for
from anomalib_medclip.training.cross_fit import CrossFit

_IMAGES, _TIMES = 8, 3

Prints = dict[str, str]


class TrainingCost(NamedTuple):
    """What a training costs; see ``MeasuredCost``."""

    train_seconds: float
    threshold_seconds: float
    learnt_mb: float
    model_mb: float


class ScoringCost(NamedTuple):
    """What scoring costs; see ``MeasuredCost``."""

    seconds_per_image: float
    features_from_cache: int
    device: str


def train(model: AnomalibModule, data: MedicalDataModule, engine: Engine) -> TrainingCost:
    """Train a model; the time for what is only recorded or cross-fitted is not the training's."""
    before = prints(model)
    start = time.perf_counter()
    engine.fit(model=model, datamodule=data)
    seconds = time.perf_counter() - start
    recorded = sum(one.seconds for one in callbacks_of(engine.trainer, EpochScores))
    apart = sum(one.seconds for one in callbacks_of(engine.trainer, CrossFit))
    learnt = learnt_mb(model, before)
    return TrainingCost(seconds - recorded - apart, apart, learnt, model_mb(model))


def scoring_cost(model: AnomalibModule, images: Tensor) -> ScoringCost:
    """What scoring costs a trained model, timed on images ``(batch, 3, height, width)``."""
    return ScoringCost(
        seconds_per_image=seconds_per_image(model, images),
        features_from_cache=declared_by(model).features_found,
        device=device_name(model.device),
    )


def seconds_per_image(model: AnomalibModule, images: Tensor) -> float:
    """Median of a few passes over a batch ``(batch, 3, height, width)``, after one to warm up."""
    batch = images[:_IMAGES].as_subclass(Tensor).to(model.device)
    taken = []
    with untouched(model), torch.inference_mode():
        for _ in range(1 + _TIMES):
            start = time.perf_counter()
            model.model(batch)
            wait_for(model.device)
            taken.append(time.perf_counter() - start)
    return median(taken[1:]) / len(batch)


def model_mb(model: AnomalibModule) -> float:
    """Megabytes (1e6 bytes) of parameters and buffers, frozen ones included."""
    held = {t.data_ptr(): t for t in (*model.model.parameters(), *model.model.buffers())}
    return sum(map(_size, held.values())) / 1e6


def prints(model: AnomalibModule) -> Prints:
    """What tells whether a tensor has changed, for each of a model's state."""
    return {name: _print(value) for name, value in model.model.state_dict().items()}


def learnt_mb(model: AnomalibModule, before: Prints) -> float:
    """Megabytes of what training changed or added."""
    state = model.model.state_dict()
    return sum(_size(v) for k, v in state.items() if before.get(k) != _print(v)) / 1e6


def machine() -> str:
    """Processor and its cores, in words; no name of the host."""
    return f"{platform.machine()}, {os.cpu_count()} cores"


def _size(value: Any) -> int:  # noqa: ANN401 - a tensor, or what else a state holds
    return value.numel() * value.element_size() if isinstance(value, Tensor) else 0


def _print(value: Any) -> str:  # noqa: ANN401 - a tensor, or what else a state holds
    if not isinstance(value, Tensor):
        return repr(value)
    plain = (
        value.detach().cpu().contiguous().flatten().view(torch.uint8) if value.numel() else value
    )
    return f"{tuple(value.shape)} {hashlib.sha256(plain.numpy().tobytes()).hexdigest()}"
