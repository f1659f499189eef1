"""``anomalib-medclip configs``: the configs that come with the package, copied out by name.

Without a name, all are listed. The commands of this package's documents find the copies where they
look for them.
"""

import argparse
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from anomalib_medclip.errors import ResultsError, UnknownNameError
from anomalib_medclip.files import check_writable, write_whole


def run(arguments: Sequence[str]) -> int:
    """List configs, or copy some.

    Returns:
        0.

    Raises:
        UnknownNameError: There is no config of such a name; none is copied.
        ResultsError: Another file has the place of one; none is copied.
        OutputError: The folder cannot be written to.
    """
    given = _parser().parse_args(arguments)
    there = configs()
    names = list(there) if given.all else given.names
    if not names:
        Console().print(_table(there))
        return 0
    _check_names(names, there)
    copies = {name: given.to / f"{name}.yaml" for name in names}
    texts = {copies[name]: there[name].read_text(encoding="utf-8") for name in names}
    check_writable(given.to)
    _check_free(texts)
    for path, text in texts.items():
        write_whole(path, text)
        Console().print(str(path), highlight=False, soft_wrap=True)
    return 0


def configs() -> dict[str, Path]:
    """Every config by its name, such as ``bmad_resc`` or ``compare/demo``.

    A wheel has them within the package, a clone at its top.

    Example:
        >>> configs()["compare/demo"].name
        'demo.yaml'
    """
    package = Path(__file__).parents[1]
    places = (package / "configs", package.parents[1] / "configs")
    folder = next(place for place in places if place.is_dir())
    files = sorted(folder.rglob("*.yaml"), key=lambda path: (len(path.parts), path))
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}


def _table(there: dict[str, Path]) -> Table:
    table = Table("name", "what it is", caption="anomalib-medclip configs NAME ... copies them")
    for name, path in there.items():
        table.add_row(Text(name), Text(first_sentence(path)))
    return table


def first_sentence(config: Path) -> str:
    """What a config's comment begins with; another sentence says how to use it."""
    lines = config.read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
    return comment.partition(". ")[0]


def _check_names(names: Sequence[str], there: dict[str, Path]) -> None:
    for name in names:
        if name not in there:
            like = get_close_matches(name, there, n=3)
            hint = f"did you mean {' or '.join(like)}? " if like else ""
            msg = f"no config {name!r}; {hint}`anomalib-medclip configs` lists all"
            raise UnknownNameError(msg)


def _check_free(texts: dict[Path, str]) -> None:
    """Refuse to write over a file that says anything else."""
    for path, text in texts.items():
        if path.exists() and path.read_bytes() != text.encode():
            msg = f"{path} is there, and another; move it away, or name another folder by --to"
            raise ResultsError(msg)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("anomalib-medclip configs", description=__doc__)
    what = "such as demo or compare/demo; all are listed where none is given"
    parser.add_argument("names", nargs="*", metavar="NAME", help=what)
    parser.add_argument("--all", action="store_true", help="copy all")
    where = "folder for the copies, which is made; configs by default, where the documents look"
    parser.add_argument("--to", type=Path, default=Path("configs"), metavar="FOLDER", help=where)
    return parser
