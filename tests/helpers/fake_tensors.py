"""Tensors that say they are on a device, hold their numbers on the processor, and raise as there.

To torch's own code they are of the meta device. Its autograd, autocast, modules and optimisers run
as they are, and each operation comes to ``compute``.
"""

from collections import OrderedDict, defaultdict
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten

CPU = torch.device("cpu")
CHOSEN = SimpleNamespace(kind="", count=0, current=0)
"""Kind of the devices that there are, how many, and the current one."""

STATES = defaultdict(lambda: torch.Generator().manual_seed(0).get_state())
"""State of each device's own random numbers, by its index."""

AUTOCAST = {"cuda": "AutocastCUDA", "mps": "AutocastMPS"}
PLACED = {}
"""Device and storage of tensors that were pickled, by the address that torch names a storage by."""

_COPIES = {aten.copy_.default, aten._to_copy.default}
_INDEXED = {
    aten.index.Tensor, aten.index_put.default, aten.index_put_.default,
    aten._index_put_impl_.default,
}  # fmt: skip
_plain_to = torch.Tensor.to


class OnDevice(torch.Tensor):
    """A tensor of a device.

    Attributes:
        held: Its numbers.
        device: Where it says it is.
    """

    @staticmethod
    def __new__(cls, held, device):
        if device.type == "mps" and held.dtype in (torch.float64, torch.complex128):
            msg = (
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support"
            )
            msg += " float64. Please use float32 instead."
            raise TypeError(msg)
        autocast = getattr(torch._C.DispatchKey, AUTOCAST[device.type])
        with torch.inference_mode(held.is_inference()):  # as it is, so is what stands for it
            made = torch.Tensor._make_wrapper_subclass(
                cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(),
                dtype=held.dtype, layout=held.layout, device=torch.device("meta", device.index),
                _extra_dispatch_keys=torch._C.DispatchKeySet(autocast),
            )  # fmt: skip
        made.held, made._device = held, device
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})

    device = property(lambda self: self._device)
    is_cuda = property(lambda self: self._device.type == "cuda")
    is_mps = property(lambda self: self._device.type == "mps")
    is_cpu = is_meta = property(lambda self: False)

    @property
    def data(self):
        return self.detach()

    @data.setter
    def data(self, value):
        self.held = value.held

    def get_device(self):
        return self._device.index

    def to(self, *args, **kwargs):
        def inner(word):  # so that torch knows it for the place where the tensor is
            device = meant(word)
            return word if device in (None, CPU) else torch.device("meta", device.index)

        args, kwargs = mapped((str, torch.device), inner, (args, kwargs))
        return _plain_to(self, *args, **kwargs)

    def cuda(self, device=None, **kwargs):
        return self.to("cuda" if device is None else device, **kwargs)

    def as_subclass(self, cls):
        return self

    def numpy(self, *, force=False):
        if force:
            return self.held.detach().numpy()
        msg = f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() to copy "
        raise TypeError(msg + "the tensor to host memory first.")

    def __array__(self, *_, **__):
        return self.numpy()

    def new_tensor(self, data, *, dtype=None, device=None, requires_grad=False):
        device = self.device if device is None else device
        made = torch.tensor(data, dtype=dtype or self.dtype, device=device)
        return made.requires_grad_(requires_grad)

    def tolist(self):
        return self.held.tolist()

    def data_ptr(self):
        return self.held.data_ptr()

    def __format__(self, spec):
        return self.held.detach().__format__(spec)

    def __repr__(self):
        return f"{self.held}, device='{self.device}'"

    def __getitem__(self, index):
        return super().__getitem__(_indices(index))

    def __setitem__(self, index, value):
        super().__setitem__(_indices(index), value)

    def __deepcopy__(self, memo):
        if not self.is_leaf:
            msg = "Only Tensors created explicitly by the user support the deepcopy protocol"
            raise RuntimeError(msg)
        copied = OnDevice(self.held.detach().clone(), self.device)
        if isinstance(self, torch.nn.Parameter):
            copied = torch.nn.Parameter(copied)
        copied.requires_grad_(self.requires_grad)
        copied.grad = None if self.grad is None else self.grad.detach().clone()
        return copied

    def __reduce_ex__(self, protocol):
        held = self.held.detach()
        storage = held.untyped_storage()
        PLACED[storage._cdata] = str(self.device), storage  # which keeps its address while it lives
        if isinstance(self, torch.nn.Parameter):
            return torch._utils._rebuild_parameter, (held, self.requires_grad, OrderedDict())
        return held.requires_grad_(self.requires_grad).__reduce_ex__(protocol)


