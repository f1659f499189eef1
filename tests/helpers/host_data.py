"""anomalib's own datamodules, each over a few pictures in the folders that its pages describe."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from anomalib.data import (
    BMAD,
    MPDD,
    VAD,
    AutoVI,
    BTech,
    Datumaro,
    Folder,
    Kaputt,
    Kolektor,
    MVTecAD,
    MVTecAD2,
    MVTecLOCO,
    RealIAD,
    Tabular,
    Visa,
)
from PIL import Image

SIDE = 40
TRAIN, TEST = 6, 4
"""Normal images of training; images of each class in the test."""


def picture(path, abnormal=False):
    """Write noise, with a square where it is abnormal, bright or less, and give it as a mask."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    if abnormal:
        mask[10:22, 12:24] = 255
    random = np.random.default_rng(list(str(path.name).encode()))
    pixels = random.integers(90, 110, (SIDE, SIDE, 3), dtype=np.uint8)
    bright = random.integers(150, 255, dtype=np.uint8)
    write(path, np.where(mask[..., None] > 0, bright, pixels))
    return mask


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def trained_and_tested(root, normal="good", abnormal="bad", mask="{stem}_mask.png", ending="png"):
    """``train/NORMAL``, ``test/NORMAL``, ``test/ABNORMAL`` and, where named, ``ground_truth``."""
    for index in range(TRAIN):
        picture(root / "train" / normal / f"{index:03}.{ending}")
    for index in range(TEST):
        picture(root / "test" / normal / f"{index + 100:03}.{ending}")
        path = root / "test" / abnormal / f"{index + 200:03}.{ending}"
        pixels = picture(path, abnormal=True)
        if mask:
            write(root / "ground_truth" / abnormal / mask.format(stem=path.stem), pixels)


def mvtecad(root, **options):
    trained_and_tested(root / "bottle")
    return MVTecAD(root=root, category="bottle", **options)


def mvtecad2(root, **options):
    home = root / "can"
    for index in range(TRAIN):
        picture(home / "train" / "good" / f"{index:03}.png")
        picture(home / "validation" / "good" / f"{index + 50:03}.png")
    for index in range(TEST):
        picture(home / "test_public" / "good" / f"{index + 100:03}.png")
        path = home / "test_public" / "bad" / f"{index + 200:03}.png"
        truth = home / "test_public" / "ground_truth" / "bad" / f"{path.stem}_mask.png"
        write(truth, picture(path, abnormal=True))
        picture(home / "test_private" / f"{index:03}.png")
        picture(home / "test_private_mixed" / f"{index:03}.png")
    return MVTecAD2(root=root, category="can", **options)


def mvtec_loco(root, **options):
    home = root / "pushpins"
    trained_and_tested(home, abnormal="logical_anomalies", mask="{stem}/000.png")
    for index in range(TEST):
        picture(home / "validation" / "good" / f"{index + 50:03}.png")
    return MVTecLOCO(root=root, category="pushpins", **options)


def visa(root, **options):
    trained_and_tested(root / "visa_pytorch" / "candle", mask="{stem}.png")
    return Visa(root=root, category="candle", **options)


def autovi(root, **options):
    trained_and_tested(root / "pipe_clip", abnormal="unclipped", mask="{stem}/0000.png")
    return AutoVI(root=root, category="pipe_clip", **options)


def mpdd(root, **options):
    trained_and_tested(root / "tubes")
    return MPDD(root=root, category="tubes", **options)


def vad(root, **options):
    trained_and_tested(root / "vad", mask="{stem}.png")
    return VAD(root=root, **options)


def btech(root, **options):
    trained_and_tested(root / "01", "ok", "ko", "{stem}.png")
    return BTech(root=root, category="01", **options)


def bmad(root, category="Brain", **options):
    home = root / category
    for index in range(TRAIN):
        picture(home / "train" / "good" / f"{index:03}.png")
    for split in ("valid", "test"):
        for index in range(TEST):
            good = picture(home / split / "good" / "img" / f"{index + 100:03}.png")
            bad = picture(home / split / "Ungood" / "img" / f"{index + 200:03}.png", abnormal=True)
            if category == "Brain":
                write(home / split / "good" / "label" / f"{index + 100:03}.png", good)
                write(home / split / "Ungood" / "label" / f"{index + 200:03}.png", bad)
    return BMAD(root=root, category=category, **options)


def kolektor(root, **options):
    for index in range(TRAIN + 2 * TEST):
        path = root / f"kos{index:02}" / "Part0.jpg"
        truth = picture(path, abnormal=index < TEST)
        write(path.with_name("Part0_label.bmp"), truth)
    return Kolektor(root=root, **options)


