"""Of new patients as many are called abnormal by mistake as was asked, over trainings drawn anew.

Each training is a real one on patients of its own: it learns, validates, decides, and its file is
opened to decide about the others, as a user would.
"""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cohort import SIDE, cohort_data, fit, patients, write_cohort
from scipy import stats
from tiny import CASES
from torch import Tensor

from anomalib_medclip import Inferencer
from anomalib_medclip.data.phantom_drawing import Patient, draw_slice
from anomalib_medclip.decisions.decisions import Asked
from anomalib_medclip.decisions.thresholds import Rule
from anomalib_medclip.readers.picture import read_image

[CASE] = [case for case in CASES if case.name == "MVFA"]
SLICES = 3
RATES = (0.05, 0.2)


class Heads:
    """Slices of heads, each patient with an anatomy and a scanner of his own."""

    def __init__(self):
        self._known = {}

    def __call__(self, random, patient, label):
        who, heights = self._known.setdefault(
            patient, (Patient.draw(random), iter(np.linspace(-0.5, 0.5, SLICES)))
        )
        return draw_slice("head", who, next(heights), bool(label), SIDE, random)


def trained(home, seed, calibration, test):
    """Train on 4 normal and 4 abnormal patients, validate and test on so many of each."""
    rows = [
        row
        for split, counts in (("support", (4, 4)), ("valid", calibration), ("test", test))
        for row in patients(split, *counts, images=(SLICES,))
    ]
    data = cohort_data(write_cohort(home, rows, seed, Heads()), k_shot=4)
    run = fit(CASE.shallow(), data, home, epochs=1)
    return SimpleNamespace(model=Inferencer(run.file), test=data.test_data.samples)


def verdicts(run, *rules):
    """Of each rule, what is said of the normal patients of the test."""
    normal = run.test.groupby("group").filter(lambda rows: not rows["label_index"].any())
    found = [[] for _ in rules]
    for _, rows in normal.groupby("group"):
        images = torch.stack([read_image(path) for path in rows["image_path"]])
        answer = run.model.answer(run.model.resize(images).as_subclass(Tensor))
        decide = partial(run.model.decide, answer.scores, answer.areas, is_volume=True)
        for said, rule in zip(found, rules, strict=True):
            said.append(decide(asked=Asked(rule)))
    return found


def shares(home, seeds):
    """Of each rate, the share of 38 normal patients that is called abnormal after each training."""
    found = []
    for seed in seeds:
        run = trained(home / str(seed), seed, (38, 18), (38, 1))
        assert len(run.model.decisions.references["patient"].normal) == 38
        of_rules = verdicts(run, *(Rule("false_alarms", rate) for rate in RATES))
        for rate, said in zip(RATES, of_rules, strict=True):
            assert [one.label for one in said] == [one.p.value <= rate for one in said]
        found.append([np.mean([one.label for one in said]) for said in of_rules])
    return np.array(found).T


def counted(rate, calibration=38, test=38):
    """Beta(k, n + 1 - k), as the number of so many new patients that are called abnormal."""
    k = int(rate * (calibration + 1) + 1e-9)
    return stats.betabinom(test, k, calibration + 1 - k)


def assert_no_more_than_asked(found):
    for rate, of_rate in zip(RATES, found, strict=True):
        error = counted(rate).std() / 38 / np.sqrt(len(of_rate))
        assert of_rate.mean() <= rate + 2 * error, (rate, of_rate)


def test_a_training_calls_no_more_normal_patients_abnormal_than_asked(tmp_path):
    assert_no_more_than_asked(shares(tmp_path, [0]))


def test_eleven_patients_give_no_verdict_by_a_rule_of_five_percent(tmp_path):
    """Of forty: 8 to learn from, 11 normal and 8 abnormal ones to decide by, and 13 to test."""
    run = trained(tmp_path, 0, (11, 8), (12, 1))
    strict, loose = verdicts(run, *(Rule("false_alarms", rate) for rate in RATES))
    assert {one.label for one in strict} == {None}
    assert {one.label for one in loose} <= {False, True}
    assert all("which needs 19 normal ones" in one.no_label for one in strict)


@pytest.mark.nightly(
    also="tests/training/test_false_alarms.py::"
    "test_a_training_calls_no_more_normal_patients_abnormal_than_asked"
)
def test_twenty_trainings_call_as_many_normal_patients_abnormal_as_asked(tmp_path):
    found = shares(tmp_path, range(20))
    assert_no_more_than_asked(found)
    for rate, of_rate in zip(RATES, found, strict=True):
        expected, deviation = counted(rate).mean() / 38, counted(rate).std() / 38
        assert of_rate.mean() >= expected - 3 * deviation / np.sqrt(20)
        low, high = deviation * np.sqrt(stats.chi2(19).ppf([0.001, 0.999]) / 19)
        assert low <= of_rate.std(ddof=1) <= high, (rate, of_rate, deviation)
