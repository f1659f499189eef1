"""The demo as a person meets it: new interpreters, a pipe, a terminal, and what comes next."""

import shutil
import subprocess
import sys

import pytest
from demo import CONFIGS
from terminal import ANOMALIB, OURS, anew, in_terminal

TRAININGS = {
    "anomalib": (ANOMALIB, ["train", "--config", "configs/demo.yaml"]),
    "ours": (OURS, ["train", "configs/demo.yaml"]),
}
NEXT = {
    "test": (OURS, ["test", "CKPT", "configs/demo.yaml"]),
    "anomalib test": (
        ANOMALIB, ["test", "--config", "configs/demo.yaml", "--ckpt_path", "CKPT"],
    ),
    "predict": (OURS, ["predict", "CKPT", "PICTURE"]),
    "score": (OURS, ["score", "PICTURE", "--ckpt", "CKPT", "--out", "maps"]),
    "export": (OURS, ["export", "CKPT", "--export_type", "openvino", "--export_root", "out"]),
    "anomalib export": (
        ANOMALIB,
        ["export", "--config", "configs/demo.yaml", "--export_type", "onnx", "--ckpt_path", "CKPT",
         "--export_root", "out"],
    ),
    "Inferencer": (
        ("-c", "import sys; from anomalib_medclip import Inferencer; "
         "print(Inferencer('out/weights/openvino/model.xml').predict(sys.argv[1]).score)"),
        ["PICTURE"],
    ),
}  # fmt: skip
MOST = {"export": 15, "anomalib export": 15}
"""Lines, where they are fewer than 40."""


def lines_of(door, words, home):
    """Exit status and lines of a new interpreter in a pipe."""
    done = subprocess.run(
        [sys.executable, *map(str, (*door, *words))], cwd=home, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.returncode, done.stdout.splitlines()


@pytest.mark.nightly(
    also="tests/test_engine_commands.py::test_a_training_is_told_in_few_lines_and_none_twice"
)
@pytest.mark.parametrize("door", TRAININGS)
def test_the_demo_is_told_in_forty_lines_and_leads_on(door, tmp_path):
    shutil.copytree(CONFIGS, tmp_path / "configs")
    program, words = TRAININGS[door]
    if door == "ours":
        code, lines = in_terminal(program, words, start=anew, cwd=tmp_path)
    else:
        code, lines = lines_of(program, words, tmp_path)
    assert code == 0, lines
    assert len(lines) <= 40, lines
    [checkpoint] = tmp_path.rglob("v0/weights/lightning/model.ckpt")
    picture = min(tmp_path.glob("datasets/phantoms/*/test/abnormal/*.png"))
    given = {"CKPT": checkpoint.relative_to(tmp_path), "PICTURE": picture.relative_to(tmp_path)}
    for name, (following, after) in NEXT.items():
        code, lines = lines_of(following, [given.get(word, word) for word in after], tmp_path)
        assert code == 0, (name, lines)
        assert len(lines) <= MOST.get(name, 40), (name, lines)
