"""What the golden cases of AnomalyCLIP, VCP-CLIP and AdaCLIP share.

A case directory holds ``config.json`` and ``meta.json``, the weights ``clip_state.npz``, what is
trained in ``trainable.npz`` by the authors' names, and ``golden.npz``. Masks are an input: the
authors resize them bilinearly and cut at one half, and this package takes the nearest pixel.
"""

import json
import tempfile
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from anomalib_medclip.readers.resize import MethodResize
from golden_cases.common import BMADCase, Computed


class PromptCase(BMADCase):
    """A case whose method learns prompts; a subclass names the method and its options."""

    inputs_pattern = r"raw/.*|input/mask"
    method: Any
    options: ClassVar[dict[str, str]]
    """Options of the method, by their names in ``meta.json``."""

    our_name: Callable[[str], str]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.meta = json.loads((folder / "meta.json").read_text())
        self.config = json.loads((folder / "config.json").read_text())
        self.golden = dict(np.load(folder / "golden.npz"))
        self.side = self.meta["image_size"]
        self.resize = MethodResize(self.side)

    def inputs(self) -> Computed:
        yield "input/image", (self.images - self.clip.mean) / self.clip.std
        yield "input/label", self.labels.long()

    def build(self, **more: object) -> Any:
        """A fresh method with the case's initial weights."""
        told = {option: self.meta[name] for option, name in self.options.items()}
        return self.method(
            backbone=self.config,
            pretrained=str(self.clip_file),
            image_size=self.side,
            quick_gelu=self.config["quick_gelu"],
            lr=self.meta["lr"],
            adapters=str(self.trained_file),
            **{"levels": self.meta["levels"], **told, **more},
        )

    @cached_property
    def scratch(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory()

    @cached_property
    def clip_file(self) -> Path:
        path = Path(self.scratch.name, "clip.safetensors")
        save_file(self.weights("clip_state.npz"), path)
        return path

    @cached_property
    def trained_file(self) -> Path:
        path = Path(self.scratch.name, "trained.pt")
        torch.save(self.weights("trainable.npz"), path)
        return path

    def weights(self, name: str) -> dict[str, Tensor]:
        arrays = np.load(self.folder / name)
        return {key: torch.from_numpy(arrays[key]).float() for key in arrays}

    def gradients(self, model: Any, loss: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Gradients by the authors' names; not a number where the parameter has no effect."""
        model.zero_grad()
        loss.backward()
        ours = dict(model.named_parameters())
        for theirs in self.meta["trainable_order"]:
            parameter = ours.get(self.our_name(theirs))
            yield theirs, torch.tensor(torch.nan) if parameter is None else parameter.grad

    def steps(self, method: Any, losses: Callable[[], Tensor], count: int = 3) -> None:
        """Steps of the method's optimiser, each on what ``losses`` gives."""
        optimizer = method.configure_optimizers()
        for _ in range(count):
            optimizer.zero_grad()
            losses().backward()
            optimizer.step()

    @cached_property
    def clip(self) -> Any:
        return self.built.model.clip

    @cached_property
    def built(self) -> Any:
        return self.build()

    @cached_property
    def images(self) -> Tensor:
        return self.read("raw/image_u8")

    @cached_property
    def masks(self) -> Tensor:
        return self.array("input/mask").float()

    @cached_property
    def labels(self) -> Tensor:
        return self.array("input/label").bool()
