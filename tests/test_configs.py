from pathlib import Path

import pytest
import yaml
from anomalib.data import AnomalibDataModule

from anomalib_medclip import data
from anomalib_medclip.data.bmad import SETS

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
    assert sorted(there) == sorted(SETS)


@pytest.mark.parametrize("path", DATA, ids=lambda path: path.stem)
def test_a_config_says_how_it_is_used(path):
    assert f"--data configs/{path.name}" in path.read_text()


def test_the_data_package_names_what_it_has():
    assert data.BMAD.__name__ == "BMAD"
    with pytest.raises(AttributeError, match="has no 'Bmad'; it has BMAD, BMADLeaveOneOut"):
        _ = data.Bmad
