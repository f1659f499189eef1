"""What a run says on the screen when it ends, drawn from ``run.json``."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from anomalib_medclip.decisions.reference import LEVELS
from anomalib_medclip.evaluation.levels import TOO_FEW
from anomalib_medclip.metrics.clustered import FEWEST_PATIENTS

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


def show(record: Mapping[str, Any], folder: Path | str) -> None:
    """Write a run's figures to the screen: 80 columns, and plain where it is no terminal.

    Args:
        record: What ``run_record`` gives.
        folder: Of the run.
    """
    console = Console(width=_WIDTH)
    method, data, training = record["method"]["name"], record["data"], record["training"]
    where = " ".join(filter(None, (data["name"], data["category"])))
    console.print(f"\n{method} on {where}; {record['notice']}", style="bold", highlight=False)
    for line in _facts(training, record["test"]):
        console.print(line, highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("of")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("95 % interval, or why there is none", overflow="fold")
    for row in _rows(record):
        table.add_row(*row)
    console.print(table)
    if any(found.get("words", "").startswith(TOO_FEW) for found in record["figures"].values()):
        needed = f"{TOO_FEW}: {FEWEST_PATIENTS} of each class are needed"
        console.print(needed, highlight=False)
    for line in (*_thresholds(record["threshold"]), *_decisions(record["decisions"])):
        console.print(line, highlight=False)
    console.print(_places(record["files"], folder), highlight=False, soft_wrap=True)


def _facts(training: Mapping[str, Any], test: Mapping[str, Any]) -> Iterator[str]:
    if training:
        sets = ", ".join(training["sets"])
        epochs = training["epochs"]
        count = f"{epochs} epoch{'s' * (epochs != 1)}"
        learnt = f"{training['setting']}, {count}{f' on {sets}' if sets else ''}"
        took = f" in {training['seconds']:.0f} s" if "seconds" in training else ""
        yield f"trained: {learnt}{took}"
    for level, counts in test.get("levels", {}).items():
        classes = " and ".join(f"{found['units']} {word}" for word, found in counts.items())
        yield f"tested: {classes} {level}s"
    if unknown := test.get("images_of_unknown_patients"):
        yield f"{unknown} images are of unknown patients, who count as one each"
    if aggregated := test.get("aggregated"):
        yield f"score of a patient: {aggregated}"


def _rows(record: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Figures from the patient down to the pixel, then those of a user's own metrics."""
    figures = record["figures"]
    named = {level: {f"{level}_{k}": v for k, v in _FIGURES.items()} for level in reversed(LEVELS)}
    for level, every in {**named, **_PLACES}.items():
        here = {name: words for name, words in every.items() if name in figures}
        values = [figures[name] for name in here]
        if values and all(one["value"] is None for one in values):
            yield (level, "all", *_value(values[0]))
            continue
        for name, words in here.items():
            yield (level, words, *_value(figures[name]))
    for name, value in record["other_figures"].items():
        yield ("", name, *_value({"value": value}))


def _value(found: Mapping[str, Any]) -> tuple[str, str]:
    value, low, high = (found.get(name) for name in ("value", "low", "high"))
    shown = "-" if value is None else f"{value:.3f}"
    reason, _, _ = found.get("words", "").partition(":")  # run.json has it in full
    return shown, reason if low is None else f"{low:.3f} to {high:.3f}"


def _thresholds(known: Mapping[str, Any]) -> Iterator[str]:
    for level in ("image", "pixel", "volume", "patient"):
        found = known.get(level, {})
        if found.get("value") is not None:
            source = known["of_patients_from"] if level in ("volume", "patient") else known["from"]
            words = "; ".join(filter(None, (f"from {source}" * bool(source), found.get("words"))))
            yield f"threshold of {level}s: {found['value']:.3f}{f', {words}' if words else ''}"


def _decisions(known: Mapping[str, Any]) -> Iterator[str]:
    if "patient" in known:
        of = known["patient"]
        yield f"decisions about patients: {of['p_words']}; {of['probability_words']}"


def _places(files: Mapping[str, str | None], folder: Path | str) -> str:
    return f"in {folder}: run.json, {', '.join(filter(None, files.values()))}"
