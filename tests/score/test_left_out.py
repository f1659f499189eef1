"""What ``score`` takes and leaves out is what training does, in the same words."""

import numpy as np
import pytest
from dicom_series import UID, write_picture
from image_trees import Tree
from pictures import save
from PIL import Image
from pydicom.uid import SecondaryCaptureImageStorage
from scans import UP, numbers, write_stack, write_volume

from anomalib_medclip.readers.listing import list_images
from anomalib_medclip.readers.picture import read_image
from anomalib_medclip.readers.volume import read_volume
from anomalib_medclip.score.inputs import look_below

CONTENT = {
    ".zip": b"PK\3\4" + bytes(26) + b"1.png",
    "xlsx": b"PK\3\4" + bytes(26) + b"docProps/app.xml",
}


def look(root):
    """Files that are scored, and why the others are not, by their paths below the root."""
    found = look_below(root, root / "results")
    taken = {path.relative_to(root).as_posix() for one in found.inputs for path in one.files}
    return taken, {one.path.as_posix(): one[1:] for one in found.left_out}


def test_of_images_among_masks_and_other_files_it_takes_those_that_training_takes(tmp_path):
    for seed in range(40):
        tree = Tree(tmp_path / str(seed), seed)
        images, left_out = list_images(tree.home)
        below = {one.path.relative_to(tree.home).as_posix(): one[1:] for one in left_out}
        volumes = {name for name in below if name.endswith(".nii.gz")}  # which training does not
        taken, why = look(tree.home)
        assert taken == {path.relative_to(tree.home).as_posix() for path in images} | volumes
        assert why == {name: said for name, said in below.items() if name not in volumes}
        assert len(why) == len(tree.others) - len(volumes) + sum(
            mask.is_relative_to(tree.home) for mask in tree.images.values()
        )


@pytest.fixture
def home(tmp_path):
    """A folder to be filled with small pictures, volumes and other files, by names."""

    def fill(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            if ".nii" in name:
                write_volume(tmp_path / name)
            elif name.endswith(".png"):
                save(tmp_path / name, numbers((8, 8)).astype(np.uint8))
            else:
                (tmp_path / name).write_bytes(CONTENT.get(name[-4:], b"tired"))
        return tmp_path

    return fill


@pytest.mark.parametrize(
    ("taken", "left_out"),
    [
        (("P1.nii.gz", "P2.nii"), {"P1_mask.nii.gz": "is a mask by", "P2_seg.nii": "is a mask by"}),
        (("P1/t1.nii.gz", "P1/t2.nii.gz"), {"P1/seg.nii.gz": "is a mask by its name"}),
        (("P1_flair.nii", "P10_t1.nii"), {"P1_seg.nii": "is a mask by its name"}),
        (("P10_flair.nii", "P1_seg.nii", "P2/t1.nii", "P3/seg.nii"), {}),
        (("imagesTr/1_0000.nii", "imagesTr/1_0001.nii"), {"labelsTr/1.nii": "is a mask by its"}),
        (("brain_seg.nii", "liver_seg.nii"), {}),
        (("roi.png", "other.png", "1_seg.png", "1_a.png"), {}),  # pictures have names of all kinds
        (("scans/P1.nii.gz",), {"masks/P1.nii.gz": "lies in a folder of masks"}),
        (
            ("images/1.png",),
            {"labels/1.png": "is a mask by its name", "t.xlsx": "is a file of an off"},
        ),
        (("a/1.png", "b/2.png"), {"a/x.txt": "ends in .txt", "b/README": "has no ending"}),
        (("a/1.png",), {"a/b.zip": "is a zip archive", "c/2.csv": "ends in .csv"}),
        (("1_mask.png", "2_mask.png"), {}),  # which only are called so
    ],
)
def test_masks_and_files_of_other_kinds_are_named_with_the_reason(home, taken, left_out):
    found, why = look(home(*taken, *left_out))
    assert found == {*taken}
    assert why.keys() == left_out.keys()
    for name, reason in left_out.items():
        assert why[name][0].startswith(reason)
        assert why[name][1]


def test_every_file_of_a_series_of_masks_is_named(tmp_path):
    write_stack(tmp_path / "images", numbers((4, 6, 5)), UP)
    masks = write_stack(tmp_path / "masks", numbers((4, 6, 5)), UP)
    taken, why = look(tmp_path)
    assert why.keys() == {f"masks/{path.name}" for path in masks}
    assert {name.partition("/")[0] for name in taken} == {"images"}


@pytest.mark.parametrize("seed", range(6))
def test_beside_a_series_it_leaves_out_what_a_volume_of_training_does(tmp_path, seed):
    draw, folder = np.random.default_rng(seed), tmp_path / "ct"
    slices = write_stack(folder, numbers((5, 8, 6)), UP, SeriesInstanceUID=f"{UID}1")
    colours = numbers((*draw.integers(4, 30, 2), 3)[: draw.integers(2, 4)]).astype(np.uint8)
    another = {"SOPClassUID": SecondaryCaptureImageStorage}
    if seed % 2:
        another["SeriesInstanceUID"] = f"{UID}9"
    shot = write_picture(folder / "shot.dcm", colours, **another)
    others = draw.choice(["a.png", "b.txt", "Thumbs.db", "c.jpg", "README"], 3, replace=False)
    for name in others:
        (folder / name).write_bytes(b"x")
    taken, why = look(tmp_path)
    assert taken == {f"ct/{path.name}" for path in slices}
    found = read_volume(folder, (0, 1000))
    assert {f"ct/{one.path.name}": one[1:] for one in found.left_out} == why
    assert why.keys() == {f"ct/{name}" for name in (*others, shot.name)}
    for name in why:
        (tmp_path / name).unlink()
    assert np.array_equal(found.voxels, read_volume(folder, (0, 1000)).voxels)


def test_a_picture_that_is_called_dicom_is_a_picture_wherever_it_lies(tmp_path):
    slices = write_stack(tmp_path / "ct", numbers((5, 8, 6)), UP)
    Image.fromarray(numbers((8, 8)).astype(np.uint8)).save(tmp_path / "x.png")
    path = (tmp_path / "x.png").rename(tmp_path / "x.dcm")
    assert read_image(path).shape == (3, 8, 8)
    [one] = look_below(path, tmp_path / "results").inputs
    assert one.kind == "picture"
    copied = path.rename(tmp_path / "ct" / "x.dcm")
    taken, why = look(tmp_path)
    assert taken == {f"ct/{one.name}" for one in slices}
    [left_out] = read_volume(tmp_path / "ct", (0, 1000)).left_out
    assert (left_out.path, why) == (copied, {"ct/x.dcm": left_out[1:]})
