"""Folders of images with their masks and other files, drawn; how they are drawn is the truth."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def png(pixels, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


NOISE = np.random.default_rng(0).integers(0, 255, (16, 16), dtype=np.uint8)
LESION = np.zeros((16, 16), np.uint8)
LESION[3:9, 4:8] = 255
PICTURES = {ending: png(NOISE) for ending in (".png", ".PNG", ".jpg", ".tif", ".bmp")}
MASK = png(LESION)

NAMES = ("{}", "{:03}", "IMG_{}", "image {}", "scan-{}", "case{}_2.1", "P{}_slice_4", "Größe {}",
         "ISIC_00{}", "{} (1)", "{}_original", "{}.v2", "TCGA_CS_{}_1996")  # fmt: skip
MASK_NAMES = ("{}_mask", "{}_MASK", "{}-seg", "{} label", "{}.mask", "mask_{}", "GT_{}",
              "{}_ground truth", "{}_segmentation", "{}_lesion", "{}Mask", "{}_mask_1")  # fmt: skip
MASK_FOLDERS = ("masks", "Mask", "ground_truth", "1st_manual", "label", "P_segmentations", "GT")
OTHERS = ("notes.txt", "Thumbs.db", "scan.npy", "README", "volume.nii.gz", "table.csv")


def save(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


class Tree:
    """Images, their masks and other files, drawn; how it was drawn is the truth."""

    def __init__(self, root, seed):
        draw = np.random.default_rng(seed)
        self.home, self.masks_home = root / "abnormal", root / "abnormal"
        self.images, self.others = {}, []
        name, mask_name = draw.choice(NAMES), draw.choice(MASK_NAMES)
        where = draw.choice(["beside", "below", "apart", "another ending"])
        nested = draw.random() < 0.5
        if where == "apart":
            self.masks_home = root / draw.choice(MASK_FOLDERS)
        folder_of_masks = draw.choice(MASK_FOLDERS)
        for number in range(draw.integers(3, 9)):
            patient = Path(f"P{number // 2}") if nested else Path()
            stem = name.format(number)
            ending = draw.choice(list(PICTURES))
            image = save(self.home / patient / f"{stem}{ending}", PICTURES[ending])
            mask = self.masks_home / patient / f"{mask_name.format(stem)}.png"
            if where == "below":
                mask = self.home / patient / folder_of_masks / f"{stem}.png"
            elif where == "another ending":
                mask = image.with_name(f"{stem}.{'bmp' if ending == '.png' else 'png'}")
                mask = mask if mask.suffix.lower() != ending.lower() else image.with_suffix(".tiff")
            elif where == "apart" and draw.random() < 0.5:
                mask = self.masks_home / patient / f"{stem}.png"
            self.images[image] = save(mask, MASK)
        for other in draw.choice(OTHERS, 2, replace=False):
            self.others.append(save(self.home / other, b"x"))
        save(self.home / "._0.png", b"x")
        (self.home / "__MACOSX").mkdir()
        save(self.home / "__MACOSX" / ".DS_Store", b"x")
