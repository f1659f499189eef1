"""Files that can be read, that appear whole or not at all, and folders that can be written to."""

import errno
import hashlib
import json
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple
from uuid import uuid4

from filelock import FileLock, Timeout

from anomalib_medclip.errors import DamagedFileError, ImageReadError, NonFiniteError, OutputError

logger = logging.getLogger(__name__)


class Fault(NamedTuple):
    """Why a path is no file that can be read.

    Attributes:
        said: The rest of a sentence that begins with the path.
        remedy: What helps.
    """

    said: str
    remedy: str

    def about(self, path: str | Path) -> str:
        """The message of an error."""
        return f"{path} {self.said}; {self.remedy}"


MISSING = Fault("is missing", "restore it or take it out of the data")
EMPTY = Fault("holds no byte", MISSING.remedy)
A_FOLDER = Fault("is a folder and no file", "name a file")

_DENIED = Fault("may not be read by you", "let yourself read it, and enter all folders above it")
_FAULTS = {
    errno.ENOENT: MISSING,
    errno.ENOTDIR: MISSING,
    **dict.fromkeys((errno.EACCES, errno.EPERM), _DENIED),
    errno.ELOOP: Fault("is a link that leads back to itself", "remove it"),
    errno.ENAMETOOLONG: Fault("is too long a path for this system", "shorten its names"),
}
_POINTER = Fault("is a Git LFS pointer and not the file", "fetch that by 'git lfs pull'")
_BEGINS_POINTER = b"version https://git-lfs"
_NO_FILES = {stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
_NO_FILES |= dict.fromkeys((stat.S_IFCHR, stat.S_IFBLK), "device")


def fault_of(path: str | Path) -> Fault | None:
    """Why a path is no file that can be read; ``None`` where it is one.

    Only small regular files are opened: nobody waits for a pipe or reads a device for ever.
    """
    fault = _fault_by_status(path := Path(path))
    small = fault is None and 0 < path.stat().st_size < 1024  # bytes, as pointers are
    return _POINTER if small and path.read_bytes().startswith(_BEGINS_POINTER) else fault


def is_folder(path: str | Path) -> bool:
    """Whether a path is a folder that can be listed and entered."""
    return _fault_by_status(Path(path)) is A_FOLDER


def _fault_by_status(path: Path) -> Fault | None:
    """The same of a path that is not opened, and so may be a pointer."""
    try:
        found = path.stat()
    except OSError as error:
        if error.errno == errno.ENOENT and path.is_symlink():
            return Fault("is a link that leads nowhere", "restore what it leads to, or remove it")
        return _FAULTS.get(error.errno or 0) or Fault(f"cannot be read: {error}", "replace it")
    except ValueError:  # a name that no file can have
        return MISSING
    needed = os.R_OK | (os.X_OK if stat.S_ISDIR(found.st_mode) else 0)
    if not os.access(path, needed):
        return _DENIED
    if stat.S_ISDIR(found.st_mode):
        return A_FOLDER
    if kind := _NO_FILES.get(stat.S_IFMT(found.st_mode)):
        return Fault(f"is a {kind} and no file", "name a file, or take it out of the data")
    return None


def open_file(path: Path) -> BufferedReader:
    """Open a file to read its bytes, once.

    Raises:
        ImageReadError: It is none that can be read; see ``fault_of``.
    """
    if fault := _fault_by_status(path):
        raise ImageReadError(fault.about(path))
    file = path.open("rb")
    if file.peek(len(_BEGINS_POINTER)).startswith(_BEGINS_POINTER):
        file.close()
        raise ImageReadError(_POINTER.about(path))
    return file


def check_writable(folder: Path) -> None:
    """Refuse, before the work, a folder that results cannot be written to; it need not exist yet.

    Raises:
        OutputError: It, or the nearest folder above that there is, takes no file.
    """
    there = folder
    try:
        while not (there.exists() or there.is_symlink()):
            there = there.parent
        with TemporaryFile(dir=there) as file:
            file.write(b"\0")
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        msg = f"nothing can be written to {folder}: {reason}; change that, or give another folder"
        raise OutputError(msg) from error


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@contextmanager
def told_if_full(folder: Path) -> Iterator[None]:
    """Where a disk is full, say whose, and how to go on: it would be full for all that follows.

    Raises:
        OutputError: In the place of the system's own error.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        msg = (
            f"{folder} takes no more: {error.strerror}; make room, and give the same "
            "command again, which keeps what is finished"
        )
        raise OutputError(msg) from error


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

    Raises:
        OutputError: The disk is full.
    """
    aside = path.with_name(f".{path.name}.{uuid4().hex[:8]}.partial")
    try:
        with told_if_full(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield aside
            flush(aside)
            aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Have a file on the disk, and not only in the system's memory."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def replace_link(link: Path, target: str) -> None:
    """Let a link lead to something beside it; at every moment it leads there or where it led.

    Raises:
        OutputError: The disk is full.
    """
    aside = link.with_name(f".{link.name}.{uuid4().hex[:8]}.partial")
    try:
        with told_if_full(link.parent):
            aside.symlink_to(target)
            aside.replace(link)
    finally:
        aside.unlink(missing_ok=True)


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
    """What JSON text holds; NaN, Infinity and 1e999, which Python would take, are no numbers of it.

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
    try:
        return json.loads(text, **{"parse_constant": _finite, "parse_float": _finite, **options})
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error


def from_yaml(text: str) -> Any:  # noqa: ANN401 - whatever YAML has
    """What YAML text holds, in which no tag makes anything.

    Raises:
        ValueError: It is no YAML.
    """
    import yaml  # not for who reads no config

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error


_TOO_DEEP = "it is nested too deeply to be read"


def read_json(path: Path) -> Any:  # noqa: ANN401 - whatever JSON has
    """What a JSON file holds; see ``from_json``.

    Raises:
        DamagedFileError: It is no JSON.
        OSError: There is no such file.
    """
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of the encoding, too
        msg = f"{path} is no JSON: {error}; restore it, or delete it and run its command again"
        raise DamagedFileError(msg) from error


def _finite(word: str) -> float:
    if abs(number := float(word)) < float("inf"):  # which NaN is not
        return number
    msg = f"{word} is no number in JSON"
    raise ValueError(msg)


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits; errors are those of ``open_file``."""
    digest = hashlib.sha256()
    with open_file(path) as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def sha256_of_all(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of the files of a folder."""
    if fault_of(path) is not A_FOLDER:
        return sha256(path)
    digest = hashlib.sha256()
    for file in sorted(one for one in path.iterdir() if fault_of(one) is None):
        digest.update(file.name.encode() + bytes.fromhex(sha256(file)))
    return digest.hexdigest()
