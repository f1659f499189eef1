"""The screen while a command runs: each line once, and an error of ours in one line at the end.

Nothing changes before a command begins, nor when the package is imported. After it, all is as it
was: handlers and levels of loggers, filters of warnings, who shows an error that nobody catches.
"""

import errno
import logging
import re
import sys
import warnings
from argparse import ArgumentError
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from traceback import walk_tb
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.text import Text

from anomalib_medclip.errors import MedclipError
from anomalib_medclip.terminal.callers import is_within
from anomalib_medclip.terminal.false_alarms import ignore_false_alarms, is_no_false_alarm

CONSOLE = Console(stderr=True, highlight=False)
"""Where commands show bars and lines; results go to the other stream."""

_LIGHTNING = ("lightning", "lightning_fabric", "pytorch_lightning")

_LOGGERS = ("", *_LIGHTNING, "lightning.fabric", "lightning.pytorch")
"""Those that get handlers of a console when their packages are imported or anomalib begins."""

_TOLD = ("anomalib", "anomalib_medclip", *_LIGHTNING)
"""Packages that say what a run does; of all others warnings and errors are shown."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

_begun = ExitStack()
"""What anomalib's command has begun, and ``end_of_anomalib`` ends."""


class Lines(logging.Handler):
    """Shows what is logged, a line each, above a bar if there is one; no news twice."""

    def __init__(self) -> None:
        super().__init__()
        self._shown: set[str] = set()
        self.addFilter(_is_told)
        self.addFilter(is_no_false_alarm)

    def emit(self, record: logging.LogRecord) -> None:
        """Show a line."""
        said, style = record.getMessage(), ""
        if record.levelno < logging.WARNING and said in self._shown:
            return
        self._shown.add(said)
        if record.name == "py.warnings":  # where, which kind and what; then the code that warned
            said = said.partition("\n")[0]
        if record.levelno >= logging.WARNING:
            word = record.levelname.lower()
            said, style = f"{word}: {said}", "red" if word == "error" else "yellow"
        if record.exc_info:
            said += "\n" + logging.Formatter().formatException(record.exc_info)
        CONSOLE.print(Text(said, style), soft_wrap=True)


@contextmanager
def shown_plainly() -> Iterator[None]:
    """For a while, show each line once, errors and warnings of all, and no false alarm.

    Handlers that write elsewhere than to the screen stay.
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(one, one.handlers, one.propagate, one.level) for one in loggers]
    root, *others = loggers
    for one in loggers:
        one.handlers = [handler for handler in one.handlers if not _is_of_screen(handler)]
    for one in others:
        one.propagate = True
    root.addHandler(lines := Lines())
    root.setLevel(min(root.level, logging.INFO))
    with warnings.catch_warnings():
        ignore_false_alarms()
        logging.captureWarnings(True)
        try:
            yield
        finally:
            logging.captureWarnings(False)
            lines.close()
            for one, handlers, propagate, level in before:
                one.handlers, one.propagate = handlers, propagate
                one.setLevel(level)


def under_anomalib() -> None:
    """Show things plainly from here on, if it is anomalib's own command that is running."""
    cli = sys.modules.get("anomalib.cli.cli")
    if cli is None or isinstance(sys.excepthook, _InOneLine) or not is_within(cli.main):
        return
    _begun.enter_context(shown_plainly())
    _begun.callback(setattr, sys, "excepthook", sys.excepthook)
    sys.excepthook = _InOneLine(sys.excepthook)


def end_of_anomalib() -> None:
    """Let all be as it was before anomalib's command; its process need not ask for that."""
    _begun.close()


def ours_in(error: BaseException) -> BaseException | None:
    """The error to show in one line: raised on purpose, or by a full disk; else ``None``.

    Of several types that an option may have, jsonargparse tries each, and keeps what went wrong in
    a list; what it raises then holds the words of our error only.
    """
    if isinstance(error, MedclipError) or getattr(error, "errno", None) in _NO_ROOM:
        return error
    tried: list[Any] = []
    link: BaseException | None = error
    while link is not None:
        for frame, _ in walk_tb(link.__traceback__):
            if str(frame.f_globals.get("__name__")).startswith("jsonargparse"):
                lists = [one for one in frame.f_locals.values() if isinstance(one, list)]
                tried += chain.from_iterable(lists)
        link = link.__cause__ or link.__context__
        tried += [link] if isinstance(error, ArgumentError) else []
    return next((one for one in tried if isinstance(one, MedclipError)), None)


def say(error: BaseException) -> None:
    """Show an error in one line: what came, what was wanted, what to do."""
    CONSOLE.print(Text(f"error: {words_of(error)}", "red"), soft_wrap=True)


def words_of(error: BaseException) -> str:
    r"""The message of an error in one line; of another process's, without its traceback.

    Example:
        >>> words_of(MedclipError("Caught MedclipError in DataLoader worker process 0.\n"
        ... "Original Traceback (most recent call last):\n  File ...\n"
        ... "anomalib_medclip.errors.MedclipError: a.png is missing; restore it\n"))
        'a.png is missing; restore it'
    """
    said = str(error)
    if said.startswith("Caught ") and "\nOriginal Traceback" in said:
        found = re.split(r"^[\w.]*\b" + type(error).__name__ + ": ", said, flags=re.MULTILINE)
        said = found[-1]
    if getattr(error, "errno", None) in _NO_ROOM and not isinstance(error, MedclipError):
        said += "; make room, and give the same command again"
    return "; ".join(line.strip() for line in said.splitlines() if line.strip())


class _InOneLine:
    """Shows an error that nobody has caught: one of ours in one line, any other as before.

    Args:
        others: Python's hook until then, for any other error.
    """

    def __init__(self, others: Callable[[type[BaseException], BaseException, Any], object]) -> None:
        self._others = others

    def __call__(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        """Show it.

        Raises:
            SystemExit: After one of ours; Python then ends with its exit status.
        """
        if ours := ours_in(error):
            say(ours)
            raise SystemExit(2)
        self._others(kind, error, trace)


def _is_of_screen(handler: logging.Handler) -> bool:
    streams = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    plain = type(handler) is logging.StreamHandler and handler.stream in streams
    return plain or isinstance(handler, RichHandler)


def _is_told(record: logging.LogRecord) -> bool:
    package = record.name.partition(".")[0]
    return record.levelno >= logging.WARNING or package in _TOLD
