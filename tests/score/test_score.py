"""Whole volumes through a model: the map lies where the file lies, and nothing is half-written."""

import gzip
import itertools
import json
import logging
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest
import torch
from anomalib.data import InferenceBatch
from anomalib.engine import Engine
from dicom_results import NAMES, results_of
from dicom_series import TO_DICOM
from PIL import Image
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset
from rich.console import Console
from scans import AFFINE, UP, numbers, record, write_stack, write_volume
from tiny import small
from volumes import write_patients

from anomalib_medclip import Inferencer
from anomalib_medclip.cli import main
from anomalib_medclip.commands.score import _logging_to
from anomalib_medclip.components.processors import MedicalPreProcessor
from anomalib_medclip.data import Volumes, VolumeSource
from anomalib_medclip.data.slicing import Slicing, cut
from anomalib_medclip.decisions.aggregation import Aggregation
from anomalib_medclip.errors import DataRootError, VolumeError
from anomalib_medclip.export.description import describe
from anomalib_medclip.files import sha256
from anomalib_medclip.models.mvfa import MVFA
from anomalib_medclip.provenance import NOTICE
from anomalib_medclip.readers.volume import read_volume
from anomalib_medclip.score.batches import Stack, in_batches, resized_slices
from anomalib_medclip.score.inferencer import BatchPrediction
from anomalib_medclip.score.inputs import find_inputs
from anomalib_medclip.score.model_files import slicing_from
from anomalib_medclip.score.nifti_out import slices_to_score
from anomalib_medclip.score.record import ScoreSettings, whole_folder
from anomalib_medclip.score.scorer import Scorer


@pytest.fixture(scope="module")
def model(finished):
    return Inferencer(finished, intensity=(0.0, 1000.0))


@pytest.fixture
def score(finished, tmp_path):
    """Runs the command on a path: ``score(path, *options)`` gives exit code and folder."""

    def command(path, *options):
        out = tmp_path / "out"
        fixed = ["--ckpt", str(finished), "--out", str(out), "--worst", "1"]
        given = () if "--intensity" in options else ("--intensity", "[0, 1000]")
        return main(["score", str(path), *fixed, *given, *options]), out

    return command


def table(out):
    return pd.read_csv(out / "scores.csv", keep_default_na=False).set_index("name")


def map_of(model, path, **options):
    sliced = cut(path, model.intensity, **options)
    return sliced.restore(scores_of(model, sliced).maps)


def scores_of(model, sliced, batch_size=8):
    """What a model says of all slices of a volume."""
    numbers = tuple(range(len(sliced.images)))
    images = resized_slices(model.resize, sliced.images, numbers)
    [done] = in_batches(model.answer, [Stack(numbers, sliced.images.shape, images)], batch_size)
    return done.scores()


def turned(voxels, affine, order, flips):
    """The same volume with its axes in another order, some of them backwards."""
    turn = nib.orientations.inv_ornt_aff(np.column_stack([order, flips]), voxels.shape)
    return nib.apply_orientation(voxels, np.column_stack([order, flips])), affine @ turn


def test_the_map_is_the_same_for_all_48_orders_of_the_axes(model, tmp_path):
    voxels = numbers()
    expected = map_of(model, write_volume(tmp_path / "as_is.nii", voxels))
    assert expected.std() > 0
    for order in itertools.permutations(range(3)):
        for flips in itertools.product((1, -1), repeat=3):
            path = write_volume(tmp_path / "turned.nii", *turned(voxels, AFFINE, order, flips))
            found = map_of(model, path)
            back, _ = turned(expected, AFFINE, order, flips)
            assert np.array_equal(found, back), (order, flips)


