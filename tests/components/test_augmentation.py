import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as tv

from anomalib_medclip.components.augmentation import (
    ELEVEN_FOLD,
    all_copies,
    apply_copies,
    rotation,
    translation,
    warp,
)


def picture(batch=1, side=16, seed=0):
    return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(seed))


def blob(row, column, side=33):
    """One bright square of 5 x 5 pixels around a place."""
    image = torch.zeros(1, 1, side, side)
    image[..., row - 2 : row + 3, column - 2 : column + 3] = 1
    return image


def centre(image):
    """Row and column of the centre of mass."""
    weight = image[0, 0] / image.sum()
    places = torch.arange(len(weight)).float()
    return (weight.sum(dim=1) @ places).item(), (weight.sum(dim=0) @ places).item()


def test_there_are_eleven_different_copies_and_the_image_is_the_first():
    image = picture()
    copies = all_copies(image, ELEVEN_FOLD)
    assert len(copies) == len(ELEVEN_FOLD) == 11
    assert torch.equal(copies[:1], image)
    differences = torch.cdist(copies.flatten(1), copies.flatten(1)) + torch.eye(11)
    assert differences.min() > 1e-2


@given(seed=st.integers(0, 2**16))
def test_flips_are_exact_and_undo_themselves(seed):
    image = picture(seed=seed)
    sideways, upside_down = ELEVEN_FOLD[-2:]
    assert torch.equal(sideways(image), image.flip(-1))
    assert torch.equal(upside_down(image), image.flip(-2))
    assert torch.equal(sideways(sideways(image)), image)


@pytest.mark.parametrize("number", range(11))
def test_image_and_mask_move_together(number):
    mask = blob(12, 20)
    image = mask.repeat(1, 3, 1, 1)
    which = torch.tensor([number])
    moved_image = apply_copies(image, [ELEVEN_FOLD[k] for k in which])
    moved_mask = apply_copies(mask, [ELEVEN_FOLD[k] for k in which])
    assert torch.equal(moved_image[:, :1], moved_mask)
    assert moved_mask.sum() > 15


@pytest.mark.parametrize("degrees", [-22.5, -11.25, 11.25, 22.5])
def test_a_rotation_turns_about_the_centre_as_torchvision_does(degrees):
    """Positive angles turn what is right of the centre upwards, against the clock."""
    turned = rotation(degrees)(blob(16, 26))
    expected = tv.rotate(blob(16, 26), degrees)
    assert centre(turned) == pytest.approx(centre(expected), abs=0.3)
    assert centre(rotation(degrees)(blob(16, 16))) == pytest.approx((16, 16), abs=1e-3)


def test_a_translation_is_in_halves_of_the_image():
    """On 32 pixels 0.125 is two pixels; what lay right and below comes nearer."""
    moved = translation(0.125, -0.25)(blob(16, 16, side=32))
    assert centre(moved) == pytest.approx((20, 14), abs=1e-3)


def test_the_identity_matrix_changes_nothing():
    image = picture()
    torch.testing.assert_close(warp(image, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)), image)


@given(number=st.integers(0, 10), value=st.floats(0, 1, width=32))
def test_a_uniform_image_stays_uniform_because_edges_are_mirrored(number, value):
    image = torch.full((1, 3, 12, 12), value)
    torch.testing.assert_close(ELEVEN_FOLD[number](image), image)


@given(number=st.integers(0, 10), seed=st.integers(0, 2**16))
def test_no_copy_leaves_the_range_of_its_image(number, seed):
    image = picture(2, 12, seed)
    copy = ELEVEN_FOLD[number](image)
    assert copy.shape == image.shape
    assert copy.min() >= image.min() - 1e-6
    assert copy.max() <= image.max() + 1e-6


def test_every_image_gets_the_copy_of_its_number():
    images = picture(4)
    which = torch.tensor([10, 0, 3, 10])
    expected = [ELEVEN_FOLD[k](images[i : i + 1]) for i, k in enumerate(which.tolist())]
    assert torch.equal(apply_copies(images, [ELEVEN_FOLD[k] for k in which]), torch.cat(expected))


def test_all_copies_come_augmentation_by_augmentation():
    images = picture(2)
    copies = all_copies(images, ELEVEN_FOLD)
    assert torch.equal(copies[:2], images)
    assert torch.equal(copies[-2:], images.flip(-2))


def test_a_number_too_few_is_noticed():
    with pytest.raises(ValueError, match="longer"):
        apply_copies(picture(2), ELEVEN_FOLD[:1])
