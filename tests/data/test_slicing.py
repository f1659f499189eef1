import itertools

import nibabel as nib
import numpy as np
import pytest
import torch
from dicom_series import numbers, oblique, straight, write_nifti, write_series
from pictures import noise, save

from anomalib_medclip.data.slicing import Slicing, cut
from anomalib_medclip.errors import ImageReadError, IntensityError, MaskError, VolumeError
from anomalib_medclip.readers.lesion import MaskLabels
from anomalib_medclip.readers.volume import read_volume

POLICY = {"percentiles": (1.0, 99.0)}
ORDERS = [
    np.array(list(zip(axes, flips, strict=True)))
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]
PLANES = ["axial", "coronal", "sagittal"]


def turned(path, voxels, affine, order):
    """The same volume in another order of axes."""
    nib.save(nib.Nifti1Image(voxels, affine).as_reoriented(order), path)
    return path


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """The 48 orders of axes of one volume, straight or oblique."""
    home = tmp_path_factory.mktemp("turned")
    voxels = numbers(5, 6, 7, low=0)
    return {
        name: [
            turned(home / f"{name}{n}.nii", voxels, affine, order) for n, order in enumerate(ORDERS)
        ]
        for name, affine in (("straight", straight()), ("oblique", oblique()))
    }


# --- orientation


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("name", ["straight", "oblique"])
def test_the_order_of_axes_changes_no_picture_and_maps_go_back_exactly(volumes, name, plane):
    expected = cut(volumes[name][0], POLICY, Slicing(plane)).images
    for path in volumes[name]:
        sliced = cut(path, POLICY, Slicing(plane))
        assert torch.equal(sliced.images, expected)
        volume = read_volume(path, POLICY)
        assert np.array_equal(sliced.restore(sliced.images**2), volume.voxels**2)
        assert sliced.restore(sliced.images).dtype == np.float32
        # twice, and in another order of calls: nothing is used up
        assert np.array_equal(sliced.restore(sliced.images), volume.voxels)


@pytest.mark.parametrize("order", [ORDERS[0], ORDERS[13], ORDERS[47]], ids=["0", "13", "47"])
def test_pictures_are_seen_as_radiologists_see_them(tmp_path, order):
    voxels = np.ones((5, 6, 7), dtype=np.int16)
    voxels[4, 5, 6] = 1000  # right, anterior, superior
    path = turned(tmp_path / "a.nii", voxels, straight(), order)
    top_left = {}
    for plane in PLANES:
        images = cut(path, (0, 1000), Slicing(plane)).images
        top_left[plane] = tuple(int(n) for n in torch.nonzero(images == 1)[0])
    # From the feet: the right on the left of the picture, the front above.
    assert top_left["axial"] == (6, 0, 0)
    # From the front: the right on the left of the picture, the head above.
    assert top_left["coronal"][1:] == (0, 0)
    # From the left: the front on the left of the picture, the head above.
    assert top_left["sagittal"][1:] == (0, 0)


@pytest.mark.parametrize("plane", PLANES)
def test_a_dicom_series_gives_the_pictures_of_its_nifti(tmp_path, plane):
    voxels, affine = numbers(6, 7, 5), oblique()
    write_series(tmp_path / "series", voxels, affine)
    path = write_nifti(tmp_path / "a.nii.gz", voxels, affine)
    one, two = (cut(p, POLICY, Slicing(plane)) for p in (tmp_path / "series", path))
    assert torch.equal(one.images, two.images)


# --- masks


def lesion(shape=(5, 6, 7)):
    labels = np.zeros(shape, dtype=np.uint8)
    labels[1:3, 2:4, 3], labels[3, 4, 5] = 1, 2
    return labels


@pytest.fixture
def pair(tmp_path):
    """Writes a volume and its labels: ``pair(affine of labels, their order of axes)``."""

    def write(affine=None, order=ORDERS[0], labels=None):
        image = write_nifti(tmp_path / "a.nii.gz", numbers(5, 6, 7, low=0), straight())
        labels = lesion() if labels is None else labels
        affine = straight() if affine is None else affine
        return image, turned(tmp_path / "seg.nii.gz", labels, affine, order)

    return write


