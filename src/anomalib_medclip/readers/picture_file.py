"""One picture file, opened and decoded to the numbers that it holds; each format by one decoder."""

import struct
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from PIL import Image as Pillow
from PIL import ImageFile

from anomalib_medclip.errors import ImageReadError, MedclipError
from anomalib_medclip.files import EMPTY, open_file
from anomalib_medclip.readers.bmp import read_bmp
from anomalib_medclip.readers.file_kind import kind_by
from anomalib_medclip.readers.size_limit import check_pixels
from anomalib_medclip.readers.stored import DamageError, Stored
from anomalib_medclip.readers.tiff import BEGINNINGS, read_tiff
from anomalib_medclip.readers.unpacked import Unpacked

_Read = TypeVar("_Read")

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp")
"""Endings of picture files, in lower case; which format one is of, its first bytes say."""

_FORMATS = ("PNG", "JPEG", "GIF", "WEBP")  # by Pillow
_BITS = {"1": 1, "L;2": 2, "L;4": 4}  # of its raw greys; others have 8 or 16
_ORIENTATION = 274
_EXIF = ("exif", "Raw profile type exif")
_MPO_ENTRIES = 0xB002
_START_OF_JPEG = b"\xff\xd8\xff"
_END_OF_PNG = b"IEND\xaeB`\x82"


def read_stored(path: str | Path) -> Stored:
    """Read a picture file; see ``stored_in``."""
    with Unpacked(Path(path)) as file:
        return stored_in(file)


def stored_in(file: Unpacked) -> Stored:
    """Read a picture file that is open, the way up that viewers show it.

    Raises:
        ImageReadError: It is too large, damaged, of several pictures, or of a kind that is not
            read.
    """
    path, kind = file.path, kind_by(file.path, file.head)
    if not file.head and not file.is_packed:
        raise ImageReadError(EMPTY.about(path))
    if kind and kind.family == "foreign":
        raise ImageReadError(kind.about(path))
    if kind and kind.family == "volume":
        msg = f"cannot read image {path}: it is {kind.name}; give volumes to "
        raise ImageReadError(msg + "anomalib_medclip.data.Volumes or to score")
    file.refuse_packed()
    read: Callable[[Path, BinaryIO], Stored] = _read_by_pillow
    if file.head[:4] in BEGINNINGS:
        read = read_tiff
    elif file.head[:2] == b"BM":
        read = read_bmp
    return _guarded(path, partial(read, path, file.from_start())).upright()


def is_turned(path: str | Path) -> bool:
    """Whether a picture is shown otherwise by programs that know of no orientation.

    Raises:
        ImageReadError: It cannot be opened.
    """
    with open_file(Path(path)) as file:
        orientation = _guarded(Path(path), lambda: _orientation_of(_header_of(file)))
        return orientation in range(2, 9)


def _orientation_of(picture: Any) -> int:  # noqa: ANN401 - see ``_header_of``
    """That of EXIF or TIFF: Pillow takes that of XMP, too, by which no viewer turns a picture."""
    if picture.format == "TIFF":
        return int(picture.tag_v2.get(_ORIENTATION, 1))
    if picture.format == "PNG":
        picture.load()  # EXIF may stand at the end
    bare = Pillow.new("1", (1, 1))
    bare.info = {name: picture.info[name] for name in _EXIF if name in picture.info}
    return int(bare.getexif().get(_ORIENTATION, 1))


def _guarded(path: Path, read: Callable[[], _Read]) -> _Read:
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        msg = f"cannot read image {path}: Pillow is set to fill up damaged files; reset it"
        raise ImageReadError(msg)
    try:
        return read()
    except MedclipError:
        raise
    except Exception as error:  # damaged files reach every corner of the decoders
        said = str(error) if isinstance(error, DamageError) else "it is cut off or damaged"
        if isinstance(error, OSError) and error.errno:  # of the system; decoders' have none
            said = f"the system says: {error.strerror}"
        msg = f"cannot read image {path}: {said}; replace the file or take it out of the data"
        raise ImageReadError(msg) from error


def _read_by_pillow(path: Path, file: BinaryIO) -> Stored:
    picture = _header_of(file)
    kind = "JPEG" if picture.format == "MPO" else str(picture.format)
    if kind not in _FORMATS:
        raise _refusal(path, f"is of the format {kind}, which is not read; convert it to PNG")
    check_pixels(path, *picture.size)
    _check_single(path, picture)
    file.seek(0)
    content = file.read()
    raw = str(picture.tile[0][3]) if kind == "PNG" else ""
    if kind == "PNG":
        _check_png(content)
    picture.load()
    stored = _deep_png(content) if ";16" in raw else _shallow(path, picture, _BITS.get(raw, 8))
    lossy = kind == "JPEG" or (kind == "WEBP" and _is_lossy_webp(content))
    return stored._replace(lossy=lossy, orientation=_orientation_of(picture))


