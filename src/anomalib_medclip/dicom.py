"""DICOM files to numbers: one picture, or a series that makes a volume.

Slices are put in order by their geometry, never by name; rescaling, windows of the file and
inverted greys are applied by highdicom. What a file does not say is not guessed.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from anomalib_medclip.errors import ImageReadError, IntensityError, VolumeError
from anomalib_medclip.intensity import IntensityPolicy, place
from anomalib_medclip.stacking import affine_of, check_alike, in_order

_DECODERS = {
    "1.2.840.10008.1.2.4.50": "pylibjpeg[libjpeg]",
    "1.2.840.10008.1.2.4.51": "pylibjpeg[libjpeg]",
    "1.2.840.10008.1.2.4.57": "pylibjpeg[libjpeg]",
    "1.2.840.10008.1.2.4.70": "pylibjpeg[libjpeg]",
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.81": "pyjpegls",
    "1.2.840.10008.1.2.4.90": "pylibjpeg[openjpeg]",
    "1.2.840.10008.1.2.4.91": "pylibjpeg[openjpeg]",
    "1.2.840.10008.1.2.4.201": "pylibjpeg[openjpeg]",
    "1.2.840.10008.1.2.4.202": "pylibjpeg[openjpeg]",
    "1.2.840.10008.1.2.4.203": "pylibjpeg[openjpeg]",
}
"""Packages that decode compressed pixels, by transfer syntax."""

_T = TypeVar("_T")


class Series(NamedTuple):
    """A volume made of a series.

    Attributes:
        voxels: Values in [0, 1], of shape ``(slice, row, column)``.
        affine: From voxel indices to millimetres, towards right, anterior and superior.
    """

    voxels: NDArray[np.float32]
    affine: NDArray[np.float64]


def is_dicom(path: Path) -> bool:
    """Whether a file looks like DICOM: by its ending, or by the mark behind the preamble."""
    if path.suffix.lower() in (".dcm", ".dicom"):
        return True
    if path.suffix or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def dicom_files(folder: Path) -> list[Path]:
    """DICOM files of a folder by name, hidden files left out."""
    files = (p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    return sorted(path for path in files if path.name != "DICOMDIR" and is_dicom(path))


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
        intensity: What to do with more than 8 bits; windows are in rescaled units.

    Returns:
        Values in [0, 1], ``(row, column)``, or ``(row, column, 3)`` in colour. Inverted greys
        (MONOCHROME1) are turned round, so that high is bright.

    Raises:
        ImageReadError: The file cannot be read or decoded.
        IntensityError: The policy does not fit, or there is none.
        VolumeError: The file holds several frames.
    """
    dataset = _read(path, pixels=True)
    if dataset.SamplesPerPixel > 1 or dataset.PhotometricInterpretation == "PALETTE COLOR":
        colours = _decoded(path, dataset, dtype=np.float64, apply_icc_profile=False)
        if colours.min() < 0 or colours.max() > 255:
            msg = f"{path} has colours of more than 8 bits, which are not read; convert it to grey"
            raise IntensityError(msg)
        return (colours / 255).astype(np.float32)
    shallow = dataset.BitsStored <= 8 and "ModalityLUTSequence" not in dataset
    if intensity is None and shallow and _is_raw(dataset):
        intensity = (0.0, float(2**dataset.BitsStored - 1))
    return _place(partial(_decoded, path, dataset), intensity, path, dataset)


