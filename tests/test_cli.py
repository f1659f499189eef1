"""The commands of daily use, as typed."""

import json
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import fresh_process
import pytest
import torch
from anomalib.models import Patchcore
from command import PROGRAM, SMALL, anomalib, metrics, pictures, rows
from PIL import Image
from sklearn.metrics import roc_auc_score
from tiny import write_lesions

from anomalib_medclip import Inferencer
from anomalib_medclip.errors import IntensityError

ROOT = Path(__file__).parent.parent
CHECKPOINT = "results/MVFA/BMAD/Retina_RESC/latest/weights/lightning/model.ckpt"


@pytest.fixture(scope="module")
def home(tmp_path_factory, bmad_tree):
    """A folder as a user has it: configs, data sets, and a run of MVFA on BMAD."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(ROOT / "configs", home / "configs")
    bmad_tree("Retina_RESC", root=home / "datasets" / "BMAD")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        anomalib(
            "train --model anomalib_medclip.MVFA --data configs/bmad_resc.yaml "
            f"--data.k_shot 2 --data.num_workers 0 --trainer.max_epochs 1 {SMALL}",
            patch,
        )
    return home


@pytest.fixture(autouse=True)
def in_home(home, monkeypatch):
    monkeypatch.chdir(home)


def newest(pattern):
    return max(Path("results").glob(pattern), key=lambda path: path.stat().st_mtime)


def test_train_leaves_checkpoint_pictures_scores_and_metrics():
    run = Path(CHECKPOINT).parents[2]
    assert Path(CHECKPOINT).is_file()
    assert len(rows(run / "test_scores.csv")) == len(pictures(run)) == 16
    assert {"image_AUROC", "pixel_AUROC"} <= set(metrics(run))


def test_auroc_is_that_of_the_scores_in_the_table():
    run = Path(CHECKPOINT).parents[2]
    table = rows(run / "test_scores.csv").values()
    labels = [row["gt_label"] == "True" for row in table]
    expected = roc_auc_score(labels, [float(row["raw_score"]) for row in table])
    assert metrics(run)["image_AUROC"] == pytest.approx(expected, abs=1e-12)


def test_a_new_process_without_the_support_gives_the_very_same_scores(tmp_path, monkeypatch):
    images = tmp_path / "images"
    hidden = shutil.ignore_patterns("anomaly_mask")
    shutil.copytree("datasets/BMAD/Retina_RESC_AD/test", images, ignore=hidden)
    command = f"predict --model anomalib_medclip.MVFA --data {images} {SMALL} --ckpt_path "
    anomalib(f"{command} {CHECKPOINT} --default_root_dir {tmp_path}/here", monkeypatch)

    shutil.copy(CHECKPOINT, tmp_path / "model.ckpt")
    done = fresh_process.run(
        PROGRAM,
        *shlex.split(f"{command} model.ckpt --default_root_dir there"),
        cwd=tmp_path,  # where there is neither config nor support
    )
    assert done.returncode == 0, done.stderr
    here, there = (next((tmp_path / run).rglob("predict_scores.csv")) for run in ("here", "there"))
    assert len(rows(here)) == 16
    assert here.read_bytes() == there.read_bytes()
    names = [picture.relative_to(there.parent) for picture in pictures(there.parent)]
    assert len(names) == 16
    for name in names:
        assert (here.parent / name).read_bytes() == (there.parent / name).read_bytes()


@pytest.mark.parametrize("verb", ["test", "validate"])
def test_a_checkpoint_is_evaluated(verb, monkeypatch, capsys):
    anomalib(
        f"{verb} --model anomalib_medclip.MVFA --data configs/bmad_resc.yaml --data.k_shot 2 "
        f"--data.num_workers 0 --ckpt_path {CHECKPOINT} {SMALL}",
        monkeypatch,
    )
    assert "AUROC" in capsys.readouterr().out


def test_a_test_and_a_prediction_overwrite_no_run(home, monkeypatch):
    """Of the whole tree, what is there stays as it is, and ``latest`` is the training's."""
    runs = home / "results" / "MVFA" / "BMAD" / "Retina_RESC"
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    latest = (runs / "latest").readlink()
    anomalib(
        "test --model anomalib_medclip.MVFA --data configs/bmad_resc.yaml --data.k_shot 2 "
        f"--data.num_workers 0 --ckpt_path {CHECKPOINT} {SMALL}",
        monkeypatch,
    )
    after = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    assert before.items() <= after.items()
    found = (runs / "test" / "latest").resolve()
    assert {path.name for path in found.iterdir()} >= {"run.json", "test_scores.csv", "images"}
    assert (runs / "latest").readlink() == latest
    assert metrics(found) == metrics(runs / "latest")


def test_one_image_is_predicted(monkeypatch):
    image = "datasets/BMAD/Retina_RESC_AD/test/good/img/50_0.png"
    anomalib(
        f"predict --model anomalib_medclip.MVFA --data {image} --ckpt_path {CHECKPOINT} {SMALL}",
        monkeypatch,
    )
    scores = rows("results/MVFA/predict/latest/predict_scores.csv")
    tested = rows(newest("MVFA/BMAD/Retina_RESC/v*/test_scores.csv"))
    of_test = next(v for k, v in tested.items() if k.endswith("test/good/img/50_0.png"))
    (of_predict,) = scores.values()
    assert of_predict["pred_score"] == of_test["pred_score"]
    assert Path("results/MVFA/predict/latest/images/50_0.png").is_file()


