"""The bytes of a file, unpacked if it is packed by gzip, whatever it is called."""

import gzip
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anomalib_medclip.errors import ImageReadError, MedclipError
from anomalib_medclip.files import open_file
from anomalib_medclip.readers.file_kind import is_packed

_MOST_COMPRESSED = 1032  # bytes that one byte of a gzip file can at most become


def read_unpacked(path: Path, most: int) -> bytes:
    """At most so many bytes of a file, so that no bomb goes off.

    To its end they are read only if there are fewer: then checksums count.

    Raises:
        ImageReadError: It is none that can be read.
        EOFError: It is cut off; and what else ``gzip`` raises.
    """
    with open_file(path) as file:
        packed = is_packed(path)
        content = gzip.GzipFile(fileobj=file) if packed else file
        return content.read(most)


def could_hold(path: Path, count: int) -> bool:
    """Whether so many bytes can be in a file, by its length."""
    return count <= path.stat().st_size * (_MOST_COMPRESSED if is_packed(path) else 1)


@contextmanager
def said_of(path: Path, kind: str, *more: type[Exception]) -> Iterator[None]:
    """What nibabel and gzip raise becomes an error that names the file.

    Args:
        path: The file.
        kind: What it is read as.
        *more: What else its reader raises.

    Raises:
        ImageReadError: In the place of theirs.
    """
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    of_format = HeaderDataError, ImageFileError, WrapStructError
    of_bytes = EOFError, ValueError, TypeError, KeyError, OverflowError, struct.error, zlib.error
    known: tuple[type[Exception], ...] = (OSError, MemoryError, *of_bytes, *of_format, *more)
    try:
        yield
    except MedclipError:
        raise
    except known as error:
        reason = str(error) or type(error).__name__
        msg = f"cannot read {path} as {kind}: {reason}; replace it or take it out of the data"
        raise ImageReadError(msg) from error
