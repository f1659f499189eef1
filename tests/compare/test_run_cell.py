"""A cell becomes a record, whatever happens in it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from comparing import (
    CFLOW,
    METHODS,
    MVFA,
    PATCHCORE,
    SMALL,
    cells_of,
    lesion_entry,
    phantom_entry,
)
from conftest import save_mask, save_picture
from PIL import Image
from sklearn.metrics import f1_score, recall_score
from tiny import write_lesions

from anomalib_medclip.compare.cell_setup import CellSettings
from anomalib_medclip.compare.comparison import build_model, find_class, options_of_size
from anomalib_medclip.compare.run_cell import attempt, died
from anomalib_medclip.compare.store import Store
from anomalib_medclip.components.processors import RankPreservingPostProcessor
from anomalib_medclip.data.bmad import BMAD_SETS
from anomalib_medclip.errors import ConfigError
from anomalib_medclip.evaluation.figures import AT_THRESHOLD, CHOSEN_ON_TEST, of_test_alone

HERE = CellSettings(accelerator="cpu")
AUROCS = ("image_AUROC", "pixel_AUROC")


def only(record):
    assert record.status == "done", record.error.traceback
    (test,) = record.tests
    return test


def total(figures):
    return sum(figures[name] for name in AUROCS)


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    return phantom_entry(tmp_path_factory.mktemp("heads"))


def records(compared):
    store = Store(compared[0])
    return [store.record(cell.key) for cell in store.grid().cells]


def test_the_oracle_is_never_below_the_honest_epoch(compared):
    found = [only(record) for record in records(compared)]
    gaps = [total(test.oracle) - total(test.honest) for test in found]
    assert min(gaps) == 0
    assert max(gaps) > 0, "some epoch but the last was the best"
    for test in found:
        by_epoch = {one["epoch"]: one for one in test.epochs}
        best = by_epoch[test.oracle_epoch]
        assert total(best) == max(map(total, test.epochs))
        assert {name: test.oracle[name] for name in AUROCS} == {n: best[n] for n in AUROCS}


def test_the_last_epoch_is_the_honest_one(compared):
    for record in records(compared):
        test, facts = only(record), record.facts
        assert [one["epoch"] for one in test.epochs] == list(range(1, facts.epochs + 1))
        last = test.epochs[-1]
        ranked = {k: v for k, v in test.honest.items() if not of_test_alone(k)}
        assert {k: v for k, v in last.items() if k not in CHOSEN_ON_TEST} == {
            "epoch": facts.epochs, **ranked,
        }  # fmt: skip
        assert set(CHOSEN_ON_TEST) <= set(last)


def test_figures_at_the_threshold_are_those_of_the_decisions(compared):
    for record in records(compared):
        test, images = only(record), only(record).images
        assert not set(CHOSEN_ON_TEST) & set(test.honest)
        assert set(CHOSEN_ON_TEST) <= set(test.oracle)
        assert not set(AT_THRESHOLD) & set(test.oracle)
        called, label = np.array(images.called) == 1, np.array(images.label) == 1
        assert np.array_equal(called, np.array(images.score) > 0.5)
        sensitivity = recall_score(label, called)
        assert test.honest["image_Sensitivity"] == pytest.approx(sensitivity)
        specificity = recall_score(~label, ~called)
        assert test.honest["image_Specificity"] == pytest.approx(specificity)
        assert test.honest["image_F1"] == pytest.approx(f1_score(label, called))


def test_patients_keep_their_identity_over_draws_and_move_the_figures(compared):
    known = {}
    for record in records(compared):
        test = only(record)
        names, images = test.patients.known_as, test.images
        assert test.patients.unknown == 0
        assert len(names) == len(set(names)) == 3
        for number, name in zip(images.patient, images.name, strict=True):
            # The folder of a phantom is its patient.
            folder = name.rsplit("_", 1)[0]
            assert known.setdefault(folder, names[number]) == names[number]
        for metric, plain in test.influence.items():
            assert plain.value == pytest.approx(test.honest[metric], abs=0.01)
            assert set(plain.patients) == set(names)
            assert np.sum(plain.parts) == pytest.approx(0, abs=1e-7)
        if record.cell.kind != "trivial":
            assert set(test.influence) == {"pixel_AUROC", "pixel_AP", "pixel_AUPRO"}


def test_a_model_without_a_threshold_calls_nothing(heads, tmp_path, monkeypatch):
    monkeypatch.setattr(
        RankPreservingPostProcessor, "image_threshold", torch.tensor(float("nan")), raising=False
    )
    (cell,) = cells_of(tmp_path / "c.yaml", {"PatchCore": {**PATCHCORE, "normals": ["support"]}},
                       {"heads": heads})  # fmt: skip
    test = only(attempt(cell, HERE)[0])
    assert test.images.called is None
    assert {test.honest[metric] for metric in AT_THRESHOLD} == {None}
    assert test.honest["image_AUROC"] is not None


def test_without_validation_images_a_record_says_what_the_threshold_learnt(lesions, tmp_path):
    models = {"PatchCore": {**PATCHCORE, "normals": ["support"]}}
    data = {"lesions": lesion_entry(lesions, val_ratio=0.0)}
    cells = cells_of(tmp_path / "c.yaml", models, data, trivial=True)
    said = {cell.model: attempt(cell, HERE)[0].facts.threshold_from for cell in cells}
    assert said == {
        "mean intensity": "support images",
        "image size": "support images",
        "PatchCore": "images it learnt from; expect it too low, and false alarms",
    }


def test_models_of_one_epoch_show_the_same_number_twice(compared):
    single = [record for record in records(compared) if record.facts.epochs == 1]
    assert {record.cell.model for record in single} == {
        "mean intensity", "image size", "PatchCore",
    }  # fmt: skip
    for record in single:
        ranked = only(record).oracle.items()
        assert {k: v for k, v in ranked if k not in CHOSEN_ON_TEST} == {
            k: v for k, v in only(record).honest.items() if k == "image_ECE" or not of_test_alone(k)
        }


def test_a_record_says_what_it_comes_from(compared):
    for record in records(compared):
        assert record.key == record.cell.key
        assert len(record.determined_by.data["heads"]) == 64
        assert record.facts.support["normal"]["images"] == 2
        normals = {"support": 2, "train": 6}[record.cell.normals]
        expected = 2 * normals if record.cell.kind == "method" else normals
        assert record.facts.trained_on == expected
        assert record.measured.seconds_per_image > 0
        assert record.measured.train_seconds > 0
    untrained = {r.cell.model for r in records(compared) if r.facts.untrained}
    assert untrained == {"MVFA", "PatchCore", "CFlow"}


def test_an_epoch_chosen_by_validation_is_the_honest_one(heads, tmp_path):
    """Validation likes an epoch, the test images another; the record tells them apart."""
    options = {**MVFA["init_args"], "epoch_choice": "validation", "lr": 0.02}
    model = {**MVFA, "init_args": options, "max_epochs": 4}
    heads = {**heads, "init_args": {**heads["init_args"], "patients": [3, 6, 3]}}
    (cell,) = cells_of(tmp_path / "c.yaml", {"MVFA": model}, {"heads": heads})
    record, _ = attempt(cell, HERE)
    test, facts = only(record), record.facts
    assert facts.epoch_choice == "validation"
    assert facts.epochs == 4
    assert facts.epoch < 4, "else this shows nothing"
    assert [one["epoch"] for one in test.epochs] == [1, 2, 3, 4]
    chosen = test.epochs[facts.epoch - 1]
    assert {n: chosen[n] for n in AUROCS} == {n: test.honest[n] for n in AUROCS}
    assert total(test.oracle) == max(map(total, test.epochs))


def test_without_a_record_of_epochs_nobody_knows_the_oracle(heads, tmp_path):
    model = {**MVFA, "record_every": 0}
    (cell,) = cells_of(tmp_path / "c.yaml", {"MVFA": model}, {"heads": heads})
    test = only(attempt(cell, HERE)[0])
    assert set(test.oracle.values()) == {None}
    assert test.oracle_epoch is None
    assert [one["epoch"] for one in test.epochs] == [2]


def test_one_training_is_tested_on_several_data(heads, lesions, tmp_path):
    data = {"heads": heads, "lesions": lesion_entry(lesions, val_ratio=0.7)}
    (cell,) = cells_of(
        tmp_path / "c.yaml", {"MVFA": MVFA}, data, tests={"heads": ["heads", "lesions"]}
    )
    record, arrays = attempt(cell, HERE)
    here, there = record.tests
    assert [here.data, there.data] == ["heads", "lesions"]
    assert [here.object_name, there.object_name] == ["head", "phantom"]
    assert len(here.images.score) == 12
    assert len(there.images.score) != 12
    assert [one["epoch"] for one in here.epochs] == [1, 2]
    assert [one["epoch"] for one in there.epochs] == [1, 2]
    assert there.epochs[0] != here.epochs[0]
    assert {"test0_maps", "test1_maps"} <= set(arrays)
    alone = cells_of(tmp_path / "d.yaml", {"MVFA": MVFA}, {"heads": heads})[0]
    assert only(attempt(alone, HERE)[0]).honest == here.honest


def test_lesions_lost_by_the_resize_of_a_model_are_counted(tmp_path):
    write_lesions(tmp_path / "lesions")
    for path in (tmp_path / "lesions" / "masks").rglob("*.png"):
        mask = np.array(Image.open(path))
        mask[4, 1] = 255  # a second lesion, in a row that 32 pixels a side do not show
        Image.fromarray(mask).save(path)
    data = {"lesions": lesion_entry(tmp_path / "lesions")}
    plan = cells_of(tmp_path / "c.yaml", {}, data, trivial=True)
    at = {cell.model: only(attempt(cell, HERE)[0]).lesions for cell in plan}
    large, small = at["mean intensity"], at["image size"]
    assert large.size == (240, 240)
    assert (large.lesions_lost, large.images_lost) == (0, 0)
    assert small.size == (32, 32)
    assert small.lesions == 2 * small.images == large.lesions > 0
    assert (small.lesions_lost, small.images_lost) == (small.images, 0)


def test_zero_shot_data_need_no_k(bmad_tree, tmp_path):
    for category in BMAD_SETS:
        bmad_tree(category, tmp_path / "BMAD", count=2)
    options = {"root": str(tmp_path / "BMAD"), "category": "Brain", "num_workers": 0}
    entry = {"class_path": "anomalib_medclip.data.BMADLeaveOneOut", "init_args": options}
    model = {**MVFA, "max_epochs": 1, "init_args": {**MVFA["init_args"], "few_shot": False}}
    (cell,) = cells_of(tmp_path / "c.yaml", {"MVFA": model}, {"brain": entry})
    record, _ = attempt(cell, HERE)
    assert only(record).has_masks
    assert record.facts.zero_shot
    assert record.facts.support == {}


@pytest.fixture
def normals_outside_the_test(tmp_path):
    """Pictures of which only those for test are abnormal."""
    rows = ["image,label,mask,split"]
    for split, label in (("train", 0), ("train", 0), ("train", 0), ("test", 0), ("test", 1)):
        name = f"{len(rows)}.png"
        save_picture(tmp_path / name, len(rows))
        mask = f"m{name}" if label else ""
        if label:
            save_mask(tmp_path / mask)
        rows.append(f"{name},{label},{mask},{split}")
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    columns = {"split_column": "split", "patient_column": None}
    return lesion_entry(tmp_path, **columns)


def test_normal_images_alone_are_not_enough_for_all(normals_outside_the_test, tmp_path):
    models = {"MVFA": MVFA, "PatchCore": {**PATCHCORE, "normals": ["support"]}}
    models["MediCLIP"] = METHODS["MediCLIP"]
    cells = cells_of(tmp_path / "c.yaml", models, {"normals": normals_outside_the_test})
    found = {cell.model: attempt(cell, HERE)[0] for cell in cells}
    assert found["MVFA"].status == "failed"
    assert found["MVFA"].error.type == "SupportError"
    assert "use a method that learns from normal images" in found["MVFA"].error.message
    assert found["PatchCore"].status == found["MediCLIP"].status == "done"
    assert only(found["PatchCore"]).honest["image_AUROC"] in (0.0, 0.5, 1.0)


def test_what_a_cell_raises_is_its_record(heads, tmp_path, capfd):
    model = {**MVFA, "class_path": "unlucky.Raises"}
    (cell,) = cells_of(tmp_path / "c.yaml", {"Mine": model}, {"heads": heads})
    record, arrays = attempt(cell, HERE)
    error = record.error
    assert (record.status, record.key, arrays) == ("failed", cell.key, {})
    assert (error.type, error.message) == ("RuntimeError", "no <b>luck</b>, again")
    assert "in training_step" in error.traceback
    assert "its last words" in error.log
    assert len(error.log) <= 4000
    assert record.measured.seconds > 0
    assert "its last words" not in "".join(capfd.readouterr())
    json.dumps(record.as_plain())


RESNET = {"backbone": "resnet18", "pre_trained": False}
SIZED = {
    "Fastflow": {**RESNET, "flow_steps": 1},
    "Ganomaly": {"batch_size": 2, "n_features": 8, "latent_vec_size": 8},
    "ReverseDistillation": RESNET,
    "Padim": RESNET,
}


@pytest.mark.daily_for(name="Ganomaly")
@pytest.mark.parametrize("name", SIZED)
def test_a_model_is_built_for_the_size_of_its_images(name, heads, tmp_path):
    """Flows, autoencoders and decoders have it in their weights or maps."""
    model = {"class_path": f"anomalib.models.{name}", "init_args": SIZED[name]}
    model |= {"image_size": 64, "max_epochs": 1, "normals": ["support"]}
    heads = {**heads, "init_args": {**heads["init_args"], "train_batch_size": 2}}
    (cell,) = cells_of(tmp_path / "c.yaml", {name: model}, {"heads": heads})
    test = only(attempt(cell, HERE)[0])
    assert 0 <= test.honest["image_AUROC"] <= 1
    assert (test.honest["pixel_AUROC"] is None) == (name == "Ganomaly")
    built = build_model({k: model[k] for k in ("class_path", "init_args")}, 64).eval()
    assert built.input_size == (64, 64)
    if name in ("Fastflow", "ReverseDistillation"):
        with torch.no_grad():
            assert built.model(torch.rand(2, 3, 64, 64)).anomaly_map.shape == (2, 1, 64, 64)


@pytest.mark.parametrize("name", ["Dinomaly", "InpFormer", "Rad", "Glass"])
def test_nothing_is_cropped_from_an_image_of_a_given_size(name):
    """By default, these crop to 392 and 448 pixels; Glass has to be told the size twice."""
    options = options_of_size(find_class({"class_path": f"anomalib.models.{name}"}), 56)
    ramp = torch.linspace(0, 1, 56).expand(1, 3, 56, 56)
    seen = options["pre_processor"].transform(ramp)
    assert seen.shape == ramp.shape
    assert (seen[0, 0, 0, -1] - seen[0, 0, 0, 0]) * 0.229 == pytest.approx(1, abs=1e-5)
    assert options.get("input_shape") == ((56, 56) if name == "Glass" else None)


@pytest.mark.parametrize(("name", "side"), [("Uflow", 448), ("WinClip", 240), ("MHPatchcore", 224)])
def test_a_size_that_a_model_does_not_have_is_refused(name, side):
    model = {"class_path": f"anomalib.models.{name}", "init_args": {}}
    words = f"image_size is 256, and .* has images in {side} x {side}, .*; leave image_size out, or"
    with pytest.raises(ConfigError, match=words):
        build_model(model, 256)
    ramp = torch.linspace(0, 1, 300).expand(1, 3, 300, 300)
    own = options_of_size(find_class(model), side)["pre_processor"].transform(ramp)
    assert own.shape[-2:] == (side, side)
    assert own[0, 0, 0, -1] - own[0, 0, 0, 0] > 0.98 / 0.27  # the whole image


def test_a_method_takes_the_size_as_its_option():
    built = build_model({"class_path": "anomalib_medclip.MVFA", "init_args": SMALL}, 48)
    assert built.hparams["image_size"] == 48
    assert built.input_size == (48, 48)


def test_what_a_constructor_says_is_wrong_is_the_record(heads, tmp_path):
    model = {"class_path": "anomalib.models.Fuvas", "init_args": RESNET}
    (cell, *_) = cells_of(tmp_path / "c.yaml", {"wrong": model}, {"heads": heads})
    assert attempt(cell, HERE)[0].error.message.startswith("Backbone 'resnet18' is not supp")


def test_a_model_of_unknown_length_is_asked_for_epochs(heads, tmp_path):
    model = {k: v for k, v in CFLOW.items() if k != "max_epochs"}
    (cell, *_) = cells_of(tmp_path / "c.yaml", {"CFlow": model}, {"heads": heads})
    error = attempt(cell, HERE)[0].error
    assert error.type == "ConfigError"
    assert error.message == "CFlow has no number of epochs of its own; give it max_epochs"


def test_a_cell_leaves_nothing_where_it_runs(heads, tmp_path, monkeypatch, capfd):
    (tmp_path / "empty").mkdir()
    (cell,) = cells_of(tmp_path / "c.yaml", {"MVFA": MVFA}, {"heads": heads})
    monkeypatch.chdir(tmp_path / "empty")
    capfd.readouterr()
    only(attempt(cell, HERE)[0])
    assert list(Path.cwd().iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_the_record_of_a_death_is_one_of_a_failure(heads, tmp_path):
    (cell,) = cells_of(tmp_path / "c.yaml", {"MVFA": MVFA}, {"heads": heads})
    record = died(cell, "a process ended with code -9")
    assert (record.status, record.key) == ("failed", cell.key)
    assert record.error.type == "ProcessDied"
    assert "code -9; was there enough memory?" in record.error.message
