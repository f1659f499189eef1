"""What is known of a tree of pictures: how it was made, and a note of each volume that is in it.

While a run is at work the notes are files of their own, so that it can be killed at any moment; at
its end all of them are in one manifest.
"""

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard

from anomalib_medclip.errors import (
    ConfigError,
    DamagedFileError,
    DataChangedError,
    DataRootError,
)
from anomalib_medclip.files import as_json, read_json, write_whole
from anomalib_medclip.option_checks import checked_name

logger = logging.getLogger(__name__)

Note: TypeAlias = dict[str, Any]
"""Of a volume: its ``name``, its ``sources`` with their hashes, and the ``slices`` made of it."""


_OF_NOTE = {"name": str, "patient": str, "sources": dict, "slices": list}
_OF_SLICE = {"file": str, "lesion": int, "ignored": int}


def volumes_of(manifest: Path) -> list[Note]:
    """The notes of all volumes of a tree, as its manifest has them.

    Raises:
        DamagedFileError: It is no manifest.
    """
    return _notes_in(_object_in(manifest).get("volumes"), manifest)


def _object_in(path: Path) -> dict[str, Any]:
    found = read_json(path)
    if not isinstance(found, dict):
        raise DamagedFileError(_strange(path))
    return found


def _notes_in(found: Any, path: Path) -> list[Note]:  # noqa: ANN401 - whatever JSON has
    """Notes of volumes, once each is found to be one."""
    if not isinstance(found, list) or not all(map(_is_note, found)):
        raise DamagedFileError(_strange(path))
    try:
        for note in found:
            _file_of(note["name"])
    except ConfigError:
        raise DamagedFileError(_strange(path)) from None
    return found


def _file_of(name: str) -> str:
    return checked_name("a volume of the tree", f"{name}.json")


def _is_note(found: object) -> bool:
    return _has(found, _OF_NOTE) and all(_has(made, _OF_SLICE) for made in found["slices"])


def _has(found: object, kinds: Mapping[str, type]) -> TypeGuard[dict[str, Any]]:
    """Whether it is an object that has all these, of these types."""
    return isinstance(found, dict) and all(type(found.get(k)) is kinds[k] for k in kinds)


def _strange(path: Path) -> str:
    return f"{path} does not say what slice says of volumes; restore it, or give another --out"


class TreeNotes:
    """The notes of a tree, taken up where a run before has left them.

    Args:
        tree: Top folder of the tree.
        options: All that pictures and labels depend on besides the volumes, as JSON has it.

    Raises:
        DataRootError: The folder holds a tree that was made with other options, or other things.
        DamagedFileError: What lies there of a former run is no JSON, or says something else.
    """

    def __init__(self, tree: Path, options: dict[str, Any]) -> None:
        self.folder = tree / ".notes"
        self._manifest = tree / "manifest.json"
        self._options = options
        known = self.folder / "options.json"
        there = next((path for path in (self._manifest, known) if path.is_file()), None)
        former = None if there is None else _object_in(there)
        if former is None and tree.is_dir() and any(tree.iterdir()):
            msg = f"{tree} holds other things; give another --out, or empty it"
            raise DataRootError(msg)
        former = options if former is None else former
        volumes = _notes_in(former.pop("volumes", []), there or known)
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
            return _notes_in([read_json(path)], path)[0] if path.is_file() else None
        except DamagedFileError as error:
            logger.warning("its volume is cut again: %s", error)
            return None

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
        return [note for path in notes for note in _notes_in([read_json(path)], path)]

    def finish(self, volumes: Sequence[Note], failed: dict[str, str]) -> None:
        """Write the manifest in place of the notes.

        Args:
            volumes: Notes of the volumes in the tree.
            failed: Why others are not, by their paths.
        """
        _write(self._manifest, {**self._options, "volumes": volumes, "failed": failed})
        shutil.rmtree(self.folder)

    def _path(self, name: str) -> Path:
        return self.folder / _file_of(name)


def _write(path: Path, content: Any) -> None:  # noqa: ANN401 - anything JSON holds
    write_whole(path, as_json(content, indent=1))
