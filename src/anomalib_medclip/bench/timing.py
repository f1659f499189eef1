"""Seconds of a call, measured in turn with those of another; needs torch alone."""

import gc
import math
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

TimedCall = Callable[[], Any]
"""What is timed."""

_PROCESS = Path("/proc") / "self"


class Rounds(NamedTuple):
    """Seconds of a call of the subject and of the reference, round by round."""

    subject: list[float]
    reference: list[float]

    @property
    def ratios(self) -> list[float]:
        """Subject to reference in each round, which both ran in under the same load."""
        return [mine / other for mine, other in zip(*self, strict=True)]

    def as_row(self, images: int) -> dict[str, float]:
        """Medians over the rounds, milliseconds of each of this many images.

        ``ratio`` is the median of the rounds' ratios, and not the ratio of the medians.

        Example:
            >>> row = Rounds(subject=[0.3, 0.2, 0.9], reference=[0.1, 0.1, 0.6]).as_row(images=2)
            >>> [round(row[name], 2) for name in ("ms_per_image", "ratio", "ratio_high")]
            [150.0, 2.0, 3.0]
        """
        seconds, reference = median(self.subject) / images, median(self.reference) / images
        return {
            "images_per_second": 1 / seconds,
            "ms_per_image": 1e3 * seconds,
            "reference_ms_per_image": 1e3 * reference,
            "ratio": median(self.ratios),
            "ratio_low": min(self.ratios),
            "ratio_high": max(self.ratios),
        }


def alternate(
    subject: TimedCall,
    reference: TimedCall,
    rounds: int = 3,
    at_least: float = 0.2,
    device: str = "cpu",
) -> Rounds:
    """Time two calls in turn; the first of a round is the second of the next.

    Each is called twice before, to compile, to allocate, and to see how long it takes.

    Args:
        subject: What is to be compared.
        reference: What it is compared with.
        rounds: How many times each is timed, 1 or more.
        at_least: Seconds that each time must cover; calls are repeated until they do.
        device: Where they run: on a GPU, the clock stops when all is computed.
    """
    works = (subject, reference)
    calls = []
    for work in works:
        work()
        calls.append(max(1, math.ceil(at_least / seconds(work, 1, device))))
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            taken[which].append(seconds(works[which], calls[which], device))
    return Rounds(*taken)


def forget_peak(device: str = "cpu") -> None:
    """Begin to measure the most memory anew, where the system lets us."""
    gc.collect()  # what refers to itself is gone only then
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):  # ``peak_mb`` then says the peak since the process began
        (_PROCESS / "clear_refs").write_text("5")


def peak_mb() -> float | None:
    """Most memory of this process, in MB of 1e6 bytes; ``None`` where no Linux says so."""
    status = _PROCESS / "status"
    if not status.is_file():
        return None
    lines = status.read_text().splitlines()
    return next(int(one.split()[1]) * 1024 / 1e6 for one in lines if one.startswith("VmHWM"))


def peak_of_gpu_mb(device: str) -> float | None:
    """Most memory that torch held on a GPU, in MB; ``None`` for a processor."""
    return torch.cuda.max_memory_allocated(device) / 1e6 if device.startswith("cuda") else None


def seconds(work: TimedCall, calls: int, device: str) -> float:
    """Mean seconds of a call."""
    wait(device)
    start = time.perf_counter()
    for _ in range(calls):
        work()
    wait(device)
    return (time.perf_counter() - start) / calls


def wait(device: str) -> None:
    """Wait until a GPU has computed all that it was given; a processor has, when a call is back."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
