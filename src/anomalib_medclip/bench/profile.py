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
from anomalib_medclip.components.model import ClipModel

TOWER, BANK, MAPS = "image tower", "memory bank", "maps"
"""Parts that any torch model may have: its frozen tower, its memory, and what scoring ends with."""

PARTS = (TOWER, "adapters", BANK, "prompts", "query module")
"""Parts of the published methods, in the order they are told in."""

REST = "the rest"
"""What is in no part: of a training step, the backward pass and the optimiser."""


def profile_parts(
    model: ClipModel, work: TimedCall, rounds: int, device: str = "cpu"
) -> dict[str, float]:
    """Seconds that each part takes itself, without other parts that it calls.

    A part is a child of the model, by its name or by what ``part_names`` says. So an adapter
    between two blocks of the tower counts as adapter, and ``maps`` is what remains of ``score`` or
    ``loss``: comparing tokens with text, enlarging, smoothing, the terms of the loss.

    Args:
        model: A method's torch model.
        work: Runs it; called once before.
        rounds: How many times it is measured; the round of median length counts.
        device: On a GPU, every part waits until all is computed, which costs a little.

    Returns:
        By part, those that were called: in the order of ``PARTS``, then others, and last ``MAPS``
        and ``REST``.
    """
    work()
    found = sorted((_round(model, work, device) for _ in range(rounds)), key=_total)
    return found[len(found) // 2]


def _total(spent: dict[str, float]) -> float:
    return sum(spent.values())


def _round(model: ClipModel, work: TimedCall, device: str) -> dict[str, float]:
    watch = _Watch(device)
    with ExitStack() as patches:
        for part, method in _methods(model):
            timed = watch.timed(part, method)
            patches.enter_context(patch.object(method.__self__, method.__name__, timed))
        watch.timed(REST, work)()
    others = sorted(watch.spent.keys() - {*PARTS, MAPS, REST})
    order = (*PARTS, *others, MAPS, REST)
    return {part: watch.spent[part] for part in order if part in watch.spent}


def _methods(model: ClipModel) -> Iterator[tuple[str, Any]]:
    """What is called for each part."""
    yield from product((TOWER,), (model.clip.taps, model.clip.resume, model.clip.pool))
    yield from product((MAPS,), (model.score, model.loss))
    if model.memory_bank is not None:
        yield BANK, model.memory_bank.distance
    names = {"clip": TOWER, **model.part_names}
    for name, child in model.named_children():
        part = names.get(name, name.replace("_", " "))
        yield from product((part,), (module.forward for module in _callable(child)))


def _callable(module: nn.Module) -> Iterator[nn.Module]:
    """A module or, of one that only holds others, such as a list, what it holds."""
    if type(module).forward is not nn.Module.forward:  # torch's own does nothing but raise
        yield module
        return
    for child in module.children():
        yield from _callable(child)


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
