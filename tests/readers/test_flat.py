"""A NIfTI file that is one voxel thick is a picture, the same one at every door."""

import nibabel as nib
import numpy as np
import pytest
from anomalib.visualization import ImageVisualizer

from anomalib_medclip.data.checks import check_data
from anomalib_medclip.data.drawing import undrawable_problems
from anomalib_medclip.data.folder import MedicalFolder
from anomalib_medclip.data.slicing import cut
from anomalib_medclip.errors import ImageReadError, IntensityError
from anomalib_medclip.readers.lesion import MaskLabels
from anomalib_medclip.readers.listing import is_picture, list_images
from anomalib_medclip.readers.picture import read_image, read_lesion

WINDOW = (0.0, 1000.0)


def write(path, numbers, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = nib.Nifti2Image if numbers.size % 2 else nib.Nifti1Image
    nib.save(kind(numbers, np.eye(4) if affine is None else affine), path)
    return path


def drawn(seed, path):
    """A flat file of any plane, orientation, spacing and type of numbers."""
    draw = np.random.default_rng(seed)
    sides = [int(side) for side in draw.integers(3, 9, 3)]
    sides[draw.integers(3)] = 1
    sides = sides[:2] if sides[2] == 1 and seed % 2 else sides
    numbers = draw.integers(0, 250, sides).astype(draw.choice([np.uint8, np.int16, np.float32]))
    affine = np.zeros((4, 4))
    affine[draw.permutation(3), range(3)] = draw.choice([-1, 1], 3) * draw.uniform(0.5, 3, 3)
    affine[:3, 3], affine[3, 3] = draw.uniform(-90, 90, 3), 1
    return write(path, numbers, affine)


def test_it_is_read_as_nibabel_has_it_and_as_a_volume_is_cut(tmp_path):
    for seed in range(60):
        path = drawn(seed, tmp_path / f"{seed}.nii{'.gz' * (seed % 3 == 0)}")
        assert is_picture(path)
        found = read_image(path, WINDOW)
        [slice_] = cut(path, WINDOW).images
        assert np.array_equal(found.numpy(), np.broadcast_to(slice_, found.shape)), seed
        stored = nib.load(path)
        solid = np.asarray(stored.dataobj).reshape((*stored.shape, 1)[:3])
        ras = nib.as_closest_canonical(nib.Nifti1Image(solid, stored.affine))  # right, front, up
        flat = np.asarray(ras.dataobj).take(0, axis=ras.shape.index(1))
        seen = np.flip(flat.T, (0, 1))  # rows lead down or back, columns left or back
        assert np.allclose(found[0].numpy(), seen / 1000, atol=1e-6), seed


def test_folders_of_them_are_trained_on_checked_and_have_masks(tmp_path):
    for number in range(6):
        for label, word in enumerate(("normal", "abnormal")):
            drawn_at = tmp_path / word / f"{number}.nii.gz"
            numbers = np.random.default_rng(number + 9 * label).integers(0, 900, (20, 24))
            write(drawn_at, numbers.astype(np.int16))
        mask = np.zeros((20, 24), np.float32)
        mask[4:9, 3:6] = 1
        write(tmp_path / "masks" / f"{number}.nii", mask)
    write(tmp_path / "normal" / "volume.nii", np.zeros((4, 5, 6), np.int16))
    data = MedicalFolder(tmp_path, mask_dir="masks", intensity=WINDOW, k_shot=1, num_workers=0)
    data.setup()
    assert data.list_images()["label_index"].tolist() == [0] * 6 + [1] * 6
    assert [(one.path.name, one.reason) for one in data.left_out] == [
        ("volume.nii", "is a volume (NIfTI) and no picture")
    ]
    ill = [item for item in data.test_data if item.gt_label]
    assert ill
    assert {int(item.gt_mask.sum()) for item in ill} == {15}
    found = check_data(MedicalFolder(tmp_path, mask_dir="masks", intensity=WINDOW, k_shot=1))
    assert found.count("error") == 0, found.problems
    drawn_by_anomalib = undrawable_problems(data.test_data.samples, "a", "", [ImageVisualizer()])
    assert {one.problem for one in drawn_by_anomalib} == {
        "is NIfTI, which anomalib's visualizer cannot open"
    }


def test_numbers_of_its_masks_are_read_by_the_same_rules(tmp_path):
    labels = np.zeros((6, 5), np.int16)
    labels[1:3, 2], labels[4, 4] = 1, 3
    path = write(tmp_path / "m.nii", labels)
    assert int(read_lesion(path, MaskLabels((3,))).sum()) == 1
    assert int(read_lesion(path, MaskLabels("all")).sum()) == 3


@pytest.mark.parametrize("damage", [b"", b"\x5c\x01\0\0", bytes(352)])
def test_a_volume_or_a_damaged_file_is_none(tmp_path, damage):
    (tmp_path / "0.nii").write_bytes(damage)
    volume = write(tmp_path / "1.nii", np.zeros((4, 5, 6), np.int16))
    assert list_images(tmp_path).images == []
    with pytest.raises(ImageReadError, match=r"1\.nii: it is NIfTI; give volumes to"):
        read_image(volume)
    with pytest.raises(ImageReadError, match=r"0\.nii"):
        read_image(tmp_path / "0.nii")
    with pytest.raises(IntensityError, match="'intensity'"):
        read_image(write(tmp_path / "2.nii", np.zeros((4, 5), np.int16)))
