"""Cells and their keys: a key changes with whatever changes a figure, and with nothing else."""

import shutil

import pytest
from comparing import METHODS, MVFA, PATCHCORE, SMALL, cells_of, lesion_entry, phantom_entry
from PIL import Image

from anomalib_medclip.compare import grid as grid_module
from anomalib_medclip.data.bmad import SETS


@pytest.fixture
def home(lesions, tmp_path):
    """A copy of the pictures, to be changed."""
    shutil.copytree(lesions, tmp_path / "lesions")
    return tmp_path


def keys(home, model=MVFA, data=None, **options):
    entry = {"phantom": lesion_entry(home / "lesions", **(data or {}))}
    return [cell.key for cell in cells_of(home / "c.yaml", {"model": model}, entry, **options)]


def test_models_k_draws_and_seeds_are_multiplied(home):
    models = {"MVFA": MVFA, "PatchCore": PATCHCORE}
    data = {"phantom": lesion_entry(home / "lesions")}
    options = {"k_shot": [2, 3], "draws": {2: 3, 3: 1}, "seeds": [5, 7], "trivial": True}
    cells = cells_of(home / "c.yaml", models, data, **options)
    counts = {}
    for cell in cells:
        counts[cell.model, cell.kind] = counts.get((cell.model, cell.kind), 0) + 1
    assert counts == {
        ("mean intensity", "trivial"): 4, ("image size", "trivial"): 4,
        ("PatchCore", "baseline"): 8, ("MVFA", "method"): 8,
    }  # fmt: skip
    assert len({cell.key for cell in cells}) == len(cells)
    assert [cell.kind for cell in cells] == ["trivial"] * 8 + ["baseline"] * 8 + ["method"] * 8
    drawn = {(c.k_shot, c.draw, c.seed) for c in cells if c.model == "MVFA"}
    assert drawn == {(k, d, s) for k, d in ((2, 0), (2, 1), (2, 2), (3, 0)) for s in (5, 7)}


def test_pictures_are_kept_of_one_draw_and_seed(home):
    data = {"phantom": lesion_entry(home / "lesions")}
    cells = cells_of(home / "c.yaml", {"MVFA": MVFA}, data, draws=2, seeds=[3, 4])
    assert {(c.draw, c.seed): c.keeps for c in cells if c.keeps} == {(0, 3): ("pictures",)}


def test_all_normals_only_where_there_are_normal_training_images(home):
    data = {
        "no splits": lesion_entry(home / "lesions"),
        "splits": phantom_entry(home / "pictures"),
    }
    models = {"PatchCore": PATCHCORE, "MediCLIP": METHODS["MediCLIP"]}
    models["both"] = {**METHODS["MediCLIP"], "normals": ["support", "train"]}
    cells = cells_of(home / "c.yaml", models, data, k_shot=[2, 3])
    found = {(c.model, c.data, c.normals, c.k_shot) for c in cells}
    everyone = {(m, d, "support", k) for m in models for d in data for k in (2, 3)}
    assert found == everyone | {(m, "splits", "train", 2) for m in ("PatchCore", "both")}
    assert all(c.data_configs[c.data]["init_args"]["normals"] == c.normals for c in cells)


def test_zero_shot_data_give_cells_without_k(bmad_tree, home):
    for category in SETS:
        bmad_tree(category, home / "BMAD", count=2)
    options = {"root": str(home / "BMAD"), "category": "Brain", "num_workers": 0}
    entry = {"class_path": "anomalib_medclip.data.BMADLeaveOneOut", "init_args": options}
    models = {"MVFA": MVFA, "PatchCore": PATCHCORE}
    cells = cells_of(home / "c.yaml", models, {"brain": entry}, k_shot=[2, 4], draws=3)
    found = [(c.model, c.normals, c.k_shot, c.draw) for c in cells]
    assert found == [("PatchCore", "support", None, 0), ("MVFA", "support", None, 0)]
    assert cells[0].data_configs["brain"]["init_args"] == options


