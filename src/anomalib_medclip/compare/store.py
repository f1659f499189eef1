"""Records of cells on disk: one JSON each, written whole or not at all."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import AcquireReturnProxy, FileLock, Timeout

from anomalib_medclip.errors import ResultsError
from anomalib_medclip.files import as_json, read_json, whole_file, write_whole
from anomalib_medclip.provenance import NOTICE

Record = dict[str, Any]
"""What is known of a cell that was run; ``docs/compare.md`` lists its parts."""

Arrays = Mapping[str, npt.NDArray[Any]]
"""Pictures and maps of a cell, by name."""


CHOSEN_ON_TEST = ("image_F1Max", "image_SpecificityAtSensitivity")
"""Figures whose threshold is chosen on the test labels, so that they are no honest ones."""

AT_THRESHOLD = ("image_Sensitivity", "image_Specificity", "image_F1")
"""Figures at the stored threshold, which is that of the honest epoch alone."""


class Store:
    """The folder of a comparison.

    ====================  =====================================================================
    ``config.yaml``       the config, as it was given
    ``grid.json``         all cells there are to be, and how they were asked for
    ``cells/KEY.json``    the record of a cell
    ``cells/KEY.npz``     its pictures and maps, where it has any
    ``claims/KEY.lock``   held by whoever works on the cell; the system lets go of it at his death
    ``features/``         what the frozen backbone says of each image, for all cells
    ====================  =====================================================================

    Args:
        folder: It is made where it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def features(self) -> Path:
        """Folder of features that cells share."""
        return self.folder / "features"

    def grid(self) -> dict[str, Any]:
        """What was planned.

        Raises:
            ResultsError: Nothing was planned in this folder.
            DamagedFileError: What says so is no JSON.
        """
        path = self.folder / "grid.json"
        if not path.is_file():
            msg = f"{self.folder} holds no comparison; give a folder that compare wrote"
            raise ResultsError(msg)
        found: dict[str, Any] = read_json(path)
        return found

    def config(self) -> str:
        """The config, as it was given."""
        return (self.folder / "config.yaml").read_text(encoding="utf-8")

    def write_grid(self, grid: Mapping[str, Any], config: str) -> None:
        """Write what is planned, and the config it came from."""
        write_whole(self.folder / "config.yaml", config)
        write_whole(self.folder / "grid.json", _as_json(grid))

    def record(self, key: str) -> Record | None:
        """The record of a cell, if it was run.

        Raises:
            DamagedFileError: It is no JSON.
        """
        path = self._path(key, ".json")
        return read_json(path) if path.is_file() else None

    def arrays(self, key: str) -> dict[str, npt.NDArray[Any]]:
        """Pictures and maps of a cell, by name; none where it has none."""
        path = self._path(key, ".npz")
        if not path.is_file():
            return {}
        with np.load(path) as found:
            return dict(found)

    def write(self, key: str, record: Record, arrays: Arrays | None = None) -> None:
        """Write a record; it is there once all of it is."""
        if arrays:
            with whole_file(self._path(key, ".npz")) as aside, aside.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **dict(arrays))
        write_whole(self._path(key, ".json"), _as_json({"notice": NOTICE, **record}))

    def claim(self, key: str, *, wait: bool = False) -> AcquireReturnProxy[Any] | None:
        """The cell's lock, held until its context ends; ``None`` if we neither get it nor wait."""
        try:
            return self._lock(key).acquire(blocking=wait)
        except Timeout:
            return None

    def claim_report(self) -> FileLock:
        """The lock of whoever writes the report, to be entered; others wait."""
        return self._lock("report")

    def _lock(self, name: str) -> FileLock:
        path = self.folder / "claims" / f"{name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path)

    def _path(self, key: str, ending: str) -> Path:
        return self.folder / "cells" / f"{key}{ending}"


def _as_json(value: Mapping[str, Any]) -> str:
    return as_json(value, indent=1) + "\n"