def test_a_nifti_map_has_shape_affine_codes_and_units_of_its_volume(score, tmp_path):
    affine = AFFINE.copy()
    affine[:3, :3] = nib.eulerangles.euler2mat(0.1, 0.2, 0.3) @ affine[:3, :3]
    path = tmp_path / "scan.nii.gz"
    image = nib.Nifti1Image(numbers()[..., None], affine)
    image.set_sform(affine, code=4)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm", "sec")
    for field in ("descrip", "db_name", "aux_file", "intent_name", "data_type"):
        image.header[field] = b"Jane Doe"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Jane Doe"))
    nib.save(image, path)
    code, out = score(path)
    assert code == 0
    image, found = nib.load(path), nib.load(out / "scan" / "map.nii.gz")
    assert found.get_data_dtype() == np.float32
    assert found.shape == image.shape
    assert np.array_equal(found.affine, image.affine)
    for name in ("sform_code", "qform_code", "xyzt_units"):
        assert found.header[name] == image.header[name], name
    assert np.array_equal(found.get_qform(), image.get_qform())
    for file in (path, out / "scan" / "map.nii.gz"):
        assert (b"Jane" in gzip.decompress(file.read_bytes())) == (file == path)
    assert not found.header.extensions
    assert NOTICE.encode() in found.header["descrip"].item()


def test_a_series_and_the_same_volume_as_nifti_have_equal_maps(score, model, tmp_path):
    stored = numbers()
    write_stack(tmp_path / "in" / "ct", stored, UP, slope=2.0, intercept=-1024.0)
    rescaled = (stored * 2.0 - 1024).astype(np.float32)
    write_volume(tmp_path / "in" / "same.nii.gz", rescaled, UP)
    code, out = score(tmp_path / "in", "--intensity", "[-800, 1000]")
    assert code == 0
    ct, same = (nib.load(out / name / "map.nii.gz") for name in ("ct", "same"))
    assert np.array_equal(ct.get_fdata(), same.get_fdata())
    assert np.array_equal(ct.affine, same.affine)
    assert record(out / "ct")["slices"] == record(out / "same")["slices"]


def test_dicom_maps_and_segmentations_hold_the_map_and_point_to_their_source(score, tmp_path):
    paths = write_stack(tmp_path / "ct", numbers(), UP)
    sources = {pydicom.dcmread(p).SOPInstanceUID for p in paths}
    code, out = score(tmp_path / "ct")
    assert code == 0
    voxels = nib.load(out / "ct" / "map.nii.gz").get_fdata().astype(np.float32)
    assert 0 < (voxels > 0.5).mean() < 1, "a test of both sides of the threshold"
    found = highdicom.imread(out / "ct" / "map.dcm")
    grid = highdicom.Volume(voxels, affine=TO_DICOM @ UP, coordinate_system="PATIENT")
    assert np.array_equal(found.get_volume(dtype=np.float32).match_geometry(grid).array, voxels)
    assert found.ContentQualification == "RESEARCH"
    [shared] = found.SharedFunctionalGroupsSequence
    [item] = shared.RealWorldValueMappingSequence
    limits = item.DoubleFloatRealWorldValueFirstValueMapped, item.RealWorldValueSlope
    assert limits == (0.0, 1.0)
    segmentation = highdicom.seg.segread(out / "ct" / "segmentation.dcm")
    pixels = segmentation.get_pixels_by_source_instance(
        [d.SOPInstanceUID for d in in_order(paths)], combine_segments=True,
        assert_missing_frames_are_empty=True,
    )  # fmt: skip
    assert np.array_equal(pixels, (voxels > 0.5).astype(np.uint8))
    assert segmentation.get_segment_description(1).algorithm_type.value == "AUTOMATIC"
    for one in (found, segmentation):
        assert {uid for _, _, uid in one.get_source_image_uids()} == sources
        assert one.PatientID == "P-4711"


OF_PIXELS = {
    "FrameOfReferenceUID", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation",
}  # fmt: skip


