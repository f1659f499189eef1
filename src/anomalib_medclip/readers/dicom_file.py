"""One DICOM file, of which no more is inflated than its header allows.

pydicom inflates the whole of a deflated file before it looks at the first value, even if only the
header is asked for. And it asks for as many bytes as an element says it has, however many there
are.
"""

import zlib
from io import SEEK_END, BufferedReader, BytesIO
from typing import Any, BinaryIO

_LARGEST_HEADER = 2**24  # bytes, of a deflated file


class DicomFile(BufferedReader):
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


def read_header(file: BinaryIO) -> Any:  # noqa: ANN401 - a pydicom dataset
    """Everything before the pixels, at which the file is left; what pydicom raises goes on."""
    import pydicom
    from pydicom.datadict import tag_for_keyword
    from pydicom.filereader import read_dataset

    meta = _read_meta(file)
    if not _deflated(meta):
        file.seek(0)
        return pydicom.dcmread(file, stop_before_pixels=True)
    pixels = tag_for_keyword("PixelData")
    start = BytesIO(_inflated(file, _LARGEST_HEADER))
    header = read_dataset(start, False, True, stop_when=lambda tag, *_: tag == pixels)
    header.file_meta = meta
    return header


def read_whole(file: BinaryIO, header: Any, pixels: int) -> Any:  # noqa: ANN401 - pydicom datasets
    """All of a file.

    Args:
        file: The file, as ``read_header`` has left it.
        header: What that has read.
        pixels: Bytes of pixels that the header wants.

    Raises:
        ValueError: It holds far more, deflated; or whatever pydicom raises.
    """
    import pydicom
    from pydicom.filereader import read_dataset

    if not _deflated(header.file_meta):
        header.update(read_dataset(file, *header.original_encoding))
        return header
    most = _LARGEST_HEADER + pixels
    _read_meta(file)
    if len(_inflated(file, most + 1)) > most:
        msg = f"it inflates to more than {most} bytes, but its header wants {pixels} of pixels"
        raise ValueError(msg)
    file.seek(0)
    return pydicom.dcmread(file)


def _read_meta(file: BinaryIO) -> Any:  # noqa: ANN401 - a pydicom dataset
    """What a file says of itself before its header, at which it is left."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.filereader import read_dataset

    file.seek(0)
    if file.read(132)[128:] != b"DICM":
        file.seek(0)
    return FileMetaDataset(
        read_dataset(file, False, True, stop_when=lambda tag, *_: tag.group != 2)
    )


def _deflated(meta: Any) -> bool:  # noqa: ANN401 - a pydicom dataset
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    return bool(meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian)


def _inflated(file: BinaryIO, most: int) -> bytes:
    """At most so many bytes of what follows in a file."""
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(file.read(), most)
