"""Images that heat maps could not be drawn of, or not be told apart by their files."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from anomalib.utils.path import generate_output_filename
from anomalib.visualization import ImageVisualizer
from pandas import DataFrame

from anomalib_medclip.data.integrity import Problem
from anomalib_medclip.errors import ImageReadError
from anomalib_medclip.files import fault_of
from anomalib_medclip.readers.file_kind import is_dicom, is_volume
from anomalib_medclip.readers.picture_file import is_turned


def heat_map_problems(table: DataFrame, name: str, category: str) -> Iterator[Problem]:
    """Images of which anomalib would write two heat maps to one file, under this name of data."""
    targets = table["image_path"].map(lambda path: str(_heat_map(path, name, category)))
    for path in table[targets.duplicated(keep=False)]["image_path"]:
        said = "shares a heat-map file with another"
        remedy = "set 'name' to a folder that holds all images, or leave it out"
        yield Problem("shared heat-map file", path, said, remedy)


def _heat_map(path: str, name: str, category: str) -> Path:
    """Where anomalib files the heat map of an image, below the folder of all."""
    return Path(generate_output_filename(path, "", name, category, mkdir=False))


def undrawable_problems(
    table: DataFrame, name: str, category: str, callbacks: Sequence[object]
) -> Iterator[Problem]:
    """Images that anomalib's own visualizer, where there is one, could not open, or file."""
    if not any(type(callback) is ImageVisualizer for callback in callbacks):
        return
    for path in table["image_path"]:
        if is_dicom(Path(path)) or fault_of(Path(path)):
            said = "is DICOM or a slice, which anomalib's visualizer cannot open"
        elif is_volume(Path(path)):
            said = "is NIfTI, which anomalib's visualizer cannot open"
        elif ".." in _heat_map(path, name, category).parts:
            said = "is named by '..', which anomalib's visualizer would follow out of its folder"
        elif _is_turned(path):
            said = "has an orientation (EXIF), which anomalib's visualizer knows nothing of"
        else:
            continue
        remedy = (
            "give the model visualizer=anomalib_medclip.training.results.HeatMapVisualizer(), or "
            "False"
        )
        yield Problem("image to be drawn", path, said, remedy, error=ImageReadError)


def _is_turned(path: str) -> bool:
    """Whether it is a picture with an orientation; whether it is any, its reader says."""
    with suppress(ImageReadError):
        return is_turned(path)
    return False
