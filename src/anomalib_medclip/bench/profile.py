"""Where the time of a method goes: seconds of each of its parts, which add up to the whole."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import wraps
from typing import Any
from unittest.mock import patch

from torch import nn

from anomalib_medclip.bench.timing import Work, wait

PARTS = {
    "image tower": ("clip.taps", "clip.resume", "clip.pool"),
    "adapters": ("adapters", "linears", "normal_det_adapters", "abnormal_det_adapters"),
    "memory bank": ("memory_bank.distance",),
    "prompts": ("prompts", "image_prompts"),
    "query module": ("query_module",),
    "maps": ("score", "loss"),
}
"""Modules and methods of the torch models that make up each part; a model has some of them."""

REST = "the rest"
"""What is in no part: of a training step, the backward pass and the optimiser."""


def profile(model: nn.Module, work: Work, rounds: int, device: str = "cpu") -> dict[str, float]:
    """Seconds that each part takes itself, without other parts that it calls.

    So an adapter between two blocks of the tower counts as adapter, and ``maps`` is what remains of
    ``score`` or ``loss``: comparing tokens with text, enlarging, smoothing, the terms of the loss.

    Args:
        model: A method's torch model.
        work: Runs it; called once before.
        rounds: How many times it is measured; the round of median length counts.
        device: On a GPU, every part waits until all is computed, which costs a little.

    Returns:
        By part, in the order of ``PARTS``, those that were called, and last ``REST``.
    """
    work()
    found = sorted((_round(model, work, device) for _ in range(rounds)), key=_total)
    return found[len(found) // 2]


def _total(spent: dict[str, float]) -> float:
    return sum(spent.values())


def _round(model: nn.Module, work: Work, device: str) -> dict[str, float]:
    watch = _Watch(device)
    with ExitStack() as patches:
        for part, paths in PARTS.items():
            for owner, name in (found for path in paths for found in _callables(model, path)):
                timed = watch.timed(part, getattr(owner, name))
                patches.enter_context(patch.object(owner, name, timed))
        watch.timed(REST, work)()
    return {part: watch.spent[part] for part in (*PARTS, REST) if part in watch.spent}


def _callables(model: nn.Module, path: str) -> Iterator[tuple[Any, str]]:
    """Owner and name of what a path stands for: a method, or ``forward`` of modules."""
    owner: Any = model
    *owners, name = path.split(".")
    for one in owners:
        owner = getattr(owner, one, None)
    found = getattr(owner, name, None)
    if isinstance(found, nn.ModuleList):
        yield from ((child, "forward") for child in found)
    elif isinstance(found, nn.Module):
        yield found, "forward"
    elif found is not None:
        yield owner, name


class _Watch:
    """One clock that is always running, for one part at a time."""

    def __init__(self, device: str) -> None:
        self.spent: dict[str, float] = {}
        self._device = device
        self._running: list[str] = []
        self._since = 0.0

    def timed(self, part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same work, whose time is this part's."""

        @wraps(work)
        def clocked(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the work has it
            self._stop()
            self._running.append(part)
            try:
                return work(*args, **kwargs)
            finally:
                self._stop()
                self._running.pop()

        return clocked

    def _stop(self) -> None:
        """Give what the clock shows to the part that was running, and start anew."""
        wait(self._device)
        now = time.perf_counter()
        if self._running:
            part = self._running[-1]
            self.spent[part] = self.spent.get(part, 0.0) + now - self._since
        self._since = now