def test_dicom_files_take_patient_and_study_from_the_series_and_nothing_else(tmp_path):
    """Every text of DICOM's dictionary is in the headers."""
    texts = {
        entry[4]: "TELLTALE"
        for tag, entry in DicomDictionary.items()
        if entry[0] in ("LO", "SH", "ST", "LT", "UT", "PN") and 0x00080000 <= tag < 0x7FE00000
    }
    known = {"PatientName": "M\xfcller^Jane", "PatientID": "P-4711", "StudyID": "1"}
    known |= {"AccessionNumber": "A-1", "SpecificCharacterSet": "ISO_IR 100"}
    known |= {"InstitutionCodeSequence": [Dataset()], "PatientAge": "070Y", "DeviceUID": "1.2.3"}
    paths = write_stack(tmp_path / "ct", numbers(), UP, **{**texts, **known})
    sources = in_order(paths)
    results_of(tmp_path / "out", paths)
    for name in NAMES:
        found = pydicom.dcmread(tmp_path / "out" / name)
        same = {one.keyword for one in found if one.value and one == sources[0].get(one.tag)}
        assert same - OF_PIXELS == {
            "SpecificCharacterSet", "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
            "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber",
        }  # fmt: skip
        assert same & OF_PIXELS == (set() if name == "report.dcm" else OF_PIXELS)
        assert found.ReferringPhysicianName == "", "type 2: there, and empty"
        assert b"TELLTALE" not in (tmp_path / "out" / name).read_bytes()
        assert str(found.PatientName) == "M\xfcller^Jane"


def in_order(paths):
    datasets = [pydicom.dcmread(path) for path in paths]
    return sorted(datasets, key=lambda dataset: dataset.ImagePositionPatient[2])


def test_nothing_above_the_threshold_leaves_no_segmentation_and_says_so(
    score, tmp_path, monkeypatch
):
    write_stack(tmp_path / "ct", numbers(), UP)
    monkeypatch.setattr("anomalib_medclip.score.dicom_images.THRESHOLD", 2.0)
    code, out = score(tmp_path / "ct")
    assert code == 0
    assert (out / "ct" / "map.dcm").is_file()
    assert not (out / "ct" / "segmentation.dcm").exists()
    assert record(out / "ct")["segmentation"].startswith("none")


def test_only_dicom_says_whose_series_it_was(score, tmp_path):
    write_stack(tmp_path / "ct", numbers(), UP)
    _, out = score(tmp_path / "ct")
    for path in [*out.rglob("*.json"), *out.rglob("*.csv"), *out.rglob("*.png")]:
        for word in (b"Doe", b"P-4711", b"19500101", b"A-1"):  # shorter ones are in some hash
            assert word not in path.read_bytes(), path
    assert b"P-4711" in (out / "ct" / "map.dcm").read_bytes()


def test_scores_say_where_they_come_from(score, finished, tmp_path):
    path = write_volume(tmp_path / "scan.nii.gz")
    code, out = score(path, "--plane", "coronal", "--batch-size", "3")
    found = record(out / "scan")
    assert code == 0
    scores = [row["score"] for row in found["slices"]]
    assert [row["slice"] for row in found["slices"]] == list(range(10))
    assert found["score"] == pytest.approx(np.mean(sorted(scores)[-3:]))
    assert found["aggregation"]["score_is"] == "the mean of the 3 worst images"
    assert found["worst"] == max(scores)
    assert found["mean"] == pytest.approx(np.mean(scores))
    assert [row["label"] for row in found["slices"]] == [int(s > 0.5) for s in scores]
    origin = found["provenance"]
    assert origin["model"]["sha256"] == {Path(finished).name: sha256(Path(finished))}
    assert origin["model"]["method"] == "MVFA"
    assert len(origin["model"]["backbone_fingerprint"]) == 16
    assert origin["input_sha256"] == {"scan.nii.gz": sha256(path)}
    assert origin["threshold"] == {"value": 0.5, "from": "validation"}
    assert origin["intensity"] == [0, 1000]
    assert origin["settings"]["slicing"]["plane"] == "coronal"
    assert origin["versions"]["anomalib"] != "not installed"
    assert found["notice"] == NOTICE
    rows = pd.read_csv(out / "scan" / "scores.csv")
    assert rows["score"].tolist() == pytest.approx(scores)
    assert table(out).loc["scan", "score"] == pytest.approx(found["score"])
    assert Image.open(out / "scan" / "montage.png").size[0] > 100


