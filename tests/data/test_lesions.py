"""Lesions that a resize leaves nothing of: counted, and none of them where masks go by area."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2 import CenterCrop, Compose, Resize
from torchvision.tv_tensors import Mask

from anomalib_medclip.components.processors import MedicalPreProcessor
from anomalib_medclip.data.lesions import LesionCount, count_lesions, lesion_problems, total
from anomalib_medclip.readers.picture import lesion_parts
from anomalib_medclip.readers.resize import MethodResize

SIDE, SMALLER = 128, 30
"""As much smaller as 240 pixels are than 1024, which repeats after 64."""


def squares(*places, size=3, side=SIDE):
    lesion = np.zeros((side, side), dtype=bool)
    for top, left in places:
        lesion[top : top + size, left : left + size] = True
    return lesion


def test_half_of_all_small_lesions_are_lost_to_the_nearest_neighbour():
    resize = MethodResize(SMALLER)
    lost = [count_lesions(squares(place), resize).lost for place in product(range(64), repeat=2)]
    assert np.mean(lost) == pytest.approx(1 - (3 / (SIDE / SMALLER)) ** 2, abs=0.01)


def test_each_lesion_is_counted_by_itself():
    resize = MethodResize(SMALLER)
    one_by_one = [(place, place) for place in range(0, 64, 8)]
    expected = sum(count_lesions(squares(place), resize).lost for place in one_by_one)
    assert 0 < expected < 8
    assert count_lesions(squares(*one_by_one), resize) == LesionCount(8, expected)
    touching = squares((10, 10), (13, 13))
    assert count_lesions(touching, MethodResize(SIDE)) == LesionCount(1, 0)


def test_a_mask_without_lesion_has_none_to_lose():
    assert count_lesions(squares(), MethodResize(8)) == LesionCount(0, 0)


def test_counts_of_images_are_added_up():
    counts = [LesionCount(3, 1), LesionCount(2, 2), LesionCount(0, 0), LesionCount(1, 0)]
    assert total(counts) == {"images": 3, "images_lost": 1, "lesions": 6, "lesions_lost": 3}


def test_only_lost_lesions_are_a_problem():
    assert list(lesion_problems("m.png", LesionCount(3, 0), 240)) == []
    kinds = [
        [one.kind for one in lesion_problems("m.png", LesionCount(2, lost), 240)] for lost in (1, 2)
    ]
    assert kinds == [["lesions lost"], ["no lesion left"]]


def one_by_one(lesion, resize):
    """As ``count_lesions``, by a resize of each lesion alone."""
    parts = list(lesion_parts(lesion))
    left = [resize(Mask(torch.from_numpy(part))).any() for part in parts]
    return LesionCount(len(parts), sum(not bool(one) for one in left))


RESIZES = {
    "nearest": MethodResize(SMALLER),
    "area": MethodResize(SMALLER, masks="area"),
    "torchvision": Resize((SMALLER, 24), antialias=True),
    "cropped": Compose([Resize((64, 64)), CenterCrop(SMALLER)]),
    "larger": MethodResize(150),
}


@pytest.mark.parametrize("kind", RESIZES)
@pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
def test_lesions_counted_at_once_are_those_counted_one_by_one(kind, share):
    lesion = np.random.default_rng(int(100 * share)).random((SIDE, SIDE)) < share
    found = count_lesions(lesion, RESIZES[kind])
    assert found == one_by_one(lesion, RESIZES[kind])
    if share < 0.3:
        assert found.lesions > 255, "more than a byte can number"
        assert (found.lost > 0) == (kind not in ("area", "larger"))


def test_a_mask_is_resized_once_whatever_is_in_it():
    calls = []

    def resize(mask):
        calls.append(mask)
        return MethodResize(SMALLER)(mask)

    assert count_lesions(squares(*((n, n) for n in range(0, 120, 8))), resize).lesions == 15
    assert len(calls) == 1


# --- by area


@given(
    places=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=6),
    size=st.integers(1, 5),
    smaller=st.integers(4, 80),
)
def test_by_area_no_lesion_is_lost(places, size, smaller):
    lesion = squares(*places, size=size, side=64)
    assert count_lesions(lesion, MethodResize(smaller, masks="area")).lost == 0
    whole = MethodResize(smaller, masks="area")(Mask(torch.from_numpy(lesion)))
    assert whole.shape == (smaller, smaller)
    assert whole.dtype == torch.bool
    assert whole.any()


def test_by_area_a_pixel_is_lesion_if_half_of_it_is():
    lesion = torch.zeros(8, 8, dtype=torch.uint8)
    lesion[:, :3] = 1
    resized = MethodResize(4, masks="area")(Mask(lesion))
    assert resized.tolist() == [[1, 1, 0, 0]] * 4
    lesion[:4, 2] = 0
    assert (
        MethodResize(4, masks="area")(Mask(lesion)).tolist()
        == [[1, 0, 0, 0]] * 2 + [[1, 1, 0, 0]] * 2
    )


def test_by_area_a_lesion_that_is_half_of_no_pixel_has_the_one_it_covers_most():
    lesion = np.zeros((16, 16), dtype=bool)
    lesion[3, 3:6] = True
    resized = MethodResize(4, masks="area")(Mask(torch.from_numpy(lesion)))
    assert resized.nonzero().tolist() == [[0, 1]]


def test_masks_go_to_the_nearest_neighbour_unless_asked_otherwise():
    assert MedicalPreProcessor(8).resize.masks == "nearest"
    assert MedicalPreProcessor(8, masks="area").resize.masks == "area"
    former = MethodResize(SMALLER)
    del former.__dict__["masks"]  # as pickles of former versions
    mask = Mask(torch.from_numpy(squares((5, 9))))
    assert torch.equal(former(mask), MethodResize(SMALLER)(mask))
