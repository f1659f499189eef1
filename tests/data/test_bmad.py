import logging
from inspect import unwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
from anomalib.engine import Engine

from anomalib_medclip.data import bmad, named
from anomalib_medclip.data.bmad import BMAD, BMAD_SETS, BMADLeaveOneOut
from anomalib_medclip.errors import DataRootError, EmptySplitError, MissingMaskError, SupportError

LAYOUTS = {
    "as the authors of MVFA": {},
    "without _AD": {"after": ""},
    "without img": {"image_dir": "", "mask_dir": "label"},
    "in lower case": {"after": "_ad", "ungood": "ungood", "image_dir": "IMG", "valid": "val"},
    "as JPEG": {"ending": ".jpeg"},
    "as JPG in capitals": {"ending": ".JPG", "mask_dir": "Label"},
}


def labels(dataset):
    return dataset.samples["label_index"].value_counts().to_dict()


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("category", ["Brain", "Chest"])
def test_every_published_layout_reads_alike(write_bmad, category, layout):
    data = BMAD(write_bmad(category, **layout), category, k_shot=2, normals="train")
    data.setup()
    assert labels(data.train_data) == {0: 8}
    assert labels(data.support_data) == {0: 2, 1: 2}
    assert labels(data.test_data) == {0: 8, 1: 8}
    lesions = [item.gt_mask for item in data.test_data if item.gt_label]
    if category == "Brain":
        assert all(mask.sum() > 0 for mask in lesions)
    else:
        assert lesions == [None] * 8


@pytest.mark.parametrize(
    ("category", "masks", "words", "patient"),
    [
        ("Brain", True, "Brain", "3"),
        ("Liver", True, "Liver", "3"),
        ("Retina_RESC", True, "retinal OCT", "3"),
        ("Retina_OCT2017", False, "retinal OCT", "3"),
        ("Chest", False, "Chest X-ray film", ""),
        ("Histopathology", False, "histopathological image", ""),
    ],
)
def test_each_set_knows_its_words_masks_and_patients(write_bmad, category, masks, words, patient):
    data = BMAD(write_bmad(category), category, k_shot=2)
    data.setup()
    assert (data.has_masks, data.object_name, data.object_names) == (masks, words, [words])
    table = data.load_table()
    assert table[table["split"] == "valid"]["group"].max() == patient
    assert (data.task == "segmentation") == masks


@pytest.mark.parametrize(
    ("category", "file_name", "patient"),
    [
        ("Liver", "4_487.png", "4"),
        ("Brain", "00003_68.png", "00003"),
        ("Retina_OCT2017", "DME-9721607-2.jpeg", "9721607"),
        ("Chest", "Normal-ff8d7572-1183-45e4.png", ""),
        ("Histopathology", "1015.png", ""),
    ],
)
def test_the_patient_is_read_from_the_file_name(category, file_name, patient):
    assert bmad._patient(file_name, category) == patient


def test_results_are_filed_under_bmad_or_the_folder_that_keeps_pictures_apart(write_bmad, tmp_path):
    assert BMAD(write_bmad(), "Brain").where == "BMAD Brain"
    other = BMAD(write_bmad(root=tmp_path / "scans"), "Brain", k_shot=2)
    other.setup()
    assert other.where == "scans Brain"


def test_oct2017_with_all_of_valid_as_support_validates_on_it(write_bmad, caplog):
    data = BMAD(write_bmad("Retina_OCT2017"), "Retina_OCT2017", k_shot=8)
    with caplog.at_level(logging.WARNING):
        data.setup()
    assert data.validates_on_support
    assert "BMAD Retina_OCT2017" in caplog.text
    assert "come from 16 images, of the support" in caplog.text


def test_the_published_test_split_is_kept_with_a_warning(write_bmad, caplog):
    data = BMAD(write_bmad(first_test_patient=0), "Brain", k_shot=4)
    with caplog.at_level(logging.WARNING):
        data.setup()
    assert labels(data.test_data) == {0: 8, 1: 8}
    assert "16 of 16 test images" in caplog.text


def test_the_support_is_drawn_from_patients_outside_the_test_split(write_bmad, caplog):
    data = BMAD(write_bmad(first_test_patient=2), "Brain", k_shot=4)
    with caplog.at_level(logging.WARNING):
        data.setup()
    assert set(data.support_data.samples["group"]) == {"0", "1"}
    assert caplog.text == ""


def test_test_patients_join_the_support_where_the_others_are_too_few(write_bmad, caplog):
    data = BMAD(write_bmad(first_test_patient=2), "Brain", k_shot=5)
    with caplog.at_level(logging.WARNING):
        data.setup()
    from_test = data.support_data.samples["group"].isin({"2", "3"})
    assert (len(data.support_data), from_test.sum()) == (10, 2)
    assert "of 16 test images of BMAD Brain" in caplog.text


