"""Every document runs in an empty folder, with the files it shows, and leaves nothing behind.

A block of a document whose first line is a comment with a path, such as
``# configs/models/probe.yaml``, is that file. Modules among these files are found like those of the
package itself.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from shown_files import shown_files

from anomalib_medclip import data, models

SOURCES = Path("src/anomalib_medclip")

collect_ignore = ["export_examples"]  # programs, run by tests/export/test_examples.py


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Write the files shown, go there, and forget new modules afterwards."""
    for name, text in shown_files(request.path).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for package, folder in ((models, "models"), (data, "data")):
        shown = str(tmp_path / SOURCES / folder)
        monkeypatch.setattr(package, "__path__", [*package.__path__, shown])
    yield
    for package, folder in ((models, "models"), (data, "data")):
        for name in {path.stem for path in (tmp_path / SOURCES / folder).glob("*")}:
            vars(package).pop(name, None)
            full = f"{package.__name__}.{name}"
            for module in [m for m in sys.modules if m == full or m.startswith(f"{full}.")]:
                del sys.modules[module]
