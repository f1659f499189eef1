import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pictures import channels_first, noise, save
from PIL import Image as Pillow
from torchvision.transforms.v2 import Resize
from torchvision.tv_tensors import Image, Mask

from anomalib_medclip.errors import ImageReadError, MaskError
from anomalib_medclip.readers.lesion import MaskLabels
from anomalib_medclip.readers.picture import read_mask
from anomalib_medclip.readers.resize import MethodResize

# --- masks


def lesion(value=255, dtype=np.uint8, size=(6, 8)):
    pixels = np.zeros(size, dtype=dtype)
    pixels[2:4, 3:6] = value
    return pixels


def assert_lesion(mask):
    assert isinstance(mask, Mask)
    assert mask.dtype == torch.uint8
    assert torch.equal(mask.as_subclass(torch.Tensor), torch.from_numpy(lesion(1)))


@pytest.mark.parametrize("value", [1, 2, 100, 127, 128, 200, 255])
def test_a_mask_of_any_one_value_is_read(tmp_path, value):
    assert_lesion(read_mask(save(tmp_path / "mask.png", lesion(value)), (6, 8)))


@pytest.mark.parametrize("mode", ["1", "RGB", "RGBA", "LA"])
def test_a_black_and_white_mask_of_any_mode_is_read(tmp_path, mode):
    assert_lesion(read_mask(save(tmp_path / "mask.png", lesion(), mode), (6, 8)))


@pytest.mark.parametrize("value", [1, 300, 65535])
def test_a_mask_of_sixteen_bits_is_read(tmp_path, value):
    assert_lesion(read_mask(save(tmp_path / "mask.png", lesion(value, np.uint16)), (6, 8)))


def test_labels_below_zero_are_lesions_where_that_is_said(tmp_path):
    path = save(tmp_path / "mask.tif", lesion(-3, np.int32))
    assert_lesion(read_mask(path, (6, 8), MaskLabels((-3,))))
    assert_lesion(read_mask(path, (6, 8), MaskLabels("all")))
    with pytest.raises(MaskError, match=r"mask\.tif holds -3 beside 0"):
        read_mask(path, (6, 8))


def test_a_mask_of_whole_floats_is_read_and_of_fractions_refused(tmp_path):
    assert_lesion(read_mask(save(tmp_path / "mask.tif", lesion(1, np.float32)), (6, 8)))
    path = save(tmp_path / "soft.tif", lesion(0.4, np.float32))
    with pytest.raises(ImageReadError, match=r"soft.tif: a mask of numbers that are not whole"):
        read_mask(path, (6, 8))


def test_a_mask_of_sixteen_bit_colours_is_read(tmp_path):
    pixels = np.repeat(lesion(200, np.uint16)[..., None], 3, axis=2)
    assert cv2.imwrite(str(tmp_path / "mask.png"), pixels)
    assert_lesion(read_mask(tmp_path / "mask.png", (6, 8)))


