"""Where the time of a method goes: seconds of each of its parts, which add up to the whole."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import wraps
from itertools import product
from typing import Any
from unittest.mock import patch

from torch import nn

from anomalib_medclip.bench.timing import TimedCall, wait

PARTS = ("image tower", "adapters", "memory bank", "prompts", "query module", "maps")
"""What a torch model may consist of, and where its time goes."""

_OF_MODULES = {
    "adapters": "adapters",
    "linears": "adapters",
    "normal_det_adapters": "adapters",
    "abnormal_det_adapters": "adapters",
    "prompts": "prompts",
    "image_prompts": "prompts",
    "query_module": "query module",
}
"""Parts of modules, by their names in the torch models; a model has some of them."""

REST = "the rest"
"""What is in no part: of a training step, the backward pass and the optimiser."""


def profile_parts(
    model: nn.Module, work: TimedCall, rounds: int, device: str = "cpu"
) -> dict[str, float]:
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


def _round(model: nn.Module, work: TimedCall, device: str) -> dict[str, float]:
    watch = _Watch(device)
    with ExitStack() as patches:
        for part, method in _methods(model):
            timed = watch.timed(part, method)
            patches.enter_context(patch.object(method.__self__, method.__name__, timed))
        watch.timed(REST, work)()
    return {part: watch.spent[part] for part in (*PARTS, REST) if part in watch.spent}


def _methods(model: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - any torch model
    """What is called for each part."""
    yield from product(("image tower",), (model.clip.taps, model.clip.resume, model.clip.pool))
    yield from product(("maps",), (model.score, model.loss))
    modules: dict[str, Any] = dict(model.named_children())
    if "memory_bank" in modules:
        yield "memory bank", modules["memory_bank"].distance
    for name in _OF_MODULES.keys() & modules.keys():
        found = modules[name]
        for module in found if isinstance(found, nn.ModuleList) else (found,):
            yield _OF_MODULES[name], module.forward


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
