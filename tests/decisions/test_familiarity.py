"""What is unlike the images that a model was made with."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomalib_medclip.decisions.decisions import Decisions
from anomalib_medclip.decisions.familiarity import FEWEST, Familiarity, Unlike
from anomalib_medclip.decisions.reference import Reference

WIDTH = 200


def alike(random, count, of=None):
    """Vectors of images of one kind: they differ along some directions, in the rest hardly."""
    axes = np.random.default_rng(99).normal(size=(12, WIDTH)) if of is None else of
    return random.normal(size=(count, 12)) @ axes + 0.3 * random.normal(size=(count, WIDTH))


def share(found, vectors):
    return np.mean([found.judge(one[None]).abstains for one in vectors])


@pytest.mark.parametrize("patients", [30, 120])
def test_new_images_of_the_kind_are_seldom_unlike_and_others_are(patients):
    random = np.random.default_rng(patients)
    known = Familiarity(alike(random, patients), range(patients))
    assert share(known, alike(random, 400)) < 0.1
    others = np.random.default_rng(7).normal(size=(12, WIDTH))
    assert share(known, alike(random, 100, others)) > 0.95
    assert share(known, -alike(random, 100) + 8) > 0.95


def test_the_bound_that_is_said_holds():
    random = np.random.default_rng(1)
    for _ in range(5):
        known = Familiarity(alike(random, 60), range(60))
        bound = float(known.words.split("at most ")[1].split(" %")[0]) / 100
        assert share(known, alike(random, 300)) <= bound


def test_images_of_a_patient_do_not_make_each_other_familiar():
    """Each patient has one image five times; but for the patients a distance would be nothing."""
    random = np.random.default_rng(2)
    once = alike(random, 24)
    known = Familiarity(np.repeat(once, 5, axis=0), np.repeat(np.arange(24), 5))
    assert share(known, alike(random, 200)) < 0.15


def test_a_few_odd_images_do_not_move_the_limit():
    random = np.random.default_rng(3)
    vectors = alike(random, 60)
    plain = Familiarity(vectors, range(60)).limit
    vectors[:3] *= 8
    assert Familiarity(vectors, range(60)).limit == pytest.approx(plain, rel=0.25)


def test_too_few_patients_cannot_say():
    random = np.random.default_rng(4)
    for patients in (0, 1, FEWEST - 1):
        known = Familiarity(alike(random, 5 * patients), np.repeat(np.arange(patients), 5))
        assert known.judge(100 * alike(random, 1)) is None
        assert f"unlike {patients} patients" in known.words
    enough = Familiarity(alike(random, FEWEST), range(FEWEST))
    assert enough.judge(100 * alike(random, 1)).abstains


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_images_and_the_numbers_of_patients_do_not_matter(seed):
    random = np.random.default_rng(seed)
    vectors, owners = alike(random, 30), np.repeat(np.arange(15), 2)
    order = random.permutation(30)
    known, again = Familiarity(vectors, owners), Familiarity(vectors[order], owners[order])
    assert again.limit == pytest.approx(known.limit, rel=1e-6)
    new = alike(random, 3)
    assert again.judge(new).distance == pytest.approx(known.judge(new).distance, rel=1e-6)


def test_a_volume_is_unlike_if_half_of_its_slices_are():
    random = np.random.default_rng(5)
    known = Familiarity(alike(random, 60), range(60))
    strange, usual = 50 + alike(random, 3), alike(random, 3)
    assert known.judge(np.concatenate([strange, usual[:2]])).abstains
    assert not known.judge(np.concatenate([strange[:2], usual])).abstains


def test_nothing_is_decided_about_what_is_unlike():
    reference = Reference(tuple(np.linspace(0, 0.5, 30)), tuple(np.linspace(0.5, 1, 30)))
    decisions = Decisions(references={"patient": reference}, image_threshold=0.5)
    usual = decisions.verdict("patient", [0.9], unlike=Unlike(1.0, 2.0, ""))
    assert usual.label is True
    assert usual.p is not None
    found = decisions.verdict("patient", [0.9], unlike=Unlike(3.0, 2.0, ""))
    assert (found.label, found.p, found.probability) == (None, None, None)
    assert found.no_label.startswith("abstained")
    assert found.as_plain()["unlike"]["abstains"] is True
