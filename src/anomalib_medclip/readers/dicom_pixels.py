"""The pixels of DICOM files, as their headers say they are.

pydicom decodes them. A number is made of the bits that the header names, whatever stands in the
others; windows, tables and palettes of the file are applied by highdicom.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from struct import unpack
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from anomalib_medclip.errors import ImageReadError, MedclipError
from anomalib_medclip.files import open_file
from anomalib_medclip.readers.dicom_file import FaultyFileError, read_pixels
from anomalib_medclip.readers.dicom_frames import Slice
from anomalib_medclip.readers.dicom_header import DESCRIBED, numbers_of, value_of
from anomalib_medclip.readers.tool_commands import copied
from anomalib_medclip.readers.unpacked import BoundedFile

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

_BY_DCMTK = [f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70)]
"""What its dcmdjpeg unpacks, word for word."""

Step = Literal["stored", "rescaled", "voi", "coloured"]
"""How far numbers are taken: as they are stored, rescaled to units, by the window of the file to
[0, 1], or looked up in its palette."""

_OF_STEPS = {
    "rescaled": ("ModalityLUTSequence",),
    "voi": (
        "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "WindowCenter", "WindowWidth",
        "VOILUTFunction", "VOILUTSequence",
    ),
    "coloured": tuple(
        f"{colour}PaletteColorLookupTable{part}"
        for colour in ("Red", "Green", "Blue") for part in ("Descriptor", "Data")
    ),
}  # fmt: skip
"""What highdicom has to know."""


def decoded(slices: Sequence[Slice], step: Step = "rescaled") -> NDArray[Any]:
    """The pixels of slices of one size, ``(slice, row, column)``, with a last axis in colour.

    Raises:
        ImageReadError: They cannot be decoded, or are not what the header says.
    """
    found, path, element = [], None, None
    for one in slices:
        try:
            if one.path != path:  # a file of many frames is read once
                path, element = one.path, _element(one)
            found.append(_taken(one, _stored(one, element), step))
        except MedclipError:
            raise
        except FaultyFileError as error:
            raise ImageReadError(_undecodable(one.path, str(error))) from error
        except Exception as error:  # damaged files reach every corner of the decoders
            raise ImageReadError(_undecodable(one.path, _reason(one))) from error
    return np.stack(found)


def _undecodable(path: Path, reason: str) -> str:
    remedy = "" if "; " in reason else "; replace it or take it out"
    return f"cannot decode the pixels of {path}: {reason}{remedy}"


def _unpack(one: Slice) -> str:
    return f"unpack it by {copied('gdcmconv', '--raw', one.path, 'unpacked.dcm')}"


def _unpack_words(one: Slice) -> str:
    """The same of words that hold more than a number; gdcmconv would change them."""
    if one.header.file_meta.TransferSyntaxUID in _BY_DCMTK:
        return f"unpack it by {copied('dcmdjpeg', one.path, 'unpacked.dcm')}"
    return "have it exported without compression"


def _reason(one: Slice) -> str:
    """Why a decoder failed, and what helps; its own words are those of a library."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID, JPEGExtended12Bit

    syntax = UID(one.header.file_meta.TransferSyntaxUID)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        return f"nothing here reads its transfer syntax, {syntax.name}; {_unpack(one)}"
    # Pillow, which pydicom asks, too, reads 8 bits of JPEG.
    too_deep = syntax == JPEGExtended12Bit and one.header.BitsStored > 8
    if not decoder.is_available or (too_deep and decoder.available_plugins == ("pillow",)):
        package = _DECODERS[syntax]
        return f"it is compressed as {syntax.name}; run pip install '{package}', or {_unpack(one)}"
    return "they are damaged, or not what its header says"


def _element(one: Slice) -> Any:  # noqa: ANN401 - pydicom's
    """The element of a file's pixels, of the length that its header wants."""
    wanted = pixel_bytes(one)
    with BoundedFile(open_file(one.path)) as file:
        element = read_pixels(file, one.header, one.start, wanted)
    if _is_packed(one):
        return element
    held, rest = len(element.value), element.value[wanted:]
    if rest.strip(b"\0") == b"" and len(rest) * one.frames < wanted:  # padding, and no picture
        held, element.value = min(held, wanted), element.value[: wanted + wanted % 2]
    if not wanted <= held <= wanted + wanted % 2:
        msg = f"it holds {held} bytes of pixels, but its header wants {wanted}"
        raise FaultyFileError(msg)
    return element


