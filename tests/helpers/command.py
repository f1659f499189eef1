"""anomalib's commands, run in this process, and what they leave on disk."""

import csv
import json
import logging
import shlex
import sys
from pathlib import Path

from anomalib.cli.cli import main
from tiny import SHALLOW

from anomalib_medclip.spreadsheet import original
from anomalib_medclip.terminal.screen import end_of_anomalib

PROGRAM = Path(sys.executable).parent / "anomalib"
"""As installed, for a process of its own."""


SMALL = (
    f"--model.backbone '{json.dumps(SHALLOW['backbone'])}' --model.levels '[1, 2]' "
    "--model.pretrained null --model.image_size 32 --trainer.accelerator cpu"
)
"""Options of a small and offline model with few blocks."""


def anomalib(command, patch):
    """Run a command in this process, and take back what it leaves: log handlers, and our screen.

    They write to the screen, where the examples of the documents are compared.
    """
    patch.setattr(sys, "argv", ["anomalib", *shlex.split(command)])
    loggers = [logging.getLogger(), logging.getLogger("lightning.pytorch")]
    before = [(logger, list(logger.handlers), logger.level) for logger in loggers]
    try:
        main()
    finally:
        end_of_anomalib()
        for logger, handlers, level in before:
            logger.handlers = handlers
            logger.setLevel(level)


def rows(path):
    """Rows of a table of scores, by image."""
    with Path(path).open(newline="") as file:
        return {Path(original(row["image"])).as_posix(): row for row in csv.DictReader(file)}


def metrics(run):
    """What a run says of itself in its ``test_metrics.json``."""
    return json.loads((run / "test_metrics.json").read_text())


def pictures(run):
    """The heat maps of a run."""
    return list((run / "images").rglob("*.png"))
