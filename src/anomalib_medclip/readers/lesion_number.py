"""One set of data has one number that means lesion, where that is not said.

Of a mask with 0 and 255 alone nobody can tell whether 255 is the lesion or a border that nobody
knows; of a set in which another mask has 0 and 1 alone it is plain that somebody has to be asked.
"""

from pathlib import Path

from anomalib_medclip.errors import MaskError
from anomalib_medclip.readers.lesion import Number


class LesionNumber:
    """The number by which the first mask marks its lesion, as every other then has to."""

    def __init__(self) -> None:
        self._first: tuple[Number, str] | None = None

    @property
    def first(self) -> tuple[Number, str] | None:
        """The number, and the first mask that has it; ``None`` where none has been met."""
        return self._first

    @first.setter
    def first(self, first: tuple[Number, str]) -> None:
        self._first = first

    def meet(self, number: Number | None, path: str | Path) -> None:
        """Take note of a mask that was read.

        Args:
            number: Of its ``Outline``; ``None`` where it has none, or it is said.
            path: What it is called.

        Raises:
            MaskError: A mask before has marked lesions by another.
        """
        if number is None:
            return
        if self.first is None:
            self.first = number, str(path)
        known, other = self.first or (number, path)
        if known != number:
            msg = (
                f"mask {path} holds {number} beside 0, but mask {other} holds {known}, and "
                "which of them mean lesion is not said; say it by 'lesion_labels', an option of "
                "the data, such as [1], or all where both do, and which are not known by "
                "'ignore_labels'"
            )
            raise MaskError(msg)
