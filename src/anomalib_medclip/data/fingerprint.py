"""What some data are, in 64 digits that change with any file, label, split or patient."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from anomalib_medclip.data.datamodule import MedicalDataModule
from anomalib_medclip.data.volumes import Volumes
from anomalib_medclip.files import sha256_of_all

Digests = dict[tuple[Path, int, int], str]
"""SHA-256 of files that were read already, by path, size and time of change."""

_COLUMNS = ("label_index", "split", "group", "object_name", "has_masks", "set_name")


def fingerprint(
    data: MedicalDataModule,
    known: Digests,
    progress: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, _: items,
) -> str:
    """SHA-256 of the names and contents of all files of some data, and of what is said of them.

    The draw of the support has no part in it, nor have splits that are made here.

    Args:
        data: The data, which need not have been set up.
        known: What was read already; it is added to.
        progress: Passes an iterator on and shows how far it is, given the number of items.

    Raises:
        MedclipError: The data cannot be listed.
    """
    table = data.complete(data.list_images())
    digest = hashlib.sha256()
    for row in sorted(_rows(table, data)):
        digest.update(row.encode())
    files = _files(data, [*table["image_path"], *table["mask_path"]])
    with ThreadPoolExecutor() as pool:
        sums = pool.map(lambda path: digest_of(path, known), files)
        for path, found in zip(files, progress(sums, len(files)), strict=True):
            digest.update(f"{path.name} {found}".encode())
    return digest.hexdigest()


def _rows(table: Any, data: MedicalDataModule) -> Iterable[str]:  # noqa: ANN401 - any table
    kept = [name for name in _COLUMNS if name in table]
    for path, *values in table[["image_path", *kept]].itertuples(index=False):
        name = Path(path).name if data.in_files else "/".join(Path(path).parts[-2:])
        yield repr((name, *map(str, values)))


def _files(data: MedicalDataModule, listed: Sequence[str]) -> list[Path]:
    """The files behind a table; slices are of volumes, which may be folders."""
    if isinstance(data, Volumes):
        listed = [str(path) for case in data.cases() for path in case[:3] if path is not None]
    return [path for path in map(Path, sorted({*listed} - {""})) if path.exists()]


def digest_of(path: Path, known: Digests) -> str:
    """SHA-256 of a file, or of the files of a folder, read once; ``known`` is added to."""
    status = path.stat()
    key = path, status.st_size, status.st_mtime_ns
    if key not in known:
        known[key] = sha256_of_all(path)
    return known[key]
