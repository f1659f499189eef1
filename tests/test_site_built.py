"""The site is built strictly, loads nothing from elsewhere, and notebooks and pages run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import play_pages
import pytest
from test_site import NOTEBOOKS

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.xdist_group("site")  # which is built once

LOADS = re.compile(r"""<(?:script|img|iframe|source)[^>]*?\ssrc=["'](?:https?:)?//|
                       <link[^>]*?\shref=["'](?:https?:)?//""", re.VERBOSE)  # fmt: skip
STYLE_LOADS = re.compile(r"""(?:url\(|@import)\s*["']?(?:https?:)?//""")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as its pages say."""
    pytest.importorskip("mkdocstrings", reason="needs the extra 'docs'")
    folder = tmp_path_factory.mktemp("built") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.nightly(also="tests/test_site.py::test_every_page_has_a_place_in_the_navigation")
def test_the_site_is_built_strictly_and_loads_nothing_from_elsewhere(site):
    pages = [path for path in site.rglob("*.html") if "export_examples" not in path.parts]
    assert len(pages) > 60
    texts = {path: path.read_text(encoding="utf-8") for path in pages}
    assert not [path.name for path, text in texts.items() if LOADS.search(text)]
    styles = [*texts.values(), *(path.read_text("utf-8") for path in site.rglob("*.css"))]
    assert not any(STYLE_LOADS.search(text) for text in styles)


@pytest.mark.nightly(also="tests/test_site.py::test_every_page_has_a_place_in_the_navigation")
def test_a_reader_searches_without_network(site):
    api = pytest.importorskip("playwright.sync_api")
    if not Path("/usr/bin/chromium").exists():
        pytest.skip("needs chromium")
    asked = []
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )  # fmt: skip
        context = browser.new_context(offline=True)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "index.html").as_uri())
        page.keyboard.press("/")
        page.keyboard.type("fingerprint")
        result = page.locator(".md-search-result__link").first
        result.wait_for(timeout=60_000)
        result.click()
        page.wait_for_load_state()
        shown = page.locator("article").inner_text()
        browser.close()
    assert "fingerprint" in shown.lower()
    assert {url.partition(":")[0] for url in asked} <= {"file", "data", "blob"}


@pytest.mark.nightly(
    also="tests/test_site.py::test_a_notebook_has_no_outputs_and_imports_what_there_is"
)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="needs the extra 'docs'")
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=900, kernel_name="python3", resources=where).execute()
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "image/png" in output.get("data", {})
    ]
    assert pictures


@pytest.mark.nightly(also="tests/test_site.py::test_a_page_to_begin_with_says_what_it_needs")
@pytest.mark.parametrize("page", [page for page in play_pages.PAGES if page != "README.md"])
def test_a_page_to_begin_with_is_played_literally(page, tmp_path):
    played = play_pages.play(page, tmp_path, play_pages.this_environment())
    assert len(played) == len(play_pages.blocks(page)) > 2
    assert not [block.output for block in played if block.status]
    assert list(tmp_path.glob("results/**/model.ckpt"))
