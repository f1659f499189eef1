"""What is written of a result besides its map: scores, where they come from, tables."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock
from pandas import DataFrame, concat, read_csv

from anomalib_medclip.clip.blocks import Precision
from anomalib_medclip.data.slicing import Slicing
from anomalib_medclip.decisions.decisions import Asked
from anomalib_medclip.errors import ResultsError
from anomalib_medclip.files import (
    A_FOLDER,
    MISSING,
    as_json,
    fault_of,
    flush,
    from_json,
    read_json,
    sha256,
    told_if_full,
    write_whole,
)
from anomalib_medclip.provenance import NOTICE, versions
from anomalib_medclip.readers.dicom_values import DicomWhere
from anomalib_medclip.readers.left_out import LeftOut
from anomalib_medclip.readers.volume_file import sha256_of_volume
from anomalib_medclip.score.inferencer import Inferencer
from anomalib_medclip.spreadsheet import original, shown


@dataclass(frozen=True)
class ScoreSettings:
    """How inputs are scored, besides the model.

    Attributes:
        slicing: How volumes are cut.
        batch_size: Images at once; it decides the last digits, too.
        slices: First and last slice to score, both included; by default those of ``slicing``.
        uneven: Whether DICOM series with missing, doubled or uneven slices are taken.
        dicom_where: Values by which one of several volumes of a DICOM series is chosen.
        worst: Slices on the sheet of pictures.
        dicom: Whether maps of DICOM series are written as DICOM, too.
        device: What the model runs on, which decides its last digits.
        precision: What it computes most products in.
        asked: By which rule to decide, and what to say of it.
    """

    slicing: Slicing = field(default_factory=Slicing)
    batch_size: int = 8
    slices: tuple[int, int] | None = None
    uneven: bool = False
    dicom_where: DicomWhere | None = None
    worst: int = 9
    dicom: bool = True
    device: str = "cpu"
    precision: Precision = "fp32"
    asked: Asked = Asked()


def describe_model(path: Path, inferencer: Inferencer) -> dict[str, Any]:
    """What results say of the model: its files, what it says of itself, packages.

    Args:
        path: The file that was opened.
        inferencer: What it was opened with.
    """
    origin = {k: v for k, v in inferencer.origin.items() if k != "threshold_from"}
    known = inferencer.has_threshold
    source = (inferencer.origin["threshold_from"] or "unknown") if known else "none is known"
    return {
        "model": {"sha256": inferencer.certified or {path.name: sha256(path)}, **origin},
        "threshold": {"value": 0.5 if known else None, "from": source},
        "intensity": inferencer.intensity,
        "versions": versions(),
    }


def provenance(
    model: dict[str, Any], files: Sequence[Path], settings: ScoreSettings, organ: Path | None
) -> dict[str, Any]:
    """Everything that a result depends on, as JSON has it.

    Args:
        model: As ``describe_model`` gives it.
        files: The files that are scored.
        settings: How.
        organ: Labels of organs that the volume is cropped by, if there are.
    """
    has_organ = organ is not None and fault_of(organ) is not MISSING
    found = {
        **model,
        "input_sha256": {file.name: sha256(file) for file in files},
        "organ_sha256": sha256_of_volume(organ) if organ and has_organ else None,
        "settings": asdict(settings),
    }
    plain: dict[str, Any] = from_json(as_json(found))
    return plain


def kept_result(folder: Path, made_with: dict[str, Any]) -> dict[str, Any] | None:
    """The scores that lie in a folder, if they come from the same files and settings.

    Raises:
        ResultsError: Something else lies there.
    """
    if not folder.exists():
        return None
    try:
        found: dict[str, Any] = read_json(folder / "scores.json")
        if found["provenance"] == made_with:
            return found
    except (OSError, ValueError, KeyError, TypeError):
        reason = "cannot be read as a result"
    else:
        reason = "holds the result of another input, model, version or setting"
    msg = f"{folder} {reason}; give --overwrite, or another folder by --out"
    raise ResultsError(msg)


@contextmanager
def whole_folder(folder: Path, check: Callable[[], object] = lambda: None) -> Iterator[Path]:
    """A folder to write to, which appears under its name once all is written, else not at all.

    What lay there before is kept until then. One process at a time lets its own appear.

    Args:
        folder: The folder.
        check: Called before it appears; what lies there is kept if it raises.

    Raises:
        OutputError: The disk is full.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (
        told_if_full(folder.parent),
        # A name may be as long as the system allows, and here something is added to it.
        TemporaryDirectory(prefix=f".{folder.name[:50]}-", dir=folder.parent) as aside,
    ):
        new, old = Path(aside, "new"), Path(aside, "old")
        new.mkdir()
        yield new
        for file in new.iterdir():
            flush(file)
        with results_lock(folder.parent):
            check()
            if folder.exists():
                folder.replace(old)
            try:
                new.replace(folder)
            except OSError:
                if old.exists():
                    old.replace(folder)
                raise


