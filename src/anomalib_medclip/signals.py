"""Being told to stop, by Ctrl-C or SIGTERM, ends a program as an error does: tidily.

What is open is closed, folders of a while are removed, other threads stop at the next moment that
leaves nothing half done. A second Ctrl-C ends the process at once.
"""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

logger = logging.getLogger(__name__)

_SIGNALS = signal.SIGINT, signal.SIGTERM

_before: dict[int, Any] = {}
"""Handlers that there were before the outermost ``tidy_stop``; empty outside of it."""

_told: list[int] = []
"""The signal, once one has come, until the outermost ``tidy_stop`` ends."""


class Stopped(SystemExit):
    """Somebody has told this program to stop.

    Its ``code`` is the exit status that a shell expects: 130 for Ctrl-C, 143 for SIGTERM.

    Attributes:
        is_said: Whether somebody has said how it goes on.
    """

    def __init__(self, number: int, *, is_said: bool = False) -> None:
        super().__init__(128 + number)
        self.is_said = is_said


def is_told() -> bool:
    """Whether the program was told to stop, and has not ended yet."""
    return bool(_told)


def stop_if_told(*, is_said: bool = False) -> None:
    """Where threads besides the main one can stop, and who has caught every error.

    Args:
        is_said: Whether somebody has said how it goes on.

    Raises:
        Stopped: The program was told to.
    """
    if _told:
        raise Stopped(_told[0], is_said=is_said)


@contextmanager
def tidy_stop(words: str = "") -> Iterator[None]:
    """For a while, both signals raise ``Stopped`` in the main thread, and nowhere else.

    What somebody else does at a signal is done, too; where it ends in another error, that becomes
    ``Stopped``. Ctrl-C is left as it is where it is not Python's own, and so is all where Python
    allows no handlers, in other threads, and where a ``tidy_stop`` is at work already.

    Args:
        words: What to say then, such as how to go on.
    """
    is_outermost = _take_over()
    try:
        yield
    except BaseException as error:
        is_said = getattr(error, "is_said", False)
        if _told and words and not is_said:
            logger.warning(words)
        stop_if_told(is_said=is_said or bool(words))
        raise
    finally:
        if is_outermost:
            for number, handler in _before.items():
                signal.signal(number, handler)
            _before.clear()
            _told.clear()


def watch_again() -> None:
    """Take back the signals from whoever has put his handlers before ours."""
    if not _told and threading.current_thread() is threading.main_thread():
        for number in _before:
            signal.signal(number, _stop)


def _take_over() -> bool:
    """Put our handlers in place of those that there are; false where that cannot be, or is done."""
    if _before or threading.current_thread() is not threading.main_thread():
        return False
    found = {number: signal.getsignal(number) for number in _SIGNALS}
    if found[signal.SIGINT] is not signal.default_int_handler:
        del found[signal.SIGINT]
    # None is the handler of a program around Python, which could not be put back.
    _before.update({n: handler for n, handler in found.items() if handler is not None})
    _told.clear()
    watch_again()
    return True


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, _do_nothing)  # with SIG_IGN Python may complain
    if hasattr(signal, "SIGCHLD"):  # else torch raises for data loaders' processes, which end, too
        _before.setdefault(signal.SIGCHLD, signal.signal(signal.SIGCHLD, _do_nothing))
    _told.append(number)
    handler = _before.get(number)
    if callable(handler) and handler is not signal.default_int_handler:
        handler(number, frame)
    raise Stopped(number)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """A handler."""
    del number, frame
