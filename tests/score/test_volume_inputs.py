"""Volumes as people have them, given to the command ``score`` and to ``Inferencer``."""

import nibabel as nib
import numpy as np
import pytest
import torch
from dicom_series import straight, write_nifti
from scans import AFFINE, numbers, record
from volume_formats import write_meta_image, write_mgh, write_nrrd, write_pair

from anomalib_medclip import Inferencer
from anomalib_medclip.cli import main
from anomalib_medclip.data.config import build_data
from anomalib_medclip.errors import IntensityError, VolumeError
from anomalib_medclip.score.inputs import find_inputs


@pytest.fixture
def score(finished, tmp_path):
    """Runs the command on a path: ``score(path, *options)`` gives exit code and folder."""

    def command(path, *options, out="out"):
        fixed = ["--ckpt", str(finished), "--out", str(tmp_path / out), "--worst", "1"]
        return main(["score", str(path), *fixed, *options]), tmp_path / out

    return command


def test_maps_of_flat_files_have_the_shape_and_place_of_their_file(score, finished, tmp_path):
    shapes = {"a": (24, 20), "b": (1, 24, 20), "c": (24, 1, 20), "d": (24, 20, 1, 1)}
    for name, shape in shapes.items():
        (tmp_path / "in").mkdir(exist_ok=True)
        write_nifti(tmp_path / "in" / f"{name}.nii.gz", numbers((24, 20)).reshape(shape), AFFINE)
    code, out = score(tmp_path / "in", "--intensity", "[0, 1000]")
    assert code == 0
    for name, shape in shapes.items():
        found = nib.load(out / name / "map.nii.gz")
        given = nib.load(tmp_path / "in" / f"{name}.nii.gz")
        assert found.shape == shape
        assert np.array_equal(found.affine, given.affine)
        assert found.get_fdata().std() > 0
        assert len(record(out / name)["slices"]) == 1
    model = Inferencer(finished, intensity=(0.0, 1000.0))
    predicted = model.predict(tmp_path / "in" / "a.nii.gz")
    assert predicted.score == pytest.approx(record(out / "a")["score"], abs=1e-6)
    write_nifti(tmp_path / "whole.nii.gz", numbers(), AFFINE)
    with pytest.raises(VolumeError, match=r"whole.nii.gz is a volume of 8 slices; use"):
        model.predict(tmp_path / "whole.nii.gz")


def test_all_formats_are_inputs_and_have_the_map_of_their_nifti(score, tmp_path):
    home, voxels, affine = tmp_path / "in", numbers((6, 5, 3)), straight()
    home.mkdir()
    write_nifti(home / "a.nii", voxels, affine)
    write_pair(home / "b.hdr", voxels, affine)
    write_pair(home / "c.img.gz", voxels, affine, packed=True)
    write_nrrd(home / "d.nrrd", voxels, affine)
    write_nrrd(home / "e.nhdr", voxels, affine)
    write_meta_image(home / "f.mha", voxels, affine, packed=True)
    write_meta_image(home / "g.mhd", voxels, affine)
    write_mgh(home / "h.mgz", voxels, affine)
    inputs = find_inputs(home, tmp_path / "out")
    assert {one.kind for one in inputs} == {"nifti"}
    assert [one.name for one in inputs] == list("abcdefgh")
    assert {one.name: len(one.files) for one in inputs if len(one.files) > 1} == dict.fromkeys(
        "bceg", 2
    )
    code, out = score(home, "--intensity", "[0, 1000]")
    assert code == 0
    wanted = nib.load(out / "a" / "map.nii.gz")
    for name in "bcdefgh":
        found = nib.load(out / name / "map.nii.gz")
        assert np.array_equal(found.get_fdata(), wanted.get_fdata()), name
        np.testing.assert_allclose(found.affine, wanted.affine, atol=1e-4)
    hashed = record(out / "g")["provenance"]["input_sha256"]
    assert set(hashed) == {"g.mhd", "g.raw"}


def test_nan_is_background_by_an_option_of_the_command(score, tmp_path, capsys):
    voxels = numbers((6, 5, 3)).astype(np.float32)
    voxels[0] = np.nan
    write_nifti(tmp_path / "a.nii", voxels, AFFINE)
    code, out = score(tmp_path / "a.nii", "--intensity", "[0, 1000]")
    assert code == 1
    assert "holds 15 numbers that are not finite" in (out / "scores.csv").read_text()
    assert "--nan background" in (out / "scores.csv").read_text()
    code, out = score(tmp_path / "a.nii", "--intensity", "[0, 1000]", "--nan", "background")
    assert code == 0
    write_nifti(tmp_path / "b.nii", np.nan_to_num(voxels), AFFINE)
    assert score(tmp_path / "b.nii", "--intensity", "[0, 1000]")[0] == 0
    maps = [nib.load(out / name / "map.nii.gz").get_fdata() for name in "ab"]
    assert np.array_equal(*maps)
    policy = record(out / "a")["provenance"]["intensity"]
    assert policy == {"window": [0, 1000], "nan": "background"}


@pytest.mark.parametrize(
    "policy",
    [
        {"window": [0, 1000], "nan": "background"},
        {"window": "brain", "nan": "background"},
        {"percentiles": [1, 99], "nan": "background"},
        {"centre": 500, "width": 1000, "nan": "background"},
    ],
    ids=str,
)
def test_a_config_says_it_and_a_volume_of_training_is_read_so(tmp_path, policy):
    voxels = numbers((6, 5, 3)).astype(np.float32)
    voxels[0] = np.nan
    write_nifti(tmp_path / "P1.nii", voxels, AFFINE)

    def first(intensity):
        options = {
            "root": str(tmp_path),
            "sources": [{"image": "{patient}.nii", "healthy": True}],
            "intensity": intensity,
        }
        class_path = "anomalib_medclip.data.Volumes"
        data = build_data({"class_path": class_path, "init_args": options}, "a test")
        return data.cut(data.cases()[0])

    images = first(policy).images
    assert torch.isfinite(images).all()
    assert (images == 0).any()
    assert (images > 0).any()
    plain = {key: value for key, value in policy.items() if key != "nan"}
    with pytest.raises(IntensityError, match=r"P1.nii holds 15 numbers .* if they are background"):
        first(plain.get("window", plain))
