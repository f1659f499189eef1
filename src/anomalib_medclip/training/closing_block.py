"""What a run says on the screen when it ends, drawn from ``run.json``."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from anomalib_medclip.decisions.reference import LEVELS
from anomalib_medclip.evaluation.levels import TOO_FEW
from anomalib_medclip.metrics.clustered import FEWEST_PATIENTS
from anomalib_medclip.training.run_folder import RUN

_FIGURES = {
    "AUROC": "AUROC",
    "AP": "AP",
    "Sensitivity": "sensitivity",
    "Specificity": "specificity",
    "F1": "F1",
}
_PLACES = {
    "lesion": {
        "lesion_Sensitivity": "sensitivity",
        "lesion_FalsePositives": "false positives per patient",
        "lesion_FROC": "FROC",
        "lesion_Dice": "Dice per patient",
    },
    "pixel": {
        "pixel_AUROC": "AUROC",
        "pixel_AP": "AP",
        "pixel_AUPRO": "AUPRO",
        "pixel_Dice": "Dice at the threshold",
    },
}
_WIDTH = 80
_IN_SIGHT = ("pictures", "run", "checkpoint")
"""Of a run's files those that somebody looks for next."""


def show(record: Mapping[str, Any], folder: Path | str) -> None:
    """Write a run's figures to the screen: 80 columns, and plain where it is no terminal.

    Args:
        record: What ``run_record`` gives.
        folder: Of the run.
    """
    console = Console(width=_WIDTH, highlight=False)
    method, data, training = record["method"]["name"], record["data"], record["training"]
    where = " ".join(filter(None, (data["name"], data["category"])))
    console.print(f"\n{method} on {where}; {record['notice']}", style="bold")
    for line in _facts(training, record["test"]):
        console.print(line)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("of")
    table.add_column("normal", justify="right")
    table.add_column("abnormal", justify="right")
    table.add_column("figure", no_wrap=True)
    table.add_column("value", justify="right")
    table.add_column("95 % interval", overflow="fold")
    for row in _rows(record):
        table.add_row(*row)
    console.print(table)
    for line in _notes(record):
        console.print(line)
    console.print(_places(record["files"], Path(folder)), soft_wrap=True)


def show_metrics(metrics: Mapping[str, float | None], words: str) -> None:
    """Write metrics alone to the screen, as of a validation, which leaves no files.

    Args:
        metrics: By name; ``None`` where one is not defined.
        words: What they are of.
    """
    table = Table("figure", box=None, pad_edge=False, header_style="bold")
    table.add_column("value", justify="right")
    for name, value in metrics.items():
        table.add_row(name, _value({"value": value})[0])
    console = Console(width=_WIDTH, highlight=False)
    console.print(f"\n{words}", style="bold")
    console.print(table)


def _facts(training: Mapping[str, Any], test: Mapping[str, Any]) -> Iterator[str]:
    if training:
        sets = ", ".join(training["sets"])
        epochs = training["epochs"]
        count = f"{epochs} epoch{'s' * (epochs != 1)}"
        learnt = f"{training['setting']}, {count}{f' on {sets}' if sets else ''}"
        took = f" in {training['seconds']:.0f} s" if "seconds" in training else ""
        yield f"trained: {learnt}{took}"
    if unknown := test.get("images_of_unknown_patients"):
        yield f"{unknown} images are of unknown patients, who count as one each"


def _rows(record: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str, str, str]]:
    """Figures from the patient down to the pixel, each level with what was tested, and last others.

    Level and counts stand in the first row of a level alone.
    """
    figures, counts = record["figures"], record["test"].get("levels", {})
    named: dict[str, dict[str, str]] = {
        level: {f"{level}_{name}": words for name, words in _FIGURES.items()}
        for level in reversed(LEVELS)
    }
    for level, every in {**named, **_PLACES}.items():
        here = {words: figures[name] for name, words in every.items() if name in figures}
        if here and all(one["value"] is None for one in here.values()):
            here = {"all": next(iter(here.values()))}
        rows = [(words, *_value(found)) for words, found in here.items()]
        rows += _threshold(record["threshold"], level)
        units = (str(found["units"]) for found in counts.get(level, {}).values())
        first = (level, *(units if level in counts else ("", "")))
        for row in rows:
            yield (*first, *row)
            first = "", "", ""
    for name, value in record["other_figures"].items():
        yield ("", "", "", name, *_value({"value": value}))


def _threshold(known: Mapping[str, Any], level: str) -> Iterator[tuple[str, str, str]]:
    found = known.get(level, {})
    if found.get("value") is not None:
        source = known["of_patients_from"] if level in ("volume", "patient") else known["from"]
        yield "threshold", f"{found['value']:.3f}", f"from {source}" * bool(source)


def _value(found: Mapping[str, Any]) -> tuple[str, str]:
    value, low, high = (found.get(name) for name in ("value", "low", "high"))
    shown = "-" if value is None else f"{value:.3f}"
    reason, _, _ = found.get("words", "").partition(":")  # run.json has it in full
    return shown, reason if low is None else f"{low:.3f} to {high:.3f}"


def _notes(record: Mapping[str, Any]) -> Iterator[str]:
    """What the table has no room for."""
    figures, known = record["figures"], record["threshold"]
    if any(found.get("words", "").startswith(TOO_FEW) for found in figures.values()):
        yield f"{TOO_FEW}: {FEWEST_PATIENTS} of each class are needed"
    of_many = any(
        found["value"] is not None
        for name, found in figures.items()
        if name.startswith(("patient_", "volume_"))
    )
    if (aggregated := record["test"].get("aggregated")) and of_many:
        yield f"score of a patient: {aggregated}"
    for level in ("image", "pixel", "volume", "patient"):
        found = known.get(level, {})
        if found.get("value") is not None and found.get("words"):
            yield f"threshold of {level}s: {found['words']}"
    if of := record["decisions"].get("patient"):
        known_words = [of["p_words"], of["probability_words"]]
        nothing = of.get("smallest_p") is None and of.get("prevalence") is None
        why = ["no p-values and no probabilities (why: run.json)"]
        yield f"decisions about patients: {'; '.join(why if nothing else known_words)}"


def _places(files: Mapping[str, str | None], folder: Path) -> Text:
    """Where all is: a path from here, which a terminal opens by a click."""
    whole = folder.absolute()
    shown = whole.relative_to(Path.cwd()) if whole.is_relative_to(Path.cwd()) else whole
    found = {**files, "run": RUN}
    names = ", ".join(filter(None, (found.get(name) for name in _IN_SIGHT)))
    return Text.assemble("in ", (str(shown), f"link {whole.as_uri()}"), f": {names}")