def test_a_jpeg_mask_does_not_grow(tmp_path):
    pixels = lesion(size=(32, 32))
    pixels[8:24, 8:24] = 255
    pixels[2:4, 3:6] = 0
    mask = read_mask(save(tmp_path / "mask.jpg", pixels, quality=75), (32, 32))
    assert torch.equal(mask.as_subclass(torch.Tensor), torch.from_numpy(pixels // 255))


def test_a_mask_of_another_size_says_both_sizes(tmp_path):
    path = save(tmp_path / "mask.png", lesion())
    words = r"mask.png is 6 x 8 pixels but its image is 8 x 6; make them the same size"
    with pytest.raises(MaskError, match=words):
        read_mask(path, (8, 6))


def test_an_empty_mask_is_never_read_as_healthy(tmp_path):
    path = save(tmp_path / "mask.png", lesion(0))
    with pytest.raises(MaskError, match=r"mask.png marks no lesion; remove the image or label it"):
        read_mask(path, (6, 8))


def test_a_missing_mask_file_is_named(tmp_path):
    with pytest.raises(ImageReadError, match=r"gone.png is missing; restore"):
        read_mask(tmp_path / "gone.png", (6, 8))


def test_a_truncated_mask_is_refused(tmp_path):
    path = save(tmp_path / "cut.png", noise(40, 50))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ImageReadError, match=r"cannot read image .*cut.png"):
        read_mask(path, (40, 50))


# --- the one resize


def eight_bit_image(*shape, seed=0):
    return Image(torch.from_numpy(noise(*shape, seed=seed)).float().div(255))


@pytest.mark.parametrize("size", [(17, 40), (64, 64), (5, 5)])
@pytest.mark.parametrize("side", [16, 24])
def test_eight_bits_are_resized_as_pillow_does_to_the_bit(size, side):
    image = eight_bit_image(3, *size)
    pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    expected = Pillow.fromarray(pixels).resize((side, side), Pillow.Resampling.BICUBIC)
    resized = MethodResize(side)(image)
    assert isinstance(resized, Image)
    assert torch.equal((resized * 255).round().byte(), channels_first(np.asarray(expected)))


def test_finer_images_keep_their_precision():
    fine = torch.rand(3, 40, 30, generator=torch.Generator().manual_seed(0))
    expected = np.stack(
        [np.asarray(Pillow.fromarray(c.numpy()).resize((16, 16), Pillow.BICUBIC)) for c in fine]
    )
    resized = MethodResize(16)(Image(fine))
    torch.testing.assert_close(
        resized.as_subclass(torch.Tensor), torch.from_numpy(expected).clamp(0, 1), rtol=0, atol=1e-6
    )
    assert ((resized * 255) - (resized * 255).round()).abs().max() > 0.1


def test_fine_and_eight_bit_images_differ_by_a_step_at_most():
    image = eight_bit_image(3, 40, 30)
    nudged = Image((image.as_subclass(torch.Tensor) * 0.999 + 0.0003).clamp(0, 1))
    difference = MethodResize(16)(image) - MethodResize(16)(nudged)
    assert difference.abs().max() < 2 / 255


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    side=st.integers(1, 30),
    fine=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_the_resize_keeps_the_range_and_gives_a_square(height, width, side, fine, seed):
    image = eight_bit_image(3, height, width, seed=seed)
    image = Image(image.round() * 0.9999 + 0.00005) if fine else image
    resized = MethodResize(side)(image)
    assert resized.shape == (3, side, side)
    assert resized.dtype == torch.float32
    assert resized.min() >= 0
    assert resized.max() <= 1


@given(value=st.integers(0, 255), side=st.integers(1, 30))
def test_a_uniform_image_stays_uniform(value, side):
    image = Image(torch.full((3, 20, 13), value / 255))
    torch.testing.assert_close(
        MethodResize(side)(image), Image(torch.full((3, side, side), value / 255))
    )


def test_a_batch_is_resized_as_its_images_are():
    batch = Image(torch.stack([eight_bit_image(3, 40, 30, seed=s) for s in range(3)]))
    together = MethodResize(16)(batch)
    assert isinstance(together, Image)
    for one, image in zip(together, batch, strict=True):
        assert torch.equal(one, MethodResize(16)(Image(image)))


def test_plain_tensors_are_images():
    image = eight_bit_image(3, 40, 30)
    plain = MethodResize(16)(image.as_subclass(torch.Tensor))
    assert torch.equal(plain, MethodResize(16)(image).as_subclass(torch.Tensor))


def test_what_has_the_size_passes_untouched():
    image = Image(torch.rand(3, 16, 16))
    assert torch.equal(MethodResize(16)(image), image)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.float32])
def test_masks_are_resized_to_the_nearest_neighbour(dtype):
    pixels = noise(12, 16, top=1)
    resized = MethodResize(8)(Mask(torch.from_numpy(pixels).to(dtype)))
    expected = Pillow.fromarray(pixels).resize((8, 8), Pillow.Resampling.NEAREST)
    assert isinstance(resized, Mask)
    assert resized.dtype == dtype
    assert torch.equal(resized.byte().as_subclass(torch.Tensor), torch.tensor(np.array(expected)))


def test_a_batch_of_masks_is_resized_as_each_is():
    masks = torch.stack([torch.from_numpy(noise(12, 16, top=1, seed=s)) for s in range(3)])
    together = MethodResize(8)(Mask(masks))
    for one, mask in zip(together, masks, strict=True):
        assert torch.equal(one, MethodResize(8)(Mask(mask)))


def test_image_and_mask_are_resized_together():
    image, mask = MethodResize(8)(eight_bit_image(3, 12, 16), Mask(torch.ones(12, 16)))
    assert (image.shape, mask.shape) == ((3, 8, 8), (8, 8))


def test_anomalib_takes_it_for_the_models_resize():
    resize = MethodResize(16)
    assert isinstance(resize, Resize)
    assert resize.size == [16, 16]
    assert resize.antialias is True
