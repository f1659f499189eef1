"""MONAI transforms of a user's own: seen by training and scoring alike, and taken back."""

import json
import sys
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest
import torch
from dicom_series import numbers, straight, write_nifti
from monai.transforms import MapTransform, MedianSmooth, Transform
from scans import AFFINE, record

from anomalib_medclip.cli import main
from anomalib_medclip.data.config import build_data
from anomalib_medclip.data.slicing import Slicing, cut
from anomalib_medclip.data.voxel_transforms import is_harmless
from anomalib_medclip.errors import (
    ConfigError,
    DataRootError,
    ImageReadError,
    IntensityError,
    MaskError,
    TrustError,
    VolumeError,
)
from anomalib_medclip.score.model_files import slicing_from

WINDOW = (0.0, 1000.0)
MEDIAN = {"class_path": "monai.transforms.MedianSmooth", "init_args": {"radius": 1}}


class Halved(Transform):
    """Of somebody's laboratory; it knows NumPy only."""

    def __init__(self, by=2.0):
        self.by = by

    def __call__(self, image):
        return np.asarray(image) / self.by


class Shifted(MapTransform):
    """It moves voxels, and nobody can take that back."""

    def __call__(self, data):
        return {**data, **{key: data[key][:, 1:] for key in self.key_iterator(data)}}


@pytest.fixture(autouse=True)
def laboratory(monkeypatch):
    module = ModuleType("our_laboratory")
    module.Halved, module.Shifted = Halved, Shifted
    monkeypatch.setitem(sys.modules, "our_laboratory", module)


def spec(path, **options):
    return {"class_path": path, "init_args": options}


HALVED = spec("our_laboratory.Halved", by=4.0)


@pytest.fixture
def scan(tmp_path):
    voxels = numbers(8, 7, 6, low=0, high=1000)
    mask = np.zeros_like(voxels, dtype=np.uint8)
    mask[2:5, 2:5, 2:4] = 1
    return (
        write_nifti(tmp_path / "scan.nii.gz", voxels, straight()),
        write_nifti(tmp_path / "seg.nii.gz", mask, straight()),
    )


def test_the_image_is_what_the_transforms_make_of_it_one_after_the_other(scan):
    plain = cut(scan[0], WINDOW, mask=scan[1])
    sliced = cut(scan[0], WINDOW, Slicing(transforms=(MEDIAN, HALVED)), scan[1])
    upright = plain.images.permute(1, 2, 0)[None]
    wanted = MedianSmooth(radius=1)(upright)[0].permute(2, 0, 1) / 4
    torch.testing.assert_close(sliced.images, torch.as_tensor(np.asarray(wanted)))
    assert torch.equal(sliced.masks, plain.masks)
    assert np.array_equal(sliced.restore(plain.images), plain.restore(plain.images))


def test_a_resampled_volume_takes_its_mask_along_and_maps_come_back(scan):
    resampled = spec(
        "monai.transforms.Spacingd",
        keys=["image", "mask"], pixdim=[2.0, 2.0, 2.0], mode=["bilinear", "nearest"],
    )  # fmt: skip
    sliced = cut(scan[0], WINDOW, Slicing(transforms=(resampled,)), scan[1])
    assert sliced.images.shape == sliced.masks.shape == (8, 6, 8)
    assert sliced.restore(sliced.images).shape == (8, 7, 6)
    back = sliced.restore(sliced.masks.float()) > 0.5
    truth = nib.load(scan[1]).get_fdata() > 0
    assert (back & truth).sum() / (back | truth).sum() > 0.5


