"""BMP files of every kind of Windows and OS/2 but those that hold another file or Huffman codes.

Decoded here, since Pillow takes four bits for eight where the palette is a ramp of greys, and
OpenCV keeps no palette.
"""

import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomalib_medclip.errors import ImageReadError
from anomalib_medclip.readers.size_limit import check_pixels
from anomalib_medclip.readers.stored import DamageError, Stored

_PLAIN, _RUNS_OF_8, _RUNS_OF_4, _FIELDS, _FIELDS_AND_ALPHA = 0, 1, 2, 3, 6
_OS2, _OS2_LONG = 12, 64  # bytes of their headers
_MOST_BEFORE = 4096  # bytes of header, fields and palette
_USUAL_FIELDS = {
    16: (0x7C00, 0x03E0, 0x001F, 0),
    24: (0xFF0000, 0xFF00, 0xFF, 0),
    32: (0xFF0000, 0xFF00, 0xFF, 0),
}


class _Header(NamedTuple):
    width: int
    height: int
    from_top: bool
    bits: int
    compression: int
    fields: tuple[int, ...]  # which bits are red, green, blue and alpha
    palette: NDArray[np.uint8]
    pixels: bytes


def read_bmp(path: Path, file: BinaryIO) -> Stored:
    """Read a BMP file that is open, at its beginning.

    Raises:
        ImageReadError: It is too large, or of a kind that is not read.
        ValueError: It is damaged.
    """
    header = _header(path, file)
    is_run = header.compression in (_RUNS_OF_8, _RUNS_OF_4)
    rows = _runs(header) if is_run else _unpacked(header)
    if not header.from_top:
        rows = rows[::-1]
    if header.bits > 8:
        return _colours(path, rows, header.fields)
    if rows.size and rows.max() >= len(header.palette):
        msg = f"a pixel has colour {rows.max()} of {len(header.palette)}"
        raise DamageError(msg)
    return Stored(rows.astype(np.uint8), palette=header.palette)


def _header(path: Path, file: BinaryIO) -> _Header:
    raw = file.read(_MOST_BEFORE)
    start, size = struct.unpack_from("<II", raw, 10)
    compression = used = 0
    if size == _OS2:
        width, height, _, bits = struct.unpack_from("<HHHH", raw, 18)
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", raw, 18)
        (used,) = struct.unpack_from("<I", raw, 46)
    fields = _USUAL_FIELDS.get(bits, (0, 0, 0, 0))
    after = 14 + size
    kinds = {_PLAIN: (1, 2, 4, 8, 16, 24, 32), _RUNS_OF_8: (8,), _RUNS_OF_4: (4,)}
    if size != _OS2_LONG:  # where 3 and 4 mean other things
        kinds |= {_FIELDS: (16, 32), _FIELDS_AND_ALPHA: (16, 32)}
    if bits not in kinds.get(compression, ()):
        msg = (
            f"{path} is a BMP of {bits} bits a pixel with compression {compression}, which is not "
            "read; convert it to PNG"
        )
        raise ImageReadError(msg)
    if compression in (_FIELDS, _FIELDS_AND_ALPHA):  # of a short header they come after it
        count = 4 if size >= 56 or compression == _FIELDS_AND_ALPHA else 3
        fields = (*struct.unpack_from(f"<{count}I", raw, 54), 0)[:4]
        after = max(after, 54 + 4 * count)
    check_pixels(path, width, abs(height))
    entry = 3 if size == _OS2 else 4
    count = min(used or 2**bits, max(0, start - after) // entry) if bits <= 8 else 0
    table = np.frombuffer(raw, np.uint8, count * entry, after).reshape(count, entry)
    file.seek(start)
    return _Header(
        width, abs(height), height < 0, bits, compression, fields, table[:, 2::-1], file.read()
    )


def _unpacked(header: _Header) -> NDArray[np.uint32]:
    """The number of each pixel, ``(row, column)``, in the order of the file."""
    stride = (header.width * header.bits + 31) // 32 * 4
    if min(header.width, header.height) < 1 or len(header.pixels) < stride * header.height:
        msg = f"it has {len(header.pixels)} bytes of pixels, but its size wants "
        raise DamageError(msg + f"{stride * header.height}")
    rows = np.frombuffer(header.pixels, np.uint8, stride * header.height)
    rows = rows.reshape(header.height, stride)
    if header.bits < 8:
        single = np.unpackbits(rows, axis=1).reshape(header.height, -1, header.bits)
        found = single @ (1 << np.arange(header.bits)[::-1])
        return found[:, : header.width].astype(np.uint32)
    size = header.bits // 8
    parts = rows[:, : header.width * size].reshape(header.height, header.width, size)
    numbers = np.zeros((header.height, header.width), np.uint32)
    for place in range(size):
        numbers |= parts[..., place].astype(np.uint32) << np.uint32(8 * place)
    return numbers


def _runs(header: _Header) -> NDArray[np.uint32]:
    """The same of runs; what they step over is 0."""
    rows = np.zeros((header.height, header.width), np.uint32)
    data, at, row, column = header.pixels, 0, 0, 0
    halves = header.compression == _RUNS_OF_4
    while True:
        count, what = data[at], data[at + 1]  # an end that is missing is damage
        at += 2
        if count:
            found = [what >> 4, what & 15] if halves else [what]
            found = (found * count)[:count]
        elif what == 0:
            row, column = row + 1, 0
            continue
        elif what == 1:
            return rows
        elif what == 2:
            row, column = row + data[at + 1], column + data[at]
            at += 2
            continue
        else:
            size = (what + 1) // 2 if halves else what
            part = data[at : at + size]
            pairs = [half for byte in part for half in (byte >> 4, byte & 15)]
            found = (pairs if halves else [*part])[:what]
            at += size + size % 2
        rows[row, column : column + len(found)] = found  # a run beyond the row is damage
        column += len(found)


def _colours(path: Path, pixels: NDArray[np.uint32], fields: tuple[int, ...]) -> Stored:
    """Take pixels apart by the bits of each channel."""
    channels = []
    for name, field in zip(("red", "green", "blue", "alpha"), fields, strict=True):
        if name == "alpha" and not field:
            continue
        shift = (field & -field).bit_length() - 1
        most = field >> max(0, shift)
        if not 0 < most <= 255 or most & (most + 1):
            msg = f"{path} is a BMP of {most.bit_count()} bits of {name}, which is not read; "
            raise ImageReadError(msg + "convert it to PNG")
        found = (pixels & np.uint32(field)) >> np.uint32(shift)
        channels.append(((found * 255 + most // 2) // most).astype(np.uint8))
    return Stored(np.stack(channels[:3], axis=2), alpha=channels[3] if channels[3:] else None)
