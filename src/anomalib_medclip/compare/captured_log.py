"""What a run says is kept, and not shown."""

import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any


@contextmanager
def captured_log() -> Iterator[io.StringIO]:
    """Keep what a run says, and leave the screen to the progress of all."""
    said = io.StringIO()
    handlers = {handler: handler.stream for handler in _on_screen()}
    try:
        for handler in handlers:
            handler.setStream(said)
        with redirect_stdout(said), redirect_stderr(said), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield said
    finally:
        for handler, stream in handlers.items():
            handler.setStream(stream)


def _on_screen() -> "Iterator[logging.StreamHandler[Any]]":
    """Every handler of any package that writes to the screen."""
    screen = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    known = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    for logger in known:
        # Python keeps placeholders among its loggers, which have no handlers.
        for handler in logger.handlers if isinstance(logger, logging.Logger) else ():
            if isinstance(handler, logging.StreamHandler) and handler.stream in screen:
                yield handler
