"""Small things that tests share: a random CLIP, pictures with lesions, every method."""

import inspect
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

import anomalib_medclip
from anomalib_medclip.data import MedicalFolder

BACKBONE = {
    "embed_dim": 24,
    "vision_cfg": {
        "image_size": 32,
        "layers": 4,
        "width": 32,
        "head_width": 16,
        "patch_size": 8,
    },
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 16,
        "heads": 2,
        "layers": 1,
    },
}
"""Keyword arguments of open_clip.CLIP: 4 blocks of width 32 on 4 x 4 patches."""

EVEN = BACKBONE | {"text_cfg": BACKBONE["text_cfg"] | {"width": 24, "layers": 3}}
"""The same with a deeper text tower, as wide as the space it shares with images."""

OPTIONS = {"backbone": BACKBONE, "pretrained": None, "image_size": 32}
"""What makes any method small and offline."""

SHALLOW = {
    **OPTIONS,
    "backbone": {**BACKBONE, "vision_cfg": {**BACKBONE["vision_cfg"], "layers": 2}},
    "levels": [1, 2],
}
"""The same with half the blocks: an export takes as long as its graph has nodes."""


@dataclass(frozen=True)
class Training:
    """What a method needs to learn soon what ``write_lesions`` draws; its defaults are for more."""

    epochs: int = 3
    batch: int = 1
    options: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(method):
        return TRAINING.get(method.__name__, Training())


TRAINING = {
    "IQECLIP": Training(batch=2, options={"lr": 3e-3, "blocks": 1}),
    "MadCLIP": Training(batch=4, options={"lr": 1e-2}),
    "MVFA": Training(batch=4, options={"lr": 3e-3}),
    "MediCLIP": Training(epochs=20),  # it sees its few images once an epoch, not in a dozen copies
}

TEST_DATA = os.environ.get("ANOMALIB_MEDCLIP_TEST_DATA")
"""Folder of more golden cases and of real images; see golden/README.md."""


def small(method, **options):
    """A small and offline model of a method, made for what ``write_lesions`` draws."""
    return method(**{**OPTIONS, **Training.of(method).options, **options})


def shallow(method):
    """The same with half the blocks, if it can be told which to read."""
    told = "levels" in inspect.signature(method).parameters
    return small(method, **(SHALLOW if told else {}))


METHODS = [anomalib_medclip.get_model(name) for name in anomalib_medclip.list_models()]


class OpenAIArchive(nn.Module):
    """CLIP's towers under OpenAI's names, in half precision, its three numbers as buffers."""

    def __init__(self, clip):
        super().__init__()
        self.visual, self.transformer = clip.visual, clip.transformer
        self.token_embedding, self.ln_final = clip.token_embedding, clip.ln_final
        self.positional_embedding = clip.positional_embedding
        self.text_projection, self.logit_scale = clip.text_projection, clip.logit_scale
        for name, value in (
            ("input_resolution", 32),
            ("context_length", 77),
            ("vocab_size", 49408),
        ):
            self.register_buffer(name, torch.tensor(value))

    def forward(self, image):
        return self.logit_scale * self.visual(image)


def traced(module, image, path):
    """Write a module as TorchScript, and return the file."""
    with warnings.catch_warnings(action="ignore"):  # torch would rather export than trace
        torch.jit.trace(module, image, check_trace=False).save(path)
    return path


def write_lesions(root: Path, count: int = 12, size: tuple[int, int] = (40, 48)) -> Path:
    """Grey noise, every second picture with a bright square and a mask; two pictures a patient.

    Lists them in ``root/table.csv`` with the columns image, label, mask, patient.
    """
    rows = ["image,label,mask,patient"]
    for index in range(2 * count):
        random = np.random.default_rng(index)
        pixels = random.normal(90, 12, size).clip(0, 255).astype(np.uint8)
        lesion = np.zeros(size, dtype=np.uint8)
        abnormal = index % 2
        if abnormal:
            top, left = random.integers(4, 24, 2)
            lesion[top : top + 12, left : left + 12] = 255
            pixels[lesion > 0] = 200
        word = ("normal", "abnormal")[abnormal]
        for folder, picture in (("images", pixels), ("masks", lesion)):
            if folder == "images" or abnormal:
                path = root / folder / word / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(path)
        mask = f"masks/{word}/{index}.png" if abnormal else ""
        rows.append(f"images/{word}/{index}.png,{abnormal},{mask},p{index // 4}")
    (root / "table.csv").write_text("\n".join(rows) + "\n")
    return root / "table.csv"


def lesion_data(folder, **options):
    """A datamodule over what ``write_lesions`` has written to a folder."""
    return MedicalFolder(
        table=folder / "table.csv",
        patient_column="patient",
        object_name="phantom",
        num_workers=0,
        **{
            "mask_column": "mask",
            "k_shot": 2,
            "val_ratio": 0.4,
            **options,
        },
    )
