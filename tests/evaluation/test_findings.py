"""A training's figures are a comparison's, of the same patients, whatever evaluator there is."""

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from anomalib.data import ImageBatch
from anomalib.engine import Engine
from anomalib.metrics import AUROC, Evaluator
from anomalib.post_processing import PostProcessor
from comparing import SMALL
from lightning import LightningModule, Trainer
from sklearn.metrics import f1_score, recall_score, roc_auc_score
from torch.nn.functional import softsign
from torch.utils.data import DataLoader, Dataset
from volumes import save_nifti, volume, write_patients

from anomalib_medclip.compare.evaluator import GalleryFindings
from anomalib_medclip.components.processors import RankPreservingPostProcessor
from anomalib_medclip.data import Volumes, VolumeSource
from anomalib_medclip.decisions.decisions import Decisions
from anomalib_medclip.decisions.reference import Reference
from anomalib_medclip.decisions.thresholds import Rule
from anomalib_medclip.evaluation.findings import Findings
from anomalib_medclip.models.mvfa import MVFA


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("hospital")


@pytest.fixture(scope="module")
def data(home):
    """Three volumes to test, of patients of whom some slices are abnormal."""
    write_patients(home / "hospital", count=7)
    source = VolumeSource("{patient}/flair.nii.gz", mask="{patient}/seg.nii.gz")
    splits = {f"P{n}": ("train", "train", "valid", "valid", "test")[min(n, 4)] for n in range(7)}
    return Volumes(
        home / "hospital", [source], intensity=(0.0, 1000.0), k_shot=2, splits=splits, num_workers=0
    )


