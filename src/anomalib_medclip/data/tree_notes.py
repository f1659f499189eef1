"""What is known of a tree of pictures: how it was made, and a note of each volume that is in it.

While a run is at work the notes are files of their own, so that it can be killed at any moment; at
its end all of them are in one manifest.
"""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from anomalib_medclip.errors import DamagedFileError, DataChangedError, DataRootError
from anomalib_medclip.files import as_json, read_json, write_whole
from anomalib_medclip.option_checks import checked_name

logger = logging.getLogger(__name__)

Note: TypeAlias = dict[str, Any]
"""Of a volume: its ``name``, its ``sources`` with their hashes, and the ``slices`` made of it."""


class TreeNotes:
    """The notes of a tree, taken up where a run before has left them.

    Args:
        tree: Top folder of the tree.
        options: All that pictures and labels depend on besides the volumes, as JSON has it.

    Raises:
        DataRootError: The folder holds a tree that was made with other options, or other things.
        DamagedFileError: What lies there of a former run is no JSON.
    """

    def __init__(self, tree: Path, options: dict[str, Any]) -> None:
        self.folder = tree / ".notes"
        self._manifest = tree / "manifest.json"
        self._options = options
        known = self.folder / "options.json"
        former = next((read_json(path) for path in (self._manifest, known) if path.is_file()), None)
        if former is None and tree.is_dir() and any(tree.iterdir()):
            msg = f"{tree} holds other things; give another --out, or empty it"
            raise DataRootError(msg)
        former = options if former is None else former
        volumes = former.pop("volumes", [])
        former.pop("failed", None)
        if former != options:
            msg = f"{tree} was made with other options or versions; give another --out"
            raise DataRootError(msg)
        _write(known, options)
        for note in volumes:
            self.write(note)

    def read(self, name: str) -> Note | None:
        """The note of a volume, if there is one; one that is damaged counts as absent."""
        path = self._path(name)
        try:
            found: Note | None = read_json(path) if path.is_file() else None
        except DamagedFileError as error:
            logger.warning("its volume is cut again: %s", error)
            return None
        return found

    def write(self, note: Note) -> None:
        """Note that a volume is in the tree."""
        _write(self._path(note["name"]), note)

    def remove(self, name: str) -> None:
        """Forget a volume, which is about to be cut again."""
        self._path(name).unlink()

    def of_all(self, names: Sequence[str]) -> list[Note]:
        """The notes of volumes that were cut.

        Raises:
            DataChangedError: One of them is gone, and nobody knows what belongs into the tree.
        """
        notes = [self._path(name) for name in names]
        if gone := [path for path in notes if not path.is_file()]:
            _write(self.folder / "options.json", self._options)  # by which it is taken up again
            msg = (
                f"{gone[0]} (1 of {len(gone)}) was removed by something else while this run was at "
                "work; no picture was swept; let nothing else change the folder, and start again"
            )
            raise DataChangedError(msg)
        return [read_json(path) for path in notes]

    def finish(self, volumes: Sequence[Note], failed: dict[str, str]) -> None:
        """Write the manifest in place of the notes.

        Args:
            volumes: Notes of the volumes in the tree.
            failed: Why others are not, by their paths.
        """
        _write(self._manifest, {**self._options, "volumes": volumes, "failed": failed})
        shutil.rmtree(self.folder)

    def _path(self, name: str) -> Path:
        return self.folder / checked_name("a volume of the tree", f"{name}.json")


def _write(path: Path, content: Any) -> None:  # noqa: ANN401 - anything JSON holds
    write_whole(path, as_json(content, indent=1))
