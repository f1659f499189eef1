"""``anomalib-medclip prompts``: which words tell normal from abnormal images, and how surely?

Each set of words scores the support, in which no patient is scored by what has learnt from him. No
test image is read. Research use only.
"""

import argparse
import csv
import io
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from anomalib_medclip.commands.progress import reading
from anomalib_medclip.compare.word_scores import SetFigure, Support, compare_words
from anomalib_medclip.compare.word_sets import read_word_sets
from anomalib_medclip.devices import check_gpu
from anomalib_medclip.files import as_json, check_writable, write_whole
from anomalib_medclip.metrics.clustered import FEWEST_PATIENTS
from anomalib_medclip.provenance import NOTICE, packages
from anomalib_medclip.report.word_sets_page import word_sets_page
from anomalib_medclip.spreadsheet import shown

_COLUMNS = (
    "name", "object_name", "normal", "abnormal", "templates", "value", "low", "high", "best",
)  # fmt: skip


def run(arguments: list[str]) -> int:
    """Compare sets of words on a support.

    Returns:
        0.

    Raises:
        MedclipError: The config, the words or the data cannot be read, or nothing can be written.
    """
    options = _parser().parse_args(arguments)
    if options.device == "gpu":
        check_gpu()
    if options.out:
        check_writable(options.out)
    config = read_word_sets(options.config)
    on_gpu = options.device != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    support, figures = compare_words(config, reading, device)
    said = list(sentences(support, figures))
    show(figures, said, Console())
    if options.out:
        record = {
            "notice": NOTICE,
            "command": shlex.join(["anomalib-medclip", "prompts", *arguments]),
            "said": said,
            "model": config.model["class_path"],
            "trained": support.trainings,
            "support": support.counts,
            "sets": [one.as_plain() for one in figures],
            "versions": packages(),
        }
        for path in write(options.out, record):
            Console(stderr=True).print(f"wrote {path}", highlight=False, soft_wrap=True)
    return 0


def sentences(support: Support, figures: Sequence[SetFigure]) -> tuple[str, str, str]:
    """What was done, what choosing costs, and whether a set is the best."""
    counts, count = support.counts, len(figures)
    patients = len({*support.patients})
    images = " and ".join(f"{one['images']} {word}" for word, one in counts.items())
    done = (
        f"{count} sets of words were tried on the support, {images} images of {patients} patients. "
    )
    done += f"{_how(support, patients)}. No test image was read"
    price = f"The highest of {count} figures is higher than it will be on other patients: "
    price += "test the words that you choose on others"
    if any(one.best for one in figures):
        name = next(one.name for one in figures if one.best)
        clear = f"The set {name!r} is marked: it beats every other set on the same patients, "
        return done, price, clear + "p < 0.05 against each"
    few = min(one["patients"] for one in counts.values()) < FEWEST_PATIENTS
    why = f"a class has fewer than {FEWEST_PATIENTS} patients" if few else "no set beats all others"
    return done, price, f"No set is marked as the best: {why}"


def _how(support: Support, patients: int) -> str:
    """What scored the images."""
    count = support.trainings
    if not count:
        return "CLIP's own weights compared each image with the sentences; nothing was trained"
    left_out = "one patient" if count == patients else "some of the patients"
    told = f"The model was trained {count} times with each set, each time without {left_out}, and "
    told += "scored who was left out. A figure mixes the scores of these models, which need not "
    return told + "agree in scale, and its interval does not hold by how much trainings differ"


def show(figures: Sequence[SetFigure], said: Sequence[str], console: Console) -> None:
    """Print a table of the sets, the highest first, and what there is to say of it."""
    table = Table("set", "says of", "states", "templates", "AUROC", "95 % interval", "")
    for one in figures:
        states = f"{len(one.words['normal'])} + {len(one.words['abnormal'])}"
        cells = one.object_name, states, str(len(one.words["templates"])), f"{one.value:.3f}"
        table.add_row(Text(one.name), *map(Text, cells), interval(one), "best" * one.best)
    console.print(table)
    for sentence in (*said, NOTICE):
        console.print(f"{sentence.removesuffix('.')}.", highlight=False)


def interval(figure: SetFigure) -> str:
    """An interval, or why there is none."""
    if figure.low is None or figure.high is None:
        return figure.reason.partition(";")[0]
    return f"{figure.low:.3f} to {figure.high:.3f}"


def write(folder: Path, record: dict[str, Any]) -> list[Path]:
    """Write ``prompts.html``, ``prompts.csv`` and ``prompts.json``."""
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(_COLUMNS)
    for one in record["sets"]:
        flat = {**one, **{name: " | ".join(texts) for name, texts in one["words"].items()}}
        rows.writerow(["" if flat[name] is None else shown(flat[name]) for name in _COLUMNS])
    texts = {
        "prompts.html": word_sets_page(record),
        "prompts.csv": table.getvalue(),
        "prompts.json": as_json(record, indent=2) + "\n",
    }
    for name, text in texts.items():
        write_whole(folder / name, text)
    return [folder / name for name in texts]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("anomalib-medclip prompts", description=__doc__)
    config = "data, model and sets of words, such as configs/word_sets/demo.yaml"
    parser.add_argument("config", type=Path, metavar="CONFIG", help=config)
    out = "write prompts.html, prompts.csv and prompts.json to a folder, which is made"
    parser.add_argument("--out", type=Path, metavar="DIR", help=out)
    what = "what to compute on"
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto", help=what)
    return parser
