"""The pixels of one DICOM file, as its header says they are."""

from itertools import pairwise
from pathlib import Path
from struct import unpack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomalib_medclip.errors import ImageReadError

_DECODERS = {
    f"1.2.840.10008.1.2.4.{number}": package
    for package, numbers in {
        "pylibjpeg[libjpeg]": (50, 51, 57, 70),
        "pyjpegls": (80, 81),
        "pylibjpeg[openjpeg]": (90, 91, 201, 202, 203),
    }.items()
    for number in numbers
}
"""Packages that decode compressed pixels, by transfer syntax."""


def decoded(path: Path, dataset: Any, **options: Any) -> NDArray[Any]:  # noqa: ANN401
    """Pixels of one file, rescaled unless options say otherwise.

    Args:
        path: The file, for error messages.
        dataset: What pydicom has read of it.
        **options: See ``highdicom.Image.get_frame``.

    Raises:
        ImageReadError: They cannot be decoded, or are not what the header says.
    """
    import highdicom
    from pydicom.uid import RLELossless

    options = {
        "dtype": np.float64,
        "apply_presentation_lut": False,  # done here, after the policy
        "apply_real_world_transform": False,  # windows are in rescaled units
        **options,
    }
    syntax = dataset.file_meta.get("TransferSyntaxUID", "")
    try:
        _check_length(dataset, compressed=syntax.is_compressed)
        image = highdicom.Image.from_dataset(dataset, copy=False)
        if syntax == RLELossless:
            _check_runs(dataset, image.get_raw_frame(1))
        _check_stored(dataset, image.get_stored_frame(1))
        pixels: NDArray[Any] = image.get_frame(1, **options)
    except Exception as error:
        package = _DECODERS.get(syntax)
        remedy = "replace it or take it out"
        if package and "plugins" in str(error):
            remedy = f"it is compressed as {syntax.name}: run pip install '{package}'"
        msg = f"cannot decode the pixels of {path}: {error}; {remedy}"
        raise ImageReadError(msg) from error
    return pixels


def _check_length(dataset: Any, *, compressed: bool) -> None:  # noqa: ANN401
    """Refuse pixels that are more than the header says; pydicom would leave out the last."""
    if compressed:
        return
    wanted = pixel_bytes(dataset)
    if len(dataset.PixelData) > wanted + wanted % 2:
        msg = f"it holds {len(dataset.PixelData)} bytes of pixels, but its header wants {wanted}"
        raise ValueError(msg)


def pixel_bytes(dataset: Any) -> int:  # noqa: ANN401 - a pydicom dataset
    """How many bytes the pixels are that a header describes, where they are not compressed."""
    samples = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel
    if dataset.PhotometricInterpretation == "YBR_FULL_422":
        samples = samples // 3 * 2
    return int((samples * dataset.BitsAllocated + 7) // 8)


def _check_runs(dataset: Any, frame: bytes) -> None:  # noqa: ANN401
    """Refuse run lengths of more pixels than the header says; pydicom would leave out the last.

    It warns of that, but what becomes of a warning is one setting of all threads.
    """
    count, *starts = unpack("<16L", frame[:64])
    wanted = dataset.Rows * dataset.Columns
    for start, end in pairwise([*starts[:count], len(frame)]):
        length = _unpacked_length(frame[start:end])
        if length > wanted:
            msg = f"a segment holds {length} bytes of pixels, but its header wants {wanted}"
            raise ValueError(msg)


def _unpacked_length(segment: bytes) -> int:
    """Bytes that run lengths become, by DICOM PS3.5, G.3.2."""
    length = at = 0
    while at + 1 < len(segment):  # a last byte alone is padding
        run = segment[at]
        if run < 128:  # the next run + 1 bytes as they are
            length += min(run + 1, len(segment) - at - 1)
            at += run + 2
        elif run > 128:  # the next byte 257 - run times
            length += 257 - run
            at += 2
        else:  # says nothing
            at += 1
    return length


def _check_stored(dataset: Any, stored: NDArray[Any]) -> None:  # noqa: ANN401
    """Refuse pixels that are not what the header says; decoders do not look."""
    if stored.shape[:2] != (dataset.Rows, dataset.Columns):
        msg = f"its pixels are {stored.shape}, but its header says {dataset.Rows, dataset.Columns}"
        raise ValueError(msg)
    if dataset.HighBit != dataset.BitsStored - 1:
        msg = f"bit {dataset.HighBit} is the highest of {dataset.BitsStored}, which is not read"
        raise ValueError(msg)
    low, high = stored_range(dataset)
    if stored.size and not low <= stored.min() <= stored.max() <= high:
        msg = f"it holds {stored.min()} to {stored.max()}, outside {dataset.BitsStored} bits"
        raise ValueError(msg)


def stored_range(dataset: Any) -> tuple[float, float]:  # noqa: ANN401
    """The least and the largest number that the file can hold."""
    bits = int(dataset.BitsStored)
    if dataset.PixelRepresentation:
        return -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1
    return 0.0, 2.0**bits - 1
