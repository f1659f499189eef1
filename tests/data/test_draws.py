"""A draw of the support leaves both classes for the test, wherever any draw can."""

from itertools import combinations, combinations_with_replacement, product

import numpy as np
import pandas as pd
import pytest
from pandas import DataFrame
from pictures import save
from rich.console import Console
from volumes import save_nifti, volume

from anomalib_medclip.commands.check import show
from anomalib_medclip.data import MedicalFolder, Volumes, VolumeSource
from anomalib_medclip.data.checks import check_data
from anomalib_medclip.data.draws import draw_beside_test
from anomalib_medclip.data.few_shot import UNUSED, patients, split_around, split_by_patient
from anomalib_medclip.errors import EmptySplitError, SupportError

SIZES = [one for one in product(range(3), range(3)) if any(one)]
"""Numbers of normal and abnormal images that a patient of a small table may have."""

COLUMNS = ["image_path", "label_index", "group"]


def images(*sizes, group="p{}"):
    """A table in which patients have so many normal and abnormal images."""
    rows = [
        (f"/data/{patient}/{label}{number}.png", label, group.format(patient))
        for patient, counts in enumerate(sizes)
        for label in (0, 1)
        for number in range(counts[label])
    ]
    return DataFrame(rows, columns=COLUMNS)


def rest_of(table, support):
    return table[~patients(table).isin(patients(support))]


def can_be_tested(table, k):
    """Whether any draw of k images of each class leaves both classes to other patients."""
    owner = dict(zip(table["image_path"], table["group"], strict=True))
    normal, abnormal = (table[table["label_index"] == label]["image_path"] for label in (0, 1))
    return any(
        all(any(owner[path] not in drawn for path in paths) for paths in (normal, abnormal))
        for one, other in product(combinations(normal, k), combinations(abnormal, k))
        if (drawn := {owner[path] for path in (*one, *other)})
    )


def paths(rows):
    return set(rows["image_path"])


def check_every_k(table, seed):
    """Draws of growing K: what brute force says can be, is; and each holds the last."""
    smaller = set()
    for k in (1, 2, 3):
        if not can_be_tested(table, k):
            with pytest.raises(
                (EmptySplitError, SupportError), match=rf"k_shot.*seed {seed}.*with"
            ):
                draw_beside_test(table, k, seed)
            continue
        support = draw_beside_test(table, k, seed)
        assert support["label_index"].value_counts().to_dict() == {0: k, 1: k}
        assert set(rest_of(table, support)["label_index"]) == {0, 1}
        assert smaller < paths(support)
        smaller = paths(support)


def test_whatever_any_draw_can_leave_for_the_test_is_left_by_that_of_every_seed():
    for number, sizes in enumerate(combinations_with_replacement(SIZES, 3)):
        check_every_k(images(*sizes), seed=number)


def test_the_patient_who_is_kept_is_one_without_whom_k_can_be_drawn():
    for seed in range(6):
        check_every_k(images((0, 2), (0, 1), (1, 0), (2, 0)), seed)


@pytest.mark.nightly(
    also="tests/data/test_draws.py::"
    "test_whatever_any_draw_can_leave_for_the_test_is_left_by_that_of_every_seed"
)
def test_and_with_more_patients():
    for number, sizes in enumerate(combinations_with_replacement(SIZES, 4)):
        for seed in range(3):
            check_every_k(images(*sizes), seed=3 * number + seed)


def test_of_normal_images_alone_one_patient_is_left():
    table = images((2, 0), (3, 0))
    for k in (1, 2, 3):
        support = draw_beside_test(table, k, 0, labels=(0,))
        assert len(support) == k
        assert len(rest_of(table, support))
    with pytest.raises(EmptySplitError, match=r"k_shot 4 leaves no normal image .* to 3, or add"):
        draw_beside_test(table, 4, 0, labels=(0,))


@pytest.mark.parametrize("seed", range(10))
def test_normal_images_are_of_patients_without_lesions_but_the_last_of_them(seed):
    table = images(*[(3, 2)] * 5, *[(3, 0)] * 4)
    for k in (1, 2, 3):
        normal = draw_beside_test(table, k, seed).query("label_index == 0")
        assert set(normal["group"]) <= {"p5", "p6", "p7", "p8"}
        assert normal["group"].nunique() == k
    support = draw_beside_test(table, 4, seed)
    rest = rest_of(table, support)
    assert rest["group"].nunique() == 2  # the fourth is of one whose abnormal image is drawn
    assert len({*rest["group"]} & {"p5", "p6", "p7", "p8"}) == 1


@pytest.mark.parametrize("seed", range(10))
def test_the_one_patient_without_lesions_is_tested_as_long_as_others_have_normal_images(seed):
    table = images((2, 4), (2, 4), (8, 0))
    for k, tested in ((1, True), (2, True), (3, False)):
        assert ("p2" in set(rest_of(table, draw_beside_test(table, k, seed))["group"])) is tested


