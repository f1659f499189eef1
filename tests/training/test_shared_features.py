"""Features that runs share change nothing but the time, and are shared by none that differ."""

import json
import shutil

import numpy as np
import pytest
from comparing import METHODS, MVFA, SMALL, cells_of, phantom_entry

from anomalib_medclip.compare import grid
from anomalib_medclip.compare.cell_setup import CellSettings
from anomalib_medclip.compare.run_cell import attempt

SHORT = {**MVFA, "max_epochs": 1}


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


@pytest.fixture(scope="module")
def of_mvfa(heads, tmp_path_factory):
    """What a run of MVFA finds, and the features that it leaves."""
    home = tmp_path_factory.mktemp("of_mvfa")
    (cell,) = cells_of(home / "c.yaml", {"MVFA": SHORT}, {"heads": heads})
    return run(cell, home / "features"), home / "features"


@pytest.fixture
def features(of_mvfa, tmp_path):
    """A copy of these features."""
    return shutil.copytree(of_mvfa[1], tmp_path / "features")


def files(folder):
    return sorted(folder.rglob("*.npz"))


@pytest.fixture(scope="module", params=METHODS)
def name(request):
    """Methods; daily MadCLIP, which makes the most copies, in colours that a seed draws."""
    return request.param


@pytest.fixture(scope="module")
def cells(name, heads, tmp_path_factory):
    """Runs of a method with two seeds."""
    config = tmp_path_factory.mktemp("cells") / "c.yaml"
    models = {name: {**METHODS[name], "max_epochs": 1}}
    return cells_of(config, models, {"heads": heads}, seeds=[0, 1])


@pytest.fixture(scope="module")
def alone(cells, tmp_path_factory):
    """What the second seed finds, and the features that it leaves in an empty folder."""
    features = tmp_path_factory.mktemp("alone") / "features"
    return run(cells[1], features), features


@pytest.mark.daily_for(name="MadCLIP")
def test_an_empty_a_full_and_a_torn_shelf_give_the_same(cells, alone, tmp_path):
    empty, features = alone[0], shutil.copytree(alone[1], tmp_path / "features")
    kept = files(features)
    assert kept
    assert not list(features.rglob("*.partial"))
    full = run(cells[1], features)
    assert files(features) == kept, "nothing was computed twice"
    for file in kept[::2]:
        file.unlink()
    torn = run(cells[1], features)
    assert files(features) == kept
    assert full[0] == torn[0] == empty[0]
    assert full[2] == torn[2] == empty[2]
    assert full[1] > torn[1] > empty[1]


@pytest.mark.daily_for(name="MadCLIP")
def test_seeds_and_draws_of_others_change_nothing(cells, alone, tmp_path):
    """What a seed draws, such as the colours of a copy, is nobody else's."""
    run(cells[0], tmp_path)
    after, (found, _) = run(cells[1], tmp_path), alone
    assert after[0] == found[0]
    assert after[2] == found[2]
    assert after[1] > found[1], "test images are shared"


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
def test_nothing_is_shared_with(other, heads, features, tmp_path):
    model, data = OTHERS[other]
    entry = {**heads, "init_args": {**heads["init_args"], **data}}
    (cell,) = cells_of(tmp_path / "c.yaml", {"MVFA": {**SHORT, **model}}, {"heads": entry})
    before = files(features)
    run(cell, features)
    shelves = {file.parents[1].name for file in before}
    assert len(shelves) == 1
    assert {file.parents[1].name for file in files(features)} > shelves
    assert [file for file in files(features) if file.parents[1].name in shelves] == before


NEWER = {"versions": lambda: {"torch": "0.0"}, "code_of_package": lambda: "0" * 64}


@pytest.mark.parametrize("newer", NEWER)
def test_nothing_is_shared_with_other_code(newer, heads, of_mvfa, features, tmp_path, monkeypatch):
    """Features of another torch, or of code before a correction, are no longer ours."""
    before = files(features)
    monkeypatch.setattr(grid, newer, NEWER[newer])
    (cell,) = cells_of(tmp_path / "c.yaml", {"MVFA": SHORT}, {"heads": heads})
    assert run(cell, features)[1] == of_mvfa[0][1], "as many as into an empty folder"
    assert len(files(features)) == 2 * len(before)


def test_learning_options_share_what_the_tower_says(heads, of_mvfa, features, tmp_path):
    models = {"fast": {**SHORT, "init_args": {**SMALL, "lr": 0.1}}}
    (cell,) = cells_of(tmp_path / "c.yaml", models, {"heads": heads})
    before = files(features)
    assert run(cell, features)[1] > of_mvfa[0][1]
    assert files(features) == before


def test_without_room_nothing_is_kept_and_the_same_found(heads, tmp_path):
    (cell,) = cells_of(tmp_path / "c.yaml", {"MVFA": SHORT}, {"heads": heads})
    with_room = run(cell, tmp_path / "room")
    size = sum(file.stat().st_size for file in files(tmp_path / "room"))
    some = run(cell, tmp_path / "little", gigabytes=size / 2 / 1e9)
    none = run(cell, tmp_path / "none", gigabytes=0.0)
    kept = sum(np.load(file)["value"].nbytes for file in files(tmp_path / "little"))
    assert 0 < kept <= size / 2
    assert files(tmp_path / "none") == []
    assert with_room[0] == some[0] == none[0]
