import json
import random
from dataclasses import asdict, replace
from typing import get_type_hints

import numpy as np
import pytest
import torch
from anomalib.engine import Engine
from anomalib.models import Patchcore
from daily import THOROUGH
from right_records import right_record
from tiny import METHODS, lesion_data, small

from anomalib_medclip.compare.cell_record import CellRecord
from anomalib_medclip.compare.explanation import explain
from anomalib_medclip.compare.store import Store
from anomalib_medclip.components.augmentation import ELEVEN_FOLD
from anomalib_medclip.components.model import ClipModel
from anomalib_medclip.models.madclip import MadCLIP
from anomalib_medclip.models.mvfa import MVFA


def fit(method, lesions, home, **options):
    """A method after one epoch, its data, and all images that it was not fitted to."""
    model, data = small(method, **options), lesion_data(lesions)
    engine = Engine(
        default_root_dir=home, accelerator="cpu", max_epochs=1, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    engine.fit(model, datamodule=data)
    items = [part[i] for part in (data.test_data, data.val_data) for i in range(len(part))]
    return model, data, items


EXPLAINED = [
    method
    for method in METHODS
    if get_type_hints(method)["model"].level_maps is not ClipModel.level_maps
]
"""Methods that show their levels, which none has to."""


@pytest.fixture(scope="module", params=EXPLAINED, ids=lambda method: method.__name__)
def fitted(request, lesions, tmp_path_factory):
    return fit(request.param, lesions, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def mvfa(lesions, tmp_path_factory):
    return fit(MVFA, lesions, tmp_path_factory.mktemp("mvfa"))


@pytest.fixture(scope="module")
def explanation(fitted):
    model, data, items = fitted
    return explain(model, items, data.support_data, seed=0)


def test_the_methods_of_papers_show_their_levels():
    assert {"IQECLIP", "MVFA", "MadCLIP", "MediCLIP"} <= {one.__name__ for one in EXPLAINED}


def stacked(items):
    return torch.stack([item.image for item in items]).as_subclass(torch.Tensor)


def test_every_method_shows_each_level_beside_its_final_map(fitted, explanation):
    model, _, items = fitted
    maps = explanation.maps
    assert explanation.level_maps
    for of_levels in explanation.level_maps.values():
        assert of_levels.dtype == np.uint8
        assert of_levels.shape == (len(maps), len(explanation.levels), 32, 32)
        assert len(np.unique(of_levels[0, 0])) > 1
    answers = model(stacked([items[n] for n in explanation.shown]))
    assert np.array_equal(maps, (answers.anomaly_map * 255).round().byte().numpy())


def test_it_shows_normal_and_abnormal_images_in_turn(fitted, explanation):
    items = fitted[2]
    labels = [int(items[n].gt_label) for n in explanation.shown]
    assert labels == [1, 0, 1, 0, 1, 0]
    for place, n in enumerate(explanation.shown):
        assert np.array_equal(explanation.masks[place] > 0, items[n].gt_mask.numpy() > 0)


def test_every_method_places_its_images_with_and_without_adapters(fitted, explanation):
    items = fitted[2]
    # Prompts that run through the tower leave no patches without them, those of text none with.
    named = {"without adapters", "with adapters"} & set(explanation.embeddings)
    assert len(named) == 2 if type(fitted[0]).__name__.lower() in THOROUGH else named
    assert explanation.embedded == tuple(range(len(items)))
    for places in explanation.embeddings.values():
        assert places.shape[0] == len(items)
        assert places.shape[1] in (1, 2)
        assert np.isfinite(places).all()
        assert len(np.unique(places.reshape(-1, 2), axis=0)) == places[..., 0].size


def test_explaining_changes_nothing(fitted):
    model, data, items = fitted
    model.train()
    images = stacked(items)
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        scores = model.model(images)
    chance = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    explain(model, items, data.support_data, seed=0)
    assert torch.equal(chance[0], torch.get_rng_state())
    assert np.array_equal(chance[1], np.random.get_state()[1])  # noqa: NPY002
    assert chance[2] == random.getstate()
    assert modes == [module.training for module in model.modules()]
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())
    with torch.no_grad():
        again = model.model(images)
    assert torch.equal(scores.pred_score, again.pred_score)
    assert torch.equal(scores.anomaly_map, again.anomaly_map)


def test_the_store_gives_back_what_was_found(explanation, tmp_path):
    positions = [100 + n for n in range(24)]
    record, arrays = explanation.as_record("test0_explain", positions)
    store = Store(tmp_path)
    whole = CellRecord.of_plain(right_record("MVFA"))
    whole = replace(whole, tests=(replace(whole.tests[0], explain=record),))
    store.write("a", whole, arrays)
    found = store.record("a").tests[0].explain
    assert found == record
    assert found.image == tuple(100 + n for n in explanation.shown)
    kept = store.arrays("a")
    assert all(name.startswith("test0_explain_") for name in kept)
    assert np.array_equal(kept[found.pictures], explanation.pictures)
    for name, value in explanation.level_maps.items():
        assert np.array_equal(kept[found.level_maps[name]], value)
    for name, value in explanation.embeddings.items():
        assert np.array_equal(kept[found.embeddings[name]], value)


def test_the_levels_of_madclip_are_what_its_map_is_the_mean_of(lesions, tmp_path):
    model, _, items = fit(MadCLIP, lesions, tmp_path)
    encoded = model.model.encode(stacked(items))
    with torch.no_grad():
        maps = model.model.level_maps(encoded, model.model.text)["text"]
        whole = model.model.score(encoded, model.model.text).anomaly_map
    torch.testing.assert_close(maps.mean(dim=0), whole)
    assert not torch.allclose(maps[0], maps[-1])


def test_mvfa_has_one_branch_zero_shot_and_two_few_shot(mvfa):
    model, _, items = mvfa
    torch_model, encoded = model.model, model.model.encode(stacked(items))
    with torch.no_grad():
        text = torch_model.text
        both = torch_model.level_maps(encoded, text)
        torch_model.few_shot = False
        alone, nearest = torch_model.level_maps(encoded, text), torch_model.nearest_support(encoded)
        whole = torch_model.score(encoded, text).anomaly_map
        torch_model.few_shot = True
    assert list(both) == ["text", "memory"]
    assert list(alone) == ["text"]
    assert nearest is None
    torch.testing.assert_close(alone["text"].mean(dim=0), whole)
    assert not torch.allclose(both["text"], both["memory"], atol=1e-3)


def test_levels_that_do_not_score_are_not_shown(lesions, tmp_path):
    model, data, items = fit(MVFA, lesions, tmp_path, scored_levels=[2, 4])
    found = explain(model, items, data.support_data, seed=0)
    assert found.levels == (2, 4)
    assert found.level_maps["memory"].shape[1] == 2
    assert [match.level for match in found.nearest[0]] == [2, 4]


@pytest.mark.parametrize("copy", [0, 3, 9])
def test_a_copy_of_a_support_image_finds_itself(mvfa, copy):
    """Its nearest support patches are its own: the image, the copy, and the place all agree."""
    model, data, _ = mvfa
    items = [data.support_data[i] for i in range(len(data.support_data))]
    normal = [item for item in items if not item.gt_label]
    for item in items:
        item.image = ELEVEN_FOLD[copy](item.image.as_subclass(torch.Tensor)[None])[0]
    found = explain(model, items, data.support_data, seed=0)
    shown = [items[n] for n in found.shown]
    assert found.support == tuple(item.image_path.rpartition("/")[2] for item in normal)
    matched = 0
    for item, matches in zip(shown, found.nearest, strict=True):
        for match in matches:
            if item.gt_label:
                continue
            matched += 1
            assert match.distance < 1e-3
            assert match.support == [n.image_path for n in normal].index(item.image_path)
            assert match.copy == copy
            assert match.support_patch == match.patch
            query = (item.image.movedim(0, -1) * 255).round().byte().numpy()
            assert np.array_equal(found.support_pictures[match.picture], query)
    assert matched == 2 * len(found.levels)


def test_the_hottest_patch_is_the_farthest_from_the_support(mvfa):
    model, data, items = mvfa
    found = explain(model, items, data.support_data, seed=0)
    with torch.no_grad():
        stream = model.model.encode(stacked([items[n] for n in found.shown]))
        tokens = model.model.bank_tokens(stream)
        for level, of_level in enumerate(tokens):
            distance = model.model.memory_bank.distance(of_level[:, 1:], level)
            for image, matches in enumerate(found.nearest):
                row, column = matches[level].patch
                assert matches[level].distance == float(distance[image].max())
                assert distance[image, 4 * row + column] == distance[image].max()


def test_the_seed_alone_decides_the_places(mvfa):
    model, data, items = mvfa
    one, same = (explain(model, items, data.support_data, seed=0) for _ in range(2))
    assert np.array_equal(one.embeddings["with adapters"], same.embeddings["with adapters"])


def test_too_few_images_have_maps_but_no_places(mvfa):
    model, data, items = mvfa
    found = explain(model, items[:2], data.support_data, seed=0)
    assert found.embeddings == {}
    assert found.embedded == ()
    assert len(found.maps) == 2
    record, arrays = found.as_record("t", [0, 1])
    assert record.embeddings == {}
    assert set(arrays) >= {"t_pictures", "t_maps", "t_support_pictures"}


def test_no_folder_of_a_file_is_kept(mvfa, lesions):
    model, data, items = mvfa
    record, _ = explain(model, items, data.support_data, seed=0).as_record("t", range(24))
    assert "/" not in json.dumps(asdict(record))
    assert str(lesions) not in json.dumps(asdict(record))


def test_a_baseline_is_not_explained(mvfa):
    _, data, items = mvfa
    baseline = Patchcore(backbone="resnet18", layers=["layer1"], pre_trained=False)
    assert explain(baseline, items, data.support_data, seed=0) is None
