"""``anomalib-medclip bench``: what a method costs on this machine, as a ratio to bare CLIP."""

import argparse
import re
import shlex
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import get_args

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import track
from rich.table import Table

import anomalib_medclip
from anomalib_medclip.bench import machine, output
from anomalib_medclip.bench.fresh_process import has_bank_apart, learns_apart, measure_apart
from anomalib_medclip.bench.settings import RUNTIMES, SMALL, Setting, What, plan_settings
from anomalib_medclip.commands.arguments import at_least_one, count, plain
from anomalib_medclip.errors import MedclipError
from anomalib_medclip.files import check_writable
from anomalib_medclip.provenance import NOTICE, packages
from anomalib_medclip.report.redaction import without_paths


def run(arguments: list[str]) -> int:
    """Measure every setting asked for, write each row as it comes, and show them all.

    Returns:
        0 if every setting has its row, else 1.

    Raises:
        MedclipError: The options contradict one another, or a file is no results file.
    """
    options = _parser().parse_args(arguments)
    if options.table:
        print(output.markdown(options.table))  # noqa: T201 - what it was asked for
        return 0
    check_writable(options.out.parent)
    settings = _settings(options)
    if options.out.with_suffix(".json").exists():
        output.load(options.out)  # before hours of measuring
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    described = {
        "id": now,
        "command": without_paths(shlex.join(["anomalib-medclip", "bench", *arguments])),
        "hardware": machine.hardware(),
        "versions": packages(),
    }
    console = Console(stderr=True)
    rows = []
    for setting in track(settings, "measuring", console=console):
        try:
            row = measure_apart(setting)
        except MedclipError as error:
            console.print(f"{setting}: {error}", highlight=False, soft_wrap=True, markup=False)
            continue
        output.save(options.out, row, described, options.overwrite)
        rows.append(row)
        console.print(f"{setting}: {row['ratio']:.2f} x {row['reference']}", highlight=False)
    _show(rows, output.in_words(described))
    console.print(f"wrote {options.out}; {NOTICE}", highlight=False, soft_wrap=True)
    return int(len(rows) < len(settings))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "anomalib-medclip bench",
        description="Time methods against the bare image encoder of open_clip, in turn, each row "
        "in a process of its own. Close other programs first. Research use only.",
    )
    add = parser.add_argument
    target = parser.add_mutually_exclusive_group(required=True)
    kept = "table to write; a JSON with hardware and versions goes beside it"
    target.add_argument("--out", type=_table, metavar="FILE.csv", help=kept)
    shown = "measure nothing: print results files as a table in Markdown"
    target.add_argument("--table", type=Path, nargs="+", metavar="FILE", help=shown)
    add("--measure", nargs="+", choices=get_args(What), default=["score"], help="by default score")
    names = anomalib_medclip.list_models()
    add("--method", nargs="+", choices=names, default=names, help="by default all")
    add("--backbone", type=plain, metavar="NAME", help="of open_clip, or YAML; the method's own")
    add("--pretrained", metavar="TAG", help="open_clip tag or weights file; else random weights")
    size = "side of the images in pixels; by default the method's own"
    add("--image-size", type=at_least_one, metavar="PX", help=size)
    add("--batch-size", type=at_least_one, nargs="+", default=[8], metavar="N", help="8")
    add("--precision", choices=("fp32", "bf16"), default="fp32", help="of eager and compile")
    add("--device", type=_device, default="cpu", help="cpu, cuda or cuda:1")
    add("--runtime", nargs="+", choices=RUNTIMES, default=["eager"], help="by default eager")
    shots = "images in the memory bank, or K of an epoch; 0 is zero-shot, and the default"
    add("--k-shot", type=count, nargs="+", default=[0], metavar="K", help=shots)
    add("--profile", action="store_true", help="say also where the time goes; eager only")
    real = "data config; compare maps and scores of its test images with those in fp32"
    add("--images", metavar="CONFIG", help=real)
    add("--rounds", type=at_least_one, default=3, metavar="N", help="turns of each; 3")
    add("--threads", type=at_least_one, metavar="N", help="by default as many as torch takes")
    add("--overwrite", action="store_true", help="drop earlier rows of the same settings")
    add("--quick", action="store_true", help="a tiny CLIP, to try it out: figures mean nothing")
    return parser


def _settings(options: argparse.Namespace) -> list[Setting]:
    base = Setting(
        precision=options.precision,
        device=options.device,
        backbone=options.backbone,
        pretrained=options.pretrained,
        image_size=options.image_size,
        threads=options.threads,
        rounds=options.rounds,
        profile=options.profile,
        images=options.images,
    )
    if options.quick:
        base = replace(base, backbone=SMALL, image_size=base.image_size or 32, at_least=0.0)
    return plan_settings(
        base,
        options.measure,
        options.method,
        options.runtime,
        options.k_shot,
        options.batch_size,
        has_bank_apart,
        learns_apart,
    )


def _show(rows: list[output.Measurement], where: str) -> None:
    """The figures, and of the settings what is not the same in all rows; the file has all."""
    told = [output.cells(row) for row in rows]
    settings = output.TABLE_HEADS.index("ms an image")
    kept = []
    for i, head in enumerate(output.TABLE_HEADS):
        found = {cells[i] for cells in told}
        if (head in _ALWAYS and found != {""}) or (len(found) > 1 and i < settings):
            kept.append(i)
    lines = [[cells[i] for i in kept] for cells in told]
    _print(where, [output.TABLE_HEADS[i] for i in kept], lines)
    heads, shares = output.profile_table(rows)
    if shares:
        _print("where the time goes", heads, shares)


def _print(title: str, heads: list[str], lines: list[list[str]]) -> None:
    table = Table(title=title, title_justify="left", box=SIMPLE)
    for head in heads:
        table.add_column(head, overflow="fold")
    for line in lines:
        table.add_row(*line)
    Console().print(table)


_ALWAYS = (
    "method",
    "ms an image",
    "ratio",
    "its range",
    "epoch, s",
    "peak, MB",
    "rank correlation",
    "AUROC (fp32)",
)
"""Columns shown even where all rows agree, unless there is nothing in them."""


def _table(word: str) -> Path:
    path = Path(word)
    if path.suffix != ".csv":
        msg = f"{word!r} is no table; give a name that ends in .csv"
        raise argparse.ArgumentTypeError(msg)
    return path


def _device(word: str) -> str:
    if not re.fullmatch(r"cpu|cuda(:\d+)?", word):
        msg = f"{word!r} is no device; give cpu, cuda or cuda:1"
        raise argparse.ArgumentTypeError(msg)
    return word
