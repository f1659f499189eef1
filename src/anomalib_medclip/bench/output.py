"""Rows on disk and on the screen: JSON with the machine, CSV beside it, and a table of them."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from anomalib_medclip.errors import ResultsError
from anomalib_medclip.files import as_json, from_json, write_whole
from anomalib_medclip.provenance import NOTICE
from anomalib_medclip.spreadsheet import shown

Measurement = dict[str, Any]
"""What was measured of one setting, by the names of ``CSV_COLUMNS``."""

_SETTING = (
    "what", "method", "k_shot", "runtime", "precision", "device", "device_name", "backbone",
    "pretrained", "image_size", "batch_size", "images", "threads",
)  # fmt: skip
"""What makes two rows measurements of the same."""

CSV_COLUMNS = (
    *_SETTING,
    "rounds", "images_per_second", "ms_per_image", "reference", "reference_ms_per_image", "ratio",
    "ratio_low", "ratio_high", "encoder_gflop", "gflops", "product_gflops", "epoch_images",
    "epoch_s", "load_s", "model_mb", "peak_mb", "peak_gpu_mb", "rank_correlation",
    "rank_correlation_median", "auroc", "auroc_fp32", "parts", "run",
)  # fmt: skip
"""Columns of the CSV; ``docs/performance.md`` says what they are."""

TABLE_HEADS = (
    "measured", "method", "K", "runtime", "precision", "device", "px", "batch", "images", "threads",
    "ms an image", "images a second", "reference, ms", "ratio", "its range", "of a product's rate",
    "epoch, s", "load, s", "model, MB", "peak, MB", "rank correlation", "AUROC (fp32)",
)  # fmt: skip
"""Heads of the table that people read."""

NOTHING = "Nothing has been measured yet."


def save(path: Path, row: Measurement, run: dict[str, Any], overwrite: bool) -> None:
    """Add a row to a file, as a whole, and write the CSV again from all that it holds.

    Args:
        path: The CSV; the JSON has the same name but for the ending, and is what counts.
        row: What was measured.
        run: Where and how: ``id``, ``command``, ``hardware`` and ``versions``.
        overwrite: Let go of earlier rows of the same setting, and of runs that have none left.

    Raises:
        ResultsError: The JSON was not written by this command.
    """
    home = path.with_suffix(".json")
    home.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(home.with_name(f".{home.name}.lock")):
        found: dict[str, Any] = {"notice": NOTICE, "runs": [], "rows": []}
        if home.is_file():
            found = load(home)
        if overwrite:
            same = [row.get(name) for name in _SETTING]
            rows = [r for r in found["rows"] if [r.get(name) for name in _SETTING] != same]
            found["rows"] = rows
        found["rows"].append({**row, "run": run["id"]})
        kept = {one["run"] for one in found["rows"]}
        others = [one for one in found["runs"] if one["id"] != run["id"] and one["id"] in kept]
        found["runs"] = [*others, run]
        write_whole(home, as_json(found, indent=1) + "\n")
        write_whole(path, _csv(found["rows"]))


def load(path: Path) -> dict[str, Any]:
    """What the JSON of a results file holds: ``notice``, ``runs`` and ``rows``.

    Raises:
        ResultsError: There is none, or it was not written by ``save``.
    """
    home = path.with_suffix(".json")
    try:
        found = from_json(home.read_text(encoding="utf-8"))
        runs = {run["id"] for run in found["runs"]}
        complete = all(row["run"] in runs for row in found["rows"])
        _tables(found)  # in which every number is looked at
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        msg = f"{home} cannot be read: {error!r}; name a file that bench wrote, or a new one"
        raise ResultsError(msg) from error
    if not complete:
        msg = f"{home} holds rows of no run; name a file that bench wrote, or a new one"
        raise ResultsError(msg)
    return dict(found)


def cells(row: Measurement) -> list[str]:
    """A row in words, one for each of ``TABLE_HEADS``."""
    threads = "its own" if row["threads"] is None else str(row["threads"])
    peak = row["peak_mb"] if row["peak_gpu_mb"] is None else row["peak_gpu_mb"]
    return [
        row["what"],
        row["method"],
        str(row["k_shot"]),
        row["runtime"],
        row["precision"],
        row["device_name"],
        str(row["image_size"]),
        str(row["batch_size"]),
        row.get("images") or "random",
        threads,
        _digits(row["ms_per_image"]),
        _digits(row["images_per_second"]),
        _digits(row["reference_ms_per_image"]),
        f"{row['ratio']:.2f}",
        f"{row['ratio_low']:.2f} to {row['ratio_high']:.2f}",
        _share(row.get("gflops"), row.get("product_gflops")),
        _digits(row.get("epoch_s")),
        _digits(row["load_s"]),
        _digits(row["model_mb"]),
        _digits(peak),
        _with_four(row.get("rank_correlation")),
        _areas(row),
    ]


def profile_table(rows: Iterable[Measurement]) -> tuple[list[str], list[list[str]]]:
    """Where the time of rows goes: heads and cells of a table, without rows that do not say.

    A cell is milliseconds an image and, of all that the row took, the share.
    """
    told = [row for row in rows if row.get("parts")]
    # The last part of each row is what remains.
    named = dict.fromkeys(part for row in told for part in list(row["parts"])[:-1])
    parts = [*named, *dict.fromkeys(list(row["parts"])[-1] for row in told)]
    lines = []
    for row in told:
        whole = sum(row["parts"].values())
        found = [(row["parts"].get(part), whole) for part in parts]
        shares = ["" if ms is None else f"{_digits(ms)} ({ms / of:.1%})" for ms, of in found]
        lines.append([row["what"], row["method"], str(row["k_shot"]), _digits(whole), *shares])
    return ["profile of", "method", "K", "ms an image", *parts], lines


def markdown(files: Sequence[Path]) -> str:
    """Tables of results files, a table for each run, under what it ran on.

    Raises:
        ResultsError: A file was not written by ``save``.
    """
    return "\n\n".join(part for file in files for part in _tables(load(file))) or NOTHING


def _tables(found: dict[str, Any]) -> list[str]:
    """Tables of what a results file holds."""
    parts = []
    for run in found["runs"]:
        own = [row for row in found["rows"] if row["run"] == run["id"]]
        parts.append(f"**{in_words(run)}**\n\n{_lines(TABLE_HEADS, map(cells, own))}")
        heads, shares = profile_table(own)
        if shares:
            parts.append(_lines(heads, shares))
    return parts


def in_words(run: dict[str, Any]) -> str:
    """Where and when a run was, and of which versions."""
    machine, packages = run["hardware"], run["versions"]
    units = f" with {', '.join(machine['units'])}" if machine["units"] else ""
    named = ("anomalib-medclip", "torch", "open_clip_torch", "onnxruntime", "openvino")
    of = ", ".join(f"{name} {packages[name]}" for name in named)
    return (
        f"{machine['cpu']}{units}; {machine['cores_allowed']} of {machine['cores']} cores, "
        f"{machine['memory_gb']} GB; load {machine['load']} before; {run['id']}; {of}; {NOTICE}"
    )


def _lines(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    all_rows = (heads, ["---"] * len(heads), *rows)
    return "\n".join("| " + " | ".join(words) + " |" for words in all_rows)


def _csv(rows: Iterable[Measurement]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    table.writeheader()
    for row in rows:
        parts = row.get("parts")
        cells = {**row, "parts": as_json(parts) if parts else None}
        table.writerow({name: shown(cell) for name, cell in cells.items()})
    return text.getvalue()


def _digits(number: float | None) -> str:
    """Three digits that count, and no more; nothing for nothing."""
    if number is None:
        return ""
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def _share(part: float | None, whole: float | None) -> str:
    return f"{part / whole:.0%}" if part and whole else ""


def _with_four(share: float | None) -> str:
    """A share to four places: what matters is how close it is to 1."""
    return "" if share is None else f"{share:.4f}"


def _areas(row: Measurement) -> str:
    found = [_with_four(row.get(name)) for name in ("auroc", "auroc_fp32")]
    return f"{found[0]} ({found[1]})" if all(found) else ""
