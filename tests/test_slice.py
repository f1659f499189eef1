"""The command that cuts volumes into a tree of pictures."""

import json
import shutil
import signal
import time

import cv2
import fresh_process
import numpy as np
import pytest
import yaml
from signalled import contents
from volumes import save_nifti, volume, write_patients

from anomalib_medclip.cli import main
from anomalib_medclip.data import BMAD, VolumeSource, slice_tree
from anomalib_medclip.data.cases import find_cases, with_splits
from anomalib_medclip.errors import DamagedFileError, DataRootError
from anomalib_medclip.files import alone_in

SLICE = (volume(0, (1, 3))[0][::-1, ::-1, 1].T / 1000).astype(np.float32)
SPLITS = {"P0": "train", "P1": "train", "P2": "valid", "P3": "valid", "P4": "test", "P5": "test"}


@pytest.fixture
def config(tmp_path):
    """A data config of six patients, as a file."""
    write_patients(tmp_path / "hospital")
    options = {
        "root": str(tmp_path / "hospital"),
        "name": "Brain",
        "sources": [{"image": "{patient}/flair.nii.gz", "mask": "{patient}/seg.nii.gz"}],
        "slices": [0, 4],
        "intensity": [0, 1000],
        "splits": SPLITS,
    }
    path = tmp_path / "volumes.yaml"
    path.write_text(
        yaml.safe_dump({"class_path": "anomalib_medclip.data.Volumes", "init_args": options})
    )
    return path


def cut(config, out, *more):
    return main(["slice", str(config), "--out", str(out), *more])


def test_a_tree_is_read_as_bmad_is(config, tmp_path):
    assert cut(config, tmp_path / "tree") == 0
    data = BMAD(tmp_path / "tree", "Brain", k_shot=2, intensity="dtype")
    data.setup()
    assert len(data.test_data) == 2 * 5
    assert data.test_data.samples["label_index"].sum() == 2 * 2
    lesion = next(item for item in data.test_data if item.gt_label)
    assert lesion.gt_mask.sum() == 36
    # Names of files tell patients by digits only; the manifest knows all.
    assert set(data.test_data.samples["group"]) == {"P4", "P5"}


@pytest.mark.parametrize(("bits", "top"), [("8", 255), ("16", 65535)])
def test_pictures_hold_the_slices_as_exactly_as_their_bits_allow(config, tmp_path, bits, top):
    cut(config, tmp_path / "tree", "--bits", bits)
    found = cv2.imread(
        str(tmp_path / "tree/Brain_AD/train/Ungood/img/P0_001.png"), cv2.IMREAD_UNCHANGED
    )
    expected = np.rint(SLICE.astype(np.float64) * top)
    assert found.dtype == f"uint{bits}"
    assert np.array_equal(found, expected)


def test_the_manifest_says_where_every_picture_is_from(config, tmp_path):
    cut(config, tmp_path / "tree")
    tree = tmp_path / "tree" / "Brain_AD"
    manifest = json.loads((tree / "manifest.json").read_text())
    assert manifest["intensity"] == [0, 1000]
    assert manifest["notice"] == "research use only"
    assert len(manifest["volumes"]) == 6
    first = next(one for one in manifest["volumes"] if one["name"] == "train_P0")
    assert first["sources"]["image"]["path"] == "P0/flair.nii.gz"
    assert len(first["sources"]["image"]["sha256"]) == 64
    assert [one["label"] for one in first["slices"]] == [0, 1, 0, 1, 0]
    listed = {one["file"] for volume in manifest["volumes"] for one in volume["slices"]}
    assert listed == {p.relative_to(tree).as_posix() for p in tree.glob("*/*/img/*.png")}
    # Row 0, column 0, slice 0 is the voxel farthest to the right and to the front.
    assert (np.array(first["affine"]) @ [0, 0, 0, 1]).tolist() == [23.0, 23.0, 0.0, 1.0]


KILLED = """
import os, signal, sys
from anomalib_medclip.cli import main
from anomalib_medclip.data import slice_tree
save, count = slice_tree._save, 0
def deadly(path, pixels):
    global count
    count += 1
    if count == {count}:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name("." + path.name + ".partial").write_bytes(b"half a picture")
        os.kill(os.getpid(), signal.SIGKILL)
    save(path, pixels)
slice_tree._save = deadly
main(["slice", *sys.argv[1:]])
"""


def test_killed_and_started_again_it_makes_the_same_tree(config, tmp_path):
    cut(config, tmp_path / "whole")
    script = KILLED.format(count=17)
    words = [script, config, "--out", tmp_path / "killed", "--jobs", "1"]
    done = fresh_process.run("-c", *words)
    assert done.returncode == -signal.SIGKILL
    assert any((tmp_path / "killed").rglob(".*.partial"))
    assert cut(config, tmp_path / "killed") == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