def series_of(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """The files of each series, by its unique identifier."""
    found: dict[str, list[Path]] = {}
    for path in paths:
        found.setdefault(str(read_header(path).get("SeriesInstanceUID", "")), []).append(path)
    return found


def read_series(paths: Sequence[Path], intensity: IntensityPolicy, uneven: bool = False) -> Series:
    """Read the slices of one series as a volume, in the order of their geometry.

    Args:
        paths: The files of one series, in any order.
        intensity: How its numbers reach [0, 1]; windows are in rescaled units.
        uneven: Take slices that are missing, doubled or unevenly spaced as they come, each place
            once, as if evenly spaced by the middle distance; by default they are refused.

    Raises:
        ImageReadError: A file cannot be read or decoded.
        IntensityError: The policy does not fit, or there is none.
        VolumeError: Files of several series, other sizes or orientations, or slices that are
            missing, doubled or unevenly spaced.
    """
    datasets = [_read(path, pixels=True) for path in paths]
    folder = paths[0].parent
    check_alike(paths, datasets)
    order, spacing = in_order(paths, datasets, uneven)
    paths, datasets = [paths[i] for i in order], [datasets[i] for i in order]

    def decode(**options: Any) -> NDArray[Any]:  # noqa: ANN401 - highdicom's
        parts = zip(paths, datasets, strict=True)
        return np.stack([_decoded(path, dataset, **options) for path, dataset in parts])

    voxels = _place(decode, intensity, folder, datasets[0])
    return Series(voxels, affine_of(datasets, spacing))


def headers_in_order(paths: Sequence[Path], uneven: bool = False) -> list[Any]:
    """Headers of one series, as the slices of ``read_series`` lie, without pixels.

    Args:
        paths: The files of one series, in any order.
        uneven: See ``read_series``.

    Raises:
        ImageReadError: A file cannot be read.
        VolumeError: See ``read_series``.
    """
    datasets = [_read(path, pixels=False) for path in paths]
    check_alike(paths, datasets)
    order, _ = in_order(paths, datasets, uneven)
    return [datasets[index] for index in order]


def _read(path: Path, *, pixels: bool) -> Any:  # noqa: ANN401 - a pydicom dataset
    import pydicom

    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=not pixels)
        frames = int(dataset.get("NumberOfFrames") or 1)
        kind = dataset.SOPClassUID.name
        _ = dataset.Rows, dataset.Columns, dataset.SamplesPerPixel, dataset.BitsStored
    except Exception as error:
        msg = f"cannot read {path} as a DICOM picture: {error}; replace it or take it out"
        raise ImageReadError(msg) from error
    if frames > 1:
        msg = (
            f"{path} holds {frames} frames ({kind}); only single-frame files are read: convert it "
            "to a series or to NIfTI"
        )
        raise VolumeError(msg)
    return dataset


def _decoded(path: Path, dataset: Any, **options: Any) -> NDArray[Any]:  # noqa: ANN401
    """Pixels of one file, rescaled."""
    import highdicom

    options = {"dtype": np.float64, "apply_presentation_lut": False, **options}
    syntax = dataset.file_meta.get("TransferSyntaxUID", "")
    try:
        image = highdicom.Image.from_dataset(dataset, copy=False)
        pixels: NDArray[Any] = image.get_frame(1, **options)
    except Exception as error:
        package = _DECODERS.get(syntax)
        remedy = "replace it or take it out"
        if package and "plugins" in str(error):
            remedy = f"it is compressed as {syntax.name}: run pip install '{package}'"
        msg = f"cannot decode the pixels of {path}: {error}; {remedy}"
        raise ImageReadError(msg) from error
    return pixels


def _place(
    decode: Callable[..., NDArray[Any]],
    intensity: IntensityPolicy,
    where: Path,
    dataset: Any,  # noqa: ANN401
) -> NDArray[np.float32]:
    """Apply the policy, and turn inverted greys round."""
    if intensity == "voi":
        if not {"WindowCenter", "VOILUTSequence"} & set(dataset.dir()):
            msg = f"{where} has no window of its own; give 'intensity' another policy than 'voi'"
            raise IntensityError(msg)
        values = place(decode(apply_voi_transform=True), "unit", where)
    elif intensity == "dtype":
        signed = bool(dataset.PixelRepresentation)
        bits = dataset.BitsStored
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        values = place(decode(apply_modality_transform=False), (low, high), where)
    else:
        values = place(decode(), intensity, where)
    return 1 - values if dataset.PhotometricInterpretation == "MONOCHROME1" else values


def _is_raw(dataset: Any) -> bool:  # noqa: ANN401
    """Whether the numbers are as stored: unsigned and not rescaled."""
    rescaled = (dataset.get("RescaleSlope", 1), dataset.get("RescaleIntercept", 0)) != (1, 0)
    return not rescaled and not dataset.PixelRepresentation
