"""Files that appear whole or not at all, what tells them apart, and folders of one writer."""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

from filelock import FileLock, Timeout

from anomalib_medclip.errors import DamagedFileError, NonFiniteError

logger = logging.getLogger(__name__)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder by a lock beside it, which the system lets go of at its holder's death.

    Where another process holds it, wait until that has ended, and say so.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        logger.warning("another process writes to %s; waiting until it has ended", folder)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the name of the file once all is written; else it is gone.

    What is written is on the disk before: a power cut leaves the old file or the new one. The
    folder is made. Several processes may write the same file. What a killed one leaves has a
    hidden name, which no reader looks at.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid4().hex[:8]}.partial")
    try:
        yield aside
        flush(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Have a file on the disk, and not only in the system's memory."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def write_whole(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with whole_file(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="")


def as_json(value: Any, **options: Any) -> str:  # noqa: ANN401 - whatever JSON has
    """JSON text, in which no number is NaN or infinite.

    Args:
        value: What to write; ``None`` where a figure is not defined.
        **options: As ``json.dumps`` takes them.

    Raises:
        NonFiniteError: A number is not finite, which JSON cannot say.
    """
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError as error:
        msg = f"no JSON can be written: {error}; find what made the number, it is no result"
        raise NonFiniteError(msg) from error


def from_json(text: str, **options: Any) -> Any:  # noqa: ANN401 - whatever JSON has
    """What JSON text holds; the words NaN and Infinity, which Python would take, are none of JSON.

    Args:
        text: The text.
        **options: As ``json.loads`` takes them.

    Raises:
        ValueError: It is no JSON.

    Example:
        >>> from_json('{"score": NaN}')
        Traceback (most recent call last):
        ValueError: NaN is no number in JSON
    """
    return json.loads(text, parse_constant=_refuse, **options)


def read_json(path: Path) -> Any:  # noqa: ANN401 - whatever JSON has
    """What a JSON file holds; see ``from_json``.

    Raises:
        DamagedFileError: It is no JSON.
        OSError: There is no such file.
    """
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of the encoding, too
        msg = (
            f"{path} is no JSON: {error}; restore it, or delete it and run again the command that "
            "wrote it"
        )
        raise DamagedFileError(msg) from error


def _refuse(word: str) -> NoReturn:
    msg = f"{word} is no number in JSON"
    raise ValueError(msg)


def without_folders(words: str, *folders: Path) -> str:
    """Words for a file that travels: paths begin with the name of one of these folders.

    Example:
        >>> without_folders("/home/jane/scans/P4.nii is cut off", Path("/home/jane/scans"))
        'scans/P4.nii is cut off'
    """
    for folder in folders:
        for above in (folder.absolute().parent, folder.resolve().parent):
            words = words.replace(f"{above}{os.sep}", "")
    return words


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def sha256_of_all(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of the files of a folder."""
    if not path.is_dir():
        return sha256(path)
    digest = hashlib.sha256()
    for file in sorted(one for one in path.iterdir() if one.is_file()):
        digest.update(file.name.encode() + bytes.fromhex(sha256(file)))
    return digest.hexdigest()