def realiad(root, **options):
    home = Path("realiad_256") / "audiojack"
    rows = {"train": [], "test": []}
    for index in range(TRAIN + 2 * TEST):
        abnormal, name = index >= TRAIN + TEST, f"S{index:04}.jpg"
        truth = picture(root / home / name, abnormal)
        row = {"category": "audiojack", "anomaly_class": "AK" if abnormal else "OK"}
        row |= {"image_path": name, "mask_path": None}
        if abnormal:
            row["mask_path"] = f"S{index:04}.png"
            write(root / home / row["mask_path"], truth)
        rows["train" if index < TRAIN else "test"].append(row)
    listed = root / "realiad_jsons" / "realiad_jsons" / "audiojack.json"
    listed.parent.mkdir(parents=True)
    listed.write_text(json.dumps({"meta": {"prefix": "audiojack/"}, **rows}))
    return RealIAD(root=root, category="audiojack", resolution=256, **options)


def datumaro(root, **options):
    items = []
    for index in range(2 * TRAIN + TEST):
        abnormal, name = index >= 2 * TRAIN, f"{index:03}.png"
        picture(root / "images" / "default" / name, abnormal)
        items.append({"image": {"path": name}, "annotations": [{"label_id": int(abnormal)}]})
    labels = {"label": {"labels": [{"name": "Normal"}, {"name": "Anomalous"}]}}
    (root / "annotations").mkdir(parents=True)
    listed = root / "annotations" / "default.json"
    listed.write_text(json.dumps({"categories": labels, "items": items}))
    return Datumaro(root=root, test_split_mode="from_dir", **options)


def kaputt(root, **options):
    (root / "datasets").mkdir(parents=True)
    for split in ("train", "validation", "test"):
        rows = []
        for index in range(2 * TEST):
            abnormal, name = index >= TEST and split != "train", f"{split}{index}.png"
            image = Path("data", split, "query-data", "image", name)
            truth = picture(root / "query-image" / image, abnormal)
            mask = Path("data", split, "query-data", "mask", name)
            write(root / "query-mask" / mask, truth)
            rows.append({
                "query_image": str(image), "query_mask": str(mask), "capture_id": name,
                "item_identifier": name, "item_material": "book_other", "defect": abnormal,
                "defect_types": "hole" if abnormal else "",
            })  # fmt: skip
        pd.DataFrame(rows).to_parquet(root / "datasets" / f"query-{split}.parquet")
    return Kaputt(root=root, category="book_other", **options)


def folder(root, masks=True, abnormal=True, **options):
    for index in range(TRAIN + 2 * TEST):
        picture(root / "normal" / f"{index:03}.png")
        if abnormal and index < 2 * TEST:
            truth = picture(root / "abnormal" / f"{index:03}.png", abnormal=True)
            if masks:
                write(root / "masks" / f"{index:03}.png", truth)
    folders = {"normal_dir": "normal"}
    folders |= {"abnormal_dir": "abnormal"} if abnormal else {}
    folders |= {"mask_dir": "masks"} if abnormal and masks else {}
    return Folder(name="parts", root=root, **folders, **options)


def tabular(root, **options):
    folder(root)
    rows = [
        {"image_path": f"normal/{index:03}.png", "label_index": 0, "mask_path": "",
         "split": "train" if index < TRAIN else "test"}
        for index in range(TRAIN + 2 * TEST)
    ]  # fmt: skip
    rows += [
        {"image_path": f"abnormal/{index:03}.png", "label_index": 1, "split": "test",
         "mask_path": f"masks/{index:03}.png"}
        for index in range(2 * TEST)
    ]  # fmt: skip
    return Tabular(name="parts", root=root, samples=rows, **options)


HOST_DATA: dict[str, Callable] = {
    "MVTecAD": mvtecad,
    "MVTecAD2": mvtecad2,
    "MVTecLOCO": mvtec_loco,
    "Visa": visa,
    "AutoVI": autovi,
    "MPDD": mpdd,
    "VAD": vad,
    "BTech": btech,
    "BMAD": bmad,
    "BMAD, no masks": partial(bmad, category="Chest"),
    "Kolektor": kolektor,
    "RealIAD": realiad,
    "Datumaro": datumaro,
    "Kaputt": kaputt,
    "Folder": folder,
    "Folder, no masks": partial(folder, masks=False),
    "Folder, normal images only": partial(folder, abnormal=False),
    "Tabular": tabular,
}
"""Every image datamodule of anomalib, with what it is given where that is more than one kind."""


def host_data(name, root):
    """A datamodule of anomalib, in small batches, or why anomalib itself cannot read its data."""
    made = HOST_DATA[name](root, train_batch_size=4, eval_batch_size=4, num_workers=0)
    made.prepare_data()
    made.setup()
    if not len(made.train_data):
        message = "anomalib finds no image in the folders that it describes"
        raise RuntimeError(message)
    for part in (made.train_data, made.val_data, made.test_data):
        list(part)
    return made
