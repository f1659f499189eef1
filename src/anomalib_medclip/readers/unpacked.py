"""The bytes of a file, unpacked if it is packed by gzip, whatever it is called."""

import gzip
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import SEEK_END, BufferedReader
from pathlib import Path
from shlex import quote
from types import TracebackType

from anomalib_medclip.errors import ImageReadError, MedclipError
from anomalib_medclip.files import open_file

PACKED = b"\x1f\x8b"
"""What packed files begin with."""

LONGEST_PADDING = 512
"""Bytes that may stand behind voxels and say nothing."""

_HEAD = 2048  # bytes that tell what a file is
_MOST_COMPRESSED = 1032  # bytes that one byte of a gzip file can at most become


def without_padding(content: bytes, wanted: int) -> bytes:
    """Content without what stands behind it and says nothing: a few zeros, or the end of a line."""
    rest = content[wanted:]
    is_padding = not rest.strip(b"\0") or rest in (b"\n", b"\r\n")
    return content[:wanted] if len(rest) <= LONGEST_PADDING and is_padding else content


class BoundedFile(BufferedReader):
    """A file to read, of which nobody takes memory for more than is there.

    Args:
        file: The same, as it was opened.
    """

    def __init__(self, file: BufferedReader) -> None:
        super().__init__(file.detach())
        self._end = self.seek(0, SEEK_END)
        self.seek(0)

    def read(self, size: int | None = -1, /) -> bytes:
        """So many bytes, or all that are left."""
        left = max(0, self._end - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


class Unpacked:
    """A file that is opened once, to see what it is and to read it; to be used in ``with``.

    Args:
        path: Where it is.

    Attributes:
        path: Where it is.
        is_packed: Whether it is packed.
        head: Its first bytes, unpacked; none, where they cannot be.

    Raises:
        ImageReadError: It is none that can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = BoundedFile(open_file(path))
        self.head = self._file.read(_HEAD)
        self.is_packed = self.head.startswith(PACKED)
        if self.is_packed:
            try:
                self.head = self.read(_HEAD)
            except (EOFError, OSError, zlib.error):
                self.head = b""

    def __enter__(self) -> "Unpacked":
        """The file, open."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self._file.close()

    def from_start(self) -> BoundedFile:
        """The file as it is, packed or not, at its beginning."""
        self._file.seek(0)
        return self._file

    def read(self, most: int) -> bytes:
        """At most so many bytes from its beginning, so that no bomb goes off.

        To its end they are read only if there are fewer: then checksums count.

        Raises:
            EOFError: It is cut off; and what else ``gzip`` raises.
        """
        file = self.from_start()
        content = gzip.GzipFile(fileobj=file) if self.is_packed else file
        return content.read(most)

    def read_whole(self, wanted: int) -> bytes:
        """So many bytes from its beginning, without padding; more, if there is something else.

        It is read to its end, so that checksums count; errors are those of ``read``.
        """
        return without_padding(self.read(wanted + LONGEST_PADDING + 1), wanted)

    def refuse_packed(self) -> None:
        """Refuse a file of a format that is not packed as a whole, if it is.

        Raises:
            ImageReadError: It is.
        """
        if self.is_packed:
            name = self.path.name
            plain = name[:-3] if name.lower().endswith(".gz") else f"unpacked_{name}"
            msg = (
                f"{self.path} is packed by gzip as a whole; unpack it by `gunzip < "
                f"{quote(str(self.path))} > {quote(plain)}`, and give that"
            )
            raise ImageReadError(msg)

    def could_hold(self, count: int) -> bool:
        """Whether so many bytes can be in it, by its length."""
        most = _MOST_COMPRESSED if self.is_packed else 1
        return count <= self.path.stat().st_size * most


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
