"""Numbers that ImageJ has calibrated are those that it shows, or the file is refused by name."""

import numpy as np
import pytest
import tifffile

from anomalib_medclip.errors import ImageReadError, IntensityError
from anomalib_medclip.readers.lesion import MaskLabels
from anomalib_medclip.readers.picture import read_image, read_label_map, read_lesion

WINDOW = (-160.0, 240.0)


def write(path, numbers, photometric="minisblack", **lines):
    said = "".join(f"{name}={value}\n" for name, value in {"ImageJ": "1.54f", **lines}.items())
    tifffile.imwrite(path, numbers, description=said, metadata=None, photometric=photometric)
    return path


def placed(numbers):
    return np.clip((numbers.astype(float) - WINDOW[0]) / (WINDOW[1] - WINDOW[0]), 0, 1)


def test_signed_numbers_of_imagej_are_signed(tmp_path):
    units = np.array([[-1000, 0, 40, 240]], np.int16).repeat(4, axis=0)
    stored = (units.astype(int) + 32768).astype(np.uint16)
    path = write(tmp_path / "a.tif", stored, cf=0, c0=-32768.0, c1=1.0, vunit="Gray Value")
    np.testing.assert_allclose(read_image(path, WINDOW)[0], placed(units), atol=1e-6)
    assert read_label_map(path).dtype == np.int16
    assert (read_label_map(path) == units).all()
    assert (read_lesion(path, MaskLabels((40,))) == (units == 40)).all()
    with pytest.raises(IntensityError, match=r"a\.tif holds int16"):
        read_image(path)


def test_straight_lines_are_applied_to_numbers_of_any_type(tmp_path):
    for seed in range(80):
        random = np.random.default_rng(seed)
        kind = str(random.choice(["u1", "u2", "f4"]))
        numbers = random.integers(0, 256, (5, 7)).astype(kind)
        offset = round(float(random.normal(0, 300)), 3)
        slope = round(float(random.choice([-1, 1]) * random.uniform(0.1, 5)), 3)
        clip = {"zeroclip": "true"} if seed % 5 == 0 else {}
        inverted = seed % 3 == 0
        path = write(
            tmp_path / "a.tif", numbers, "miniswhite" if inverted else "minisblack",
            cf=0, c0=offset, c1=slope, vunit="HU", **clip,
        )  # fmt: skip
        shown = offset + slope * numbers.astype(float)
        expected = placed(shown.clip(min=0) if clip else shown)
        # What is white is bright, whether the line rises or falls.
        expected = 1 - expected if inverted and slope > 0 else expected
        np.testing.assert_allclose(read_image(path, WINDOW)[0], expected, atol=1e-6, err_msg=seed)


@pytest.mark.parametrize(
    "lines", [{}, {"cf": 20}, {"cf": 0}, {"cf": 0, "c0": 0.0, "c1": 1.0, "vunit": "mm"}]
)
def test_numbers_that_are_not_calibrated_stay(tmp_path, lines):
    numbers = np.arange(35, dtype=np.uint8).reshape(5, 7)
    found = read_image(write(tmp_path / "a.tif", numbers, **lines))
    np.testing.assert_allclose(found[0], numbers / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        ({"cf": 1, "c0": 0.0, "c1": 1.0, "c2": 2.0}, r"quadratic \(cf=1\)"),
        ({"cf": 4, "c0": 0.0, "c1": 1.0}, r"exponential \(cf=4\)"),
        ({"cf": 7, "c0": 0.0, "c1": 1.0, "c2": 1.0, "c3": 1.0}, r"Rodbard \(cf=7\)"),
        ({"cf": 21}, r"optical density \(cf=21\)"),
        ({"cf": 99}, r"99 \(cf=99\)"),
        ({"cf": 0, "c0": 5.0}, r"no line \(cf=0\)"),
        ({"cf": 0, "c0": 5.0, "c1": 0.0}, r"no line \(cf=0\)"),
        ({"cf": 0, "c0": "1,5", "c1": 1.0}, r"no line \(cf=0\)"),
    ],
)
def test_other_functions_are_refused_by_name(tmp_path, lines, name):
    path = write(tmp_path / "a.tif", np.zeros((4, 4), np.uint16), **lines)
    with pytest.raises(ImageReadError, match=rf"a\.tif: ImageJ has .*{name}; make it 32-bit"):
        read_image(path, WINDOW)


def test_colours_are_not_calibrated(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    path = write(tmp_path / "a.tif", colours, "rgb", cf=0, c0=-32768.0, c1=1.0)
    np.testing.assert_allclose(read_image(path), colours.transpose(2, 0, 1) / 255, atol=1e-6)
