"""Records of cells on disk: one JSON each, written whole or not at all."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from filelock import AcquireReturnProxy, FileLock, Timeout

from anomalib_medclip.arrays import read_arrays
from anomalib_medclip.compare.cell_record import Arrays, CellRecord, ComparisonGrid
from anomalib_medclip.errors import MedclipError, ResultsError
from anomalib_medclip.files import as_json, read_json, whole_file, write_whole
from anomalib_medclip.option_checks import checked_name
from anomalib_medclip.provenance import NOTICE

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


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

    def grid(self) -> ComparisonGrid:
        """What was planned.

        Raises:
            ResultsError: Nothing was planned in this folder, or what says so is no plan.
            DamagedFileError: It is no JSON.
        """
        path = self.folder / "grid.json"
        if not path.is_file():
            msg = f"{self.folder} holds no comparison; give a folder that compare wrote"
            raise ResultsError(msg)
        remedy = "restore it, or run the comparison again, which writes it and keeps its cells"
        return _read(_planned, path, f"no grid of a comparison: {{}}; {remedy}")

    def config(self) -> str:
        """The config, as it was given."""
        return (self.folder / "config.yaml").read_text(encoding="utf-8")

    def write_grid(self, grid: ComparisonGrid, config: str) -> None:
        """Write what is planned, and the config it came from; no report sees one without other."""
        with self.claim_report():
            write_whole(self.folder / "config.yaml", config)
            write_whole(self.folder / "grid.json", _as_json(grid.as_plain()))

    def record(self, key: str) -> CellRecord | None:
        """The record of a cell, if it was run.

        Raises:
            ResultsError: The file is no record of a cell.
            DamagedFileError: It is no JSON.
        """
        path = self._path(key, ".json")
        if not path.is_file():
            return None
        return _read(CellRecord.of_plain, path, f"no record of a cell: {{}}; {_RUN_ANEW}")

    def records(self, grid: ComparisonGrid) -> list[CellRecord]:
        """Records of the cells of a grid that were run, of the tests that stand in the grid."""
        found = ((cell, self.record(cell.key)) for cell in grid.cells)
        return [replace(record, cell=cell) for cell, record in found if record is not None]

    def forget_damaged(self, key: str) -> None:
        """Remove the record of a cell, with a word, where it or its arrays cannot be read."""
        try:
            if self.record(key) is not None:
                self.arrays(key)
        except MedclipError as error:
            self._path(key, ".json").unlink(missing_ok=True)
            logger.warning("a record counts as absent, and its cell is run again: %s", error)

    def arrays(self, key: str) -> Arrays:
        """Pictures and maps of a cell, by name; none where it has none.

        Raises:
            ResultsError: The file holds no arrays, or is damaged.
        """
        path = self._path(key, ".npz")
        if not path.is_file():
            return {}
        try:
            return read_arrays(path)
        except ValueError as error:
            msg = f"{path} holds no arrays of a cell: {error}; {_RUN_ANEW}"
            raise ResultsError(msg) from error

    def write(self, key: str, record: CellRecord, arrays: Arrays | None = None) -> None:
        """Write a record; it is there once all of it is."""
        if arrays:
            with whole_file(self._path(key, ".npz")) as aside, aside.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **arrays)
        write_whole(self._path(key, ".json"), _as_json({"notice": NOTICE, **record.as_plain()}))

    def claim(self, key: str, *, wait: bool = False) -> "AcquireReturnProxy[Any] | None":
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


def _planned(plain: object) -> ComparisonGrid:
    """A grid whose cells have keys that files can be called by, here and not elsewhere."""
    grid = ComparisonGrid.of_plain(plain)
    for cell in grid.cells:
        checked_name("the key of a cell", cell.key)
    return grid


_RUN_ANEW = "restore it, or run the comparison again, which runs this cell anew"


def _read(of_plain: Callable[[object], _T], path: Path, wrong: str) -> _T:
    plain = read_json(path)
    try:
        return of_plain(plain)
    except ValueError as error:
        msg = f"{path} is {wrong.format(error)}"
        raise ResultsError(msg) from error


def _as_json(value: Mapping[str, Any]) -> str:
    return as_json(value, indent=1) + "\n"