def test_one_bad_input_does_not_lose_the_others(score, tmp_path, caplog):
    home = tmp_path / "in"
    write_volume(home / "a.nii.gz")
    (home / "b.nii.gz").write_bytes((home / "a.nii.gz").read_bytes()[:-30])
    paths = write_stack(home / "sub" / "ct", numbers(), UP)
    paths[4].unlink()
    Image.fromarray(numbers((20, 24)).astype(np.uint8)).save(home / "x.png")
    code, out = score(home)
    found = table(out)
    assert code == 1
    assert found["status"].to_dict() == {
        "a": "scored", "b": "failed", "ct": "failed", "x": "scored"
    }  # fmt: skip
    assert "b.nii.gz" in found.loc["b", "error"]
    assert "missing" in found.loc["ct", "error"]
    there = sorted(p.name for p in out.iterdir())
    assert there == [".scores.csv.lock", "a", "scores.csv", "x"], "nothing half-written"
    assert found["notice"].eq(NOTICE).all()


def test_a_result_is_kept_if_it_is_the_very_one_and_never_overwritten_unasked(score, tmp_path):
    path = write_volume(tmp_path / "scan.nii.gz")
    _, out = score(path)
    before = table(out).loc["scan"]
    code, _ = score(path)
    again = table(out).loc["scan"]
    assert (code, again["status"], again["score"]) == (0, "kept", before["score"])
    code, _ = score(path, "--plane", "sagittal")
    assert code == 1
    assert "--overwrite" in table(out).loc["scan", "error"]
    assert record(out / "scan")["provenance"]["settings"]["slicing"]["plane"] == "axial"
    code, _ = score(path, "--plane", "sagittal", "--overwrite")
    assert code == 0
    assert record(out / "scan")["provenance"]["settings"]["slicing"]["plane"] == "sagittal"


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    (tmp_path / "scan").mkdir()
    (tmp_path / "scan" / "old").touch()

    def stopped():
        with whole_folder(tmp_path / "scan") as aside:
            (aside / "new").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert [p.name for p in tmp_path.rglob("*")] == ["scan", "old"]
    with whole_folder(tmp_path / "scan") as aside:
        (aside / "new").touch()
    assert {p.name for p in tmp_path.rglob("*")} == {"scan", "new", ".scores.csv.lock"}


def test_slices_not_asked_for_have_no_score_and_an_empty_map(score, tmp_path):
    path = write_volume(tmp_path / "scan.nii.gz")
    code, out = score(path, "--slices", "2", "4", "--batch-size", "2")
    assert code == 0
    assert [row["slice"] for row in record(out / "scan")["slices"]] == [2, 3, 4]
    found = nib.load(out / "scan" / "map.nii.gz").get_fdata()
    assert not found[..., :2].any()
    assert not found[..., 5:].any()
    assert found[..., 2:5].all()
    code, _ = score(path, "--slices", "3", "8", "--overwrite")
    assert code == 1
    words = "the cut has slices 0 to 7, not 3 to 8; correct --slices"
    assert table(out).loc["scan", "error"] == words


