"""A file is opened once, to see what it is and to read it; of DICOM twice, for its pixels."""

import numpy as np
import pytest
from dicom_series import numbers, straight, write_picture, write_series
from opened_files import opened
from PIL import Image

from anomalib_medclip.readers.picture import read_image, read_lesion
from anomalib_medclip.readers.volume import read_volume

ENDINGS = (".png", ".jpg", ".tif", ".bmp", ".gif", ".webp")


def opens(read, *given):
    """The number of times that each file was opened while something was read."""
    with opened() as found:
        read(*given)
    return {name: count for name, count in found.items() if name.startswith("it")}


@pytest.mark.parametrize("side", [4, 200])  # of which the small may be a Git LFS pointer
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_picture_is_opened_once(tmp_path, ending, side):
    path = tmp_path / f"it{ending}"
    pixels = np.zeros((side, side), np.uint8)
    pixels[1:3, 1:3] = 255
    Image.fromarray(pixels).save(path)
    read_image(path)  # what is imported is no file of ours
    assert opens(read_image, path) == {path.name: 1}
    assert opens(read_lesion, path) == {path.name: 1}


def test_a_deep_picture_is_opened_once(tmp_path):
    path = tmp_path / "it.png"
    Image.fromarray(numbers(9, 9).astype(np.uint16)).save(path)
    assert opens(read_image, path, "dtype") == {path.name: 1}


def test_of_dicom_the_header_is_read_once_and_then_the_pixels(tmp_path):
    path = write_picture(tmp_path / "it", numbers(9, 9))
    assert opens(read_image, path, (0, 1000)) == {path.name: 2}
    slices = write_series(tmp_path / "ct", numbers(6, 5, 7), straight())
    named = [one.rename(one.with_name(f"it{one.name}")) for one in slices]
    found = opens(read_volume, tmp_path / "ct", (0, 1000))
    assert found == dict.fromkeys((one.name for one in named), 2)


def test_of_a_stack_each_picture_is_looked_at_and_read(tmp_path):
    for number in range(5):
        Image.fromarray(numbers(9, 9).astype(np.uint8)).save(tmp_path / f"it{number}.png")
    assert set(opens(read_volume, tmp_path).values()) == {2}
