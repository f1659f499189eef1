"""What a new score is compared with: scores of patients that the model has not learnt from."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from anomalib_medclip.decisions.aggregation import Aggregation, Unit

Level = Literal["image", "volume", "patient"]

LEVELS: tuple[Level, ...] = ("image", "volume", "patient")
"""From the smallest unit to the one that a clinic decides about."""


def way_at(level: Level, chosen: Aggregation) -> Aggregation:
    """How a unit of a level is aggregated: a single image is its own score, whatever was chosen."""
    return Aggregation("worst") if level == "image" else chosen


@dataclass(frozen=True)
class Reference:
    """Scores of normal and of abnormal patients, one each, in rising order.

    A patient of several units counts once: a normal one by the highest, an abnormal one by the
    lowest of his abnormal ones. So whatever is promised of a patient holds for each of his units,
    too. Normal units of an abnormal patient are none of a normal one.

    Attributes:
        normal: Scores of the normal ones.
        abnormal: Scores of the abnormal ones.
        is_approximate: Whether they are not quite like new patients, such as those that were scored
            by models trained without them.
        one_each: Whether every patient has one unit, so that these are the scores of all units.
        images: How many images the smallest of the units has, and how many the largest.
    """

    normal: tuple[float, ...]
    abnormal: tuple[float, ...]
    is_approximate: bool = False
    one_each: bool = True
    images: tuple[int, int] = (1, 1)

    @classmethod
    def of(
        cls, found: Iterable[Unit], aggregation: Aggregation, is_approximate: bool = False
    ) -> "Reference":
        """Aggregate units, and take one of each patient."""
        found = list(found)
        ill = {unit.owner for unit in found if unit.abnormal}
        normal: dict[str, list[float]] = {}
        abnormal: dict[str, list[float]] = {}
        for unit in found:
            if unit.owner in ill and not unit.abnormal:
                continue
            into = abnormal if unit.abnormal else normal
            into.setdefault(unit.owner, []).append(aggregation.of(unit.scores, unit.areas))
        return cls(
            normal=tuple(sorted(max(scores) for scores in normal.values())),
            abnormal=tuple(sorted(min(scores) for scores in abnormal.values())),
            is_approximate=is_approximate,
            one_each=len({unit.owner for unit in found}) == len(found),
            images=(min(sizes), max(sizes))
            if (sizes := [len(one.scores) for one in found])
            else (1, 1),
        )

    def is_of_size(self, images: int) -> bool:
        """Whether a unit of so many images is like these; the worst of more are worse."""
        fewest, most = self.images
        return images == 1 if most == 1 else fewest / 2 <= images <= 2 * most

    @property
    def scores(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """All, the normal ones first."""
        return np.array([*self.normal, *self.abnormal])

    def as_plain(self) -> dict[str, Any]:
        """In values that JSON has; ``from_plain`` undoes it."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "Reference":
        """Undo ``as_plain``; JSON has lists for tuples."""
        scores = {name: tuple(map(float, plain[name])) for name in ("normal", "abnormal")}
        return cls(**{**plain, **scores, "images": tuple(plain["images"])})
