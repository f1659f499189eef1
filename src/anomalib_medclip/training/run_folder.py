"""The folder of a run, ``v0``, ``v1`` and so on, and ``latest``, which leads to the newest.

Runs of a training stand beside one another; those of tests and predictions in folders ``test`` and
``predict`` there.

anomalib makes both, too; but of two runs that begin at once one would fail, and one that is killed
could leave no ``latest``.
"""

import os
import re
from contextlib import suppress
from pathlib import Path

from anomalib.utils.path import create_versioned_dir

from anomalib_medclip.errors import OutputError
from anomalib_medclip.files import replace_link

RUN = "run.json"
"""What a run says of itself, in its folder."""

_made: dict[Path, Path] = {}
"""Run folders that this process has made, and where runs of the same model and data lie."""


def new_run_folder(root: Path, verb: str = "") -> Path:
    """Make the next folder of a run, in as many processes at once as there are.

    Args:
        root: Where runs of one method and data lie; it is made. As a whole it can be moved.
        verb: What is done without a training, whose runs lie in a folder of this name there.

    Returns:
        Path: The folder, for this process alone.

    Raises:
        OutputError: ``latest`` is a folder, as in some copies; or the disk is full.
    """
    home = root / verb
    # On Windows links are not for everyone, and anomalib knows what else to do.
    folder = create_versioned_dir(home) if os.name == "nt" else _made_and_linked(home)
    _made[folder] = root
    return folder


def root_of(folder: Path) -> Path:
    """Where runs of the model and data of a run lie, of a training, a test or a prediction."""
    return _made.get(folder, folder.parent)


def is_of_training(folder: Path) -> bool:
    """Whether a folder was made for a training, by this process."""
    return _made.get(folder) == folder.parent


def is_untested(folder: Path) -> bool:
    """Whether this process has made a folder, and no test has written to it."""
    return folder in _made and not (folder / RUN).exists()


def _made_and_linked(root: Path) -> Path:
    latest = root / "latest"
    if latest.is_dir() and not latest.is_symlink():
        msg = f"{latest} is a folder, and no link to the newest run; move it, or give another "
        msg += "--default_root_dir"
        raise OutputError(msg)
    root.mkdir(parents=True, exist_ok=True)
    folder = _made_next(root)
    linked = None
    while linked != (newest := _newest(root)):  # or another made one, and its link, before ours
        replace_link(latest, f"v{newest}")
        linked = newest
    return folder


def _made_next(root: Path) -> Path:
    while True:
        folder = root / f"v{_newest(root) + 1}"
        with suppress(FileExistsError):  # another process was faster
            folder.mkdir()
            return folder


def _newest(root: Path) -> int:
    """Number of the newest run; -1 where there is none."""
    found = (re.fullmatch(r"v(\d+)", one.name) for one in root.iterdir())
    return max((int(one[1]) for one in found if one), default=-1)
