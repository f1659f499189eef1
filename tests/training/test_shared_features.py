"""Features that runs share change nothing but the time, and are shared by none that differ."""

import json

import pytest
from comparing import METHODS, MVFA, SMALL, cells_of, phantom_entry

from anomalib_medclip.compare import grid
from anomalib_medclip.compare.cell_setup import CellSettings
from anomalib_medclip.compare.run_cell import attempt


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    return phantom_entry(tmp_path_factory.mktemp("heads"))


def run(cell, features, gigabytes=1.0):
    """A record without what it cost, how many features were found, and the pictures."""
    record, arrays = attempt(cell, CellSettings(features, gigabytes, accelerator="cpu"))
    assert record.status == "done", record.error.traceback
    plain, found = record.as_plain(), record.measured.features_from_cache
    del plain["measured"]
    return json.dumps(plain, sort_keys=True), found, {k: v.tolist() for k, v in arrays.items()}


def files(folder):
    return sorted(folder.rglob("*.npy"))


@pytest.mark.parametrize("name", METHODS)
def test_an_empty_a_full_and_a_torn_shelf_give_the_same(name, heads, tmp_path):
    model = {**METHODS[name], "max_epochs": 1}
    (cell,) = cells_of(tmp_path / "c.yaml", {name: model}, {"heads": heads})
    features = tmp_path / "features"
    empty = run(cell, features)
    kept = files(features)
    assert kept
    assert not list(features.rglob("*.partial"))
    full = run(cell, features)
    assert files(features) == kept, "nothing was computed twice"
    for file in kept[::2]:
        file.unlink()
    torn = run(cell, features)
    assert files(features) == kept
    assert full[0] == torn[0] == empty[0]
    assert full[2] == torn[2] == empty[2]
    assert full[1] > torn[1] > empty[1]


@pytest.mark.parametrize("name", METHODS)
def test_seeds_and_draws_of_others_change_nothing(name, heads, tmp_path):
    """What a seed draws, such as the colours of a copy, is nobody else's."""
    models, options = {name: {**METHODS[name], "max_epochs": 1}}, {"seeds": [0, 1]}
    first, second = cells_of(tmp_path / "c.yaml", models, {"heads": heads}, **options)
    alone = run(second, tmp_path / "alone")
    run(first, tmp_path / "both")
    after = run(second, tmp_path / "both")
    assert after[0] == alone[0]
    assert after[2] == alone[2]
    assert after[1] > alone[1], "test images are shared"


OTHERS = {
    "levels": ({"init_args": {**SMALL, "levels": [1, 2]}}, {}),
    "a backbone's seed": ({"init_args": {**SMALL, "backbone_seed": 1}}, {}),
    "the entry of images": ({"init_args": {**SMALL, "normalize": True}}, {}),
    "half precision": ({"init_args": {**SMALL, "cache": "float16"}}, {}),
    "another method": ({"class_path": "anomalib_medclip.MadCLIP"}, {}),
    "the reading of images": ({}, {"intensity": [0, 100]}),
    "other images": ({}, {"slices": 6}),
}


@pytest.mark.parametrize("other", OTHERS)
def test_nothing_is_shared_with(other, heads, tmp_path):
    features, (model, data) = tmp_path / "features", OTHERS[other]
    entry = {**heads, "init_args": {**heads["init_args"], **data}}
    short = {**MVFA, "max_epochs": 1}
    (one,) = cells_of(tmp_path / "c.yaml", {"MVFA": short}, {"heads": heads})
    (two,) = cells_of(tmp_path / "d.yaml", {"MVFA": {**short, **model}}, {"heads": entry})
    run(one, features)
    before = files(features)
    run(two, features)
    shelves = {file.parents[1].name for file in before}
    assert len(shelves) == 1
    assert {file.parents[1].name for file in files(features)} > shelves
    assert [file for file in files(features) if file.parents[1].name in shelves] == before


NEWER = {"versions": lambda: {"torch": "0.0"}, "code_of_package": lambda: "0" * 64}


@pytest.mark.parametrize("newer", NEWER)
def test_nothing_is_shared_with_other_code(newer, heads, tmp_path, monkeypatch):
    """Features of another torch, or of code before a correction, are no longer ours."""
    models, features = {"MVFA": {**MVFA, "max_epochs": 1}}, tmp_path / "features"
    (cell,) = cells_of(tmp_path / "c.yaml", models, {"heads": heads})
    run(cell, features)
    before = files(features)
    monkeypatch.setattr(grid, newer, NEWER[newer])
    (cell,) = cells_of(tmp_path / "c.yaml", models, {"heads": heads})
    assert run(cell, features)[1] == run(cell, tmp_path / "empty")[1]
    assert len(files(features)) == 2 * len(before)


def test_learning_options_share_what_the_tower_says(heads, tmp_path):
    features = tmp_path / "features"
    models = {"slow": MVFA, "fast": {**MVFA, "init_args": {**SMALL, "lr": 0.1}}}
    slow, fast = cells_of(tmp_path / "c.yaml", models, {"heads": heads})
    run(slow, features)
    before = files(features)
    assert run(fast, features)[1] > 0
    assert files(features) == before


def test_without_room_nothing_is_kept_and_the_same_found(heads, tmp_path):
    (cell,) = cells_of(tmp_path / "c.yaml", {"MVFA": MVFA}, {"heads": heads})
    with_room = run(cell, tmp_path / "room")
    size = sum(file.stat().st_size for file in files(tmp_path / "room"))
    some = run(cell, tmp_path / "little", gigabytes=size / 2 / 1e9)
    none = run(cell, tmp_path / "none", gigabytes=0.0)
    kept = sum(file.stat().st_size for file in files(tmp_path / "little"))
    assert 0 < kept <= 0.6 * size
    assert files(tmp_path / "none") == []
    assert with_room[0] == some[0] == none[0]