def engine_in(folder):
    return Engine(
        default_root_dir=folder, accelerator="cpu", max_epochs=1, logger=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(home, data):
    """A model that was trained and tested, and the folder of its run."""
    model, engine = MVFA(**SMALL), engine_in(home)
    model.visualizer = None
    engine.fit(model, datamodule=data)
    engine.test(model, datamodule=data, verbose=False)
    return model, Path(engine.trainer.default_root_dir)


@pytest.fixture(scope="module")
def clinic(home):
    """Five normal and five abnormal volumes to test, three of each to validate on."""
    for number in range(20):
        voxels, mask = volume(number, (1, 3) if number % 2 else ())
        save_nifti(home / "clinic" / f"P{number:02}" / "ct.nii.gz", voxels)
        save_nifti(home / "clinic" / f"P{number:02}" / "seg.nii.gz", mask)
    source = VolumeSource("{patient}/ct.nii.gz", mask="{patient}/seg.nii.gz")
    splits = {f"P{n:02}": "train" if n < 4 else "valid" if n < 10 else "test" for n in range(20)}
    return Volumes(
        home / "clinic", [source], intensity=(0.0, 1000.0), k_shot=2, splits=splits, num_workers=0
    )


def test_of_enough_patients_figures_follow_from_the_scores_of_their_slices(clinic, home):
    model, engine = MVFA(**SMALL), engine_in(home)
    model.visualizer = None
    engine.fit(model, datamodule=clinic)
    engine.test(model, datamodule=clinic, verbose=False)
    folder = Path(engine.trainer.default_root_dir)
    table = pd.read_csv(folder / "test_scores.csv")
    own = model.post_processor
    raw = torch.tensor(table["raw_score"].to_numpy(), dtype=torch.float64)
    spread, centre = own.image_max.double() - own.image_min, own.image_threshold.double()
    table["score"] = (0.5 + 0.5 * softsign(4 * (raw - centre) / spread)).numpy()
    volumes = table.groupby(table["image"].map(lambda path: Path(path).parent))
    scores = volumes["score"].apply(lambda of: of.nlargest(3).mean())
    labels = volumes["gt_label"].max()
    record, threshold = said(folder), model.decisions.threshold("patient").value
    assert threshold is not None
    for level in ("patient", "volume"):  # of one volume each
        assert record["threshold"][level]["value"] == threshold
        expected = {
            "AUROC": roc_auc_score(labels, scores),
            "Sensitivity": (scores > threshold)[labels == 1].mean(),
            "Specificity": (scores <= threshold)[labels == 0].mean(),
        }
        for name, value in expected.items():
            one = record["figures"][f"{level}_{name}"]
            assert one["value"] == pytest.approx(value, abs=1e-9)
            assert one["low"] <= value <= one["high"]
            assert one["words"] == ""
    assert record["test"]["aggregated"] == "the mean of the 3 worst images, " + (
        model.decisions.aggregated
    )
    assert record["threshold"]["of_patients_from"] == "validation"


def said(folder, name="run.json"):
    return json.loads((folder / name).read_text(), parse_constant=pytest.fail)


def run_with(evaluator, trained, data, folder, **options):
    """The run of a test of the trained model with another evaluator."""
    model, engine = copy.copy(trained[0]), engine_in(folder)
    model._modules = {**trained[0]._modules, "evaluator": evaluator}
    engine.test(model, datamodule=data, verbose=False, **options)
    return Path(engine.trainer.default_root_dir)


def test_a_trainings_figures_are_those_of_a_comparison(trained, data, tmp_path):
    metrics = said(trained[1], "test_metrics.json")
    findings = GalleryFindings()
    run_with(findings, trained, data, tmp_path)
    found = findings.result
    assert len(found.honest) > 15
    for name, value in found.honest.items():
        assert metrics[name] == (value if value is None else pytest.approx(value, abs=1e-12)), name
    levels = said(trained[1])["test"]["levels"]
    assert levels.keys() == found.levels.keys() == {"image", "volume", "patient"}
    assert [levels["volume"][word]["units"] for word in ("normal", "abnormal")] == [0, 3]


def test_of_three_patients_a_run_says_that_they_are_too_few(trained):
    figures = said(trained[1])["figures"]
    for level in ("patient", "volume"):
        one = figures[f"{level}_AUROC"]
        assert one["value"] is one["low"] is None
        assert one["words"].startswith("too few patients: 0 normal and 3 abnormal")
    metrics = said(trained[1], "test_metrics.json")
    for name in ("image_AUROC", "image_F1", "image_F1Score", "pixel_AUROC", "pixel_F1Score"):
        assert figures[name]["low"] is None
        assert figures[name]["words"].startswith("too few patients"), name
        assert figures[name]["value"] == metrics[name]
        assert metrics[name] not in (0, 1), name
    assert trained[0].evaluator.result.figures["image_AUROC"] == 1.0
    assert metrics["image_AUROC"] is None
    assert 0 < metrics["pixel_AUROC"] < 1


def test_a_users_own_evaluator_stands_beside_the_figures_of_patients(trained, data, tmp_path):
    own = AUROC(fields=["pred_score", "gt_label"], prefix="my_")
    folder = run_with(Evaluator(test_metrics=[own]), trained, data, tmp_path)
    record, expected = said(folder), said(trained[1])
    assert record["other_figures"].keys() == {"my_AUROC"}
    ours = {name: one for name, one in expected["figures"].items() if "F1Score" not in name}
    assert record["figures"].keys() == ours.keys()
    for name, one in ours.items():
        assert record["figures"][name] == pytest.approx(one), name
    metrics = said(folder, "test_metrics.json")
    assert metrics["my_AUROC"] == 1.0  # theirs is their own affair
    assert metrics["image_AUROC"] is None


def test_without_an_evaluator_there_are_scores_and_no_figures(trained, data, tmp_path):
    folder = run_with(None, trained, data, tmp_path)
    record = said(folder)
    assert (record["figures"], record["other_figures"]) == ({}, {})
    assert (folder / "test_scores.csv").exists()


def test_what_was_found_is_in_no_pickle(trained):
    own = trained[0].evaluator
    assert "flair" in own.result.images.paths[0]
    for again in (copy.deepcopy(own), pickle.loads(pickle.dumps(own))):
        assert again.result is None
    assert b"flair" not in pickle.dumps(own)


# --- a model that knows every score beforehand


class Images(Dataset):
    """Images of no pixels that matter, each with its score as its path says."""

    def __init__(self, rows):
        self.samples = pd.DataFrame(rows)

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples.iloc[index].to_dict()


def batch_of(rows):
    return ImageBatch(
        image=torch.zeros(len(rows), 3, 2, 2),
        image_path=[row["image_path"] for row in rows],
        gt_label=torch.tensor([row["label"] for row in rows]),
    )


class Scorer(LightningModule):
    """Says what it was told to, and decides as it was told to."""

    def __init__(self, scores, decisions=None, low=0.0, high=1.0, threshold=0.5):
        super().__init__()
        self.scores, self.decisions = scores, decisions
        self.post_processor = RankPreservingPostProcessor()
        self.post_processor.image_min.fill_(low)
        self.post_processor.image_max.fill_(high)
        self.post_processor._image_threshold.fill_(threshold)
        self.evaluator = Findings()

    def configure_callbacks(self):
        return [self.post_processor, self.evaluator]

    def test_step(self, batch):
        return batch.update(pred_score=torch.tensor([self.scores[p] for p in batch.image_path]))


def result_of(rows, model, size=3):
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False,
    )  # fmt: skip
    trainer.test(
        model, DataLoader(Images(rows), batch_size=size, collate_fn=batch_of), verbose=False
    )
    return model.evaluator.result


