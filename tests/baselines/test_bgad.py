"""BGAD: what it learns from, its pasted lesions, its steps, and what it refuses."""

from types import SimpleNamespace

import pytest
import torch
from anomalib.engine import Engine
from tiny import TRAINING, case_of, lesion_data

from anomalib_medclip.baselines import BGAD
from anomalib_medclip.baselines.bgad.losses import Boundary, flow_loss
from anomalib_medclip.baselines.bgad.pasting import pasted
from anomalib_medclip.errors import ConfigError, MissingMaskError, NotReadyError

SMALL = {**TRAINING["BGAD"].options, "image_size": 32, "visualizer": False}
EMPTY = torch.empty(0)


@pytest.fixture
def model():
    return BGAD(**SMALL).model.eval()


def encoded(model, count=3):
    random = torch.Generator().manual_seed(0)
    return model.encode(torch.rand(count, 3, 32, 32, generator=random))


def fit(lesions, home, model, **options):
    engine = Engine(default_root_dir=home, accelerator="cpu", max_epochs=2)
    engine.fit(model, datamodule=lesion_data(lesions, **options))
    return engine


def test_data_without_masks_are_refused(lesions, tmp_path):
    with pytest.raises(MissingMaskError, match="BGAD learns from masks alone"):
        fit(lesions, tmp_path, BGAD(**SMALL), mask_column=None)


def test_several_processes_are_refused(monkeypatch):
    method = BGAD(**SMALL)
    method._trainer = SimpleNamespace(world_size=2, datamodule=None)
    with pytest.raises(ConfigError, match="learns in one process"):
        super(BGAD, method).setup("fit")


def test_normal_images_come_once_an_epoch_and_abnormal_ones_ten_times():
    method = BGAD(**SMALL)
    batch = SimpleNamespace(gt_label=torch.tensor([0, 0, 1, 1]), copy=torch.tensor([0, 3, 0, 9]))
    method._trainer = SimpleNamespace(current_epoch=0)
    assert method._taken(batch).tolist() == [True, False, False, False]
    method._trainer = SimpleNamespace(current_epoch=1)
    assert method._taken(batch).tolist() == [True, False, True, True]


def test_a_pasted_lesion_lies_on_a_normal_image():
    image, normal = torch.ones(3, 32, 32), torch.zeros(3, 32, 32)
    mask = torch.zeros(1, 32, 32)
    mask[:, 8:16, 4:12] = 1
    moved = 0
    for seed in range(8):
        made, lesion = pasted(image, mask, normal, [seed])
        again, _ = pasted(image, mask, normal, [seed])
        assert torch.equal(made, again)
        assert set(lesion.unique().tolist()) <= {0.0, 1.0}
        assert not made[:, lesion[0] == 0].any()
        moved += not torch.equal(lesion, mask)
    assert moved > 3


def test_a_step_takes_what_there_is_and_pixels_of_which_nobody_knows_are_left_out(model):
    features, masks = encoded(model), torch.zeros(3, 1, 32, 32)
    sides = [shape[1] for shape in model.clip.shapes]
    model.positions = 10**6
    assert len(list(model.steps(features, masks, focal=True))) == len(sides)
    model.positions = 3 * sides[0] ** 2 // 2
    assert len(list(model.steps(features, masks, focal=True))) == 2 + 1
    masks[:2] = torch.nan
    assert len(list(model.steps(features, masks, focal=True))) == 1 + 1
    assert not list(model.steps(features, torch.full_like(masks, torch.nan), focal=True))
    assert not list(model.steps(features, torch.ones_like(masks), focal=True)), "no normal one"


def test_a_loss_that_nothing_adds_to_is_zero():
    logp, abnormal = torch.tensor([1.0, 2.0, -50.0]), torch.tensor([False, False, True])
    loss = flow_loss(logp.requires_grad_(), abnormal, Boundary(), focal=False)
    assert loss.abnormal == 0
    assert loss.total().isfinite()


def test_likelihood_counts_from_the_most_likely_normal_image_that_may_be_seen(model):
    with pytest.raises(NotReadyError, match="no normal image was seen"):
        model.score(encoded(model), EMPTY)
    features, owners = encoded(model), torch.tensor([0, 1, 1])
    labels = torch.tensor([False, False, True])
    with torch.no_grad():
        model.fit_support(features, features[None, :2], labels, owners)
        assert model.peaks.shape == (len(model.clip.shapes), 2)
        whole = model._peaks()[:, 0]
        assert torch.equal(whole, model.peaks.amax(dim=1))
        apart = model._peaks(torch.tensor([0, 1, -1]))
    assert torch.equal(apart[:, 0], model.peaks[:, 1])
    assert torch.equal(apart[:, 1], model.peaks[:, 0])
    assert torch.equal(apart[:, 2], whole)
    model.fit_support(features, features[None, :1], torch.tensor([False, True, True]), owners)
    with pytest.raises(NotReadyError, match="leave-one-out needs at least two"):
        model.score(features[:1], EMPTY, torch.tensor([0]))


def test_a_number_of_steps_is_kept_to(lesions, tmp_path):
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", max_steps=3)
    engine.fit(BGAD(**SMALL), datamodule=lesion_data(lesions))
    assert engine.trainer.global_step == 3


def test_the_step_size_follows_the_schedule(lesions, tmp_path):
    method, sizes = BGAD(**SMALL), []
    learn = method.learn

    def noted(batch, batch_idx):
        sizes.append(method.step_size_at(batch_idx))
        found = learn(batch, batch_idx)
        if found is not None:
            assert method.optimizers().param_groups[0]["lr"] == sizes[-1]
        return found

    method.learn = noted
    fit(lesions, tmp_path, method)
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == len(sizes)
    assert sizes[0] == pytest.approx(5e-4)


def test_numbers_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="beta is 1"):
        BGAD(**SMALL, beta=1)
    with pytest.raises(ConfigError, match="code is 2"):
        BGAD(**{**SMALL, "code": 2})


@pytest.mark.nightly(also="tests/baselines/test_contract.py::test_promise")
def test_as_many_steps_are_taken_as_were_asked_for(tmp_path):
    """Of which a batch has several: training may end in the middle of one."""
    case = case_of(BGAD)
    engine = case.engine(tmp_path, max_steps=3)
    engine.fit(case.small(), datamodule=case.data())
    assert engine.trainer.global_step == 3
