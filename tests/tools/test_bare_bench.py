"""The timed core: what it builds, and that it runs where anomalib and the others are missing."""

import json
import sys
from functools import partial
from inspect import signature
from pathlib import Path

import bare_bench
import pytest
import torch
from bare_bench import METHODS
from daily import THOROUGH
from lean import run_lean

import anomalib_medclip
from anomalib_medclip.bench import build, roofline, scoring, timing
from anomalib_medclip.bench.settings import SMALL, Setting
from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.models import get_model

PACKAGE = Path(anomalib_medclip.__file__).parent
COMPUTE = (
    "models/*/torch_model.py",
    "components/memory_bank.py",
    "components/model.py",
    "clip/*.py",
)
TIME = tuple(f"bench/{name}.py" for name in ("machine", "profile", "roofline", "scoring", "timing"))
TORCH_ALONE = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for pattern in (*COMPUTE, *TIME)
    for path in sorted(PACKAGE.glob(pattern))
]
"""Torch models, and what times them."""

RUN = f"""
import json, runpy
from functools import partial
from importlib import import_module

barred = {{}}
for name in {TORCH_ALONE}:
    try:
        import_module(name)
    except ImportError as error:
        barred[name] = error.name
print(json.dumps(barred), flush=True)

from anomalib_medclip.bench import roofline, timing
roofline._SIDE["cpu"] = 64
timing.alternate = partial(timing.alternate, rounds=1, at_least=0.0)
runpy.run_path({bare_bench.__file__!r}, run_name="__main__")
"""
"""What each module imports against the rule; then the tool, with little of what takes time."""

TINY = ("--backbone", json.dumps(SMALL), "--image-size", "32")

FIFTH = '''
import torch
from anomalib_medclip.components.anomaly_map import abnormal_map, align
from anomalib_medclip.components.model import ClipModel, ModelOutput


class Probe(ClipModel):
    """One linear layer on the last level."""

    quarters = (4,)

    def __init__(self, clip):
        super().__init__(clip)
        self.layer = torch.nn.Linear(clip.width, clip.embed_dim)

    def score(self, encoded, text, leave_out=None):
        maps = abnormal_map(align(self.layer(encoded[:, 0, 1:]), text), self.clip.size)[:, 0]
        return ModelOutput(maps.amax(dim=(-2, -1)), maps)

    def loss_terms(self, encoded, masks, labels, text):
        """Nothing is trained here."""
'''


@pytest.fixture
def measured(monkeypatch, capsys):
    """Runs the tool in this process: the last row that it prints."""
    monkeypatch.setitem(roofline._SIDE, "cpu", 64)
    monkeypatch.setattr(timing, "alternate", partial(timing.alternate, rounds=1, at_least=0.0))

    def run(*arguments):
        assert bare_bench.main([*TINY, *arguments]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return run


def test_it_knows_every_method_that_was_made_for_medical_images():
    assert METHODS.keys() == THOROUGH


@pytest.mark.parametrize("method", METHODS)
def test_it_builds_what_a_method_is_by_default(method):
    of_class = signature(get_model(method)).parameters
    entry = METHODS[method].enters
    assert entry == {name: of_class[name].default for name in entry}
    full = build.build_method(Setting(method=method, backbone=SMALL, image_size=32)).model
    backbone = Backbone(SMALL, **{**entry, "image_size": 32})
    alone = bare_bench.build(METHODS[method], backbone, "fp32").eval()
    assert alone.clip.backbone == full.clip.backbone
    assert type(alone) is type(full)
    scoring.know_prompts(alone)
    alone.few_shot = False
    state = full.state_dict()  # with learnable prompts, which scoring does not need
    alone.load_state_dict({name: state[name] for name in alone.state_dict()})
    images = scoring.random_images(full, 2)
    with torch.inference_mode():
        torch.testing.assert_close(alone(images), full(images), atol=0, rtol=0)


def test_a_bank_holds_the_copies_that_mvfa_makes():
    assert len(get_model("mvfa").augmentations.masks) == bare_bench.COPIES


def test_it_runs_with_torch_open_clip_and_jaxtyping_alone():
    ran = run_lean(RUN, *TINY, "--batch-size", "1", "2", "--precision", "bf16")
    assert ran.returncode == 0, ran.stderr
    barred, *rows = map(json.loads, ran.stdout.splitlines())
    assert barred == {}
    about = rows.pop(0)
    assert about["versions"]["torch"] == torch.__version__
    left_out = "it smooths by scipy, which is not installed"
    assert rows.pop() == {"method": "iqeclip", "left out": left_out}
    assert [(row["method"], row["batch_size"]) for row in rows] == [
        (method, size) for method in ("mvfa", "madclip", "mediclip") for size in (1, 2)
    ]
    for row in rows:
        assert row["ratio"] > 0
        assert 0 < row["map_difference"] < 0.2, "in bf16, and near fp32"


def test_the_fourth_is_measured_where_scipy_is(measured):
    row = measured("--batch-size", "1", "--method", "iqeclip")
    assert (row["method"], row["image_size"], row["map_difference"]) == ("iqeclip", 32, 0)


def test_a_fifth_method_is_measured_by_the_name_of_its_torch_model(measured, tmp_path, monkeypatch):
    (tmp_path / "fifth.py").write_text(FIFTH)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        row = measured("--batch-size", "2", "--method", "fifth:Probe")
    finally:
        sys.modules.pop("fifth", None)
    assert (row["method"], row["batch_size"], row["map_difference"]) == ("fifth:Probe", 2, 0)


@pytest.mark.parametrize("name", ["mvfaa", "fifth:Probe", "torch.nn:Linear", "torch.nn:functional"])
def test_what_is_no_method_is_refused_with_those_there_are(name, capsys):
    with pytest.raises(SystemExit):
        bare_bench.main(["--method", name])
    said = capsys.readouterr().err
    assert (
        f"no method '{name}'; give mvfa, madclip, mediclip, iqeclip, or package.module:Class"
        in said
    )


def test_a_bank_on_a_processor_needs_faiss(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(SystemExit) as left:
        bare_bench.main(["--k-shot", "1"])
    assert left.value.code == 2
    assert "searches the memory bank by FAISS" in capsys.readouterr().err


def test_a_bank_is_measured_where_faiss_is(measured):
    row = measured("--batch-size", "1", "--method", "mvfa", "--k-shot", "1")
    assert (row["k_shot"], row["map_difference"]) == (1, 0)
