"""Files that do something when they are opened by what trusts them."""

import os
import warnings

import torch
from torch import nn


class Command:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


class Restoring(nn.Module):
    """A module that writes a file when ``torch.jit.load`` restores it."""

    def __init__(self, path: str):
        super().__init__()
        self.path = path
        self.file = torch.zeros(4, dtype=torch.uint8)

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path = state[0]
        self.training = state[1]
        self.file = torch.from_file(state[0], True, 4, dtype=torch.uint8).fill_(33)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image


def write_restoring(path, written):
    """Write a TorchScript archive that writes a file when torch opens it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather export than script
        torch.jit.script(Restoring(str(written))).save(path)
    return path
