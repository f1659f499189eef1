"""The configs of the papers' other data sets, each on a small tree of its layout."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from paper_trees import MEDICLIP, WRITERS

from anomalib_medclip import data
from anomalib_medclip.data.industrial import INDUSTRIAL_SETS
from anomalib_medclip.errors import DataRootError, MissingMaskError, SupportError

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def build(tmp_path, picture, mask, monkeypatch):
    """Writes the tree of a config and builds its datamodule; ``change`` comes in between."""

    def make(name, change=lambda root: None, **options):
        monkeypatch.chdir(tmp_path)
        config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
        # The folder below datasets/, whether the root is it or one inside.
        root = Path(*Path(config["init_args"]["root"]).parts[:2])
        root.mkdir(parents=True)
        WRITERS[name](root, picture, mask)
        change(root)
        kind = getattr(data, config["class_path"].rsplit(".", 1)[1])
        return kind(**{**config["init_args"], "k_shot": 3, "num_workers": 0, **options})

    return make


def counts(dataset):
    return np.bincount(dataset.samples["label_index"], minlength=2).tolist()


def paths(dataset):
    return set(dataset.samples["image_path"])


def lesions(dataset):
    """Label and pixels of the mask, as they come; no pixels where there is no mask."""
    return {(int(i.gt_label), None if i.gt_mask is None else int(i.gt_mask.sum())) for i in dataset}


@pytest.mark.parametrize("name", WRITERS)
def test_support_and_test_share_no_image(build, name):
    built = build(name)
    built.setup()
    assert paths(built.support_data).isdisjoint(paths(built.test_data))
    assert paths(built.val_data).isdisjoint(paths(built.test_data))
    assert built.support_data[0].image.shape == (3, 20, 24)


@pytest.mark.parametrize("name", MEDICLIP)
def test_sets_of_mediclip_have_a_support_of_normal_images(build, name):
    built = build(name)
    built.setup()
    assert (built.name, built.only_normals) == (name, True)
    assert counts(built.support_data) == counts(built.val_data) == [3, 0]
    assert counts(built.test_data) == [3, 4]


def test_busi_has_masks_and_the_others_have_none(build):
    busi, brain = build("busi"), build("brainmri")
    busi.setup()
    brain.setup()
    assert lesions(busi.test_data) == {(0, 0), (1, 30)}
    assert lesions(busi.support_data) == {(0, 0)}
    assert lesions(brain.test_data) == {(0, None), (1, None)}


@pytest.mark.parametrize("name", ["nihchest", "adni", "octdl"])
def test_sets_of_madclip_are_split_patient_by_patient(build, name):
    built = build(name)
    built.setup()
    parts = (built.support_data, built.val_data, built.test_data)
    groups = [set(part.samples["group"]) for part in parts]
    assert sum(map(len, groups)) == len(set.union(*groups))
    assert "" not in set.union(*groups)
    assert counts(built.support_data) == [3, 3]
    assert min(counts(built.val_data)) >= 2
    assert min(counts(built.test_data)) >= 8
    assert not built.has_masks


@pytest.mark.parametrize("name", ["mvtecad", "visa"])
def test_a_defect_that_is_learnt_from_is_not_tested_on(build, name):
    built = build(name, val_ratio=0.4)
    built.setup()
    assert (counts(built.support_data), counts(built.val_data)) == ([3, 3], [2, 3])
    assert counts(built.test_data) == [3, 4]
    normal = built.support_data.samples.query("label_index == 0")
    assert all("train" in Path(path).parts for path in normal["image_path"])
    assert lesions(built.support_data) == {(0, 0), (1, 30)}
    assert lesions(built.test_data) == {(0, 0), (1, 30)}


def test_prompts_say_what_the_papers_say(build):
    words = {name: build(name).object_name for name in WRITERS}
    assert words == {
        "brainmri": "Brain",
        "busi": "breast ultrasound",
        "chexpert": "Chest X-ray film",
        "nihchest": "Chest X-ray film",
        "adni": "Brain",
        "octdl": "retinal OCT",
        "mvtecad": "bottle",
        "visa": "pcb",
    }


def test_an_industrial_category_is_named_with_those_there_are(build):
    with pytest.raises(DataRootError, match="MVTecAD has no category 'pcb1'; it has bottle, cable"):
        build("mvtecad", category="pcb1")


def test_all_categories_of_an_industrial_set_are_one_set(build):
    def change(root):
        for category in INDUSTRIAL_SETS["MVTecAD"].categories[1:]:
            shutil.copytree(root / "bottle", root / category)

    built = build("mvtecad", change, category="all")
    built.setup()
    support = [Path(path).parts[2] for path in built.support_data.samples["image_path"]]
    assert len({*support}) > 1
    assert built.object_name == "object"
    assert len(built.list_images()) == 15 * (8 + 5 + 10)


def test_all_categories_need_each_to_be_there(build):
    with pytest.raises(DataRootError, match="MVTecAD/cable does not hold"):
        build("mvtecad", category="all").setup()


def test_a_missing_industrial_set_says_how_to_get_it(build):
    with pytest.raises(DataRootError, match=r"MVTecAD/screw does not hold .*--data\.download true"):
        build("mvtecad", category="screw").setup()


def test_a_defect_without_a_mask_is_an_error(build):
    def change(root):
        (root / "bottle" / "ground_truth" / "contamination" / "002_mask.png").unlink()

    with pytest.raises(DataRootError, match=r"MVTecAD/bottle does not hold .* a mask in ground_tr"):
        build("mvtecad", change).setup()


@pytest.mark.parametrize(("name", "asked"), [("mvtecad", 8), ("visa", 16)])
def test_more_support_than_there_is_is_an_error(build, name, asked):
    with pytest.raises(SupportError, match=f"{asked + 1} (ab)?normal support images are asked for"):
        build(name, k_shot=asked + 1).setup()


def test_a_mask_that_a_line_does_not_name_is_missing(build):
    def change(root):
        file = root / "samples" / "test.json"
        file.write_text(file.read_text().replace('"mask"', '"no_mask"', 1))

    with pytest.raises(MissingMaskError, match=r"test/abnormal/0\.png .* no mask file is named"):
        build("busi", change).setup()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"filename"', '"file"', r"test\.json, line 2, has no column 'filename' but file, clsname"),
        ('"label"', '"lable"', r"test\.json, line 2, has no column 'label' .*--data\.label_column"),
        ('"label": 0', '"label": 2', r"test\.json, line 2, has label '2'"),
        ('"clsname"', "clsname", r"test\.json, line 2, is not JSON: .*one object a line"),
        ("{", "[{", r"test\.json, line 2, is not JSON"),
        ("test/normal/1.png", "", r"test\.json, line 2, names no image"),
    ],
)
def test_a_wrong_line_is_named(build, old, new, words):
    def change(root):
        file = root / "samples" / "test.json"
        lines = file.read_text().splitlines()
        lines[1] = lines[1].replace(old, new)
        file.write_text("\n".join(lines))

    with pytest.raises(DataRootError, match=words):
        build("brainmri", change).setup()


def test_a_list_is_no_object(build):
    def change(root):
        (root / "samples" / "test.json").write_text('["test/normal/0.png"]')

    with pytest.raises(DataRootError, match=r"object 1, is .* and not an object; write one object"):
        build("brainmri", change).setup()


def test_training_images_without_label_are_normal_only_if_that_is_said(build):
    with pytest.raises(DataRootError, match=r"train\.json, line 1, has no column 'label' but"):
        build("brainmri", train_label=None).setup()


def test_a_label_that_stands_in_a_training_table_counts(build):
    def change(root):
        file = root / "samples" / "train.json"
        file.write_text(file.read_text().replace("}", ', "label": 1}', 4))

    built = build("brainmri", change, k_shot=2)
    built.setup()
    assert counts(built.support_data) == [2, 2]


def test_options_of_one_table_and_of_several_are_not_mixed(build):
    with pytest.raises(DataRootError, match="split_column 'part' is for one table"):
        build("brainmri", split_column="part")
    with pytest.raises(DataRootError, match=r"train_label 'normal' needs .*--data\.table\.train"):
        build("busi", table="all.json")
    with pytest.raises(DataRootError, match=r"--data\.table has split 'tst', which is none of"):
        build("chexpert", table={"tst": "test.json"})


def test_two_tables_of_one_split_are_refused(build):
    with pytest.raises(DataRootError, match="names a split twice among val, valid"):
        build("chexpert", table={"val": "a.json", "valid": "b.json"}, train_label=None)


def test_a_pattern_of_columns_that_are_not_there_is_named(build):
    with pytest.raises(DataRootError, match=r"no column '\{ill\}/\{file_name\}\.jpg' but file"):
        build("octdl", image_column="{ill}/{file_name}.jpg").setup()
