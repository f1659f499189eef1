"""How often files are opened."""

import os
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

_COUNTERS = []


def _count(event, arguments):
    if event == "open" and _COUNTERS and isinstance(arguments[0], str | os.PathLike):
        _COUNTERS[-1][Path(arguments[0]).name] += 1


@contextmanager
def opened():
    """How often files of each name are opened, by whomever in this process."""
    if not _count.__dict__:  # a hook cannot be taken away, so there is one
        sys.addaudithook(_count)
        _count.added = True
    _COUNTERS.append(Counter())
    try:
        yield _COUNTERS[-1]
    finally:
        _COUNTERS.pop()