def test_a_list_may_name_test_patients_and_a_warning_says_so(write_bmad, tmp_path, caplog):
    (tmp_path / "list.txt").write_text("a-0: 3_1.png\nn-0: 0_0.png\n")
    root = write_bmad(first_test_patient=2)
    with caplog.at_level(logging.WARNING):
        BMAD(root, "Brain", support_list=tmp_path / "list.txt").setup()
    assert "4 of 16 test images of BMAD Brain are of 1 patients" in caplog.text


def test_the_authors_list_names_the_support(write_bmad, tmp_path):
    (tmp_path / "2-shot.txt").write_text("a-0: 0_1.png 3_0.png\nn-0: 1_1.png 2_0.png\n")
    data = BMAD(write_bmad(), "Brain", support_list=tmp_path / "2-shot.txt")
    data.setup()
    found = sorted(path.split("valid/")[1] for path in data.support_data.samples["image_path"])
    assert found == [
        "Ungood/img/0_1.png",
        "Ungood/img/3_0.png",
        "good/img/1_1.png",
        "good/img/2_0.png",
    ]


def test_a_missing_root_names_the_folder_and_two_remedies(tmp_path):
    with pytest.raises(DataRootError, match=r"none does not exist .*--data\.root .*--data\.down"):
        BMAD(tmp_path / "none").setup()


def test_a_missing_set_names_the_folders_looked_for(write_bmad):
    with pytest.raises(DataRootError, match="holds no folder Liver or Liver_AD"):
        BMAD(write_bmad("Brain"), "Liver").setup()


def test_an_unknown_set_is_refused():
    with pytest.raises(DataRootError, match="BMAD has no set 'Knee'; it has Brain, Liver"):
        BMAD(category="Knee")


def test_what_is_not_taken_is_counted(write_bmad, picture, caplog):
    root = write_bmad("Brain")
    home = root / "Brain_AD"
    picture(home / "train" / "Ungood" / "img" / "9_9.png")
    (home / "test" / "good" / "img" / "about.svg").touch()
    (home / "valid" / "Ungood" / "anomaly_mask" / "0_0.png").rename(
        home / "valid" / "Ungood" / "anomaly_mask" / "0_0_mask.png"
    )
    picture(home / "valid" / "Ungood" / "anomaly_mask" / "7_7.png")
    data = BMAD(root, "Brain", k_shot=2)
    data.setup()
    assert sorted(str(one.path).removeprefix(f"{home}/") for one in data.left_out) == [
        "test/good/img/about.svg",
        "train/Ungood/img/9_9.png",
        "valid/Ungood/anomaly_mask/7_7.png",
    ]
    assert "9_9.png is abnormal and in the training split, which is of normal" in caplog.text
    for category in set(BMAD_SETS) - {"Brain"}:
        write_bmad(category)
    zero_shot = BMADLeaveOneOut(root, "Brain")
    zero_shot.setup()
    assert {one.path for one in zero_shot.left_out} == {one.path for one in data.left_out}


def test_a_missing_split_is_named(write_bmad):
    root = write_bmad(splits=("train", "valid"))
    with pytest.raises(EmptySplitError, match="the test split of BMAD Brain holds no normal image"):
        BMAD(root, "Brain", k_shot=2).setup()


def test_too_large_a_support_is_an_error(write_bmad):
    with pytest.raises(
        SupportError, match=r"9 normal .* 8 exist in .*valid/good/img; lower k_shot"
    ):
        BMAD(write_bmad(), "Brain", k_shot=9).setup()


def test_a_missing_mask_is_never_a_healthy_patient(write_bmad):
    root = write_bmad()
    missing = root / "Brain_AD/test/Ungood/anomaly_mask/51_0.png"
    missing.unlink()
    with pytest.raises(
        MissingMaskError, match=r"51_0\.png is abnormal and has no mask: looked for"
    ) as error:
        BMAD(root, "Brain", k_shot=2).setup()
    assert str(missing) in str(error.value)


@pytest.mark.parametrize(
    ("there", "download", "calls"), [(0, True, 1), (1, True, 0), (0, False, 0)]
)
def test_download_is_anomalibs_and_only_when_asked_and_needed(
    write_bmad, tmp_path, monkeypatch, there, download, calls
):
    root = write_bmad("Liver" if there else "Brain")
    asked = []
    monkeypatch.setattr(bmad, "download_and_extract", lambda *args: asked.append(args))
    BMAD(root, "Liver", download=download).prepare_data()
    assert asked == [(root, bmad.DOWNLOAD_INFO)] * calls


def test_bmad_may_lie_one_folder_deeper_as_an_archive_unpacks(write_bmad, tmp_path):
    write_bmad(root=tmp_path / "datasets" / "BMAD")
    data = BMAD(tmp_path / "datasets", "Brain", k_shot=2)
    data.setup()
    assert len(data.test_data) == 16


@pytest.fixture
def all_sets(write_bmad):
    for category in BMAD_SETS:
        root = write_bmad(category, count=2)
    return root


def of_set(dataset):
    return set(dataset.samples["set_name"])


def test_leave_one_out_never_shows_the_target_before_the_test(all_sets):
    data = BMADLeaveOneOut(all_sets, "Liver", num_workers=0)
    data.setup()
    assert data.zero_shot
    assert data.support_data is None
    assert of_set(data.train_data) == of_set(data.val_data) == set(BMAD_SETS) - {"Liver"}
    assert of_set(data.test_data) == {"Liver"}


