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

_told: list[int] = []
"""The signal, once one has come."""


class Stopped(SystemExit):
    """Somebody has told this program to stop.

    Its ``code`` is the exit status that a shell expects: 130 for Ctrl-C, 143 for SIGTERM.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


def stop_if_told() -> None:
    """Where threads besides the main one can stop, and who has caught every error.

    Raises:
        Stopped: The program was told to.
    """
    if _told:
        raise Stopped(_told[0])


@contextmanager
def tidy_stop(words: str = "") -> Iterator[None]:
    """For a while, both signals raise ``Stopped`` in the main thread, and nowhere else.

    What somebody else does at a signal is done, too; where it ends in another error, that becomes
    ``Stopped``. Ctrl-C is left as it is where it is not Python's own, and so is all where Python
    allows no handlers: in other threads.

    Args:
        words: What to say then, such as how to go on.
    """
    before = _to_replace()
    for number in list(before):
        signal.signal(number, partial(_stop, before))
        _told.clear()
    try:
        yield
    except BaseException:
        if _told and words:
            logger.warning(words)
        stop_if_told()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def handlers_kept() -> Iterator[None]:
    """What a library does in a while leaves the handlers of both signals as they are."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def _to_replace() -> dict[int, Any]:
    """The handlers that there are, of those signals that we watch and do not watch already."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    found: dict[int, Any] = {number: signal.getsignal(number) for number in _SIGNALS}
    if found[signal.SIGINT] is not signal.default_int_handler:
        del found[signal.SIGINT]
    if isinstance(found[signal.SIGTERM], partial) and found[signal.SIGTERM].func is _stop:
        del found[signal.SIGTERM]
    return found


def _stop(before: dict[int, Any], number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, _do_nothing)  # with SIG_IGN Python may complain
    if hasattr(signal, "SIGCHLD"):  # else torch raises for data loaders' processes, which end, too
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, _do_nothing)
    _told.append(number)
    handler = before[number]
    if callable(handler) and handler is not signal.default_int_handler:
        handler(number, frame)
    raise Stopped(number)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """A handler."""
    del number, frame
