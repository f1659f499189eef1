import numpy as np
import pandas as pd
import pytest
from anomalib.visualization import ImageVisualizer
from PIL import Image

from anomalib_medclip.data.drawing import heat_map_problems, undrawable_problems
from anomalib_medclip.data.integrity import (
    class_problems,
    file_problems,
    patient_problems,
    refuse,
    shared_patients,
    with_name,
)
from anomalib_medclip.errors import (
    DataRootError,
    EmptySplitError,
    ImageReadError,
    MaskError,
    MissingMaskError,
    SupportError,
)


@pytest.fixture
def table(tmp_path, picture, mask):
    """Two normal and two abnormal images with their masks."""
    for i in range(4):
        picture(tmp_path / f"{i}.png", seed=i)
    masks = ["", "", str(mask(tmp_path / "m" / "2.png")), str(mask(tmp_path / "m" / "3.png"))]
    return pd.DataFrame(
        {
            "image_path": [str(tmp_path / f"{i}.png") for i in range(4)],
            "label_index": [0, 0, 1, 1],
            "mask_path": masks,
            "group": ["p", "q", "p", ""],
            "has_masks": True,
        }
    )


def test_a_complete_table_passes(table):
    assert list(file_problems(table)) == []
    assert list(class_problems(table, "test", "Scans")) == []


def test_a_normal_image_needs_no_mask_but_an_abnormal_one_does(table):
    table.loc[3, "mask_path"] = ""
    with pytest.raises(
        MissingMaskError, match=r"3\.png is abnormal and has no mask: no mask file is named for it"
    ):
        refuse(file_problems(table))


def test_a_missing_mask_is_reported_with_the_place_it_was_looked_for(table, tmp_path):
    (tmp_path / "m" / "2.png").unlink()
    (tmp_path / "m" / "3.png").unlink()
    with pytest.raises(
        MissingMaskError, match=r"2\.png is .* looked for .*m/2\.png \(1 of 2 such\); add"
    ):
        refuse(file_problems(table))


def test_labels_alone_need_no_masks(table):
    assert list(file_problems(table.assign(mask_path="", has_masks=False))) == []


def test_a_missing_image_is_named(table, tmp_path):
    (tmp_path / "1.png").unlink()
    with pytest.raises(ImageReadError, match=r"1\.png is missing; restore it"):
        refuse(file_problems(table))


def test_what_is_there_instead_is_named(table, tmp_path):
    (tmp_path / "1.png").rename(tmp_path / "1.svg")
    (tmp_path / "m" / "3.png").rename(tmp_path / "m" / "3.jpg")
    image, mask = file_problems(table, tmp_path)
    assert image.remedy.startswith(f"save {tmp_path}/1.svg, which is there, as PNG")
    assert mask.remedy == f"write its name as {tmp_path}/m/3.jpg, which is there"


def test_an_image_listed_twice_is_refused(table):
    with pytest.raises(DataRootError, match=r"0\.png is listed twice"):
        refuse(file_problems(pd.concat([table, table.iloc[:1]])))


@pytest.mark.parametrize("spelling", ["m/../0.png", "link.png"])
def test_an_image_under_two_paths_is_listed_twice(table, tmp_path, spelling):
    (tmp_path / "link.png").symlink_to(tmp_path / "0.png")
    table.loc[1, "image_path"] = f"{tmp_path}/{spelling}"
    with pytest.raises(DataRootError, match=rf"{spelling} is listed twice, .*/0\.png; list"):
        refuse(file_problems(table))


def test_a_normal_image_whose_mask_marks_a_lesion_is_refused(table, mask, tmp_path):
    table.loc[1, "mask_path"] = str(mask(tmp_path / "m" / "1.png"))
    with pytest.raises(MaskError, match=r"1\.png is labelled normal, but mask .*m/1\.png mark"):
        refuse(file_problems(table))


def test_a_normal_image_may_have_an_empty_mask_or_a_place_for_one(table, tmp_path):
    Image.fromarray(np.zeros((20, 24), dtype=np.uint8)).save(tmp_path / "m" / "0.png")
    table.loc[[0, 1], "mask_path"] = [str(tmp_path / "m" / "0.png"), str(tmp_path / "m" / "1.png")]
    assert list(file_problems(table)) == []


def test_an_empty_split_is_named_with_its_class(table):
    with pytest.raises(EmptySplitError, match=r"the test split of Scans holds no abnormal image"):
        refuse(class_problems(table.iloc[:2], "test", "Scans"))


def test_a_patient_on_both_sides_is_named(table):
    seen, test = table.iloc[:1], table.iloc[1:]
    with pytest.raises(
        SupportError, match=r"2\.png is in the test split, and .*/0\.png of the same patient"
    ):
        refuse(patient_problems(seen, test))


def test_unknown_patients_are_never_the_same(table):
    assert shared_patients(table.iloc[3:], table.assign(group="")).empty


def test_images_that_would_share_a_heat_map_are_refused():
    table = pd.DataFrame({"image_path": ["/a/scans/p/img/1.png", "/a/scans/q/img/1.png"]})
    refuse(heat_map_problems(table, "scans", ""))
    with pytest.raises(
        DataRootError, match=r"p/img/1\.png shares a heat-map file with another \(1 of 2 such\)"
    ):
        refuse(heat_map_problems(table, "other", ""))


def test_a_picture_that_anomalib_would_draw_as_it_is_stored_is_refused(table):
    turned = Image.Exif()
    turned[274] = 3
    refuse(undrawable_problems(table, "", "", [ImageVisualizer()]))
    Image.new("L", (24, 20)).save(table["image_path"][1], exif=turned)
    assert list(undrawable_problems(table, "", "", [])) == []
    with pytest.raises(ImageReadError, match=r"1\.png has an orientation .*HeatMapVisualizer"):
        refuse(undrawable_problems(table, "", "", [ImageVisualizer()]))


def test_the_current_folder_has_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert with_name(".") == tmp_path
    assert str(with_name("datasets/BMAD")) == "datasets/BMAD"