class Mode(TorchDispatchMode):
    """Sees operations that no tensor of a device takes part in, such as those that make one."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


def compute(func, args, kwargs):
    """Do on the processor what a device is asked for, if it would do that."""
    everything = list(leaves((args, kwargs)))
    tensors = [one for one in everything if isinstance(one, torch.Tensor)]
    ours = [one for one in tensors if isinstance(one, OnDevice)]
    asked = next((meant(one) for one in everything if isinstance(one, torch.device)), None)
    if func in _PINNING:
        return _PINNING[func](args[0])
    if not ours and asked in (None, CPU):
        return func(*args, **kwargs)
    if func.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd):
        with Mode():  # inference mode leaves it whole
            return func.decompose(*args, **kwargs)
    _check_places(func, args, tensors)
    _check_waits(func, args, kwargs, asked)
    found = _on_processor(func, args, kwargs, device := asked or ours[0].device)
    for one in ours:
        if one.shape != one.held.shape:  # it was resized in place
            swap(one, OnDevice(one.held, one.device))
    if device == CPU:
        return found
    changed = {id(_held(one)): one for one in tensors if type(one) in (torch.Tensor, OnDevice)}

    def outer(one):
        return changed[id(one)] if id(one) in changed else OnDevice(one, device)

    return mapped(torch.Tensor, outer, found)


def _on_processor(func, args, kwargs, device):
    """What an operation makes of the numbers, with random ones of the device."""
    words, named = mapped(torch.Tensor, _held, (args, kwargs))
    named |= {"device": CPU} if "device" in kwargs else {}
    named |= {"pin_memory": False} if "pin_memory" in kwargs else {}
    with _randomness(func, device, kwargs):
        return func(*words, **named)


def leaves(whole):
    """What is in nested arguments."""
    if not isinstance(whole, tuple | list | dict):
        yield whole
        return
    for part in whole.values() if isinstance(whole, dict) else whole:
        yield from leaves(part)


def mapped(kind, change, whole):
    """Nested arguments or results, with a change to each of a kind; quicker than torch's own."""
    if isinstance(whole, kind):
        return change(whole)
    if isinstance(whole, dict):
        return {name: mapped(kind, change, part) for name, part in whole.items()}
    if isinstance(whole, tuple | list):
        return type(whole)([mapped(kind, change, part) for part in whole])
    return whole


def meant(word):
    """The device of a word, None if it is no device; ``cuda`` is the current one."""
    try:
        device = torch.device(word)
    except RuntimeError:
        return None
    if device.type not in (CHOSEN.kind, "meta"):
        return device
    index = CHOSEN.current if device.index is None else device.index
    if index >= CHOSEN.count:
        msg = f"{CHOSEN.kind} error: invalid device ordinal {index}"
        raise RuntimeError(msg)
    return torch.device(CHOSEN.kind, index)


def to_device(tensor, *args, **kwargs):
    """``Tensor.to``, which would ask a driver for the current device."""

    def placed(word):
        return meant(word) or word

    args, kwargs = mapped((str, torch.device), placed, (args, kwargs))
    return _plain_to(tensor, *args, **kwargs)


def swap(one, other):
    """``torch.utils.swap_tensors``, also of a tensor that an old graph still holds."""
    for name in ("__class__", "__dict__"):
        kept = getattr(one, name)
        setattr(one, name, getattr(other, name))
        setattr(other, name, kept)
    torch._C._swap_tensor_impl(one, other)


def _indices(index):
    """Lists of numbers as tensors of the processor: torch would make them on the meta device."""
    if isinstance(index, tuple):
        return tuple(map(_indices, index))
    numbers = isinstance(index, list) and all(isinstance(one, int) for one in index)
    return torch.tensor(index, dtype=None if index else torch.long) if numbers else index


def _held(tensor):
    """Its numbers, as a plain tensor of the processor."""
    if isinstance(tensor, OnDevice):
        return tensor.held
    return tensor if type(tensor) is torch.Tensor else tensor.as_subclass(torch.Tensor)


def _check_places(func, args, tensors):
    """Refuse tensors of two devices; copies, indices and scalars may come from the processor."""
    if func in _COPIES:
        return
    free = set()
    if func in _INDEXED and isinstance(args[0], OnDevice):
        scalars = [one for one in args[2:3] if one.dim() == 0]
        free = {id(one) for one in (*args[1], *scalars) if one is not None and one.device == CPU}
    if torch.Tag.pointwise in func.tags:
        free = {id(one) for one in tensors if one.dim() == 0 and one.device == CPU}
    places = {str(one.device): None for one in tensors if id(one) not in free}
    if len(places) > 1:
        msg = (
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"{' and '.join(places)}! (when checking arguments of {func})"
        )
        raise RuntimeError(msg)


def _check_waits(func, args, kwargs, asked):
    """Refuse a copy to the processor that can be read before it is complete."""
    to_processor = asked == CPU
    if func is aten.copy_.default:
        to_processor = not isinstance(args[0], OnDevice)
    if to_processor and (kwargs.get("non_blocking") or args[2:3] == (True,)):
        msg = "a copy to the processor that does not block may be read before it is there"
        raise RuntimeError(msg)


def _pin(tensor):
    if isinstance(tensor, OnDevice):
        msg = f"cannot pin a tensor of {tensor.device}: only dense CPU tensors can be pinned"
        raise RuntimeError(msg)
    copied = tensor.clone()
    copied.pinned = True
    return copied


_PINNING = {
    aten._pin_memory.default: _pin,
    aten.is_pinned.default: lambda tensor: getattr(tensor, "pinned", False),
}


def _randomness(func, device, kwargs):
    """The device's own random numbers, where an operation draws some."""
    if device == CPU or torch.Tag.nondeterministic_seeded not in func.tags:
        return nullcontext()
    if kwargs.get("generator") is not None:
        msg = f"Expected a '{device.type}' device type for generator but found 'cpu'"
        raise RuntimeError(msg)
    return _own_randomness(device)


@contextmanager
def _own_randomness(device):
    generator = torch.random.default_generator
    before = generator.get_state()
    generator.set_state(STATES[device.index])
    try:
        yield
    finally:
        STATES[device.index] = generator.get_state()
        generator.set_state(before)
