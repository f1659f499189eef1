"""A result stands under the key of what it came from, or it is no result."""

import re
import shutil

import pytest
from comparing import MVFA, PLAIN, SMALL, compare, figures, lesion_entry, records, write_config
from conftest import save_picture

from anomalib_medclip.compare import run_cell as cell_module
from anomalib_medclip.compare.cell_setup import CellSettings
from anomalib_medclip.compare.comparison import read_config
from anomalib_medclip.compare.grid import plan_cells
from anomalib_medclip.compare.named_files import named_files
from anomalib_medclip.compare.run_cell import attempt
from anomalib_medclip.compare.store import Store
from anomalib_medclip.data import fingerprint


@pytest.fixture
def home(lesions, tmp_path):
    """A copy of the pictures, to be changed."""
    shutil.copytree(lesions, tmp_path / "lesions")
    return tmp_path


def planned(home, model=PLAIN, **options):
    """The one cell of a comparison, and how it is run."""
    data, known = {"phantom": lesion_entry(home / "lesions", **options)}, {}
    config = read_config(write_config(home / "c.yaml", {"Mine": model}, data))
    (cell,) = plan_cells(config, known=known)
    return cell, CellSettings(accelerator="cpu", known=known)


# --- what changes while a comparison runs


def other_image(folder):
    return save_picture(folder / "images/normal/4.png", 99, size=(40, 48))


def other_mask(folder):
    return shutil.copy(folder / "masks/abnormal/3.png", folder / "masks/abnormal/5.png")


def image_gone(folder):
    (folder / "images/abnormal/5.png").unlink()
    return folder / "images/abnormal/5.png"


def other_table(folder):
    table = folder / "table.csv"
    table.write_text(table.read_text().replace("normal/4.png,0,,p1", "normal/4.png,0,,p9"))
    return table


CHANGES = (other_image, other_mask, image_gone, other_table)


def refused(record, path):
    error = record.error
    assert (record.status, error.type) == ("failed", "DataChangedError")
    said = rf".*{re.escape(str(path))}.* has changed since the comparison was planned; leave"
    assert re.match(said, error.message)


@pytest.mark.parametrize("change", CHANGES, ids=lambda one: one.__name__)
def test_what_has_changed_since_planning_is_no_result(change, home):
    cell, settings = planned(home)
    changed = change(home / "lesions")
    refused(attempt(cell, settings)[0], changed)


@pytest.mark.parametrize("change", CHANGES, ids=lambda one: one.__name__)
def test_what_changes_under_a_running_cell_is_no_result(change, home, monkeypatch):
    cell, settings = planned(home)
    real, changed = cell_module.evaluate, []

    def late(*arguments):
        found = real(*arguments)
        changed.append(change(home / "lesions"))
        return found

    monkeypatch.setattr(cell_module, "evaluate", late)
    record, arrays = attempt(cell, settings)
    refused(record, changed[0])
    assert arrays == {}


def test_weights_that_have_changed_are_no_result(home, monkeypatch):
    weights = home / "weights.bin"
    weights.write_bytes(b"one")
    monkeypatch.setenv("ANOMALIB_MEDCLIP_WEIGHTS", str(weights))
    cell, settings = planned(home)
    weights.write_bytes(b"two")
    refused(attempt(cell, settings)[0], "ANOMALIB_MEDCLIP_WEIGHTS")


def test_what_planning_has_read_is_not_read_again(home, monkeypatch):
    monkeypatch.setattr(fingerprint, "_SETTLED", 0)
    cell, settings = planned(home)
    monkeypatch.setattr(fingerprint, "sha256", None)
    record, _ = attempt(cell, settings)
    assert record.status == "done", record.error.traceback


def test_a_cell_of_its_own_reads_what_it_has_to_know(home):
    cell, _ = planned(home)
    assert attempt(cell, CellSettings(accelerator="cpu"))[0].status == "done"
    other_image(home / "lesions")
    error = attempt(cell, CellSettings(accelerator="cpu"))[0].error
    assert "the list of images or labels has changed" in error.message


# --- run, correct, run again


def write_table(folder, wrong):
    """A table of pictures without masks, of which some have a wrong label: as many of each."""
    lines = ["image,label"]
    for path in sorted(folder.rglob("1.png")):
        number = int(path.parents[1].name)
        label = number % 2 != (number in wrong)
        lines.append(f"{path.relative_to(folder)},{int(label)}")
    (folder / "table.csv").write_text("\n".join(lines))


@pytest.fixture
def patients(lesions, tmp_path):
    """A folder a patient, in which all pictures are called alike."""
    for path in (lesions / "images").rglob("*.png"):
        (tmp_path / "set" / path.stem / "scan").mkdir(parents=True)
        shutil.copy(path, tmp_path / "set" / path.stem / "scan" / "1.png")
    return tmp_path / "set"


def test_corrected_labels_give_what_a_fresh_folder_gives(patients, tmp_path):
    entry = lesion_entry(patients, mask_column=None, patient_column=None)
    models = {"MVFA": {**MVFA, "max_epochs": 1}}
    config = write_config(tmp_path / "c.yaml", models, {"set": entry})
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    write_table(patients, wrong=range(12))
    assert compare(config, out) == 0
    before, old = figures(out), records(out)
    write_table(patients, wrong=())
    assert compare(config, out) == 0
    assert compare(config, fresh) == 0
    assert figures(out) == figures(fresh)
    assert figures(out) != before
    keys = {cell.key for cell in Store(out).grid().cells}
    assert not keys & set(old)
    assert {key: records(out)[key] for key in keys} == records(fresh)


def test_nothing_of_a_changed_image_is_taken_from_shared_features(home):
    """The shelf of features is named by what the images are, not by their paths."""
    cell, settings = planned(home, {**MVFA, "max_epochs": 1, "init_args": SMALL})
    features = settings._replace(features=home / "features")
    assert attempt(cell, features)[0].measured.features_from_cache == 0
    assert attempt(cell, features)[0].measured.features_from_cache > 0
    other_image(home / "lesions")
    cell, settings = planned(home, {**MVFA, "max_epochs": 1, "init_args": SMALL})
    features = settings._replace(features=home / "features")
    assert attempt(cell, features)[0].measured.features_from_cache == 0


def test_a_name_is_no_folder_that_happens_to_be_called_so(home, monkeypatch):
    """A file that another option names is hashed all the same."""
    monkeypatch.chdir(home)
    options = {"object_name": "brain", "more": {"prompt_name": "brain", "words": "words.txt"}}
    (home / "words.txt").write_text("a scan")
    model = {"class_path": "anomalib_medclip.MVFA", "init_args": options}

    def named():
        return named_files(model, [{"init_args": options}], {})

    before = named()
    assert list(before) == ["words.txt"]
    (home / "brain").mkdir()
    (home / "brain" / "one.txt").write_text("of something else")
    assert named() == before
    (home / "words.txt").write_text("an image")
    assert named() != before
