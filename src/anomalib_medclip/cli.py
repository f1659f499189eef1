"""``anomalib-medclip``: anomalib's own commands in fewer words, and what there is to do besides."""

import argparse
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib import import_module

from anomalib_medclip import __version__
from anomalib_medclip.signals import Stopped, tidy_stop

ENGINE = {
    "train": "train a model on data, and test it",
    "test": "test the model of a checkpoint on data",
    "predict": "give every image a score and a heat map, by a checkpoint",
    "export": "make of a checkpoint a file that other programs run",
}
"""What anomalib's Engine does, and anomalib's own commands do, too."""

COMMANDS = ENGINE | {
    "bench": "measure what methods cost on this machine, beside bare CLIP",
    "check": "read every file that a data config names, and list all that is wrong",
    "compare": "train and test models side by side, and write a report",
    "configs": "list the configs that come with the package, and copy some",
    "prompts": "compare sets of words on the support; no test image is read",
    "reproduce": "make a table of the papers again, ours beside theirs",
    "score": "score volumes and pictures; write heat maps on their own grids",
    "slice": "cut volumes into a tree of pictures, laid out as BMAD's",
}
"""Each is a module of ``anomalib_medclip.commands`` with ``run(arguments) -> exit code``, imported
when it is called, so that help comes at once."""

_GOES_ON = ("compare", "reproduce", "score", "slice")
"""Commands that keep what they have written."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0 for success; 1 where the command says that something is wrong; 2 for bad input, which is
        named on the error stream; 130 and 143 where Ctrl-C or SIGTERM has stopped it.
    """
    parser = argparse.ArgumentParser(
        "anomalib-medclip",
        description="Anomaly detection in medical images and volumes. Research use only.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    names = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, words in COMMANDS.items():
        names.add_parser(name, help=words, add_help=False)
    chosen, rest = parser.parse_known_args(arguments)
    is_debugged = "--debug" in rest
    rest = [word for word in rest if word != "--debug"]
    # What our dependencies' parts say to one another when they are imported.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"timm|anomalib\.")
    try:
        with tidy_stop():
            return _run(chosen.command, rest)
    except Stopped as stopped:
        goes_on = chosen.command in _GOES_ON and "--overwrite" not in rest
        how = "goes on from here" if goes_on else "begins again"
        if not stopped.is_said:
            print(f"stopped; the same command {how}", file=sys.stderr)  # noqa: T201
        return int(str(stopped.code))
    except Exception as error:
        from anomalib_medclip.terminal.screen import ours_in, say  # as help needs none of it

        is_of_system = isinstance(error, OSError) and chosen.command not in ENGINE
        ours = error if is_of_system else ours_in(error)
        if ours is None:
            raise
        if is_debugged:
            traceback.print_exc()
        say(ours)
        return 2


def _run(name: str, words: list[str]) -> int:
    """Run a command, with anomalib's own on a screen that shows each line once."""
    command = import_module(f"anomalib_medclip.commands.{name}")
    if name not in ENGINE:
        code: int = command.run(words)
        return code
    if {"-h", "--help"} & {*words}:
        print(command.HELP)  # noqa: T201 - what a command line says
        return 0
    from anomalib_medclip.terminal.screen import shown_plainly

    with shown_plainly():
        of_engine: int = command.run(words)
        return of_engine
