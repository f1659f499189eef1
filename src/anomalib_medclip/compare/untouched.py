"""A model is looked at, and is afterwards as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; then modes and random numbers are as they were."""
    training = {part: part.training for part in module.modules()}
    with isolate_rng():
        module.eval()
        try:
            yield
        finally:
            for part, mode in training.items():
                part.training = mode
