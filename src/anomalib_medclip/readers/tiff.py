"""TIFF files: one picture, its numbers as the header's bits, sign and photometry say."""

import logging
import struct
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from anomalib_medclip.errors import ImageReadError
from anomalib_medclip.readers.size_limit import check_pixels
from anomalib_medclip.readers.stored import DamageError, Stored

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is damaged, our errors say

BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of TIFF and BigTIFF, of both byte orders."""

_REDUCED, _TRANSPARENCY, _OLD_REDUCED = 1, 4, 2
_PHOTOMETRIC, _ORIENTATION, _OLD_SUBFILE = 262, 274, 255
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_PLAIN, _OLD_JPEG, _JPEG = 1, 6, 7
_APART = 2
_UNSIGNED, _FLOAT = 1, 3
_PREMULTIPLIED, _ALPHA = 1, 2

_STRAIGHT, _UNCALIBRATED = 0, 20
_FUNCTIONS = {
    **{1: "quadratic", 2: "cubic", 3: "quartic", 4: "exponential", 5: "power", 6: "logarithmic"},
    **{7: "Rodbard", 8: "gamma variate", 9: "logarithmic", 10: "Rodbard (NIH Image)"},
    **{11: "exponential with offset", 12: "Gaussian", 13: "exponential recovery"},
    **{21: "optical density", 22: "custom"},
}
"""ImageJ's calibration functions (``cf``) that are not applied, by name; see its ``Calibration``
and ``CurveFitter``."""


def read_tiff(path: Path, file: BinaryIO) -> Stored:
    """Read a TIFF file that is open, at its beginning.

    Raises:
        ImageReadError: It is too large, or of a kind that is not read.
        DamageError: It is damaged; and what else tifffile raises.
    """
    import tifffile  # only for who reads TIFF; the import takes a while

    _check_chain(file)
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        page = _only_page(path, tiff)
        check_pixels(path, page.imagewidth, page.imagelength)
        _check_kind(path, page)
        _check_size(page, tiff.filehandle.size)
        stored = _stored(path, page, _planes(path, page))
        return _calibrated(path, stored, tiff.imagej_metadata or {})


def _check_chain(file: BinaryIO) -> None:
    """Every page leads to another or ends the list; tifffile passes over damage, or never ends."""
    start = file.read(4)
    order = "<" if start[:2] == b"II" else ">"
    count, entry, link, first = ("H", 12, "I", 4)
    if b"+" in start:  # BigTIFF
        count, entry, link, first = ("Q", 20, "Q", 8)

    def number(kind: str, at: int) -> int:
        file.seek(at)
        return int(struct.unpack(order + kind, file.read(struct.calcsize(kind)))[0])

    seen: set[int] = set()
    page = number(link, first)
    while page:
        if page in seen:
            msg = "its list of pages has no end"
            raise DamageError(msg)
        seen.add(page)
        page = number(link, page + struct.calcsize(count) + entry * number(count, page))


def _only_page(path: Path, file: "TiffFile") -> "TiffPage":
    """The one page that is no smaller copy of another, nor its transparency."""
    pages: list[Any] = [page for page in file.pages if not _is_beside(page)]
    if len(pages) == 1:
        stack: Any = file.imagej_metadata or {}
        count = int(stack.get("images", 1))
        if count == 1 and pages[0].imagedepth == 1:
            return pages[0]
        said = f"{max(count, pages[0].imagedepth)} pictures (a stack)"
    else:
        sizes = dict.fromkeys(f"{page.imagewidth} x {page.imagelength}" for page in pages)
        said = f"{len(pages) or 'no'} pages of {', '.join(sizes) or 'full size'}"
    msg = f"cannot read image {path}: it has {said}; store each that counts as a file"
    raise ImageReadError(msg)


def _is_beside(page: Any) -> bool:  # noqa: ANN401 - tifffile's, which may be a mere frame
    old = page.tags.get(_OLD_SUBFILE)
    reduced = old is not None and old.value == _OLD_REDUCED
    return reduced or bool(int(page.subfiletype) & (_REDUCED | _TRANSPARENCY))


def _check_kind(path: Path, page: "TiffPage") -> None:
    """Refuse what has no exact greys or colours."""
    bits, kind, photometric = page.bitspersample, int(page.sampleformat), int(page.photometric)
    samples, extra = page.samplesperpixel, page.extrasamples
    wanted = {_RGB: 3, _YCBCR: 3}.get(photometric, 1)
    name = getattr(page.photometric, "name", str(page.photometric))
    said = ""
    if _PHOTOMETRIC not in page.tags:
        said = "greys or colours, and not which of them"
    elif photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR):
        said = f"colours of the kind {name}"
    elif photometric == _YCBCR and int(page.compression) not in (_OLD_JPEG, _JPEG):
        said = "brightness and colour apart (YCbCr), and not as JPEG"
    elif not isinstance(bits, int) or page.dtype is None or not _UNSIGNED <= kind <= _FLOAT:
        said = f"numbers of {bits} bits of a kind ({kind}) that is none of whole and real ones"
    elif photometric == _PALETTE and (bits > 8 or kind != _UNSIGNED):
        said = f"a palette for numbers of {bits} bits"
    elif samples - len(extra) != wanted or (wanted == 1 and 0 in map(int, extra)):
        said = f"{samples} channels, of which it is not said what they are"
    if said:
        msg = f"cannot read image {path}: it is a TIFF that holds {said}; convert it to grey or RGB"
        raise ImageReadError(msg)


def _check_size(page: "TiffPage", size: int) -> None:
    """There are pixels, all in the file, and of uncompressed strips as many as rows want."""
    if min(page.imagewidth, page.imagelength) < 1:
        msg = "it has no pixel"
        raise DamageError(msg)
    places = zip(page.dataoffsets, page.databytecounts, strict=True)
    if any(start + count > size for start, count in places):
        msg = "its pixels lie outside the file"
        raise DamageError(msg)
    bits: Any = page.bitspersample
    apart = page.planarconfig == _APART
    row = (page.imagewidth * bits * (1 if apart else page.samplesperpixel) + 7) // 8
    wanted = row * page.imagelength * (page.samplesperpixel if apart else 1)
    if int(page.compression) == _PLAIN and not page.is_tiled and sum(page.databytecounts) != wanted:
        msg = f"it has {sum(page.databytecounts)} bytes of pixels, but its size wants {wanted}"
        raise DamageError(msg)


def _planes(path: Path, page: "TiffPage") -> NDArray[Any]:
    """All channels, ``(row, column, channel)``."""
    try:
        pixels: NDArray[Any] = page.asarray(maxworkers=1)
    except ValueError as error:
        if not str(error).endswith("not supported"):
            raise
        name = getattr(page.compression, "name", page.compression)
        msg = (
            f"cannot read image {path}: its compression, {name}, is one that what is installed "
            "does not read; update imagecodecs and tifffile, or store it uncompressed"
        )
        raise ImageReadError(msg) from error
    count = page.samplesperpixel
    if count > 1 and page.planarconfig == _APART:
        pixels = np.moveaxis(pixels.reshape(count, *pixels.shape[-2:]), 0, -1)
    return pixels.reshape(page.imagelength, page.imagewidth, count)


def _stored(path: Path, page: "TiffPage", planes: NDArray[Any]) -> Stored:
    bits: Any = page.bitspersample
    photometric, extra = int(page.photometric), [int(one) for one in page.extrasamples]
    colours = 3 if photometric in (_RGB, _YCBCR) else 1
    alpha = planes[..., colours] if extra and extra[0] in (_PREMULTIPLIED, _ALPHA) else None
    if _PREMULTIPLIED in extra[:1] and (planes[..., colours] != 2**bits - 1).any():
        msg = (
            f"cannot read image {path}: its colours are multiplied by their transparency, which "
            "rounds them; store it without transparency"
        )
        raise ImageReadError(msg)
    unsigned = int(page.sampleformat) == _UNSIGNED
    numbers = planes[..., :3] if colours == 3 else planes[..., 0]
    if bits <= 8 and unsigned:
        numbers = numbers.astype(np.uint8)  # bits and bools
    orientation = page.tags.get(_ORIENTATION)
    return Stored(
        numbers,
        bits,
        _palette(page) if photometric == _PALETTE else None,
        alpha,
        inverted=photometric == _WHITE_IS_ZERO,
        lossy=int(page.compression) in (_OLD_JPEG, _JPEG),
        orientation=1 if orientation is None else int(orientation.value),
    )


def _calibrated(path: Path, stored: Stored, said: Mapping[str, Any]) -> Stored:
    """Of greys that ImageJ has written, the numbers that it shows: a straight line of the stored.

    Signed 16 bits are such: it stores them without a sign, 32768 too high.

    Raises:
        ImageReadError: It calibrates by another function than a straight line.
    """
    function = said.get("cf", _UNCALIBRATED)
    greys = stored.numbers.ndim == 2 and stored.palette is None
    line = [said[name] for name in ("c0", "c1") if name in said]
    if not greys or function == _UNCALIBRATED or (function == _STRAIGHT and line in ([], [0, 1])):
        return stored
    numbers = len(line) == 2 and all(isinstance(c, int | float) and isfinite(c) for c in line)
    if function != _STRAIGHT or not numbers or line[1] == 0:
        name = "no line" if function == _STRAIGHT else _FUNCTIONS.get(function, function)
        msg = (
            f"cannot read image {path}: ImageJ has calibrated its numbers by a function that is "
            f"not applied here, {name} (cf={function}); make it 32-bit in ImageJ, which applies it"
        )
        raise ImageReadError(msg)
    offset, slope = line
    values = offset + slope * stored.numbers.astype(np.float64)
    if said.get("zeroclip") is True:
        values = values.clip(min=0)
    elif line == [-(2**15), 1] and stored.bits == 16:
        values = values.astype(np.int16)
    # A falling line of inverted greys rises with brightness again.
    return stored._replace(numbers=values, inverted=stored.inverted and slope > 0)


def _palette(page: "TiffPage") -> NDArray[np.uint8]:
    """Colours of 8 bits; some writers have stored them as such, and not as 16."""
    colours: Any = page.colormap
    return (colours.T >> 8 if colours.max() > 255 else colours.T).astype(np.uint8)
