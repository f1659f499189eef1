"""What a model costs: seconds, and megabytes of what it holds and of what it learnt."""

import hashlib
import os
import platform
import time
from statistics import median
from typing import Any

import torch
from anomalib.models.components.base import AnomalibModule
from torch import Tensor

from anomalib_medclip.compare.epochs import unchanged

_IMAGES, _TIMES = 8, 3

Prints = dict[str, str]


def seconds_per_image(model: AnomalibModule, images: Tensor) -> float:
    """Median of a few passes over a batch ``(batch, 3, height, width)``, after one to warm up."""
    batch = images[:_IMAGES].as_subclass(Tensor).to(model.device)
    taken = []
    with unchanged(model), torch.inference_mode():
        for _ in range(1 + _TIMES):
            start = time.perf_counter()
            model.model(batch)
            if batch.is_cuda:
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - start)
    return median(taken[1:]) / len(batch)


def model_mb(model: AnomalibModule) -> float:
    """Megabytes (1e6 bytes) of parameters and buffers, frozen ones included."""
    held = {t.data_ptr(): t for t in (*model.model.parameters(), *model.model.buffers())}
    return sum(map(_bytes, held.values())) / 1e6


def prints(model: AnomalibModule) -> Prints:
    """What tells whether a tensor has changed, for each of a model's state."""
    return {name: _print(value) for name, value in model.model.state_dict().items()}


def learnt_mb(model: AnomalibModule, before: Prints) -> float:
    """Megabytes of what training changed or added."""
    state = model.model.state_dict()
    return sum(_bytes(v) for k, v in state.items() if before.get(k) != _print(v)) / 1e6


def machine() -> str:
    """Processor and its cores, in words; no name of the host."""
    return f"{platform.machine()}, {os.cpu_count()} cores"


def device_name(device: torch.device) -> str:
    """What a device is called."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _bytes(value: Any) -> int:  # noqa: ANN401 - a tensor, or what else a state holds
    return value.numel() * value.element_size() if isinstance(value, Tensor) else 0


def _print(value: Any) -> str:  # noqa: ANN401 - a tensor, or what else a state holds
    if not isinstance(value, Tensor):
        return repr(value)
    plain = (
        value.detach().cpu().contiguous().flatten().view(torch.uint8) if value.numel() else value
    )
    return f"{tuple(value.shape)} {hashlib.sha256(plain.numpy().tobytes()).hexdigest()}"