REFUSED = {
    "monai.transforms.RandGaussianNoise": (spec("monai.transforms.RandGaussianNoise"), "is random"),
    "no class": (spec("monai.transforms.Nothing"), "cannot be made"),
    "no module": (spec("no_such_module.Thing"), "cannot be made"),
    "other options": (spec("monai.transforms.MedianSmooth", size=3), "cannot be made"),
    "no transform": (spec("collections.Counter"), "no transform of MONAI's kind"),
    "a word": ("monai.transforms.MedianSmooth", "give it as class_path and init_args"),
    "another key": ({"class_path": "a.B", "args": {}}, "give it as class_path and init_args"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_transform_is_refused_where_it_is_named(scan, name):
    given, words = REFUSED[name]
    with pytest.raises(ConfigError, match=words):
        cut(scan[0], WINDOW, Slicing(transforms=(given,)))


WRONG = {
    "leaves the range": (spec("monai.transforms.ShiftIntensity", offset=1.0), IntensityError),
    "not a number": (spec("our_laboratory.Halved", by=0.0), IntensityError),
    "moves voxels": (spec("our_laboratory.Shifted", keys=["image", "mask"]), VolumeError),
    "the image alone": (spec("monai.transforms.Flip", spatial_axis=0), VolumeError),
    "fails": (spec("monai.transforms.Orientation", axcodes="XYZ"), VolumeError),
    "a soft mask": (
        spec("monai.transforms.Spacingd", keys=["image", "mask"], pixdim=[3, 3, 3]),
        MaskError,
    ),
    "the grid of the mask": (
        spec("monai.transforms.Spacingd", keys=["image"], pixdim=[1, 1, 1]),
        MaskError,
    ),
    "a grid beyond all": (
        spec("monai.transforms.Resized", keys=["image"], spatial_size=[9000, 9000, 9000]),
        ImageReadError,
    ),
    "two channels": (spec("monai.transforms.RepeatChannel", repeats=2), VolumeError),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_comes_of_a_transform_is_looked_at(scan, name):
    given, kind = WRONG[name]
    with pytest.raises(kind, match=r"scan.nii.gz"):
        cut(scan[0], WINDOW, Slicing(transforms=(given,)), scan[1])


# --- remembered


def test_a_config_names_them_and_a_wrong_one_ends_there(tmp_path, scan):
    def data(transforms):
        options = {
            "root": str(tmp_path),
            "sources": [{"image": "{patient}.nii.gz", "healthy": True}],
            "intensity": list(WINDOW),
            "transforms": transforms,
        }
        class_path = "anomalib_medclip.data.Volumes"
        return build_data({"class_path": class_path, "init_args": options}, "a test")

    volumes = data([MEDIAN])
    case = next(one for one in volumes.cases() if one.patient == "scan")
    assert torch.equal(
        volumes.cut(case).images, cut(scan[0], WINDOW, Slicing(transforms=(MEDIAN,))).images
    )
    with pytest.raises(DataRootError, match=r"the transform 'monai.transforms.Nothing' cannot be"):
        data([spec("monai.transforms.Nothing")])


HARMLESS = ("MedianSmooth", "Spacingd", "HistogramNormalize", "CropForegroundd", "FillHoles")
HARMFUL = ("SaveImage", "LoadImaged", "Lambda", "TorchVision", "CuCIM", "SimulateDelay", "io", "")


def test_a_file_may_name_transforms_of_monai_that_change_voxels_and_no_others():
    assert all(is_harmless({"class_path": f"monai.transforms.{name}"}) for name in HARMLESS)
    for path in [f"monai.transforms.{name}" for name in HARMFUL] + ["os.system", "our.Own", "x"]:
        assert not is_harmless({"class_path": path})
        with pytest.raises(TrustError, match=r"name all transforms again \(score --transforms\)"):
            slicing_from({"transforms": [{"class_path": path}]})
    assert not any(map(is_harmless, (None, "monai.transforms.MedianSmooth", {}, 3)))
    kept = slicing_from({"transforms": [MEDIAN]})
    assert kept.transforms == (MEDIAN,)
    assert slicing_from({"transforms": [HALVED]}, [HALVED]).transforms == (HALVED,)


def test_transforms_of_ones_own_are_named_again_for_score(tmp_path, finished):
    path = write_nifti(tmp_path / "scan.nii.gz", numbers(8, 7, 6, low=0, high=1000), AFFINE)
    maps = []
    for number, named in enumerate(([], [MEDIAN, HALVED])):
        out = tmp_path / str(number)
        command = ["score", str(path), "--ckpt", str(finished), "--out", str(out)]
        options = ["--intensity", "[0, 1000]", "--transforms", json.dumps(named)]
        assert main([*command, *options]) == 0
        assert record(out / "scan")["provenance"]["settings"]["slicing"]["transforms"] == named
        maps.append(nib.load(out / "scan" / "map.nii.gz").get_fdata())
    assert not np.array_equal(*maps)
