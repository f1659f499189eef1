"""What MVFA promises beyond the contract of every method."""

import pytest
import torch
from lightning.pytorch import Callback
from tiny import BACKBONE, OPTIONS, write_lesions

from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.clip.towers import ImageTower
from anomalib_medclip.components.augmentation import ELEVEN_FOLD, all_copies
from anomalib_medclip.data import BMADLeaveOneOut, MedicalFolder
from anomalib_medclip.data.bmad import BMAD_SETS
from anomalib_medclip.errors import NotReadyError, WeightsError
from anomalib_medclip.models.mvfa import MVFA, MVFAModel
from anomalib_medclip.models.mvfa.fusion import Branches, Fusion


@pytest.fixture(scope="module")
def tower():
    return ImageTower(Backbone(BACKBONE, image_size=32))


@pytest.fixture
def model(tower):
    model = MVFAModel(tower)
    model.text = torch.nn.functional.normalize(torch.randn(2, tower.embed_dim), dim=-1)
    return model


def encoded_copies(tower, images):
    """What a model with adapters after the first block encodes of images, copy by copy."""
    copies = all_copies(images, ELEVEN_FOLD)
    return tower.taps(copies, [1])[:, 0].unflatten(0, (len(ELEVEN_FOLD), -1))


@pytest.fixture
def support(tower):
    """Four normal and two abnormal support images: encoded, with copies, labels and owners."""
    copies = encoded_copies(tower, torch.rand(6, 3, 32, 32))
    labels, owners = torch.tensor([0, 0, 0, 0, 1, 1]).bool(), torch.tensor([0, 0, 1, 2, 1, 3])
    return copies[0], copies[:, ~labels], labels, owners


def test_adapters_stand_at_the_four_quarters_by_default(tower):
    assert MVFAModel(tower).levels == (1, 2, 3, 4)
    assert MVFAModel(tower, levels=[2, 4]).levels == (2, 4)


@pytest.mark.parametrize("levels", [[0, 1], [2, 1], [1, 1], [1, 5]])
def test_levels_that_the_tower_lacks_are_refused(tower, levels):
    with pytest.raises(ValueError, match="do not ascend from 1 to at most 4"):
        MVFAModel(tower, levels=levels)


