"""APRIL-GAN: what is easily built otherwise, its settings, and its mosaics."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from tiny import OPTIONS, lesion_data

from anomalib_medclip.components.anomaly_map import unit_interval
from anomalib_medclip.components.losses import dice
from anomalib_medclip.data import BMADLeaveOneOut
from anomalib_medclip.data.bmad import BMAD_SETS
from anomalib_medclip.errors import BackboneMismatchError, ConfigError, NotReadyError, WeightsError
from anomalib_medclip.models.aprilgan import APRILGAN
from anomalib_medclip.models.aprilgan.mosaic import Mosaics, mosaic
from anomalib_medclip.models.vcpclip import VCPCLIP
from anomalib_medclip.readers.resize import MethodResize
from anomalib_medclip.training.datamodule_view import DatamoduleView


def small(**options):
    return APRILGAN(**{**OPTIONS, "visualizer": False, **options})


def fit(model, data, home, epochs=None):
    options = {"enable_progress_bar": False, "enable_model_summary": False}
    options |= {} if epochs is None else {"max_epochs": epochs}
    engine = Engine(default_root_dir=home, accelerator="cpu", **options)
    engine.fit(model, datamodule=data)
    return engine


def saved(engine):
    return engine.trainer.checkpoint_callback.best_model_path


def with_bank(model, count=2):
    """Some images, and the model with a bank of normal ones."""
    random = torch.Generator().manual_seed(0)
    normal, images = torch.rand(2, count, 3, 32, 32, generator=random)
    model.text = torch.nn.functional.normalize(torch.randn(2, 24, generator=random), dim=1)
    encoded, owners = model.encode(normal), torch.arange(count)
    model.fit_support(encoded, encoded[None], owners < 0, owners)
    return images


def test_it_sees_images_as_its_authors_do():
    backbone = small().backbone
    assert backbone.normalize
    assert not backbone.quick_gelu


@torch.no_grad()
def test_zero_shot_no_layer_has_a_part_in_the_published_score_and_all_in_the_other():
    found = {}
    for kind in ("published", "map_max"):
        model = small(image_score=kind).model
        images = with_bank(model)
        model.few_shot = False
        before = model(images)
        for layer in model.layers:
            layer.weight.mul_(-1)
        after = model(images)
        assert not torch.allclose(before.anomaly_map, after.anomaly_map)
        found[kind] = torch.equal(before.pred_score, after.pred_score)
        if kind == "map_max":
            assert torch.equal(after.pred_score, after.anomaly_map.amax(dim=(1, 2)))
    assert found == {"published": True, "map_max": False}


@torch.no_grad()
def test_the_map_adds_probabilities_and_distances_as_they_are():
    model = small().model
    encoded = model.encode(with_bank(model))
    maps = model.level_maps(encoded, model.text)
    whole = maps["text"].sum(dim=0) + 2 * maps["memory"].sum(dim=0)
    torch.testing.assert_close(model.fused_map(encoded, model.text) * 12, whole)
    assert maps["text"].shape == maps["memory"].shape == (4, 2, 32, 32)


@torch.no_grad()
def test_the_two_lists_of_levels_are_two():
    model = small(levels=[1, 3], memory_levels=[2, 3, 4]).model
    encoded = model.encode(with_bank(model))
    assert model.levels == (1, 2, 3, 4)
    assert len(model.layers) == 2
    assert model.memory_bank.rows.shape == (3, 2 * 16, 32), "patches alone, and no copies"
    taps = model.clip.taps(torch.rand(1, 3, 32, 32), [1, 2, 3, 4])
    assert torch.equal(model.bank_tokens(taps), taps[:, 1:, 1:].transpose(0, 1))
    assert model.scored_levels == (3,)
    assert {len(one) for one in model.level_maps(encoded, model.text).values()} == {1}
    assert model.nearest_support(encoded).distance.shape == (1, 2, 16)
    only = small(levels=[1], memory_levels=[2]).model
    encoded = only.encode(with_bank(only))
    assert only.level_maps(encoded, only.text) == {}
    assert only.nearest_support(encoded) is None


def test_the_dice_loss_of_one_image_is_of_the_image():
    model = small().model
    encoded = model.encode(torch.rand(1, 3, 32, 32))
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 4:9, 4:20] = 1
    text = torch.nn.functional.normalize(torch.randn(2, 24), dim=1)
    terms = model.loss_terms(encoded, mask, torch.tensor([True]), text)
    model.few_shot = False
    maps = model.level_maps(encoded, text)["text"]
    for level, found in enumerate(terms.dice):
        both = 2 * (maps[level] * mask[0]).sum() + 1
        alone = 1 - both / (maps[level].sum() + mask.sum() + 1)
        assert found.item() == pytest.approx(alone.item(), abs=1e-6)
        rows = dice(maps[level].transpose(0, 1)[:, None], mask[0].transpose(0, 1)[:, None])
        assert abs(found.item() - rows.item()) > 1e-3, "which is what a squeeze makes of it"


def test_labels_alone_teach_nothing_and_nothing_random_scores(lesions, tmp_path, caplog):
    model = small()
    with caplog.at_level(logging.WARNING):
        engine = fit(model, lesion_data(lesions, mask_column=None), tmp_path, epochs=1)
    assert "nothing has taught the layers" in caplog.text
    restored = APRILGAN.load_from_checkpoint(saved(engine)).model.eval()
    image = torch.rand(2, 3, 32, 32)
    for one in (model.model.eval(), restored):
        with torch.inference_mode():
            maps = one.level_maps(one.encode(image), one.text)
            assert maps.keys() == {"memory"}
            torch.testing.assert_close(one(image).anomaly_map, maps["memory"].mean(dim=0))
    first = small().model.layers.state_dict()
    assert all(
        torch.equal(value, first[name]) for name, value in restored.layers.state_dict().items()
    )
    fit(model, lesion_data(lesions), tmp_path, epochs=1)
    assert model.model.uses_layers, "masks have taught them since"


def test_normal_images_alone_teach_nothing_either(lesions, tmp_path, caplog):
    model = small(object_name="square")
    places = {"abnormal_dir": "abnormal", "mask_dir": "../masks/abnormal", "num_workers": 0}
    data = Folder(name="few", root=lesions / "images", normal_dir="normal", **places)
    with caplog.at_level(logging.WARNING):
        fit(model, data, tmp_path, epochs=1)
    assert "nothing has taught the layers: there are neither masks of abnormal" in caplog.text
    assert not model.model.uses_layers
    first = small().model.layers.state_dict()
    found = model.model.layers.state_dict()
    assert all(torch.equal(found[name], value) for name, value in first.items())


def test_without_a_training_nothing_random_scores_either(lesions, tmp_path, caplog):
    model = small()
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False)
    with caplog.at_level(logging.WARNING):
        engine.test(model, datamodule=lesion_data(lesions))
    assert "nothing has taught the layers" in caplog.text
    assert not model.model.uses_layers


@pytest.fixture(scope="module")
def sets(tmp_path_factory, bmad_tree):
    """All sets of BMAD, of which three have masks."""
    root = tmp_path_factory.mktemp("BMAD")
    for category in BMAD_SETS:
        bmad_tree(category, root, count=2)
    return root


def test_zero_shot_it_learns_from_sets_with_masks_and_says_which_it_skips(sets, tmp_path, caplog):
    data = BMADLeaveOneOut(sets, category="Liver", num_workers=0)
    model, seen = small(lr=1e-2), []
    encode = model.model.encode
    model.model.encode = lambda images: seen.append(len(images)) or encode(images)
    with caplog.at_level(logging.WARNING):
        fit(model, data, tmp_path, epochs=1)
    skipped = data.train_data.samples.groupby("set_name")["has_masks"].all()
    names = sorted(skipped[~skipped].index)
    assert len(names) == 3
    [said] = [one.message for one in caplog.records if "skipped are images without" in one.message]
    assert all(name in said for name in names)
    assert not any(name in said for name in skipped[skipped].index)
    assert model.model.uses_layers
    assert not model.model.few_shot
    learnt_from = int(data.train_data.samples["has_masks"].sum())
    assert sum(seen) <= learnt_from + 2 * len(data.val_data)
    assert sum(seen) < len(data.train_data) + len(data.val_data)


def test_zero_shot_without_any_mask_it_refuses(sets, tmp_path):
    data = BMADLeaveOneOut(sets, category="Liver", num_workers=0)
    data.setup()
    setup = data._training_data

    def without(*args):
        found = setup(*args)
        found.samples = found.samples[~found.samples["has_masks"].astype(bool)]
        return found

    data._training_data = without
    with pytest.raises(NotReadyError, match="APRIL-GAN learns from masks, and no abnormal image"):
        fit(small(), data, tmp_path, epochs=1)


@pytest.fixture(scope="module")
def trained(lesions, tmp_path_factory):
    model = small(lr=1e-2)
    engine = fit(model, lesion_data(lesions), tmp_path_factory.mktemp("trained"), epochs=2)
    return model, saved(engine)


@pytest.mark.parametrize("kind", ["authors", "ours"])
def test_layers_that_are_given_stay_as_they_are(kind, trained, lesions, tmp_path, caplog):
    layers, path = trained[0].model.layers.state_dict(), trained[1]
    if kind == "authors":
        path = tmp_path / "mvtec_pretrained.pth"
        named = {f"fc.{name}": value for name, value in layers.items()}
        torch.save({"trainable_linearlayer": named}, path)
    model = small(adapters=str(path))
    engine = fit(model, lesion_data(lesions, k_shot=3), tmp_path)
    assert engine.trainer.current_epoch == 1
    assert not model.wants_abnormal
    assert model.model.uses_layers
    assert "nothing has taught" not in caplog.text
    restored = APRILGAN.load_from_checkpoint(saved(engine))
    fit(restored, lesion_data(lesions, k_shot=3), tmp_path / "again")
    assert restored.model.uses_layers
    for one in (model, restored):
        found = one.model.layers.state_dict()
        assert all(torch.equal(found[name], value) for name, value in layers.items())


def test_given_layers_go_on_learning_if_that_is_asked_for(trained, lesions, tmp_path):
    model = small(adapters=trained[1], train_layers=True)
    before = model.model.layers[0].weight.detach().clone()
    assert torch.equal(before, trained[0].model.layers[0].weight)
    fit(model, lesion_data(lesions), tmp_path, epochs=1)
    assert not torch.equal(model.model.layers[0].weight, before)


@pytest.mark.parametrize(
    "held", [None, {}, {"trainable_linearlayer": {"fc.0.weight": torch.ones(2)}}]
)
def test_a_file_that_holds_no_layers_is_refused(held, tmp_path):
    path = tmp_path / "mvtec_pretrained.pth"
    if held is not None:
        torch.save(held, path)
    with pytest.raises(WeightsError, match=r"(?s)mvtec_pretrained.pth does not fit APRIL-GAN"):
        small(adapters=str(path))


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"levels": [1, 2, 3]}, WeightsError, r"for levels \[1, 2, 3, 4\], and .* reads"),
        ({"levels": [1, 3]}, WeightsError, r"pass levels: \[1, 2, 3, 4\]"),
        ({"backbone_seed": 5}, BackboneMismatchError, "model.ckpt was trained on another backbone"),
        ({"normalize": False}, BackboneMismatchError, "activation and normalisation of the"),
        ({"quick_gelu": True}, BackboneMismatchError, "activation and normalisation of the"),
    ],
)
def test_layers_for_another_model_are_refused(options, kind, words, trained):
    with pytest.raises(kind, match=words):
        small(adapters=trained[1], **options)


def test_layers_that_nothing_taught_and_checkpoints_of_others_are_refused(trained, tmp_path):
    checkpoint = torch.load(trained[1], weights_only=False)
    path = tmp_path / "other.ckpt"
    untaught = {"model._extra_state": torch.tensor(data=False)}
    notes = checkpoint["anomalib_medclip"]
    for changed, words in (
        ({"state_dict": checkpoint["state_dict"] | untaught}, "nothing has taught the layers of"),
        ({"anomalib_medclip": notes | {"method": "MVFA"}}, "other.ckpt is a checkpoint of MVFA"),
    ):
        torch.save(checkpoint | changed, path)
        with pytest.raises(WeightsError, match=words):
            small(adapters=str(path))


@pytest.mark.parametrize(
    "options", [{"lr": 0.1}, {"loss_weights": {"dice": 2}}, {"eleven_fold": True}, {"mosaic": 0.2}]
)
def test_options_of_training_are_refused_where_nothing_is_trained(options):
    with pytest.raises(ConfigError, match=f"{next(iter(options))} has a part in training, and"):
        small(train_layers=False, **options)


def test_the_scale_of_the_test_images_is_forgotten_after_the_test(trained, lesions, tmp_path):
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False)
    model = APRILGAN.load_from_checkpoint(trained[1], transductive=True)
    data = lesion_data(lesions)
    before = model.model.scale.extremes.clone()
    during = []
    model.on_test_epoch_end = lambda: during.append(model.model.scale.extremes.clone())
    engine.test(model, datamodule=data, verbose=False)
    images = torch.stack([data.test_data[i].image for i in range(len(data.test_data))])
    with torch.no_grad():
        highest = model(images.as_subclass(torch.Tensor)).anomaly_map
        encoded = model.model.encode(images.as_subclass(torch.Tensor))
        highest = model.model.fused_map(encoded, model.model.text).amax(dim=(1, 2))
    torch.testing.assert_close(during[0], torch.stack([highest.min(), highest.max()]))
    assert torch.equal(model.model.scale.extremes, before)
    assert not torch.allclose(during[0], before)


@pytest.mark.parametrize("options", [{"few_shot": False}, {"image_score": "map_max"}])
def test_a_scale_of_nothing_is_refused_before_any_training(options):
    with pytest.raises(ConfigError, match="transductive scales the maxima of few-shot maps"):
        small(transductive=True, **options)


def test_zero_shot_data_give_nothing_to_scale(trained, lesions, tmp_path):
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False)
    model = APRILGAN.load_from_checkpoint(trained[1], transductive=True)
    model.model.few_shot = False
    model.on_load_checkpoint = model.preparation.without_training = lambda *args: None
    with pytest.raises(NotReadyError, match="transductive scales the maxima of few-shot maps"):
        engine.test(model, datamodule=lesion_data(lesions))


def test_a_loss_that_it_has_not_has_no_weight():
    for method in (APRILGAN, VCPCLIP):
        with pytest.raises(ConfigError, match="'detection', and there are focal, dice"):
            method(**OPTIONS, loss_weights={"detection": 5.0})


def test_no_levels_are_none_to_compare():
    with pytest.raises(ValueError, match=r"levels \[\] do not ascend"):
        small(memory_levels=[])


def test_a_tower_without_text_compares_with_normal_images_alone(lesions, tmp_path, caplog):
    options = {"backbone": "timm:test_vit", "pretrained": None, "image_size": 64}
    model = APRILGAN(**options, visualizer=False)
    engine = fit(model, lesion_data(lesions), tmp_path)
    assert "nothing has taught" not in caplog.text
    restored = APRILGAN.load_from_checkpoint(saved(engine)).model.eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        for one in (model.model.eval(), restored):
            maps, found = one.level_maps(one.encode(images), one.text), one(images)
            assert maps.keys() == {"memory"}
            torch.testing.assert_close(found.anomaly_map, maps["memory"].mean(dim=0))
            scaled = one.scale(found.anomaly_map.amax(dim=(1, 2)))
            assert torch.equal(found.pred_score, unit_interval(scaled))
    data = DatamoduleView(SimpleNamespace(zero_shot=True, object_name="liver"))
    with pytest.raises(NotReadyError, match="give few-shot data, or a backbone with text"):
        model.preparation.meet(data, None)
    for asked in ({"few_shot": False}, {"train_layers": True}, {"adapters": "layers.pth"}):
        with pytest.raises(ConfigError, match=f"without text, and .* leave {next(iter(asked))}"):
            APRILGAN(**options, **asked)


def test_of_one_normal_patient_the_maximum_counts_as_it_is(caplog):
    model = small().model
    with caplog.at_level(logging.WARNING):
        images = torch.rand(1, 3, 32, 32)
        model.text = torch.nn.functional.normalize(torch.randn(2, 24), dim=1)
        encoded = model.encode(images)
        owners = torch.tensor([-1])  # as an only normal image is numbered
        model.fit_support(encoded, encoded[None], owners > 0, owners)
    assert "one normal patient only" in caplog.text
    assert model.scale.extremes.tolist() == [0, 1]


def test_tiles_lie_row_by_row_and_larger_ones_are_cut():
    sizes = [(2, 3), (3, 3), (1, 2), (2, 4)]
    tiles = [torch.full((1, *size), float(number)) for number, size in enumerate(sizes, 1)]
    rows = ["111222", "111222", "330444", "000444"]
    assert [[int(v) for v in row] for row in mosaic(tiles)[0]] == [list(map(int, r)) for r in rows]


def draws(data, probability=1.0, seed=0, epochs=1):
    """Mosaics for every training image that has a mask."""
    mosaics, table = Mosaics(data.train_data, MethodResize(32), seed), data.train_data.samples
    paths = table["image_path"][table["has_masks"].astype(bool)]
    return [mosaics.draw(p, probability, epoch) for epoch in range(epochs) for p in paths]


def test_mosaics_come_as_often_as_asked_and_repeat_by_the_seed(sets):
    data = BMADLeaveOneOut(sets, category="Retina_RESC", num_workers=0)
    data.setup()
    first, again, other = draws(data), draws(data), draws(data, seed=1)
    same, differs = (
        [torch.equal(one.image, two.image) for one, two in zip(first, found, strict=True)]
        for found in (again, other)
    )
    assert all(same)
    assert not all(differs)
    assert not any(draws(data, probability=0.0))
    often = [one is not None for one in draws(data, 0.2, epochs=200)]
    assert abs(np.mean(often) - 0.2) < 0.06


def test_a_mask_lies_on_its_image_and_what_nobody_knows_stays_so():
    """Each image is as bright as its number; so is a quarter of the mosaic."""
    brightness = [0.2, 0.4, 0.6, 0.8, 1.0]

    class Data:
        augmentations = None
        samples = SimpleNamespace()

        def __getitem__(self, row):
            mask = torch.zeros(8, 8, dtype=torch.bool)
            mask[:, :4] = row % 2 == 1
            unknown = torch.zeros(8, 8, dtype=torch.bool)
            unknown[:, 4:] = row == 2
            image = torch.full((3, 8, 8), brightness[row])
            ignored = unknown if row == 2 else None
            return SimpleNamespace(image=image, gt_mask=mask, ignored=ignored)

    data = Data()
    names = ["one", "one", "one", "one", "other"]
    data.samples = {"image_path": [f"set/{n}/a.png" for n in range(5)], "set_name": names}
    for number in range(8):
        drawn = Mosaics(data, MethodResize(16), number).draw("set/0/a.png", 1.0, epoch=0)
        for top in (0, 8):
            for left in (0, 8):
                image = drawn.image[0, top : top + 8, left : left + 8]
                mask = drawn.mask[0, top : top + 8, left : left + 8]
                row = brightness.index(round(float(image[4, 4]), 1))
                assert row < 4, "of the same set"
                assert bool((mask[:, :4] == row % 2).all())
                assert bool(mask[:, 4:].isnan().all()) == (row == 2)


def test_mosaics_stand_for_training_images_and_what_is_kept_stays(lesions, tmp_path):
    model, plain, found = small(mosaic=1.0), small(), {}
    for name, one in (("mosaic", model), ("plain", plain)):
        examples = one.examples

        def noting(batch, examples=examples, name=name):
            made = examples(batch)
            found.setdefault(name, []).append((batch.image_path, made))
            return made

        one.examples = noting
        fit(one, lesion_data(lesions, train_batch_size=4), tmp_path / name, epochs=2)
    for (paths, made), (_, other) in zip(found["mosaic"], found["mosaic"][1:], strict=False):
        assert not torch.equal(made[0], other[0]), "each epoch has its own"
        assert len(paths) == 4
    first = dict(zip(found["plain"][0][0], found["plain"][0][1][0], strict=True))
    for paths, made in found["plain"]:
        for path, encoded in zip(paths, made[0], strict=True):
            assert torch.equal(first[path], encoded)
    for paths, made in found["mosaic"]:
        for path, encoded in zip(paths, made[0], strict=True):
            assert not torch.allclose(first[path], encoded)
    assert np.isfinite(float(model.model.layers[0].weight.sum()))
