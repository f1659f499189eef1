"""The authors' numbers, array by array; a missing file fails, it does not skip."""

from pathlib import Path

import numpy as np
import pytest
from golden_check import check
from tiny import TEST_DATA

SHIPPED = Path(__file__).parent / "golden" / "mvfa"


def cases():
    yield pytest.param(SHIPPED / "case0", id="case0")
    if not TEST_DATA:
        reason = "ANOMALIB_MEDCLIP_TEST_DATA names no folder with golden/mvfa/case*"
        yield pytest.param(None, id="more", marks=pytest.mark.skip(reason=reason))
        return
    folder = Path(TEST_DATA, "golden", "mvfa")
    found = [case for case in sorted(folder.glob("case*")) if case.name != "case0"]
    for case in found or [folder / "case1"]:
        yield pytest.param(case, id=case.name)


@pytest.mark.parametrize("case", list(cases()))
def test_every_array_of_a_case_agrees(case):
    assert (case / "golden.npz").is_file(), f"no numbers in {case}; see tests/golden/README.md"
    rows = check(case)
    failed = [(name, error) for name, error, _, passed in rows if not passed]
    assert not failed
    assert sum(error is not None for _, error, *_ in rows) >= 75


def test_an_array_it_does_not_know_is_a_failure(tmp_path):
    for file in (SHIPPED / "case0").iterdir():
        (tmp_path / file.name).symlink_to(file)
    arrays = dict(np.load(SHIPPED / "case0" / "golden.npz"))
    few = {n: a for n, a in arrays.items() if not n.startswith("train_")}
    few["init/seg_tokens"] = few["init/seg_tokens"] + 1e-3
    few["init/novel"] = np.zeros(3)
    (tmp_path / "golden.npz").unlink()
    np.savez(tmp_path / "golden.npz", **few)
    assert {name for name, *_, passed in check(tmp_path) if not passed} == {
        "init/seg_tokens",
        "init/novel",
    }
