"""DICOM files to numbers: one picture, or a series that makes a volume.

Slices are put in order by their geometry, never by name; rescaling, windows of the file and
colours are applied by highdicom. What a file does not say is not guessed.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from anomalib_medclip.errors import ImageReadError, IntensityError, NoPictureError, VolumeError
from anomalib_medclip.readers.dicom_frames import Slice, place_of, slices_of, telling_of
from anomalib_medclip.readers.dicom_header import kind_of, numbers_of, value_of
from anomalib_medclip.readers.dicom_order import affine_of, in_order
from anomalib_medclip.readers.dicom_pixels import decoded, slope_and_intercept, stored_range
from anomalib_medclip.readers.dicom_values import DicomWhere
from anomalib_medclip.readers.dicom_volumes import the_volume
from anomalib_medclip.readers.intensity import IntensityPolicy, apply_intensity
from anomalib_medclip.readers.left_out import LeftOut
from anomalib_medclip.readers.size_limit import check_pixels, check_voxels


class Series(NamedTuple):
    """A volume made of a series.

    Attributes:
        voxels: Values in [0, 1], of shape ``(slice, row, column)``.
        affine: From voxel indices to millimetres, towards right, anterior and superior.
        headers: What is said besides pixels of each slice, in their order.
        left_out: Files that are none of its slices, and why.
    """

    voxels: NDArray[np.float32]
    affine: NDArray[np.float64]
    headers: tuple[Any, ...]
    left_out: tuple[LeftOut, ...] = ()


OnHeaders: TypeAlias = Callable[[Sequence[Any]], None]
"""Told the headers of a volume's slices, in their order, before a pixel is read."""


def read_picture(path: Path, intensity: IntensityPolicy) -> NDArray[np.float32]:
    """Read one picture; see ``picture_of``, and of errors ``slices_in``, too."""
    return picture_of(slices_of(path), intensity)


def picture_of(slices: Sequence[Slice], intensity: IntensityPolicy) -> NDArray[np.float32]:
    """Read one picture, such as an X-ray, a mammogram or an ultrasound image.

    Args:
        slices: The one of a DICOM file whose header was read.
        intensity: What to do with more than 8 bits; windows are in rescaled units, ``"dtype"`` is
            the range of the stored numbers. Unsigned numbers of 8 bits that are not rescaled are
            divided by the largest they can be, except under ``"voi"``.

    Returns:
        Values in [0, 1], ``(row, column)``, or ``(row, column, 3)`` in colour. Inverted greys
        (MONOCHROME1) are turned round, so that high is bright.

    Raises:
        ImageReadError: The file is too large, or cannot be decoded.
        IntensityError: The policy does not fit, or there is none.
        VolumeError: The file holds several frames, or slices side by side.
    """
    path, header = slices[0][:2]
    if len(slices) > 1:
        msg = (
            f"{path} is a multi-frame file of {len(slices)} frames ({kind_of(header)}), and so a "
            "volume and no picture; read it by Volumes, or by the commands slice and score"
        )
        raise VolumeError(msg)
    check_pixels(path, header.Columns, header.Rows)
    if _is_coloured(header):
        return _coloured(slices[0])
    return _place(slices, intensity, path)[0]


def pictures_among(paths: Sequence[Path]) -> tuple[list[Slice], list[LeftOut]]:
    """The pictures of DICOM files, and the files that hold none, such as reports.

    Raises:
        ImageReadError: A file cannot be read as DICOM.
        VolumeError: Of a file; see ``slices_of``.
    """
    slices, left_out = [], []
    for path in paths:
        try:
            slices += slices_of(path)
        except NoPictureError as error:
            left_out.append(LeftOut(path, error.reason, error.remedy))
    return slices, left_out


def beside_a_series(path: Path) -> LeftOut:
    """A file that is no DICOM file, among those of a series."""
    return LeftOut(path, "is no DICOM file, and lies beside a DICOM series")


def read_series(
    paths: Sequence[Path],
    intensity: IntensityPolicy,
    uneven: bool = False,
    where: DicomWhere | None = None,
    on_headers: OnHeaders | None = None,
) -> Series:
    """Read the slices of one series as a volume, in the order of their geometry.

    Args:
        paths: The files of one series, in any order: of single frames, or multi-frame files.
        intensity: How its numbers reach [0, 1]; see ``picture_of``.
        uneven: Take slices that are missing, doubled or unevenly spaced as they come, each place
            once, as if evenly spaced by the middle distance; by default they are refused.
        where: Values of attributes that slices must have, such as ``{"EchoNumbers": 2}``, to
            choose one of several volumes.
        on_headers: Told the headers of the slices, in their order, before a pixel is read.

    Raises:
        ConfigError: ``where`` names what is no attribute of DICOM.
        ImageReadError: A file cannot be read or decoded, or all are too large together.
        IntensityError: The policy does not fit, or there is none.
        VolumeError: The files are of several volumes, or of a tilted stack, or slices are missing,
            doubled or unevenly spaced.
    """
    if not paths:
        msg = "a DICOM series without files was asked for; name its files"
        raise VolumeError(msg)
    slices, left_out = pictures_among(paths)
    if not slices:
        msg = f"{paths[0].parent} holds no DICOM picture: {left_out[0].path} {left_out[0].reason}"
        raise ImageReadError(msg + "; correct the path")
    found = series_of(slices, intensity, uneven, where, on_headers)
    return found._replace(left_out=(*left_out, *found.left_out))


