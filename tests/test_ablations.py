"""Every row of the papers' ablation tables is a config that builds, takes a step, and differs."""

from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from anomalib.engine import Engine
from tiny import EVEN, OPTIONS, lesion_data

from anomalib_medclip.clip.towers import TextTower
from anomalib_medclip.errors import NotReadyError
from anomalib_medclip.models import get_model
from anomalib_medclip.models.mediclip import lightning_model, synthesis

FOLDER = Path(__file__).parents[1] / "configs" / "ablations"
CONFIGS = sorted(FOLDER.glob("*.yaml"))
DEPTHS = {"levels", "scored_levels"}


def built(name, options):
    """A method on a small CLIP of 4 blocks, where the papers' have 24, with its text."""
    options = {k: [level // 6 for level in v] if k in DEPTHS else v for k, v in options.items()}
    method = get_model(name)(**{**OPTIONS, "backbone": EVEN, **options})
    method.text.object_name = options.get("object_name", "brain")
    return method


def text_of(method):
    """What the prompts say of the object, with their gradient where they learn."""
    tower = method.model.text_tower or TextTower(method.backbone)
    return method.model.prompts(tower, method.object_name)


def step(method):
    """Loss before and after a step, and the map of an image after it; all from one seed."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 32, 32, generator=generator)
    masks = (torch.rand(2, 1, 32, 32, generator=generator) > 0.7).float()
    labels, losses = torch.tensor([True, False]), []
    model, encoded = method.model, method.model.encode(images)
    model.few_shot = False
    optimizer = method.configure_optimizers()
    for _ in range(2):
        loss = model.loss(encoded, masks, labels, text_of(method))
        losses.append(loss.item())
        if optimizer is not None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        found = model.score(encoded, text_of(method)).anomaly_map
    assert found.isfinite().all()
    return losses, found


@cache
def own_map(name):
    """The map of a method without any ablation."""
    return step(built(name, {}))[1]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_an_ablation_builds_steps_and_is_not_the_method_itself(path):
    config = yaml.safe_load(path.read_text())
    name, options = config["class_path"].rsplit(".", 1)[1], config["init_args"]
    assert path.stem.startswith(f"{name.lower()}_")
    ablated = built(name, options)
    losses, found = step(ablated)
    learns = any(p.requires_grad for p in ablated.model.parameters())
    assert learns == (losses[1] != losses[0])
    assert learns or path.stem == "mediclip_frozen"
    if not {"tasks", "synthesis"} & options.keys():  # else other training images, see below
        assert not torch.allclose(found, own_map(name), atol=1e-7)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_an_ablation_says_how_it_is_used_and_which_row_it_is(path):
    text = path.read_text()
    assert f"--model configs/ablations/{path.name} --data configs/" in text
    assert any(word in text for word in ("table", "section", "figure"))


def fitted(stem, lesions, home, epochs=1, **data):
    method = built("MediCLIP", yaml.safe_load((FOLDER / f"{stem}.yaml").read_text())["init_args"])
    engine = Engine(
        default_root_dir=home, accelerator="cpu", max_epochs=epochs, enable_progress_bar=False
    )
    engine.fit(method, datamodule=(data := lesion_data(lesions, **data)))
    return engine, data


TASK_ROWS = [p.stem for p in CONFIGS if "tasks" in yaml.safe_load(p.read_text())["init_args"]]


@pytest.mark.daily_for(stem="mediclip_gauss_cutpaste")
@pytest.mark.parametrize("stem", TASK_ROWS)
def test_a_row_of_tasks_trains_on_these_tasks_and_no_others(stem, lesions, tmp_path, monkeypatch):
    drawn = set()

    def watched(*args, **options):
        made = synthesis.synthesize(*args, **options)
        drawn.add(made.task)
        return made

    monkeypatch.setattr(lightning_model, "synthesize", watched)
    fitted(stem, lesions, tmp_path, epochs=12)
    options = yaml.safe_load((FOLDER / f"{stem}.yaml").read_text())["init_args"]
    assert drawn == set(options["tasks"])


def test_the_auxiliary_row_learns_from_real_anomalies_and_their_masks(lesions, tmp_path):
    engine, data = fitted("mediclip_auxiliary", lesions, tmp_path)
    assert set(data.train_data.samples["label_index"]) == {0, 1}
    assert not (Path(engine.trainer.default_root_dir) / "synthetic_anomalies.png").exists()
    with pytest.raises(NotReadyError, match="learns from masks"):
        fitted("mediclip_auxiliary", lesions, tmp_path, mask_column=None)


OTHER_GRAPHS = [
    "mvfa_projectors", "mvfa_layer2_of_all", "madclip_shared_adapters", "madclip_no_subtraction",
    "mediclip_no_adapter", "iqeclip_baseline",
]  # fmt: skip


@pytest.mark.daily_for(stem="iqeclip_baseline")  # the largest; each method itself is traced daily
@pytest.mark.parametrize("stem", OTHER_GRAPHS)
def test_an_ablation_is_traced_with_the_same_numbers(stem):
    config = yaml.safe_load((FOLDER / f"{stem}.yaml").read_text())
    method = built(config["class_path"].rsplit(".", 1)[1], config["init_args"])
    model, images = method.model.eval(), torch.rand(3, 3, 32, 32)
    model.few_shot = False
    with torch.no_grad():
        model.text = text_of(method)
        shapes = ({0: torch.export.Dim("batch")},)
        traced = torch.export.export(model, (images[:2],), dynamic_shapes=shapes, strict=False)
        for mine, theirs in zip(model(images), traced.module()(images), strict=True):
            if mine is not None:
                torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)


def test_a_row_with_nothing_to_learn_trains_all_the_same(lesions, tmp_path):
    engine, data = fitted("mediclip_frozen", lesions, tmp_path)
    assert "image_AUROC" in engine.test(engine.model, datamodule=data)[0]


def test_every_method_has_its_ablations():
    methods = {path.stem.split("_")[0] for path in CONFIGS}
    assert methods == {"mvfa", "madclip", "mediclip", "iqeclip"}
