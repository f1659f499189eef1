"""``anomalib-medclip check``: every planted fault is found, and one never hides another."""

import csv
import json
import logging
import shutil

import numpy as np
import pytest
import yaml
from pandas import DataFrame
from PIL import Image

from anomalib_medclip.cli import main
from anomalib_medclip.data import BMADLeaveOneOut, MedicalFolder
from anomalib_medclip.data.checks import check_data
from anomalib_medclip.data.duplicates import near_duplicates, small_picture
from anomalib_medclip.data.integrity import Problem
from anomalib_medclip.errors import MaskError, VolumeError
from anomalib_medclip.provenance import NOTICE

SIZE = (40, 48)
SPLITS = ("train", "train", "valid", "valid", "test", "test")
COUNT = 12


def pixels(seed, size=SIZE, mean=100.0):
    """A cloud of grey, as smooth as anatomy is, of its own shape and a mean near the one given."""
    random = np.random.default_rng(seed)
    coarse = random.normal(0, 1, (7, 7)).astype(np.float32)
    cloud = np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))
    return (
        np.clip(mean + random.normal(0, 5) + 25 * (cloud - cloud.mean()), 1, 254)
        .round()
        .astype(np.uint8)
    )


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def outline(value=255, size=SIZE):
    mask = np.zeros(size, dtype=np.uint8)
    mask[8:20, 10:24] = value
    return mask


class Clinic:
    """Images of two classes with masks, patients and splits, two images a patient; all is well."""

    def __init__(self, root):
        self.root = root
        self.options = {}
        self.rows = {}
        for number in range(2 * COUNT):
            ill = number % 2
            name = f"{'abnormal' if ill else 'normal'}/{number:02}.png"
            save(root / name, pixels(number))
            if ill:
                save(root / f"masks/{number:02}.png", outline())
            self.rows[number] = {
                "image": name,
                "label": str(ill),
                "mask": f"masks/{number:02}.png" if ill else "",
                "patient": f"p{number // 2}",
                "split": SPLITS[number // 4],
            }

    def path(self, number):
        return self.root / self.rows[number]["image"]

    def mask(self, number):
        return self.root / self.rows[number]["mask"]

    def write(self):
        with (self.root / "table.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, next(iter(self.rows.values())))
            writer.writeheader()
            writer.writerows(self.rows.values())
        return {
            "table": str(self.root / "table.csv"),
            "mask_column": "mask",
            "patient_column": "patient",
            "split_column": "split",
            "k_shot": 2,
            "num_workers": 0,
            **self.options,
        }

    def data(self):
        return MedicalFolder(**self.write())

    def check(self):
        return check_data(self.data())

    def command(self, *arguments):
        config = self.root / "data.yaml"
        text = {"class_path": "anomalib_medclip.data.MedicalFolder", "init_args": self.write()}
        config.write_text(yaml.safe_dump(text))
        return main(["check", str(config), *map(str, arguments)])


@pytest.fixture
def clinic(tmp_path):
    return Clinic(tmp_path / "clinic")


def kinds(report):
    """Severity, kind and file name of every problem."""
    return {(one.severity, one.kind, one.file.rsplit("/", 1)[-1]) for one in report.problems}


# --- all is well


def test_a_clean_set_has_no_problem(clinic):
    report = clinic.check()
    assert report.problems == []
    assert report.splits["test"] == {"normal": 4, "abnormal": 4, "patients": 4, "unknown": 0}
    assert report.support["abnormal"] == {"images": 2, "patients": 2, "unknown": 0}


def test_the_command_ends_well_and_says_what_k_means(clinic, capsys):
    assert clinic.command() == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "K is 2 normal images of 2 patients" in said
    assert "test: 4 normal and 4 abnormal images of 4 patients" in said
    assert f"errors: 0, warnings: 0; {NOTICE}" in said


# --- lesions


def test_lesions_that_the_resize_leaves_nothing_of_are_listed_and_counted(clinic, capsys):
    tiny = outline(0)
    tiny[30, 1] = 255
    save(clinic.mask(3), tiny)  # a pixel, in a corner of the 10 x 12 that become one
    save(clinic.mask(5), np.maximum(tiny, outline()))
    assert clinic.command("--json", clinic.root / "said.json", "--image-size", 4) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "2 of 13 lesions have no pixel left at 4 x 4 pixels, and 1 of 12 abnormal images have no "
        "lesion left"
    ) in said
    report = json.loads((clinic.root / "said.json").read_text())
    assert report["lesions"] == {
        "image_size": 4, "images": 12, "images_lost": 1, "lesions": 13, "lesions_lost": 2,
    }  # fmt: skip
    found = {(one["kind"], one["file"].rsplit("/")[-1]) for one in report["problems"]}
    assert found == {("no lesion left", "03.png"), ("lesions lost", "05.png")}
    assert clinic.check().problems == [], "240 x 240 pixels show them"


# --- files


def nothing(path):
    path.write_bytes(b"")


def cut_off(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def another_size_than_stated(path):
    raw = bytearray(path.read_bytes())
    raw[23] += 1  # the last byte of the height in a PNG's header
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (lambda path: path.unlink(), "missing file"),
        (nothing, "empty file"),
        (cut_off, "unreadable image"),
        (another_size_than_stated, "unreadable image"),
    ],
)
def test_a_spoilt_file_is_an_error(clinic, spoil, kind):
    spoil(clinic.path(9))
    assert kinds(clinic.check()) == {("error", kind, "09.png")}