@pytest.mark.parametrize("number", [0, 5, 17, 47])
def test_labels_in_another_order_of_axes_lie_where_they_did(pair, number):
    image, seg = pair(order=ORDERS[number])
    sliced = cut(image, POLICY, mask=seg, labels=MaskLabels("all"))
    assert (sliced.masks.dtype, sliced.masks.shape) == (torch.uint8, sliced.images.shape)
    assert np.array_equal(sliced.restore(sliced.masks), (lesion() > 0).astype(np.float32))


def test_lesions_are_the_labels_that_are_named(pair):
    image, seg = pair()
    assert int(cut(image, POLICY, mask=seg, labels=MaskLabels("all")).masks.sum()) == 5
    assert int(cut(image, POLICY, mask=seg, labels=MaskLabels((2,))).masks.sum()) == 1


def test_which_of_two_labels_are_lesions_is_asked(pair):
    image, seg = pair()
    with pytest.raises(MaskError, match=r"seg.nii.gz holds 1 and 2 beside 0.*'lesion_labels'"):
        cut(image, POLICY, mask=seg)
    image, seg = pair(labels=np.where(lesion() > 0, 7, 0).astype(np.uint8))
    assert int(cut(image, POLICY, mask=seg).masks.sum()) == 5


def test_labels_of_a_stack_of_pictures_are_chosen_by_their_numbers(tmp_path):
    labels = np.zeros((3, 12, 16), np.uint8)
    labels[1, 2:4, 3:6], labels[1, 6:8, 3:6], labels[2, 2, 2] = 1, 2, 2
    for number in range(3):
        for folder, pixels in (("scan", noise(12, 16, seed=number)), ("seg", labels[number])):
            (tmp_path / folder).mkdir(exist_ok=True)
            save(tmp_path / folder / f"{number}.png", pixels)
    paths = {"image": tmp_path / "scan", "mask": tmp_path / "seg"}
    for wanted, count in (((2,), 7), ((1,), 6), ((1, 2), 13), ("all", 13)):
        assert int(cut(**paths, labels=MaskLabels(wanted)).masks.sum()) == count
    with pytest.raises(MaskError, match=r"1\.png holds 1 and 2 beside 0"):
        cut(**paths)


def test_there_is_no_mask_where_none_is_given(pair):
    assert cut(pair()[0], POLICY).masks is None


@pytest.mark.parametrize("order", [ORDERS[0], ORDERS[17]], ids=["same axes", "other axes"])
def test_labels_that_lie_elsewhere_are_refused(pair, order):
    moved = straight()
    moved[2, 3] += 1
    for affine in (moved, straight((2, 1.5, 3.1))):
        image, seg = pair(affine, order)
        with pytest.raises(MaskError, match=r"seg.nii.gz is of shape .*; .*a.nii.gz .*; resample"):
            cut(image, POLICY, mask=seg, labels=MaskLabels("all"))


def test_labels_of_another_shape_are_refused(pair):
    image, seg = pair(labels=lesion((5, 6, 8)))
    with pytest.raises(MaskError, match=r"of shape \(6, 5, 8\)"):
        cut(image, POLICY, mask=seg, labels=MaskLabels("all"))


def test_errors_of_readers_come_through_as_they_are(pair, tmp_path):
    image, seg = pair()
    with pytest.raises(IntensityError, match=r"a.nii.gz"):
        cut(image)
    with pytest.raises(ImageReadError, match=r"gone.nii"):
        cut(image, POLICY, mask=tmp_path / "gone.nii")
    seg.write_bytes(seg.read_bytes()[:-5])
    with pytest.raises(ImageReadError, match=r"seg.nii.gz"):
        cut(image, POLICY, mask=seg, labels=MaskLabels("all"))


