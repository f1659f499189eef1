"""What validation finds to decide by, beside an independent reading of the very same scores."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from anomalib.data import Folder
from anomalib.models import Patchcore
from anomalib.post_processing import PostProcessor
from cohort import cohort_data, fit, patients, write_cohort
from lightning.pytorch.callbacks import EarlyStopping
from sklearn.metrics import roc_auc_score
from tiny import CASES
from volumes import save_nifti, volume

from anomalib_medclip import Inferencer
from anomalib_medclip.components.processors import placed
from anomalib_medclip.data import Volumes, VolumeSource
from anomalib_medclip.decisions.decisions import Asked
from anomalib_medclip.decisions.thresholds import Rule
from anomalib_medclip.models.mediclip import MediCLIP
from anomalib_medclip.models.mvfa import MVFA
from anomalib_medclip.training.cross_fit import CrossFit
from anomalib_medclip.training.deciding import Deciding, ScoredImage, _rows, _units
from anomalib_medclip.training.epoch_choice import BestEpoch


def small(method=MVFA, **options):
    return next(one for one in CASES if one.method is method).small(**options)


def by_hand(run, unit, scores=None, mean_of=3):
    """Scores of normal and of abnormal patients, by pandas: a unit is what a function calls it."""
    table = run.data.val_data.samples.set_index("image_path")
    raw = pd.Series(run.raw[-1] if scores is None else scores)
    table = table.loc[raw.index]
    found = placed(run.model.post_processor, torch.tensor(raw.to_numpy()))
    rows = pd.DataFrame({"score": found.numpy(), "ill": table["label_index"] == 1})
    rows["patient"] = [
        group or path for path, group in zip(rows.index, table["group"], strict=True)
    ]
    rows["unit"] = [unit(path, row) for path, row in table.iterrows()]
    units = rows.groupby("unit").agg(
        score=("score", lambda one: np.sort(one)[-mean_of:].mean()),
        ill=("ill", "any"), patient=("patient", "first"),
    )  # fmt: skip
    sick = units.groupby("patient")["ill"].transform("any")
    units = units[units["ill"] | ~sick]  # what is normal of an abnormal patient is nobody's
    of_patient = units.groupby(["ill", "patient"])["score"].agg(["min", "max"])
    normal, abnormal = (
        of_patient[of_patient.index.get_level_values("ill") == ill] for ill in (False, True)
    )
    return sorted(normal["max"]), sorted(abnormal["min"])


OF = {
    "image": lambda path, row: path,
    "volume": lambda path, row: row["volume"],
    "patient": lambda path, row: row["group"] or path,
}


def assert_read_alike(run, levels, **how):
    assert set(run.model.decisions.references) == set(levels)
    for level in levels:
        found, expected = run.model.decisions.references[level], by_hand(run, OF[level], **how)
        assert found.normal == pytest.approx(expected[0], abs=1e-12), level
        assert found.abnormal == pytest.approx(expected[1], abs=1e-12), level


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """A training whose validation has 7 normal and 6 abnormal patients, one of each unknown."""
    rows = [
        *patients("support", 2, 2),
        *patients("valid", 6, 5, images=(2, 1, 4), unknown=(0, 1)),
        *patients("test", 1, 1),
    ]
    home = tmp_path_factory.mktemp("few")
    return fit(small(), cohort_data(write_cohort(home, rows)), home)


def test_images_and_patients_are_those_of_an_independent_reading(few):
    assert_read_alike(few, ["image", "patient"])
    found = few.model.decisions
    assert len(found.references["patient"].normal) == 7
    assert len(found.references["patient"].abnormal) == 6
    assert not found.references["image"].one_each
    assert found.references["patient"].one_each
    assert found.aggregation.words == "the mean of the 3 worst images"
    assert "fixed, since validation has 7 normal and 6 abnormal patients" in found.aggregated
    assert found.source == few.model.threshold_from == "validation"
    assert not any(one.is_approximate for one in found.references.values())


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """One whose validation has 42 normal and 22 abnormal patients, most with two images."""
    rows = [
        *patients("support", 2, 2),
        *patients("valid", 42, 22, images=(2, 1, 2)),
        *patients("test", 1, 1),
    ]
    home = tmp_path_factory.mktemp("many")
    return fit(small(), cohort_data(write_cohort(home, rows)), home)


def test_normal_patients_who_choose_the_aggregation_are_no_reference(many):
    found = many.model.decisions
    kind = found.aggregation.kind
    normal, abnormal = by_hand(many, OF["patient"], mean_of={"worst": 1}.get(kind, 3))
    assert kind != "area", "of which nothing is recomputed here"
    apart = found.references["patient"]
    assert apart.abnormal == pytest.approx(abnormal)
    kept = [score for score in normal if np.isclose(score, apart.normal, atol=1e-12).any()]
    assert len(kept) == len(apart.normal) == len(normal) // 2 == 21
    asked = sorted(set(normal) - set(kept))
    truth = [0] * len(asked) + [1] * len(abnormal)
    auroc = roc_auc_score(truth, [*asked, *abnormal])
    assert f"{found.aggregation.words} {auroc:.3f}" in found.aggregated
    assert "chosen on 43 patients of validation" in found.aggregated
    of_images = found.references["image"]
    assert len(of_images.normal) == 21


def test_a_probability_is_that_of_all_patients(many):
    found = many.model.decisions
    curve = found.calibrations["patient"]
    assert (curve.kind, curve.patients) == ("sigmoid", 64)
    assert curve.prevalence == pytest.approx(22 / 64)
    assert "several images" in found.no_probability["image"]


@pytest.fixture(scope="module")
def of_volumes(tmp_path_factory):
    """One on volumes of which every third patient has two."""
    home = tmp_path_factory.mktemp("volumes")
    for number in range(16):
        kind = ("well", "ill")[number % 2]
        for scan in range(1 + (number % 3 == 0)):
            voxels, mask = volume(number * 2 + scan, (1, 3) if kind == "ill" else ())
            save_nifti(home / "in" / kind / f"P{number}" / f"{scan}_ct.nii.gz", voxels)
            if kind == "ill":
                save_nifti(home / "in" / kind / f"P{number}" / f"{scan}_seg.nii.gz", mask)
    data = Volumes(
        home / "in",
        [
            VolumeSource("well/{patient}/{scan}_ct.nii.gz", healthy=True),
            VolumeSource("ill/{patient}/{scan}_ct.nii.gz", "ill/{patient}/{scan}_seg.nii.gz"),
        ],
        k_shot=2, val_ratio=0.6, intensity=[0, 1000], train_batch_size=4,
    )  # fmt: skip
    return fit(small(), data, home)


def test_volumes_of_a_patient_count_as_one_by_the_hardest(of_volumes):
    assert_read_alike(of_volumes, ["image", "volume", "patient"])
    table = of_volumes.data.val_data.samples
    assert table["volume"].nunique() > table["group"].nunique()
    references = of_volumes.model.decisions.references
    assert references["volume"].images == (6, 6)
    assert not references["volume"].one_each
    assert len(references["volume"].normal) == len(references["patient"].normal)


def without_splits(root):
    """The same pictures, without a word on who is in which split."""
    table = pd.read_csv(root / "table.csv", dtype=str, keep_default_na=False)
    table.drop(columns="split").to_csv(root / "table.csv", index=False)
    return root


@pytest.fixture(scope="module")
def on_support(tmp_path_factory):
    """Pictures that leave none for validation; patients of the support have others, too."""
    home = tmp_path_factory.mktemp("support")
    rows = patients("", 5, 5, images=(3,))
    return without_splits(write_cohort(home, rows))


def only_support(root):
    return cohort_data(root, split_column=None, k_shot=3, val_ratio=0.01)


def test_patients_of_the_support_are_read_whole_where_they_are_cross_fitted(on_support, tmp_path):
    run = fit(small(cross_fit=True), only_support(on_support), tmp_path)
    held_out = CrossFit.of(run.trainer).held_out
    scores = {path: one["pred_score"].item() for path, one in held_out.items()}
    assert len(scores) == 18 > len(run.data.support_data)
    run.data.val_data = SimpleNamespace(samples=run.data.list_images())
    assert_read_alike(run, ["image", "patient"], scores=scores)
    found = run.model.decisions
    assert len(found.references["patient"].normal) == 3
    assert all(one.is_approximate for one in found.references.values())
    verdict = found.verdict("patient", [0.9, 0.9, 0.9])
    assert verdict.p.is_approximate
    assert verdict.p.smallest == 1 / 4
    assert "approximate" in verdict.threshold.words
    assert "not seen its patient" in found.source


def test_images_that_were_learnt_from_are_no_reference(on_support, tmp_path):
    run = fit(small(cross_fit=False), only_support(on_support), tmp_path)
    found = run.model.decisions
    assert not found.references
    assert found.source == run.model.threshold_from
    verdict = found.verdict("patient", [0.9, 0.8])
    assert (verdict.label, verdict.p, verdict.probability) == (None, None, None)
    assert "images it learnt from" in verdict.no_label
    assert found.verdict("image", [0.9]).label is True
    assert found.verdict("patient", [0.9, 0.8], asked=Asked(insist=True)).label is True


def test_normal_images_alone_give_p_values_and_false_alarms(tmp_path):
    rows = [*patients("train", 3), *patients("valid", 21, images=(2,)), *patients("test", 1)]
    data = cohort_data(write_cohort(tmp_path, rows), normal_only=True, mask_column=None, k_shot=3)
    found = fit(small(MediCLIP), data, tmp_path).model.decisions
    assert "all normal" in found.source
    assert [len(found.references[level].normal) for level in ("image", "patient")] == [21, 21]
    top = max(found.references["patient"].normal)
    below, above = (found.verdict("patient", [score] * 3) for score in (top - 1e-3, top + 1e-3))
    assert (below.p.value, above.p.value) == (2 / 22, 1 / 22)
    assert above.label is None
    assert "too few patients: the model knows 21 normal and 0 abnormal" in above.no_label
    assert "the largest F1 needs some of both" in above.no_label
    assert "normal images alone" in above.no_probability
    asked = Asked(Rule("false_alarms", 0.05))
    assert found.verdict("patient", [top + 1e-3] * 3, asked=asked).label is True


def test_the_epoch_that_validation_chose_is_the_one_that_decides(tmp_path):
    rows = [*patients("support", 2, 2), *patients("valid", 5, 5), *patients("test", 1, 1)]
    data = cohort_data(write_cohort(tmp_path, rows, seed=4))
    run = fit(small(epoch_choice="validation"), data, tmp_path, epochs=4)
    [chooser] = [one for one in run.trainer.callbacks if isinstance(one, BestEpoch)]
    assert chooser.kept < len(run.raw) == 4, "a case in which the last epoch is not the best"
    assert_read_alike(run, ["image", "patient"], scores=run.raw[chooser.kept - 1])
    assert run.model.decisions.references["patient"].is_approximate


def test_validation_that_ends_a_training_is_not_quite_new_to_it(tmp_path):
    rows = [*patients("support", 2, 2), *patients("valid", 3, 3), *patients("test", 1, 1)]
    data = cohort_data(write_cohort(tmp_path, rows))
    stops = EarlyStopping("val_image_AUROC", mode="max", patience=1)
    run = fit(small(), data, tmp_path, stops)
    assert run.model.decisions.references["patient"].is_approximate


def test_decisions_come_back_with_a_checkpoint(few):
    path = few.file
    found = few.model.decisions
    assert MVFA.load_from_checkpoint(path).decisions == found
    assert Inferencer(path).decisions == found
    assert found.from_plain(json.loads(json.dumps(found.as_plain()))) == found


def patchcore(**options):
    return Patchcore(
        backbone="resnet18", layers=["layer1"], pre_trained=False, coreset_sampling_ratio=0.1,
        pre_processor=Patchcore.configure_pre_processor((64, 64)), visualizer=False, **options,
    )  # fmt: skip


@pytest.mark.parametrize("post_processor", [True, PostProcessor(enable_normalization=False)])
def test_any_model_of_anomalib_can_be_given_decisions(post_processor, few, tmp_path):
    data = cohort_data(Path(few.data.root))
    model = patchcore(post_processor=post_processor)
    assert_read_alike(fit(model, data, tmp_path, Deciding(), epochs=1), ["image", "patient"])
    found = model.decisions.references["patient"]
    assert (len(found.normal), len(found.abnormal)) == (7, 6)
    assert not found.is_approximate
    assert "normal images alone" in model.decisions.no_probability["patient"]


def test_test_images_are_no_reference(few, tmp_path):
    images = Path(few.data.root) / "images"
    table = pd.read_csv(images.parent / "table.csv")
    for label, word in enumerate(("normal", "abnormal")):
        for name in table[table["label"] == label]["image"].head(6):
            target = tmp_path / "in" / word / Path(name).name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((images.parent / name).read_bytes())
    data = Folder(
        "phantom", root=tmp_path / "in", normal_dir="normal", abnormal_dir="abnormal",
        num_workers=0, val_split_mode="same_as_test",
    )  # fmt: skip
    model = patchcore()
    fit(model, data, tmp_path, Deciding(), epochs=1)
    assert not model.decisions.references
    assert "test images" in model.decisions.verdict("volume", [0.9, 0.9]).no_label


def test_a_patient_whose_lesion_no_slice_shows_is_no_normal_one(of_volumes, tmp_path):
    """His lesions are smaller than what counts: he is neither normal nor abnormal."""
    data, samples = of_volumes.data, of_volumes.data.val_data.samples
    ill = samples[samples["of_ill"]]["group"]
    assert set(ill) == set(samples[samples["label_index"] == 1]["group"])
    references = of_volumes.model.decisions.references
    rows = samples.assign(label_index=0)  # as if all lesions were too small
    images = [ScoredImage(path, 0.5, None) for path in rows["image_path"]]
    made = _rows(images, rows, of_volumes.model.post_processor)
    normal = {one.owner for one in _units(made, "owner")}
    assert normal == set(samples["group"]) - set(ill)
    assert len(references["patient"].normal) == len(normal)
    assert data.has_masks
