"""Cells and their keys: a key changes with whatever changes a figure, and with nothing else."""

import re
import shutil

import pytest
from comparing import (
    METHODS,
    MVFA,
    PATCHCORE,
    PLAIN,
    SMALL,
    cells_of,
    lesion_entry,
    phantom_entry,
)
from PIL import Image

from anomalib_medclip.compare import grid as grid_module
from anomalib_medclip.compare import named_files
from anomalib_medclip.data.bmad import BMAD_SETS
from anomalib_medclip.data.config import build_data
from anomalib_medclip.errors import ConfigError


@pytest.fixture
def home(lesions, tmp_path):
    """A copy of the pictures, to be changed."""
    shutil.copytree(lesions, tmp_path / "lesions")
    return tmp_path


@pytest.fixture(scope="module")
def still(lesions, tmp_path_factory):
    """Pictures that no test changes, and the keys of their comparison."""
    home = tmp_path_factory.mktemp("still")
    shutil.copytree(lesions, home / "lesions")
    return home, keys(home)


def keys(home, model=MVFA, data=None, **options):
    entry = {"phantom": lesion_entry(home / "lesions", **(data or {}))}
    return [cell.key for cell in cells_of(home / "c.yaml", {"model": model}, entry, **options)]


def test_a_model_is_run_on_the_data_that_it_names_and_the_others_on_all(home):
    models = {"MVFA": {**MVFA, "data": ["second"]}, "PatchCore": PATCHCORE}
    data = {name: lesion_entry(home / "lesions") for name in ("first", "second")}
    cells = cells_of(home / "c.yaml", models, data, k_shot=[2])
    assert {cell.data for cell in cells if cell.model == "MVFA"} == {"second"}
    assert {cell.data for cell in cells if cell.model == "PatchCore"} == {"first", "second"}
    for named in (["third"], []):
        models["MVFA"]["data"] = named
        with pytest.raises(ConfigError, match=r"data of MVFA are .*; name some of first, second"):
            cells_of(home / "c.yaml", models, data, k_shot=[2])


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
    for category in BMAD_SETS:
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
    assert set(cell.determined_by.data) == {"a", "b"}


def test_k_stands_where_options_say_so(home):
    init_args = {**PATCHCORE["init_args"], "num_neighbors": "$k_shot"}
    data = {"phantom": lesion_entry(home / "lesions")}
    models = {"PatchCore": {**PATCHCORE, "init_args": init_args}}
    cells = cells_of(home / "c.yaml", models, data, k_shot=[2, 3])
    assert [c.model_config["init_args"]["num_neighbors"] for c in cells] == [2, 3]
    assert cells[0].key != cells[1].key


def test_k_stands_within_texts_of_any_depth(home):
    deep = {"a": [{"b": "x/$k_shot/$k_shot.pt"}, "$k_shot"], "c": 3, "d": None, "e": 0.5}
    assert named_files.for_k(deep, 4) == {"a": [{"b": "x/4/4.pt"}, 4], "c": 3, "d": None, "e": 0.5}
    model = {**MVFA, "init_args": {**SMALL, "adapters": "after-$k_shot-shot.pt"}}
    data = {"phantom": lesion_entry(home / "lesions")}
    cells = cells_of(home / "c.yaml", {"MVFA": model}, data, k_shot=[2, 3])
    found = [c.model_config["init_args"]["adapters"] for c in cells]
    assert found == ["after-2-shot.pt", "after-3-shot.pt"]


# --- lists of support images


NORMAL, ABNORMAL = (0, 2, 8, 10, 16, 18), (1, 3, 9, 11, 17, 19)
"""Of different patients, two each."""


def write_list(path, count):
    """A list of so many support images of each class, in the authors' format."""
    lines = [f"{tag}-0: {' '.join(f'{n}.png' for n in numbers[:count])}"
             for tag, numbers in (("n", NORMAL), ("a", ABNORMAL))]  # fmt: skip
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines))
    return path