def results_lock(out: Path) -> FileLock:
    """Held while results appear in a folder: another process may be done in this moment."""
    return FileLock(out / ".scores.csv.lock")


def write_scores(folder: Path, record: dict[str, Any], made_with: dict[str, Any]) -> None:
    """Write ``scores.json``, and ``scores.csv`` with a row per slice.

    Args:
        folder: Where to; it is not yet the folder that a user sees.
        record: The scores; ``slices`` is a list of rows.
        made_with: As ``provenance`` gives it.
    """
    full = {**record, "provenance": made_with, "notice": NOTICE}
    (folder / "scores.json").write_text(as_json(full, indent=2) + "\n", encoding="utf-8")
    about = {"threshold_from": made_with["threshold"]["from"], "notice": NOTICE}
    rows = [{**row, **about} for row in record["slices"]]
    DataFrame(rows).map(shown).to_csv(folder / "scores.csv", index=False)


TABLE_COLUMNS = (
    "input", "name", "level", "score", "label", "no_verdict", "threshold", "threshold_holds",
    "p_value", "p_smallest", "p_is_approximate", "probability", "prevalence", "no_probability",
    "abstains", "distance", "distance_limit", "no_unlike", "worst", "mean", "slices", "flat",
    "status", "error", "threshold_from", "notice",
)  # fmt: skip
"""Of the table of all inputs."""

_WORDS = [
    "input", "name", "no_verdict", "no_probability", "no_unlike", "error", "threshold_from",
]  # fmt: skip


def former_rows(out: Path, others: Collection[str] = ()) -> DataFrame:
    """Rows of other runs in the table of all inputs, of those whose results are still there.

    Args:
        out: Folder of all results.
        others: Names of inputs that another process scores, whose failures have a row, too.

    Raises:
        ResultsError: There is a file of that name, but not such a table.
    """
    path = out / "scores.csv"
    if not path.is_file():
        return DataFrame(columns=list(TABLE_COLUMNS), dtype=object)
    try:
        table = read_csv(path, dtype=str, keep_default_na=False).map(original)
        table[["input", "name", "score", "label", "status"]]  # which all versions have
        table = table.reindex(columns=list(TABLE_COLUMNS), fill_value="")
    except (KeyError, ValueError) as error:
        msg = f"{path} is no table of results: {error}; move it, or give another folder by --out"
        raise ResultsError(msg) from error
    failed = (table["status"] == "failed") & table["name"].isin(others)
    there = table["name"].map(lambda name: name != "" and fault_of(out / name) is A_FOLDER)
    return table[failed | there.astype(bool)]


def write_table(
    out: Path,
    rows: Mapping[str, dict[str, Any]],
    order: Sequence[str],
    left_out: Sequence[LeftOut] = (),
) -> Path:
    """Write ``scores.csv`` of all inputs; rows of other runs and processes stay in it.

    Args:
        out: Folder of all results.
        rows: What became of each input of this process, by its name.
        order: Names of all inputs of all processes; rows of former inputs come first.
        left_out: Files that are not scored, by their paths below the input, and why. Their rows
            come last, and have no name.

    Raises:
        ResultsError: There is a file of that name, but not such a table.
    """
    path = out / "scores.csv"
    places = {name: place for place, name in enumerate((*order, ""))}
    strangers = [
        {
            "input": one.path.as_posix(),
            "name": "",
            "status": "left out",
            "error": f"{one.said}; {one.remedy}",
        }
        for one in left_out
    ]
    table = DataFrame(
        [{**row, "notice": NOTICE} for row in (*rows.values(), *strangers)],
        columns=list(TABLE_COLUMNS),
        dtype=object,
    )
    with results_lock(out):
        before = former_rows(out, others=places.keys() - rows.keys())
        table = concat([before[~before["name"].isin(table["name"])], table], ignore_index=True)
        in_order = table["name"].map(places).fillna(-1).sort_values(kind="stable").index
        cells = table.loc[in_order]
        # Of these alone: pandas would take whole numbers among empty cells for fractions.
        cells[_WORDS] = cells[_WORDS].map(shown)
        write_whole(path, cells.to_csv(index=False, lineterminator="\n"))
    return path