def test_beyond_sixteen_another_patient_is_kept_where_he_must_be():
    table = images((40, 40), (40, 17), (40, 0))
    kept = {
        k: {*rest_of(table, draw_beside_test(table, k, seed))["group"]} & {"p0", "p1"}
        for k in (16, 17, 18, 40)
        for seed in [next(s for s in range(99) if first_kept(table, s) == {"p0"})]
    }
    assert kept == {16: {"p0"}, 17: {"p0"}, 18: {"p1"}, 40: {"p1"}}
    assert {tuple(first_kept(table, seed)) for seed in range(20)} == {("p0",), ("p1",)}


def first_kept(table, seed):
    return {*rest_of(table, draw_beside_test(table, 16, seed))["group"]} & {"p0", "p1"}


def test_seeds_draw_others_and_one_seed_the_same_from_shuffled_rows():
    table = images(*[(2, 2)] * 4, *[(3, 0)] * 4)
    draws = {frozenset(paths(draw_beside_test(table, 2, seed))) for seed in range(20)}
    assert len(draws) > 15
    mixed = table.sample(frac=1, random_state=0).reset_index(drop=True)
    assert paths(draw_beside_test(mixed, 2, 7)) == paths(draw_beside_test(table, 2, 7))


@pytest.mark.parametrize(
    ("sizes", "k", "error", "words"),
    [
        (
            [(3, 2), (3, 3), (5, 0)], 4, EmptySplitError,
            r"k_shot 4 leaves no abnormal image for the test in /data, with seed 5 as with any "
            r"other \(patients with lesions: 2, without: 1\), .*"
            r"lower k_shot \(--data.k_shot\) to 3, or add patients with lesions",
        ),
        ([(3, 9), (9, 0)], 1, EmptySplitError, r"lesions: 1, .*; add patients with l"),
        ([(0, 9), (0, 9), (9, 0)], 1, EmptySplitError, r"no normal image .*; add"),
        ([(1, 3), (3, 1)], 2, EmptySplitError, r"of one class only .* to 1, or add"),
        (
            [(3, 2), (9, 0)], 4, SupportError,
            r"4 abnormal support images are asked for but 2 exist in /data/0 \(k_shot 4, seed 5; "
            r"patients with lesions: 1, without: 1\); lower k_shot \(--data.k_shot\) or add",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_left_is_an_error_that_says_what_helps(sizes, k, error, words):
    with pytest.raises(error, match=words):
        draw_beside_test(images(*sizes), k, 5)


def test_an_image_of_an_unknown_patient_is_said_to_be_one():
    table = images((1, 0), (1, 0), (0, 1), group="")
    with pytest.raises(
        EmptySplitError, match=r"lesions: 1, .*, an image of an unknown patient being"
    ):
        draw_beside_test(table, 1, 0)


@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_validation_leaves_the_last_patient_of_each_class(ratio, seed):
    table = images((4, 2), (4, 2), (4, 2), (4, 0), (4, 0), (4, 0))
    valid, test = split_by_patient(table, ratio, seed)
    assert {"p0", "p1", "p2"} & {*test["group"]}
    assert {"p3", "p4", "p5"} & {*test["group"]}
    assert len(valid) > 0 or ratio < 0.3
    valid, test = split_by_patient(images((0, 2), (0, 2), (4, 0)), ratio, seed)
    assert valid.empty
    assert len(test) == 8


def test_with_nobody_left_there_is_no_validation():
    table = images((2, 0), (0, 2))
    assert set(split_around(table, table, 0.2, seed=0)["split"]) == {"support"}


# --- twelve volumes, six of them with lesions


@pytest.fixture(scope="module")
def twelve(tmp_path_factory):
    """As volumes, and as pictures in folders of patients."""
    root = tmp_path_factory.mktemp("twelve")
    for patient in range(12):
        lesions = (1, 3) if patient < 6 else ()
        voxels, mask = volume(patient, lesions)
        home = root / "volumes" / f"P{patient}"
        save_nifti(home / "flair.nii.gz", voxels)
        save_nifti(home / "seg.nii.gz", mask)
        for number in range(4):
            word = "abnormal" if number in lesions else "normal"
            path = root / "folders" / word / f"P{patient}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            save(path, np.full((4, 4), number, np.uint8))
    return root


def of_volumes(root, **options):
    source = VolumeSource("{patient}/flair.nii.gz", mask="{patient}/seg.nii.gz")
    return Volumes(root / "volumes", [source], intensity=(0.0, 1000.0), **options)


def of_folders(root, **options):
    return MedicalFolder(root / "folders", **options)


@pytest.mark.parametrize("make", [of_volumes, of_folders])
def test_twelve_volumes_of_which_six_have_lesions_can_be_tested_with_every_seed(
    twelve, make, monkeypatch
):
    data = make(twelve)
    listed = data.list_images()
    monkeypatch.setattr(data, "list_images", lambda: listed)
    for seed in range(100):
        data.k_shot, data.draw_seed = 1 + seed % 4, seed
        check_split(data.load_table(), data.k_shot)


@pytest.mark.nightly(
    also="tests/data/test_draws.py::"
    "test_twelve_volumes_of_which_six_have_lesions_can_be_tested_with_every_seed"
)
@pytest.mark.parametrize("make", [of_volumes, of_folders])
def test_and_with_every_k(twelve, make, monkeypatch):
    data = make(twelve)
    listed = data.list_images()
    monkeypatch.setattr(data, "list_images", lambda: listed)
    for seed, k in product(range(100), (1, 2, 3, 4)):
        data.k_shot, data.draw_seed = k, seed
        check_split(data.load_table(), k)


def check_split(table, k):
    """Nobody is lost who need not be, and no patient is in two splits."""
    support, test = (table[table["split"] == split] for split in ("support", "test"))
    normal, abnormal = ({*support[support["label_index"] == y]["group"]} for y in (0, 1))
    assert len(normal) == len(abnormal) == k
    ill = {f"P{patient}" for patient in range(6)}
    assert not normal & ill
    assert set(test["label_index"]) == {0, 1}
    assert {*test["group"]} & ill
    assert {*test["group"]} - ill
    table = table[table["split"] != UNUSED]  # other slices of the support's patients
    assert (table.groupby("group")["split"].nunique() == 1).all()


@pytest.mark.parametrize("make", [of_volumes, of_folders])
def test_what_nothing_can_be_tested_of_says_so_before_training(twelve, make):
    with pytest.raises(
        (SupportError, EmptySplitError), match="patients with lesions: 6, without: 6"
    ):
        make(twelve, k_shot=13).setup()


def test_a_list_that_leaves_no_patient_says_where_they_are(twelve, tmp_path):
    chosen = tmp_path / "list.txt"
    names = [f"abnormal/P{patient}/1.png" for patient in range(6)]
    chosen.write_text("\n".join([*names, "normal/P7/0.png"]))
    with pytest.raises(
        EmptySplitError,
        match=r"no abnormal image .*; leave a patient with abnormal images for it \(support",
    ):
        of_folders(twelve, support_list=chosen).setup()


def test_splits_without_a_class_say_where_its_patients_are(twelve):
    splits = {f"P{patient}": "train" if patient < 6 else "test" for patient in range(12)}
    with pytest.raises(EmptySplitError, match=r"no abnormal image .* \(train has 6\), or check"):
        of_volumes(twelve, splits=splits, k_shot=1).setup()


def test_slices_know_their_volume_and_pictures_have_none(twelve):
    data = of_volumes(twelve, k_shot=1)
    data.setup()
    assert set(data.support_data.samples["volume"]) <= {
        str(path) for path in (twelve / "volumes").glob("*/flair.nii.gz")
    }
    assert data.support_counts["abnormal"] == {
        "images": 1,
        "patients": 1,
        "unknown": 0,
        "volumes": 1,
    }
    data = of_folders(twelve, k_shot=1)
    data.setup()
    assert set(data.test_data.samples["volume"]) == {""}
    assert data.support_counts["abnormal"] == {"images": 1, "patients": 1, "unknown": 0}


def test_patients_and_volumes_are_counted_by_class_and_split(twelve, capsys):
    report = check_data(of_volumes(twelve, k_shot=2, val_ratio=0.0))
    tested = {"normal": 4, "abnormal": 4}
    assert report.patients["test"] == report.volumes["test"] == tested
    assert report.patients["support"] == {"normal": 2, "abnormal": 2}
    plain = report.as_plain("some.yaml")
    assert (plain["patients"], plain["volumes"]) == (report.patients, report.volumes)
    show(report, Console(width=200))
    said = capsys.readouterr().out
    assert "of 8 patients; patients: 4 normal, 4 abnormal; volumes: 4 normal, 4 abnormal\n" in said
    assert "K is 2 abnormal images of 2 patients in 2 volumes\n" in said
    report = check_data(of_folders(twelve, k_shot=2, val_ratio=0.0))
    assert report.patients["test"] == tested
    assert report.volumes == {}


def test_who_has_a_lesion_that_no_image_shows_is_drawn_as_normal_after_all_others():
    rows = [
        {"image_path": f"{patient}.{n}", "group": patient, "label_index": label, "of_ill": ill}
        for patient, label, ill in (
            *((f"well{n}", 0, False) for n in range(3)),
            *((f"hidden{n}", 0, True) for n in range(3)),
            *((f"sick{n}", 1, True) for n in range(4)),
        )
        for n in range(2)
    ]  # fmt: skip
    for seed in range(20):
        drawn = draw_beside_test(pd.DataFrame(rows), 2, seed)
        normal = drawn.loc[drawn["label_index"] == 0, "group"]
        assert sum(name.startswith("hidden") for name in normal) == 0
