"""GPUs of FAISS where there are none: its wrappers and streams, around indexes of a processor.

Replaced is what needs a driver: tensors that are on a GPU, torch's current device and streams, and
the index itself. FAISS's functions for tensors run as they are.
"""

from collections import Counter
from contextlib import contextmanager
from threading import get_ident
from time import sleep
from types import SimpleNamespace

import faiss
import torch
from faiss.contrib import torch_utils


class OnHost(torch.Tensor):
    """Can go to a GPU."""

    def to(self, where):
        if isinstance(where, torch.dtype):
            return super().to(where)
        return self.as_subclass(OnGpu if torch.device(where).type == "cuda" else OnHost)

    def cpu(self):
        return self.as_subclass(OnHost)


class OnGpu(OnHost):
    """Says that it is on the second GPU, and becomes no array of numpy."""

    is_cuda = True
    device = torch.device("cuda", 1)

    def numpy(self):
        msg = f"can't convert {self.device} device type tensor to numpy"
        raise TypeError(msg)

    __array__ = numpy


class Resources:
    """``StandardGpuResources``; an index keeps the memory and not this."""

    def __init__(self):
        self.scratch = Scratch()

    def setTempMemory(self, size):  # noqa: N802 - FAISS's
        self.scratch.megabytes = size / 2**20


class Scratch:
    """Memory of one search at a time."""

    def __init__(self):
        self.megabytes, self.user = None, None

    def getDefaultStream(self, _device):  # noqa: N802
        return None

    def setDefaultStream(self, _device, stream):  # noqa: N802
        """A search begins with torch's stream, and ends with the one before."""
        assert self.user in (None, get_ident()), "another thread searches"
        self.user = get_ident() if stream else None
        sleep(1e-3)  # another thread's turn


class Gpus:
    """Three GPUs as FAISS and torch see them; ``monkeypatch`` lets them go."""

    def __init__(self, monkeypatch):
        self.current, self.resources_made = 0, 0
        self.made, self.streams = [], []
        monkeypatch.setattr(torch.cuda, "device", self.on)
        for name, stands_in in (
            ("get_num_gpus", lambda: 3),
            ("StandardGpuResources", self.resources),
            ("GpuIndexFlatIP", self.index),
        ):
            monkeypatch.setattr(faiss, name, stands_in)
        cuda = SimpleNamespace(current_device=lambda: self.current, current_stream=self.stream)
        kept = {name: getattr(torch, name) for name in ("Tensor", "float32", "float16", "int64")}
        as_torch = SimpleNamespace(cuda=cuda, empty=_empty, **kept)
        monkeypatch.setattr(torch_utils, "torch", as_torch)
        monkeypatch.setattr(torch_utils, "type", _type, raising=False)

    @contextmanager
    def on(self, device):
        before, self.current = self.current, torch.device(device).index
        yield
        self.current = before

    def stream(self):
        self.streams.append(self.current)
        return SimpleNamespace(cuda_stream=100 + self.current)

    def resources(self):
        self.resources_made += 1
        return Resources()

    def index(self, resources, width, config):
        kind = _Half if config.useFloat16 else _Full
        index = kind(width)
        index.scratch, index.gpu = resources.scratch, config.device
        self.made.append(index)
        return index

    @property
    def numbers(self):
        """How many indexes each GPU has got."""
        return Counter(index.gpu for index in self.made)


class _OfGpu:
    scratch = gpu = None

    def getDevice(self):  # noqa: N802 - FAISS's
        return self.gpu

    def getResources(self):  # noqa: N802
        return self.scratch


class _Full(_OfGpu, faiss.IndexFlatIP):
    pass


class _Half(_OfGpu, faiss.IndexScalarQuantizer):
    def __init__(self, width):
        kind = faiss.ScalarQuantizer.QT_fp16
        super().__init__(width, kind, faiss.METRIC_INNER_PRODUCT)


def _empty(*size, device, dtype):
    return torch.empty(*size, dtype=dtype).as_subclass(OnHost).to(device)


def _type(value):
    """Tensors are of no other class on a real GPU."""
    return torch.Tensor if isinstance(value, torch.Tensor) else type(value)
