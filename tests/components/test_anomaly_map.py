import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from anomalib_medclip.components.anomaly_map import align, to_map, unit_interval

seeds = st.integers(0, 2**16)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- align


@given(gain=st.floats(0.01, 100.0), patch=st.integers(1, 9), seed=seeds)
def test_alignment_ignores_the_length_of_tokens_and_text(gain, patch, seed):
    tokens, text = random(2, patch, 8, seed=seed), random(2, 8, seed=seed + 1)
    expected = align(tokens, text)
    torch.testing.assert_close(align(gain * tokens, text), expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(align(tokens, gain * text), expected, rtol=1e-3, atol=1e-3)


@given(scale=st.floats(0.1, 200.0), seed=seeds)
def test_alignment_is_a_cosine_times_the_scale(scale, seed):
    tokens, text = random(2, 5, 8, seed=seed), random(2, 8, seed=seed + 1)
    logits = align(tokens, text, scale)
    assert logits.abs().max() <= scale * (1 + 1e-5)
    expected = scale * F.cosine_similarity(tokens[:, :, None], text[None, None], dim=-1)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_alignment_learns_as_if_tokens_were_brought_to_length_one_before():
    tokens, text = random(2, 5, 8).double().requires_grad_(), random(2, 8, seed=1).double()
    text.requires_grad_()
    plain = 100 * F.normalize(tokens, dim=-1) @ F.normalize(text, dim=-1).T
    logits = align(tokens, text)
    torch.testing.assert_close(logits, plain)
    found, expected = (
        torch.autograd.grad(values.sigmoid().sum(), (tokens, text)) for values in (logits, plain)
    )
    torch.testing.assert_close(found, expected)


def test_a_token_of_zeros_is_like_nothing_and_breaks_nothing():
    tokens = torch.zeros(1, 1, 8, requires_grad=True)
    logits = align(tokens, random(2, 8))
    logits.sum().backward()
    assert logits.tolist() == [[[0.0, 0.0]]]
    assert tokens.grad.isfinite().all()


def test_alignment_by_hand():
    tokens = torch.tensor([[[3.0, 4.0]]])
    text = torch.tensor([[1.0, 0.0], [0.0, -2.0]])
    torch.testing.assert_close(align(tokens, text), torch.tensor([[[60.0, -80.0]]]))


def test_each_image_can_have_its_own_text():
    tokens, text = random(2, 5, 8), random(2, 2, 8, seed=1)
    expected = torch.cat([align(tokens[i : i + 1], text[i]) for i in range(2)])
    torch.testing.assert_close(align(tokens, text), expected)


# --- to_map


@given(side=st.integers(1, 6), height=st.integers(2, 20), width=st.integers(2, 20), seed=seeds)
def test_a_map_stays_within_its_patches_and_keeps_the_corners(side, height, width, seed):
    patches = random(2, side * side, 3, seed=seed)
    enlarged = to_map(patches, (height, width))
    assert enlarged.shape == (2, 3, height, width)
    assert enlarged.max() <= patches.max() + 1e-5
    assert enlarged.min() >= patches.min() - 1e-5
    corners = enlarged[..., [0, 0, -1, -1], [0, -1, 0, -1]].transpose(1, 2)
    expected = patches[:, [0, side - 1, side * side - side, side * side - 1]]
    torch.testing.assert_close(corners, expected)


def test_patches_are_laid_out_row_by_row():
    patches = torch.arange(9.0).view(1, 9, 1)
    assert torch.equal(to_map(patches, (3, 3))[0, 0], torch.arange(9.0).view(3, 3))


def test_the_map_of_one_image_does_not_depend_on_the_others():
    patches = random(3, 16, 2)
    alone = torch.cat([to_map(one[None], (8, 8)) for one in patches])
    torch.testing.assert_close(to_map(patches, (8, 8)), alone)


@pytest.mark.parametrize("count", [2, 17, 290])
def test_patches_that_fill_no_square_hint_at_the_class_token(count):
    words = f"{count} patches do not fill a square grid; was the class token left in"
    with pytest.raises(ValueError, match=words):
        to_map(torch.zeros(1, count, 2), (8, 8))


# --- unit_interval


@given(values=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1), centre=st.floats(-10, 10))
def test_everything_lands_between_zero_and_one(values, centre):
    mapped = unit_interval(torch.tensor(values), centre)
    assert mapped.min() >= 0
    assert mapped.max() <= 1


@given(
    steps=st.lists(st.integers(-5_000, 5_000), min_size=2, unique=True),
    centre=st.floats(-3, 3),
    spread=st.floats(0.01, 100.0),
)
def test_order_is_kept_strictly(steps, centre, spread):
    """Down to a thousandth of a spread, up to five spreads from the centre."""
    values = centre + torch.tensor(sorted(steps)) * spread / 1000
    mapped = unit_interval(values, centre, spread)
    assert (mapped.diff() > 0).all()


@given(centre=st.floats(-100, 100), spread=st.floats(0.01, 100))
def test_the_centre_is_one_half_and_a_spread_away_is_nine_tenths(centre, spread):
    values = torch.tensor([centre, centre + spread, centre - spread], dtype=torch.float64)
    expected = torch.tensor([0.5, 0.9, 0.1], dtype=torch.float64)
    torch.testing.assert_close(unit_interval(values, centre, spread), expected)


@given(distance=st.floats(0, 1e3))
def test_the_curve_is_the_same_on_both_sides(distance):
    values = torch.tensor([distance, -distance], dtype=torch.float64)
    assert unit_interval(values, centre=0.0).sum().item() == pytest.approx(1, abs=1e-12)


def test_a_trace_leaves_nothing_behind_that_is_no_number():
    """The matrices that enlarge are kept; a trace that comes first must not leave its own there."""

    class Map(torch.nn.Module):
        def forward(self, patches):
            return to_map(patches, (11, 13))

    patches = torch.rand(2, 9, 1)
    exported = torch.export.export(Map(), (patches,), strict=False).module()
    expected = torch.nn.functional.interpolate(
        patches.transpose(1, 2).view(2, 1, 3, 3), (11, 13), mode="bilinear", align_corners=True
    )
    for found in (exported(patches), to_map(patches, (11, 13))):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize("size", [(7, 11), (2, 3)])
def test_enlarging_is_torchs_with_corners_aligned_or_edges(corners, size):
    patches = random(2, 16, 3)
    grid = patches.transpose(1, 2).unflatten(2, (4, 4))
    expected = F.interpolate(grid, size, mode="bilinear", align_corners=corners)
    torch.testing.assert_close(to_map(patches, size, corners), expected)