def test_the_bank_holds_every_token_of_every_copy(model, support):
    model.fit_support(*support)
    tokens = (32 // 8) ** 2 + 1
    assert model.memory_bank.rows.shape == (4, 4 * len(ELEVEN_FOLD) * tokens, 24)


def test_scales_are_the_extremes_of_support_images_scored_without_themselves(model, support):
    streams, copies, labels, owners = support
    model.fit_support(*support)
    expected = []
    for owner, stream in zip(owners, streams, strict=True):
        alone = MVFAModel(model.clip)
        alone.load_state_dict(model.state_dict())
        others = owners[~labels] != owner
        kept, healthy = copies[:, others], torch.zeros(int(others.sum())).bool()
        alone.fit_support(kept[0], kept, healthy, owners[~labels][others])
        with torch.no_grad():
            expected.append(alone.branches(stream[None], alone.text))
    for kind, name in enumerate(("map", "score")):
        for branch, source in enumerate(("text", "memory")):
            values = torch.cat([getattr(b, f"{source}_{name}").flatten() for b in expected])
            extremes = torch.stack([values.min(), values.max()])
            torch.testing.assert_close(model.fusion.scales[kind, branch], extremes)


def test_one_normal_patient_cannot_set_the_scales_and_that_is_said(model, support, caplog):
    streams, copies, labels, _ = support
    model.fit_support(streams[3:], copies[:, 3:], labels[3:], torch.arange(3))
    assert "one normal patient only" in caplog.text
    assert model.fusion.scales.isfinite().all()


def test_what_lies_between_the_extremes_is_averaged_on_one_scale():
    fusion = Fusion()
    zero, one = torch.zeros(1, 2, 2), torch.ones(1, 2, 2)
    fusion.fit(
        [
            Branches(0.2 * one, 4 * one, torch.tensor([0.0]), torch.tensor([1.0])),
            Branches(0.4 * one, 8 * one, torch.tensor([1.0]), torch.tensor([3.0])),
        ]
    )
    branches = Branches(0.3 * one, 8 * one + zero, torch.tensor([0.5]), torch.tensor([1.0]))
    score, fused = fusion(branches, by_map=True)
    torch.testing.assert_close(fused, torch.full((1, 2, 2), 0.75))
    torch.testing.assert_close(score, torch.tensor([0.75]))
    score, _ = fusion(branches, by_map=False)
    torch.testing.assert_close(score, torch.tensor([0.25]))


def test_a_branch_that_only_rounding_moves_on_the_support_is_taken_for_constant():
    fusion = Fusion()
    one = torch.full((1, 2, 2), 0.5)
    nearly = [Branches(m, one, m.amax(dim=(-2, -1)), torch.ones(1)) for m in (one, one - 6e-8)]
    fusion.fit(nearly)
    (_, first), (_, second) = (fusion(branches, by_map=True) for branches in nearly)
    torch.testing.assert_close(first, second, atol=1e-6, rtol=0)


def test_a_branch_that_is_constant_on_the_support_does_not_divide_by_zero():
    fusion = Fusion()
    constant = Branches(*(torch.full(s, 0.5) for s in [(1, 2, 2), (1, 2, 2), (1,), (1,)]))
    fusion.fit([constant])
    assert fusion(constant, by_map=True)[1].isfinite().all()


def test_zero_shot_needs_no_bank(tower):
    model = MVFAModel(tower)
    model.few_shot = False
    with pytest.raises(NotReadyError, match="no text features"):
        model(torch.rand(1, 3, 32, 32))
    model.text = torch.eye(2, tower.embed_dim)
    result = model(torch.rand(2, 3, 32, 32))
    assert result.pred_score.min() >= 0
    assert result.anomaly_map.max() <= 1


def test_few_shot_without_support_says_what_to_do(model):
    with pytest.raises(NotReadyError, match=r"memory bank is empty: .*k_shot > 0"):
        model(torch.rand(1, 3, 32, 32))


def test_the_loss_of_a_batch_is_the_mean_over_its_images(model):
    streams, masks = torch.rand(3, 17, 32), (torch.rand(3, 1, 32, 32) > 0.7).float()
    labels = torch.tensor([True, False, True])
    together = model.loss(streams, masks, labels, model.text)
    samples = zip(streams, masks, labels, strict=True)
    alone = [model.loss(i[None], m[None], c[None], model.text) for i, m, c in samples]
    torch.testing.assert_close(together, torch.stack(alone).mean())


def test_gradients_reach_all_adapters_but_the_last_layer_that_nothing_reads(model):
    masks, labels = torch.ones(2, 1, 32, 32), torch.ones(2).bool()
    loss = model.loss(torch.rand(2, 17, 32), masks, labels, model.text)
    loss.backward()
    without = {n for n, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert without == set()
    still = [n for n, p in model.adapters.named_parameters() if not p.requires_grad]
    assert still == ["seg_adapters.3.fc2.0.weight", "det_adapters.3.fc2.0.weight"]
    assert all(p.grad is None for p in model.clip.parameters())


def test_released_adapters_are_loaded(model, tmp_path):
    path = tmp_path / "Brain.pth"
    weights = {n: torch.rand_like(v) for n, v in model.adapters.state_dict().items()}
    released = {
        head: {n.removeprefix(f"{head}."): v for n, v in weights.items() if n.startswith(head)}
        for head in ("seg_adapters", "det_adapters")
    }
    torch.save(released, path)
    method = MVFA(**OPTIONS, adapters=str(path))
    loaded = method.model.adapters.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())
    assert "adapters" not in method.hparams


@pytest.mark.parametrize("content", [None, {}, {"seg_adapters": {}, "det_adapters": {}}, [1]])
def test_a_file_that_holds_no_such_adapters_is_refused(content, tmp_path):
    path = tmp_path / "Brain.pth"
    if content is not None:
        torch.save(content, path)
    with pytest.raises(WeightsError, match=r"(?s)Brain.pth does not fit.*seg_adapters"):
        MVFA(**OPTIONS, adapters=str(path))


def test_released_adapters_are_tested_without_training(model, tmp_path):
    from anomalib.engine import Engine

    path = tmp_path / "released.pth"
    heads = ("seg_adapters", "det_adapters")
    torch.save({h: getattr(model.adapters, h).state_dict() for h in heads}, path)
    table = write_lesions(tmp_path / "lesions")
    data = MedicalFolder(
        table=table, mask_column="mask", patient_column="patient", k_shot=2, num_workers=0
    )
    method = MVFA(**OPTIONS, adapters=str(path), transductive=True)
    used = []

    class Watch(Callback):
        def on_test_batch_end(self, *_args):
            used.append(method.model.fusion.scales.clone())

    engine = Engine(
        default_root_dir=tmp_path,
        accelerator="cpu",
        enable_progress_bar=False,
        callbacks=[Watch()],
    )
    metrics = engine.test(method, datamodule=data)[0]
    assert 0 <= metrics["pixel_AUROC"] <= 1
    # Scaled on the test images themselves, as the authors do, maps reach from 0 to 1 exactly.
    assert not torch.equal(method.model.fusion.scales, used[0]), "the test images are forgotten"
    method.model.fusion.scales = used[0]
    images = torch.stack([data.test_data[i].image for i in range(len(data.test_data))])
    with torch.no_grad():
        stream = method.model.encode(images.as_subclass(torch.Tensor))
        branches = method.model.branches(stream, method.model.text)
        _, fused = method.model.fusion(branches, True)
    scales = method.model.fusion.scales[0]
    torch.testing.assert_close(scales[0, 1], branches.text_map.max(), atol=1e-6, rtol=0)
    torch.testing.assert_close(scales[1, 0], branches.memory_map.min(), atol=1e-6, rtol=0)
    assert fused.min() >= -1e-4
    assert fused.max() <= 1 + 1e-4


def test_without_masks_the_segmentation_adapters_keep_their_first_weights(tmp_path):
    from anomalib.engine import Engine

    data = MedicalFolder(table=write_lesions(tmp_path / "lesions"), k_shot=2, num_workers=0)
    method = MVFA(**OPTIONS)
    before = {n: p.clone() for n, p in method.model.adapters.named_parameters()}
    engine = Engine(
        default_root_dir=tmp_path, accelerator="cpu", max_epochs=1, enable_progress_bar=False
    )
    engine.fit(method, datamodule=data)
    changed = {n for n, p in method.model.adapters.named_parameters() if not p.equal(before[n])}
    assert changed
    assert all(name.startswith("det_adapters") for name in changed)


def test_a_bank_is_refitted_when_the_adapters_have_changed(tmp_path):
    from anomalib.engine import Engine

    data = MedicalFolder(table=write_lesions(tmp_path / "lesions"), k_shot=2, num_workers=0)
    method = MVFA(**OPTIONS)
    banks = []
    original = method.model.fit_support
    method.model.fit_support = lambda *a: (
        original(*a),
        banks.append(method.model.memory_bank.rows),
    )
    engine = Engine(
        default_root_dir=tmp_path,
        accelerator="cpu",
        max_epochs=3,
        num_sanity_val_steps=1,
        check_val_every_n_epoch=2,
        enable_progress_bar=False,
    )
    engine.fit(method, datamodule=data)
    assert len(banks) == 2, "once before the validation of epoch 2, once at the end"
    assert not torch.equal(*banks)
    assert torch.equal(banks[-1], method.model.memory_bank.rows)


def test_a_zero_shot_checkpoint_validates_other_sets_with_their_own_prompts(bmad_tree, tmp_path):
    from anomalib.engine import Engine

    for category in BMAD_SETS:
        bmad_tree(category, tmp_path / "BMAD")
    data = BMADLeaveOneOut(tmp_path / "BMAD", "Brain", num_workers=0)
    engine = Engine(
        default_root_dir=tmp_path, accelerator="cpu", max_epochs=1, enable_progress_bar=False
    )
    engine.fit(MVFA(**OPTIONS), datamodule=data)
    expected = float(engine.trainer.callback_metrics["val_pixel_AUROC"])
    path = engine.trainer.checkpoint_callback.best_model_path
    again = Engine(default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False)
    found = again.validate(MVFA(**OPTIONS), datamodule=data, ckpt_path=path)[0]
    assert found["val_pixel_AUROC"] == pytest.approx(expected, abs=1e-6)


def test_few_shot_on_zero_shot_data_is_refused(bmad_tree, tmp_path):
    from anomalib.engine import Engine

    for category in BMAD_SETS:
        bmad_tree(category, tmp_path / "BMAD")
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", max_epochs=1)
    with pytest.raises(NotReadyError, match="these data have none"):
        engine.fit(
            MVFA(**OPTIONS, few_shot=True),
            datamodule=BMADLeaveOneOut(tmp_path / "BMAD", "Brain", num_workers=0),
        )
