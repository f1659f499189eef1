"""A result is kept whatever the headers of its series say, and DICOM made of it is sound."""

import json
import logging
from pathlib import Path

import highdicom
import numpy as np
import pandas as pd
import pydicom
import pytest
from dicom_faults import set_raw
from dicom_results import NAMES, errors_in, needs_dciodvfy, results_of
from enhanced import geometry, write_enhanced
from scans import AFFINE, UP, numbers, record, write_stack
from tiny import TEST_DATA

from anomalib_medclip.cli import main
from anomalib_medclip.errors import NonFiniteError
from anomalib_medclip.readers.dicom import read_series
from anomalib_medclip.score import dicom_images, dicom_out
from anomalib_medclip.score.dicom_out import DicomResults
from anomalib_medclip.score.dicom_report import Findings, Measurement


@pytest.fixture
def score(finished, tmp_path):
    """Runs the command on a path: ``score(path, *options)`` gives exit code, folder and table."""

    def command(path, *options):
        out = tmp_path / "out"
        given = ["--ckpt", str(finished), "--out", str(out), "--worst", "2"]
        code = main(["score", str(path), *given, "--intensity", "[0, 1000]", *options])
        table = pd.read_csv(out / "scores.csv", keep_default_na=False).set_index("name")
        return code, out, table

    return command


def small_stack(folder, **tags):
    return write_stack(folder, numbers((3, 6, 5)), UP, **tags)


def test_scores_are_kept_where_no_dicom_can_be_made_and_all_that_is_missing_is_named(
    score, tmp_path, caplog
):
    paths = small_stack(tmp_path / "ct", StudyInstanceUID=None)
    set_raw(paths[1], "SOPInstanceUID", b"1.2.03")
    for status in ("scored", "kept"):
        code, out, table = score(tmp_path / "ct")
        assert code == 1, "not all that was asked for is there"
        assert table.loc["ct", "status"] == status
        assert 0 <= float(table.loc["ct", "score"]) <= 1
        words = "no usable StudyInstanceUID; SOPInstanceUID (in 1 of 3 files); "
        for said in (table.loc["ct", "error"], caplog.text):
            assert words in said
            assert "give --no-dicom" in said
        there = sorted(path.name for path in (out / "ct").iterdir())
        assert there == ["map.nii.gz", "montage.png", "scores.csv", "scores.json"]
    said = record(out / "ct")
    assert set(said["dicom"]["files"]) == set(NAMES)
    assert all(words in reason for reason in said["dicom"]["files"].values())
    assert said["segmentation"].startswith("missing: no DICOM files can be made for ct, since")
    code, _, table = score(tmp_path / "ct", "--no-dicom", "--overwrite")
    assert (code, table.loc["ct", "error"]) == (0, "")
    assert "dicom" not in record(out / "ct")


def test_headers_are_looked_up_before_a_pixel_is(score, tmp_path, caplog):
    paths = small_stack(tmp_path / "ct", StudyInstanceUID=None)
    for path in paths:
        set_raw(path, "PixelData", None)
    code, _, table = score(tmp_path / "ct")
    assert (code, table.loc["ct", "status"]) == (1, "failed")
    assert "no usable StudyInstanceUID" in caplog.text


def test_a_frame_of_reference_is_made_of_the_series_and_said(score, tmp_path, caplog):
    small_stack(tmp_path / "ct", FrameOfReferenceUID=None)
    with caplog.at_level(logging.INFO, "anomalib_medclip"):
        code, out, table = score(tmp_path / "ct")
    assert (code, table.loc["ct", "error"]) == (0, "")
    note = "FrameOfReferenceUID is not stated, or is none: made of SeriesInstanceUID"
    assert record(out / "ct")["dicom"]["notes"] == [note]
    assert note in caplog.text
    made = {
        pydicom.dcmread(out / "ct" / name).FrameOfReferenceUID
        for name in ("map.dcm", "segmentation.dcm")
    }
    results = DicomResults("again")
    read_series(list((tmp_path / "ct").iterdir()), (0.0, 1000.0), on_headers=results.check)
    assert made == {results.source.images[0].FrameOfReferenceUID}


