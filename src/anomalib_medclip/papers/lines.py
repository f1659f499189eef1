"""A config becomes the lines that are to be had of it, without a look at any data."""

from collections.abc import Iterator
from typing import NamedTuple

from anomalib_medclip.compare.comparison import ComparisonConfig, find_class
from anomalib_medclip.compare.grid import TRIVIAL, normals_of


class Training(NamedTuple):
    """Trainings of a model that differ in draw and seed alone.

    Attributes:
        model: Name in the config.
        normals: ``support`` or ``train``, as ``ModelEntry`` has it.
        trained_on: Name of the data.
        tests: Names of the data that each is tested on.
        k_shot: K; ``None`` for all normal images, and zero-shot.
        cells: How many there are.
    """

    model: str
    normals: str
    trained_on: str
    tests: tuple[str, ...]
    k_shot: int | None
    cells: int


def trainings(config: ComparisonConfig) -> list[Training]:
    """All trainings of a comparison, in the order of its config, trivial scores first."""
    return list(_trainings(config))


def _trainings(config: ComparisonConfig) -> Iterator[Training]:
    zero_shot = {
        name: getattr(find_class(one), "zero_shot", False) for name, one in config.data.items()
    }
    for model, entry in {**(TRIVIAL if config.trivial else {}), **config.models}.items():
        seeds = 1 if model in TRIVIAL else len(config.seeds)
        for data in config.tests or config.data:
            if data not in entry.get("data", [data]):
                continue
            tests = tuple((config.tests or {}).get(data, [data]))
            for normals in normals_of(entry):
                if normals == "train" and zero_shot[data]:
                    continue
                every = normals == "train" or zero_shot[data]
                for k in [min(config.k_shot)] if every else config.k_shot:
                    draws = 1 if zero_shot[data] else config.draws_of(k)
                    shown = None if every else k
                    yield Training(model, normals, data, tests, shown, draws * seeds)
