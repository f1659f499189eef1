from pathlib import Path

import pytest
import yaml
from anomalib.data import AnomalibDataModule

from anomalib_medclip import data
from anomalib_medclip.compare.comparison import read_config
from anomalib_medclip.compare.grid import plan_cells
from anomalib_medclip.data.bmad import BMAD_SETS
from anomalib_medclip.data.config import build_data
from anomalib_medclip.published import published

FOLDER = Path(__file__).parents[1] / "configs"
DATA = sorted(path for path in FOLDER.glob("*.yaml") if not path.stem.startswith("demo"))


@pytest.mark.parametrize("path", DATA, ids=lambda path: path.stem)
def test_a_data_config_builds_its_datamodule(path):
    built = AnomalibDataModule.from_config(path)
    wanted = yaml.safe_load(path.read_text())
    assert type(built) is getattr(data, wanted["class_path"].rsplit(".", 1)[1])
    assert str(built.root) == wanted["init_args"]["root"]
    assert built.category == wanted["init_args"].get("category", "")


@pytest.mark.parametrize("kind", ["BMAD", "BMADLeaveOneOut"])
def test_every_set_of_bmad_has_a_config(kind):
    configs = [yaml.safe_load(path.read_text()) for path in DATA]
    there = [c["init_args"]["category"] for c in configs if c["class_path"].endswith(f".{kind}")]
    assert sorted(there) == sorted(BMAD_SETS)


@pytest.mark.parametrize("path", DATA, ids=lambda path: path.stem)
def test_a_config_says_how_it_is_used(path):
    assert f"--data configs/{path.name}" in path.read_text()


COMPARED = sorted((FOLDER / "compare").glob("*.yaml"))


@pytest.mark.parametrize("path", COMPARED, ids=lambda path: path.stem)
def test_a_comparison_names_what_there_is(path):
    config = read_config(path)
    assert f"compare configs/compare/{path.name}" in path.read_text()
    assert config.models
    for name, entry in config.data.items():
        options = {key: entry[key] for key in ("class_path", "init_args")}
        assert build_data(options, name).object_name
        assert "published" not in entry or len(published(dataset=entry["published"]))


@pytest.mark.parametrize("stem", ["bmad_few_shot", "bmad_zero_shot"])
def test_the_grids_of_bmad_have_the_rows_of_clip_and_what_learns_from_masks_has_masks(stem):
    config = read_config(FOLDER / "compare" / f"{stem}.yaml")
    found = {entry["class_path"].rsplit(".", 1)[1] for entry in config.models.values()}
    assert found >= {"PlainCLIP", "APRILGAN", "AnomalyCLIP", "AdaCLIP", "VCPCLIP"}
    few_shot = {
        name
        for name, entry in config.data.items()
        if entry["class_path"].endswith(".BMAD")
        and not BMAD_SETS[entry["init_args"]["category"]].has_masks
    }
    assert len(few_shot) == (3 if stem == "bmad_few_shot" else 0)
    assert not few_shot & set(config.models["VCP-CLIP"].get("data", config.data))
    modes = config.models["CLIP"]["init_args"].get("mode", "memory")
    assert modes == ("memory" if stem == "bmad_few_shot" else "text")


def test_the_demo_compares_four_methods_and_two_baselines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = read_config(FOLDER / "compare" / "demo.yaml")
    config.data["heads"]["init_args"] |= {"patients": [2, 2, 2], "slices": 2}
    cells = plan_cells(config)
    assert len({cell.key for cell in cells}) == len(cells) == 36
    kinds = {cell.model: cell.kind for cell in cells}
    assert list(kinds.values()).count("method") == 4
    assert [name for name, kind in kinds.items() if kind == "baseline"] == ["PatchCore", "CFlow"]


def test_the_data_package_names_what_it_has():
    assert data.BMAD.__name__ == "BMAD"
    with pytest.raises(AttributeError, match="has no 'Bmad'; it has BMAD, BMADLeaveOneOut"):
        _ = data.Bmad
