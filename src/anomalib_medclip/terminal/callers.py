"""Who is calling, which nobody tells."""

import inspect
from collections.abc import Callable
from typing import Any


def is_within(function: Callable[..., Any]) -> bool:
    """Whether a function is being called, by whomever it was."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code is not function.__code__:
        frame = frame.f_back
    return frame is not None