# --- resampling and cropping


@pytest.mark.parametrize("plane", PLANES)
def test_resampled_maps_come_back_in_the_shape_of_the_file(tmp_path, plane):
    smooth = np.indices((12, 10, 8)).sum(axis=0).astype(np.float32)
    path = turned(tmp_path / "a.nii", smooth, straight(), ORDERS[17])
    sliced = cut(path, (0, 27), Slicing(plane, spacing=(1.0, 1.25, 2.5)))
    restored = sliced.restore(sliced.images)
    volume = read_volume(path, (0, 27))
    assert restored.shape == volume.voxels.shape
    assert restored.min() >= 0
    assert np.abs(restored - volume.voxels).max() < 0.07  # twice linear, at edges held
    assert np.abs(restored - volume.voxels).mean() < 0.01


def test_spacing_is_of_rows_columns_and_slices(tmp_path):
    path = write_nifti(tmp_path / "a.nii", numbers(12, 10, 8, low=0), straight((1, 2, 4)))
    axial = cut(path, POLICY, Slicing(spacing=(1.0, 2.0, 2.0))).images.shape
    assert axial == (15, 19, 6)  # (8 - 1) * 4 / 2 + 1, (10 - 1) * 2 / 1 + 1, (12 - 1) / 2 + 1
    sagittal = cut(path, POLICY, Slicing("sagittal", spacing=(2.0, 1.0, 1.0))).images.shape
    assert sagittal == (12, 15, 19)


def test_masks_stay_masks_when_resampled(pair):
    image, seg = pair()
    masks = cut(
        image, POLICY, Slicing(spacing=(0.7, 0.7, 1.3)), mask=seg, labels=MaskLabels("all")
    ).masks
    assert set(masks.unique().tolist()) == {0, 1}


def test_an_organ_is_cut_out_and_maps_are_laid_back_into_its_box(pair):
    image, organ = pair()
    sliced = cut(
        image, POLICY, Slicing(organ_labels=(1,)), mask=organ, labels=MaskLabels("all"), organ=organ
    )
    assert sliced.images.shape == (7, 2, 2)
    assert sliced.shown.sum() == 1
    assert (sliced.masks[sliced.shown] == 1).all()
    restored = sliced.restore(sliced.shown[:, None, None].expand(7, 2, 2).float())
    assert np.array_equal(restored, (lesion() == 1).astype(np.float32))
    wide = cut(image, POLICY, Slicing(organ_labels=(1, 2), organ_margin=1), organ=organ)
    assert wide.images.shape == (7, 5, 5)
    assert wide.shown.sum() == 2


def test_an_organ_that_is_not_there_is_refused(pair):
    image, organ = pair()
    with pytest.raises(MaskError, match=r"seg.nii.gz has none of the organ's labels \(9,\)"):
        cut(image, POLICY, Slicing(organ_labels=(9,)), organ=organ)
    for given, named in ((image, image), ([image], image.parent)):
        with pytest.raises(
            MaskError, match=rf"^{named} is to be .* no volume of its organs is given"
        ):
            cut(given, POLICY, Slicing(organ_labels=(1,)))


@pytest.mark.parametrize(
    "options",
    [{"spacing": (1.0, 0.0, 1.0)}, {"spacing": (1.0, 1.0)}, {"organ_margin": -1}],
    ids=str,
)
def test_options_that_cut_nothing_are_refused(options):
    with pytest.raises(VolumeError, match=r"give "):
        Slicing(**options)


def test_maps_of_another_shape_are_not_laid_back(pair):
    sliced = cut(pair()[0], POLICY)
    with pytest.raises(VolumeError, match=r"maps are of shape \(7, 5, 5\), the pictures of"):
        sliced.restore(torch.zeros(7, 5, 5))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 2.0), (1.0, 1.0, 4.0), (3.0, 3.0, 5.0)])
