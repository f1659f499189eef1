import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomalib_medclip.data.few_shot import (
    draw_support,
    is_enough,
    left_for_validation,
    patients,
    read_support,
    split_by_patient,
)
from anomalib_medclip.errors import DataRootError, SupportError


def table(*rows):
    """Rows of (name, label, patient) in one folder."""
    return pd.DataFrame(
        [{"image_path": f"/data/{n}", "label_index": y, "group": p} for n, y, p in rows]
    )


@st.composite
def pools(draw):
    """Between 4 and 20 images of each class, patients known or not."""
    rows = []
    for label in (0, 1):
        groups = draw(st.lists(st.sampled_from(["", "a", "b", "c", "d"]), min_size=4, max_size=20))
        rows += [(f"{label}/{i:02}.png", label, group) for i, group in enumerate(groups)]
    return table(*rows)


def names(rows):
    return list(rows["image_path"].str.removeprefix("/data/"))


@given(pool=pools(), k=st.integers(1, 4), seed=st.integers(0, 99))
def test_the_support_has_k_images_of_each_class(pool, k, seed):
    support = draw_support(pool, k, seed)
    assert support["image_path"].is_unique
    assert support["label_index"].value_counts().to_dict() == {0: k, 1: k}


@given(pool=pools(), k=st.integers(1, 4), seed=st.integers(0, 99))
def test_the_support_has_as_many_patients_as_there_are(pool, k, seed):
    support = draw_support(pool, k, seed)
    for label in (0, 1):
        there = patients(pool[pool["label_index"] == label]).nunique()
        drawn = patients(support[support["label_index"] == label]).nunique()
        assert drawn == min(k, there)


some_patients = st.sets(st.sampled_from("abcd"))


@given(pool=pools(), k=st.integers(1, 4), seed=st.integers(0, 99), avoid=some_patients)
def test_patients_to_avoid_are_drawn_only_where_the_others_have_too_few(pool, k, seed, avoid):
    support = draw_support(pool, k, seed, avoid)
    for label in (0, 1):
        there = ~pool[pool["label_index"] == label]["group"].isin(avoid)
        drawn = ~support[support["label_index"] == label]["group"].isin(avoid)
        assert drawn.sum() == min(k, there.sum())


@given(pool=pools(), seed=st.integers(0, 99), avoid=some_patients, shuffle=st.randoms())
def test_the_draw_does_not_depend_on_the_order_of_the_files(pool, seed, avoid, shuffle):
    order = list(range(len(pool)))
    shuffle.shuffle(order)
    mixed = pool.iloc[order].reset_index(drop=True)
    one, other = (set(names(draw_support(rows, 3, seed, avoid))) for rows in (pool, mixed))
    assert one == other


@given(pool=pools(), seed=st.integers(0, 99), avoid=some_patients)
def test_a_smaller_support_is_part_of_a_larger_one(pool, seed, avoid):
    small, large = (set(names(draw_support(pool, k, seed, avoid))) for k in (2, 4))
    assert small < large


def test_another_seed_draws_other_images():
    pool = table(*[(f"{y}/{i:02}.png", y, "") for y in (0, 1) for i in range(20)])
    assert set(names(draw_support(pool, 4, 0))) != set(names(draw_support(pool, 4, 1)))


def test_a_patient_gives_a_second_image_only_after_every_patient_gave_one():
    one_class = [("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b"), ("c1", "c")]
    pool = table(*[(f"{n}.png", y, p) for y in (0, 1) for n, p in one_class])
    pool["image_path"] += pool["label_index"].astype(str)
    normal = draw_support(pool, 4, seed=3).query("label_index == 0")
    assert sorted(normal["group"]) == ["a", "a", "b", "c"]


def test_more_images_than_there_are_is_an_error_with_class_number_and_folder():
    pool = table(("good/1.png", 0, ""), ("good/2.png", 0, ""), ("Ungood/1.png", 1, ""))
    with pytest.raises(SupportError, match=r"2 abnormal .* but 1 exist in /data/Ungood; .*k_shot"):
        draw_support(pool, 2, 0)
    with pytest.raises(SupportError, match=r"3 normal .* but 2 exist in /data/good"):
        draw_support(pool, 3, 0)


def test_no_shots_is_an_error_that_names_the_zero_shot_way():
    with pytest.raises(SupportError, match=r"k_shot is 0; .*BMADLeaveOneOut"):
        draw_support(table(("1.png", 0, ""), ("2.png", 1, "")), 0, 0)


@pytest.fixture
def pool():
    good = [(f"good/img/{i}.png", 0, "") for i in range(4)]
    bad = [(f"Ungood/img/{i}.png", 1, "") for i in range(4)]
    return table(*good, *bad)


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "2-shot.txt"
        path.write_text(text)
        return path

    return write


def test_the_authors_lists_are_read_line_by_line_in_either_order(pool, write):
    path = write("a-0: 3.png 1.png \n\nn-0: 0.png 3.png\na-1: 2.png\nn-1: 1.png\n\n")
    assert names(read_support(pool, path)) == [
        "Ungood/img/3.png",
        "Ungood/img/1.png",
        "good/img/0.png",
        "good/img/3.png",
    ]
    assert names(read_support(pool, path, line=1)) == ["Ungood/img/2.png", "good/img/1.png"]


