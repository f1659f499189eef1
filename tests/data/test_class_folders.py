"""Two folders as people lay them out: patients below, masks beside, names that almost fit."""

import logging

import numpy as np
import pytest
from PIL import Image

from anomalib_medclip.data.checks import check_data
from anomalib_medclip.data.folder import MedicalFolder
from anomalib_medclip.errors import DataRootError, EmptySplitError, MaskError


@pytest.fixture
def root(tmp_path, picture):
    """Six patients with two images of each class."""
    for number in range(12):
        picture(tmp_path / "normal" / f"P{number // 2}" / f"{number}.png", seed=number)
        picture(tmp_path / "abnormal" / f"P{number // 2}" / f"{number}.png", seed=100 + number)
    return tmp_path


def setup(root, **options):
    data = MedicalFolder(root, k_shot=1, num_workers=0, **options)
    data.setup()
    return data


def warnings_of(caplog):
    return [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]


def test_folders_below_are_patients_and_none_is_in_two_splits(root, caplog):
    with caplog.at_level(logging.INFO):
        data = setup(root)
    table = data.list_images()
    assert table.groupby("label_index").size().tolist() == [12, 12]
    assert set(table["group"]) == {f"P{number}" for number in range(6)}
    seen = set(data.support_data.samples["group"])
    assert seen.isdisjoint(data.test_data.samples["group"])
    assert "6 folders below normal and abnormal are taken for patients" in caplog.text


def test_one_patient_may_be_spelt_in_two_ways(root):
    for name in ("P0", "P1"):
        (root / "abnormal" / name).rename(root / "abnormal" / name.lower())
    assert set(setup(root).list_images()["group"]) == {f"P{number}" for number in range(6)}


def test_where_folders_are_no_patients_the_option_is_named_and_helps(tmp_path, picture):
    for number in range(8):
        picture(tmp_path / "normal" / f"{number}.png", seed=number)
        picture(tmp_path / "abnormal" / "glioma" / f"{number}.png", seed=100 + number)
    with pytest.raises(EmptySplitError, match=r"no abnormal .*--data\.patient_folders false"):
        setup(tmp_path)
    data = setup(tmp_path, patient_folders=False)
    assert data.support_counts["abnormal"]["unknown"] == 1
    assert data.test_data.samples["label_index"].sum() > 0


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ((("", 8), ("more", 4)), "has 4 of 12 images in 1 folder, taken for as many patients"),
        (
            (("P0", 5), ("P1", 2), ("P2", 2)),
            "has 9 of 9 images in 3 folders, taken for as many patients",
        ),
        ((("P0", 4), ("P1", 2), ("P2", 2)), None),
        ((("", 8),), None),
        ((("images", 8),), None),  # which says of nobody whose they are
    ],
)
def test_folders_that_may_be_no_patients_are_a_warning_of_training_and_check(
    tmp_path, picture, caplog, layout, words
):
    for number in range(8):
        picture(tmp_path / "abnormal" / f"{number}.png", seed=number)
    places = [place for place, count in layout for _ in range(count)]
    for number, place in enumerate(places):
        picture(tmp_path / "normal" / place / f"{number}.png", seed=100 + number)
    data = setup(tmp_path)
    home = tmp_path / "normal"
    found = [one for one in check_data(data).problems if one.kind == "folder taken for a patient"]
    warned = [one for one in warnings_of(caplog) if "as many patients" in one]
    assert [one.file for one in found] == ([str(home)] if words else [])
    assert len(warned) == 2 * len(found)  # of training, and of the check that lists again
    for one in found:
        assert one.problem.startswith(words)
        assert warned[0].startswith(f"{home} {words}")
        assert one.remedy == "set --data.patient_folders false where folders are no patients"
    caplog.clear()
    setup(tmp_path, patient_folders=False)
    assert not [one for one in warnings_of(caplog) if "as many patients" in one]


def test_that_most_images_are_set_aside_is_a_warning(root, caplog):
    setup(root)
    assert not [one for one in warnings_of(caplog) if "set aside" in one]
    for path in [*root.glob("*/P[234]/*")]:
        path.rename(path.parents[1] / "P0" / path.name)
    data = setup(root)
    assert "P0" in set(data.support_data.samples["group"])
    parts = data.support_data, data.val_data, data.test_data
    used = len({path for part in parts for path in part.samples["image_path"]})
    [said] = [one for one in warnings_of(caplog) if "set aside" in one]
    assert said == f"{24 - used} of 24 images are set aside: their patients are in the support"


@pytest.fixture
def beside(tmp_path, picture, mask):
    """Images with their masks beside them, and files that are no images."""
    home = tmp_path / "set"
    for number in range(8):
        picture(home / "normal" / f"{number}.png", seed=number)
        picture(home / "abnormal" / f"{number}.png", seed=100 + number)
        mask(home / "abnormal" / f"{number}_mask.png")
    (home / "normal" / "about.txt").write_text("")
    picture(home / "benign" / "0.png", seed=300)
    return home


