"""Files that the pages of the documentation show."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"

_SHOWN = re.compile(r"^```\w+\n# (\S+/\S+\.\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def shown_files(page):
    """Path and text of each file that a page shows, by its path or by its name in docs."""
    return dict(_SHOWN.findall((DOCS / page).read_text(encoding="utf-8")))
