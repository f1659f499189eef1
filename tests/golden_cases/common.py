"""What golden cases share: tolerances, and the images of a case, read as users' images are."""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import Tensor

from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.clip.towers import ImageTower, TextTower
from anomalib_medclip.components.augmentation import Augmentation, all_copies
from anomalib_medclip.components.losses import dice, focal
from anomalib_medclip.readers.picture import read_image, read_mask
from anomalib_medclip.readers.resize import MethodResize

OBJECTS = {
    "Brain": "Brain",
    "Liver": "Liver",
    "Retina_RESC": "retinal OCT",
    "Retina_OCT2017": "retinal OCT",
    "Chest": "Chest X-ray film",
    "Histopathology": "histopathological image",
}
WITH_MASKS = ("Brain", "Liver", "Retina_RESC")

Computed = Iterator[tuple[str, object]]


@dataclass(frozen=True)
class Tolerance:
    """Largest error allowed, times the larger of 1 and the largest expected number."""

    largest: float
    scaled: bool = True

    def allows(self, error: float, expected: np.ndarray) -> bool:
        scale = max(1.0, np.nanmax(np.abs(expected), initial=0.0)) if self.scaled else 1.0
        return error <= self.largest * scale


EXACT = Tolerance(0.0, scaled=False)
T1, T2, T3 = Tolerance(1e-5), Tolerance(1e-4), Tolerance(1e-3)


class BMADCase:
    """A case of MVFA or MadCLIP: six test images, two normal and two abnormal support images."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.meta = json.loads((folder / "meta.json").read_text())
        self.config = json.loads((folder / "config.json").read_text())
        self.golden = dict(np.load(folder / "golden.npz"))
        self.side = self.meta["img_size"]
        self.resize = MethodResize(self.side)

    def inputs(self) -> Computed:
        yield "input/test_image", self.test_images
        yield "input/test_mask", self.test_masks
        yield "input/test_label", self.test_labels.long()
        yield "input/fewshot_normal", self.read("raw/train_normal_u8")
        yield "input/fewshot_abnormal", self.read("raw/train_abnormal_u8")
        yield "input/fewshot_mask", self.read("raw/train_mask_u8", masks=True)

    def clip_features(self, tower: ImageTower) -> Computed:
        tokens = self.text_tower.tokenize(self.meta["sentences"])
        yield "clip/tokens", tokens
        with torch.no_grad():
            yield "clip/text_embed", self.text_tower(tokens)
            yield "clip/image_embed", tower.pool(tower.taps(self.test_images, [tower.depth])[:, 0])
        yield "clip/resized_positional_embedding", tower.visual.positional_embedding

    def pieces(self, augmentations: list[Augmentation], of_masks: list[Augmentation]) -> Computed:
        image, mask = self.array("augment/in_image"), self.array("augment/in_mask")
        yield "augment/out_image", all_copies(image, augmentations)
        yield "augment/out_mask", all_copies(mask, of_masks)
        probability, target = self.array("loss_unit/prob"), self.array("loss_unit/target")
        yield "loss_unit/focal", focal(probability[:, 1:], target)
        yield "loss_unit/dice", dice(probability[:, 1:], target)

    def backbone(self) -> dict[str, object]:
        """Options of a method with the case's CLIP."""
        return {
            "backbone": self.config,
            "pretrained": str(self.folder / "clip.safetensors"),
            "image_size": self.side,
            "quick_gelu": self.config["quick_gelu"],
            "levels": self.meta["features"],
        }

    def image_auc(self, scores: Tensor) -> float:
        return roc_auc_score(self.test_labels, scores)

    def pixel_auc(self, maps: Tensor) -> float:
        return roc_auc_score((self.test_masks > 0).flatten(), maps.flatten())

    @cached_property
    def text_tower(self) -> TextTower:
        weights = str(self.folder / "clip.safetensors")
        return TextTower(Backbone(self.config, weights, self.side, self.config["quick_gelu"]))

    @cached_property
    def support_images(self) -> tuple[Tensor, Tensor, Tensor]:
        return (
            self.read("raw/train_normal_u8"),
            self.read("raw/train_abnormal_u8"),
            self.read("raw/train_mask_u8", masks=True),
        )

    @cached_property
    def test_images(self) -> Tensor:
        return torch.cat([self.read("raw/test_good_u8"), self.read("raw/test_ungood_u8")])

    @cached_property
    def test_masks(self) -> Tensor:
        masks = self.read("raw/test_mask_u8", masks=True)
        return torch.cat([torch.zeros_like(masks), masks])

    @cached_property
    def test_labels(self) -> Tensor:
        return torch.arange(len(self.test_images)) >= len(self.golden["raw/test_good_u8"])

    def read(self, name: str, masks: bool = False) -> Tensor:
        """Raw pixels through a file, as images of users come."""
        return self.read_all(self.golden[name], masks)

    def read_all(self, pictures: np.ndarray, masks: bool = False) -> Tensor:
        read = []
        with tempfile.TemporaryDirectory() as folder:
            for index, pixels in enumerate(pictures):
                path = Path(folder) / f"{index}.png"
                Image.fromarray(pixels).save(path)
                if masks:
                    read.append(self.resize(read_mask(path, pixels.shape))[None].float())
                else:
                    read.append(self.resize(read_image(path)))
        return torch.stack([one.as_subclass(Tensor) for one in read])

    def array(self, name: str) -> Tensor:
        return torch.from_numpy(self.golden[name])

    def targets(self, group: str) -> list[str]:
        found = {name.split("/")[1] for name in self.golden if name.startswith(f"{group}/")}
        return sorted(found)


def min_max(values: Tensor, smooth: float = 0.0) -> Tensor:
    """Stretch to [0, 1], as the authors do on the whole test set."""
    return (values - values.min()) / (values.max() - values.min() + smooth)
