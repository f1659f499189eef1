"""The authors' numbers, array by array; a missing file fails, it does not skip."""

from pathlib import Path

import numpy as np
import PIL
import pytest
from daily import RIVALS
from golden_check import CASES, check, open_case
from tiny import TEST_DATA

from anomalib_medclip.models import list_models

SHIPPED = Path(__file__).parent / "golden"


def cases():
    """The shipped case of every method with an original, and those of the folder of test data."""
    more = Path(TEST_DATA, "golden") if TEST_DATA else None
    for method in CASES:
        yield pytest.param(SHIPPED / method / "case0", id=f"{method}-case0")
        if more is None:
            reason = f"ANOMALIB_MEDCLIP_TEST_DATA names no folder with golden/{method}/case*"
            yield pytest.param(None, id=f"{method}-more", marks=pytest.mark.skip(reason=reason))
            continue
        found = [case for case in sorted((more / method).glob("case*")) if case.name != "case0"]
        if not found and (more / method / "case0").is_dir():
            continue  # there is no more of it
        for case in found or [more / method / "case1"]:
            yield pytest.param(case, id=f"{method}-{case.name}")


@pytest.mark.parametrize("case", list(cases()))
def test_every_array_of_a_case_agrees(case):
    assert any((case / name).is_file() for name in ("config.json", "meta.json")), (
        f"no numbers in {case}; see tests/golden/README.md"
    )
    rows = check(case)
    failed = [(name, error) for name, error, _, passed in rows if not passed]
    if int(PIL.__version__.partition(".")[0]) < 13 and failed and failed[0][0].startswith("input/"):
        pytest.skip("recorded with Pillow 13, which resizes images that are not square otherwise")
    assert not failed
    assert sum(error is not None for _, error, *_ in rows) >= open_case(case).fewest


def test_every_method_of_a_paper_has_numbers():
    assert set(CASES) == {path.name for path in SHIPPED.iterdir() if path.is_dir()}
    assert set(CASES) <= {*list_models(), *RIVALS}


def test_an_array_it_does_not_know_is_a_failure(tmp_path):
    case = tmp_path / "mvfa" / "case0"
    case.mkdir(parents=True)
    for file in (SHIPPED / "mvfa" / "case0").iterdir():
        (case / file.name).symlink_to(file)
    arrays = dict(np.load(case / "golden.npz"))
    few = {n: a for n, a in arrays.items() if not n.startswith("train_")}
    few["init/seg_tokens"] = few["init/seg_tokens"] + 1e-3
    few["init/novel"] = np.zeros(3)
    (case / "golden.npz").unlink()
    np.savez(case / "golden.npz", **few)
    assert {name for name, *_, passed in check(case) if not passed} == {
        "init/seg_tokens",
        "init/novel",
    }
