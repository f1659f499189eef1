"""A model as a program of torch.export, which any torch opens, without this package or anomalib."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from anomalib_medclip.export.description import Description, Exportable
from anomalib_medclip.files import as_json

_MOST = 2**15
"""Images of a batch and pixels of a side that a program takes, at most."""


class _Named(nn.Module):
    """A model whose outputs are a dictionary, which needs no class where it is opened."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> dict[str, Tensor]:
        outputs: dict[str, Any] = self.model(images)._asdict()
        return {name: value for name, value in outputs.items() if value is not None}


def write_program(method: Exportable, path: Path, description: Description) -> None:
    """Write a ``.pt2`` file, which holds its description as ``description.json``."""
    shape = description.input["shape"]
    free = {axis: size for axis, size in enumerate(shape) if isinstance(size, str)}
    dynamic = {axis: torch.export.Dim(word, min=1, max=_MOST) for axis, word in free.items()}
    # Sizes of more than 1, and unlike one another, lest they be taken for fixed or for the same.
    example = torch.zeros([axis + 2 if axis in free else size for axis, size in enumerate(shape)])
    with torch.no_grad():
        program = torch.export.export(_Named(method), (example,), dynamic_shapes=(dynamic,))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    said = {"description.json": as_json(asdict(description), indent=2)}
    torch.export.save(program, path, extra_files=said)