@pytest.mark.parametrize("spoil", [nothing, cut_off])
def test_a_spoilt_mask_is_an_error(clinic, spoil):
    spoil(clinic.mask(9))
    (problem,) = clinic.check().problems
    assert problem.severity == "error"
    assert problem.file == str(clinic.mask(9))


def float_image(clinic, number, spot):
    array = pixels(number).astype(np.float32) / 255
    array[3, 4] = spot
    save(clinic.root / f"{number}.tif", array)
    clinic.path(number).unlink()
    clinic.rows[number]["image"] = f"{number}.tif"


@pytest.mark.parametrize("spot", [np.nan, np.inf])
def test_numbers_that_are_none_are_an_error(clinic, spot):
    clinic.options["intensity"] = "unit"
    float_image(clinic, 4, spot)
    (problem,) = clinic.check().problems
    assert (problem.severity, problem.kind) == ("error", "intensity")
    assert "1 numbers that are not finite" in problem.problem


def test_without_a_policy_both_the_policy_and_the_numbers_are_missed(clinic):
    float_image(clinic, 4, np.nan)
    words = [one.problem + one.remedy for one in clinic.check().problems]
    assert len(words) == 2
    assert any("set 'intensity'" in one for one in words)
    assert any("not finite" in one for one in words)


def test_one_bad_file_never_hides_the_others(clinic):
    clinic.path(0).unlink()
    nothing(clinic.path(3))
    cut_off(clinic.path(10))
    save(clinic.mask(5), outline(0))
    clinic.mask(7).unlink()
    clinic.rows[21]["patient"] = clinic.rows[1]["patient"]
    clinic.options["k_shot"] = 50
    assert {kind for _, kind, _ in kinds(clinic.check())} == {
        "missing file",
        "empty file",
        "unreadable image",
        "empty mask of an abnormal image",
        "missing mask",
        "patient on both sides",
        "support cannot be drawn",
    }


def test_a_support_that_cannot_be_drawn_hides_nothing_where_it_makes_the_splits(clinic):
    clinic.options = {"split_column": None, "k_shot": 50}
    nothing(clinic.path(3))
    report = clinic.check()
    found = {kind for _, kind, _ in kinds(report)}
    assert found == {"data cannot be listed", "empty file"}
    assert report.splits["unsplit"]["normal"] == COUNT


def test_images_that_are_set_aside_are_read_and_leak_nothing(clinic):
    clinic.options = {"split_column": None}
    for row in clinic.rows.values():
        row["patient"] = f"p{int(row['patient'][1:]) // 3}"  # the support's have other images
    report = clinic.check()
    assert report.problems == []
    assert report.splits["unused"]["normal"] > 0
    for number in range(2 * COUNT):
        nothing(clinic.path(number))
    assert sum(one.kind == "empty file" for one in clinic.check().problems) == 2 * COUNT


def test_a_folder_that_is_not_there_is_a_problem_and_no_crash(clinic):
    shutil.rmtree(clinic.root)
    data = MedicalFolder(clinic.root, k_shot=2)
    (problem,) = check_data(data).problems
    assert problem.kind == "data cannot be listed"
    assert "no images in" in problem.problem


