"""Tokens of normal images, and the distance of other tokens to the nearest of them."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from anomalib_medclip.components.buffers import SizedByState
from anomalib_medclip.components.faiss_index import FlatIndex, IndexOptions, faiss_serves
from anomalib_medclip.components.nearest import Cosines, Numbers, Scan, largest
from anomalib_medclip.errors import NonFiniteError, NotReadyError

Search: TypeAlias = Callable[[Float[Tensor, "query width"]], tuple[Cosines, Numbers]]
"""From unit vectors, the largest cosine of each with any row, and the row's number."""


class MemoryBank(SizedByState):
    """Exact nearest neighbour by cosine, level by level.

    The rows are kept in half precision, in the checkpoint and alive alike, so that a restored bank
    gives the very same distances; they are compared as unit vectors in float32. On processors and
    CUDA devices, FAISS searches in an index of each level, built at its first search; a processor
    with bf16 units scans large banks faster, see ``components.nearest``. Matrix products serve
    other devices, leave-one-out and traced graphs. All give the same distances.

    Args:
        dtype: Precision of the rows.
        index_options: How GPUs hold FAISS's indexes.
    """

    rows: Tensor
    index_options = IndexOptions()  # pickles of former versions have none

    def __init__(
        self,
        dtype: torch.dtype = torch.float16,
        index_options: IndexOptions = IndexOptions(),
    ) -> None:
        super().__init__()
        self.index_options = index_options
        self.register_buffer("rows", torch.empty(0, dtype=dtype))
        self._owners = torch.empty(0, dtype=torch.long)
        self._forget()

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been stored or restored yet."""
        return self.rows.numel() == 0

    def fill(
        self,
        tokens: Float[Tensor, "level image token width"],
        owners: Int[Tensor, "image"],
    ) -> None:
        """Replace the rows.

        Args:
            tokens: Tokens of normal images, of any length.
            owners: Number of the patient, or of the image, that each image came from; augmented
                copies have the owner of their original.

        Raises:
            NonFiniteError: A token is NaN or infinite, or too long for float32.
        """
        _check_finite(tokens, "support images")
        rows = F.normalize(tokens, dim=-1).flatten(1, 2).detach()
        self.rows = rows.to(self.rows.dtype)
        self._owners = owners.repeat_interleave(tokens.shape[2]).cpu()
        self._forget()

    def has_others(self, owner: int) -> bool:
        """Whether anything remains in the bank without this owner's rows."""
        return bool((self._owners != owner).any())

    def distance(
        self,
        tokens: Float[Tensor, "batch token width"],
        level: int,
        leave_out: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch token"]:
        """One minus the cosine to the nearest row, in [0, 2] (MVFA eq. 5).

        Args:
            tokens: Tokens of one level, of any length.
            level: Which level, from 0.
            leave_out: Owner whose rows each image must not see; -1 for none. Only while the bank
                is the one that was filled here: owners are not restored.

        Raises:
            NotReadyError: The bank is empty, or holds nothing but rows to leave out.
            NonFiniteError: A token is NaN or infinite, or too long for float32; traced graphs do
                not look.
        """
        queries = self._queries(tokens)
        if leave_out is not None:
            pairs = zip(queries, leave_out.tolist(), strict=True)
            return 1 - torch.stack([self._search(q, level, owner)[0] for q, owner in pairs])
        if torch.compiler.is_compiling() or torch.compiler.is_exporting():
            rows = F.normalize(self.rows[level].float(), dim=-1)
            return 1 - (queries @ rows.T).amax(dim=-1)
        cosines, _ = self._search(queries.flatten(0, 1), level)
        return 1 - cosines.view(queries.shape[:2])

    def nearest(
        self, tokens: Float[Tensor, "batch token width"], level: int
    ) -> tuple[Float[Tensor, "batch token"], Int[Tensor, "batch token"]]:
        """The distance as above, and the number of the row it is to.

        Rows are in the order of ``fill``: image after image, and in each its tokens.

        Raises:
            NotReadyError: The bank is empty.
            NonFiniteError: A token is NaN or infinite, or too long for float32.
        """
        queries = self._queries(tokens)
        cosines, numbers = self._search(queries.flatten(0, 1), level)
        return 1 - cosines.view(queries.shape[:2]), numbers.view(queries.shape[:2])

    def _queries(self, tokens: Tensor) -> Float[Tensor, "batch token width"]:
        """Unit vectors to look for, if there is anything to find."""
        if self.is_empty:
            msg = "memory bank is empty: train with k_shot > 0, or load a checkpoint"
            raise NotReadyError(msg)
        tokens = tokens.float()
        if not torch.compiler.is_compiling() and not torch.compiler.is_exporting():
            _check_finite(tokens, "images to score")
        return F.normalize(tokens, dim=-1)

    def _search(
        self, queries: Float[Tensor, "query width"], level: int, leave_out: int = -1
    ) -> tuple[Cosines, Numbers]:
        """Largest cosine of each query with any row of a level, and the row's number."""
        queries = queries.detach()
        if leave_out >= 0:
            return largest(queries, self._others(level, leave_out))
        if level not in self._searches:
            self._searches[level] = _fastest(self.rows[level], self.index_options)
        return self._searches[level](queries)

    def _others(self, level: int, owner: int) -> Float[Tensor, "other width"]:
        if not self.has_others(owner):
            msg = "no other normal image to compare with; leave-one-out needs at least two"
            raise NotReadyError(msg)
        return self.rows[level][self._owners != owner]

    def _apply(self, *args: Any) -> "MemoryBank":  # noqa: ANN401 - torch's
        """To another device or precision."""
        rows = self.rows
        super()._apply(*args)  # type: ignore[no-untyped-call]  # torch's
        if self.rows is not rows:
            self._forget()
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Without what is derived from the rows."""
        return {name: kept for name, kept in self.__dict__.items() if name != "_searches"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """As it was; what is derived from the rows will be so again."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # torch's
        self._forget()

    def _forget(self) -> None:
        """Drop what is derived from the rows."""
        self._searches: dict[int, Search] = {}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:  # noqa: ANN401 - torch's
        self._forget()
        super()._load_from_state_dict(state_dict, prefix, *args)


def _fastest(rows: Float[Tensor, "row width"], options: IndexOptions) -> Search:
    """The fastest search of these rows where they are."""
    if scan := Scan.fitting(rows):
        return scan.nearest
    if faiss_serves(rows.device):
        return FlatIndex(rows, options).nearest
    return partial(largest, rows=rows)


def _check_finite(tokens: Tensor, of: str) -> None:
    """Refuse what has no direction: a search finds some row for it, and its distance is wrong."""
    if not torch.linalg.vector_norm(tokens.detach(), dim=-1, dtype=torch.float32).isfinite().all():
        msg = (
            f"tokens of {of} are NaN, infinite, or too long for float32, and have no distance to a "
            f"memory bank: the model has diverged or overflowed; {NonFiniteError.remedy}"
        )
        raise NonFiniteError(msg)


def number_owners(groups: Sequence[str], abnormal: Sequence[bool]) -> list[int]:
    """Number each support image by its patient, or by itself where that is unknown.

    If all normal images are of one patient, every image stands for itself: leaving the patient
    out would leave nothing to compare with. An only normal image has no number, but -1.

    Args:
        groups: Patient of each image; empty where unknown.
        abnormal: Whether each image is abnormal.

    Example:
        >>> number_owners(["ann", "ann", "bob", ""], [False, True, False, True])
        [0, 0, 1, 2]
    """
    patients = [group or f"image {index}" for index, group in enumerate(groups)]
    if len(_normal(patients, abnormal)) < 2:
        patients = [f"image {index}" for index in range(len(groups))]
    numbers = {patient: number for number, patient in enumerate(dict.fromkeys(patients))}
    normal = _normal(patients, abnormal)
    if len(normal) == 1:
        numbers[normal.pop()] = -1
    return [numbers[patient] for patient in patients]


def _normal(patients: Sequence[str], abnormal: Sequence[bool]) -> set[str]:
    return {patient for patient, ill in zip(patients, abnormal, strict=True) if not ill}
