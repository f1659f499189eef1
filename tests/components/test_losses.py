import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anomalib_medclip.components.losses import both_channels, dice, focal, focal_of_scores


def test_focal_of_one_undecided_pixel_by_hand():
    probability, mask = torch.full((1, 1, 1, 1), 0.5), torch.ones(1, 1, 1, 1)
    likelihood = 0.5 + 1e-5  # the smoothed target sums to one here
    expected = -((1 - likelihood) ** 2) * math.log(likelihood)
    assert focal(probability, mask).item() == pytest.approx(expected, rel=1e-5)


def test_focal_of_two_pixels_by_hand():
    probability = torch.tensor([[[[0.8, 0.3]]]])
    mask = torch.tensor([[[[1.0, 0.0]]]])
    hits = [(1 - 1e-5) * p + 1e-5 * (1 - p) + 1e-5 for p in (0.8, 0.7)]
    expected = sum(-((1 - p) ** 2) * math.log(p) for p in hits) / 2
    assert focal(probability, mask).item() == pytest.approx(expected, rel=1e-5)


def test_without_focusing_the_focal_loss_is_the_cross_entropy():
    probability = torch.tensor([[[[0.8, 0.3]]]])
    mask = torch.tensor([[[[1.0, 0.0]]]])
    expected = -(math.log(0.8) + math.log(0.7)) / 2
    found = focal(probability, mask, gamma=0.0, smooth=1e-9)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_focusing_plays_down_what_is_well_classified():
    mask = torch.ones(1, 1, 1, 1)
    sure, unsure = (torch.full((1, 1, 1, 1), p) for p in (0.95, 0.55))

    def ratio(gamma):
        return (focal(sure, mask, gamma) / focal(unsure, mask, gamma)).item()

    assert ratio(2.0) < ratio(0.0) / 10


def test_dice_of_a_perfect_map_is_zero():
    mask = torch.zeros(2, 1, 4, 4)
    mask[:, :, 1:3, 1:3] = 1
    assert dice(mask, mask).item() == pytest.approx(0, abs=1e-6)


def test_dice_by_hand():
    """Overlap 0.5 + 0.5, map 0.5 + 0.5 + 1, mask 2: one less (2 x 1 + 1) / (2 + 2 + 1)."""
    probability = torch.tensor([[[[0.5, 0.5], [1.0, 0.0]]]])
    mask = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    assert dice(probability, mask).item() == pytest.approx(1 - 3 / 5)


def test_dice_of_an_empty_map_of_a_healthy_image_is_zero():
    assert dice(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)).item() == pytest.approx(0)


def test_dice_is_the_mean_over_images():
    maps, masks = torch.rand(3, 1, 4, 4), (torch.rand(3, 1, 4, 4) > 0.5).float()
    each = torch.stack([dice(m[None], t[None]) for m, t in zip(maps, masks, strict=True)])
    torch.testing.assert_close(dice(maps, masks), each.mean())


@given(
    value=st.floats(0, 1, width=32), other=st.floats(0, 1, width=32), lesion=st.sampled_from([0, 1])
)
def test_a_better_map_never_has_a_higher_loss(value, other, lesion):
    mask = torch.full((1, 1, 2, 2), float(lesion))
    worse, better = sorted((value, other), key=lambda p: -abs(p - lesion))
    worse, better = torch.full((1, 1, 2, 2), worse), torch.full((1, 1, 2, 2), better)
    assert dice(better, mask) <= dice(worse, mask) + 1e-6
    assert focal(better, mask) <= focal(worse, mask) + 1e-6


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("lesion", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_is_finite_also_at_certainty(p, lesion, dtype):
    mask = torch.full((1, 1, 2, 2), lesion, dtype=dtype)
    abnormal = torch.full((1, 2, 2), p, dtype=dtype, requires_grad=True)
    (focal(abnormal[:, None], mask) + dice(abnormal[:, None], mask)).backward()
    assert abnormal.grad.isfinite().all()


@pytest.mark.parametrize("lesion", [0.0, 1.0])
def test_a_step_down_the_gradient_goes_towards_the_mask(lesion):
    mask = torch.full((1, 1, 2, 2), lesion)
    abnormal = torch.full((1, 2, 2), 0.5, requires_grad=True)
    (focal(abnormal[:, None], mask) + dice(abnormal[:, None], mask)).backward()
    assert (abnormal.grad.sign() == (1 if lesion == 0 else -1)).all()


def test_dice_by_rows_is_the_mean_over_rows_of_all_images():
    maps, masks = torch.rand(3, 1, 4, 5), (torch.rand(3, 1, 4, 5) > 0.5).float()
    masks[0, 0, 0, 0] = torch.nan
    rows = zip(maps.flatten(0, 2), masks.flatten(0, 2), strict=True)
    each = torch.stack([dice(m[None, None, None], t[None, None, None]) for m, t in rows])
    torch.testing.assert_close(dice(maps, masks, by_rows=True), each.mean())
    assert not torch.isclose(dice(maps, masks), each.mean())


@pytest.mark.parametrize("by_rows", [False, True])
def test_both_channels_count_with_what_each_leaves_to_the_other(by_rows):
    maps, masks = torch.rand(2, 3, 1, 4, 5), (torch.rand(3, 1, 4, 5) > 0.5).float()
    masks[0, 0, 0, 0] = torch.nan
    terms = both_channels(torch.tensor(0.5), maps.unbind(), masks, by_rows)
    assert terms.detection == 0.5
    for level, one in enumerate(maps):
        assert terms.focal[level] == focal(one, masks)
        both = dice(one, masks, by_rows) + dice(1 - one, 1 - masks, by_rows)
        assert terms.dice[level] == both


def test_the_focal_loss_of_scores_is_that_of_maps_of_one_pixel():
    scores, labels = torch.tensor([0.2, 0.9, 0.6]), torch.tensor([False, True, False])
    likelihood = torch.tensor([0.8, 0.9, 0.4])
    expected = (-((1 - likelihood) ** 2) * likelihood.log()).mean()
    torch.testing.assert_close(focal_of_scores(scores, labels), expected, atol=1e-4, rtol=0)
