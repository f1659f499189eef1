"""``anomalib-medclip compare``: which method, on my data, and can I trust the number?"""

import argparse
import os
import shlex
from collections import Counter
from pathlib import Path

from rich.console import Console

from anomalib_medclip.commands.arguments import at_least_one, share
from anomalib_medclip.commands.progress import Screen, reading
from anomalib_medclip.compare.cell_record import ComparisonGrid
from anomalib_medclip.compare.cell_setup import CellSettings
from anomalib_medclip.compare.comparison import ComparisonConfig, read_config
from anomalib_medclip.compare.grid import Cell, plan_cells
from anomalib_medclip.compare.kept import with_former
from anomalib_medclip.compare.processes import ProcessPool
from anomalib_medclip.compare.run_cell import now
from anomalib_medclip.compare.runners import CellQueue, rotated, run_here, run_on_ray
from anomalib_medclip.compare.store import Store
from anomalib_medclip.data.fingerprint import Digests
from anomalib_medclip.devices import check_gpu
from anomalib_medclip.files import check_writable
from anomalib_medclip.provenance import NOTICE, packages
from anomalib_medclip.report.write import write_report


def run(arguments: list[str]) -> int:
    """Run the cells of a grid that have no record yet, and write the report of all.

    Returns:
        0 if every cell is done, else 1.

    Raises:
        MedclipError: The config or the data cannot be read, nothing can be written, or there are no
            records to report.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.config is None and not options.report_only:
        parser.error("give a CONFIG, or --report-only")
    check_writable(options.out)
    if options.report_only:
        return report_comparison(options)
    check_device(options)
    config = read_config(options.config)
    text = options.config.read_text(encoding="utf-8")
    return run_comparison(
        config, text, options, shlex.join(["anomalib-medclip", "compare", *arguments])
    )


def run_comparison(
    config: ComparisonConfig,
    text: str,
    options: argparse.Namespace,
    command: str,
    *,
    keep: bool = False,
) -> int:
    """Run the cells of a comparison that have no record yet, and write the report of all.

    Args:
        config: What is asked for.
        text: Its YAML, to be kept.
        options: ``out``, and what ``add_running`` adds.
        command: What was called, for the report.
        keep: Whether what a former plan in the folder has found besides stays in the report.

    Returns:
        0 if every cell is done, else 1.

    Raises:
        MedclipError: The data cannot be read, or nothing can be written.
    """
    store = Store(options.out)
    known: Digests = {}
    cells = plan_cells(config, options.explain, reading, known)
    grid = _grid(config, cells, command)
    if keep:
        grid = with_former(grid, store)
    store.write_grid(grid, text)
    for cell in cells:
        store.forget_damaged(cell.key)
    _run(CellQueue(cells, store, _settings(config, options, known), now()), options)
    return report_comparison(options)


def report_comparison(options: argparse.Namespace) -> int:
    """Write the report of the records there are.

    Returns:
        0 if every cell is done, else 1.

    Raises:
        MedclipError: There are no records to report.
    """
    store, console = Store(options.out), Console(stderr=True)
    keys = [cell.key for cell in store.grid().cells]
    with store.claim_report():  # of several shares, the last one writes what all have found
        records = [store.record(key) for key in keys]
        found = Counter("not run" if one is None else one.status for one in records)
        written = write_report(store, names=options.names)
    for path in written:
        console.print(f"wrote {path}", highlight=False, soft_wrap=True)
    told = ", ".join(f"{count} {status}" for status, count in sorted(found.items()))
    console.print(f"{len(keys)} cells: {told}; {NOTICE}", highlight=False)
    return int(found["done"] < len(keys))


def check_device(options: argparse.Namespace) -> None:
    """Refuse a GPU that is asked for, and is not here."""
    if options.device == "gpu" and options.runner == "local":
        check_gpu()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "anomalib-medclip compare",
        description="Train and test models side by side, on the same images, and write a report. "
        "Cells that have their record are not run again; failed ones are. Research use only.",
    )
    add = parser.add_argument
    config = "such as configs/compare/demo.yaml; not needed for --report-only"
    add("config", type=Path, nargs="?", metavar="CONFIG", help=config)
    add("--out", type=Path, required=True, metavar="DIR", help="folder of records and report")
    add_running(parser)
    return parser


def add_running(parser: argparse.ArgumentParser) -> None:
    """Add the options of how cells are run, and what is said of them."""
    add = parser.add_argument
    add("--runner", choices=("local", "ray"), default="local", help="where cells are run")
    add("--jobs", type=at_least_one, metavar="N", help="cells at once on this machine; 1")
    add("--ray-address", metavar="ADDRESS", help="of a running Ray cluster; else a local one")
    some = "begin with the I-th of N shares of the cells, from 0; for job arrays"
    add("--shard", type=share, metavar="I/N", help=some)
    add("--device", choices=("auto", "cpu", "gpu"), default="auto", help="what to train on")
    why = "keep what the scores of the largest K's first draw come from, and show it"
    add("--explain", action="store_true", help=why)
    add("--names", action="store_true", help="let the report name image files")
    again = "write the report of the records there are, and run nothing"
    add("--report-only", action="store_true", help=again)


def _run(work: CellQueue, options: argparse.Namespace) -> None:
    done = sum(work.status(cell) == "done" for cell in work.cells)
    with Screen(len(work.cells), done) as screen:
        if options.runner == "ray":
            run_on_ray(work, screen, options.ray_address, options.jobs)
        elif options.shard:
            number, of = options.shard
            work = work._replace(cells=rotated(work.cells, number, of))
            run_here(work, screen, wait=False)
        elif (options.jobs or 1) > 1:
            ProcessPool(work, screen, options.jobs).run()
        else:
            run_here(work, screen)


def _settings(
    config: ComparisonConfig, options: argparse.Namespace, known: Digests
) -> CellSettings:
    """How cells are run; several at once share the processor."""
    jobs = options.jobs or 1
    return CellSettings(
        features=Store(options.out).features.absolute() if config.feature_cache else None,
        feature_cache=config.feature_cache,
        accelerator=options.device,
        threads=max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else None,
        known=known,
    )


def _grid(config: ComparisonConfig, cells: list[Cell], command: str) -> ComparisonGrid:
    published = {name: entry.get("published") for name, entry in config.data.items()}
    return ComparisonGrid(
        title=config.title,
        command=command,
        versions=packages(),
        published={name: found for name, found in published.items() if found},
        cells=tuple(cell.planned() for cell in cells),
    )
