"""Every method keeps its promises, the next one included: it is tested by existing.

What follows them is of the machinery that all methods share, and is tried with one of them.
"""

import pytest
import torch
from anomalib.engine import Engine
from daily import waits
from tiny import CASES, lesion_data

from anomalib_medclip.clip.towers import TextTower
from anomalib_medclip.errors import BackboneMismatchError, CheckpointError
from anomalib_medclip.models import list_models
from anomalib_medclip.testing import MethodCase, method_checks, parametrize_with_checks
from anomalib_medclip.training.checkpoints import read_checkpoint


@parametrize_with_checks(CASES)
def test_promise(check):
    check()


def test_every_method_is_asked():
    assert [case.name.lower() for case in CASES] == list_models()


@pytest.fixture(scope="module")
def case():
    return next(case for case in CASES if case.name == "MVFA")


def test_metrics_do_not_depend_on_the_evaluation_batch(case, tmp_path):
    model, _, _, metrics = case.trained
    for size in (1, 16):
        data = lesion_data(case.lesions, eval_batch_size=size)
        again = case.engine(tmp_path).test(model, datamodule=data)[0]
        assert again["image_AUROC"] == pytest.approx(metrics["image_AUROC"], abs=1e-6)
        assert again["pixel_AUROC"] == pytest.approx(metrics["pixel_AUROC"], abs=1e-5)


def test_a_checkpoint_of_another_package_is_refused(case):
    state = read_checkpoint(case.trained.checkpoint)
    del state["anomalib_medclip"]
    with pytest.raises(CheckpointError, match="not made by a model of anomalib-medclip"):
        case.small().on_load_checkpoint(state)


def test_a_checkpoint_that_lacks_notes_is_refused(case):
    state = read_checkpoint(case.trained.checkpoint)
    del state["anomalib_medclip"]["fingerprint"]
    with pytest.raises(CheckpointError, match=r"lacks notes .*'fingerprint'"):
        case.small().on_load_checkpoint(state)


def test_a_checkpoint_names_the_package_of_its_method(case):
    notes = read_checkpoint(case.trained.checkpoint)["anomalib_medclip"]
    assert notes["package"] == "anomalib_medclip"


def test_the_file_that_does_not_fit_is_named(case):
    other = Engine(default_root_dir=case.trained.home, accelerator="cpu")
    with pytest.raises(BackboneMismatchError, match=r"weights.lightning.model.ckpt was trained"):
        other.test(
            case.small(backbone_seed=1),
            datamodule=lesion_data(case.lesions),
            ckpt_path=case.trained.checkpoint,
        )


def test_every_test_image_has_a_picture_and_a_score(case, tmp_path):
    trained = case.train(tmp_path, epochs=1, visualizer=True)
    home, count = trained.home, len(trained.data.test_data)
    assert len(list((home / "images").rglob("*.png"))) == count
    lines = (home / "test_scores.csv").read_text().splitlines()
    assert lines[0] == "image,pred_score,pred_label,gt_label,raw_score"
    assert len(lines) == count + 1
    assert "image_AUROC" in (home / "test_metrics.json").read_text()


def test_an_exemption_is_of_a_promise_has_a_reason_and_is_needed(case):
    with pytest.raises(ValueError, match="there is no promise flies to be exempt from"):
        method_checks(MethodCase(case.method, exempt={"flies": "too heavy"}))
    with pytest.raises(ValueError, match="the exemption from learns has no reason"):
        MethodCase(case.method, exempt={"learns": " "})
    kept = MethodCase(case.method, exempt={"freezes_its_towers": "it is warm here"})
    [check] = [one for one in method_checks(kept) if one.exemption]
    with pytest.raises(AssertionError, match="keeps it; take the exemption out"):
        check()


def test_of_encoded_images_only_mvfa_runs_blocks_and_those_after_its_first_level():
    """So later epochs of the others run none, by the promise that they run what ``score`` runs."""
    for case in (case for case in CASES if not waits(case)):
        model, ran = case.small().model, []
        for number, block in enumerate(model.clip.visual.transformer.resblocks, start=1):
            block.register_forward_hook(lambda *_, number=number, ran=ran: ran.append(number))
        with torch.no_grad():
            encoded = model.encode(torch.rand(1, 3, 32, 32))
            encoding, model.few_shot = list(ran), False
            ran.clear()
            text = model.prompts(model.text_tower or TextTower(model.clip.backbone), "phantom")
            model.score(encoded, text)
        after = list(range(model.levels[0] + 1, model.levels[-1] + 1))
        assert ran == (after if case.name == "MVFA" else [])
        assert encoding == list(range(1, (model.levels[0] if ran else model.clip.depth) + 1))


def test_words_that_an_option_does_not_know_are_refused(case):
    with pytest.raises(ValueError, match="cache is 'disk', and must be one of 'float32', "):
        case.small(cache="disk")


def test_an_option_that_there_is_not_is_refused(case):
    with pytest.raises(TypeError, match="learning_rate"):
        case.small(learning_rate=1.0)