# --- masks


def test_a_mask_of_another_size_is_an_error(clinic):
    save(clinic.mask(9), outline(size=(48, 40)))
    assert kinds(clinic.check()) == {("error", "mask of another size", "09.png")}


def test_a_mask_without_lesion_is_an_error(clinic):
    save(clinic.mask(9), outline(0))
    assert kinds(clinic.check()) == {("error", "empty mask of an abnormal image", "09.png")}


def test_a_missing_mask_is_an_error(clinic):
    clinic.mask(9).unlink()
    clinic.rows[9]["mask"] = ""
    assert kinds(clinic.check()) == {("error", "missing mask", "09.png")}


def test_a_lesion_in_a_normal_image_is_an_error(clinic):
    clinic.rows[8]["mask"] = clinic.rows[9]["mask"]
    assert kinds(clinic.check()) == {("error", "lesion in a normal image", "08.png")}


@pytest.mark.parametrize("labels", [(1, 4), (1, 255), (85, 170, 255)])
def test_labels_of_which_nobody_says_what_they_mean_are_an_error(clinic, labels):
    mask = outline(labels[0])
    for row, label in enumerate(labels):
        mask[10 + row, 10:24] = label
    save(clinic.mask(9), mask)
    assert kinds(clinic.check()) == {("error", "mask values", "09.png")}


def test_training_asks_what_labels_mean_in_the_words_of_check(clinic):
    mask = outline(1)
    mask[0] = 255
    save(clinic.mask(9), mask)
    (problem,) = clinic.check().problems
    data = clinic.data()
    data.setup()
    (row,) = (r for r in data.list_images().to_dict("records") if r["mask_path"] == problem.file)
    items = data._dataset(data.complete(DataFrame([row])))
    for read in (lambda: data.read_lesion(row), lambda: items[0]):
        with pytest.raises(MaskError) as told:
            read()
        assert str(told.value) == f"{problem.problem}; {problem.remedy}"
    assert problem.problem.startswith(f"mask {problem.file} holds 1 and 255 beside 0")


@pytest.mark.parametrize("value", [1, 2, 255])
def test_usual_values_of_masks_are_none(clinic, value):
    for number in range(1, 2 * COUNT, 2):
        save(clinic.mask(number), outline(value))
    assert clinic.check().problems == []


def test_labels_are_welcome_where_the_data_say_which_are_lesions(clinic):
    for number in range(1, 2 * COUNT, 2):
        labels = outline(4)
        labels[0] = 255
        save(clinic.mask(number), labels)
    clinic.options["lesion_labels"] = [4]
    assert clinic.check().problems == []
    data = clinic.data()
    data.setup()
    (mask,) = {tuple(map(tuple, lesion)) for lesion in data.test_data.lesions()}
    assert (np.array(mask) == (outline(4) == 4)).all()
    item = next(item for item in data.test_data if item.gt_label)
    assert (item.gt_mask.numpy() == (outline(4) == 4)).all()


@pytest.mark.parametrize("labels", [[4], [1, 4], "all"])
def test_labels_of_lesions_may_be_named_in_a_config(clinic, labels):
    clinic.options["lesion_labels"] = labels
    for number in range(1, 2 * COUNT, 2):
        save(clinic.mask(number), outline(4))
    assert clinic.command() == 0


def test_labels_of_a_normal_image_are_lesions_only_if_named(clinic):
    clinic.rows[8]["mask"] = "masks/normal.png"
    save(clinic.mask(8), outline(255))
    assert kinds(clinic.check()) == {("error", "lesion in a normal image", "08.png")}
    clinic.options["lesion_labels"] = [255]
    assert ("error", "lesion in a normal image", "08.png") in kinds(clinic.check())
    clinic.options["lesion_labels"] = "all"
    save(clinic.mask(8), outline(0))
    assert clinic.check().problems == []


def test_a_mask_that_marks_most_of_its_image_is_a_warning(clinic):
    save(clinic.mask(9), 255 - outline())
    assert kinds(clinic.check()) == {("warning", "lesion of most of an image", "09.png")}


