"""Which volumes there are below a folder, and what is left besides."""

import pytest
from dicom_series import numbers, straight
from volume_formats import write_meta_image, write_nrrd, write_pair

from anomalib_medclip.data.cases import VolumeSource, find_cases
from anomalib_medclip.data.not_taken import not_taken
from anomalib_medclip.errors import DataRootError


@pytest.fixture
def hospital(tmp_path):
    """Paths alone: nothing is read here."""
    for name in (
        "P0/flair.nii.gz", "P0/seg.nii.gz", "P0/t1.nii.gz",
        "P1/Flair.nii.gz", "P1/seg.nii.gz",
        "P2/ct/0.dcm", "P2/ct/report.pdf", "P2/ct/deep/1.dcm", "P3/mr/0.dcm",
        "labels.csv", "README", ".hidden/x",
    ):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def left_out(root, *sources):
    cases = find_cases(root, list(sources), None)
    table = root / "labels.csv"
    return {
        one.path.relative_to(root).as_posix(): one.reason
        for one in not_taken(root, sources, cases, table)
    }


MASKED = VolumeSource("{patient}/flair.nii.gz", "{patient}/seg.nii.gz")
SERIES = VolumeSource("{patient}/ct", healthy=True)
NO_FLAIR = "holds no volume like '{patient}/flair.nii.gz'"
STRANGE = "is like no pattern of sources"


def test_a_folder_without_its_volume_and_all_other_files_are_named(hospital):
    assert left_out(hospital, MASKED) == {
        **dict.fromkeys(("P1", "P2", "P3"), NO_FLAIR),
        **dict.fromkeys(("P0/t1.nii.gz", "README"), STRANGE),
    }


def test_volumes_that_lie_in_the_root_have_no_folders_of_their_own(hospital):
    (hospital / "P9.nii.gz").touch()
    found = left_out(hospital, VolumeSource("{patient}.nii.gz", healthy=True))
    assert set(found.values()) == {STRANGE}
    assert "P9.nii.gz" not in found


def test_what_lies_in_the_folder_of_a_series_is_of_that_volume_and_below_it_is_not(hospital):
    found = left_out(hospital, MASKED, SERIES)
    assert [name for name in found if name.startswith("P2")] == ["P2/ct/deep/1.dcm"]
    assert found["P2/ct/deep/1.dcm"].startswith("lies below the folder of a volume")
    both = left_out(hospital, SERIES, VolumeSource("{patient}/ct/deep", healthy=True))
    assert not any(name.startswith("P2") for name in both)
    assert found["P1"] in (NO_FLAIR, "holds no volume like '{patient}/ct'")
    assert found["P3"]
    assert "P0" not in found


def test_the_other_files_of_a_volume_are_of_it(tmp_path):
    voxels, affine = numbers(4, 5, 6), straight()
    write_meta_image(tmp_path / "P0.mhd", voxels, affine)
    write_nrrd(tmp_path / "P1.nhdr", voxels, affine)
    write_pair(tmp_path / "P2.hdr", voxels, affine)
    assert len(list(tmp_path.iterdir())) == 6
    sources = [VolumeSource(f"{{patient}}{one}", healthy=True) for one in (".mhd", ".nhdr", ".hdr")]
    assert left_out(tmp_path, *sources) == {}
    assert set(left_out(tmp_path, sources[0]).values()) == {STRANGE}


@pytest.mark.parametrize(
    ("place", "image", "words"),
    [
        ("..", "{patient}/ct", r"give .*/{root} as root: .*/ct is there"),
        (".", "{patient}/flair.mha", r"correct root or sources, for there is P0/flair\.nii\.gz"),
        ("P2", "{patient}.mha", r"correct root or sources, for there is ct/0\.dcm"),
    ],
)
def test_a_pattern_that_fits_nothing_is_held_against_what_is_there(hospital, place, image, words):
    home = hospital / "data"
    home.mkdir()
    for path in list(hospital.glob("[PlR]*")):
        path.rename(home / path.name)
    with pytest.raises(DataRootError, match=words.replace("{root}", "data")):
        find_cases(home / place, [VolumeSource(image)], None)
