"""Work in a fresh process, which is gone afterwards: rows do not disturb one another."""

import logging
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

from anomalib_medclip.bench.output import Measurement
from anomalib_medclip.bench.settings import Setting
from anomalib_medclip.errors import ProcessDiedError


def measure_apart(setting: Setting) -> Measurement:
    """As ``measure.measure_setting``, in a fresh process.

    Raises:
        ProcessDiedError: The process ended by itself, or the GPU's memory was too small.
        MedclipError: What ``measure_setting`` raises.
    """
    return _apart(_measure, setting)


def has_bank_apart(method: str) -> bool:
    """As ``build.has_bank``, without importing torch into this process."""
    return bool(_apart(_has_bank, method))


def learns_apart(method: str) -> bool:
    """As ``build.learns``, likewise."""
    return bool(_apart(_learns, method))


def _measure(setting: Setting) -> Measurement:
    import torch

    from anomalib_medclip.bench.measure import measure_setting

    try:
        return measure_setting(setting)
    except torch.OutOfMemoryError as error:
        msg = f"the GPU's memory is too small for {setting}; take a smaller batch"
        raise ProcessDiedError(msg) from error


def _has_bank(method: str) -> bool:
    from anomalib_medclip.bench.build import has_bank

    return has_bank(method)


def _learns(method: str) -> bool:
    from anomalib_medclip.bench.build import learns

    return learns(method)


def _apart(work: Callable[[Any], Any], given: Setting | str) -> Any:  # noqa: ANN401 - any answer
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=_quiet) as pool:
        try:
            return pool.submit(work, given).result()
        except BrokenProcessPool as error:
            msg = f"the process for {given} has ended by itself; was the memory enough?"
            raise ProcessDiedError(msg) from error


def _quiet() -> None:
    """Nothing but errors from what is imported and exported: progress is on the screen."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