def test_k_chooses_the_list_of_support_images(home):
    for k_shot in (2, 4):
        write_list(home / "lists" / f"{k_shot}-shot.txt", k_shot)
    data = {"support_list": str(home / "lists" / "$k_shot-shot.txt")}
    entry = {"phantom": lesion_entry(home / "lesions", **data)}
    cells = cells_of(home / "c.yaml", {"MVFA": MVFA}, entry, k_shot=[2, 4])
    found = {}
    for cell in cells:
        data = build_data(cell.data_configs["phantom"], "here")
        data.setup()
        found[cell.k_shot] = data.support_counts["normal"]["images"]
    assert found == {2: 2, 4: 4}
    assert len({cell.key for cell in cells}) == 2


def test_a_key_changes_with_the_images_that_a_list_names(home):
    path = write_list(home / "list.txt", 2)
    before = keys(home, PLAIN, data={"support_list": str(path)})
    path.write_text(path.read_text().replace("0.png", "8.png").replace("1.png", "9.png"))
    after = keys(home, PLAIN, data={"support_list": str(path)})
    shutil.copy(path, home / "other.txt")
    assert (
        len({*before, *after, *keys(home, PLAIN, data={"support_list": str(home / "other.txt")})})
        == 3
    )


def test_one_list_is_not_the_support_of_several_k(home):
    path = write_list(home / "list.txt", 2)
    said = rf"c.yaml: support_list {path} of data phantom is one support for K of \[2, 4\]; write"
    with pytest.raises(ConfigError, match=said):
        keys(home, data={"support_list": str(path)}, k_shot=[2, 4])


def test_draws_of_one_list_on_fixed_splits_are_one(home):
    table, path = home / "lesions" / "table.csv", write_list(home / "list.txt", 2)
    fixed = {"support_list": str(path), "split_column": "split"}
    free = keys(home, PLAIN, data={"support_list": str(path)}, draws=3)
    lines = table.read_text().splitlines()
    splits = ["train" if n < 12 else "test" for n in range(len(lines) - 1)]
    rows = [f"{line},{split}" for line, split in zip(lines[1:], splits, strict=True)]
    table.write_text("\n".join([f"{lines[0]},split", *rows]))
    assert len(free) == 3, "what is not in the list is split anew"
    assert len(keys(home, PLAIN, data=fixed, draws=3)) == 1
    assert len(keys(home, PLAIN, data={"split_column": "split"}, draws=3)) == 3


GONE = {
    "a list": ({"support_list": "gone.txt"}, "no support_list gone.txt; correct support_list"),
    "a list of one K": ({"support_list": "$k_shot-shot.txt"}, "no support_list 4-shot.txt"),
    "a table": ({"table": "gone.csv"}, "no table gone.csv; correct table"),
    "one of several tables": (
        {"table": {"train": "gone.csv", "test": "table.csv"}, "patient_column": None},
        "no table gone.csv",
    ),
}


@pytest.mark.parametrize("what", GONE)
def test_planning_names_what_is_not_there(what, home, monkeypatch):
    monkeypatch.chdir(home / "lesions")
    write_list(home / "lesions" / "2-shot.txt", 2)
    data, said = GONE[what]
    with pytest.raises(ConfigError, match=rf"data phantom: {re.escape(said)}"):
        keys(home, data=data, k_shot=[2, 4] if "$k_shot" in str(data) else [2])


def test_zero_shot_data_have_no_k_to_name_a_file_by(bmad_tree, home):
    for category in BMAD_SETS:
        bmad_tree(category, home / "BMAD", count=2)
    options = {"root": str(home / "BMAD"), "category": "Brain", "num_workers": 0}
    entry = {"class_path": "anomalib_medclip.data.BMADLeaveOneOut", "init_args": options}
    model = {**MVFA, "init_args": {**SMALL, "adapters": "$k_shot-shot.pt"}}
    with pytest.raises(ConfigError, match="asks for K, and zero-shot data have none"):
        cells_of(home / "c.yaml", {"MVFA": model}, {"brain": entry})


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
def test_a_key_changes_with(change, still):
    home, before = still
    assert before != keys(home, **CHANGES[change])


