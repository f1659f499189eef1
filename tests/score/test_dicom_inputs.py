"""What ``score`` makes of folders of DICOM: multi-frame files, several volumes, strangers."""

import highdicom
import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest
from dicom_series import TO_DICOM, UID, write_picture
from enhanced import as_series, geometry, write_enhanced
from pictures import save
from pydicom.uid import ExplicitVRLittleEndian
from scans import AFFINE, UP, numbers, record, write_stack

from anomalib_medclip.cli import main
from anomalib_medclip.errors import DataRootError
from anomalib_medclip.score.inputs import look_below


@pytest.fixture
def score(finished, tmp_path):
    """Runs the command on a path: ``score(path, *options)`` gives exit code, folder and table."""

    def command(path, *options):
        out = tmp_path / "out"
        given = ["--ckpt", str(finished), "--out", str(out), "--worst", "1"]
        code = main(["score", str(path), *given, "--intensity", "[0, 1000]", *options])
        return code, out, pd.read_csv(out / "scores.csv", keep_default_na=False)

    return command


def write_report(path):
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    pydicom.dcmwrite(path, dataset, enforce_file_format=False)


PATIENT = {
    **dict.fromkeys(("PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"), ""),
    **dict.fromkeys(("StudyID", "AccessionNumber", "ReferringPhysicianName"), ""),
    "StudyInstanceUID": f"{UID}7",
    "Modality": "MR",
}


def test_what_lies_beside_a_series_is_a_row_with_the_reason(score, tmp_path):
    write_stack(tmp_path / "ct" / "head", numbers((4, 6, 5)), UP)
    save(tmp_path / "ct" / "head" / "preview.jpg", numbers((8, 8)).astype(np.uint8))
    write_report(tmp_path / "ct" / "head" / "report")
    write_report(tmp_path / "ct" / "DICOMDIR")
    write_picture(tmp_path / "ct" / "head" / "shot", numbers((9, 7)), SeriesInstanceUID=f"{UID}9")
    (tmp_path / "ct" / "pictures").mkdir()
    save(tmp_path / "ct" / "pictures" / "1.png", numbers((8, 8)).astype(np.uint8))
    save(tmp_path / "ct" / "pictures" / "1_mask.png", numbers((8, 8)).astype(np.uint8))
    (tmp_path / "ct" / "notes.txt").write_text("tired")
    for _ in range(2):  # what is kept, and what is left out, is told again
        code, out, table = score(tmp_path / "ct")
        assert code == 0
        left_out = table[table["status"] == "left out"].set_index("input")
        assert dict(left_out["error"].str.partition(", and is left out; ")[0]) == {
            "DICOMDIR": "is a Basic Text SR Storage file and no image",
            "head/report": "is a Basic Text SR Storage file and no image",
            "head/preview.jpg": "is no DICOM file, and lies beside a DICOM series",
            "head/shot": "is a picture that says nothing of its place, beside the slices of a DICOM"
            " series",
            "pictures/1_mask.png": "is a mask by its name",
            "notes.txt": "ends in .txt, as no picture that is read does",
        }
        assert left_out["error"].str.contains("; ").all()
        assert not any(left_out["name"])
    assert list(table["input"])[:2] == ["head", "pictures/1.png"]
    assert list(table["status"])[:2] == ["kept", "kept"]
    assert (out / "head" / "map.dcm").exists()


def test_pictures_are_left_out_beside_a_series_only(tmp_path):
    write_picture(tmp_path / "x-rays" / "two.dcm", numbers((8, 8)))
    save(tmp_path / "x-rays" / "one.png", numbers((8, 8)).astype(np.uint8))
    found = look_below(tmp_path, tmp_path / "out")
    assert [one.where for one in found.inputs] == ["x-rays/one.png", "x-rays/two.dcm"]
    assert not found.left_out


def test_where_nothing_is_left_to_score_it_is_said_what_there_is(tmp_path):
    write_report(tmp_path / "report.dcm")
    with pytest.raises(DataRootError, match=r"or picture but report.dcm, which is a Basic Text SR"):
        look_below(tmp_path, tmp_path / "out")


def test_a_multi_frame_file_is_scored_as_the_series_it_stands_for(score, tmp_path):
    shared, places = geometry(AFFINE, 5)
    pixels = numbers((5, 8, 6))
    order = [3, 0, 4, 1, 2]
    frames = [places[i] for i in order]
    write_enhanced(tmp_path / "in" / "e.dcm", pixels[order], frames, shared, **PATIENT)
    as_series(tmp_path / "in" / "classic", pixels, places, shared, **PATIENT)
    code, out, table = score(tmp_path / "in")
    assert code == 0
    assert sorted(zip(table["input"], table["name"], strict=True)) == [
        ("classic", "classic"),
        ("e.dcm", "e"),
    ]
    one, two = (nib.load(out / name / "map.nii.gz") for name in ("e", "classic"))
    assert np.array_equal(one.get_fdata(), two.get_fdata())
    np.testing.assert_allclose(one.affine, two.affine)
    maps = [highdicom.imread(out / name / "map.dcm") for name in ("e", "classic")]
    voxels = one.get_fdata().astype(np.float32)
    grid = highdicom.Volume(voxels, affine=TO_DICOM @ one.affine, coordinate_system="PATIENT")
    for found in maps:
        assert np.array_equal(found.get_volume(dtype=np.float32).match_geometry(grid).array, voxels)
    for group in maps[0].PerFrameFunctionalGroupsSequence:  # each map points to its own frame
        [source] = group.DerivationImageSequence[0].SourceImageSequence
        place = group.PlanePositionSequence[0].ImagePositionPatient
        frame = frames[int(source.ReferencedFrameNumber) - 1]
        np.testing.assert_allclose(place, frame["ImagePositionPatient"], atol=1e-5)
    assert record(out / "e")["segmentation"] == record(out / "classic")["segmentation"]


def test_one_of_several_volumes_is_chosen(score, tmp_path):
    shared, places = geometry(AFFINE, 4)
    pixels = numbers((8, 6, 5))
    frames = [{**place, "EffectiveEchoTime": t} for place in places for t in (4.6, 9.2)]
    write_enhanced(tmp_path / "in" / "e.dcm", pixels, frames, shared, **PATIENT)
    as_series(tmp_path / "second", pixels[1::2], places, shared, **PATIENT)
    code, _, table = score(tmp_path / "in")
    assert code == 1
    words = "holds 2 volumes, which differ in EffectiveEchoTime: 4.6 (4 slices), 9.2 (4 slices)"
    assert words in table["error"][0]
    code, out, _ = score(tmp_path / "in", "--dicom-where", "EffectiveEchoTime=9.2")
    assert code == 0
    assert record(out / "e")["segmentation"].startswith("none: DICOM maps point to whole files")
    score(tmp_path / "second")
    one, two = (nib.load(out / name / "map.nii.gz").get_fdata() for name in ("e", "second"))
    assert np.array_equal(one, two)
    assert record(out / "e")["provenance"]["settings"]["dicom_where"] == {
        "EffectiveEchoTime": "9.2"
    }


def test_a_name_of_no_known_type_stops_nothing(score, tmp_path):
    paths = write_stack(tmp_path / "ct", numbers((4, 6, 5)), UP, PatientName="")
    name = b"\x10\x00\x10\x00PN"
    paths[1].write_bytes(paths[1].read_bytes().replace(name, name[:4] + b"M\2"))
    code, out, table = score(tmp_path / "ct")
    assert (code, table["error"][0]) == (0, "")
    assert pydicom.dcmread(out / "ct" / "map.dcm").PatientName == ""