def test_a_mask_is_turned_as_its_image_is_before_sizes_are_compared(clinic):
    turned = Image.Exif()
    turned[274] = 6
    for folder, array in (("abnormal", pixels(9)), ("masks", outline())):
        upright = np.rot90(array, 1)
        Image.fromarray(np.ascontiguousarray(upright)).save(
            clinic.root / folder / "09.png", exif=turned
        )
    assert clinic.check().problems == []
    Image.fromarray(np.ascontiguousarray(np.rot90(outline(), 1))).save(clinic.mask(9))
    assert kinds(clinic.check()) == {("error", "mask of another size", "09.png")}


def test_a_soft_mask_is_a_warning(clinic):
    clinic.mask(9).unlink()
    clinic.rows[9]["mask"] = "masks/soft.jpg"
    save(clinic.mask(9), outline())
    assert kinds(clinic.check()) == {("warning", "soft mask", "soft.jpg")}


# --- copies


def test_a_file_listed_twice_is_an_error(clinic):
    clinic.rows[99] = clinic.rows[8]
    assert kinds(clinic.check()) == {("error", "file listed twice", "08.png")}


@pytest.mark.parametrize(
    ("copy", "expected"),
    [(22, ("error", "duplicate across splits")), (2, ("warning", "duplicate within splits"))],
)
def test_the_same_bytes_under_another_name_are_found(clinic, copy, expected):
    shutil.copy(clinic.path(0), clinic.path(copy))
    assert kinds(clinic.check()) == {(*expected, clinic.path(copy).name)}


def test_one_image_under_two_labels_is_an_error(clinic):
    shutil.copy(clinic.path(0), clinic.path(1))
    found = kinds(clinic.check())
    assert ("error", "one image under two labels", "01.png") in found


def resized(array):
    return np.asarray(Image.fromarray(array).resize((96, 80), Image.Resampling.BICUBIC))


def brightened(array):
    return (array * 0.8 + 50).astype(np.uint8)


@pytest.mark.parametrize("change", [resized, brightened, lambda array: resized(brightened(array))])
def test_a_changed_copy_is_found_across_splits(clinic, change):
    save(clinic.path(22), change(pixels(0)))
    (problem,) = clinic.check().problems
    assert (problem.severity, problem.kind) == ("warning", "near-duplicate across splits")
    assert problem.file == str(clinic.path(22))
    assert "normal/00.png (train)" in problem.problem


def test_a_copy_stored_anew_is_found(clinic):
    clinic.path(22).unlink()
    clinic.rows[22]["image"] = "normal/22.jpg"
    Image.fromarray(pixels(0)).save(clinic.path(22), quality=40)
    assert kinds(clinic.check()) == {("warning", "near-duplicate across splits", "22.jpg")}


def test_slices_of_one_patient_may_look_alike_in_one_split(clinic):
    save(clinic.path(1), brightened(pixels(0)))
    assert clinic.check().problems == []
    clinic.rows[1]["patient"] = "another"
    assert kinds(clinic.check()) == {("warning", "near-duplicate within splits", "01.png")}


def test_pairs_are_found_beyond_a_block_of_the_search():
    pictures = [small_picture(pixels(seed).astype(np.float32)) for seed in range(1100)]
    pictures.append(small_picture(brightened(pixels(3)).astype(np.float32)))
    assert [(one.first, one.second) for one in near_duplicates(pictures)] == [(3, 1100)]


# --- patients


def test_a_patient_on_both_sides_is_an_error_whoever_holds_the_other_image(clinic):
    clinic.rows[20]["patient"] = clinic.rows[8]["patient"]  # validation's
    (problem,) = clinic.check().problems
    assert (problem.severity, problem.kind) == ("error", "patient on both sides")
    assert problem.file == str(clinic.path(20))
    assert clinic.rows[8]["patient"] + " " not in problem.problem


def test_in_a_published_test_split_it_is_a_warning(clinic):
    clinic.rows[20]["patient"] = clinic.rows[8]["patient"]
    data = clinic.data()
    data.published_test = True
    assert kinds(check_data(data)) == {("warning", "patient on both sides", "20.png")}


def test_in_a_zero_shot_setting_numbers_of_patients_mean_nothing_across_sets(write_bmad):
    for name in ("Brain", "Liver", "Retina_RESC", "Retina_OCT2017", "Chest", "Histopathology"):
        root = write_bmad(name, count=2)
    report = check_data(BMADLeaveOneOut(root, "Liver"))
    found = {one.kind for one in report.problems}
    assert "patient on both sides" not in found
    assert "duplicate across splits" in found  # every set is of the same noise
    assert report.support == {}
    assert set(report.splits) == {"train", "valid", "test"}


