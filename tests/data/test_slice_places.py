"""Slices are numbered as viewers do, and know millimetres and sides where their file says them."""

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from anomalib_medclip.data.slice_places import place_of
from anomalib_medclip.data.slicing import Slicing, cut

SHAPE = (20, 30, 10)  # to the right, to the front and up, in the file's own order
VOXELS = np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.int16)


def write(path, spacing=(2.0, 3.0, 5.0), flipped=False, code=1):
    """A volume whose slices go up, or down."""
    affine = np.diag([*spacing, 1.0])
    affine[2, 2] *= -1 if flipped else 1
    image = nib.Nifti1Image(VOXELS, affine)
    image.set_sform(affine, code)
    image.set_qform(affine, code)
    nib.save(image, path)
    return path


def sliced(path, plane="axial"):
    return cut(path, [0, 1000], Slicing(plane))


@pytest.mark.parametrize("flipped", [False, True])
def test_a_slice_has_the_number_that_viewers_show_however_the_file_lies(tmp_path, flipped):
    path = write(tmp_path / "a.nii.gz", flipped=flipped)
    volume = sliced(path)
    for number in (0, 3, 9):
        shown = int(place_of(volume, number).words.split("(")[1].split()[0])
        in_file = VOXELS[..., shown - 1] / 1000
        assert sorted(volume.images[number].flatten().tolist()) == pytest.approx(
            sorted(in_file.clip(0, 1).flatten().tolist()), abs=1e-6
        )


@pytest.mark.parametrize(
    ("plane", "sides", "size"),
    [
        ("axial", ("R", "L"), (90, 40)),
        ("coronal", ("R", "L"), (50, 40)),
        ("sagittal", ("A", "P"), (50, 90)),
    ],
)
def test_a_slice_knows_its_millimetres_and_its_sides(tmp_path, plane, sides, size):
    extent = place_of(sliced(write(tmp_path / "a.nii.gz"), plane), 2).extent
    assert extent.sides == sides
    assert extent.in_mm
    assert (extent.height, extent.width) == pytest.approx(size)


def test_pictures_have_neither_millimetres_nor_sides_nor_a_number_in_viewers(tmp_path):
    folder = tmp_path / "stack"
    folder.mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (12, 16), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    place = place_of(cut(folder, None, Slicing()), 2)
    assert place == ("slice 2", (12, 16, False, None))


def test_a_file_that_says_no_orientation_has_no_sides(tmp_path):
    extent = place_of(sliced(write(tmp_path / "a.nii.gz", code=0)), 2).extent
    assert extent.sides is None
    assert extent.in_mm
