"""What makes any method small and offline: a random CLIP, and pictures with lesions."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from anomalib_medclip.data.folder import MedicalFolder

BACKBONE: dict[str, Any] = {
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

OPTIONS: dict[str, Any] = {"backbone": BACKBONE, "pretrained": None, "image_size": 32}
"""What makes any method small and offline."""

SHALLOW: dict[str, Any] = {
    **OPTIONS,
    "backbone": {**BACKBONE, "vision_cfg": {**BACKBONE["vision_cfg"], "layers": 2}},
    "levels": [1, 2],
}
"""The same with half the blocks: an export takes as long as its graph has nodes."""


def write_lesions(root: Path, count: int = 12, size: tuple[int, int] = (40, 48)) -> Path:
    """Grey noise, every second picture with a bright square and a mask; two pictures a patient.

    Args:
        root: Folder to write to.
        count: Pictures of each class.
        size: Their height and width.

    Returns:
        ``root/table.csv``, which lists them: image, label, mask, patient.
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


def lesion_data(folder: Path, **options: Any) -> MedicalFolder:  # noqa: ANN401 - of MedicalFolder
    """A datamodule over what ``write_lesions`` has written to a folder."""
    usual: dict[str, Any] = {"mask_column": "mask", "k_shot": 2, "val_ratio": 0.4}
    return MedicalFolder(
        table=folder / "table.csv",
        patient_column="patient",
        object_name="phantom",
        num_workers=0,
        **{**usual, **options},
    )