def test_training_records_how_many_patients_k_means(clinic, caplog):
    for number in range(8):  # those of the training split, from which the support is drawn
        clinic.rows[number]["patient"] = "" if number % 2 else "the only one"
    data = clinic.data()
    with caplog.at_level(logging.INFO):
        data.setup()
    assert data.support_counts == {
        "normal": {"images": 2, "patients": 1, "unknown": 0},
        "abnormal": {"images": 2, "patients": 2, "unknown": 2},
    }
    words = (
        "2 normal images of 1 patient, 2 abnormal images of 2 patients (2 images of unknown ones)"
    )
    assert f"the support of clinic: {words}" in caplog.text
    assert clinic.check().support == data.support_counts


# --- shortcuts and shapes


def test_brightness_that_tells_the_classes_apart_is_a_warning(clinic):
    for number in range(1, 2 * COUNT, 2):
        save(clinic.path(number), pixels(number, mean=160))
    (problem,) = clinic.check().problems
    assert (problem.severity, problem.kind) == ("warning", "class shortcut")
    assert "mean intensity alone tells apart, AUROC 1.00" in problem.problem


def test_size_that_tells_the_classes_apart_is_a_warning(clinic):
    for number in range(0, 2 * COUNT, 2):
        save(clinic.path(number), pixels(number, size=(40, 60)))
    (problem,) = clinic.check().problems
    assert "size alone tells apart, AUROC 1.00" in problem.problem


def test_an_image_of_one_value_and_a_narrow_one_are_warnings(clinic):
    save(clinic.path(8), np.full(SIZE, 100, dtype=np.uint8))
    save(clinic.path(20), pixels(20, size=(20, 48)))
    assert kinds(clinic.check()) == {
        ("warning", "constant image", "08.png"),
        ("warning", "far from square", "20.png"),
    }


# --- the command


def test_problems_of_a_kind_of_data_are_listed_too(clinic, monkeypatch):
    found = Problem("orientation", "scan.nii.gz", "lies twice", "repair it", "warning")
    monkeypatch.setattr(MedicalFolder, "find_problems", lambda self: iter([found]))
    assert clinic.check().problems == [found]


def test_a_check_of_their_own_that_fails_is_a_problem_too(clinic, monkeypatch):
    def fails(self):
        msg = "scan.nii.gz is no volume; replace it"
        raise VolumeError(msg)

    monkeypatch.setattr(MedicalFolder, "find_problems", fails)
    (problem,) = clinic.check().problems
    assert (problem.problem, problem.remedy) == ("scan.nii.gz is no volume", "replace it")


def test_an_error_ends_with_one_and_all_are_in_the_file(clinic, capsys):
    for number in (1, 3, 5, 7, 9):
        nothing(clinic.path(number))
    assert clinic.command("--json", clinic.root / "report.json") == 1
    said = capsys.readouterr().out
    assert "error: empty file" in " ".join(said.split())
    assert "and 2 more" in said
    report = json.loads((clinic.root / "report.json").read_text())
    assert report["notice"] == NOTICE
    assert (report["errors"], report["warnings"]) == (5, 0)
    assert report["problems"][0] == {
        "severity": "error",
        "kind": "empty file",
        "file": str(clinic.path(1)),
        "problem": "holds no byte",
        "remedy": "restore it or take it out of the data",
    }
    assert report["splits"]["test"]["patients"] == 4
    assert report["support"]["normal"]["images"] == 2
    assert set(report["shortcuts"]["clinic"]) == {"mean intensity", "size"}


def test_warnings_alone_end_with_zero(clinic):
    shutil.copy(clinic.path(0), clinic.path(2))
    assert clinic.command() == 0


@pytest.mark.parametrize(
    "text", ["class_path: nowhere.Nothing", "- a list", ":\n:", "Müller", "[" * 500]
)
def test_a_config_that_cannot_be_read_ends_with_two(tmp_path, text, capsys):
    (tmp_path / "data.yaml").write_text(text, encoding="latin-1")
    assert main(["check", str(tmp_path / "data.yaml")]) == 2
    assert "data.yaml describes no data" in capsys.readouterr().err
    assert main(["check", str(tmp_path / "gone.yaml")]) == 2