def test_tests_on_other_data_are_of_one_cell(home):
    data = {"a": lesion_entry(home / "lesions"), "b": phantom_entry(home / "pictures")}
    (cell,) = cells_of(home / "c.yaml", {"MVFA": MVFA}, data, tests={"a": ["a", "b"]})
    assert (cell.data, cell.tests) == ("a", ("a", "b"))
    assert set(cell.determined_by["data"]) == {"a", "b"}


def test_k_stands_where_options_say_so(home):
    init_args = {**PATCHCORE["init_args"], "num_neighbors": "$k_shot"}
    data = {"phantom": lesion_entry(home / "lesions")}
    models = {"PatchCore": {**PATCHCORE, "init_args": init_args}}
    cells = cells_of(home / "c.yaml", models, data, k_shot=[2, 3])
    assert [c.model_config["init_args"]["num_neighbors"] for c in cells] == [2, 3]
    assert cells[0].key != cells[1].key


CHANGES = {
    "an option": {"model": {**MVFA, "init_args": {**SMALL, "lr": 0.5}}},
    "an option deep below": {
        "model": {
            **MVFA,
            "init_args": {**SMALL, "backbone": {**SMALL["backbone"], "embed_dim": 16}},
        }
    },
    "the epochs": {"model": {**MVFA, "max_epochs": 3}},
    "what is recorded": {"model": {**MVFA, "record_every": 2}},
    "K": {"k_shot": [3]},
    "the seed": {"seeds": [1]},
    "how images are read": {"data": {"intensity": [0, 100]}},
    "the split": {"data": {"val_ratio": 0.3}},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_key_changes_with(change, home):
    assert keys(home) != keys(home, **CHANGES[change])


def test_a_key_changes_with_the_draw(home):
    assert len(set(keys(home, draws=2))) == 2


def test_a_key_changes_with_one_pixel(home):
    before = keys(home)
    path = home / "lesions" / "images" / "normal" / "4.png"
    with Image.open(path) as picture:
        changed = picture.copy()
    changed.putpixel((0, 0), changed.getpixel((0, 0)) ^ 1)
    changed.save(path)
    assert keys(home) != before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("images/normal/4.png,0,", "images/normal/4.png,1,"),
        ("masks/abnormal/5.png,p1", "masks/abnormal/7.png,p1"),
        ("images/normal/4.png,0,,p1", "images/normal/4.png,0,,p9"),
    ],
    ids=["label", "mask", "patient"],
)
def test_a_key_changes_with_what_is_said_of_an_image(old, new, home):
    before, table = keys(home), home / "lesions" / "table.csv"
    text = table.read_text()
    assert old in text
    table.write_text(text.replace(old, new))
    assert keys(home) != before


def test_a_key_changes_with_a_file_that_options_name(home):
    weights = home / "adapters.bin"
    model = {**MVFA, "init_args": {**SMALL, "adapters": str(weights)}}
    found = []
    for content in (b"one", b"two"):
        weights.write_bytes(content)
        found.append(keys(home, model=model))
    assert found[0] != found[1]


def test_a_key_changes_with_versions_and_code(home, monkeypatch):
    before = keys(home)
    monkeypatch.setattr(grid_module, "versions", lambda: {"torch": "0.0"})
    other = keys(home)
    monkeypatch.undo()
    monkeypatch.setattr(grid_module, "code_of_package", lambda: "0" * 64)
    assert len({*before, *other, *keys(home)}) == 3


def test_a_key_says_whether_features_are_shared(home):
    """One by one, images may be encoded otherwise in the last digit than in batches."""
    assert keys(home)[0] != keys(home, feature_cache=0.0)[0]


@pytest.mark.parametrize(
    "options",
    [
        {"model": {**MVFA, "note": "a word for people"}},
        {"title": "Another title"},
        {"feature_cache": 1.0},
        {"model": {**dict(reversed(MVFA.items())), "init_args": dict(reversed(SMALL.items()))}},
        {"seeds": [0, 9]},
    ],
    ids=["note", "title", "feature cache", "order", "another seed"],
)
def test_a_key_does_not_change_with(options, home):
    assert keys(home)[0] == keys(home, **options)[0]
