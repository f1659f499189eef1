"""A GPU where there is none, for a process of its own: torch is changed in all of it.

    import fake_device
    fake_device.install("cuda", count=2)

torch and Lightning then see two of them; ``fake_tensors`` computes for them on the processor. As on
real ones it raises, in forward and backward pass and in every thread, where

- an operation meets tensors of two devices, unless it is a copy, an index or a scalar;
- a tensor becomes an array of numpy, or one of float64 on MPS;
- autocast refuses an operation, or a generator is of another device;
- memory of the device is pinned, or read before a copy of it is there.

Each device has random numbers of its own, and files name it as the place of its tensors. Not
covered: real kernels, with their rounding, speed and memory, and what MPS lacks of them; streams;
several processes; fused and multi-tensor optimisers; compiled graphs; a gradient that an
``autograd.Function`` returns on another device. A tensor that a file places on the device is read
to the processor, and an image of torchvision is a plain tensor there.
"""

import platform
import threading
from types import SimpleNamespace

import torch
from fake_tensors import (
    AUTOCAST,
    CHOSEN,
    PLACED,
    STATES,
    Mode,
    OnDevice,
    mapped,
    meant,
    swap,
    to_device,
)
from lightning.fabric.accelerators.mps import MPSAccelerator
from torch.serialization import register_package

NAME = "Fake GPU"
waited_for = []
"""Devices that were waited for, in order."""


def install(kind, count=1):
    """Give this process devices of a kind, ``cuda`` or ``mps``."""
    vars(CHOSEN).update(kind=kind, count=count, current=0)
    for name, value in (_driver() | _RANDOM).items():
        setattr(torch.cuda if kind == "cuda" else torch.mps, name, value)
    if kind == "mps":
        torch.backends.mps.is_available = torch.backends.mps.is_built = lambda: True
        torch.mps.manual_seed = _seed
        platform.processor = lambda: "arm"
        MPSAccelerator.is_available.cache_clear()
    torch._C._accelerator_getAccelerator = lambda: torch.device(kind)
    torch._C._accelerator_getDeviceIndex = lambda: CHOSEN.current
    torch._C._accelerator_setDeviceIndex = _choose
    torch._C._accelerator_synchronizeDevice = _synchronize
    torch._C._accelerator_getStream = lambda device: SimpleNamespace(is_capturing=lambda: False)
    torch._C._ensureCUDADeviceGuardSet()
    torch._C._set_only_lift_cpu_tensors(True)
    torch.Tensor.to = to_device
    torch.__future__.set_swap_module_params_on_conversion(True)  # parameters stay the same objects
    torch.utils.swap_tensors = swap
    register_package(
        1,
        lambda storage: PLACED.get(storage._cdata, (None,))[0],
        lambda storage, place: storage if place.startswith(kind) else None,
    )
    _register_autocast(kind)
    _see_all_threads()


def _index(device=None):
    """Number of a device that may be named in many ways."""
    return device if isinstance(device, int) else meant(device or CHOSEN.kind).index


def _choose(device):
    CHOSEN.current = _index(device)


def _exchange(index):
    before, CHOSEN.current = CHOSEN.current, index
    return before


def _synchronize(device=None):
    waited_for.append(f"{CHOSEN.kind}:{_index(device)}")


def _driver():
    """What ``torch.cuda`` asks a driver for, by name."""
    properties = SimpleNamespace(name=NAME, major=9, minor=0, total_memory=1 << 30)
    found = {
        "is_available": lambda: True,
        "device_count": lambda: CHOSEN.count,
        "synchronize": _synchronize,
        "empty_cache": lambda: None,
    }
    if CHOSEN.kind == "mps":
        return found
    return found | {
        "_lazy_init": lambda: None,
        "current_device": lambda: CHOSEN.current,
        "set_device": _choose,
        "_exchange_device": _exchange,
        "_maybe_exchange_device": _exchange,
        "get_device_name": lambda device=None: NAME,
        "get_device_capability": lambda device=None: (9, 0),
        "get_device_properties": lambda device=None: properties,
        "is_bf16_supported": lambda including_emulation=True: True,
        "is_current_stream_capturing": lambda: False,
        "max_memory_allocated": lambda device=None: 0,
        "reset_peak_memory_stats": lambda device=None: None,
    }


def _seed(seed, device=None):
    """Seed the random numbers of all devices, or of one."""
    for index in range(CHOSEN.count) if device is None else [_index(device)]:
        STATES[index] = torch.Generator().manual_seed(seed).get_state()


_RANDOM = {
    "manual_seed": lambda seed: _seed(seed, CHOSEN.current),
    "manual_seed_all": _seed,
    "get_rng_state": lambda device=None: STATES[_index(device)].clone(),
    "set_rng_state": lambda state, device=None: STATES.update({_index(device): state}),
    "get_rng_state_all": lambda: [STATES[index].clone() for index in range(CHOSEN.count)],
    "set_rng_state_all": lambda states: STATES.update(enumerate(states)),
}


def _see_all_threads():
    begin = threading.Thread._bootstrap_inner

    def seen(thread):
        with Mode():
            begin(thread)

    threading.Thread._bootstrap_inner = seen
    Mode().__enter__()


_IN_HALF = (
    "linear", "matmul", "mm", "mv", "addmm", "addmv", "bmm", "baddbmm", "einsum", "conv1d",
    "conv2d", "conv3d", "conv_transpose2d.input", "scaled_dot_product_attention", "prelu",
)  # fmt: skip
_IN_FULL = (
    "softmax.int", "log_softmax.int", "layer_norm", "group_norm", "exp", "log", "pow.Tensor_Scalar",
    "norm.ScalarOpt_dim", "cosine_similarity", "mse_loss", "l1_loss", "sum", "sum.dim_IntList",
    "cumsum", "prod", "nll_loss", "binary_cross_entropy_with_logits",
)  # fmt: skip
_library = torch.library.Library("aten", "IMPL")


def _register_autocast(kind):
    """Let autocast cast as torch's lists say; it would not for a tensor that is really elsewhere.

    What it refuses it refuses by itself.
    """
    key = AUTOCAST[kind]
    without = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))

    def register(name, dtype_of):
        packet, _, overload = name.partition(".")
        func = getattr(getattr(torch.ops.aten, packet), overload or "default")

        def cast(one):
            eligible = isinstance(one, OnDevice) and one.is_floating_point()
            return one.to(dtype_of()) if eligible and one.dtype != torch.float64 else one

        def kernel(*args, **kwargs):
            with torch._C._ExcludeDispatchKeyGuard(without):
                args, kwargs = mapped(torch.Tensor, cast, (args, kwargs))
                return func(*args, **kwargs)

        _library.impl(name, kernel, key, allow_override=True)

    for name in _IN_HALF:
        register(name, lambda: torch.get_autocast_dtype(kind))
    for name in _IN_FULL:
        register(name, lambda: torch.float32)
