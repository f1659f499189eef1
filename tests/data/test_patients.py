"""One patient is one, however tables and folders spell it."""

import unicodedata

import numpy as np
import pytest
from scans import write_volume

from anomalib_medclip.data.cases import VolumeSource, find_cases, with_splits
from anomalib_medclip.data.checks import check_data
from anomalib_medclip.data.folder import MedicalFolder
from anomalib_medclip.errors import DataRootError, SupportError

KINDS = ("number", "zeros", "name", "umlaut", "words", "dotted")
DRAWS = 60


def identity(kind, number):
    return {
        "number": str(number),
        "zeros": f"{number:03}",
        "name": f"P{number:02}",
        "umlaut": f"Müller{number}",
        "words": f"ward 3 no {number}",
        "dotted": f"1.2.{number}",
    }[kind]


def spelt(patient, draw):
    """As another program or keyboard spells it."""
    if patient.isdecimal() and patient == str(int(patient)):
        patient += draw.choice(["", ".0", ",0", ".00"])
    patient = unicodedata.normalize(draw.choice(["NFC", "NFD"]), patient)
    patient = draw.choice([patient, patient.upper(), patient.lower()])
    return f"{draw.choice(['', ' '])}{patient}".replace(" ", draw.choice([" ", "  ", "\xa0"]))


def table_of(rows, path):
    lines = [f'{number}.png,{number % 2},"{who}",{split}' for number, (who, split) in rows]
    path.write_text("\n".join(["image,label,patient,split", *lines]), encoding="utf-8")
    return path


def test_patients_of_a_table_are_told_apart_as_they_are_meant(tmp_path):
    for seed in range(DRAWS):
        draw = np.random.default_rng(seed)
        people = [identity(draw.choice(KINDS), number) for number in draw.integers(1, 12, 6)]
        owners = [*map(str, draw.choice([*people, ""], 20))]
        unknown = ["", "nan", "NaN", "NA", "None", "null", "NULL", " ", "<NA>"]
        written = [spelt(one, draw) if one else str(draw.choice(unknown)) for one in owners]
        rows = enumerate((one, "test") for one in written)
        data = MedicalFolder(table=table_of(rows, tmp_path / "t.csv"), patient_column="patient")
        found = data.list_images()["group"].tolist()
        pairs = {*zip(owners, found, strict=True)}
        assert len(pairs) == len({*owners}) == len({*found}), (seed, written, found)
        assert [one == "" for one in found] == [one == "" for one in owners]


@pytest.mark.parametrize("other", ["{}.0", "p{:02}", "P {:02}"])
def test_a_patient_on_both_sides_is_found_in_another_spelling(tmp_path, picture, other):
    first = {"{}.0": "{}", "p{:02}": "P{:02}", "P {:02}": "P\xa0{:02}"}[other]
    for number in range(24):
        picture(tmp_path / f"{number}.png", seed=number)
    rows = [
        (n, (first.format(n // 2), "train" if n < 12 else "valid")) if n < 16
        else (n, (other.format((n - 16) // 2), "test"))
        for n in range(24)
    ]  # fmt: skip
    options = {"patient_column": "patient", "split_column": "split", "k_shot": 1, "num_workers": 0}
    table = table_of(rows, tmp_path / "t.csv")
    with pytest.raises(SupportError, match=r"is in the test split.* of the same patient is learnt"):
        MedicalFolder(table=table, **options).setup()
    found = check_data(MedicalFolder(table=table, **options)).problems
    assert [one.severity for one in found if one.kind == "patient on both sides"] == ["error"] * 4


def test_a_folder_may_be_called_as_nobody_is(tmp_path, picture):
    for number in range(6):
        picture(tmp_path / "normal" / "NA" / f"{number}.png", seed=number)
        picture(tmp_path / "abnormal" / "na" / f"{number}.png", seed=100 + number)
    assert set(MedicalFolder(tmp_path).list_images()["group"]) == {"NA"}


def test_volumes_of_one_patient_may_be_of_one_split_only(tmp_path):
    for name in ("train/P1.nii", "test/p1.nii", "valid/P2.nii"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_volume(tmp_path / name)
    cases = find_cases(tmp_path, [VolumeSource("{split}/{patient}.nii", healthy=True)], None)
    assert len({case.patient for case in cases}) == 2
    with pytest.raises(DataRootError, match=r"is of the splits .*; move all volumes of a patient"):
        with_splits(cases, (1, 0, 0), 0)