def _is_lossy_webp(content: bytes) -> bool:
    """Whether the pixels of a WebP file, wherever among its chunks they are, are lossy.

    Chunks are of four letters, a size and so many bytes, filled up to an even number; that of the
    one frame of an animation (ANMF) holds 16 bytes and then chunks.
    """
    place = 12  # after RIFF, its size and WEBP
    while (name := content[place : place + 4]) not in (b"VP8 ", b"VP8L", b""):
        (size,) = struct.unpack_from("<I", content, place + 4)
        place += 8 + (16 if name == b"ANMF" else size + size % 2)
    return name != b"VP8L"


def _refusal(path: Path, said: str) -> ImageReadError:
    return ImageReadError(f"cannot read image {path}: it {said}")


def _header_of(file: BinaryIO) -> Any:  # noqa: ANN401 - each format has a class of its own
    """What ``PIL.Image.open`` does, without its own limit, which would talk of attacks."""
    start = file.read(16)
    for load_formats in (Pillow.preinit, Pillow.init):  # the usual ones, then all
        load_formats()
        for make, accept in [Pillow.OPEN[name] for name in Pillow.ID]:
            accepted = accept is None or accept(start)
            if accepted and not isinstance(accepted, str):  # which says what is not installed
                file.seek(0)
                with suppress(SyntaxError, IndexError, TypeError, struct.error):  # another format
                    return make(file, "")
    msg = "it is of no format that is known"
    if start.startswith(_START_OF_JPEG):
        msg = "it is a damaged JPEG or one of a kind that is not read, such as 12 bits or lossless"
    raise DamageError(msg)


def _check_single(path: Path, picture: Any) -> None:  # noqa: ANN401 - see ``_header_of``
    """Refuse animations, and cameras' files of several pictures that count.

    A smaller copy does not, nor does what a phone stores beside a picture to show it brighter (a
    gain map), whose kind is not defined, and which is smaller than it.
    """
    count, said = getattr(picture, "n_frames", 1), "pictures, one after another (an animation)"
    if picture.format == "MPO":
        kinds = [entry["Attribute"]["MPType"] for entry in picture.mpinfo[_MPO_ENTRIES]]
        counted = [kind for n, kind in enumerate(kinds) if not _is_beside(picture, n, kind)]
        count, said = len(counted), f"pictures of a camera ({', '.join(dict.fromkeys(counted))})"
    if count > 1:
        raise _refusal(path, f"has {count} {said}; store the one that counts as PNG")


def _is_beside(picture: Any, number: int, kind: str) -> bool:  # noqa: ANN401 - see ``_header_of``
    """Whether a picture of a camera's file is a smaller copy of the first, or its gain map."""
    if number == 0 or kind != "Undefined":
        return kind.startswith("Large Thumbnail")
    picture.fp.seek(0)
    again = _header_of(BytesIO(picture.fp.read()))  # which forgets what it knows of the first
    again.seek(number)
    again.fp.seek(again.offset)
    sides = _header_of(BytesIO(again.fp.read())).size  # older versions of Pillow do not look
    return all(one < other for one, other in zip(sides, picture.size, strict=True))


def _check_png(content: bytes) -> None:
    """Every chunk has a checksum; Pillow leaves some unread."""
    _header_of(BytesIO(content)).verify()
    if _END_OF_PNG not in content:
        msg = "it is cut off in its last chunk"
        raise DamageError(msg)


def _deep_png(content: bytes) -> Stored:
    """Greys or colours of 16 bits, which Pillow would cut to 8."""
    import imagecodecs  # only for the rare deep picture; the import takes a while

    planes = np.atleast_3d(imagecodecs.png_decode(content))
    colours = planes.shape[2] - 1 + planes.shape[2] % 2  # 2 and 4 channels have transparency
    alpha = planes[..., colours] if planes.shape[2] > colours else None
    return Stored(planes[..., 0] if colours == 1 else planes[..., :3], 16, alpha=alpha)


def _shallow(path: Path, picture: Pillow.Image, bits: int) -> Stored:
    """Of a decoded picture of at most 8 bits, the numbers of its mode."""
    planes = np.asarray(picture).astype(np.uint8)
    if picture.mode in ("1", "L"):
        return Stored(planes if picture.mode == "1" else planes // (255 // (2**bits - 1)), bits)
    if picture.mode == "LA":
        return Stored(planes[..., 0], alpha=planes[..., 1])
    if picture.mode in ("RGB", "RGBA"):
        return Stored(planes[..., :3], alpha=planes[..., 3] if picture.mode == "RGBA" else None)
    if picture.mode == "P":
        palette = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
        if planes.max() >= len(palette):
            msg = f"a pixel has colour {planes.max()} of {len(palette)}"
            raise DamageError(msg)
        return Stored(planes, palette=palette)
    kind = "inks (CMYK), whose colours depend on a printer" if picture.mode == "CMYK" else (
        f"colours of the kind {picture.mode}"
    )  # fmt: skip
    raise _refusal(path, f"holds {kind}; convert it to RGB")
