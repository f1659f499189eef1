"""``anomalib-medclip score``: a trained model on volumes and pictures."""

import argparse
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from anomalib_medclip.commands.arguments import at_least_one, count, pair, plain, proportion, share
from anomalib_medclip.data.slicing import Plane
from anomalib_medclip.decisions.decisions import Asked
from anomalib_medclip.decisions.thresholds import Rule
from anomalib_medclip.errors import ConfigError
from anomalib_medclip.files import check_writable
from anomalib_medclip.readers.intensity import with_nan_as_background
from anomalib_medclip.readers.left_out import warn_of
from anomalib_medclip.score.coco import check_outlines, write_coco
from anomalib_medclip.score.inferencer import Inferencer
from anomalib_medclip.score.inputs import Input, look_below
from anomalib_medclip.score.model_files import slicing_from
from anomalib_medclip.score.record import ScoreSettings, former_rows, write_table
from anomalib_medclip.score.scorer import Job, Scorer

logger = logging.getLogger(__name__)


def run(arguments: Sequence[str]) -> int:
    """Score every input, and write a folder of results for each and one table of all.

    Returns:
        0 if every input has its whole result, else 1.

    Raises:
        MedclipError: The model cannot be opened, or there is nothing to score or no place for it.
    """
    options = _parser().parse_args(arguments)
    console = Console(stderr=True)
    with _logging_to(console):
        return _run(options, console)


def _run(options: argparse.Namespace, console: Console) -> int:
    check_writable(options.out)
    inputs, left_out = look_below(options.input, options.out)
    inferencer = Inferencer(
        options.ckpt, options.device, options.intensity, options.precision, options.pretrained,
        options.trust,
    )  # fmt: skip
    if options.coco:
        check_outlines(inferencer)
    if options.nan:
        inferencer.intensity = with_nan_as_background(inferencer.intensity)
    scorer = Scorer(
        options.ckpt,
        options.out,
        inferencer,
        _settings(options, inferencer),
        options.organ,
        options.overwrite,
        options.workers,
    )
    former_rows(options.out)  # refuses a strange table before the work is done
    options.out.mkdir(parents=True, exist_ok=True)
    number, of = options.shard
    warn_of(left_out)
    try:
        _score_all(scorer, inputs[number::of], console)
    finally:
        rows = scorer.rows.values()
        names = [one.name for one in inputs]
        table = write_table(options.out, scorer.rows, names, left_out)
        failed = sum(row["status"] == "failed" for row in rows)
        done = len(rows) - failed
        mine = len(inputs[number::of])
        logger.info("%d of %d inputs scored; scores of all in %s", done, mine, table)
        lacks = sum("error" in row for row in rows) - failed
        if lacks:
            logger.warning("%d of these lack DICOM files; see 'error' in %s", lacks, table)
    if options.coco:
        threshold = inferencer.decisions.pixel_threshold
        logger.info("outlines in %s", write_coco(options.out, scorer.about_model, threshold))
    return int(failed + lacks > 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "anomalib-medclip score",
        description="Score volumes and pictures. Each gets a folder of results below --out: map, "
        "scores, the worst slices as a picture, for DICOM series also DICOM. Research use only.",
    )
    add = parser.add_argument
    add("input", type=Path, help="a volume, a picture, or a folder of such or of DICOM series")
    add("--ckpt", type=Path, required=True, help="a checkpoint, or .onnx, .xml, .pt2 or .pt")
    add("--out", type=Path, required=True, help="folder of results")
    add("--device", default="cpu", help="cpu, cuda, cuda:1, mps, or OpenVINO's name")
    faster = "bf16 is faster where the processor or GPU has it; by default as the model says"
    add("--precision", choices=("fp32", "bf16"), help=faster)
    named = "open_clip tag or weights file of a checkpoint's backbone, if not the one it names"
    add("--pretrained", metavar="TAG", help=named)
    add("--trust", action="store_true", help="open a .pt or .pt2 file, which runs the code in it")
    add("--batch-size", type=at_least_one, default=8, help="images at once")
    ahead = "inputs read ahead while the model computes; 0 does one thing after another"
    add("--workers", type=count, default=2, help=ahead)
    some = "score the I-th of N shares of the inputs, from 0; for several processes"
    add("--shard", type=share, default=(0, 1), metavar="I/N", help=some)
    as_trained = "by default as in training"
    add("--intensity", type=plain, help=f"such as brain or '[0, 80]'; {as_trained}")
    _add_of_volumes(parser, as_trained)
    _add_of_verdicts(parser)
    add("--worst", type=at_least_one, default=9, help="how many slices the picture shows")
    add("--no-dicom", action="store_true", help="write no DICOM files for DICOM series")
    add("--coco", action="store_true", help="write outlines in pictures as coco.json, too")
    add("--overwrite", action="store_true", help="replace results that are there")
    return parser


