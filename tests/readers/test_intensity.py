import numpy as np
import pytest
import torch
from dicom_series import write_picture
from pictures import save

from anomalib_medclip.data import MedicalFolder
from anomalib_medclip.errors import IntensityError
from anomalib_medclip.readers.intensity import CT_WINDOWS, apply_intensity
from anomalib_medclip.readers.picture import read_image
from anomalib_medclip.readers.resize import MethodResize

# --- policies


def test_a_window_saturates_outside():
    placed = apply_intensity(np.array([-2000.0, -160.0, 40.0, 240.0, 3000.0]), (-160, 240), "x")
    assert placed.dtype == np.float32
    assert placed.tolist() == [0, 0, 0.5, 1, 1]


def test_a_window_has_three_spellings():
    values = np.linspace(-1500, 1500, 31)
    expected = apply_intensity(values, (-160, 240), "x")
    assert np.array_equal(apply_intensity(values, {"centre": 40, "width": 400}, "x"), expected)
    assert np.array_equal(apply_intensity(values, [-160, 240], "x"), expected)


@pytest.mark.parametrize("name", CT_WINDOWS)
def test_every_ct_window_is_as_wide_as_it_says(name):
    centre, width = CT_WINDOWS[name]
    edges = np.array([centre - width / 2, centre, centre + width / 2])
    assert apply_intensity(edges, name, "x").tolist() == [0, 0.5, 1]


def test_percentiles_are_of_the_numbers_above_zero():
    values = np.concatenate([np.zeros(1000), np.arange(1, 102)])
    placed = apply_intensity(values, {"percentiles": (10, 90)}, "x")
    expected = np.clip((values - 11) / 80, 0, 1).astype(np.float32)
    np.testing.assert_allclose(placed, expected, atol=1e-7)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.uint32])
def test_the_full_range_ends_at_the_largest_number(dtype):
    top = np.iinfo(dtype).max
    assert apply_intensity(np.array([0, top], dtype=dtype), "dtype", "x").tolist() == [0, 1]


def test_numbers_in_the_unit_interval_stay():
    values = np.array([0, 0.25, 1])
    assert apply_intensity(values, "unit", "x").tolist() == values.tolist()


def test_the_numbers_that_came_are_left_alone():
    values = np.array([0.0, 100.0])
    apply_intensity(values, (0, 100), "x")
    assert values.tolist() == [0, 100]


@pytest.mark.parametrize(
    ("values", "policy", "words"),
    [
        ([1, 2], None, r"scan.nii holds int16 numbers, which 8 bits cannot carry; set 'intensity'"),
        ([1.0, np.nan], (0, 1), r"holds 1 numbers that are not finite .*--nan background"),
        ([1.0, -np.inf], "dtype", r"scan.nii holds 1 numbers that are not finite"),
        ([0, 1], (5, 5), r"window \[5.0, 5.0\] of scan.nii is empty"),
        ([0, 1], (5, 4), r"is empty; give one with low < high"),
        ([0, 1], (-np.inf, 4), r"is empty"),
        ([0, 1], {"centre": 4, "width": 0}, r"is empty"),
        ([0, -1], {"percentiles": (1, 99)}, r"holds no number above zero"),
        ([0, 1, 1], {"percentiles": (1, 99)}, r"are both 1.0: it shows nothing"),
        ([0, 1], {"percentiles": (99, 1)}, r"give \[p, q\] with 0 <= p < q <= 100"),
        ([0, 1], {"percentiles": (0, 101)}, r"are no percentiles"),
        ([0, 1], {"percentiles": (1,)}, r"are no percentiles"),
        ([0.5], "dtype", r"'dtype' needs integers"),
        ([-5, 5], "dtype", r"from -5, and 'dtype' needs integers that are not negative"),
        ([0.5, 1.5], "unit", r"numbers from 0.5 to 1.5, which are not in \[0, 1\]"),
        ([0, 1], "voi", r"no window of its own, as only DICOM files have"),
        ([0, 1], "kidney", r"cannot be read by 'kidney', which is no intensity policy; give"),
        ([0, 1], {"low": 1}, r"is no intensity policy; give \[low, high\]"),
        ([0, 1], (1, 2, 3), r"is no intensity policy"),
        ([0, 1], ("low", "high"), r"is no intensity policy"),
        ([0, 1], {"percentiles": 5}, r"is no intensity policy"),
        ([0, 1], {"centre": None, "width": 2}, r"is no intensity policy"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(values, policy, words):
    numbers = np.array(values)
    numbers = numbers.astype(np.int16) if numbers.dtype.kind == "i" else numbers
    with pytest.raises(IntensityError, match=words):
        apply_intensity(numbers, policy, "scan.nii")


# --- every number of 16 bits, from the file to the dataset

RAMP = np.arange(65536, dtype=np.uint16).reshape(256, 256)
EXPECTED = {
    "dtype": RAMP / 65535,
    (1000.0, 50000.0): np.clip((RAMP - 1000.0) / 49000, 0, 1),
    "percentiles": np.clip(
        (RAMP - np.percentile(RAMP[RAMP > 0], 2)) / (np.percentile(RAMP[RAMP > 0], 98)
        - np.percentile(RAMP[RAMP > 0], 2)), 0, 1,
    ),
}  # fmt: skip
POLICY = {"percentiles": {"percentiles": (2.0, 98.0)}}


def write_ramp(path):
    return write_picture(path, RAMP) if path.suffix == ".dcm" else save(path, RAMP)


@pytest.mark.parametrize("ending", ["png", "tif", "dcm"])
@pytest.mark.parametrize("policy", EXPECTED, ids=str)
def test_sixteen_bits_pass_the_whole_way_unharmed(tmp_path, ending, policy):
    expected = torch.from_numpy(EXPECTED[policy].astype(np.float32)).expand(3, -1, -1)
    intensity = POLICY.get(policy, policy)
    image = read_image(write_ramp(tmp_path / f"ramp.{ending}"), intensity)
    assert torch.equal(image, expected)
    assert len(torch.unique(image)) == len(torch.unique(expected))
    assert torch.equal(MethodResize(256)(image), expected)


@pytest.mark.parametrize("ending", ["png", "tif", "dcm"])
def test_sixteen_bits_reach_the_dataset_unharmed(tmp_path, ending):
    for word in ("normal", "abnormal"):
        for i in range(6):
            path = tmp_path / "scans" / word / f"{i}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_ramp(path)
    data = MedicalFolder(root=tmp_path / "scans", k_shot=1, intensity="dtype", num_workers=0)
    data.setup()
    item = data.test_data[0]
    expected = torch.from_numpy((RAMP / 65535).astype(np.float32)).expand(3, -1, -1)
    assert torch.equal(item.image, expected)
    assert item.image_path.endswith(ending)
