"""What a real device refuses, tried on a fake one: prints what each fault raises, as JSON."""

import copy
import json
import sys
import threading
from pathlib import Path

import fake_device
import numpy as np
import torch
import torch.nn.functional as F

from anomalib_medclip import devices


def faults(kind, last):
    """Each fault by what it is; the last device is at hand, and a tensor of three ones on it."""
    ones = torch.ones(3, device=last)
    half = ones / 2
    leaf = torch.ones(3, device=last, requires_grad=True)

    def in_backward():
        doubled = leaf * 2
        doubled.register_hook(lambda gradient: gradient * torch.ones(3))
        doubled.sum().backward()

    def in_a_thread():
        raised = []

        def add():
            try:
                torch.ones(3).to(last) + torch.ones(3)
            except RuntimeError as error:
                raised.append(error)

        thread = threading.Thread(target=add)
        thread.start()
        thread.join()
        raise raised[0]

    def under_autocast():
        with torch.autocast(kind, torch.bfloat16):
            F.binary_cross_entropy(half, ones)

    return {
        "adds a tensor of the processor": lambda: ones + torch.ones(3),
        "in the backward pass": in_backward,
        "in a thread": in_a_thread,
        "in inference mode": torch.inference_mode()(lambda: ones + torch.ones(3)),
        "joins a scalar of the processor": lambda: torch.stack([ones[0], torch.tensor(1.0)]),
        "looks up by the processor": lambda: F.embedding(torch.tensor([0]), leaf[None]),
        "is an index of the processor's": lambda: torch.ones(3)[ones.long()],
        "adds a tensor of another": lambda: ones + torch.ones(3, device=torch.device(kind, 0)),
        "becomes an array": ones.numpy,
        "is taken for an array": lambda: np.asarray(ones),
        "becomes float64": ones.double,
        "comes as float64": lambda: torch.from_numpy(np.ones(3)).to(last),
        "has no autocast": under_autocast,
        "draws by the processor": lambda: torch.rand(3, generator=torch.Generator(), device=last),
        "is pinned": ones.pin_memory,
        "is read too soon": lambda: ones.to("cpu", non_blocking=True),
        "is not there": lambda: devices.find_device(f"{kind}:{last.index + 1}"),
    }


def said(fault):
    """What a fault raises."""
    try:
        fault()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def right(kind, last, home):
    """What is no fault, and does what it does elsewhere."""
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Dropout())
    before, parameters = copy.deepcopy(module), list(module.parameters())
    module.to(last)
    assert all(one is other for one, other in zip(module.parameters(), parameters, strict=True))
    assert {one.device for one in copy.deepcopy(module).parameters()} == {last}
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    images = torch.ones(4, 3).pin_memory()
    assert images.is_pinned()
    module(images.to(last, non_blocking=True)).sum().backward()  # a draw of the device's
    assert torch.equal(torch.rand(2), expected), "the processor's random numbers are untouched"
    optimiser = torch.optim.AdamW(parameters, lr=0.1)
    optimiser.step()
    assert parameters[0].grad.device == last
    with torch.autocast(kind, torch.bfloat16):
        product = parameters[0] @ parameters[0].T
        assert (product.dtype, product.softmax(-1).dtype) == (torch.bfloat16, torch.float32)
    torch.save(module.state_dict(), home / "state.pt")
    assert f"{kind}:{last.index}".encode() in (home / "state.pt").read_bytes()
    module.cpu()
    assert all(one is other for one, other in zip(module.parameters(), parameters, strict=True))
    state = torch.load(home / "state.pt", map_location="cpu")
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert not torch.equal(state["0.weight"], before[0].weight)
    assert {devices.find_device(word).type for word in (kind, str(last))} == {kind}
    devices.wait_for(last)
    assert fake_device.waited_for == [str(last)]


def main():
    """Try all."""
    kind, index, home = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    fake_device.install(kind, index + 1)
    last = torch.device(kind, index)
    sys.stdout.write(json.dumps({name: said(one) for name, one in faults(kind, last).items()}))
    right(kind, last, home)
