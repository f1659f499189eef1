"""``anomalib-medclip check``: is anything wrong with these data?"""

import argparse
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from anomalib_medclip.commands.arguments import at_least_one
from anomalib_medclip.commands.progress import reading
from anomalib_medclip.data.checks import Report, check_data
from anomalib_medclip.data.config import load_data
from anomalib_medclip.data.integrity import Problem
from anomalib_medclip.files import as_json, check_writable, write_whole
from anomalib_medclip.provenance import NOTICE

_EXAMPLES = 3
_COLOURS = {"error": "red", "warning": "yellow"}


def run(arguments: list[str]) -> int:
    """Read every file that a config names, and list every problem.

    Returns:
        1 if there is an error, 0 if there are warnings only, or nothing.

    Raises:
        DataRootError: The config cannot be read.
        OutputError: The file of problems cannot be written.
    """
    parser = argparse.ArgumentParser("anomalib-medclip check", description=__doc__)
    parser.add_argument("config", metavar="CONFIG", help="a data config, such as configs/busi.yaml")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all problems to a file")
    square = "side of the square that a method will resize to, in pixels; 240 by default"
    parser.add_argument("--image-size", type=at_least_one, default=240, help=square)
    options = parser.parse_args(arguments)
    if options.json:
        check_writable(options.json.parent)
    data = load_data(options.config)
    report = check_data(data, reading, options.image_size)
    show(report, Console(), data.root)
    if options.json:
        write_whole(options.json, as_json(report.as_plain(options.config), indent=2) + "\n")
    return 1 if report.count("error") else 0


def show(report: Report, console: Console, root: Path = Path()) -> None:
    """Print problems by kind, a few examples each, and what the data are.

    Args:
        report: What was found.
        console: Where to.
        root: Folder below which files are named, to keep the table narrow.
    """
    kinds: dict[tuple[str, str], list[Problem]] = defaultdict(list)
    for problem in report.problems:
        kinds[problem.severity, problem.kind].append(problem)
    if kinds:
        table = _table(kinds, f"{root}{os.sep}")
        if root != Path():
            table.caption = f"files are below {root}"
        console.print(table)
    for line in _closing(report):
        console.print(Text(line))


def _table(kinds: dict[tuple[str, str], list[Problem]], above: str) -> Table:
    table = Table(show_lines=True)
    table.add_column("problem")
    table.add_column("number", justify="right")
    table.add_column("files", ratio=1, overflow="fold")
    table.add_column("remedy", overflow="fold")
    for (severity, kind), problems in kinds.items():
        shown = [_sentence(one).replace(above, "") for one in problems[:_EXAMPLES]]
        if len(problems) > _EXAMPLES:
            shown.append(f"and {len(problems) - _EXAMPLES} more; --json FILE lists all")
        table.add_row(
            Text(f"{severity}: {kind}", style=_COLOURS[severity]),
            str(len(problems)),
            Text("\n".join(shown)),
            Text(problems[0].remedy),
        )
    return table


def _sentence(problem: Problem) -> str:
    """What is wrong; what an error says names its file already."""
    return problem.problem if problem.cause else f"{problem.file} {problem.problem}"


def _closing(report: Report) -> Iterable[str]:
    for split, count in report.splits.items():
        if split == "support":  # which K says
            continue
        unknown = f" ({count['unknown']} of them images of unknown patients)"
        yield (
            f"{split}: {count['normal']} normal and {count['abnormal']} abnormal images of "
            f"{count['patients']} patients{unknown if count['unknown'] else ''}"
            f"{_by_class('patients', report.patients[split])}"
            f"{_by_class('volumes', report.volumes.get(split))}"
        )
    for word, count in report.support.items():
        volumes = f" in {count['volumes']} volumes" if "volumes" in count else ""
        unknown = f", if {count['unknown']} images of unknown patients are of one each"
        yield (
            f"K is {count['images']} {word} images of {count['patients']} patients{volumes}"
            f"{unknown if count['unknown'] else ''}"
        )
    for name, found in report.shortcuts.items():
        for what, auroc in found.items():
            yield f"{name}: {what} alone has AUROC {auroc:.2f}"
    if (count := report.lesions) and count["lesions"]:
        yield (
            f"{count['lesions_lost']} of {count['lesions']} lesions have no pixel left at "
            f"{report.side} x {report.side} pixels, and {count['images_lost']} of "
            f"{count['images']} abnormal images have no lesion left"
        )
    yield f"errors: {report.count('error')}, warnings: {report.count('warning')}; {NOTICE}"


def _by_class(what: str, counts: dict[str, int] | None) -> str:
    return f"; {what}: {counts['normal']} normal, {counts['abnormal']} abnormal" if counts else ""
