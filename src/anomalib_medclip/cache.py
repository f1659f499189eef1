"""Tensors that are dear to make and seen often: a frozen tower's features, slices of volumes."""

import errno
import hashlib
import logging
import shutil
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import IO, Literal

import numpy as np
import torch
from torch import Tensor

from anomalib_medclip.arrays import read_arrays
from anomalib_medclip.files import whole_file

logger = logging.getLogger(__name__)

CachePrecision = Literal["float32", "float16", "off"]
"""How tensors are kept: exactly, in half the space, or not at all."""

_SPARE = 5_000_000_000
"""Bytes of disk that are left free."""


class Shelf:
    """Tensors on disk that outlive the process, one file each, for all processes that want them.

    Args:
        folder: Where they lie; it may be deleted at any time.
        scope: Everything that tells these tensors from others of the same keys.
        gigabytes: Budget (1e9 bytes) of the whole folder; what exceeds it is not kept.
    """

    def __init__(self, folder: Path, scope: str, gigabytes: float) -> None:
        self._folder = folder / hashlib.sha256(scope.encode()).hexdigest()[:16]
        self._budget = int(gigabytes * 1e9) - sum(map(_size, folder.rglob("*.npz")))

    def find(self, key: Hashable) -> Tensor | None:
        """The tensor of a key, if it is there and whole, by its checksum."""
        path = self._path(key)
        try:
            found = read_arrays(path)
            if str(found["key"]) == repr(key):
                return torch.from_numpy(found["value"])
            reason = "it is of another image"
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (KeyError, TypeError, ValueError) as error:
            reason = str(error)
        logger.warning("%s is damaged, and made again: %s", path, reason)
        return None

    def keep(self, key: Hashable, value: Tensor) -> None:
        """Keep a tensor, if there is room; a disk that cannot be written costs a warning."""
        size = value.numel() * value.element_size()
        if size > self._budget:
            return
        self._budget -= size
        try:
            with whole_file(self._path(key)) as aside, aside.open("wb") as file:
                if shutil.disk_usage(self._folder).free < _SPARE + size:
                    raise OSError(errno.ENOSPC, "the disk is nearly full")
                np.savez(file, key=repr(key), value=value.numpy())
        except OSError as error:
            self._budget = 0
            logger.warning("no more features are shared: %s", error)

    def _path(self, key: Hashable) -> Path:
        digest = hashlib.sha256(repr(key).encode()).hexdigest()
        return self._folder / digest[:2] / f"{digest[2:32]}.npz"


def _size(file: Path) -> int:
    """Bytes of a file, which somebody may have deleted."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


class TensorCache:
    """Tensors by key: in memory up to a budget, then in a file that vanishes with the process.

    Nor is the disk filled up: what cannot be kept is computed again, and a warning says so once.

    Args:
        memory: Budget in GB (1e9 bytes).
        precision: How tensors are kept.
        folder: Where the file is made when memory does not suffice.
        shelf: Where other processes have left theirs, and find ours.

    Attributes:
        found: How many tensors came from the shelf.

    Example:
        >>> cache = TensorCache(memory=1.0)
        >>> square = lambda missing: torch.tensor([4.0, 9.0])[missing]
        >>> cache.fetch(["two", "three"], square)
        tensor([4., 9.])
        >>> cache.fetch(["three"], lambda missing: 1 / 0)  # not computed again
        tensor([9.])
    """

    def __init__(
        self,
        memory: float,
        precision: Literal["float32", "float16"] = "float32",
        folder: str | Path | None = None,
        shelf: Shelf | None = None,
    ) -> None:
        self.found = 0
        self._shelf = shelf
        self._budget = int(memory * 1e9)
        self._dtype = {"float32": torch.float32, "float16": torch.float16}[precision]
        self._folder = folder
        self._kept: dict[Hashable, Tensor] = {}
        self._places: dict[Hashable, tuple[int, torch.Size]] = {}
        self._file: IO[bytes] | None = None
        self._disk_is_full = False

    def fetch(self, keys: Sequence[Hashable], compute: Callable[[list[int]], Tensor]) -> Tensor:
        """Tensors of some keys, in float32 and stacked, on the CPU.

        Args:
            keys: What tells them apart.
            compute: Gives the tensors ``(missing, ...)`` of those whose positions among the keys
                it is told; all that are asked for together have one shape.
        """
        missing = [i for i, k in enumerate(keys) if k not in self._kept and k not in self._places]
        fresh: dict[int, Tensor] = {}
        if missing:
            fresh = self._compute(missing, keys, compute)
        for index, value in fresh.items():
            self._keep(keys[index], value)
        values = [fresh[i] if i in fresh else self._find(key) for i, key in enumerate(keys)]
        return torch.stack(values).float()

    def _compute(
        self,
        missing: list[int],
        keys: Sequence[Hashable],
        compute: Callable[[list[int]], Tensor],
    ) -> dict[int, Tensor]:
        """What is missing; with a shelf one at a time, so that its company does not round it."""
        if self._shelf is None:
            found = compute(missing).detach().to("cpu", self._dtype)
            return dict(zip(missing, found, strict=True))
        fresh = {}
        for index in missing:
            value = self._shelf.find(keys[index])
            self.found += value is not None
            if value is None:
                value = compute([index])[0].detach().to("cpu", self._dtype)
                self._shelf.keep(keys[index], value)
            fresh[index] = value
        return fresh

    def _keep(self, key: Hashable, value: Tensor) -> None:
        if key in self._kept or key in self._places:  # twice in one batch
            return
        size = value.numel() * value.element_size()
        if size <= self._budget:
            self._budget -= size
            self._kept[key] = value.clone()  # else it holds the whole batch
            return
        self._budget = 0
        try:
            self._spill(key, value, size)
        except OSError as error:
            self._disk_is_full = True
            logger.warning("what does not fit into the cache is computed anew each time: %s", error)

    def _spill(self, key: Hashable, value: Tensor, size: int) -> None:
        if self._disk_is_full:
            return
        if self._file is None:
            logger.warning(
                "the cache outgrows cache_memory: the rest goes to disk, %.1f MB an image",
                size / 1e6,
            )
            Path(self._folder or gettempdir()).mkdir(parents=True, exist_ok=True)
            file = TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115 - open while self is
            self._file = file
        if shutil.disk_usage(self._folder or gettempdir()).free < _SPARE + size:
            raise OSError(errno.ENOSPC, "the disk is nearly full")
        offset = self._file.seek(0, 2)
        self._file.write(value.numpy().tobytes())
        self._places[key] = offset, value.shape

    def _find(self, key: Hashable) -> Tensor:
        if key in self._kept:
            return self._kept[key]
        assert self._file is not None
        offset, shape = self._places[key]
        self._file.seek(offset)
        raw = bytearray(self._file.read(shape.numel() * self._dtype.itemsize))
        return torch.frombuffer(raw, dtype=self._dtype).view(shape)
