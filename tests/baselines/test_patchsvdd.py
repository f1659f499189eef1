"""PatchSVDD: patches of a whole image at once, the pairs it learns from, its maps and its mean."""

import pytest
import torch
from tiny import case_of

from anomalib_medclip.baselines import PatchSVDD
from anomalib_medclip.baselines.patchsvdd.distances import Spread, VectorBank
from anomalib_medclip.baselines.patchsvdd.networks import BIG, SMALL, STRIDES, Encoder
from anomalib_medclip.baselines.patchsvdd.pairs import (
    DIRECTIONS,
    close_by,
    cut,
    jittered,
    neighbours,
)
from anomalib_medclip.errors import ConfigError, NotReadyError

CPU = torch.device("cpu")


@torch.no_grad()
@pytest.mark.parametrize("patch", [SMALL, BIG])
def test_a_whole_image_has_the_vectors_of_its_patches(patch):
    torch.manual_seed(0)
    encoder, image = Encoder(width=8), torch.rand(1, 3, 96, 96)
    grid = encoder.dense(image)[patch]
    starts = range(0, 96 - patch + 1, STRIDES[patch])
    assert grid.shape == (1, 8, len(starts), len(starts))
    places = torch.tensor([(row, column) for row in starts for column in starts])
    each = encoder(cut(image, places, patch))
    torch.testing.assert_close(grid[0].flatten(1).T, each, atol=1e-6, rtol=1e-5)


def test_the_released_encoder_has_the_published_number_of_parameters():
    assert sum(one.numel() for one in Encoder(width=64).parameters()) == 401_984


@pytest.mark.parametrize("patch", [SMALL, BIG])
def test_neighbours_lie_three_quarters_to_a_whole_patch_away_or_at_the_edge(patch):
    torch.manual_seed(1)
    side = 256
    found = neighbours(2000, patch, side, CPU)
    away = found.second - found.first
    for number, way in enumerate(DIRECTIONS):
        of_it = found.direction == number
        assert of_it.any()
        for axis, step in enumerate(way):
            moved = away[of_it, axis] * (step or 1)
            inside = (found.second[of_it, axis] > 0) & (found.second[of_it, axis] < side - patch)
            assert (moved[inside] >= 3 * patch // 4 * abs(step)).all()
            assert (moved <= (patch - 1) * abs(step)).all()
    places = torch.cat([found.first, found.second])
    assert places.min() == 0
    assert places.max() == side - patch


@pytest.mark.parametrize(("patch", "most"), [(SMALL, 1), (BIG, 2)])
def test_close_patches_are_everywhere_around_but_not_at_the_place_itself(patch, most):
    torch.manual_seed(2)
    first, second = close_by(4000, patch, 256, CPU)
    inside = ((first > most) & (first < 256 - patch - most)).all(dim=1)
    away = {tuple(one) for one in (second - first)[inside].tolist()}
    steps = range(-most, most + 1)
    assert away == {(down, right) for down in steps for right in steps} - {(0, 0)}


def test_patches_come_from_the_images_in_turn_and_are_jittered_by_colour_and_noise():
    images = torch.stack([torch.zeros(3, 64, 64), torch.ones(3, 64, 64)])
    images[:, :, 5, 7] = 9
    places = torch.tensor([[5, 7], [0, 0], [4, 6]])
    found = cut(images, places, 32)
    assert found[:, 0, -1, -1].tolist() == [0, 1, 0]
    assert found[0, 0, 0, 0] == found[2, 0, 1, 1] == 9
    torch.manual_seed(3)
    noisy = jittered(torch.zeros(4000, 3, 8, 8))
    colours = noisy.mean(dim=(2, 3))
    assert colours.std().item() == pytest.approx((0.02**2 + 0.02**2 / 64) ** 0.5, rel=0.03)
    assert (noisy - colours[..., None, None]).std().item() == pytest.approx(0.02, rel=0.03)


def test_a_pixel_has_the_mean_of_the_patches_on_it():
    patches = torch.rand(1, 9, 9, generator=torch.Generator().manual_seed(4))
    found = Spread(64, SMALL, 4)(patches)
    covering = [patches[0, row, column] for row in range(3) for column in range(9)]
    on_it = [i for i in range(9) if i * 4 <= 33 < i * 4 + 32]
    expected = torch.stack([patches[0, 0, column] for column in on_it]).mean()
    assert found[0, 2, 33].item() == pytest.approx(expected.item(), abs=1e-6)
    assert found[0, 8, 32].item() == pytest.approx(
        torch.stack([covering[9 * row + column] for row in range(3) for column in range(1, 9)])
        .mean()
        .item(),
        abs=1e-6,
    )


def test_the_nearest_is_exact_in_parts_and_an_owner_is_left_out():
    random = torch.Generator().manual_seed(5)
    bank, rows = VectorBank(), torch.rand(3, 4000, 8, generator=random)
    with pytest.raises(NotReadyError, match="memory of patches is empty"):
        bank.distance(rows[:, :2])
    bank.fill(rows, torch.tensor([0, 0, 1]))
    queries = torch.rand(2, 50, 8, generator=random)
    exact = torch.cdist(queries.double(), rows.flatten(0, 1).double()).amin(dim=-1)
    torch.testing.assert_close(bank.distance(queries).double(), exact, atol=1e-6, rtol=1e-5)
    found = bank.distance(queries, torch.tensor([0, -1]))
    of_one = torch.cdist(queries[0].double(), rows[2].double()).amin(dim=-1)
    torch.testing.assert_close(
        found.double(), torch.stack([of_one, exact[1]]), atol=1e-6, rtol=1e-5
    )
    bank.fill(rows[:1], torch.tensor([0]))
    with pytest.raises(NotReadyError, match="at least two"):
        bank.distance(queries, torch.tensor([0, 0]))


def test_the_mean_image_is_of_what_is_learnt_from(tmp_path):
    case = case_of(PatchSVDD)
    trained = case.fit(tmp_path, epochs=1)
    learnt = [trained.data.train_data[index] for index in range(len(trained.data.train_data))]
    assert learnt
    assert not any(item.gt_label for item in learnt)
    expected = torch.stack([item.image.as_subclass(torch.Tensor) for item in learnt]).mean(dim=0)
    torch.testing.assert_close(trained.model.model.mean_image, expected)


def test_an_image_that_patches_do_not_fill_is_refused():
    with pytest.raises(ConfigError, match="image_size is 100, and patches of 64 px fill images"):
        PatchSVDD(image_size=100)
