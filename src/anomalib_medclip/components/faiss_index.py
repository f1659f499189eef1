"""FAISS's exact search, in an index that is built once, on a processor or on GPUs."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distributions
from importlib.util import find_spec
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from anomalib_medclip.components.nearest import Cosines, Numbers, unit
from anomalib_medclip.errors import RuntimeMissingError

logger = logging.getLogger(__name__)

_PACKAGES = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cu11", "faiss-gpu-cu12")
"""All bring the module ``faiss``: one that is installed overwrites the others, and takes them away
with it."""

_GPU_LOCK = Lock()
"""FAISS's scratch memory on a GPU serves one thread at a time."""

_SCRATCH: WeakValueDictionary[tuple[torch.device, int | None], Any] = WeakValueDictionary()
"""FAISS's scratch memory by GPU and size, shared by all indexes there, and gone with the last."""


@dataclass(frozen=True)
class IndexOptions:
    """How GPUs hold an index; a processor has no choice.

    Attributes:
        float16: Compare in half precision, which halves the memory of the rows; cosines are then
            wrong by up to 1e-3.
        scratch_mb: MB that FAISS takes on a GPU, once for all indexes of this size, and at most
            what it takes by default: 512 to 1,536, as the GPU is large.
        sharded: Spread the rows over all GPUs that the process sees. By default they are on the
            GPU that they were on, because the others may be other processes' own.
    """

    float16: bool = False
    scratch_mb: int | None = None
    sharded: bool = False


class FlatIndex:
    """Rows in FAISS's ``IndexFlatIP`` or ``GpuIndexFlatIP``, on the device that they are on.

    Any thread may search; on GPUs they take turns.

    Args:
        rows: Vectors of any length and precision, compared as unit vectors.
        options: How GPUs hold them.
    """

    def __init__(
        self, rows: Float[Tensor, "row width"], options: IndexOptions = IndexOptions()
    ) -> None:
        faiss, self._device = _faiss(), rows.device
        devices = [rows.device]
        if rows.is_cuda and options.sharded:
            devices = [torch.device("cuda", number) for number in range(faiss.get_num_gpus())]
        self._is_sharded = len(devices) > 1
        parts = zip(rows.chunk(len(devices)), devices, strict=False)  # there may be few rows
        indexes = [_filled(part, device, options) for part, device in parts]
        self._index = indexes[0]
        if self._is_sharded:
            self._index = faiss.IndexShards(rows.shape[1], True, True)  # threads, numbers go on
            for index in indexes:
                self._index.add_shard(index)

    def nearest(self, queries: Float[Tensor, "query width"]) -> tuple[Cosines, Numbers]:
        """Largest cosine of each query with any row, and the row's number.

        Args:
            queries: Unit vectors in float32, on the device of the rows.
        """
        queries = queries.detach().contiguous()
        if self._is_sharded:
            queries = queries.cpu()  # from where FAISS copies them to each GPU
        with _alone_on(self._device):
            cosines, numbers = self._index.search(queries, 1)
            return cosines[:, 0].to(self._device), numbers[:, 0].to(self._device)


def faiss_serves(device: torch.device) -> bool:
    """Whether FAISS is installed, and for such a device."""
    if device.type not in ("cpu", "cuda") or find_spec("faiss") is None:
        return False
    return device.type == "cpu" or _faiss().get_num_gpus() > 0


def _filled(rows: Tensor, device: torch.device, options: IndexOptions) -> Any:  # noqa: ANN401 - FAISS has no types
    """An index of rows on a device."""
    with _alone_on(device):
        index = _empty(rows.shape[1], device, options)
        index.add(unit(rows).contiguous().to(device))
    return index


def _empty(width: int, device: torch.device, options: IndexOptions) -> Any:  # noqa: ANN401
    faiss = _faiss()
    if device.type == "cpu":
        return faiss.IndexFlatIP(width)
    config = faiss.GpuIndexFlatConfig()
    config.device, config.useFloat16 = device.index, options.float16
    scratch = _scratch(device, options.scratch_mb)
    index = faiss.GpuIndexFlatIP(scratch, width, config)
    index.referenced_objects = [scratch]  # FAISS's own way to keep what is used
    return index


def _scratch(device: torch.device, megabytes: int | None) -> Any:  # noqa: ANN401
    resources = _SCRATCH.get((device, megabytes))
    if resources is None:
        resources = _SCRATCH[device, megabytes] = _faiss().StandardGpuResources()
        if megabytes is not None:
            resources.setTempMemory(megabytes * 2**20)
    return resources


@contextmanager
def _alone_on(device: torch.device) -> Iterator[None]:
    """Let FAISS work in torch's current stream of a GPU, and no other thread with it."""
    if device.type == "cpu":
        yield
        return
    with _GPU_LOCK, torch.cuda.device(device):
        yield


def _faiss() -> Any:  # noqa: ANN401
    """FAISS, with indexes that take tensors where they lie.

    Raises:
        RuntimeMissingError: It is damaged.
    """
    _tell_of_several()
    try:
        import faiss.contrib.torch_utils  # takes a while, and only a search needs it
    except ImportError as error:
        msg = f"FAISS is damaged: {error}; {_remedy(_PACKAGES[:2])}"
        raise RuntimeMissingError(msg) from error
    return faiss


@cache
def _tell_of_several() -> None:
    """Name packages that overwrite one another, once."""
    found = [name for name in _PACKAGES if any(distributions(name=name))]
    if len(found) > 1:
        told = "%s are installed together, and faiss is that of the last one installed; %s"
        logger.warning(told, " and ".join(found), _remedy(found))


def _remedy(packages: Sequence[str]) -> str:
    return f"keep one: pip uninstall -y {' '.join(packages)}, then pip install the one you want"