def test_a_data_config_is_predicted_through_its_text(monkeypatch):
    config = Path("configs/bmad_resc.yaml").read_text()
    text = shlex.quote(config + "  num_workers: 0\n")
    anomalib(
        f"predict --model anomalib_medclip.MVFA --data {text} --ckpt_path {CHECKPOINT} {SMALL}",
        monkeypatch,
    )
    assert len(rows(newest("MVFA/BMAD/Retina_RESC/predict/v*/predict_scores.csv"))) == 16


def test_sixteen_bits_are_refused_and_not_cut(tmp_path, monkeypatch):
    deep = tmp_path / "deep.png"
    Image.fromarray(torch.arange(0, 3200, 2).view(40, 40).numpy().astype("uint16")).save(deep)
    with pytest.raises(IntensityError, match=r"deep.png holds uint16 numbers.*'intensity'"):
        anomalib(
            f"predict --model anomalib_medclip.MVFA --data {deep} --ckpt_path {CHECKPOINT} {SMALL}",
            monkeypatch,
        )


def test_zero_shot_learns_from_the_other_sets(home, bmad_tree, monkeypatch):
    for name in ("Brain", "Liver", "Retina_OCT2017", "Chest", "Histopathology"):
        bmad_tree(name, root=home / "datasets" / "BMAD", count=4)
    anomalib(
        "train --model anomalib_medclip.MVFA --data configs/bmad_zero_shot_resc.yaml "
        f"--data.num_workers 0 --data.train_batch_size 4 --trainer.max_epochs 1 {SMALL}",
        monkeypatch,
    )
    run = Path("results/MVFA/BMAD/Retina_RESC/zero_shot/latest").resolve()
    checkpoint = run / "weights/lightning/model.ckpt"
    notes = torch.load(checkpoint, weights_only=True)["anomalib_medclip"]
    assert notes["object_name"] == "retinal OCT"
    assert notes["model"] == {"has_masks": True, "few_shot": False}
    zero_shot = "a zero-shot model is meant for images unlike its own"
    assert Inferencer(checkpoint).no_unlike == zero_shot
    training = json.loads((run / "run.json").read_text())["training"]
    assert training["setting"] == "zero-shot"
    assert training["sets"] == ["Brain", "Chest", "Histopathology", "Liver", "Retina_OCT2017"]


def test_a_folder_of_ones_own_is_trained_on(home, monkeypatch):
    write_lesions(home / "datasets" / "my_images")
    anomalib(
        "train --model anomalib_medclip.MVFA --data configs/folder.yaml "
        "--data.normal_dir images/normal --data.abnormal_dir images/abnormal "
        f"--data.k_shot 2 --data.num_workers 0 --trainer.max_epochs 1 {SMALL}",
        monkeypatch,
    )
    run = newest("MVFA/my_images/*/test_metrics.json").parent
    found = metrics(run)
    assert {"image_AUROC", "image_F1Score", "support", "threshold_from"} <= set(found)
    assert found["image_AUROC"] is not None
    assert found["pixel_AUROC"] is None  # without masks


@pytest.fixture
def baseline(monkeypatch):
    """What Patchcore is trained on, as (path, label), and the scores its metrics are taken from."""
    seen = SimpleNamespace(trained=[], scores=[])
    learn = Patchcore.training_step

    def spy(self, batch, *rest):
        seen.trained += zip(batch.image_path, batch.gt_label.tolist(), strict=True)
        return learn(self, batch, *rest)

    def after_callbacks(self, outputs, batch, *rest):
        seen.scores += batch.pred_score.tolist()

    monkeypatch.setattr(Patchcore, "training_step", spy)
    monkeypatch.setattr(Patchcore, "on_test_batch_end", after_callbacks)
    return seen


def test_a_baseline_shares_data_and_normalisation(baseline, monkeypatch):
    anomalib(
        "train --model Patchcore --model.backbone resnet18 --model.pre_trained false "
        "--model.layers '[layer1]' --model.coreset_sampling_ratio 0.01 "
        "--data configs/bmad_resc.yaml --data.k_shot 2 "
        "--data.num_workers 0 --trainer.accelerator cpu --model.post_processor "
        "anomalib_medclip.components.processors.RankPreservingPostProcessor",
        monkeypatch,
    )
    assert newest("Patchcore/BMAD/Retina_RESC/*/images").is_dir()
    assert [label for _, label in baseline.trained] == [False, False]
    assert len(set(baseline.trained)) == 2
    assert len(set(baseline.scores)) == 16, "clipping makes ties"
    assert 0 < min(baseline.scores) < max(baseline.scores) < 1


def test_a_checkpoint_is_exported_by_a_command_of_its_own(tmp_path):
    command = f"export --model anomalib_medclip.MVFA {SMALL} --export_type torch"
    done = fresh_process.run(
        PROGRAM, *shlex.split(f"{command} --ckpt_path {CHECKPOINT} --export_root {tmp_path}")
    )
    assert done.returncode == 0, done.stderr
    assert "certified on 8 images" in done.stdout + done.stderr
    assert (tmp_path / "weights" / "torch" / "model.json").is_file()
