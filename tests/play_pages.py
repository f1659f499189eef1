"""Plays the README and the pages to begin with, command by command, as a stranger would type them.

    PYTHONPATH=tests/helpers python tests/play_pages.py            # in an empty environment each
    PYTHONPATH=tests/helpers python tests/play_pages.py --here docs/start/bmad.md

Every block of a page that is marked ``bash`` is run, all in one shell; the files that a page shows
are there before. What is not marked needs weights, data or hours. Printed are seconds and lines of
output of each block, and the exit status is 1 if a block has failed.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from shown_files import shown_files

ROOT = Path(__file__).parents[1]
PAGES = (
    "README.md",
    *sorted(f"docs/start/{path.name}" for path in (ROOT / "docs/start").iterdir()),
)
_BLOCK = re.compile(r"^```bash\n(?!#!)(.*?)^```$", re.MULTILINE | re.DOTALL)


class Played(NamedTuple):
    """A block that was run, in how many seconds, and what it printed."""

    commands: str
    status: int
    seconds: float
    output: str

    def __str__(self) -> str:
        """A line for the screen."""
        last = " ".join(self.commands.replace("\\\n", " ").strip().splitlines()[-1].split())
        lines = len(self.output.splitlines())
        return f"{self.status:3} {self.seconds:7.1f} s {lines:5} lines  {last[:90]}"


def blocks(page):
    """The blocks of a page that are to be typed."""
    return _BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


def play(page, folder, environment):
    """Run the blocks of a page in a folder, in one shell, up to the first that fails."""
    if page.startswith("docs/"):
        for name, text in shown_files(page.removeprefix("docs/")).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    shell = subprocess.Popen(
        ["bash"], cwd=folder, env=environment, text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    shell.stdin.write("trap failed=1 ERR\n")
    played = []
    for block in blocks(page):
        began, lines = time.monotonic(), []
        shell.stdin.write(f"failed=0\n{block}\necho; echo @@played $failed\n")
        shell.stdin.flush()
        for line in shell.stdout:
            if line.startswith("@@played"):
                break
            lines.append(line)
        output = "".join(lines).removesuffix("\n")
        status = int(line.split()[1])
        played.append(Played(block, status, time.monotonic() - began, output))
        if status:
            break
    shell.stdin.close()
    shell.wait()
    return played


def empty_environment(folder, *, with_package):
    """A new virtual environment, with this package in it or without, and variables to use it by."""
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    variables = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    variables["PATH"] = f"{folder / 'venv/bin'}:{variables['PATH']}"
    if with_package:
        subprocess.run(["pip", "install", "-q", str(ROOT)], check=True, env=variables)
    return variables


def this_environment():
    """The environment of this interpreter, with the package as it is here."""
    own = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return {**os.environ, **own, "PYTHONPATH": str(ROOT / "src")}


def copy_of_the_project(folder):
    """What a clone holds."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)


def main():
    """Play pages, each in an empty folder."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pages", nargs="*", default=PAGES, help="README.md, docs/start/bmad.md ...")
    parser.add_argument("--here", action="store_true", help="in the environment of this Python")
    given = parser.parse_args()
    failed = False
    for page in given.pages:
        with tempfile.TemporaryDirectory() as temporary:
            is_page = page.startswith("docs/")
            folder = Path(temporary, "empty")
            folder.mkdir()
            if not is_page:
                copy_of_the_project(folder)
            environment = (
                this_environment()
                if given.here
                else empty_environment(Path(temporary), with_package=is_page)
            )
            print(page)
            for block in play(page, folder, environment):
                print(block, flush=True)
                if block.status:
                    failed = True
                    print(block.output)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