COMMAND = "import sys; from anomalib_medclip.cli import main; sys.exit(main(sys.argv[1:]))"
SLOW = (
    """
import sys, time
from anomalib_medclip.data import slice_tree
save = slice_tree._save
def slow(path, pixels):
    time.sleep(0.05)
    save(path, pixels)
slice_tree._save = slow
"""
    + COMMAND
)
"""It cuts for two seconds on one processor, so that runs half a second apart overlap."""


def started(config, out, script=COMMAND):
    """The command in a process of its own."""
    return fresh_process.start("-c", script, "slice", config, "--out", out)


def ended(process):
    """The exit code of a process, and its words."""
    said = "".join(process.communicate(timeout=300))
    return process.returncode, said


@pytest.fixture
def undisturbed(config, tmp_path):
    """What one run alone makes."""
    cut(config, tmp_path / "whole")
    return contents(tmp_path / "whole")


def two_runs(config, out, offset, script=COMMAND):
    """Two runs on one tree, of which the second starts some seconds after the first."""
    first = started(config, out, script)
    time.sleep(offset)
    second = started(config, out, script)
    return ended(first), ended(second)


def test_a_second_run_waits_for_the_first_and_loses_nothing(config, tmp_path, undisturbed):
    tree, out = tmp_path / "tree" / "Brain_AD", tmp_path / "tree"
    with alone_in(tree):
        process = started(config, out)
        said = process.stderr.readline()
        assert f"another process writes to {tree}; waiting until it has ended" in said
        assert not tree.exists()
    assert ended(process)[0] == 0
    assert contents(out) == undisturbed


@pytest.mark.parametrize("offset", [0, 0.5])
def test_two_runs_on_a_tree_that_is_not_there_yet_make_it_once(
    offset, config, tmp_path, undisturbed
):
    out = tmp_path / "tree"
    assert not out.exists()
    (one, _), (two, said) = two_runs(config, out, offset, SLOW)
    assert (one, two) == (0, 0), said
    found = contents(out)
    assert len([path for path in found if path.suffix == ".png"]) == 6 * (5 + 2)  # and their masks
    assert found == undisturbed


@pytest.mark.nightly(
    also="tests/test_slice.py::test_two_runs_on_a_tree_that_is_not_there_yet_make_it_once"
)
@pytest.mark.parametrize("run", range(30))
def test_two_runs_on_one_tree_lose_nothing(run, config, tmp_path, undisturbed):
    """Offsets up to a second: a slow run takes longer."""
    (one, _), (two, said) = two_runs(config, tmp_path / "tree", run / 30, SLOW)
    assert (one, two) == (0, 0), said
    assert contents(tmp_path / "tree") == undisturbed


@pytest.mark.nightly(
    also="tests/test_slice.py::test_killed_and_started_again_it_makes_the_same_tree"
)
@pytest.mark.parametrize("run", range(10))
def test_a_run_killed_beside_another_loses_nothing(run, config, tmp_path, undisturbed):
    first, second = (started(config, tmp_path / "tree", SLOW) for _ in range(2))
    time.sleep(0.1 + run / 10)
    first.kill()
    ended(first)
    assert ended(second)[0] == 0
    assert contents(tmp_path / "tree") == undisturbed
    assert cut(config, tmp_path / "tree") == 0
    assert contents(tmp_path / "tree") == undisturbed


def test_a_note_that_is_gone_sweeps_nothing(config, tmp_path, monkeypatch, capsys, undisturbed):
    """As a run of another machine, or of an older version, would remove it at its own end."""
    real, seen = slice_tree._Tree._cut, []

    def careless(tree, name, case):
        real(tree, name, case)
        seen.append(name)
        if len(seen) == 6:
            shutil.rmtree(tree.notes.folder)

    monkeypatch.setattr(slice_tree._Tree, "_cut", careless)
    assert cut(config, tmp_path / "tree", "--jobs", "1") == 2
    assert "test_P4.json (1 of 6) was removed" in capsys.readouterr().err
    pictures = {path for path in undisturbed if path.suffix == ".png"}
    assert {path for path in contents(tmp_path / "tree") if path.suffix == ".png"} == pictures
    monkeypatch.undo()
    assert cut(config, tmp_path / "tree") == 0
    assert contents(tmp_path / "tree") == undisturbed


