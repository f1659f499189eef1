"""Folds of the support: who validates is learnt from nowhere, and nothing else is lost."""

import pandas as pd
import pytest

from anomalib_medclip.data.few_shot import UNUSED
from anomalib_medclip.data.folds import without_patients


def rows(split, patients, labels=(0, 1)):
    """An image of each class of every patient; of patients without a name, unknown ones."""
    made = [
        {"image_path": f"{split}{number}{label}", "label_index": label, "group": patient}
        for number, patient in enumerate(patients)
        for label in labels
    ]
    return pd.DataFrame(made, columns=["image_path", "label_index", "group"])


@pytest.fixture
def splits():
    return {
        "train": rows("train", ["a", "b", "z"], labels=(0,)),
        "valid": rows("valid", []),
        "test": rows("test", ["t"]),
        "support": rows("support", ["a", "b", "c", ""]),
        UNUSED: rows("more", ["a", "c"]),  # other images of the support's patients
    }


def everything(table):
    return set(table["image_path"])


def test_a_patient_who_validates_is_in_no_other_split(splits):
    folds = without_patients(splits, 3, seed=0)
    assert len(folds) == 3
    for fold in folds:
        left_out = set(fold["valid"]["group"]) - {""}
        assert not left_out & {*fold["support"]["group"], *fold["train"]["group"]}
        assert set(fold["support"]["label_index"]) == {0, 1}
        more = splits[UNUSED]
        theirs = everything(more[more["group"].isin(left_out)])
        known = everything(fold["valid"]) | everything(fold["support"])
        assert known == everything(splits["support"]) | theirs
        assert everything(fold["test"]) == everything(splits["test"])


def test_all_of_the_supports_patients_validate_once_and_splits_stay_as_they_are(splits):
    before = {name: table.copy() for name, table in splits.items()}
    folds = without_patients(splits, 3, seed=0)
    validated = pd.concat([fold["valid"] for fold in folds])["image_path"]
    of_them = pd.concat([splits["support"], splits[UNUSED]])["image_path"]
    assert sorted(validated) == sorted(of_them)
    for name, table in splits.items():
        pd.testing.assert_frame_equal(table, before[name])


def test_one_patient_cannot_be_left_out(splits):
    assert without_patients({**splits, "support": rows("support", ["a"])}, 3, seed=0) == []