def test_what_is_logged_is_shown_once(monkeypatch, capfd):
    """Others log to a root logger without handlers, as open_clip does, and so give it one."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    with _logging_to(Console(stderr=True)):
        logging.info("a word of open_clip")
        logging.getLogger("anomalib_medclip.score").info("a word of ours")
        logging.getLogger("pydicom").warning("a warning of pydicom")
    said = capfd.readouterr().err
    assert [line.rstrip() for line in said.splitlines()] == [
        "INFO     a word of ours",
        "WARNING  a warning of pydicom",
    ]


def test_slices_without_the_organ_are_not_scored():
    shown = torch.tensor([False, True, True, False, True])
    assert slices_to_score(shown, None) == [1, 2, 4]
    assert slices_to_score(shown, (2, 3)) == [2]
    assert slices_to_score(shown, None, trained=(2, 90)) == [2, 4]
    assert slices_to_score(shown, (1, 2), trained=(3, 4)) == [1, 2]
    with pytest.raises(VolumeError, match="3 to 3 show nothing, or not the organ"):
        slices_to_score(shown, (3, 3))


class Mirror:
    """Takes every image for its own map, so that maps must come back to where they were."""

    resize = staticmethod(lambda image: image)

    def answer(self, images):
        scores = images.amax((1, 2, 3))
        return BatchPrediction(scores, scores > 0.5, images[:, 0], scores)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_maps_come_back_to_the_very_voxels(plane, tmp_path):
    voxels, affine = turned(numbers(), AFFINE, (2, 0, 1), (1, -1, 1))
    path = write_volume(tmp_path / "scan.nii", voxels, affine)
    sliced = cut(path, (0.0, 1000.0), Slicing(plane))
    maps = scores_of(Mirror(), sliced, batch_size=3).maps
    assert np.array_equal(sliced.restore(maps), read_volume(path, (0.0, 1000.0)).voxels)


def test_batches_are_of_slices_along_the_cut(model, tmp_path):
    sliced = cut(write_volume(tmp_path / "scan.nii.gz"), model.intensity)
    one, three = (scores_of(model, sliced, size) for size in (1, 3))
    assert torch.allclose(one.scores, three.scores, atol=1e-5)
    assert torch.allclose(one.maps, three.maps, atol=1e-5)
    alone = model.score(sliced.images[5].expand(1, 3, -1, -1))
    assert torch.equal(one.scores[5], alone.scores[0])
    assert torch.equal(one.maps[5], alone.full_maps[0])


def test_resampling_and_cropping_come_back_to_the_grid_of_the_file(score, tmp_path):
    path = write_volume(tmp_path / "scan.nii.gz")
    organ = np.zeros((12, 10, 8), dtype=np.int16)
    organ[3:9, 2:7, 1:6] = 4
    write_volume(tmp_path / "organs" / "scan.nii.gz", organ)
    options = ("--spacing", "1.3", "0.9", "2.5")
    crop = ("--organ", str(tmp_path / "organs"), "--organ-labels", "4")
    code, out = score(path, *options, *crop)
    assert code == 0
    found = nib.load(out / "scan" / "map.nii.gz").get_fdata()
    assert found.shape == (12, 10, 8)
    assert found[5, 4, 3] > 0
    assert not found[0].any()
    assert len(record(out / "scan")["slices"]) < 8 * 2.0 / 2.5 - 1, "not all show the organ"


def test_without_an_intensity_policy_the_error_names_the_option(finished, tmp_path):
    path = write_volume(tmp_path / "scan.nii.gz")
    out = tmp_path / "out"
    assert main(["score", str(path), "--ckpt", str(finished), "--out", str(out)]) == 1
    assert "--intensity" in table(out).loc["scan", "error"]


def test_a_constant_volume_is_flagged(score, tmp_path, caplog):
    path = write_volume(tmp_path / "scan.nii.gz", np.full((8, 8, 4), 300, dtype=np.int16))
    code, out = score(path)
    assert code == 0
    assert record(out / "scan")["flat"] is True
    assert "same everywhere" in caplog.text


def test_areas_are_those_of_maps_at_the_models_size(finished, tmp_path):
    model = Inferencer(finished, intensity=(0.0, 1000.0))
    path = write_volume(tmp_path / "scan.nii.gz", numbers((50, 40, 5)))
    images = resized_slices(model.resize, cut(path, model.intensity).images, range(5))
    maps = model.answer(images.expand(-1, 3, -1, -1)).maps
    threshold = float(maps.median())
    model.decisions = replace(
        model.decisions, aggregation=Aggregation("area"), pixel_threshold=threshold
    )
    scorer = Scorer(Path(finished), tmp_path / "out", model, ScoreSettings(batch_size=5))
    scorer.score(find_inputs(path, tmp_path / "out"))
    expected = (maps > threshold).double().mean(dim=(1, 2)).sum()
    assert scorer.rows["scan"]["score"] == pytest.approx(float(expected), abs=1e-12)


def test_pictures_are_scored_as_the_inferencer_does(score, model, tmp_path):
    path = tmp_path / "x.png"
    Image.fromarray(numbers((20, 24)).astype(np.uint8)).save(path)
    code, out = score(path)
    expected = model.predict(path)
    assert code == 0
    assert record(out / "x")["score"] == expected.score
    assert np.array_equal(np.array(Image.open(out / "x" / "map.tiff")), expected.full_map.numpy())


def test_inputs_are_found_in_order_under_names_that_differ(tmp_path):
    for name in ("b/scan.nii.gz", "a/scan.nii.gz", "a/SCAN.nii", "a/x.png", "out/map.nii.gz"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "a" / "notes.txt").touch()
    write_stack(tmp_path / "c", numbers((3, 4, 5)), UP)
    write_stack(tmp_path / "c", numbers((2, 4, 5)), UP)
    write_stack(tmp_path / "d", numbers((1, 4, 5)), UP, ImagePositionPatient=None)
    found = find_inputs(tmp_path, leave_out=tmp_path / "out")
    where = [(one.where, one.kind, len(one.files)) for one in found]
    assert where[:4] == [
        ("a/SCAN.nii", "nifti", 1), ("a/scan.nii.gz", "nifti", 1), ("a/x.png", "picture", 1),
        ("b/scan.nii.gz", "nifti", 1),
    ]  # fmt: skip
    assert sorted(where[4:6]) == [("c", "series", 2), ("c", "series", 3)]
    assert where[6][1:] == ("picture", 1), "it says nothing of its place"
    names = [one.name.lower() for one in found]
    assert len(set(names)) == len(names)
    assert names[3] == "b_scan"


def test_a_file_that_cannot_be_read_is_no_slice_to_go_without(tmp_path):
    paths = write_stack(tmp_path / "ct", numbers((3, 4, 5)), UP)
    paths[-1].write_bytes(b"damaged")
    [only] = find_inputs(tmp_path, leave_out=tmp_path / "out")
    assert sorted(only.files) == sorted(paths)


def test_bad_paths_are_answered_before_anything_is_written(score, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for path, words in (("empty", "holds no NIfTI file"), ("none", "no .*none; give")):
        with pytest.raises(DataRootError, match=words):
            find_inputs(tmp_path / path, tmp_path)
    with pytest.raises(DataRootError, match="among the inputs"):
        find_inputs(tmp_path, tmp_path / "empty" / "..")
    code, out = score(tmp_path / "empty")
    assert code == 2
    assert "error: " in capsys.readouterr().err
    assert not out.exists()


def test_what_the_model_says_of_slicing_travels_in_checkpoints(tmp_path):
    slicing = Slicing("coronal", (1.0, 1.0, 2.0), (3, 4), 2)
    before = MedicalPreProcessor(32, (0.0, 80.0), slicing=slicing.as_plain())
    torch.save(before.checkpoint_config(), tmp_path / "notes")
    config = torch.load(tmp_path / "notes", weights_only=True)
    after = MedicalPreProcessor(32)
    after.load_checkpoint_config(config)
    assert after.intensity == (0.0, 80.0)
    assert slicing_from(json.loads(json.dumps(after.slicing))) == slicing
    former = MedicalPreProcessor(32)
    former.load_checkpoint_config({"intensity": "brain"})
    assert (former.intensity, former.slicing) == ("brain", None)


def test_an_export_knows_slicing_and_intensity_and_scores_alike(
    finished, model, tmp_path, monkeypatch
):
    trained = MVFA.load_from_checkpoint(finished)
    trained.pre_processor.intensity = (0.0, 1000.0)
    trained.pre_processor.slicing = Slicing("sagittal").as_plain()
    exported = tmp_path / "model.onnx"
    exported.write_bytes(b"stands for a graph, whose export other tests pay for")
    said = describe(trained, None, InferenceBatch(), "onnx")
    paper = asdict(said) | {"files": {"model.onnx": sha256(exported)}}
    exported.with_suffix(".json").write_text(json.dumps(paper))
    monkeypatch.setattr("anomalib_medclip.score.model_files.open_onnx", lambda *_: model.run)
    served = Inferencer(exported)
    assert slicing_from(served.slicing) == Slicing("sagittal")
    assert served.intensity == (0.0, 1000.0)
    assert served.origin == model.origin
    path, out = write_volume(tmp_path / "scan.nii.gz"), tmp_path / "out"
    assert main(["score", str(path), "--ckpt", str(exported), "--out", str(out)]) == 0
    found = nib.load(out / "scan" / "map.nii.gz").get_fdata()
    assert np.array_equal(found, map_of(model, path, slicing=Slicing("sagittal")))
    former = {name: value for name, value in paper.items() if name != "slicing"}
    exported.with_suffix(".json").write_text(json.dumps(former))
    assert Inferencer(exported).slicing is None


def test_links_are_followed_and_each_folder_is_looked_at_once(tmp_path):
    write_volume(tmp_path / "elsewhere" / "scan.nii")
    home = tmp_path / "in"
    home.mkdir()
    (home / "there").symlink_to(tmp_path / "elsewhere")
    (home / "again").symlink_to(home)
    assert [one.where for one in find_inputs(home, tmp_path / "out")] == ["there/scan.nii"]


def test_uneven_series_are_scored_when_asked_and_dicom_keeps_their_places(score, tmp_path):
    paths = write_stack(tmp_path / "ct", numbers(), UP)
    paths[4].unlink()
    code, out = score(tmp_path / "ct", "--uneven")
    assert code == 0
    found = highdicom.imread(out / "ct" / "map.dcm")
    heights = [
        float(frame.PlanePositionSequence[0].ImagePositionPatient[2])
        for frame in found.PerFrameFunctionalGroupsSequence
    ]
    expected = [float(one.ImagePositionPatient[2]) for one in in_order([*paths[:4], *paths[5:]])]
    assert sorted(heights) == expected


def test_the_table_keeps_rows_of_results_that_are_still_there(score, tmp_path, capsys):
    for name in ("a", "b"):
        _, out = score(write_volume(tmp_path / f"{name}.nii"))
    assert list(table(out).index) == ["a", "b"]
    shutil.rmtree(out / "a")
    score(tmp_path / "b.nii")
    assert list(table(out).index) == ["b"]
    with (out / "scores.csv").open("a") as file:
        file.write(f"x,{'n' * 300}\n")  # a name that no folder has
    score(tmp_path / "b.nii")
    assert list(table(out).index) == ["b"]
    (out / "scores.csv").write_text("mine\n1\n")
    code, _ = score(tmp_path / "b.nii")
    assert code == 2
    assert "is no table of results" in capsys.readouterr().err


def test_a_name_is_no_formula_in_the_table_and_comes_back(score, tmp_path):
    write_volume(tmp_path / "scans" / "=1+A1.nii")
    for _ in range(2):
        code, out = score(tmp_path / "scans")
        assert code == 0
        found = table(out)
        assert found.index.tolist() == ["'=1+A1"]
        assert found["input"].tolist() == ["'=1+A1.nii"]
    write_volume(tmp_path / "scans" / "b.nii")
    score(tmp_path / "scans")
    assert table(out).index.tolist() == ["'=1+A1", "b"]
    assert table(out)["status"].tolist() == ["kept", "scored"]


def test_a_model_of_volumes_cuts_and_places_as_in_training(tmp_path, monkeypatch):
    write_patients(tmp_path / "in")
    source = VolumeSource(image="{patient}/flair.nii.gz", mask="{patient}/seg.nii.gz")
    policy = {"percentiles": (1.0, 99.0), "nan": "background"}
    median = {"class_path": "monai.transforms.MedianSmooth", "init_args": {"radius": 1}}
    data = Volumes(
        tmp_path / "in", [source], plane="axial", spacing=(1.5, 1.5, 2.0), k_shot=1,
        intensity=policy, object_name="phantom", transforms=[median],
    )  # fmt: skip
    engine = Engine(
        default_root_dir=tmp_path, accelerator="cpu", max_epochs=1, enable_progress_bar=False
    )
    engine.fit(small(MVFA), datamodule=data)
    checkpoint = engine.trainer.checkpoint_callback.best_model_path
    path, out = tmp_path / "in" / "P0" / "flair.nii.gz", tmp_path / "out"
    assert main(["score", str(path), "--ckpt", checkpoint, "--out", str(out)]) == 0
    found = record(out / "flair")["provenance"]
    assert found["intensity"] == {"percentiles": [1.0, 99.0], "nan": "background"}
    assert found["settings"]["slicing"]["transforms"] == [median]
    assert slicing_from(found["settings"]["slicing"]) == data.slicing
    assert data.slicing.spacing == (1.5, 1.5, 2.0)