def rows_of(known=True):
    """Ten patients of two images each; the last five are abnormal."""
    return [
        {"image_path": f"{n}_{at}.png", "label": int(n >= 5 and at == 0),
         **({"group": f"p{n}", "volume": f"{n}.nii"} if known else {})}
        for n in range(10) for at in range(2)
    ]  # fmt: skip


def told(rows, start=1.0, step=1e-6):
    """A score for each, rising."""
    return {row["image_path"]: start + step * place for place, row in enumerate(rows)}


def test_batches_change_nothing():
    rows = rows_of()
    first = result_of(rows, Scorer(told(rows)), 20)
    again = result_of(rows[::-1], Scorer(told(rows)), 7)
    assert {k: v for k, v in first.figures.items() if v is not None} == pytest.approx(
        {k: v for k, v in again.figures.items() if v is not None}, abs=1e-9
    )
    assert first.figures["patient_AUROC"] == 1.0


def test_scores_far_from_the_threshold_make_no_tie_of_patients():
    rows = rows_of()
    known = Decisions(references={"patient": Reference((0.6,), (0.9,), images=(2, 2))})
    found = result_of(rows, Scorer(told(rows), known, low=1.0, high=2.0, threshold=-1000.0))
    assert len(set(found.images.scores)) < 20  # as float32 they tie
    assert len(set(found.levels["patient"].score)) == 10
    assert found.figures["patient_AUROC"] == 1.0
    assert found.levels["patient"].called == (1,) * 10
    assert (found.figures["patient_Sensitivity"], found.figures["patient_Specificity"]) == (1, 0)


def test_a_rule_decides_about_images_too():
    rows = rows_of()
    reference = Reference((0.6, 0.7), (0.9,))
    rule = Rule("false_alarms", 0.34)
    known = Decisions(references={"image": reference}, rule=rule, image_threshold=0.5)
    scores = {row["image_path"]: 0.2 + 0.03 * place for place, row in enumerate(rows)}
    found = result_of(rows, Scorer(scores, known))
    assert found.levels["image"].threshold == known.threshold("image").value == 0.7
    called = [score > 0.7 for score in found.images.scores]
    assert 0 < sum(called) < sum(score > 0.5 for score in found.images.scores)
    assert found.images.called == tuple(called)
    ill = [row["label"] for row in rows]
    assert found.figures["image_Sensitivity"] == pytest.approx(recall_score(ill, called))
    assert found.figures["image_F1"] == pytest.approx(f1_score(ill, called))


def test_scores_that_another_post_processor_has_placed_are_not_placed_again():
    rows = rows_of()
    model = Scorer(told(rows, 0.3, 0.01), low=0.2, high=0.6, threshold=0.4)
    model.post_processor = PostProcessor()
    model.post_processor.image_min.fill_(0.2)
    model.post_processor.image_max.fill_(0.6)
    model.post_processor._image_threshold.fill_(0.4)
    found = result_of(rows, model)
    given = dict(zip(found.images.paths, found.images.scores, strict=True))
    assert given["9_1.png"] == pytest.approx((0.49 - 0.4) / 0.4 + 0.5)
    of_patients = [np.mean([given[f"{n}_{at}.png"] for at in range(2)]) for n in range(10)]
    assert sorted(found.levels["patient"].score) == pytest.approx(sorted(of_patients))


def test_images_of_unknown_patients_count_as_one_each_and_are_counted():
    rows = rows_of(known=False)
    found = result_of(rows, Scorer(told(rows)))
    assert found.images.unknown == 20
    assert found.levels.keys() == {"image", "patient"}
    assert found.levels["patient"].counts == (15, 5)
    assert result_of(rows_of(), Scorer(told(rows))).images.unknown == 0


def test_names_of_patients_do_not_stand_in_what_is_found():
    found = result_of(rows_of(), Scorer(told(rows_of())))
    assert not {f"p{n}" for n in range(10)} & set(found.levels["patient"].patient)
    assert len(set(found.levels["patient"].patient)) == 10
