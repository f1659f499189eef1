"""Names from the world become files and folders of results, and never lead out of these."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from anomalib.engine import Engine
from anomalib.visualization import ImageVisualizer
from conftest import save_picture
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.callbacks import ModelCheckpoint
from pandas import DataFrame
from tiny import OPTIONS, lesion_data
from volumes import write_patients

from anomalib_medclip.data import Volumes, VolumeSource
from anomalib_medclip.data.drawing import undrawable_problems
from anomalib_medclip.data.slice_tree import cut_tree
from anomalib_medclip.errors import ConfigError, DamagedFileError
from anomalib_medclip.files import as_json, read_json
from anomalib_medclip.models.mvfa import MVFA
from anomalib_medclip.option_checks import checked_name
from anomalib_medclip.score.inputs import Input, _named, find_inputs
from anomalib_medclip.training.checkpoints import PlainCheckpointIO

HOSTILE = [
    "..",
    ".",
    "../out",
    "../../out",
    "a/b",
    "/out",
    "a\\b",
    "..\\out",
    "a\0b",
    "x" * 201,
]
"""Names that lead elsewhere, or that no file can have."""

REFUSED = "must be the name of one file or folder"


@pytest.fixture
def inside(tmp_path):
    """A folder for all that is written; whatever lies beside it afterwards has escaped."""
    inside = tmp_path / "beside" / "inside"
    inside.mkdir(parents=True)
    yield inside
    assert list(tmp_path.iterdir()) == [inside.parent]
    assert list(inside.parent.iterdir()) == [inside]


@pytest.mark.parametrize("name", [*HOSTILE, ""])
def test_a_name_that_leads_elsewhere_is_refused(name):
    with pytest.raises(ConfigError, match=REFUSED):
        checked_name("name", name)


@pytest.mark.parametrize("name", ["brain", "P 4.1", "...", "-x", "a:b", "Schädel", "x" * 200])
def test_others_are_names(name):
    assert checked_name("name", name) == name


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("part", ["name", "category"])
def test_no_training_leaves_its_folder(part, name, inside, lesions):
    data = lesion_data(lesions, **({"name": name} if part == "name" else {}))
    if part == "category":
        data.category = name
    engine = Engine(default_root_dir=inside, accelerator="cpu", max_epochs=1)
    with pytest.raises(ConfigError, match=f"{part} is .*{REFUSED}"):
        engine.fit(MVFA(**OPTIONS), datamodule=data)
    assert not list(inside.iterdir())


@pytest.mark.parametrize("name", HOSTILE)
def test_no_export_leaves_its_folder(name, inside):
    model = MVFA(**OPTIONS)
    for write in (model.to_torch, model.to_onnx, model.to_openvino):
        with pytest.raises(ConfigError, match=f"model_file_name is .*{REFUSED}"):
            write(inside, name)
    assert not list(inside.iterdir())


def volumes(root, **options):
    source = VolumeSource("{patient}/flair.nii.gz", "{patient}/seg.nii.gz")
    return Volumes(write_patients(root, count=2), [source], intensity=(0, 1000), **options)


@pytest.mark.parametrize("name", HOSTILE)
def test_no_tree_of_slices_leaves_its_folder(name, inside):
    with pytest.raises(ConfigError, match=REFUSED):
        cut_tree(volumes(inside / "hospital", name=name), inside / "out")
    assert not (inside / "out").exists()


def test_a_manifest_of_others_writes_nowhere_else(inside):
    data = volumes(inside / "hospital", name="Brain")
    manifest = cut_tree(data, inside / "out").folder / "manifest.json"
    told = read_json(manifest)
    for name in HOSTILE[2:]:  # with ".json" behind them, dots are a name
        told["volumes"][0]["name"] = name
        manifest.write_text(as_json(told))
        with pytest.raises(DamagedFileError, match=r"manifest\.json does not say"):
            cut_tree(data, inside / "out")


@pytest.mark.parametrize("name", ["..", "../victim.ckpt", "../../victim.ckpt", "/victim.ckpt"])
def test_no_checkpoint_has_another_folders_files_deleted(name, tmp_path):
    """Lightning deletes older checkpoints, by their names in the one that it goes on from."""
    known = ("best_model_path", "kth_best_model_path", "last_model_path")
    state = {"dirpath": ".", "best_model_score": None, "best_k_models": {name: 0.0}}
    state |= dict.fromkeys(known, name)
    torch.save({"callbacks": {"ModelCheckpoint{}": state}}, tmp_path / "model.ckpt")
    found = PlainCheckpointIO().load_checkpoint(tmp_path / "model.ckpt")
    saving = ModelCheckpoint(dirpath=tmp_path)
    saving.load_state_dict(found["callbacks"]["ModelCheckpoint{}"])
    trainer = SimpleNamespace(ckpt_path=None)
    for path in (*(getattr(saving, one) for one in known), *saving.best_k_models):
        assert not saving._should_remove_checkpoint(trainer, path, "new.ckpt")
    own = str(tmp_path / "older.ckpt")
    assert saving._should_remove_checkpoint(trainer, own, "new.ckpt"), "which it is for"


def test_anomalibs_visualizer_follows_no_dots_out_of_its_folder(tmp_path):
    inside, beside = tmp_path / "data" / "a.png", tmp_path / "data" / ".." / "b.png"
    save_picture(inside)
    save_picture(beside)
    table = DataFrame({"image_path": [str(inside), str(beside)]})
    [problem] = undrawable_problems(table, "data", "", [ImageVisualizer()])
    assert problem.file == str(beside)
    assert "named by '..'" in problem.problem
    assert not list(undrawable_problems(table, "data", "", []))


@pytest.mark.parametrize(
    "name",
    ["..nii.gz", ".nii.gz", "...nii.gz", "...png", "....png", ".png", "a\\b.png", "scores.csv.png"],
)
def test_results_of_a_file_of_any_name_lie_in_a_folder_of_its_own(name, tmp_path):
    """Of ``...png`` they would replace the folder above all results."""
    (tmp_path / name).write_bytes(b"")
    [one] = find_inputs(tmp_path / name, tmp_path / "out")
    folder = tmp_path / "out" / one.name
    assert folder.resolve().parent == tmp_path / "out"
    assert folder.name != "scores.csv", "the table of all"


PARTS = st.text("aB._", min_size=1, max_size=4).filter(lambda part: part not in (".", ".."))
PATHS = st.lists(PARTS, min_size=1, max_size=3).map("/".join)


@given(st.lists(PATHS, unique=True), st.sampled_from(["", ".png", ".nii.gz", ".csv"]))
def test_different_inputs_have_different_folders(paths, ending):
    kinds = {"": "series", ".nii.gz": "nifti"}
    found = _named([Input(kinds.get(ending, "picture"), (), f"{one}{ending}") for one in paths])
    names = [one.name.lower() for one in found]
    assert len({*names, "scores.csv"}) == len(names) + 1
    assert all(Path(name).name == name not in ("", ".", "..") for name in names)