def test_a_plain_list_takes_the_class_from_the_data(pool, write):
    path = write("good/img/2.png\nUngood/img/2.png\n")
    support = read_support(pool, path)
    assert list(support["label_index"]) == [0, 1]
    assert names(support) == ["good/img/2.png", "Ungood/img/2.png"]


def test_the_ending_of_a_name_does_not_matter_but_other_dots_do(write):
    pool = table(("good/CNV-1.2.png", 0, ""), ("good/CNV-1.3.png", 0, ""), ("bad/x.png", 1, ""))
    support = read_support(pool, write("n-0: cnv-1.2.JPEG\na-0: x\n"))
    assert names(support) == ["good/CNV-1.2.png", "bad/x.png"]


@pytest.mark.parametrize(
    "written",
    ["Good\\img\\größe.PNG", "./good/img/gro\N{COMBINING DIAERESIS}ße.jpg", "img\\GRÖSSE"],
)
def test_a_name_may_be_spelt_as_another_system_does(write, written):
    pool = table(("good/img/größe.png", 0, ""), ("bad/img/1.png", 1, ""))
    assert len(read_support(pool, write(f"{written}\n1\n"))) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("n-0: 9.png\na-0: 1.png\n", r"0 times normal image '9.png' in /data/good/img, wanted"),
        ("x/img/2.png\n", r"0 times image 'x/img/2.png' .*write fewer of its folders"),
        ("2.png\n", r"2 times image '2.png' in /data, wanted once; .*write more of its folders"),
        ("n-0: 1.png 1.png\na-0: 1.png\n", "names /data/good/img/1.png twice"),
        ("n-0: 1.png\n", r"names no abnormal image \(alternative 0\)"),
        ("n-0: 1.png\na-0: 1.png\nstray.png\n", "'stray.png' lacks 'n-0:' or 'a-0:'"),
        ("n-1: 1.png\na-1: 1.png\n", r"names no normal image \(alternative 0\)"),
        ("", "names no normal image"),
    ],
)
def test_a_list_that_does_not_fit_the_data_is_an_error(pool, write, text, words):
    path = write(text)
    with pytest.raises(SupportError, match=words) as error:
        read_support(pool, path)
    assert str(path) in str(error.value)


def test_a_list_in_another_encoding_is_an_error(pool, write):
    path = write("")
    path.write_bytes("good/img/Мюллер.png\n".encode("cp1251"))
    with pytest.raises(DataRootError, match=r"2-shot\.txt is not UTF-8 .*; save it as UTF-8"):
        read_support(pool, path)


def test_a_list_that_is_not_there_is_an_error(pool, tmp_path):
    with pytest.raises(DataRootError, match=r"no support list .*none.txt; correct support_list"):
        read_support(pool, tmp_path / "none.txt")


@given(pool=pools(), seed=st.integers(0, 99))
def test_no_support_image_is_left_for_validation(pool, seed):
    support = draw_support(pool, 3, seed)
    rest = left_for_validation(pool, support)
    assert not set(names(rest)) & set(names(support))
    assert rest.empty or is_enough(rest)


def test_validation_prefers_patients_outside_the_support():
    rows = [(f"{p}{i}{y}.png", y, p) for p in "abc" for y in (0, 1) for i in (0, 1)]
    pool = table(*rows)
    support = pool[pool["image_path"].isin(["/data/a00.png", "/data/a01.png"])]
    assert set(left_for_validation(pool, support)["group"]) == {"b", "c"}


def test_validation_takes_support_patients_where_no_others_are_enough():
    rows = [(f"{p}{i}{y}.png", y, p) for p in "ab" for y in (0, 1) for i in (0, 1, 2)]
    pool = table(*rows)
    support = pool[pool["image_path"].str.contains("a0|b0")]
    assert set(left_for_validation(pool, support)["image_path"]) == set(pool["image_path"]) - set(
        support["image_path"]
    )


def test_one_abnormal_image_is_too_few_to_validate_on():
    pool = table(*[(f"{i}.png", int(i > 4), "") for i in range(8)])
    support = pool.iloc[[0, 6, 7]]
    assert left_for_validation(pool, support).empty


@given(pool=pools(), ratio=st.floats(0.1, 0.5), seed=st.integers(0, 99))
def test_no_patient_is_split_and_no_image_lost(pool, ratio, seed):
    valid, test = split_by_patient(pool, ratio, seed)
    assert not set(patients(valid)) & set(patients(test))
    assert sorted(names(valid) + names(test)) == sorted(names(pool))
    for label in (0, 1):
        share = (valid["label_index"] == label).sum() / (pool["label_index"] == label).sum()
        assert share <= ratio + 0.5 / 4
    assert valid.empty or is_enough(valid)


def test_single_images_are_split_in_the_asked_ratio_in_each_class():
    pool = table(*[(f"{i:03}.png", int(i < 30), "") for i in range(130)])
    valid, _ = split_by_patient(pool, 0.2, seed=0)
    assert np.bincount(valid["label_index"]).tolist() == [20, 6]
