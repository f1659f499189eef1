"""Arrays in files that NumPy has written."""

from math import prod
from pathlib import Path
from typing import Any, BinaryIO, cast
from zipfile import ZipFile, ZipInfo

from numpy.lib import format as npy
from numpy.typing import NDArray

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of a ``.npz`` file, by name.

    ``numpy.load`` takes as much memory as the head of an array asks for, however little follows.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such file, is damaged, or holds objects.
    """
    try:
        with ZipFile(path) as archive:
            return {
                one.filename.removesuffix(".npy"): _array(archive, one)
                for one in archive.infolist()
            }
    except (FileNotFoundError, NotADirectoryError):
        raise
    except Exception as error:  # what is damaged reaches every corner of NumPy
        raise ValueError(str(error) or type(error).__name__) from error


def _array(archive: ZipFile, member: ZipInfo) -> NDArray[Any]:
    with archive.open(member) as opened:
        file = cast("BinaryIO", opened)
        shape, _, dtype = _HEADERS[npy.read_magic(file)](file)
        held = member.file_size - file.tell()
        if prod(shape) * dtype.itemsize != held:
            msg = f"{member.filename} says it is of {shape} {dtype} numbers, and holds {held} bytes"
            raise ValueError(msg)
        file.seek(0)
        found: NDArray[Any] = npy.read_array(file, allow_pickle=False)
        return found
