"""The papers' data sets as small trees of their layouts; ``picture`` and ``mask`` write a file."""

import json

MEDICLIP = ("brainmri", "busi", "chexpert")


def write_mediclip(root, picture, mask, count=6):
    """``count`` normal images for training; 3 and 4 abnormal ones for test, masks for BUSI."""
    train = [{"filename": f"train/normal/{i}.png"} for i in range(count)]
    test = [
        {"filename": f"test/{word}/{i}.png", "clsname": root.name, "label": label}
        for label, word in enumerate(("normal", "abnormal"))
        for i in range(3 + label)
    ]
    for seed, row in enumerate(train + test):
        picture(root / "images" / row["filename"], seed=seed)
        if root.name == "busi" and row.get("label"):
            row["mask"] = f"test/ground_true/{seed}.png"
            mask(root / "images" / row["mask"])
    (root / "samples").mkdir()
    for name, rows in {"train": train, "test": test}.items():
        lines = "\n".join(json.dumps(row) for row in rows)
        (root / "samples" / f"{name}.json").write_text(lines + "\n")


def write_nihchest(root, picture, _mask):
    """Two images of each of 20 patients, one of them without finding."""
    rows = ["Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age"]
    for patient in range(20):
        for number, finding in enumerate(("No Finding", "Effusion|Mass")):
            name = f"{patient:08}_{number:03}.png"
            picture(root / "images" / name, seed=2 * patient + number)
            rows.append(f"{name},{finding},{number},{patient},50")
    (root / "Data_Entry_2017_v2020.csv").write_text("\n".join(rows))


def write_adni(root, picture, _mask):
    """Two slices of each of 20 subjects, every second one ill."""
    rows = ["image,Image Data ID,Subject,Group,Sex"]
    for subject in range(20):
        for number in range(2):
            name = f"slices/I{subject}_{number}.png"
            picture(root / name, seed=2 * subject + number)
            rows.append(f"{name},I{subject},002_S_{subject:04},{('CN', 'AD')[subject % 2]},F")
    (root / "slices.csv").write_text("\n".join(rows))


def write_octdl(root, picture, _mask):
    """Two images of each of 20 patients, every second one ill."""
    rows = ["file_name,disease,subcategory,condition,patient_id,eye,sex,year"]
    for patient in range(20):
        disease = ("NO", ("AMD", "DME")[patient // 10])[patient % 2]
        for number in range(2):
            name = f"{disease.lower()}_{patient}_{number}"
            picture(root / disease / f"{name}.jpg", seed=2 * patient + number)
            rows.append(f"{name},{disease},,,{patient},OD,,2020")
    (root / "OCTDL_labels.csv").write_text("\n".join(rows))


def write_industrial(home, picture, mask, defects, after, ending=".png"):
    """8 normal images for training; 5 normal ones, and 10 with defects, for test."""
    for i in range(8):
        picture(home / "train" / "good" / f"{i:03}{ending}", seed=i)
    for i in range(5):
        picture(home / "test" / "good" / f"{i:03}{ending}", seed=20 + i)
    for number, defect in enumerate(defects):
        for i in range(10 // len(defects)):
            picture(home / "test" / defect / f"{i:03}{ending}", seed=40 + 10 * number + i)
            mask(home / "ground_truth" / defect / f"{i:03}{after}.png")


def write_mvtecad(root, picture, mask):
    write_industrial(root / "bottle", picture, mask, ("broken_large", "contamination"), "_mask")


def write_visa(root, picture, mask):
    write_industrial(root / "visa_pytorch" / "pcb1", picture, mask, ("bad",), "", ".JPG")


WRITERS = {
    **dict.fromkeys(MEDICLIP, write_mediclip),
    "nihchest": write_nihchest,
    "adni": write_adni,
    "octdl": write_octdl,
    "mvtecad": write_mvtecad,
    "visa": write_visa,
}
