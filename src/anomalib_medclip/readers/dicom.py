"""DICOM files to numbers: one picture, or a series that makes a volume.

Slices are put in order by their geometry, never by name; rescaling, windows of the file and
colours are applied by highdicom. What a file does not say is not guessed.
"""

from collections.abc import Callable, MutableSequence, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomalib_medclip.errors import ImageReadError, IntensityError, MedclipError, VolumeError
from anomalib_medclip.files import A_FOLDER, fault_of, open_file
from anomalib_medclip.readers import dicom_file
from anomalib_medclip.readers.dicom_order import affine_of, check_alike, in_order
from anomalib_medclip.readers.dicom_pixels import decoded, pixel_bytes, stored_range
from anomalib_medclip.readers.intensity import IntensityPolicy, apply_intensity
from anomalib_medclip.readers.size_limit import check_pixels, check_voxels

_WHOLE = (
    "Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation",
)  # fmt: skip
_NEEDED = (*_WHOLE, "PhotometricInterpretation")
"""Without these no pixel has a meaning."""

_NUMBERS = ("SliceThickness", "RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth")
_USED = (
    *_NUMBERS, "SeriesInstanceUID", "FrameOfReferenceUID", "ImagePositionPatient",
    "ImageOrientationPatient", "PixelSpacing", "VOILUTFunction",
)  # fmt: skip
"""What else is looked at, and so has to be understood."""


class Series(NamedTuple):
    """A volume made of a series.

    Attributes:
        voxels: Values in [0, 1], of shape ``(slice, row, column)``.
        affine: From voxel indices to millimetres, towards right, anterior and superior.
        headers: What the files say besides pixels, in the order of the slices.
    """

    voxels: NDArray[np.float32]
    affine: NDArray[np.float64]
    headers: tuple[Any, ...]


def is_dicom(path: Path) -> bool:
    """Whether a file looks like DICOM: by its ending, or by the mark behind the preamble.

    Archives name files by identifiers such as ``1.2.840.1``, whose last part is no ending.
    """
    if path.suffix.lower() in (".dcm", ".dicom"):
        return True
    if fault_of(path):
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def is_slice(path: Path) -> bool:
    """Whether a file looks like DICOM and is no table of contents."""
    return path.name != "DICOMDIR" and is_dicom(path)


def dicom_files(folder: Path) -> list[Path]:
    """DICOM files of a folder by name, hidden files left out.

    Raises:
        ImageReadError: Something in it cannot be read, and so might be one.
    """
    found = []
    for path in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
        fault = fault_of(path)
        if fault and fault is not A_FOLDER:
            raise ImageReadError(fault.about(path))
        if not fault and is_slice(path):
            found.append(path)
    return found


def read_header(path: Path) -> Any:  # noqa: ANN401 - a pydicom dataset
    """Everything but the pixels, of a file with a single frame.

    Raises:
        ImageReadError: The file cannot be read as DICOM, or holds no picture.
        VolumeError: It holds several frames.
    """
    return _read(path, pixels=False)


def read_picture(path: Path, intensity: IntensityPolicy) -> NDArray[np.float32]:
    """Read one picture, such as an X-ray, a mammogram or an ultrasound image.

    Args:
        path: A DICOM file with a single frame.
        intensity: What to do with more than 8 bits; windows are in rescaled units, ``"dtype"`` is
            the range of the stored numbers. Unsigned numbers of 8 bits that are not rescaled are
            divided by the largest they can be, except under ``"voi"``.

    Returns:
        Values in [0, 1], ``(row, column)``, or ``(row, column, 3)`` in colour. Inverted greys
        (MONOCHROME1) are turned round, so that high is bright.

    Raises:
        ImageReadError: The file is too large, or cannot be read or decoded.
        IntensityError: The policy does not fit, or there is none.
        VolumeError: The file holds several frames.
    """
    dataset = _read(path, pixels=True)
    if dataset.SamplesPerPixel > 1 or dataset.PhotometricInterpretation == "PALETTE COLOR":
        return _coloured(path, dataset)
    return _place(partial(decoded, path, dataset), intensity, path, [dataset])