def test_a_key_changes_with_the_draw(home):
    assert len(set(keys(home, PLAIN, draws=2))) == 2


def test_a_key_changes_with_one_pixel(home):
    before = keys(home, PLAIN)
    path = home / "lesions" / "images" / "normal" / "4.png"
    with Image.open(path) as picture:
        changed = picture.copy()
    changed.putpixel((0, 0), changed.getpixel((0, 0)) ^ 1)
    changed.save(path)
    assert keys(home, PLAIN) != before


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
    before, table = keys(home, PLAIN), home / "lesions" / "table.csv"
    text = table.read_text()
    assert old in text
    table.write_text(text.replace(old, new))
    assert keys(home, PLAIN) != before


def test_a_key_changes_with_a_file_that_options_name(home):
    weights = home / "adapters.bin"
    model = {**MVFA, "init_args": {**SMALL, "adapters": str(weights)}}
    found = []
    for content in (b"one", b"two"):
        weights.write_bytes(content)
        found.append(keys(home, model=model))
    assert found[0] != found[1]


def test_a_key_changes_with_a_file_in_a_folder_that_a_model_names(home):
    folder = home / "textures" / "deep"
    folder.mkdir(parents=True)
    model, found = {**MVFA, "init_args": {**SMALL, "adapters": str(folder.parent)}}, []
    for content in (b"one", b"two"):
        (folder / "1.png").write_bytes(content)
        found.append(keys(home, model=model))
    assert found[0] != found[1]


def test_a_key_changes_with_the_code_of_a_parent(home, monkeypatch):
    """One's own method may be built on one of ours."""
    model = {**MVFA, "class_path": "unlucky.Raises"}
    before, real = keys(home, model=model), named_files.digest_of
    own = lambda path, *more: "0" * 64 if path.name == "mvfa" else real(path, *more)  # noqa: E731
    monkeypatch.setattr(named_files, "digest_of", own)
    assert keys(home, model=model) != before


def test_a_key_changes_with_versions_and_code(home, monkeypatch):
    before = keys(home, PLAIN)
    monkeypatch.setattr(grid_module, "versions", lambda: {"torch": "0.0"})
    other = keys(home, PLAIN)
    monkeypatch.undo()
    monkeypatch.setattr(grid_module, "code_of_package", lambda: "0" * 64)
    assert len({*before, *other, *keys(home, PLAIN)}) == 3


def test_a_key_says_whether_features_are_shared(still):
    """One by one, images may be encoded otherwise in the last digit than in batches."""
    home, before = still
    assert before != keys(home, feature_cache=0.0)


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
def test_a_key_does_not_change_with(options, still):
    home, before = still
    assert before[0] == keys(home, **options)[0]


def test_a_baseline_of_ours_learns_from_the_support_and_from_all_normals_where_it_can_use_them(
    tmp_path,
):
    """Those that want abnormal images are given the support, as methods are."""
    path, data = "anomalib_medclip.baselines", {"heads": phantom_entry(tmp_path / "heads")}
    names = ("SimpleNet", "PatchSVDD", "DRA")
    models = {name: {"class_path": f"{path}.{name}"} for name in names}
    cells = cells_of(tmp_path / "c.yaml", models, data, k_shot=[2])
    found = {name: [cell.normals for cell in cells if cell.model == name] for name in names}
    both = ["support", "train"]
    assert found == {"SimpleNet": both, "PatchSVDD": both, "DRA": ["support"]}
    assert {cell.kind for cell in cells if cell.model in names} == {"baseline"}