@pytest.mark.parametrize("number", range(5, 11))
def test_a_coarser_grid_steps_over_no_lesion(tmp_path, spacing, number):
    mask = np.zeros((16, 18, 17), dtype=np.uint8)
    mask[8, 9, number] = 1
    image = write_nifti(tmp_path / "image.nii.gz", mask.astype(np.int16) * 900, np.eye(4))
    labels = write_nifti(tmp_path / "mask.nii.gz", mask, np.eye(4))
    sliced = cut(image, (0.0, 1000.0), Slicing(spacing=spacing), mask=labels)
    assert sliced.masks.any()
    assert sliced.images[sliced.masks > 0].max() > 0
    assert sliced.restore(sliced.images).shape == mask.shape


def test_a_grid_as_fine_as_the_file_changes_nothing(pair):
    image, _ = pair()
    volume = read_volume(image, POLICY)
    spacing = tuple(np.linalg.norm(volume.affine[:3, :3], axis=0)[[1, 0, 2]])
    same, plain = cut(image, POLICY, Slicing(spacing=spacing)), cut(image, POLICY)
    assert torch.allclose(same.images, plain.images, atol=1e-5)


def test_the_slices_asked_for_end_where_the_volume_ends():
    assert list(Slicing(slices=(2, 9)).numbers(5)) == [2, 3, 4]
    assert list(Slicing().numbers(3)) == [0, 1, 2]
    with pytest.raises(VolumeError, match="counted from 0"):
        Slicing(slices=(3, 2))


# --- what is one voxel thick


@pytest.mark.daily_for(plane="sagittal")
@pytest.mark.parametrize("plane", PLANES)
def test_what_is_one_voxel_thick_is_one_picture_whatever_plane_is_asked(tmp_path, plane):
    voxels = numbers(5, 6, 1, low=0)
    lesion = (voxels > 1000).astype(np.uint8)
    expected = torch.from_numpy(read_volume_of(tmp_path, voxels)[::-1, ::-1, 0].T.copy())[None]
    for order in ORDERS:
        path = turned(tmp_path / "a.nii", voxels, oblique(), order)
        mask = turned(tmp_path / "m.nii", lesion, oblique(), order)
        sliced = cut(path, POLICY, Slicing(plane), mask)
        assert sliced.shown.tolist() == [True]
        assert torch.equal(sliced.images, expected)
        assert torch.equal(sliced.masks, torch.from_numpy(lesion[::-1, ::-1, 0].T.copy())[None])
        assert np.array_equal(sliced.restore(sliced.images), read_volume(path, POLICY).voxels)


def read_volume_of(tmp_path, voxels):
    return read_volume(write_nifti(tmp_path / "b.nii", voxels, straight()), POLICY).voxels


def test_a_picture_that_was_stored_as_nifti_stands_upright_again(tmp_path):
    import SimpleITK

    picture = np.random.default_rng(0).integers(0, 900, (7, 9)).astype(np.int16)
    for array in (picture, picture[None]):
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(tmp_path / "a.nii.gz"))
        images = cut(tmp_path / "a.nii.gz", (0.0, 900.0)).images
        assert np.array_equal(images[0], (picture / 900).astype(np.float32))


def test_resampling_leaves_one_picture_and_does_not_fade_it(tmp_path):
    voxels = np.full((12, 10, 1), 500, dtype=np.int16)
    image = write_nifti(tmp_path / "a.nii", voxels, straight((1, 1, 999)))
    sliced = cut(image, (0.0, 1000.0), Slicing(spacing=(2.0, 2.0, 3.0)))
    assert sliced.images.shape == (1, 6, 6)
    assert (sliced.images.min(), sliced.images.max()) == pytest.approx((0.5, 0.5), abs=1e-4)
    thin = write_nifti(tmp_path / "b.nii", voxels, straight((1, 1, 0.1)))
    assert cut(thin, (0.0, 1000.0), Slicing(spacing=(1.0, 1.0, 3.0))).images.min() > 0.49