def series_of(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """The files of each series, by its unique identifier.

    Raises:
        ImageReadError: A file cannot be read as DICOM, or holds no picture.
        VolumeError: A file holds several frames.
    """
    found: dict[str, list[Path]] = {}
    for path in paths:
        found.setdefault(str(read_header(path).get("SeriesInstanceUID", "")), []).append(path)
    return found


def read_series(paths: Sequence[Path], intensity: IntensityPolicy, uneven: bool = False) -> Series:
    """Read the slices of one series as a volume, in the order of their geometry.

    Args:
        paths: The files of one series, in any order.
        intensity: How its numbers reach [0, 1]; see ``read_picture``.
        uneven: Take slices that are missing, doubled or unevenly spaced as they come, each place
            once, as if evenly spaced by the middle distance; by default they are refused.

    Raises:
        ImageReadError: A file cannot be read or decoded, or all are too large together.
        IntensityError: The policy does not fit, or there is none.
        VolumeError: Files of several series, other sizes or orientations, a tilted stack, or slices
            that are missing, doubled or unevenly spaced.
    """
    if not paths:
        msg = "a DICOM series without files was asked for; name its files"
        raise VolumeError(msg)
    datasets: list[Any] = []
    for path in paths:
        datasets.append(_read(path, pixels=True))
        check_voxels(path.parent, len(paths), datasets[-1].Rows, datasets[-1].Columns)
    check_alike(paths, datasets)
    order, spacing = in_order(paths, datasets, uneven)
    folder = paths[0].parent
    paths, datasets = [paths[i] for i in order], [datasets[i] for i in order]
    headers = tuple(map(_without_pixels, paths, datasets))

    def decode(**options: Any) -> NDArray[Any]:  # noqa: ANN401 - highdicom's
        parts = zip(paths, datasets, strict=True)
        return np.stack([decoded(path, dataset, **options) for path, dataset in parts])

    voxels = _place(decode, intensity, folder, datasets)
    return Series(voxels, affine_of(paths[0], headers[0], spacing), headers)


def _without_pixels(path: Path, dataset: Any) -> Any:  # noqa: ANN401 - a pydicom dataset
    """What a file says before its pixels; highdicom, when it decodes, makes its own of the rest."""
    from pydicom.datadict import tag_for_keyword

    try:
        header = dataset[: tag_for_keyword("PixelData")]  # of which all is understood
    except Exception as error:
        raise ImageReadError(_unreadable(path, error)) from error
    header.file_meta = dataset.file_meta
    return header


def _read(path: Path, *, pixels: bool) -> Any:  # noqa: ANN401 - a pydicom dataset
    try:
        with dicom_file.DicomFile(open_file(path)) as file:
            dataset = _understood(path, dicom_file.read_header(file))
            if pixels:
                check_pixels(path, dataset.Columns, dataset.Rows)
                dataset = dicom_file.read_whole(file, dataset, pixel_bytes(dataset))
    except MedclipError:
        raise
    except Exception as error:
        raise ImageReadError(_unreadable(path, error)) from error
    return dataset


def _unreadable(path: Path, error: Exception) -> str:
    return f"cannot read {path} as a DICOM picture: {error}; replace it or take it out"


def _understood(path: Path, dataset: Any) -> Any:  # noqa: ANN401 - a pydicom dataset
    """The dataset of a single frame, if it says all that has to be known."""
    frames = int(dataset.get("NumberOfFrames") or 1)
    kind = dataset.SOPClassUID.name
    # pydicom understands a value when it is first asked for.
    lacking = [keyword for keyword in _NEEDED if dataset.get(keyword) in (None, "")]
    _ = [dataset.get(keyword) for keyword in _USED]
    if lacking:
        msg = f"a {kind} file that states no {lacking[0]}"
        raise ValueError(msg)
    if not isinstance(syntax := dataset.file_meta.get("TransferSyntaxUID", ""), str):
        msg = f"it states its transfer syntax as {syntax}"
        raise ValueError(msg)
    for keyword in (*_WHOLE, *_NUMBERS):
        if not _is_stated(stated := dataset.get(keyword), int if keyword in _WHOLE else float):
            msg = f"it states {keyword} as {stated!r}"
            raise ValueError(msg)
    # The newer objects keep geometry and rescaling elsewhere, even those of a single frame.
    if frames > 1 or "SharedFunctionalGroupsSequence" in dataset:
        msg = (
            f"{path} is a multi-frame file of {frames} frames ({kind}); only single-frame files "
            "are read: convert it to a series or to NIfTI"
        )
        raise VolumeError(msg)
    return dataset


def _is_stated(value: Any, kind: type[int | float]) -> bool:  # noqa: ANN401 - a pydicom value
    """Whether a value is a number of this kind; a fraction may be left out, or be several.

    pydicom gives a value by the type that its element claims, which may be that of words.
    """
    if kind is int:
        return isinstance(value, int)
    several = value if isinstance(value, MutableSequence) else [value]
    return all(one in (None, "") or isinstance(one, int | float | Decimal) for one in several)


def _coloured(path: Path, dataset: Any) -> NDArray[np.float32]:  # noqa: ANN401
    colours = decoded(path, dataset, apply_icc_profile=False)
    top = 255.0
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        top = 2.0 ** int(dataset.RedPaletteColorLookupTableDescriptor[2]) - 1
    elif dataset.BitsStored != 8:
        msg = f"{path} has colours of {dataset.BitsStored} bits, of which only 8 are read"
        raise IntensityError(msg + "; convert it to grey")
    if colours.min() < 0 or colours.max() > top:
        msg = f"{path} holds colours from {colours.min()} to {colours.max()}, outside 0 to {top:g}"
        raise ImageReadError(msg + "; replace it or take it out")
    return (colours / top).astype(np.float32)


def _place(
    decode: Callable[..., NDArray[Any]],
    intensity: IntensityPolicy,
    where: Path,
    datasets: Sequence[Any],
) -> NDArray[np.float32]:
    """Apply the policy to a picture or to all slices, and turn inverted greys round."""
    first = datasets[0]
    inverted = first.PhotometricInterpretation == "MONOCHROME1"
    if all(_is_shallow(dataset) for dataset in datasets) and intensity != "voi":
        intensity = stored_range(first)
    if intensity == "voi":
        _check_one(datasets, ("WindowCenter", "WindowWidth", "VOILUTSequence"), where, "voi")
        values = apply_intensity(decode(apply_voi_transform=True), "unit", where)
    elif intensity == "dtype":
        _check_one(datasets, ("RescaleSlope", "RescaleIntercept"), where, "dtype")
        values = apply_intensity(decode(apply_modality_transform=False), stored_range(first), where)
    elif inverted and isinstance(intensity, dict) and "percentiles" in intensity:
        # Turned round first: what is dark in the picture is the ground, not what is small.
        numbers = decode()
        return apply_intensity(numbers.max() - numbers, intensity, where)
    else:
        values = apply_intensity(decode(), intensity, where)
    return 1 - values if inverted else values


def _is_shallow(dataset: Any) -> bool:  # noqa: ANN401
    """Whether numbers are of 8 bits as in a picture: unsigned and not rescaled."""
    rescaled = (dataset.get("RescaleSlope", 1), dataset.get("RescaleIntercept", 0)) != (1, 0)
    changed = rescaled or dataset.PixelRepresentation or "ModalityLUTSequence" in dataset
    return dataset.BitsStored <= 8 and not changed


def _check_one(
    datasets: Sequence[Any], keywords: tuple[str, ...], where: Path, policy: str
) -> None:
    """Refuse a policy that would treat slices of one volume differently, or has no window."""
    first = datasets[0]
    width = np.append(first.get("WindowWidth", 0), 0)[0]  # the first, where there are several
    if policy == "voi" and not (width >= 1 or "VOILUTSequence" in first):
        msg = f"{where} has no window of its own; give 'intensity' another policy than 'voi'"
        raise IntensityError(msg)
    for keyword in keywords:
        if any(dataset.get(keyword) != first.get(keyword) for dataset in datasets):
            msg = (
                f"slices of {where} differ in {keyword}, so {policy!r} would treat them "
                "differently; give a window or percentiles"
            )
            raise IntensityError(msg)
