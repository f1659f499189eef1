"""Methods of other packages are found by entry points, and a broken one breaks no other."""

import sys
from pathlib import Path

import pytest
import torch
from tiny import OPTIONS

import anomalib_medclip
from anomalib_medclip import Inferencer, cli, models
from anomalib_medclip.bench import measure, output
from anomalib_medclip.commands import bench
from anomalib_medclip.compare.comparison import build_model, parse_model
from anomalib_medclip.errors import CheckpointError, ConfigError, PluginError

FAR = """
from anomalib_medclip import MVFA

class FarProbe(MVFA):
    '''A method of another package.'''

class Other(MVFA):
    '''Not named as its entry.'''
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a package with entry points into a folder of its own on Python's path."""

    installed = []

    def one(package, code, **entries):
        installed.append(package)
        home = tmp_path / package
        about = home / f"{package}-1.0.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in entries.items()]
        (about / "entry_points.txt").write_text("\n".join([f"[{models.GROUP}]", *lines, ""]))
        (home / f"{package}.py").write_text(code)
        monkeypatch.syspath_prepend(home)

    yield one
    for package in installed:
        sys.modules.pop(package, None)


@pytest.fixture
def far(install):
    install("far_methods", FAR, farprobe="far_methods:FarProbe")


@pytest.fixture
def checkpoint(finished, tmp_path):
    """What a run of the other package's method leaves."""
    found = torch.load(finished, weights_only=True)
    found["anomalib_medclip"]["method"] = "FarProbe"
    torch.save(found, tmp_path / "far.ckpt")
    return tmp_path / "far.ckpt"


def test_another_packages_method_is_found_and_imported_only_when_asked_for(install):
    install("far_methods", "raise SystemExit", farprobe="far_methods:FarProbe")
    folders = Path(models.__file__).parent.glob("*/lightning_model.py")
    assert models.list_models() == sorted(
        ["farprobe", *(path.parent.name.replace("_", "") for path in folders)]
    )
    assert models.get_model("mvfa") is anomalib_medclip.MVFA


def test_it_has_a_class_by_either_name(far):
    found = models.get_model("farprobe")
    assert found is models.get_model("FarProbe") is anomalib_medclip.FarProbe
    assert found.__module__ == "far_methods"


def test_its_checkpoint_is_scored_as_one_of_ours(far, checkpoint, finished):
    image = torch.rand(1, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    theirs, same = Inferencer(checkpoint), Inferencer(finished)
    assert theirs.origin["method"] == "FarProbe"
    assert torch.equal(theirs.score(image).full_maps, same.score(image).full_maps)


@pytest.mark.daily_for(apart=False)  # its processes import all there is
@pytest.mark.parametrize("apart", [False, True])
def test_bench_measures_it(apart, far, tmp_path, monkeypatch):
    """With a K each process has to find the method: one is asked whether it has a bank."""
    if not apart:
        monkeypatch.setattr(bench, "measure_apart", measure.measure_setting)
    command = (
        f"bench --quick --method farprobe --k-shot {2 * apart} --batch-size 1 --rounds 1 --out"
    )
    assert cli.main([*command.split(), str(tmp_path / "bench.csv")]) == 0
    assert [row["method"] for row in output.load(tmp_path / "bench.csv")["rows"]] == ["farprobe"]


def test_compare_builds_it(far):
    options = {"class_path": "anomalib_medclip.FarProbe", "init_args": OPTIONS}
    assert parse_model(options).model.class_path.endswith("FarProbe")
    assert type(build_model(options)) is anomalib_medclip.FarProbe


def test_a_checkpoint_of_a_method_that_is_not_installed_says_what_to_install(checkpoint):
    with pytest.raises(CheckpointError, match=r"of the method FarProbe, which .*; install"):
        Inferencer(checkpoint)
    found = torch.load(checkpoint, weights_only=True)
    found["anomalib_medclip"]["package"] = "far_methods"
    torch.save(found, checkpoint)
    with pytest.raises(CheckpointError, match="install the one with the module far_methods"):
        Inferencer(checkpoint)


@pytest.mark.parametrize(
    ("code", "value", "words"),
    [
        (
            "import nowhere_at_all",
            "broken:Broken",
            "cannot be imported: .*nowhere_at_all.*; update",
        ),
        ("x = 1 / 0", "broken:Broken", r"cannot be imported: ZeroDivisionError.*uninstall broken"),
        ("", "broken:Broken", r"cannot be imported: AttributeError.*uninstall broken"),
        ("Broken = dict", "broken:Broken", "is no AnomalibModule of that name; update"),
        (FAR, "broken:Other", "broken:Other, is no AnomalibModule of that name"),
    ],
)
def test_a_method_that_cannot_be_used_is_named_with_its_package(
    code, value, words, install, far, checkpoint
):
    install("broken", code, broken=value)
    with pytest.raises(PluginError, match=f"model broken of the package broken, .*{words}"):
        models.get_model("broken")
    with pytest.raises(PluginError, match="uninstall broken"):
        _ = anomalib_medclip.Broken
    assert models.get_model("farprobe").__name__ == "FarProbe"
    assert "broken" in models.list_models()
    with pytest.raises(ConfigError, match="uninstall broken"):
        parse_model({"class_path": "anomalib_medclip.Broken", "init_args": {}})


def test_two_of_one_name_are_named_and_break_no_other(install, far):
    install("other_methods", FAR, FarProbe="other_methods:FarProbe", MVFA="other_methods:Other")
    with pytest.raises(PluginError, match="farprobe is brought by far_methods and other_methods"):
        models.get_model("farprobe")
    with pytest.raises(PluginError, match="mvfa is brought by anomalib-medclip and other_methods"):
        models.get_model("mvfa")
    assert models.get_model("madclip") is anomalib_medclip.MadCLIP
    assert models.list_models().count("mvfa") == 1


def test_a_folder_whose_card_names_no_model_is_named(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    for name, code in (("__init__", "__all__ = []"), ("lightning_model", "")):
        (tmp_path / "empty" / f"{name}.py").write_text(code)
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    assert "empty" in models.list_models()
    with pytest.raises(PluginError, match="model empty of the package anomalib-medclip"):
        models.get_model("empty")
