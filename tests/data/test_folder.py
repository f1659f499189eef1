import csv
import logging

import numpy as np
import pytest
from PIL import Image

from anomalib_medclip.data.folder import MedicalFolder
from anomalib_medclip.errors import (
    DataRootError,
    EmptySplitError,
    ImageReadError,
    IntensityError,
    MaskError,
    MissingMaskError,
    SupportError,
)


@pytest.fixture
def root(tmp_path, picture, mask):
    """Folders normal and abnormal of 20 images each, and masks; as JPEG, masks as PNG."""
    home = tmp_path / "ultrasound"
    for i in range(20):
        picture(home / "normal" / f"{i:02}.jpg", seed=i)
        picture(home / "abnormal" / f"{i:02}.jpg", seed=100 + i)
        mask(home / "masks" / f"{i:02}.png")
    return home


@pytest.fixture
def write_table(root):
    """Writes labels.csv; ``change`` edits a row, a dictionary of cells."""

    def write(change=lambda row: None, header=None):
        rows = []
        for label, word in enumerate(("normal", "abnormal")):
            for i in range(20):
                row = {
                    "file": f"{word}/{i:02}.jpg",
                    "finding": str(label),
                    "outline": f"masks/{i:02}.png" if label else "",
                    "patient": str(i // 2) if i < 16 else "-1",
                    "part": ("train", "val", "test")[min(i // 6, 2)],
                }
                change(row)
                rows.append(row)
        path = root / "labels.csv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, header or rows[0])
            writer.writeheader()
            writer.writerows(rows)
        return path

    return write


COLUMNS = {"image_column": "file", "label_column": "finding"}


def setup(*args, **options):
    data = MedicalFolder(*args, num_workers=0, **options)
    data.setup()
    return data


def counts(dataset):
    return np.bincount(dataset.samples["label_index"], minlength=2).tolist()


def groups(dataset):
    return set(dataset.samples["group"]) - {""}


def test_folders_are_split_into_support_validation_and_test(root):
    data = setup(root, k_shot=4)
    assert [counts(d) for d in (data.support_data, data.val_data, data.test_data)] == [
        [4, 4],
        [3, 3],
        [13, 13],
    ]


def test_without_masks_the_images_have_none(root):
    data = setup(root)
    assert not data.has_masks
    assert data.task == "classification"
    assert data.support_data[7].gt_mask is None


def test_masks_are_found_by_stem_whatever_their_ending(root):
    data = setup(root, mask_dir="masks")
    assert data.has_masks
    assert [int(item.gt_mask.sum()) for item in data.support_data] == [30] * 4 + [0] * 4


def test_a_table_gives_labels_masks_and_patients(write_table):
    data = setup(
        table=write_table(),
        mask_column="outline",
        patient_column="patient",
        unknown_patient="-1",
        **COLUMNS,
    )
    assert counts(data.support_data) == [4, 4]
    assert [int(item.gt_mask.sum()) for item in data.test_data] == [
        30 * int(item.gt_label) for item in data.test_data
    ]


def test_images_of_unknown_patients_are_not_of_one_patient(write_table):
    options = {"patient_column": "patient", **COLUMNS}
    one = MedicalFolder(table=write_table(), **options).load_table()
    apart = MedicalFolder(table=write_table(), unknown_patient="-1", **options).load_table()
    assert "-1" in set(one["group"]) - set(apart["group"])
    assert "" in set(apart["group"]) - set(one["group"])


def test_no_patient_is_in_two_splits(write_table, caplog):
    with caplog.at_level(logging.INFO):
        data = setup(
            table=write_table(), patient_column="patient", unknown_patient="-1", k_shot=2, **COLUMNS
        )
    support, valid, test = map(groups, (data.support_data, data.val_data, data.test_data))
    assert support
    assert support.isdisjoint(valid | test)
    assert valid.isdisjoint(test)
    used = sum(map(len, (data.support_data, data.val_data, data.test_data)))
    assert f"{40 - used} of 40 images are set aside" in caplog.text


def test_the_seed_decides_the_split(root):
    first, again, other = (setup(root, seed=seed).test_data.samples for seed in (1, 1, 2))
    assert list(first["image_path"]) == list(again["image_path"])
    assert list(first["image_path"]) != list(other["image_path"])


def test_a_split_column_is_kept(write_table):
    data = setup(table=write_table(), split_column="part", **COLUMNS)
    assert counts(data.support_data) == [4, 4]
    assert set(data.support_data.samples["split"]) == {"train"}
    assert (counts(data.val_data), counts(data.test_data)) == ([6, 6], [8, 8])


def test_the_support_is_drawn_from_validation_where_training_is_all_normal(write_table):
    def change(row):
        if row["part"] == "train" and row["finding"] == "1":
            row["part"] = "val"

    data = setup(table=write_table(change), split_column="part", normals="train", **COLUMNS)
    assert set(data.support_data.samples["split"]) == {"valid"}
    assert counts(data.train_data) == [6, 0]


def test_a_split_column_may_name_the_support(write_table):
    def change(row):
        if row["file"].endswith(("00.jpg", "01.jpg")):
            row["part"] = "support"

    data = setup(table=write_table(change), split_column="part", **COLUMNS)
    assert counts(data.support_data) == [2, 2]


def test_a_patient_of_the_support_in_the_test_split_is_an_error(write_table):
    def change(row):
        row["patient"] = "7" if row["file"].endswith(("02.jpg", "19.jpg")) else ""

    with pytest.raises(SupportError, match="of the same patient is learnt from"):
        setup(table=write_table(change), patient_column="patient", split_column="part", **COLUMNS)


def test_labels_may_be_words(write_table):
    def change(row):
        row["finding"] = "Normal" if row["finding"] == "0" else "ABNORMAL"

    assert counts(setup(table=write_table(change), **COLUMNS).support_data) == [4, 4]


def test_other_labels_are_named(write_table):
    def change(row):
        row["finding"] = "no tumour" if row["finding"] == "0" else "glioma"

    path = write_table(change)
    with pytest.raises(DataRootError, match=r"line 2, has label 'no tumour'.*normal_labels"):
        setup(table=path, **COLUMNS)
    data = setup(table=path, normal_labels=["no tumour"], **COLUMNS)
    assert counts(data.support_data) == [4, 4]


def test_an_empty_label_is_no_label(write_table):
    def change(row):
        row["finding"] = row["finding"].replace("1", "")

    with pytest.raises(DataRootError, match="line 22, has label ''"):
        setup(table=write_table(change), normal_labels=["0"], **COLUMNS)


def test_paths_start_from_the_root_or_are_absolute(write_table, root, tmp_path):
    def change(row):
        row["file"] = str(root / row["file"])

    moved = tmp_path / "elsewhere.csv"
    write_table().rename(moved)
    assert counts(setup(root, moved, **COLUMNS).support_data) == [4, 4]
    assert counts(setup(tmp_path, write_table(change), **COLUMNS).support_data) == [4, 4]


def test_a_missing_column_is_named_with_those_there_are(write_table):
    with pytest.raises(
        DataRootError, match=r"no column 'image' but file, finding, .*--data\.image_column"
    ):
        setup(table=write_table())


def test_a_table_without_rows_or_without_an_image_in_one_is_refused(write_table, tmp_path):
    path = write_table(lambda row: row.update(file="") if row["outline"] else None)
    with pytest.raises(DataRootError, match=r"labels\.csv, line 22, names no image; complete it"):
        setup(table=path, **COLUMNS)
    path.write_text("file,finding\n")
    with pytest.raises(DataRootError, match=r"labels\.csv has no rows; complete it"):
        setup(table=path, **COLUMNS)


def test_a_missing_folder_or_table_is_named(root, tmp_path):
    with pytest.raises(
        DataRootError, match=r"no images in .*none/normal; .*--data\.normal_dir: .*none is missing"
    ):
        setup(tmp_path / "none")
    with pytest.raises(DataRootError, match=r"no images in .*/ill; .*--data\.abnormal_dir"):
        setup(root, abnormal_dir="ill")
    with pytest.raises(DataRootError, match=r"no table .*none\.csv; correct --data\.table"):
        setup(table=tmp_path / "none.csv")
    with pytest.raises(DataRootError, match=r"give --data\.root, or --data\.table"):
        MedicalFolder()


def test_options_of_tables_and_of_folders_are_not_mixed(root, write_table):
    with pytest.raises(DataRootError, match="mask_dir 'masks' is for folders"):
        MedicalFolder(table=write_table(), mask_dir="masks")
    with pytest.raises(DataRootError, match=r"patient_column 'patient' needs a table"):
        MedicalFolder(root, patient_column="patient")


def test_a_missing_mask_names_image_and_place(root, write_table):
    (root / "masks" / "03.png").unlink()
    with pytest.raises(
        MissingMaskError, match=r"abnormal/03\.jpg is .* no mask: looked for .*masks/03"
    ):
        setup(root, mask_dir="masks")

    def change(row):
        row["outline"] = ""

    with pytest.raises(MissingMaskError, match=r"no mask file is named for it \(1 of 20 such\)"):
        setup(table=write_table(change), mask_column="outline", **COLUMNS)


def test_an_ill_patient_labelled_normal_is_never_learnt_as_healthy(write_table):
    def change(row):
        if row["file"] == "abnormal/03.jpg":
            row["finding"] = "0"

    with pytest.raises(MaskError, match=r"abnormal/03\.jpg .* mask .*masks/03\.png .*correct the"):
        setup(table=write_table(change), mask_column="outline", **COLUMNS)


def test_a_missing_image_of_a_table_is_named(root, write_table):
    (root / "normal" / "05.jpg").unlink()
    with pytest.raises(ImageReadError, match=r"normal/05\.jpg is missing"):
        setup(table=write_table(), **COLUMNS)


def test_a_table_in_another_encoding_is_refused(write_table):
    path = write_table()
    path.write_bytes(path.read_bytes().replace(b"-1", "Мюллер".encode("cp1251")))
    with pytest.raises(DataRootError, match=r"labels\.csv is not UTF-8 text: .*; save it as UTF-8"):
        setup(table=path, **COLUMNS)


def test_a_cell_that_never_ends_is_refused(write_table):
    path = write_table()
    path.write_text(path.read_text() + 'image,"' + "n" * 200_000)
    with pytest.raises(DataRootError, match=r"labels\.csv cannot be read behind line \d+: field"):
        setup(table=path, **COLUMNS)


def test_a_split_of_another_name_is_refused(write_table):
    def change(row):
        row["part"] = row["part"].replace("val", "fold 3")

    with pytest.raises(DataRootError, match=r"split 'fold 3', which is none of train, valid, test"):
        setup(table=write_table(change), split_column="part", **COLUMNS)


def test_a_table_without_test_images_is_refused(write_table):
    def change(row):
        row["part"] = row["part"].replace("test", "train")

    with pytest.raises(EmptySplitError, match="the test split of ultrasound holds no normal image"):
        setup(table=write_table(change), split_column="part", **COLUMNS)


def test_pictures_of_the_same_name_need_a_name_that_keeps_them_apart(tmp_path, picture):
    for patient in range(8):
        for word in ("normal", "abnormal"):
            picture(tmp_path / "clinic" / word / f"{patient}.png", seed=patient)
    assert setup(tmp_path / "clinic", k_shot=1, name="study").name == "study"
    with (tmp_path / "clinic" / "labels.csv").open("w") as file:
        file.write("image,label\n")
        for patient in range(8):
            for label in (0, 1):
                path = tmp_path / "clinic" / f"p{patient}{label}" / "img" / "scan.png"
                file.write(f"{picture(path, seed=patient)},{label}\n")
    table = tmp_path / "clinic" / "labels.csv"
    assert setup(table=table, k_shot=1).name == "clinic"
    with pytest.raises(DataRootError, match=r"scan\.png shares a heat-map file"):
        setup(table=table, k_shot=1, name="study")


def test_sixteen_bits_need_an_intensity_policy(root):
    deep = np.full((20, 24), 1000, dtype=np.uint16)
    for file in (root / "normal").iterdir():
        file.unlink()
    for i in range(8):
        Image.fromarray(deep).save(root / "normal" / f"{i}.png")
    with pytest.raises(IntensityError, match=r"\.png holds uint16 numbers.*'intensity'"):
        setup(root).train_data[0]
    image = setup(root, intensity=(0.0, 4000.0)).train_data[0].image
    assert image.unique().tolist() == [0.25]


def test_a_nul_byte_in_a_table_is_named_with_its_line(tmp_path):
    (tmp_path / "table.csv").write_bytes(b"image,label\na.png,0\nb\0.png,1\n")
    with pytest.raises(DataRootError, match=r"table\.csv, line 3, holds a NUL byte"):
        MedicalFolder(table=tmp_path / "table.csv").setup()
