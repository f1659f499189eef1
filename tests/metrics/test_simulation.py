"""Intervals hold what they promise where the truth is known, through the functions of the report.

Bounds: coverage 90 % or more, an equal method falsely the best in 7 % or less. Of so many studies a
share is off by chance, so that the cells of the suite add two standard errors of the bound.
"""

import numpy as np
import pytest
from simulation import GRID, Setting, samples_of, simulate, study, truth_of

from anomalib_medclip.metrics.clustered import clear_best, enough
from anomalib_medclip.metrics.influence import of_auroc, of_average_precision

STUDIES = 400
SLACK = {"covered": 2 * np.sqrt(0.9 * 0.1 / STUDIES), "marked": 2 * np.sqrt(0.07 * 0.93 / STUDIES)}


@pytest.mark.parametrize(
    "setting",
    [
        Setting(30, 8, 0.3, 5),
        Setting(30, 8, 1.0, 5, anew=True),
        Setting(300, 1, 0.3, 2),
    ],
    ids=["same splits", "splits anew", "one image a patient"],
)
def test_intervals_cover_and_equal_methods_are_rarely_marked(setting):
    found = simulate(setting, [7, setting.draws], STUDIES)
    assert found.covered >= 0.9 - SLACK["covered"]
    assert found.marked <= 0.07 + SLACK["marked"]
    assert found.covered - found.t_covered > 0.1, "where Student's interval over draws does not"
    assert found.t_marked > 0.15
    if setting.draws < 4:
        assert found.ruled == 0


def test_a_method_that_is_better_is_marked():
    """The rule that is never wrong because it never marks would pass everything above."""
    random, marked = np.random.default_rng(3), 0
    better, worse = Setting(30, 8, 0.3, 5, auroc=0.85), Setting(30, 8, 0.3, 5, auroc=0.70)
    for _ in range(40):
        samples = [samples_of(study(one, random, methods=1))[0] for one in (worse, better)]
        marked += clear_best(samples) == 1 and enough(samples[0])
    assert marked > 34


def test_the_truth_is_the_mean_over_studies():
    setting = Setting(30, 8, 1.0, 1)
    random = np.random.default_rng(0)
    values = []
    for _ in range(300):
        one = study(setting, random, methods=4)
        values += [of_auroc(scores[0], one.labels, one.patients).value for scores in one.scores]
    error = np.std(values) / np.sqrt(len(values))
    assert np.mean(values) == pytest.approx(truth_of(setting, random), abs=4 * error)


@pytest.mark.nightly(
    also="tests/metrics/test_simulation.py::"
    "test_intervals_cover_and_equal_methods_are_rarely_marked"
)
@pytest.mark.parametrize("number", range(len(GRID)))
def test_the_whole_grid_holds(number):
    found = simulate(GRID[number], [20260, number], 2000)
    assert found.covered >= 0.9, found
    assert found.marked <= 0.07, found


@pytest.mark.nightly(
    also="tests/metrics/test_simulation.py::"
    "test_intervals_cover_and_equal_methods_are_rarely_marked"
)
@pytest.mark.parametrize("change", ["unequal", "ties", "skewed", "heavy", "average precision"])
@pytest.mark.parametrize("base", [Setting(30, 8, 0.3, 5), Setting(30, 8, 0.3, 5, mixed=False)])
def test_other_scores_and_figures_hold(base, change):
    of = of_auroc
    if change == "unequal":
        base = base._replace(unequal=True)
    elif change == "average precision":
        of = of_average_precision
    else:
        base = base._replace(shape=change)
    found = simulate(base, 11, 1000, of)
    assert found.covered >= 0.9, found
    assert found.marked <= 0.07, found