def test_identifiers_are_taken_from_where_else_the_files_state_them(tmp_path):
    paths = small_stack(tmp_path / "ct")
    expected = pydicom.dcmread(paths[0])
    for name in ("StudyInstanceUID", "SOPInstanceUID", "SOPClassUID"):
        set_raw(paths[0], name, None)
    results = results_of(tmp_path / "out", paths)
    assert list(results.made.values()) == ["written"] * 3
    [one] = [
        image
        for image in results.source.images
        if image.SOPInstanceUID == expected.file_meta.MediaStorageSOPInstanceUID
    ]
    assert one.SOPClassUID == expected.SOPClassUID
    assert one.StudyInstanceUID == expected.StudyInstanceUID
    where = ("that of the others", "MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID")
    assert [note.partition(" not state it, ")[2] for note in results.source.notes] == list(where)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"SOPInstanceUID": "1.2.3"}, "SOPInstanceUID of its own"),
        ({"SOPClassUID": "1.2.840.10008.1.2.3.4.5"}, "SOPClassUID that DICOM knows"),
        ({"SeriesInstanceUID": ""}, "no usable SeriesInstanceUID;"),
    ],
)
def test_what_cannot_be_pointed_to_is_refused(tmp_path, fault, words):
    results = results_of(tmp_path / "out", small_stack(tmp_path / "ct", **fault))
    assert not list((tmp_path / "out").iterdir())
    assert all(words in reason for reason in results.made.values())


def test_faulty_words_are_made_such_as_dicom_allows_and_no_number_is_cut(tmp_path):
    paths = small_stack(tmp_path / "ct", PatientName="J\xf6rg^Ren\xe9", SpecificCharacterSet=None)
    faults = {
        "PatientName": "Jörg^René\n".encode(),
        "PatientID": b"1" * 70,
        "AccessionNumber": b"A\\B",
        "StudyID": b" 17 \0",
        "PatientBirthDate": b"1950.01.31",
        "StudyDate": b"someday",
        "StudyTime": b"12:30:45.25",
        "PatientSex": b"female",
    }
    for path in paths:
        for keyword, value in faults.items():
            set_raw(path, keyword, value)
    results = results_of(tmp_path / "out", paths)
    for name in NAMES:
        found = pydicom.dcmread(tmp_path / "out" / name)
        assert {keyword: str(found[keyword].value or "") for keyword in faults} == {
            "PatientName": "Jörg^René",
            "PatientID": "",
            "AccessionNumber": "",
            "StudyID": "17",
            "PatientBirthDate": "19500131",
            "StudyDate": "",
            "StudyTime": "123045.25",
            "PatientSex": "F",
        }
        assert found.SpecificCharacterSet == "ISO_IR 192"
    notes = " ".join(results.source.notes)
    assert "PatientID (left empty)" in notes
    assert "PatientName: of a character set that is not stated" in notes
    assert "StudyID" not in notes, "padding means nothing"
    for value in faults.values():
        assert value.decode().strip() not in notes


def test_letters_of_many_alphabets_come_back(tmp_path):
    name = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    terms = ["", "ISO 2022 IR 87"]
    paths = small_stack(tmp_path / "ct", SpecificCharacterSet=terms, PatientName=name)
    results_of(tmp_path / "out", paths)
    for file in NAMES:
        found = pydicom.dcmread(tmp_path / "out" / file)
        assert str(found.PatientName) == name
        assert list(found.SpecificCharacterSet) == terms