def test_what_is_left_out_is_said_alike_by_training_and_check(beside, caplog):
    data = setup(beside)
    assert data.list_images()["label_index"].sum() == 8
    warned = warnings_of(caplog)
    assert [one.partition(str(beside))[2].partition(";")[0] for one in warned[:3]] == [
        "/benign is named by no option, and is left out",
        "/normal/about.txt ends in .txt, as no picture that is read does, and is left out",
        "/abnormal/0_mask.png is a mask by its name, and is left out (1 of 8 such)",
    ]
    report = check_data(MedicalFolder(beside, k_shot=1))
    found = [one for one in report.problems if one.kind == "file left out"]
    assert {one.severity for one in found} == {"warning"}
    assert {one.file for one in found} == {str(one.path) for one in data.left_out}
    assert len(found) == 10


def test_whatever_lies_beside_the_two_folders_is_named(beside):
    (beside / "readme.txt").write_text("tired")
    (beside / "empty").mkdir()
    (beside / "more" / "deep" / "er").mkdir(parents=True)
    (beside / "more" / "deep" / "er" / "IM0001").write_bytes(bytes(128) + b"DICM")
    (beside / "within").mkdir()
    (beside / "abnormal").rename(beside / "within" / "abnormal")
    found = setup(beside, abnormal_dir="within/abnormal").left_out
    names = {one.path.relative_to(beside).as_posix() for one in found if "option" in one.reason}
    assert names == {"readme.txt", "more", "benign"}


def test_masks_beside_images_are_taken_where_their_folder_is_named(beside):
    data = setup(beside, mask_dir="abnormal")
    rows = data.list_images().query("label_index == 1")
    named = [path.replace(".png", "_mask.png") for path in rows["image_path"]]
    assert rows["mask_path"].tolist() == named
    assert {one.reason for one in data.left_out} == {
        "is named by no option",
        "ends in .txt, as no picture that is read does",
    }


def test_a_folder_of_masks_among_the_images_may_have_any_name(beside, mask):
    for number in range(8):
        (beside / "abnormal" / f"{number}_mask.png").unlink()
        mask(beside / "abnormal" / "drawn" / f"{number}.png")
    data = setup(beside, mask_dir="abnormal/drawn")
    assert data.list_images()["label_index"].sum() == 8
    assert not any("drawn" in str(one.path) for one in data.left_out)


def test_masks_that_nobody_needs_are_counted(beside, mask):
    for number in range(9):
        mask(beside / "masks" / f"{number}.png")
    data = setup(beside, mask_dir="masks")
    assert [(one.path, one.reason) for one in data.left_out if "masks/" in str(one.path)] == [
        (beside / "masks" / "8.png", "is the mask of no abnormal image")
    ]


def test_several_masks_of_an_image_are_refused(beside, mask):
    mask(beside / "abnormal" / "3_mask_1.png")
    with pytest.raises(MaskError, match=r"3\.png has 2 masks, 3_mask\.png, 3_mask_1\.png; join"):
        setup(beside, mask_dir="abnormal")


@pytest.mark.parametrize(
    ("place", "options", "words"),
    [
        (
            "..",
            {},
            r"no images in .*/normal; give .*/set by --data\.root, which has a folder nor",
        ),
        ("normal", {}, r"normal/normal; give .*/set by --data\.root"),
        (".", {"normal_dir": "healthy"}, r"--data\.normal_dir: there are abnormal, benign, normal"),
        (".", {"mask_dir": "masks"}, r"no images in .*/masks; .*--data\.mask_dir: there are abn"),
        ("normal/0.png", {}, r"correct --data\.root .*: .*0\.png is a file and no folder"),
    ],
)
def test_the_name_that_almost_fits_is_looked_for(beside, place, options, words):
    with pytest.raises(DataRootError, match=words):
        setup(beside / place, **options)


def test_folders_in_another_case_are_taken(beside):
    (beside / "normal").rename(beside / "Normal")
    assert setup(beside).list_images()["label_index"].tolist().count(0) == 8


def test_a_folder_of_files_that_are_not_read_says_so(beside):
    for number in range(8):
        (beside / "normal" / f"{number}.png").rename(beside / "normal" / f"{number}.svg")
    with pytest.raises(DataRootError, match=r"normal: .*/0\.svg ends in \.svg, .*\(1 of 9 files\)"):
        setup(beside)


def test_pictures_that_no_row_names_are_counted(beside, caplog):
    rows = [f"{word}/{n}.png,{word}" for word in ("normal", "abnormal") for n in range(7)]
    (beside / "t.csv").write_text("\n".join(["image,label", *rows]))
    data = MedicalFolder(table=beside / "t.csv", k_shot=1, num_workers=0)
    data.setup()
    assert len(data.left_out) == 1 + 1 + 8 + 1 + 1  # a text, and a picture of a third folder
    assert "is named by no row of the table, and is left out (1 of 11 such)" in caplog.text


def test_a_picture_of_two_values_among_others_is_looked_at(beside):
    lesion = np.zeros((20, 24), np.uint8)
    lesion[3:9] = 255
    Image.fromarray(lesion).save(beside / "abnormal" / "x.png")
    found = check_data(MedicalFolder(beside, k_shot=1)).problems
    assert [one.file for one in found if one.kind == "looks like a mask"] == [
        str(beside / "abnormal" / "x.png")
    ]
