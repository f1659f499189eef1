"""What is to be shown of one image."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

Verdict = Literal["right", "missed", "false alarm"]


class Extent(NamedTuple):
    """How large the whole picture is, which may have been resized since, and which way it lies.

    Attributes:
        height, width: In millimetres, or in pixels where these are not known.
        in_mm: Whether it is millimetres.
        sides: Letters of what lies at the left and at the right edge, such as ``("R", "L")``;
            ``None`` where nobody knows.
    """

    height: float
    width: float
    in_mm: bool = False
    sides: tuple[str, str] | None = None


@dataclass(frozen=True, eq=False)
class View:
    """An image, what is said of it, and what is true; ``None`` is what there is not.

    Attributes:
        image: 0 to 255.
        name: Of the image, in words.
        heat: How abnormal each pixel is.
        truth: Where lesions are; all false in a normal image.
        called: Which pixels are called abnormal.
        score: How abnormal the image is.
        decision: Whether it is called abnormal.
        label: Whether it is abnormal.
        threshold: Above which score it is called so.
        extent: By default that of the pixels.
    """

    image: UInt8[np.ndarray, "row column 3"]
    name: str
    heat: Float[np.ndarray, "row column"] | None = None
    truth: Bool[np.ndarray, "row column"] | None = None
    called: Bool[np.ndarray, "row column"] | None = None
    score: float | None = None
    decision: bool | None = None
    label: bool | None = None
    threshold: float | None = None
    extent: Extent | None = None

    @property
    def verdict(self) -> Verdict | None:
        """What the decision is against the truth."""
        if self.decision is None or self.label is None:
            return None
        if self.decision == self.label:
            return "right"
        return "missed" if self.label else "false alarm"

    @property
    def words(self) -> str:
        """Score, decision and truth in a line, as far as they are known.

        >>> image = np.zeros((2, 2, 3), np.uint8)
        >>> View(image, "1.png", score=0.734, decision=True, threshold=0.5, label=False).words
        'score 0.734, above 0.500: abnormal; truth: normal'
        """
        said = [] if self.score is None else [f"score {self.score:.3f}"]
        if self.decision is not None:
            side = "above" if self.decision else "up to"
            where = "" if self.threshold is None else f"{side} {self.threshold:.3f}: "
            said.append(where + _class(self.decision))
        found = ", ".join(said)
        truth = "" if self.label is None else f"truth: {_class(self.label)}"
        return "; ".join(filter(None, (found, truth)))


def _class(abnormal: bool) -> str:
    return "abnormal" if abnormal else "normal"
