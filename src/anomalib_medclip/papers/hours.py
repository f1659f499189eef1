"""How many hours a table takes, from what ``bench`` has measured on some machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from anomalib_medclip.bench.output import load
from anomalib_medclip.compare.comparison import ComparisonConfig, find_class
from anomalib_medclip.compare.grid import TRIVIAL
from anomalib_medclip.data.bmad import BMAD_SETS
from anomalib_medclip.papers.lines import Training, trainings

TEST_IMAGES = {
    "Brain": 3715, "Liver": 1493, "Retina_RESC": 1805, "Retina_OCT2017": 968, "Chest": 17194,
    "Histopathology": 2000, "BrainMRI": 220, "BUSI": 748, "CheXpert": 500, "NIHChest": 112120,
    "OCTDL": 2064, "MVTecAD": 115, "Visa": 180,
}  # fmt: skip
"""Test images of each set as it is published; where a split is drawn, all of its images, and of
MVTec AD and VisA the mean of a category. ADNI is what one makes of it."""


class Effort(NamedTuple):
    """What a table takes.

    Attributes:
        cells: Trainings in all.
        hours: Of those that can be told.
        unmeasured: Models of which nothing was measured, with their number of trainings; scores
            that are trivial take no time worth a word.
        machine: What was measured on.
    """

    cells: int
    hours: float
    unmeasured: dict[str, int]
    machine: str


class Costs:
    """What ``bench`` measured on a machine.

    Args:
        path: A file that it wrote; by default what this package comes with.

    Raises:
        ResultsError: There is none, or ``bench`` did not write it.
    """

    def __init__(self, path: Path | None = None) -> None:
        found = load(path or own_figures())
        rows: Sequence[dict[str, Any]] = found["rows"]
        self._rows = [
            row for row in rows if (row["runtime"], row["precision"]) == ("eager", "fp32")
        ]
        hardware = found["runs"][-1]["hardware"] if found["runs"] else {"cpu": "none", "cores": 0}
        device = self._rows[-1]["device_name"] if self._rows else "cpu"
        cores = f"{hardware['cpu']}, {hardware.get('cores_allowed', hardware['cores'])} cores"
        self.machine = cores if device == "cpu" else f"{device}, {cores}"

    def seconds(self, config: ComparisonConfig, one: Training) -> float | None:
        """What one training of a kind takes with its tests; ``None`` where nothing was measured.

        Features that are kept make it less: every look at the test images counts in full.
        """
        if one.model in TRIVIAL:
            return 0.0
        entry = config.models[one.model]
        name = entry["class_path"].rpartition(".")[2].lower()
        scored = self._measured("score", name, one.k_shot)
        first, later = (
            self._measured(f"{word}-epoch", name, one.k_shot) for word in ("first", "later")
        )
        if not (scored and first and later):
            return None
        epochs = entry.get("max_epochs") or getattr(find_class(entry), "default_epochs", None) or 1
        # Copies are of few images only; of an epoch's images bench knows how many K makes.
        of_support = (one.k_shot or 0) * later["epoch_images"] / later["k_shot"]
        images = of_support if one.k_shot else _images_of_others(config, one)
        every = entry.get("record_every", 1)
        looks = max(1, epochs // every) if every else 1
        tested = sum(
            TEST_IMAGES.get(config.data[test].get("published", ""), 0) for test in one.tests
        )
        learning = first["ms_per_image"] + (epochs - 1) * later["ms_per_image"]
        return (images * learning + looks * tested * scored["ms_per_image"]) / 1000

    def _measured(self, what: str, method: str, k_shot: int | None) -> dict[str, Any] | None:
        """The latest row of a method whose K is nearest; of training there is none without K."""
        rows = [
            row
            for row in self._rows
            if (row["what"], row["method"]) == (what, method) and (row["k_shot"] or what == "score")
        ]
        nearest = sorted(reversed(rows), key=lambda row: abs(row["k_shot"] - (k_shot or 0)))
        return nearest[0] if nearest else None


def effort(config: ComparisonConfig, costs: Costs) -> Effort:
    """What all trainings of a comparison take together, one after another."""
    cells, seconds, unmeasured = 0, 0.0, dict[str, int]()
    for one in trainings(config):
        cells += one.cells
        each = costs.seconds(config, one)
        if each is None:
            unmeasured[one.model] = unmeasured.get(one.model, 0) + one.cells
        seconds += one.cells * (each or 0.0)
    return Effort(cells, seconds / 3600, unmeasured, costs.machine)


def own_figures() -> Path:
    """What was measured for this package; a wheel has it within, a clone in its documents."""
    package = Path(__file__).parents[1]
    places = (package / "performance", package.parents[1] / "docs" / "performance")
    folder = next(place for place in places if place.is_dir())
    return folder / "amd_epyc_2_cores.json"


def _images_of_others(config: ComparisonConfig, one: Training) -> int:
    """Images that are learnt from zero-shot: the test splits of BMAD's other sets."""
    target = config.data[one.trained_on].get("published", "")
    return sum(TEST_IMAGES[name] for name in BMAD_SETS if name != target)
