"""Devices that torch computes on: which there are, what they can, and when they are done."""

import torch

from anomalib_medclip.errors import ConfigError


def find_device(word: str) -> torch.device:
    """The device of a word such as ``cpu``, ``cuda``, ``cuda:1``, ``mps`` or ``xpu``.

    Raises:
        ConfigError: It is no such word, or this machine has no such device.
    """
    try:
        device = torch.device(word)
    except RuntimeError as error:
        msg = f"{word!r} is no device of torch; give one such as cpu, cuda, cuda:1 or mps"
        raise ConfigError(msg) from error
    gpu = torch.accelerator.current_accelerator(check_available=True)
    counts = {"cpu": 1} if gpu is None else {"cpu": 1, gpu.type: torch.accelerator.device_count()}
    if (device.index or 0) >= counts.get(device.type, 0):
        there = [f"{kind}:{n}" for kind, count in counts.items() for n in range(count)][1:]
        msg = f"torch sees no device {word} here; give one of {', '.join(['cpu', *there])}"
        raise ConfigError(msg)
    return device


def check_gpu() -> None:
    """Refuse to begin without a GPU that Lightning can train on.

    Raises:
        ConfigError: This machine has none.
    """
    if not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        msg = "torch sees no GPU here; leave the device to be chosen, or ask for cpu"
        raise ConfigError(msg)


def most_exact(device: torch.device) -> torch.dtype:
    """Float64 where every device of a kind has it, else float32."""
    return torch.float64 if device.type in ("cpu", "cuda") else torch.float32


def wait_for(device: torch.device) -> None:
    """Wait until a device has computed all that it was given; a processor has."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def device_name(device: torch.device) -> str:
    """What a device is called; its kind, where its maker says no more."""
    name = getattr(torch.get_device_module(device), "get_device_name", None)
    return device.type if name is None else str(name(device))