@pytest.mark.parametrize(
    ("jobs", "note", "words"),
    [("1", '{"sources"', "is no JSON"), ("2", '{"sources": {}}', "does not say what slice says")],
)
def test_a_note_that_is_none_costs_a_volume_cut_again(jobs, note, words, config, tmp_path, caplog):
    tree = tmp_path / "tree" / "Brain_AD"
    cut(config, tmp_path / "tree")
    before = contents(tree)
    whole = json.loads((tree / "manifest.json").read_text())
    del whole["volumes"], whole["failed"]
    (tree / ".notes").mkdir()
    (tree / ".notes" / "options.json").write_text(json.dumps(whole))
    (tree / ".notes" / "test_P4.json").write_text(note)
    (tree / "manifest.json").unlink()
    assert cut(config, tmp_path / "tree", "--jobs", jobs) == 0
    assert "its volume is cut again" in caplog.text
    assert f"test_P4.json {words}" in caplog.text
    assert contents(tree) == before


def test_a_manifest_that_is_no_json_is_named(config, tmp_path, capsys):
    cut(config, tmp_path / "tree")
    manifest = tmp_path / "tree" / "Brain_AD" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("1000", "Infinity", 1))
    with pytest.raises(DamagedFileError, match=r"manifest\.json is no JSON: Infinity is no number"):
        BMAD(tmp_path / "tree", "Brain", k_shot=2, intensity="dtype").setup()
    assert cut(config, tmp_path / "tree") == 2
    assert "manifest.json is no JSON" in capsys.readouterr().err


LONG = '{"volumes": [{"name": "%s", "patient": "", "sources": {}, "slices": []}]}' % ("n" * 300)


@pytest.mark.parametrize(
    "volumes", ["[]", '{"volumes": [{"name": 3}]}', '{"volumes": {}}', LONG], ids=str.__len__
)
def test_a_manifest_of_something_else_is_named(volumes, config, tmp_path, capsys):
    tree = tmp_path / "tree" / "Brain_AD"
    cut(config, tmp_path / "tree")
    (tree / "manifest.json").write_text(volumes)
    words = r"manifest\.json does not say what slice says of volumes; restore it, or give another"
    with pytest.raises(DamagedFileError, match=words):
        BMAD(tmp_path / "tree", "Brain", k_shot=2, intensity="dtype").setup()
    assert cut(config, tmp_path / "tree") == 2
    assert "manifest.json does not say what slice says of volumes" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["img", "anomaly_mask"])
def test_a_picture_that_is_gone_is_made_again(kind, config, tmp_path, undisturbed):
    cut(config, tmp_path / "tree")
    (tmp_path / "tree" / "Brain_AD" / "test" / "Ungood" / kind / "P4_001.png").unlink()
    assert cut(config, tmp_path / "tree") == 0
    assert contents(tmp_path / "tree") == undisturbed


def test_what_is_there_is_not_cut_again(config, tmp_path, monkeypatch):
    cut(config, tmp_path / "tree")
    before = contents(tmp_path / "tree")
    monkeypatch.setattr("anomalib_medclip.data.volumes.cut", None)
    assert cut(config, tmp_path / "tree") == 0
    assert contents(tmp_path / "tree") == before


def test_a_volume_that_has_changed_is_cut_again(config, tmp_path):
    cut(config, tmp_path / "tree")
    voxels, mask = volume(77, (0,))
    save_nifti(tmp_path / "hospital" / "P0" / "flair.nii.gz", voxels)
    save_nifti(tmp_path / "hospital" / "P0" / "seg.nii.gz", mask)
    cut(config, tmp_path / "tree")
    cut(config, tmp_path / "anew")
    assert contents(tmp_path / "tree") == contents(tmp_path / "anew")


def test_a_damaged_volume_does_not_lose_the_others(config, tmp_path, caplog):
    flair = tmp_path / "hospital" / "P2" / "flair.nii.gz"
    whole = flair.read_bytes()
    flair.write_bytes(whole[:200])
    assert cut(config, tmp_path / "tree") == 1
    assert "P2/flair.nii.gz: cannot read" in caplog.text
    manifest = json.loads((tmp_path / "tree" / "Brain_AD" / "manifest.json").read_text())
    assert len(manifest["volumes"]) == 5
    assert list(manifest["failed"]) == ["P2/flair.nii.gz"]
    flair.write_bytes(whole)
    assert cut(config, tmp_path / "tree") == 0
    cut(config, tmp_path / "anew")
    assert contents(tmp_path / "tree") == contents(tmp_path / "anew")


def test_what_is_no_volume_is_counted(config, tmp_path, caplog):
    (tmp_path / "hospital" / "P0" / "notes.txt").write_text("")
    assert cut(config, tmp_path / "tree") == 0
    assert "notes.txt is like no pattern of sources, and is left out; add a source" in caplog.text


def test_a_tree_of_other_options_is_left_alone(config, tmp_path, capsys):
    cut(config, tmp_path / "tree")
    before = contents(tmp_path / "tree")
    assert cut(config, tmp_path / "tree", "--bits", "8") == 2
    assert "was made with other options" in capsys.readouterr().err
    assert contents(tmp_path / "tree") == before
    (tmp_path / "full" / "Brain_AD").mkdir(parents=True)
    (tmp_path / "full" / "Brain_AD" / "mine.txt").touch()
    assert cut(config, tmp_path / "full") == 2
    assert "holds other things" in capsys.readouterr().err