def _add_of_verdicts(parser: argparse.ArgumentParser) -> None:
    """Options of how volumes and pictures are called abnormal."""
    add = parser.add_argument
    rules = (
        "f1, sensitivity=0.95 (of abnormal patients, with 95 %% confidence) or false_alarms=0.05"
    )
    add("--decide-by", type=_rule, metavar="RULE", help=f"{rules}; by default as in training")
    add("--insist", action="store_true", help="give a verdict even by too few patients")
    rate = "share of abnormal patients where the model is used, for probabilities"
    add("--prevalence", type=proportion, metavar="SHARE", help=rate)


def _rule(word: str) -> Rule:
    try:
        return Rule.parse(word)
    except ConfigError as error:  # of which argparse would not say what is wrong
        raise argparse.ArgumentTypeError(str(error)) from error


def _add_of_volumes(parser: argparse.ArgumentParser, as_trained: str) -> None:
    """Options of how volumes are read and cut."""
    add = parser.add_argument
    add("--nan", choices=("background",), help=f"what NaN and infinities are; {as_trained}")
    add("--plane", choices=get_args(Plane), help=f"how volumes are cut; {as_trained}")
    add("--spacing", type=float, nargs=3, help=f"mm of row, column, slice; {as_trained}")
    add("--transforms", type=plain, help=f"list of class_path and init_args; {as_trained}")
    add("--organ", type=Path, help="labels of organs, a file, or a folder of files of equal names")
    add("--organ-labels", type=int, nargs="+", help=f"which to crop to; {as_trained}")
    both = "score from the first to the last slice only, counted from 0 along the cut"
    add("--slices", type=int, nargs=2, metavar=("FIRST", "LAST"), help=both)
    add("--uneven", action="store_true", help="take series with missing or uneven slices")
    chosen = "of several volumes of a DICOM series the one with these values of attributes"
    add("--dicom-where", type=pair, nargs="+", metavar="NAME=VALUE", help=chosen)


def _settings(options: argparse.Namespace, inferencer: Inferencer) -> ScoreSettings:
    """What the command line says, else what the model says."""
    given = {
        "plane": options.plane,
        "spacing": options.spacing and tuple(options.spacing),
        "organ_labels": options.organ_labels and tuple(options.organ_labels),
    }
    said: dict[str, Any] = {name: value for name, value in given.items() if value}
    if options.plane or options.spacing:
        said["slices"] = None  # those of training are of another cut
    return ScoreSettings(
        slicing=replace(slicing_from(inferencer.slicing, options.transforms), **said),
        batch_size=options.batch_size,
        slices=options.slices and tuple(options.slices),
        uneven=options.uneven,
        dicom_where=dict(options.dicom_where or ()) or None,
        worst=options.worst,
        dicom=not options.no_dicom,
        asked=Asked(options.decide_by, options.insist, options.prevalence),
        device=options.device,
        precision=inferencer.precision,
    )


def _score_all(scorer: Scorer, inputs: Sequence[Input], console: Console) -> None:
    """Score the inputs, and show how it goes."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    quiet = not console.is_terminal
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=quiet) as progress:
        whole = progress.add_task("inputs", total=len(inputs))
        slices = progress.add_task("slices")

        def report(job: Job) -> None:
            done, total = len(job.answers), len(job.images)
            progress.update(slices, description=job.one.name, completed=done, total=total)

        scorer.score(inputs, lambda: progress.advance(whole), report)


@contextmanager
def _logging_to(console: Console) -> Iterator[None]:
    """Show what this package logs, and warnings of others, no longer than the command runs.

    The root logger has the handler: where it has none, the first line that open_clip logs gives it
    one, and all would be shown twice.
    """
    handler = RichHandler(console=console, show_path=False, show_time=False, markup=False)
    handler.addFilter(_is_shown)
    root, package = logging.getLogger(), logging.getLogger("anomalib_medclip")
    level = package.level
    root.addHandler(handler)
    package.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        package.setLevel(level)


def _is_shown(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or record.name.startswith("anomalib_medclip")
