"""What other packages say in any run of ours, each by its words, and why it means nothing here.

Only what is listed is left out; any other line, warning or error of theirs is shown. The lists are
asked by a command's own handler and for as long as it runs: no logger of theirs is touched.
"""

import logging
import re
import warnings
from typing import NamedTuple


class Line(NamedTuple):
    """A line that a package logs.

    Attributes:
        logger: Name of its logger, or of one above, as a pattern.
        words: How it begins, as a pattern.
        level: The highest level at which it means nothing.
    """

    logger: str
    words: str
    level: int = logging.INFO


class Warned(NamedTuple):
    """A warning of Python's.

    Attributes:
        category: Its class, or one above.
        words: How it begins, as a pattern.
    """

    category: type[Warning]
    words: str


_LIGHTNING = r"(pytorch_)?lightning(_fabric)?"
"""Its loggers are those of whichever of its three packages was imported last."""

LINES = (
    # FAISS tries the fastest of its builds first. What it has not got reads like a crash.
    Line("faiss.loader", r"Loading faiss|Successfully loaded faiss"),
    Line("faiss.loader", r"Could not load library with \S+ support due to:\nModuleNotFoundError"),
    # What a method of ours wants of a trainer, which no user has chosen.
    Line("anomalib.engine", r"Overriding num_sanity_val_steps from None with 0 "),
    Line(_LIGHTNING, r"The following callbacks returned in `LightningModule\.configure_"),
    # What happens in every run, or is said when it ends.
    Line("anomalib.callbacks", r"Loading the callbacks"),
    Line("anomalib.models", r"Initializing \w+ model\."),
    Line("anomalib.callbacks", r"Training took +[\d.]+ seconds|Testing took +[\d.]+ seconds"),
    Line(_LIGHTNING, r"Restoring states from the checkpoint|Loaded model weights from the check"),
    Line(_LIGHTNING, r"Seed set to \d+"),
    Line(_LIGHTNING, r"GPU available: False, used: False|TPU available: False"),
    Line(_LIGHTNING, r"`Trainer\.\w+` stopped: `max_epochs=\d+` reached"),
    Line(_LIGHTNING, r"\W*Tip: For seamless cloud"),
)

WARNED = (
    # The frozen backbone is in eval mode on purpose.
    Warned(UserWarning, r"Found \d+ module\(s\) in eval mode at the start of training"),
    # Lightning asks torch in a way that torch will drop; nobody else can change that.
    Warned(FutureWarning, r"`isinstance\(treespec, LeafSpec\)` is deprecated"),
    # Parts of timm and anomalib say so of one another when they are imported.
    Warned(FutureWarning, r"Importing from timm\.models\.\S+ is deprecated"),
    Warned(FutureWarning, r"The anomalib\.models\.components\.dinov2 package is deprecated"),
)


def is_no_false_alarm(record: logging.LogRecord) -> bool:
    """Whether a line is to be shown; a filter of a handler.

    Example:
        >>> said = {"name": "faiss.loader", "msg": "Loading faiss.", "levelno": logging.INFO}
        >>> record = logging.makeLogRecord(said)
        >>> is_no_false_alarm(record)
        False
        >>> record.levelno = logging.WARNING
        >>> is_no_false_alarm(record)
        True
    """
    said = record.getMessage()
    return not any(
        record.levelno <= line.level
        and re.match(rf"{line.logger}(\.|$)", record.name)
        and re.match(line.words, said)
        for line in LINES
    )


def ignore_false_alarms() -> None:
    """Leave listed warnings out, until ``warnings.catch_warnings`` takes that back."""
    for category, words in WARNED:
        warnings.filterwarnings("ignore", words, category)
