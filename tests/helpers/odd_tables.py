"""Tables by pandas and csv, and folders of images, as people and programs lay them out."""

import csv
import zipfile
from functools import partial

import numpy as np
import pandas as pd
from odd import ending
from PIL import Image as Pillow

NAMES = ("ill/1.png", "ill/Größe 2.png", "well/a, b.png", "well/x;y.png")
LABELS = (1, 1, 0, 0)
ROWS = pd.DataFrame({"image": NAMES, "label": LABELS, "note": ["", "3,5", 'a "word"', "x|y"]})


def save(path, number=0):
    """A grey picture of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (8, 9)).astype(np.uint8)
    Pillow.fromarray(pixels).save(path)
    return path


def save_lesion(path):
    """A mask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(np.pad(np.full((3, 4), 255, np.uint8), ((2, 3), (3, 2)))).save(path)
    return path


# --- tables


def by_pandas(suffix, base, *, rows=ROWS, **options):
    path = ending(base, suffix)
    rows.to_csv(path, **{"index": False, **options})
    return path


def by_csv(dialect, base):
    path = ending(base, ".csv")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, dialect)
        writer.writerows([ROWS.columns, *ROWS.itertuples(index=False)])
    return path


def as_json(suffix, base, **options):
    path = ending(base, suffix)
    ROWS.to_json(path, orient="records", **options)
    return path


def retold(change, base):
    """What pandas writes, with something changed."""
    path = by_pandas(".csv", base)
    path.write_bytes(change(path.read_bytes()))
    return path


def workbook(base):
    path = ending(base, ".xlsx")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("[Content_Types].xml", "<Types/>")
    return path


WORDS = ROWS.assign(label=["Abnormal", "abnormal", "NORMAL", "normal"])
REAL = ROWS.assign(label=ROWS["label"].astype(float))
TRUTHS = ROWS.assign(label=ROWS["label"] == 1)
KANJI = ROWS.assign(image="画像.png")
BACKSLASHES = ROWS.assign(image=ROWS["image"].str.replace("/", "\\"))
TABLES = {
    **{f"csv by {name}": partial(by_pandas, ".csv", sep=sep)
       for name, sep in {"commas": ",", "semicolons": ";", "tabs": "\t", "bars": "|"}.items()},
    **{f"csv in {encoding}": partial(by_pandas, ".csv", encoding=encoding)
       for encoding in ("utf-8", "utf-8-sig", "utf-16")},
    "csv of Windows": partial(by_pandas, ".csv", lineterminator="\r\n"),
    "csv with an index": partial(by_pandas, ".csv", index=True),
    "csv in quotes": partial(by_pandas, ".csv", quoting=csv.QUOTE_ALL),
    "csv of words": partial(by_pandas, ".csv", rows=WORDS),
    "csv of real labels": partial(by_pandas, ".csv", rows=REAL),
    "csv of backslashes": partial(by_pandas, ".csv", rows=BACKSLASHES),
    "csv called txt": partial(by_pandas, ".txt", sep="\t"),
    **{f"csv {dialect}": partial(by_csv, dialect) for dialect in ("excel", "excel-tab", "unix")},
    "csv that says its separator": partial(retold, lambda raw: b"sep=,\n" + raw),
    "csv with empty lines": partial(retold, lambda raw: raw.replace(b"\n", b"\n\n")),
    "csv in capitals": partial(retold, lambda raw: raw.replace(b"image,label", b"Image,LABEL")),
    "json list": partial(as_json, ".json"),
    "json list, spread": partial(as_json, ".json", indent=2),
    "json list of letters": partial(as_json, ".json", force_ascii=False),
    "json lines": partial(as_json, ".jsonl", lines=True),
    "csv in latin-1": partial(by_pandas, ".csv", encoding="latin-1"),
    "csv by gzip": partial(by_pandas, ".csv.gz"),
    "csv of true and false": partial(by_pandas, ".csv", rows=TRUTHS),
    "csv in an encoding of Japan": partial(by_pandas, ".csv", rows=KANJI, encoding="shift-jis"),
    "workbook": workbook,
    "csv without a header": partial(by_pandas, ".csv", header=False),
    "csv of one column": partial(by_pandas, ".csv", sep=" "),
}  # fmt: skip
REFUSED_TABLES = {
    "csv in an encoding of Japan": "not UTF-8 text.*; save it as UTF-8",
    "workbook": "a workbook or an archive.*; save its table as 'CSV UTF-8'",
    "csv without a header": "no column 'image'.*; write a line with the names",
    "csv of one column": "no column 'image'.*; name the columns",
}

# --- folders


def classes(root, *, normal="normal", abnormal="abnormal", suffix=".png", below=""):
    """Three images of each class; where they are."""
    return {
        save(root / folder / below.format(n) / f"{n}{suffix}", n): label
        for label, folder in enumerate((normal, abnormal))
        for n in range(3)
    }


def plain(root):
    return classes(root), {}, {}


def of_patients(root):
    return classes(root, below="P{}"), {}, {}


def of_visits(root):
    return classes(root, below="P{}/2020/left"), {}, {}


def in_capitals(root):
    return classes(root, normal="Normal", abnormal="ABNORMAL", suffix=".PNG"), {}, {}


def called_otherwise(root):
    return classes(root, normal="good", abnormal="ill"), {}, {
        "normal_dir": "good", "abnormal_dir": "ill",
    }  # fmt: skip


def masks_beside(root):
    images = classes(root)
    masks = [
        save_lesion(path.with_name(f"{path.stem}_mask.png"))
        for path, label in images.items()
        if label
    ]
    return images, dict.fromkeys(masks, "mask by its name"), {}


def masks_apart(root):
    images = classes(root)
    for path, label in images.items():
        if label:
            save_lesion(root / "masks" / path.name)
    return images, {}, {"mask_dir": "masks"}


def among_others(root):
    images = classes(root)
    others = {root / "normal" / name: "ends in|has no ending"
              for name in ("notes.txt", "Thumbs.db", "README")}  # fmt: skip
    for path in (*others, root / "normal" / ".DS_Store", root / "abnormal" / "._1.png"):
        path.write_text("tired")
    return images, others, {}


def a_third_folder(root):
    images = classes(root)
    save(root / "benign" / "0.png")
    return images, {root / "benign": "named by no option"}, {}


def of_endings(root):
    images = {}
    for label, folder in enumerate(("normal", "abnormal")):
        for number, suffix in enumerate((".png", ".JPG", ".bmp", ".tif", ".gif", ".webp")):
            images[save(root / folder / f"{number}{suffix}", number)] = label
    return images, {}, {}


def linked(root):
    images = classes(root.with_name(f"{root.name}-elsewhere"))
    for folder in ("normal", "abnormal"):
        root.mkdir(exist_ok=True)
        (root / folder).symlink_to(root.with_name(f"{root.name}-elsewhere") / folder)
    return {root / path.parent.name / path.name: label for path, label in images.items()}, {}, {}


LAYOUTS = {
    "plain": plain, "of patients": of_patients, "of visits": of_visits,
    "in capitals": in_capitals, "called otherwise": called_otherwise,
    "masks beside": masks_beside, "masks apart": masks_apart, "among others": among_others,
    "a third folder": a_third_folder, "of many endings": of_endings, "linked": linked,
}  # fmt: skip
"""Each writes images with their labels, what is left out and why, and options; and returns them."""
