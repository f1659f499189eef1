"""One DICOM file, of which no more is inflated than its header allows.

Files of archives lack the mark, or all that comes before their data set; these are told by how they
begin. pydicom inflates the whole of a deflated file before it looks at the first value, even if
only the header is asked for. And it asks for as many bytes as an element says it has, however many
there are, so it is given none but a ``BoundedFile`` of ``unpacked``.
"""

import zlib
from collections.abc import Callable
from io import BytesIO
from struct import unpack
from typing import Any, BinaryIO

_LARGEST_HEADER = 2**24  # bytes, of a deflated file
_MOST_ELEMENTS = 100_000  # of a data set, without those in sequences
_PIXELS = range(0x7FE00008, 0x7FE00011)  # elements that pixels may stand in
_BEHIND_PIXELS = range(_PIXELS.stop, 2**32)
_MARK = b"DICM"  # behind a preamble of 128 bytes
_FIRST_GROUPS = (2, 8, 16)  # of a file header, and of data sets without one
_LONGEST_FIRST = 1024  # bytes that the first element of a data set may have


class FaultyFileError(ValueError):
    """What a file lacks, in words of this package; those of a library are not for its user."""


def begins_as_dicom(head: bytes) -> bool:
    """Whether the first 132 bytes of a file are those of DICOM: a mark, or a first element."""
    if head[128:132] == _MARK:
        return True
    start = head[:8].ljust(8, b"\0")
    for order in "<>":
        group, element, kind, length = unpack(f"{order}HH2sH", start)
        if not (kind.isalpha() and kind.isupper()):  # no kind is said, and the length is longer
            length = unpack("<I", start[4:])[0]
        fits = length == 4 if element == 0 else length <= _LONGEST_FIRST
        if group in _FIRST_GROUPS and fits:
            return True
    return False


def read_header(file: BinaryIO) -> Any:  # noqa: ANN401 - a pydicom dataset
    """Everything before the pixels, at which the file is left; what pydicom raises goes on.

    Returns:
        A dataset whose ``file_meta`` has a transfer syntax, if need be that of its encoding.

    Raises:
        FaultyFileError: It is empty, or does not begin as DICOM does.
    """
    from pydicom.filereader import read_dataset, read_partial

    if not begins_as_dicom(head := file.read(132)):
        msg = "it does not begin as DICOM does" if head else "it is empty"
        raise FaultyFileError(msg)
    meta = _read_meta(file)
    if not _deflated(meta):
        file.seek(0)
        # By force: the beginning has been looked at.
        header: Any = read_partial(file, _before(_PIXELS), force=True)
        header.file_meta = _with_syntax(header)
        return header
    start = BytesIO(_inflated(file, _LARGEST_HEADER))
    header = read_dataset(start, False, True, stop_when=_before(_PIXELS))
    header.file_meta = meta
    return header


def read_pixels(file: BinaryIO, header: Any, start: int, pixels: int) -> Any:  # noqa: ANN401
    """The element of pixels of a file; what pydicom raises goes on.

    Args:
        file: The file.
        header: What ``read_header`` has read of it, or a copy with the same encoding.
        start: Where that has left the file.
        pixels: Bytes of pixels that the header wants.

    Raises:
        FaultyFileError: There are none, or it holds far more, deflated.
    """
    from pydicom.filereader import read_dataset, read_partial

    if _deflated(header.file_meta):
        most = _LARGEST_HEADER + pixels
        _read_meta(file)
        if len(_inflated(file, most + 1)) > most:
            msg = f"it inflates to more than {most} bytes, but its header wants {pixels} of pixels"
            raise FaultyFileError(msg)
        file.seek(0)
        rest: Any = read_partial(file, _before(_BEHIND_PIXELS), force=True)
    else:
        file.seek(start)
        is_implicit, is_little = header.original_encoding
        rest = read_dataset(file, is_implicit, is_little, stop_when=_before(_BEHIND_PIXELS))
    if "PixelData" not in rest or not rest["PixelData"].value:
        msg = "it ends before its pixels, or holds none"
        raise FaultyFileError(msg)
    return rest["PixelData"]


def _before(tags: range) -> Callable[..., bool]:
    """What stops pydicom before the first of these elements, and after far too many others."""
    count = iter(range(_MOST_ELEMENTS))

    def stop(found: int, *_: object) -> bool:
        if next(count, None) is None:
            msg = f"it has more than {_MOST_ELEMENTS} elements"
            raise FaultyFileError(msg)
        return int(found) in tags  # of a number of another type all would be looked at

    return stop


def _read_meta(file: BinaryIO) -> Any:  # noqa: ANN401 - a pydicom dataset
    """What a file says of itself before its header, at which it is left."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.filereader import read_dataset

    file.seek(0)
    if file.read(132)[128:] != _MARK:
        file.seek(0)
    return FileMetaDataset(
        read_dataset(file, False, True, stop_when=lambda tag, *_: tag.group != 2)
    )


def _with_syntax(header: Any) -> Any:  # noqa: ANN401 - pydicom datasets
    """The file header, with the transfer syntax that a data set without one is encoded in."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    meta = getattr(header, "file_meta", None) or FileMetaDataset()
    if not meta.get("TransferSyntaxUID"):
        is_implicit, is_little = header.original_encoding
        explicit = ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian
        meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else explicit
    return meta


def _deflated(meta: Any) -> bool:  # noqa: ANN401 - a pydicom dataset
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    return bool(meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian)


def _inflated(file: BinaryIO, most: int) -> bytes:
    """At most so many bytes of what follows in a file."""
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(file.read(), most)
