"""``anomalib-medclip reproduce``: a paper's table made again, ours beside theirs.

It runs the table's comparison: what is done is not done again, failed trainings are. Research use
only.
"""

import argparse
import shlex
from collections.abc import Iterable
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from anomalib_medclip.commands.arguments import count
from anomalib_medclip.commands.compare import (
    add_running,
    check_device,
    report_comparison,
    run_comparison,
)
from anomalib_medclip.commands.configs import configs, first_sentence
from anomalib_medclip.compare.comparison import ComparisonConfig, read_config
from anomalib_medclip.compare.store import Store
from anomalib_medclip.errors import DataRootError
from anomalib_medclip.files import check_writable, write_whole
from anomalib_medclip.papers.beside import Beside, beside
from anomalib_medclip.papers.hours import Costs, effort
from anomalib_medclip.papers.inputs import Missing, as_config, missing, placed, without
from anomalib_medclip.papers.otherwise import otherwise
from anomalib_medclip.papers.page import as_csv, as_lines, as_page, counts, printed_figures
from anomalib_medclip.papers.tables import PaperTable, paper_tables, table_named
from anomalib_medclip.provenance import NOTICE
from anomalib_medclip.report.redaction import without_paths
from anomalib_medclip.report.summary import summarise

_OUT = Path("results/papers")


def run(arguments: list[str]) -> int:
    """Make a table again, or say what that takes.

    Returns:
        0 if every training of what is there is done, else 1.

    Raises:
        MedclipError: There is no such table, none of its data, or data cannot be read.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    tables = paper_tables(configs())
    if options.list or options.plan:
        chosen = [table_named(options.table, tables)] if options.table else [*tables.values()]
        _show_plan(chosen, options) if options.plan else _show_list(chosen)
        return 0
    if options.table is None:
        parser.error("give a TABLE, --list or --plan")
    options.out = options.out or _OUT / options.table
    return _remake(table_named(options.table, tables), options, arguments)


def _remake(table: PaperTable, options: argparse.Namespace, arguments: list[str]) -> int:
    """Run what a table lacks, and put all that is found beside what is printed."""
    check_writable(options.out)
    whole = placed(read_config(table.config), options.data, options.record_every)
    command = shlex.join(["anomalib-medclip", "reproduce", *arguments])
    lacking = missing(whole, table.config)
    if options.report_only:
        code = report_comparison(options)
    else:
        check_device(options)
        there = _what_is_there(table, whole, lacking)
        text = yaml.safe_dump(as_config(there), sort_keys=False, allow_unicode=True)
        code = run_comparison(there, text, options, command, keep=True)
    store = Store(options.out)
    grid = store.grid()
    rows = summarise(grid, store.records(grid))
    found = beside(table, whole, rows, lacking, options.authors_epoch_choice)
    _write(table, found, lacking, options, command)
    return code


def _what_is_there(
    table: PaperTable, whole: ComparisonConfig, lacking: Missing
) -> ComparisonConfig:
    """The comparison without what is missing, which is said."""
    console = Console(stderr=True)
    for name, said in (*lacking.data.items(), *lacking.models.items()):
        console.print(f"{name} is left out: {said}", highlight=False, soft_wrap=True, markup=False)
    there = without(whole, lacking)
    if not there.data or there.tests == {} or not there.models:
        msg = f"nothing of {table.name} can be run; see above, and name its folder by --data"
        raise DataRootError(msg)
    return there


def _write(
    table: PaperTable,
    found: list[Beside],
    lacking: Missing,
    options: argparse.Namespace,
    command: str,
) -> None:
    """Print the table, and write it as a page and for programs."""
    shown = command if options.names else without_paths(command)
    choice = options.authors_epoch_choice
    texts = {
        "html": as_page(table, found, lacking, shown, choice),
        "csv": as_csv(table, found),
    }
    console = Console()
    console.print(_printed(table, found, choice))
    told = ", ".join(f"{number} {word}" for word, number in counts(found).items())
    console.print(f"{printed_figures(found)} printed figures: {told}; {NOTICE}.", highlight=False)
    for ending, text in texts.items():
        path = options.out / f"{table.name}.{ending}"
        write_whole(path, text)
        Console(stderr=True).print(f"wrote {path}", highlight=False, soft_wrap=True)


def _printed(table: PaperTable, found: list[Beside], authors_epoch_choice: bool) -> Table:
    heads = ("model", "K", "set", "AUROC", "paper", "ours", "authors' epoch")
    of = "authors' epoch" if authors_epoch_choice else "ours"
    shown = Table(*heads, f"{of} less paper", title=f"{table.paper}, table {table.number}, percent")
    for words in as_lines(found):
        shown.add_row(*map(Text, words))
    return shown


def _show_list(tables: Iterable[PaperTable]) -> None:
    shown = Table("table", "what it is")
    for table in tables:
        shown.add_row(table.name, Text(first_sentence(table.config)))
    Console().print(shown)


def _show_plan(tables: Iterable[PaperTable], options: argparse.Namespace) -> None:
    """How many trainings tables have, and what these take."""
    costs = Costs(options.bench)
    shown = Table("table", "trainings", "hours", "without looks", "besides, trainings not measured")
    for table in tables:
        config = read_config(table.config)
        told, never = (
            effort(placed(config, options.data, every), costs)
            for every in (options.record_every, 0)
        )
        others = ", ".join(f"{name}: {number}" for name, number in told.unmeasured.items())
        hours = (f"{one.hours:,.0f}" for one in (told, never))
        shown.add_row(table.name, str(told.cells), *hours, Text(others))
    console = Console()
    console.print(shown)
    console.print(
        f"Hours are of one process on {costs.machine}, as `bench` has measured it; --bench takes "
        "figures of another machine. Looks are those at the test images after each epoch, for the "
        "authors' choice of one; --record-every 0 does without.",
        highlight=False,
    )
    if options.table:
        console.print("What is done otherwise than in the paper:", highlight=False)
        for said in otherwise(options.table):
            console.print(f"- {said}", highlight=False, markup=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("anomalib-medclip reproduce", description=__doc__)
    add = parser.add_argument
    what = "such as mvfa-table1; --list shows all"
    add("table", nargs="?", metavar="TABLE", help=what)
    add("--list", action="store_true", help="list the tables")
    plan = "say how many trainings a table has, or all, and what they take; run nothing"
    add("--plan", action="store_true", help=plan)
    where = "folder that the data lie in, as the configs have them; datasets"
    add("--data", type=Path, default=Path("datasets"), metavar="DIR", help=where)
    out = "folder of records and pages; results/papers/TABLE"
    add("--out", type=Path, metavar="DIR", help=out)
    choice = (
        "take differences from the epoch that is best on the test images, as the authors choose it"
    )
    add("--authors-epoch-choice", action="store_true", help=choice)
    every = (
        "epochs from one look at the test images to the next, for the authors' choice; 1, and 0 is "
        "never, which saves most of the time"
    )
    add("--record-every", type=count, metavar="N", help=every)
    figures = "with --plan: a file that bench wrote on the machine in question"
    add("--bench", type=Path, metavar="FILE", help=figures)
    add_running(parser)
    return parser
