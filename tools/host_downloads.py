"""What anomalib's models download, and stand-ins for it: random numbers under the right names."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import timm
import torch
import torchvision
from anomalib.models.image.anomalyvfm import torch_model as anomalyvfm
from PIL import Image
from safetensors.torch import save_file

REVISION = "0" * 40


def hub_file(repository: str, name: str = "model.safetensors", revision: str = REVISION) -> Path:
    """Where the Hugging Face cache has a file."""
    return Path("hub", f"models--{repository.replace('/', '--')}", "snapshots", revision, name)


@dataclass(frozen=True)
class Download:
    """What a model downloads.

    Attributes:
        said: What, and where it is looked for, for the table.
        write: Writes a stand-in below a folder of caches.
    """

    said: str
    write: Callable[[Path], None]


def of_timm(name: str) -> Download:
    """Weights of a network of timm's."""
    config = timm.models.get_pretrained_cfg(name)
    repository = config.hf_hub_id

    def write(root: Path) -> None:
        state = timm.create_model(name, pretrained=False).state_dict()
        in_hub(root, repository, lambda path: save_file(_contiguous(state), path))

    return Download(f"`{repository}`, Hugging Face", write)


def of_torchvision(name: str) -> Download:
    """Weights of a network of torchvision's."""
    weights = torchvision.models.get_model_weights(name).DEFAULT
    file = Path(weights.url).name

    def write(root: Path) -> None:
        path = root / "torch" / "hub" / "checkpoints" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(getattr(torchvision.models, name)().state_dict(), path)

    return Download(f"`{file}`, torch", write)


def in_hub(root: Path, repository: str, write: Callable[[Path], None], **place: str) -> None:
    """Put a file where huggingface_hub would have put its download."""
    path = root / hub_file(repository, **place)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path)
    refs = path.parents[2] / "refs"
    refs.mkdir(exist_ok=True)
    (refs / "main").write_text(path.parent.name, encoding="utf-8")


def _contiguous(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.clone().contiguous() for name, value in state.items()}


def pictures(folder: str) -> Callable[[Path], None]:
    """Pictures of noise, in a folder of a class."""

    def write(root: Path) -> None:
        place = root / "work" / folder / "noise"
        place.mkdir(parents=True)
        noise = np.random.default_rng(0).integers(0, 255, (4, 300, 300, 3), np.uint8)
        for number, pixels in enumerate(noise):
            Image.fromarray(pixels).save(place / f"{number}.jpg")

    return write


def saved(place: str, made: Callable[[], torch.nn.Module]) -> Callable[[Path], None]:
    """Weights of a network in a file of anomalib's cache."""

    def write(root: Path) -> None:
        path = root / "anomalib" / "pre_trained" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(made().state_dict(), path)

    return write


class _Kept(anomalyvfm.AnomalyVFMModel):
    """Has random weights, where it would load its own."""

    def load_state_dict(self, state_dict: Any, *_: Any, **__: Any) -> None:  # noqa: ANN401
        """Leave all as it is."""


def write_anomalyvfm(root: Path) -> None:
    """The one file that holds AnomalyVFM's encoder, adapters and decoder."""
    held = {"hf_hub_download": lambda **_: "", "load_file": lambda _: {}}
    former = {name: getattr(anomalyvfm, name) for name in held}
    try:
        for name, value in held.items():
            setattr(anomalyvfm, name, value)
        state = _contiguous(_Kept().state_dict())
    finally:
        for name, value in former.items():
            setattr(anomalyvfm, name, value)
    revision = "17654e763c8fae5ae1c44e2ec421a427783d6196"
    in_hub(
        root, "MaticFuc/anomalyvfm_radio", lambda path: save_file(state, path), revision=revision
    )


def write_winclip(root: Path) -> None:
    """WinCLIP's CLIP."""
    config = open_clip.get_pretrained_cfg("ViT-B-16-plus-240", "laion400m_e31")
    state = open_clip.create_model("ViT-B-16-plus-240").state_dict()
    in_hub(
        root, config["hf_hub"].rstrip("/"), lambda path: save_file(_contiguous(state), path),
        name="open_clip_model.safetensors",
    )  # fmt: skip