def test_leave_one_out_trains_on_test_splits_and_validates_on_valid_splits(all_sets):
    data = BMADLeaveOneOut(all_sets, "Liver", num_workers=0)
    data.setup()
    assert data.train_data.samples["image_path"].str.contains("/test/").all()
    assert data.val_data.samples["image_path"].str.contains("/valid/").all()
    assert labels(data.val_data) == {0: 10, 1: 10}


@pytest.mark.parametrize("target", ["Retina_RESC", "Retina_OCT2017"])
def test_strict_leaves_out_the_same_anatomy(all_sets, target):
    loose = BMADLeaveOneOut(all_sets, target)
    strict = BMADLeaveOneOut(all_sets, target, strict=True)
    assert len(loose.sources) == 5
    assert set(strict.sources) == {"Brain", "Liver", "Chest", "Histopathology"}
    assert strict.object_names[0] == "retinal OCT"
    assert len(strict.object_names) == len(loose.object_names) == 5


@pytest.mark.parametrize("size", [1, 3])
def test_batches_of_leave_one_out_have_one_set_and_its_masks(all_sets, size):
    data = BMADLeaveOneOut(
        all_sets, "Brain", train_batch_size=size, eval_batch_size=size, num_workers=0
    )
    data.setup()
    for loader in (data.train_dataloader(), data.val_dataloader()):
        seen = 0
        for batch in loader:
            (category,) = {c for c in BMAD_SETS for p in batch.image_path if f"/{c}_AD/" in p}
            assert batch.object_name == [BMAD_SETS[category].words] * len(batch.image)
            assert (batch.gt_mask is not None) == BMAD_SETS[category].has_masks
            seen += len(batch.image)
        assert seen == len(loader.dataset)


def test_leave_one_out_names_a_set_that_is_missing(write_bmad):
    with pytest.raises(DataRootError, match="holds no folder Liver or Liver_AD"):
        BMADLeaveOneOut(write_bmad("Brain"), "Brain").setup()


@pytest.fixture
def engines(monkeypatch):
    """anomalib's engine as it came, which the first zero-shot data change."""
    monkeypatch.setattr(Engine, "_setup_workspace", unwrap(Engine._setup_workspace))
    named._keep_apart.cache_clear()
    yield Engine
    named._keep_apart.cache_clear()


def test_engines_of_others_and_other_data_are_left_as_they_are(all_sets, engines, monkeypatch):
    asked = []

    def set_up(*args, **kwargs):
        asked.append((args, kwargs))
        return "as before"

    monkeypatch.setattr(engines, "_setup_workspace", set_up)
    data = BMADLeaveOneOut(all_sets, "Liver")
    few_shot, theirs, odd = BMAD(all_sets, "Liver"), SimpleNamespace(zero_shot=True), object()
    for own in (few_shot, theirs, odd, None):
        assert Engine._setup_workspace("engine", own, another_name=own) == "as before"
        (first, given), named_so = asked[-1]
        assert (first, list(named_so)) == ("engine", ["another_name"])
        assert given is own
        assert named_so["another_name"] is own
    Engine._setup_workspace("engine", another_name=data)
    shown = asked[-1][1]["another_name"]
    assert (shown.name, shown.category) == ("BMAD", "Liver/zero_shot")
    assert shown.root is data.root
    assert data.category == "Liver"


def test_an_engine_without_folders_of_its_own_is_said(all_sets, engines, monkeypatch, caplog):
    monkeypatch.delattr(engines, "_setup_workspace")
    BMADLeaveOneOut(all_sets, "Liver")
    assert "zero-shot and few-shot runs of one set share theirs" in caplog.text


def test_runs_of_zero_shot_data_have_a_folder_of_their_own(all_sets, tmp_path):
    """As anomalib's commands name it: in training, and in a test of what was trained last."""
    folders = []
    for data in (BMAD(all_sets, "Liver"), BMADLeaveOneOut(all_sets, "Liver")):
        for trains in (True, True, False):
            engine = Engine(default_root_dir=tmp_path)
            model = SimpleNamespace(name="Mine")
            # ``train`` gives data by place, ``test`` by name.
            given = {"versioned_dir": True} if trains else {"datamodule": data}
            places = [None, None, None, data] if trains else []
            engine._setup_workspace(model, *places, **given)
            folders.append(Path(engine._cache.args["default_root_dir"]).relative_to(tmp_path))
    assert [path.as_posix() for path in folders] == [
        "Mine/BMAD/Liver/v0", "Mine/BMAD/Liver/v1", "Mine/BMAD/Liver/v1",
        "Mine/BMAD/Liver/zero_shot/v0", "Mine/BMAD/Liver/zero_shot/v1",
        "Mine/BMAD/Liver/zero_shot/v1",
    ]  # fmt: skip
    assert (tmp_path / "Mine/BMAD/Liver/latest").resolve().name == "v1"
