"""Damaged files of all kinds that this package loads end in a result, or in an error naming them.

The command is ``PYTHONPATH=src:tests:tests/helpers python -m fuzz --minutes 60 --seed 0``.
"""

import json
import os
import re
from pathlib import Path

import fresh_process
import pytest

TESTS = Path(__file__).parent
PLACES = fresh_process.search_path(TESTS.parent / "src", TESTS, TESTS / "helpers")

pytestmark = pytest.mark.skipif(not fresh_process.FORKS, reason="it forks, and looks into /proc")


def fuzz(*words):
    """Run the command to its end, and return what it has printed."""
    done = fresh_process.run("-m", *words, env={**os.environ, "PYTHONPATH": PLACES})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_few_damaged_files_of_each_kind_end_as_they_should(tmp_path):
    said = fuzz("fuzz", "--attempts", "2", "--quick", "--out", tmp_path)
    rows = re.findall(r"^\| ([^|]+) \| +2 \|", said, re.MULTILINE)
    assert {"png", "nifti.gz", "dicom series", "table", "checkpoint", "onnx"} < set(rows)
    assert not (tmp_path / "failures").exists()


@pytest.mark.nightly(
    also="tests/test_fuzz.py::test_a_few_damaged_files_of_each_kind_end_as_they_should"
)
def test_ten_minutes_of_damaged_files_end_as_they_should(tmp_path):
    said = fuzz("fuzz", "--minutes", "10", "--out", tmp_path)
    (attempts,) = re.findall(r"^\| all \| (\d+) \|", said, re.MULTILINE)
    assert int(attempts) > 10_000


FOUND = {
    "foreign": "KeyError at planted.py:",
    "hanging": "hang: more than 0.5 s",
    "large": "memory",
    "refused": "memory refused",
    "crashing": "crash: SIGSEGV",
    "unnamed": "unnamed: ImageReadError: something cannot be read",
    "not_finite": "AssertionError at target.py:",
    "writing": "written: ",
    "running": "written: ran subprocess.Popen",
}
"""What a campaign says of each fault in ``fuzz.planted``."""


def test_each_planted_fault_is_found_and_its_input_kept(tmp_path):
    found = json.loads(fuzz("fuzz.planted", tmp_path))
    assert found.pop("sound") == []
    assert found.keys() == FOUND.keys()
    for name, words in FOUND.items():
        assert len(found[name]) == 1, name
        assert found[name][0].startswith(words), name
        assert (tmp_path / "failures" / f"{name}-0-0" / "given.txt").read_bytes() != b"whole"
