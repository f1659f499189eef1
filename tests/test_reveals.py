"""What files that travel say of whose machine they are from: docs/security.md has the list."""

import gzip
import io
import json
import platform
import socket
import zipfile

import pytest
import torch
import yaml
from command import anomalib
from comparing import PLAIN, compare, lesion_entry, write_config
from PIL import Image
from safetensors.torch import save_file
from scans import UP, numbers, write_stack, write_volume
from tiny import BACKBONE, write_lesions
from volumes import write_patients

from anomalib_medclip.cli import main
from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.models.mvfa import MVFA

WHO = ("jane-home", "jane-login", "jane-host")
"""Of folders above all files, of the user, of the machine."""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder below one that says whose it is; user and machine have names that tell, too."""
    home = tmp_path_factory.mktemp("jane-home") / "project"
    home.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for name in ("USER", "LOGNAME"):
            patch.setenv(name, "jane-login")
        for module, name in ((socket, "gethostname"), (platform, "node")):
            patch.setattr(module, name, lambda: "jane-host")
        yield home


def revealing(folder):
    """Files below a folder, and in its archives, whose bytes say who."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    told = (path for path in files if any(word in text for text in _texts(path) for word in WHO))
    return sorted(path.relative_to(folder).as_posix() for path in told)


def _texts(path):
    parts = [path.read_bytes()]
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            parts += [archive.read(name) for name in archive.namelist()]
    if path.suffix == ".gz":
        parts.append(gzip.decompress(parts[0]))
    if path.suffix == ".png":
        parts.append(repr(Image.open(io.BytesIO(parts[0])).info).encode())
    return [part.decode("latin-1") for part in parts]


@pytest.fixture(scope="module")
def run(home):
    """The folder of a training whose data and weights are named by whole paths."""
    clip = Backbone(BACKBONE, None, 32).load().clip
    weights = home / "clip.safetensors"
    save_file({name: value.contiguous() for name, value in clip.state_dict().items()}, weights)
    write_lesions(home / "lesions")
    data = lesion_entry(home / "lesions", k_shot=2)
    (home / "data.yaml").write_text(yaml.safe_dump(data))
    with pytest.MonkeyPatch.context() as patch:
        anomalib(
            f"train --model anomalib_medclip.MVFA --data {home / 'data.yaml'} "
            f"--default_root_dir {home / 'runs'} --trainer.max_epochs 1 --trainer.accelerator cpu "
            f"--model.backbone '{json.dumps(BACKBONE)}' --model.levels '[1, 2]' "
            f"--model.pretrained {weights} --model.image_size 32",
            patch,
        )
    return home / "runs" / "MVFA" / "lesions" / "v0"


CHECKPOINT = "weights/lightning/model.ckpt"


def test_of_a_training_only_what_the_page_lists_says_who(run):
    assert revealing(run) == ["config.yaml", "test_scores.csv", CHECKPOINT, "worst_cases.csv"]


def test_a_checkpoint_says_who_by_the_path_of_its_weights_alone(run):
    found = torch.load(run / CHECKPOINT)
    assert "jane-home" in found["hyper_parameters"].pop("pretrained")
    assert not any(word in repr(found) for word in WHO)


def test_of_a_pickled_export_the_pickle_says_who_and_its_certificate_does_not(run, tmp_path):
    MVFA.load_from_checkpoint(run / CHECKPOINT).to_torch(tmp_path)
    assert (tmp_path / "weights" / "torch" / "model.json").is_file()
    assert revealing(tmp_path) == ["weights/torch/model.pt"]


@pytest.mark.nightly(
    also="tests/export/test_export.py::"
    "test_a_checkpoint_is_exported_without_its_images_and_without_network"
)
@pytest.mark.parametrize("write", [MVFA.to_onnx, MVFA.to_openvino])
def test_an_exported_graph_does_not_say_who(write, run, tmp_path):
    assert write(MVFA.load_from_checkpoint(run / CHECKPOINT), tmp_path).is_file()
    assert revealing(tmp_path) == []


def test_results_do_not_say_who_made_them(run, home):
    scans, out = home / "scans", home / "maps"
    damaged = write_volume(scans / "damaged.nii.gz")
    damaged.write_bytes(damaged.read_bytes()[:-30])
    write_volume(scans / "whole.nii.gz")
    write_stack(scans / "ct", numbers(), UP, StudyInstanceUID=None)
    words = ["score", str(scans), "--ckpt", str(run / CHECKPOINT), "--out", str(out)]
    words += ["--worst", "1", "--intensity"]
    assert main([*words, "[0, 1000]"]) == 1
    told = (out / "scores.csv").read_text()
    assert "scans/damaged.nii.gz" in told
    assert "made for ct, since" in told
    assert main([*words, "[0, 900]"]) == 1
    assert "maps/whole holds the result of another" in (out / "scores.csv").read_text()
    assert revealing(out) == []


def test_a_tree_of_slices_does_not_say_who_cut_it(home):
    write_patients(home / "hospital")
    (home / "hospital" / "P0" / "flair.nii.gz").write_bytes(b"")
    source = {"image": "{patient}/flair.nii.gz", "mask": "{patient}/seg.nii.gz"}
    given = {"root": str(home / "hospital"), "name": "Brain", "sources": [source]}
    given["intensity"] = [0, 1000]
    data = {"class_path": "anomalib_medclip.data.Volumes", "init_args": given}
    (home / "volumes.yaml").write_text(yaml.safe_dump(data))
    assert main(["slice", str(home / "volumes.yaml"), "--out", str(home / "tree")]) == 1
    manifest = json.loads((home / "tree" / "Brain_AD" / "manifest.json").read_text())
    assert "hospital/P0/flair.nii.gz" in manifest["failed"]["P0/flair.nii.gz"]
    assert revealing(home / "tree") == []


@pytest.mark.nightly(
    also="tests/test_compare.py::test_the_report_shows_what_failed_and_names_no_file"
)
def test_of_a_comparison_page_and_tables_do_not_say_who(home, run):
    data = {"lesions": lesion_entry(home / "lesions")}
    config = write_config(home / "compare.yaml", {"plain": PLAIN}, data)
    assert compare(config, home / "compared") == 0
    told = revealing(home / "compared")
    assert {name.split("/")[0] for name in told} == {"cells", "config.yaml", "grid.json"}