def series_of(
    slices: Sequence[Slice],
    intensity: IntensityPolicy,
    uneven: bool = False,
    where: DicomWhere | None = None,
    on_headers: OnHeaders | None = None,
) -> Series:
    """Make a volume of slices whose headers were read; see ``read_series``."""
    folder = place_of(slices)
    slices, left_out = the_volume(folder, slices, where)
    header = slices[0].header
    check_voxels(folder, len(slices), header.Rows, header.Columns)
    if _is_coloured(header):
        msg = f"{slices[0].path} is in colour, of which no volume is made"
        raise VolumeError(msg + "; score the pictures singly")
    order, spacing = in_order(slices, uneven)
    slices = [slices[i] for i in order]
    headers = tuple(one.header for one in slices)
    if on_headers:
        on_headers(headers)
    voxels = _place(slices, intensity, folder)
    return Series(voxels, affine_of(slices[0], spacing), headers, tuple(left_out))


def _is_coloured(header: Any) -> bool:  # noqa: ANN401 - a pydicom dataset
    return header.SamplesPerPixel > 1 or header.PhotometricInterpretation == "PALETTE COLOR"


def _coloured(one: Slice) -> NDArray[np.float32]:
    is_palette = one.header.PhotometricInterpretation == "PALETTE COLOR"
    if not is_palette and one.header.BitsStored != 8:
        msg = f"{one.path} has colours of {one.header.BitsStored} bits, of which only 8 are read"
        raise IntensityError(msg + "; convert it to grey")
    colours = decoded([one], "coloured" if is_palette else "stored")[0]
    bits = one.header.RedPaletteColorLookupTableDescriptor[2] if is_palette else 8
    top = 2.0 ** int(bits) - 1
    if colours.min() < 0 or colours.max() > top:
        msg = f"{one.path} holds colours from {colours.min():.1f} to {colours.max():.1f}, outside 0"
        raise ImageReadError(msg + f" to {top:g}; replace it or take it out")
    return (colours / top).astype(np.float32)


def _place(slices: Sequence[Slice], intensity: IntensityPolicy, where: Path) -> NDArray[np.float32]:
    """Read pixels, apply the policy to all together, and turn inverted greys round."""
    first = slices[0].header
    inverted = first.PhotometricInterpretation == "MONOCHROME1"
    if all(map(_is_shallow, slices)) and intensity != "voi":
        intensity = stored_range(first)
    if intensity == "voi":
        _check_window(slices[0], where)
        _check_one(slices, ("WindowCenter", "WindowWidth", "VOILUTSequence"), where, "voi")
        values = apply_intensity(decoded(slices, "voi"), "unit", where)
    elif intensity == "dtype":
        _check_one(slices, ("RescaleSlope", "RescaleIntercept"), where, "dtype")
        values = apply_intensity(decoded(slices, "stored"), stored_range(first), where)
    elif inverted and isinstance(intensity, dict) and "percentiles" in intensity:
        # Turned round first: what is dark in the picture is the ground, not what is small.
        numbers = decoded(slices)
        return apply_intensity(numbers.max() - numbers, intensity, where)
    else:
        values = apply_intensity(decoded(slices), intensity, where)
    return 1 - values if inverted else values


def _is_shallow(one: Slice) -> bool:
    """Whether numbers are of 8 bits as in a picture: unsigned and not rescaled."""
    header = one.header
    with telling_of(one.path):
        is_rescaled = slope_and_intercept(header) != (1, 0)
    is_looked_up = value_of(header, "ModalityLUTSequence") is not None
    is_changed = is_rescaled or is_looked_up or header.PixelRepresentation
    return header.BitsStored <= 8 and not is_changed


def _check_window(one: Slice, where: Path) -> None:
    """Refuse the policy of the file's own window where there is none."""
    with telling_of(one.path):
        widths = numbers_of(one.header, "WindowWidth")  # of several, the first is taken
    if (widths or [0])[0] < 1 and value_of(one.header, "VOILUTSequence") is None:
        msg = f"{where} has no window of its own; give 'intensity' another policy than 'voi'"
        raise IntensityError(msg)


def _check_one(slices: Sequence[Slice], keywords: Sequence[str], where: Path, policy: str) -> None:
    """Refuse a policy that would treat slices of one volume differently."""
    for keyword in keywords:
        said = [value_of(one.header, keyword) for one in slices]
        if any(one != said[0] for one in said):
            msg = (
                f"slices of {where} differ in {keyword}, so {policy!r} would treat them "
                "differently; give a window or percentiles"
            )
            raise IntensityError(msg)