def test_a_config_of_other_data_is_refused(tmp_path, capsys):
    path = tmp_path / "folder.yaml"
    options = {"class_path": "anomalib_medclip.data.MedicalFolder", "init_args": {"root": "."}}
    path.write_text(yaml.safe_dump(options))
    assert cut(path, tmp_path / "tree") == 2
    assert "is not made of volumes" in capsys.readouterr().err
    assert cut(tmp_path / "none.yaml", tmp_path / "tree") == 2
    assert "no data config" in capsys.readouterr().err


def test_patients_without_a_split_are_shared_out_once_each(tmp_path):
    write_patients(tmp_path, count=10)
    source = VolumeSource("{patient}/flair.nii.gz", mask="{patient}/seg.nii.gz")
    cases = with_splits(find_cases(tmp_path, [source], None), (0.5, 0.2, 0.3), seed=0)
    splits = [case.split for case in cases]
    assert [splits.count(split) for split in ("train", "valid", "test")] == [5, 2, 3]
    other = with_splits(find_cases(tmp_path, [source], None), (0.5, 0.2, 0.3), seed=1)
    assert [case.split for case in other] != splits


def with_options(config, **options):
    plain = yaml.safe_load(config.read_text())
    plain["init_args"] |= options
    config.write_text(yaml.safe_dump(plain))
    return config


def test_a_patient_moved_to_another_split_is_not_left_in_the_former(config, tmp_path):
    cut(config, tmp_path / "tree")
    with_options(config, splits={**SPLITS, "P0": "test", "P4": "train"})
    assert cut(config, tmp_path / "tree") == 0
    tree = tmp_path / "tree" / "Brain_AD"
    assert {path.relative_to(tree).parts[0] for path in tree.rglob("P0_*.png")} == {"test"}
    cut(config, tmp_path / "anew")
    assert contents(tmp_path / "tree") == contents(tmp_path / "anew")


def test_other_labels_or_shares_are_other_options(config, tmp_path, capsys):
    cut(config, tmp_path / "tree")
    assert cut(config, tmp_path / "tree", "--shares", "0.2", "0.2", "0.6") == 2
    source = {"image": "{patient}/flair.nii.gz", "mask": "{patient}/seg.nii.gz"}
    with_options(config, sources=[{**source, "lesion_labels": [2]}])
    assert cut(config, tmp_path / "tree") == 2
    assert capsys.readouterr().err.count("was made with other options") == 2


def test_a_patient_may_have_several_volumes(config, tmp_path):
    root = tmp_path / "visits"
    for patient in "AB":
        for visit in "12":
            voxels, mask = volume(int(visit), (1,))
            save_nifti(root / patient / visit / "flair.nii.gz", voxels)
            save_nifti(root / patient / visit / "seg.nii.gz", mask)
    patterns = ("{patient}/{visit}/flair.nii.gz", "{patient}/{visit}/seg.nii.gz")
    source = dict(zip(("image", "mask"), patterns, strict=True))
    with_options(config, root=str(root), sources=[source], splits={"A": "train", "B": "test"})
    assert cut(config, tmp_path / "tree") == 0
    names = [path.name for path in (tmp_path / "tree/Brain_AD/train/Ungood/img").iterdir()]
    assert sorted(names) == ["A_1_001.png", "A_2_001.png"]


def test_a_missing_mask_is_named(config, tmp_path, caplog):
    (tmp_path / "hospital" / "P3" / "seg.nii.gz").unlink()
    assert cut(config, tmp_path / "tree") == 1
    assert "a missing mask is no healthy patient" in caplog.text


@pytest.mark.parametrize("shares", [("0", "0", "0"), ("-1", "1", "1")])
def test_shares_that_cannot_be_shared_by_are_refused(config, tmp_path, shares, capsys):
    assert cut(config, tmp_path / "tree", "--shares", *shares) == 2
    assert "give three numbers from 0" in capsys.readouterr().err


def test_a_patient_of_two_splits_is_refused(tmp_path):
    for split in ("train", "test"):
        write_patients(tmp_path / split, count=1)
    source = VolumeSource("{split}/{patient}/flair.nii.gz", healthy=True)
    with pytest.raises(DataRootError, match="move all volumes of a patient into one split"):
        with_splits(find_cases(tmp_path, [source], None), (0.5, 0.2, 0.3), seed=0)


def test_a_place_that_cannot_be_written_to_is_named(config, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert cut(config, tmp_path / "file") == 2
    assert str(tmp_path / "file") in capsys.readouterr().err
