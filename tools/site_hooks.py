"""What mkdocs is told about the pages of this project that lie outside of ``docs``.

The Markdown is written to be read where it lies: a page links to another by its place in the
repository. Here each such place gets an address of the site.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent

PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "report_a_weakness.md",
    "src/anomalib_medclip/published/README.md": "published.md",
    "CITATION.cff": "CITATION.cff",
    "LICENSE": "LICENSE.txt",
}
"""Files outside of ``docs``, and what they are called on the site."""

_SHIM = "https://unpkg.com/iframe-worker/shim"
"""What the plug-in ``offline`` loads, for search within a folder; ``docs/assets`` has it, too."""

_LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)#\s]+)")
_SESSION = re.compile(r"^```python\n(?=>>> )", re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:  # noqa: ANN401 - mkdocs hands its own config
    """Add what lies outside of ``docs``, and the configs, which are there to be read."""
    for place, address in _outside():
        files.append(File.generated(config, address, abs_src_path=str(ROOT / place)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:  # noqa: ANN401 - mkdocs' page
    """Links lead to addresses of the site, and examples with a prompt are coloured as such."""
    here = {address: place for place, address in _outside()}.get(
        page.file.src_uri, f"docs/{page.file.src_uri}"
    )
    return _SESSION.sub(
        "```pycon\n", _LINK.sub(lambda link: _address(link[1], here, page.file.src_uri), markdown)
    )


def on_post_page(output: str, page: Any, **_: Any) -> str:  # noqa: ANN401 - mkdocs' page
    """Nothing is loaded from elsewhere."""
    depth = page.file.dest_uri.count("/")
    return output.replace(_SHIM, "../" * depth + "assets/iframe_worker.js")


def on_post_template(output_content: str, **_: Any) -> str:  # noqa: ANN401 - mkdocs' own
    """The same of pages that are no page of ours, such as that of an address that is not there."""
    return output_content.replace(_SHIM, "assets/iframe_worker.js")


def _outside() -> Iterator[tuple[str, str]]:
    """Place in the repository and address of each file outside of ``docs``."""
    yield from PAGES.items()
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        place = path.relative_to(ROOT).as_posix()
        yield place, place


def _address(target: str, here: str, page: str) -> str:
    """Where a link leads on the site, as seen from the page.

    Args:
        target: What the link says, relative to ``here``.
        here: Place of the page in the repository.
        page: Address of the page on the site.
    """
    place = os.path.normpath(PurePosixPath(here).parent / target).replace(os.sep, "/")
    address = dict(_outside()).get(place, place.removeprefix("docs/"))
    return os.path.relpath(address, PurePosixPath(page).parent).replace(os.sep, "/")
