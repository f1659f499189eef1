"""Weights that a case draws by a rule instead of holding them; see golden/README.md."""

import math
import re
import zlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor


def drawn_weights(meta: dict) -> dict[str, Tensor]:
    """Every weight that a case names, in the authors' names.

    Raises:
        AssertionError: A sum is not what the case says.
    """
    state = {name: _drawn(name, shape, meta) for name, shape in meta["weights"].items()}
    for name, (total, absolute) in meta["weight_sums"].items():
        values = state[name].double()
        found = values.sum().item(), values.abs().sum().item()
        assert np.allclose(found, (total, absolute), rtol=1e-6, atol=1e-6), name
    return state


def _drawn(name: str, shape: list[int], meta: dict) -> Tensor:
    seed = zlib.crc32(f"{meta['weight_seed']}/{name}".encode())
    u = np.random.RandomState(seed).uniform(-1, 1, shape)
    for scale, offset in _rules(name, shape, meta):
        return torch.from_numpy(np.asarray(scale * u + offset)).float()
    return torch.from_numpy(u * math.sqrt(meta["gain"] / math.prod(shape[1:]))).float()


def _rules(name: str, shape: list[int], meta: dict) -> Iterator[tuple[float, object]]:
    """Scale and offset of the entries that apply, the first before others."""
    for pattern, scale, offset in meta["overrides"]:
        if re.fullmatch(pattern, name):
            yield scale, np.asarray(offset)
    for ending, scale, offset in (
        ("num_batches_tracked", 0.0, 0.0),
        ("running_var", 0.2, 1.0),
        ("running_mean", 0.1, 0.0),
    ):
        if name.endswith(ending):
            yield scale, offset
    if len(shape) <= 1:
        yield 0.1, float(name.endswith("weight"))
