"""Walk every array of golden cases: compare it with this package, or say that it is an input.

Usage: python tests/golden_check.py CASE_DIR ...

A case directory lies in a folder named after its method; what it holds is told in
golden/README.md.
"""

import re
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from golden_cases.common import Tolerance
from torch import Tensor

CASES = sorted(
    path.stem
    for path in Path(__file__).with_name("golden_cases").glob("*.py")
    if re.search(rf"^class {path.stem}case\b", path.read_text(), re.IGNORECASE | re.MULTILINE)
)
"""Methods that have a class such as ``MVFACase`` in a file such as ``golden_cases/mvfa.py``."""


def open_case(folder: Path) -> Any:
    """The case of a folder; its method is the name of the folder that it lies in."""
    method = folder.resolve().parent.name
    found = vars(import_module(f"golden_cases.{method}"))
    return next(found[name] for name in found if name.lower() == f"{method}case")(folder)


def compare(expected: np.ndarray, actual: object) -> float:
    """Largest absolute difference; infinite where shapes, or what is missing, differ."""
    if isinstance(actual, Tensor):
        actual = actual.detach().numpy()
    actual = np.asarray(actual, dtype=np.float64)
    expected = expected.astype(np.float64)
    if actual.shape != expected.shape or (np.isnan(actual) != np.isnan(expected)).any():
        return float("inf")
    return float(np.nan_to_num(np.abs(actual - expected)).max(initial=0.0))


def check(folder: Path) -> list[tuple[str, float | None, Tolerance | None, bool]]:
    """Check a case; one row per array: name, error, tolerance, whether it passed."""
    case = open_case(folder)
    computed = dict(case.computed())
    rows: list[tuple[str, float | None, Tolerance | None, bool]] = []
    for name, expected in case.golden.items():
        if re.fullmatch(case.inputs_pattern, name):
            rows.append((name, None, None, True))
            continue
        tolerance = next((t for pattern, t in case.tolerances if re.fullmatch(pattern, name)), None)
        if tolerance is None or name not in computed:
            rows.append((name, None, tolerance, False))
            continue
        error = compare(expected, computed[name])
        rows.append((name, error, tolerance, tolerance.allows(error, expected)))
    return rows


def main(folder: Path) -> int:
    """Print a line per array and one of the case, and return the number of failures."""
    rows = check(folder)
    for name, error, tolerance, passed in rows:
        if passed and error is None:
            print(f"input  {name}")
        elif error is None:
            print(f"FAIL   {name}: unknown array")
        else:
            limit = f"{tolerance.largest:g}{' x scale' if tolerance.scaled else ''}"
            print(f"{'pass  ' if passed else 'FAIL  '} {name}: {error:.2e} (at most {limit})")
    failures = sum(not passed for *_, passed in rows)
    case = f"{folder.resolve().parent.name}/{folder.resolve().name}"
    found = f"{len(rows)} arrays, {failures} failures, open_clip {version('open_clip_torch')}"
    print(f"{case}: {found}", flush=True)
    return failures


if __name__ == "__main__":
    sys.exit(sum([main(Path(folder)) for folder in sys.argv[1:]]) > 0)
