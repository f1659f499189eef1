"""Being told to stop, by Ctrl-C or SIGTERM, ends a program as an error does: tidily.

What is open is closed, folders of a while are removed, other threads stop at the next moment that
leaves nothing half done. A second Ctrl-C ends the process at once.
"""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

logger = logging.getLogger(__name__)

_SIGNALS = signal.SIGINT, signal.SIGTERM

_told = threading.Event()


class Stopped(SystemExit):
    """Somebody has told this program to stop.

    Its ``code`` is the exit status that a shell expects: 130 for Ctrl-C, 143 for SIGTERM.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


def stop_if_told() -> None:
    """Where threads besides the main one can stop.

    Raises:
        Stopped: The main thread was told to.
    """
    if _told.is_set():
        raise Stopped(signal.SIGTERM)


@contextmanager
def tidy_stop(words: str = "") -> Iterator[None]:
    """For a while, both signals raise ``Stopped`` in the main thread, and nowhere else.

    What somebody else does at a signal is done, too. Ctrl-C is left as it is where it is not
    Python's own, and so is all where Python allows no handlers: in other threads.

    Args:
        words: What to say then, such as how to go on.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in _SIGNALS}
    if before[signal.SIGINT] is not signal.default_int_handler:
        del before[signal.SIGINT]
    if _is_ours(before[signal.SIGTERM]):
        del before[signal.SIGTERM]
    for number, handler in before.items():
        signal.signal(number, partial(_stop, handler))
    _told.clear()
    try:
        yield
    except Stopped:
        if words:
            logger.warning(words)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_ours(handler: Any) -> bool:  # noqa: ANN401 - any handler
    return isinstance(handler, partial) and handler.func is _stop


def _stop(before: Any, number: int, frame: FrameType | None) -> None:  # noqa: ANN401 - any handler
    signal.signal(signal.SIGTERM, _do_nothing)  # with SIG_IGN Python may complain
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _told.set()
    if callable(before) and before is not signal.default_int_handler:
        before(number, frame)
    raise Stopped(number)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """A handler."""
    del number, frame