def test_series_have_numbers_of_their_own_and_segments_a_colour(tmp_path):
    for number, expected in ((7, [701, 702, 703]), (None, [1001, 1002, 1003]), (2**31 - 1, None)):
        home = tmp_path / str(number)
        results_of(home, small_stack(tmp_path / f"ct {number}", SeriesNumber=number))
        found = [pydicom.dcmread(home / name) for name in NAMES]
        assert [one.SeriesNumber for one in found] == (expected or [1001, 1002, 1003])
        assert len({one.SeriesInstanceUID for one in found}) == 3
    [segment] = found[1].SegmentSequence
    colour = highdicom.color.CIELabColor.from_dicom_value(segment.RecommendedDisplayCIELabValue)
    red, green, blue = colour.to_rgb()
    assert red > green > blue, "orange"


def test_the_same_result_has_the_same_identifiers(tmp_path):
    paths = small_stack(tmp_path / "ct")
    for folder, seed in (("one", "a"), ("same", "a"), ("other", "b")):
        results_of(tmp_path / folder, paths, seed)

    def identifiers(folder):
        found = [pydicom.dcmread(tmp_path / folder / name) for name in NAMES]
        own = {
            str(element.value)
            for one in found
            for element in one.iterall()
            if element.VR == "UI" and "Referenced" not in element.keyword
        }
        return own - {str(element.value) for element in pydicom.dcmread(paths[0])}

    assert identifiers("one") == identifiers("same")
    made = [
        {pydicom.dcmread(tmp_path / one / name)[keyword].value for one in ("one", "other")}
        for name in NAMES
        for keyword in ("SOPInstanceUID", "SeriesInstanceUID")
    ]
    assert all(len(both) == 2 for both in made)


def test_identifiers_follow_contents_and_not_names_of_files():
    def maker(name, model="m"):
        return dicom_images.Maker.of("MVFA", {"input_sha256": {name: "a"}, "model": model})

    assert maker("x") == maker("y")
    assert maker("x").uid("Anomaly map") != maker("x", "n").uid("Anomaly map")


