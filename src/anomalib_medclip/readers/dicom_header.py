"""What the header of a DICOM file says: whether it is of a picture, and what its pixels are.

Only what pixels and place depend on has to be there and to be understood. All else may be missing,
empty, retired, private or wrong, as it is in the files of archives.
"""

from collections.abc import MutableSequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from anomalib_medclip.errors import NoPictureError, VolumeError
from anomalib_medclip.readers.dicom_file import FaultyFileError
from anomalib_medclip.readers.tool_commands import by_dcm2niix

_WHOLE = (
    "Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation",
)  # fmt: skip
DESCRIBED = (*_WHOLE, "PhotometricInterpretation")
"""Without these no pixel has a meaning."""

_SAMPLES = {"MONOCHROME1": 1, "MONOCHROME2": 1, "PALETTE COLOR": 1, "RGB": 3}
"""Numbers of a pixel by its colours, where only these are stated."""

_TILED = {"MOSAIC", "VFRAME"}
"""Words of ImageType by which Siemens and United Imaging say that a picture is made of slices."""

_LARGEST = 1e300  # whole numbers may have more digits than a float


def stated(header: Any, keyword: str) -> Any:  # noqa: ANN401 - pydicom's
    """What a header says; ``None`` where it says nothing.

    Raises:
        FaultyFileError: It says what cannot be understood.
    """
    try:  # pydicom understands a value when it is first asked for
        value = header.get(keyword)
    except Exception as error:
        msg = f"it states {keyword} as what is no value of it"
        raise FaultyFileError(msg) from error
    is_empty = value is None or (hasattr(value, "__len__") and len(value) == 0)
    return None if is_empty else value


def value_of(header: Any, keyword: str) -> Any:  # noqa: ANN401 - pydicom's
    """The same of what nothing depends on; ``None``, too, where it cannot be understood."""
    try:
        return stated(header, keyword)
    except FaultyFileError:
        return None


def numbers_of(header: Any, keyword: str) -> list[float]:  # noqa: ANN401 - a pydicom dataset
    """The numbers that a header states; none where it states none.

    Raises:
        FaultyFileError: It states something else: pydicom gives a value by the type that its
            element claims, which may be that of words.
    """
    value = stated(header, keyword)
    if value is None:
        return []
    several = list(value) if isinstance(value, MutableSequence) else [value]
    numbers: list[Any] = [one for one in several if isinstance(one, int | float | Decimal)]
    if len(numbers) < len(several) or not all(abs(one) < _LARGEST for one in numbers):
        msg = f"it states {keyword} as {value!r}"
        raise FaultyFileError(msg)
    return [float(one) for one in numbers]


def kind_of(header: Any) -> str:  # noqa: ANN401 - a pydicom dataset
    """The name of what a file is; its identifier where that is retired or private; or nothing."""
    from pydicom.uid import UID

    stated_class = value_of(header, "SOPClassUID")
    found = stated_class or value_of(header.file_meta, "MediaStorageSOPClassUID")
    return UID(found).name if isinstance(found, str) else ""


def refuse_strangers(path: Path, header: Any) -> None:  # noqa: ANN401 - a pydicom dataset
    """Refuse what is sound and no picture: reports, outlines, presentations, tables of contents.

    Raises:
        NoPictureError: It is of a kind that is no image, or of an unknown one without pixels.
    """
    kind = kind_of(header)
    is_known = bool(kind) and not kind[0].isdigit()
    if is_known and not any(word in kind for word in ("Image", "Volume Storage")):
        raise NoPictureError(path, f"is a {kind} file and no image")
    if kind and not is_known and all(value_of(header, one) is None for one in DESCRIBED):
        raise NoPictureError(path, f"is of the kind {kind} and states nothing of pixels")


def check_described(path: Path, header: Any) -> None:  # noqa: ANN401 - a pydicom dataset
    """Refuse a picture whose pixels are not described, and fill in what follows from the rest.

    Raises:
        FaultyFileError: The header does not say what the pixels are.
        VolumeError: It is several slices, tiled.
    """
    kind = f"a {kind_of(header)} file" if kind_of(header) else "a file of unknown kind"
    _fill_in(header)
    for keyword in DESCRIBED:
        value = stated(header, keyword)
        if value is None:
            msg = f"{kind} that states no {keyword}"
            raise FaultyFileError(msg)
        if not isinstance(value, int if keyword in _WHOLE else str):
            msg = f"it states {keyword} as {value!r}"
            raise FaultyFileError(msg)
    if not header.BitsStored - 1 <= header.HighBit < header.BitsAllocated:
        msg = (
            f"of {header.BitsAllocated} bits it stores {header.BitsStored}, of which bit "
            f"{header.HighBit} is the highest, which cannot be"
        )
        raise FaultyFileError(msg)
    refuse_tiles(path, header)


def _fill_in(header: Any) -> None:  # noqa: ANN401 - a pydicom dataset
    """State what follows from the rest of a header, where it is not stated."""
    colours = stated(header, "PhotometricInterpretation")
    known: dict[str, int | None] = {
        "SamplesPerPixel": _SAMPLES.get(str(colours)),
        # Of colours, and of places in a palette, none is negative.
        "PixelRepresentation": None if "MONOCHROME" in str(colours) else 0,
        "HighBit": bits - 1 if isinstance(bits := value_of(header, "BitsStored"), int) else None,
        "PlanarConfiguration": 0,
    }
    for keyword, value in known.items():
        if value is not None and value_of(header, keyword) is None:
            setattr(header, keyword, value)


def _count_of_tiles(header: Any) -> int:  # noqa: ANN401 - a pydicom dataset
    """How many slices Siemens says, in an element of its own, that a picture is made of."""
    try:
        return int(header.private_block(0x19, "SIEMENS MR HEADER")[0x0A].value)
    except Exception:  # it says none, or nothing that is a number
        return 0


def refuse_tiles(path: Path, header: Any) -> None:  # noqa: ANN401 - a pydicom dataset
    """Refuse a picture made of slices side by side.

    Raises:
        VolumeError: Of such a picture.
    """
    said = value_of(header, "ImageType")
    words = set(said if isinstance(said, MutableSequence) else [said])
    if words & _TILED or _count_of_tiles(header) > 1:
        msg = (
            f"{path} is a mosaic: one picture made of the slices of a volume, side by side, which "
            f"is not read; make a NIfTI file of it by {by_dcm2niix(header, '-o', '.', path.parent)}"
        )
        raise VolumeError(msg)
