"""One set of data has one number that means lesion: what else marks lesions is asked about."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from outlines import ellipse
from pictures import noise, save
from PIL import Image as Pillow
from torch.utils.data import DataLoader
from volumes import save_nifti, volume

from anomalib_medclip.data import MedicalFolder, Volumes, VolumeSource
from anomalib_medclip.data.checks import check_data
from anomalib_medclip.data.slice_tree import cut_tree
from anomalib_medclip.errors import MaskError
from anomalib_medclip.readers.lesion import MaskLabels
from anomalib_medclip.readers.picture import read_outline

SIZE = (24, 32)
ASKED = r"mask .* holds .* beside 0, but mask .* holds .*'lesion_labels'"

# --- pictures


def draw_mask(random, path, number):
    """Write a mask by a number, or one that has none, in one of many ways; the number it has."""
    lesion = ellipse(random, SIZE)
    grey = np.where(lesion, number, 0).astype(np.uint8)
    bright = np.where(lesion, 255, 0).astype(np.uint8)
    ways = [
        lambda: (save(path, grey), number),
        lambda: (save(path, np.dstack([grey] * 3)), number),
        lambda: (save(path, np.dstack([grey, np.full(SIZE, 255, np.uint8)])), number),
        lambda: (save(path, bright, mode="1"), None),
        lambda: (save(path, cv2.GaussianBlur(bright, (0, 0), 1.5)), None),
    ]
    return ways[random.integers(len(ways))]()[1]


def folder(root, numbers, random, draw=draw_mask, **options):
    """Pictures with masks by these numbers; by mask, the number that it has."""
    rows, written = [], {}
    for place, number in enumerate(numbers):
        image, mask = root / f"{place:02}.png", root / "masks" / f"{place:02}.png"
        mask.parent.mkdir(parents=True, exist_ok=True)
        save(image, noise(*SIZE, seed=place))
        written[str(mask)] = draw(random, mask, number)
        rows.append({"image": str(image), "mask": str(mask), "label": 1, "split": "test"})
    (root / "table.json").write_text(json.dumps(rows))
    data = MedicalFolder(
        root, root / "table.json", mask_column="mask", split_column="split", **options
    )
    return data, written


def read_all(data, **options):
    table = data.complete(data.list_images())
    images = data._dataset(table)
    return list(DataLoader(images, batch_size=1, collate_fn=images.collate_fn, **options))


def asked_by_check(data):
    return [one for one in check_data(data).problems if one.kind == "mask values"]


def test_a_set_of_two_numbers_is_asked_about_whichever_way_masks_are_stored(tmp_path):
    refused = 0
    for seed in range(24):
        random = np.random.default_rng(seed)
        pool = random.choice([1, 2, 128, 255], int(random.integers(1, 4)), replace=False).tolist()
        data, written = folder(tmp_path / str(seed), random.choice(pool, 6).tolist(), random)
        found = {number for number in written.values() if number is not None}
        problems = asked_by_check(data)
        assert len(problems) == max(0, len(found) - 1), (seed, written)
        assert {written[one.file] for one in problems} < found or not problems
        if len(found) < 2:
            read_all(data)
            continue
        refused += 1
        with pytest.raises(MaskError, match=ASKED) as told:
            read_all(data)
        said = f"{problems[0].problem}; {problems[0].remedy}"
        assert str(told.value) in [said, *(f"{p.problem}; {p.remedy}" for p in problems)]
    assert 5 < refused < 20


def test_what_is_said_by_options_is_not_asked(tmp_path):
    random = np.random.default_rng(0)
    for options in ({"lesion_labels": "all"}, {"lesion_labels": (1, 255)}):
        data, _ = folder(tmp_path, [1, 255, 1, 255], random, plain, **options)
        assert not asked_by_check(data)
        assert len(read_all(data)) == 4
    data, _ = folder(tmp_path, [1, 255], random, plain, ignore_labels=(7,))
    with pytest.raises(MaskError, match=ASKED):
        read_all(data)
    assert len(asked_by_check(data)) == 1


def plain(random, path, number):
    return save(path, np.where(ellipse(random, SIZE), number, 0).astype(np.uint8)) and number


@pytest.mark.parametrize("workers", [1, 3])
def test_processes_that_read_side_by_side_have_one_number(tmp_path, workers):
    data, _ = folder(tmp_path, [1, 255] * 6, np.random.default_rng(0), plain)
    with pytest.raises(MaskError, match="holds"):
        read_all(data, num_workers=workers)


def test_one_process_knows_what_another_has_read(tmp_path):
    data, _ = folder(tmp_path, [1, 255], np.random.default_rng(0), plain)
    table = data.complete(data.list_images())
    first, second = (data._dataset(table[table.index == place]) for place in (0, 1))
    list(DataLoader(first, collate_fn=first.collate_fn, num_workers=1))  # which ends then
    with pytest.raises(MaskError, match=r"01\.png holds 255 beside 0, but mask .*00\.png holds 1"):
        second[0]


def test_sets_of_one_table_have_a_number_each(tmp_path):
    data, _ = folder(tmp_path, [1, 255], np.random.default_rng(0), plain)
    table = data.complete(data.list_images()).assign(set_name=["one", "other"])
    assert len([*data._dataset(table)]) == 2


def test_colours_are_numbers_too(tmp_path):
    def coloured(random, path, number):
        pixels = np.zeros((*SIZE, 3), np.uint8)
        pixels[ellipse(random, SIZE), number] = 200
        return save(path, pixels) and str(number)

    data, _ = folder(tmp_path, [0, 0, 2], np.random.default_rng(0), coloured)
    with pytest.raises(MaskError, match=r"02\.png holds red, green and blue \[0, 0, 200\] beside"):
        read_all(data)


def test_what_has_no_number_says_none(tmp_path):
    lesion = ellipse(np.random.default_rng(0), SIZE)
    grey = np.where(lesion, 9, 0).astype(np.uint8)
    path = save(tmp_path / "m.png", grey)
    assert read_outline(path).number == 9
    assert read_outline(path, MaskLabels((9,))).number is None
    assert read_outline(path, MaskLabels(None, (3,))).number == 9
    assert read_outline(path, MaskLabels(None, (9,))).number is None
    assert read_outline(save(path, grey * 0)).number is None
    assert read_outline(save(tmp_path / "m.jpg", grey * 20)).number is None
    Pillow.fromarray(lesion).save(path)
    assert read_outline(path).number is None


# --- volumes


def scans(root, numbers):
    for place, number in enumerate(numbers):
        voxels, lesion = volume(place, (1, 3))
        save_nifti(root / f"P{place}" / "scan.nii.gz", voxels)
        save_nifti(root / f"P{place}" / "seg.nii.gz", lesion * np.uint8(number))
    source = VolumeSource("{patient}/scan.nii.gz", "{patient}/seg.nii.gz")
    return Volumes(root, [source], intensity=(0.0, 1000.0), k_shot=1), source


def test_volumes_of_two_numbers_are_asked_about_at_every_door(tmp_path):
    data, source = scans(tmp_path / "in", [1, 1, 2, 1, 2, 1])
    words = r"P2/seg\.nii\.gz holds 2 beside 0, but mask .*P0/seg\.nii\.gz holds 1, .*'lesion_lab"
    with pytest.raises(MaskError, match=words):
        data.setup()
    other = Volumes(data.root, [source], intensity=(0.0, 1000.0), k_shot=1)
    found = [one for one in check_data(other).problems if one.severity == "error"]
    assert [one.file.split("/")[-2] for one in found if "holds" in one.problem] == ["P2", "P4"]
    for jobs in (1, 3):
        tree = cut_tree(other, tmp_path / f"tree {jobs}", jobs=jobs)
        assert {*tree.failed} == {"P2/scan.nii.gz", "P4/scan.nii.gz"}
        assert (
            "holds 2 beside 0, but mask in/P0/seg.nii.gz holds 1" in tree.failed["P2/scan.nii.gz"]
        )
        drawn = {path.name.partition("_")[0] for path in tree.folder.glob("*/*/img/*.png")}
        assert drawn == {"P0", "P1", "P3", "P5"}
        assert cut_tree(other, tmp_path / f"tree {jobs}", jobs=jobs).failed == tree.failed
    said = replace(source, lesion_labels=(2,))
    told = Volumes(data.root, [said], intensity=(0.0, 1000.0), k_shot=1)
    table = told.list_images()
    ill = {path.split("/")[-3] for path in table[table["label_index"] == 1]["image_path"]}
    assert ill == {"P2", "P4"}


def test_slices_of_two_numbers_are_asked_about_as_one_file_is(tmp_path):
    for patient in range(4):
        for number in range(1, 5):
            home = tmp_path / f"P{patient}"
            lesion = np.zeros(SIZE, np.uint8)
            lesion[6:15, 6:15] = patient % 2 and number == 2
            lesion[:3] = 0 if lesion.any() else 255
            for name, pixels in (("img", noise(*SIZE, seed=number)), ("seg", lesion)):
                (home / name).mkdir(parents=True, exist_ok=True)
                save(home / name / f"{number}.png", pixels)

    def stacks(**options):
        return Volumes(tmp_path, [VolumeSource("{patient}/img", "{patient}/seg", **options)])

    problems = [one for one in check_data(stacks()).problems if "beside 0" in one.problem]
    assert [one.file for one in problems] == [str(tmp_path / name / "img") for name in ("P1", "P3")]
    with pytest.raises(MaskError, match=r"seg/2\.png holds 1 beside 0, but .*/1\.png holds 255"):
        stacks().load_table()
    table = stacks(ignore_labels=(255,)).list_images()
    ill = table[table["label_index"] == 1]["image_path"].tolist()
    assert [path.split("/")[-3:] for path in ill] == [
        ["P1", "img", "axial_001.png"], ["P3", "img", "axial_001.png"]
    ]  # fmt: skip


def test_a_volume_of_a_number_below_0_is_asked_about(tmp_path):
    data, _ = scans(tmp_path, [1] * 6)
    labels = volume(3, (1, 3))[1].astype(np.int16) * -1
    save_nifti(tmp_path / "P3" / "seg.nii.gz", labels)
    with pytest.raises(MaskError, match=r"P3/seg\.nii\.gz holds -1 beside 0"):
        data.setup()