def test_one_file_that_cannot_be_made_does_not_cost_the_others(tmp_path, monkeypatch, caplog):
    def refuse(*_, **__):
        raise ValueError("Jane Doe")  # noqa: EM101 - as a library may quote

    monkeypatch.setattr(dicom_images, "segmentation", refuse)
    results = results_of(tmp_path / "out", small_stack(tmp_path / "ct"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"map.dcm", "report.dcm"}
    said = results.made["segmentation.dcm"]
    assert said.startswith("missing: no segmentation.dcm can be made for ct: ValueError; ")
    assert dicom_out.lacking(json.loads(json.dumps(results.record())))
    assert "Jane" not in said + caplog.text


def test_a_full_disk_is_no_fault_of_the_headers(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    paths = small_stack(tmp_path / "ct")
    monkeypatch.setattr(pydicom.Dataset, "save_as", full)
    with pytest.raises(OSError, match="No space"):
        results_of(tmp_path / "out", paths)


def test_no_name_gets_into_logs_or_notes(tmp_path, caplog, recwarn):
    paths = small_stack(tmp_path / "ct", PatientName="Jane", PatientID="J" * 70)
    set_raw(paths[0], "PatientBirthDate", b"Jane1950")
    with caplog.at_level(logging.DEBUG):
        results = results_of(tmp_path / "out", paths)
    warned = " ".join(str(one.message) for one in recwarn)
    for said in (caplog.text, json.dumps(results.record()), warned):
        assert "Jane" not in said
        assert "JJJ" not in said


def test_a_number_that_is_none_is_in_no_report(tmp_path):
    findings = Findings([], [Measurement("score", "Anomaly score of the volume", float("nan"))])
    results = results_of(tmp_path / "out", small_stack(tmp_path / "ct"), findings=findings)
    assert "is nan, which is no measurement" in results.made["report.dcm"]
    assert NonFiniteError.remedy in results.made["report.dcm"]
    assert not (tmp_path / "out" / "report.dcm").exists()


@needs_dciodvfy
def test_dicom_of_a_clean_series_is_sound(tmp_path):
    results = results_of(tmp_path / "out", small_stack(tmp_path / "ct"))
    assert list(results.made) == list(NAMES)
    assert set(results.made.values()) == {"written"}
    assert errors_in(tmp_path / "out") == []
    set_raw(tmp_path / "out" / "report.dcm", "StudyDate", b"someday")
    assert len(errors_in(tmp_path / "out")) > 0, "it can tell"


@needs_dciodvfy
@pytest.mark.parametrize(
    "tags",
    [
        {"FrameOfReferenceUID": None, "PatientID": "", "SliceThickness": None},
        {
            "LossyImageCompression": "01",
            "LossyImageCompressionRatio": "10",
            "LossyImageCompressionMethod": "ISO_10918_1",
        },
    ],
    ids=["lacking", "lossy"],
)
def test_dicom_of_other_series_is_sound(tmp_path, tags):
    results_of(tmp_path / "out", small_stack(tmp_path / "ct", **tags))
    assert len(list((tmp_path / "out").iterdir())) == 3
    assert errors_in(tmp_path / "out") == []
    found = pydicom.dcmread(tmp_path / "out" / "map.dcm")
    assert found.LossyImageCompression == tags.get("LossyImageCompression", "00")


@needs_dciodvfy
def test_dicom_of_a_single_slice_is_sound(tmp_path):
    paths = write_stack(tmp_path / "ct", numbers((1, 7, 5)), UP, SliceThickness=None)
    findings = Findings([], [Measurement("score", "Anomaly score of the volume", 1)])
    assert set(results_of(tmp_path / "out", paths, findings=findings).made.values()) == {"written"}
    assert errors_in(tmp_path / "out") == []


@needs_dciodvfy
def test_dicom_of_a_multi_frame_file_is_sound_and_points_to_its_frames(tmp_path):
    affine = AFFINE.copy()
    affine[:3, :3] *= 0.742999970912933  # more digits than DICOM has room for
    shared, places = geometry(affine, 5)
    order = [3, 0, 4, 1, 2]
    path = write_enhanced(
        tmp_path / "e.dcm", numbers((5, 8, 6)), [places[i] for i in order], shared, Modality="MR",
        StudyInstanceUID="1.2.3", FrameOfReferenceUID=None,
    )  # fmt: skip
    results = results_of(tmp_path / "out", [path])
    assert set(results.made.values()) == {"written"}
    assert errors_in(tmp_path / "out") == []
    report = highdicom.sr.srread(tmp_path / "out" / "report.dcm")
    [group] = report.content.get_image_measurement_groups()
    [_, _, measured] = group.get_measurements()
    [image] = measured.referenced_images
    assert image.referenced_frame_numbers == [order.index(1) + 1]


@needs_dciodvfy
@pytest.mark.skipif(not TEST_DATA, reason="ANOMALIB_MEDCLIP_TEST_DATA names no folder with data")
def test_a_series_that_everybody_has_is_scored_with_all_its_dicom(score, tmp_path):
    """Its headers have errors of their own: no frame of reference, numbers too long, NULs."""
    path = Path(str(TEST_DATA), "data", "liver_ct", "dicom_17")
    if not path.is_dir():
        pytest.skip(f"no {path}")
    code, out, table = score(path, "--intensity", "[-200, 300]")
    assert (code, table.loc["dicom_17", "error"]) == (0, "")
    assert record(out / "dicom_17")["dicom"]["files"] == dict.fromkeys(NAMES, "written")
    assert errors_in(out / "dicom_17") == []
    places = pydicom.dcmread(out / "dicom_17" / "map.dcm").PerFrameFunctionalGroupsSequence
    heights = [float(one.PlanePositionSequence[0].ImagePositionPatient[2]) for one in places]
    assert np.allclose(np.diff(sorted(heights)), 1.6)
