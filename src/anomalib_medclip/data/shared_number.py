"""The number that means lesion, for processes that read masks side by side."""

import torch

from anomalib_medclip.files import as_json, from_json
from anomalib_medclip.readers.lesion import Number
from anomalib_medclip.readers.lesion_number import LesionNumber

_MOST_BYTES = 16384  # of a number and a path, which has 4096 at most, as JSON


class SharedLesionNumber(LesionNumber):
    """A number in memory that is shared with the processes of a data loader."""

    def __init__(self) -> None:
        super().__init__()
        self._said = torch.zeros(_MOST_BYTES, dtype=torch.uint8).share_memory_()

    @property
    def first(self) -> tuple[Number, str] | None:
        """As of the class above, by whichever process has met it."""
        if not self._said[0]:
            return None
        said = self._said[1:].numpy().tobytes().rstrip(b"\0")
        number, path = from_json(said.decode())
        return number, path

    @first.setter
    def first(self, first: tuple[Number, str]) -> None:
        said = as_json(first).encode()
        self._said[1 : 1 + len(said)] = torch.frombuffer(bytearray(said), dtype=torch.uint8)
        self._said[0] = 1  # at last, when all is there
