"""What some data are, in 64 digits that change with any file, label, mask, split or patient."""

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from pandas import DataFrame

from anomalib_medclip.data.datamodule import MedicalDataModule
from anomalib_medclip.errors import DataChangedError
from anomalib_medclip.files import A_FOLDER, fault_of, sha256

_SETTLED = 2_000_000_000
"""Nanoseconds after a change of a file within which its time may not show another change."""

_COLUMNS = ("label_index", "split", "group", "object_name", "has_masks", "set_name")


class Read(NamedTuple):
    """A file as it was when it was read.

    Attributes:
        status: Its size, times of change in ns, and number in the file system.
        settled: Whether a later change would show in these.
        sha256: Of its content.
    """

    status: tuple[int, int, int, int]
    settled: bool
    sha256: str


Digests = dict[Path, Read]
"""Files that were read already."""


def fingerprint(
    data: MedicalDataModule,
    known: Digests,
    progress: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, _: items,
) -> str:
    """SHA-256 of what data say of each image, and of the content of its file and of its mask's.

    Paths count from the root, so that data may be moved as a whole. The draw of the support has no
    part in it, nor have splits that are made here.

    Args:
        data: The data, which need not have been set up.
        known: What was read already; it is added to.
        progress: Passes an iterator on and shows how far it is, given the number of items.

    Raises:
        MedclipError: The data cannot be listed.
    """
    table = data.complete(data.list_images())
    cases = data.cases()  # whose slices are no files
    parts = [str(path) for case in cases for path in case[:3] if path]
    listed = {*table["image_path"], *table["mask_path"], *parts} - {""}
    files = [path for path in map(Path, sorted(listed)) if fault_of(path) in (None, A_FOLDER)]
    with ThreadPoolExecutor() as pool:
        sums = progress(pool.map(lambda path: digest_of(path, known), files), len(files))
        told_of = {str(path): found for path, found in zip(files, sums, strict=True)}
    root = f"{data.root}{os.sep}"

    def told(path: Any) -> tuple[str, str]:  # noqa: ANN401 - text, path or None
        return str(path or "").removeprefix(root).replace(os.sep, "/"), told_of.get(str(path), "")

    rows = [
        *(repr((told(image), told(mask), *said)) for image, mask, *said in _rows(table)),
        *(repr((*map(told, case[:3]), *map(str, case[3:6]))) for case in cases),
    ]
    return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()


def _rows(table: DataFrame) -> Iterator[tuple[str, ...]]:
    """Image, mask and what is said of them."""
    kept = [name for name in _COLUMNS if name in table]
    for row in table[["image_path", "mask_path", *kept]].itertuples(index=False):
        yield tuple(map(str, row))


def digest_of(path: Path, known: Digests, pattern: str = "*") -> str:
    """SHA-256 of a file, or of the names and contents of the files of a folder, each read once.

    Args:
        path: File or folder.
        known: What was read already, which is taken from there as long as it has not been touched
            since; it is added to.
        pattern: Which files of a folder count.
    """
    if fault_of(path) is A_FOLDER:
        files = sorted(one for one in path.glob(pattern) if fault_of(one) is None)
        told = [f"{one.relative_to(path).as_posix()} {digest_of(one, known)}" for one in files]
        return hashlib.sha256("\n".join(told).encode()).hexdigest()
    found = path.stat()
    status = found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino
    read = known.get(path)
    if read is None or read.status != status or not read.settled:
        settled = time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) > _SETTLED
        read = known[path] = Read(status, settled, sha256(path))
    return read.sha256


def check_unchanged(data: MedicalDataModule, planned: str, known: Digests, where: str) -> None:
    """Refuse data that are no longer what they were.

    Args:
        data: The data.
        planned: Their fingerprint.
        known: What was read when it was taken; it is added to.
        where: What the message calls them.

    Raises:
        DataChangedError: A file, or what is said of one, is another; it names the file.
    """
    before = dict(known)
    if fingerprint(data, known) == planned:
        return
    changed = [
        path for path, read in before.items() if fault_of(path) or known[path].sha256 != read.sha256
    ]
    what = f"{changed[0]} (1 of {len(changed)})" if changed else "the list of images or labels"
    msg = (
        f"data {where}: {what} has changed since the comparison was planned; leave the data alone "
        "while it runs, and start it again"
    )
    raise DataChangedError(msg)