def pixel_bytes(one: Slice) -> int:
    """How many bytes the pixels of a file are by its header, where they are not compressed."""
    header = one.header
    samples = header.Rows * header.Columns * header.SamplesPerPixel
    if header.PhotometricInterpretation == "YBR_FULL_422":
        samples = samples // 3 * 2
    return int((samples * one.frames * header.BitsAllocated + 7) // 8)


def _is_packed(one: Slice) -> bool:
    syntax = one.header.file_meta.TransferSyntaxUID
    return bool(syntax.is_compressed) and not syntax.is_deflated


def _stored(one: Slice, element: Any) -> NDArray[Any]:  # noqa: ANN401 - pydicom's
    """The numbers of one picture, of the bits that its header names; colours are RGB.

    Raises:
        FaultyFileError: They are not what the header says.
    """
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import RLELossless

    source = _described(one.header)
    source.file_meta = one.header.file_meta
    source.NumberOfFrames = one.frames
    source.add(element)
    syntax = source.file_meta.TransferSyntaxUID
    keeps_words = not _is_packed(one) or syntax == RLELossless
    if _is_packed(one):
        frame = _packed_frame(one, element.value)
        if syntax == RLELossless:
            _check_runs(one.header, frame)
        elif one.header.HighBit != one.header.BitsStored - 1:
            bits = f"bit {one.header.HighBit} is the highest of {one.header.BitsStored}"
            msg = f"it is compressed, and says that {bits}; {_unpack_words(one)}"
            raise FaultyFileError(msg)
    if keeps_words:
        source.BitsStored = (
            source.BitsAllocated
        )  # pydicom looks at no other bits, wherever they are
    numbers, _ = get_decoder(syntax).as_array(source, index=one.frame)
    if not keeps_words:
        _check_range(one.header, numbers)
    width = numbers.dtype.itemsize * 8
    spread = numbers << (width - 1 - one.header.HighBit)  # so that the sign is the highest bit
    found: NDArray[Any] = spread >> (width - one.header.BitsStored)
    return found


def _described(header: Any) -> Any:  # noqa: ANN401 - pydicom datasets
    """What a header says of pixels, and nothing else: none of the rest may stop a decoder."""
    from pydicom.dataset import Dataset

    found = Dataset()
    for keyword in (*DESCRIBED, "PlanarConfiguration"):
        if value_of(header, keyword) is not None:
            setattr(found, keyword, header.get(keyword))
    return found


def _packed_frame(one: Slice, pixels: bytes) -> bytes:
    """The bytes of one picture of a compressed file.

    Raises:
        FaultyFileError: There are more pictures than the header says.
    """
    from pydicom.encaps import get_frame, parse_basic_offsets

    if len(parse_basic_offsets(pixels)) > one.frames:
        msg = f"it holds more pictures than the {one.frames} that its header states"
        raise FaultyFileError(msg)
    return get_frame(pixels, one.frame, number_of_frames=one.frames)


def _check_runs(header: Any, frame: bytes) -> None:  # noqa: ANN401 - a pydicom dataset
    """Refuse run lengths of more pixels than the header says; pydicom would leave out the last.

    It warns of that, but what becomes of a warning is one setting of all threads.
    """
    count, *starts = unpack("<16L", frame[:64])
    wanted = header.Rows * header.Columns
    for start, end in pairwise([*starts[:count], len(frame)]):
        length = _unpacked_length(frame[start:end])
        if length > wanted:
            msg = f"a segment holds {length} bytes of pixels, but its header wants {wanted}"
            raise FaultyFileError(msg)


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


def _check_range(header: Any, numbers: NDArray[Any]) -> None:  # noqa: ANN401 - a pydicom dataset
    """Refuse decoded numbers that the bits stored cannot hold: one of the two is wrong."""
    low, high = stored_range(header)
    if numbers.size and not low <= numbers.min() <= numbers.max() <= high:
        msg = f"it holds {numbers.min()} to {numbers.max()}, outside {header.BitsStored} bits"
        raise FaultyFileError(msg)


def stored_range(header: Any) -> tuple[float, float]:  # noqa: ANN401 - a pydicom dataset
    """The least and the largest number that the file can hold."""
    bits = int(header.BitsStored)
    if header.PixelRepresentation:
        return -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1
    return 0.0, 2.0**bits - 1


def slope_and_intercept(header: Any) -> tuple[float, float]:  # noqa: ANN401 - a pydicom dataset
    """What stored numbers are rescaled by; 1 and 0 where that is not stated.

    Raises:
        FaultyFileError: They are none, or a slope of 0, which leaves nothing of a picture.
    """
    slope, intercept = (
        (numbers_of(header, keyword) or [default])[0]
        for keyword, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
    )
    if slope == 0:
        msg = "it states a RescaleSlope of 0"
        raise FaultyFileError(msg)
    return slope, intercept


def _taken(one: Slice, stored: NDArray[Any], step: Step) -> NDArray[Any]:
    """Stored numbers, taken as far as asked."""
    if step == "stored":
        return stored
    slope, intercept = slope_and_intercept(one.header)
    if step == "rescaled" and value_of(one.header, "ModalityLUTSequence") is None:
        return stored * slope + intercept
    return _by_highdicom(one.header, stored, step)


def _by_highdicom(header: Any, stored: NDArray[Any], step: Step) -> NDArray[Any]:  # noqa: ANN401
    """What tables and windows of a file make of its numbers."""
    import highdicom
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    plain = _described(header)
    plain.file_meta = FileMetaDataset()
    plain.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    plain.SOPClassUID = SecondaryCaptureImageStorage
    plain.BitsAllocated = stored.dtype.itemsize * 8
    plain.HighBit = header.BitsStored - 1
    plain.PixelData = np.ascontiguousarray(stored).tobytes()
    plain["PixelData"].VR = "OW"
    for keyword in _OF_STEPS[step]:
        if value_of(header, keyword) is not None:
            plain.add(header[keyword])
    image = highdicom.Image.from_dataset(plain, copy=False)
    found: NDArray[Any] = image.get_frame(
        1,
        dtype=np.float64,
        apply_voi_transform=step == "voi",
        apply_presentation_lut=False,  # greys are turned round after the policy
        apply_real_world_transform=False,  # windows are in rescaled units
        apply_icc_profile=False,
    )
    return found
