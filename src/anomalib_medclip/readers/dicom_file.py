"""One DICOM file, of which no more is inflated than its header allows.

pydicom inflates the whole of a deflated file before it looks at the first value, even if only the
header is asked for.
"""

import zlib
from io import BytesIO
from typing import Any, BinaryIO

_LARGEST_HEADER = 2**24  # bytes, of a deflated file


def read_header(file: BinaryIO) -> Any:  # noqa: ANN401 - a pydicom dataset
    """Everything but the pixels; what pydicom raises goes on."""
    import pydicom
    from pydicom.datadict import tag_for_keyword
    from pydicom.filereader import read_dataset

    if not (meta := _deflated(file)):
        return pydicom.dcmread(file, stop_before_pixels=True)
    pixels = tag_for_keyword("PixelData")
    start = BytesIO(_inflated(file, _LARGEST_HEADER))
    header = read_dataset(start, False, True, stop_when=lambda tag, *_: tag == pixels)
    header.file_meta = meta
    return header


def read_whole(file: BinaryIO, pixels: int) -> Any:  # noqa: ANN401 - a pydicom dataset
    """All of a file.

    Args:
        file: The file.
        pixels: Bytes of pixels that its header wants.

    Raises:
        ValueError: It holds far more, deflated; or whatever pydicom raises.
    """
    import pydicom

    most = _LARGEST_HEADER + pixels
    if _deflated(file) and len(_inflated(file, most + 1)) > most:
        msg = f"it inflates to more than {most} bytes, but its header wants {pixels} of pixels"
        raise ValueError(msg)
    file.seek(0)
    return pydicom.dcmread(file)


def _deflated(file: BinaryIO) -> Any:  # noqa: ANN401 - a pydicom dataset
    """What a deflated file says of itself before its header, at which the file is left.

    Of any other file ``None``, and the file is left at its beginning.
    """
    from pydicom.dataset import FileMetaDataset
    from pydicom.filereader import read_dataset
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    file.seek(0)
    if file.read(132)[128:] == b"DICM":
        meta = read_dataset(file, False, True, stop_when=lambda tag, *_: tag.group != 2)
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            return FileMetaDataset(meta)
    file.seek(0)
    return None


def _inflated(file: BinaryIO, most: int) -> bytes:
    """At most so many bytes of what follows in a file."""
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(file.read(), most)
