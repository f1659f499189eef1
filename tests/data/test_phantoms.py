from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import Compose

from anomalib_medclip.data import phantoms
from anomalib_medclip.data.phantom_drawing import Patient, clouds, draw_slice, ellipse
from anomalib_medclip.data.phantoms import Phantoms
from anomalib_medclip.readers.resize import MethodResize

ORGANS = ("head", "liver")


@pytest.fixture
def make(tmp_path):
    """A few small phantoms below the test's folder: ``make(**options)``."""

    def build(**options):
        small = {"k_shot": 2, "patients": (3, 2, 2), "slices": 4, "side": 48, "num_workers": 0}
        return Phantoms(**{"root": tmp_path / "phantoms", **small, **options})

    return build


def pixels(data):
    data.prepare_data()
    files = sorted(data.folder.rglob("*.png"))
    return {str(p.relative_to(data.folder)): np.asarray(Image.open(p)) for p in files}


def draw(organ, seed, abnormal, side=48):
    random = np.random.default_rng(seed)
    return draw_slice(organ, Patient.draw(random), 0.1, abnormal, side, random)


@given(st.sampled_from(ORGANS), st.integers(0, 2**32), st.booleans())
@settings(max_examples=25)
def test_a_slice_has_a_mask_exactly_where_it_is_abnormal(organ, seed, abnormal):
    image, lesions = draw(organ, seed, abnormal)
    assert (image.dtype, image.shape, lesions.shape) == (np.uint8, (48, 48), (48, 48))
    assert lesions.any() == abnormal
    assert lesions.mean() < 0.2


@given(st.sampled_from(ORGANS), st.integers(0, 2**32))
@settings(max_examples=25)
def test_lesions_lie_inside_the_body(organ, seed):
    _, lesions = draw(organ, seed, abnormal=True)
    assert not lesions[[0, -1]].any()
    assert not lesions[:, [0, -1]].any()


@pytest.mark.parametrize("organ", ORGANS)
def test_lesions_are_brighter_in_some_slices_and_darker_in_others(organ):
    signs = []
    for seed in range(30):
        image, lesions = draw(organ, seed, abnormal=True)
        around = np.median(image[image > 30])
        signs.append(np.sign(np.median(image[lesions]) - around))
    assert {-1, 1} <= set(signs)


def test_an_ellipse_is_one_inside_and_zero_outside():
    disc = ellipse(101, (0.0, 0.0), (0.5, 0.25), edge=0.02)
    assert disc[50, 50] == 1
    assert disc[50 + 20, 50] == 1  # 0.4 down, of 0.5
    assert disc[50, 50 + 20] == 0  # 0.4 to the right, of 0.25


def test_clouds_are_seeded():
    first, again = (clouds(5, 32, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_one_seed_draws_the_same_pictures_anywhere_and_another_seed_others(make, tmp_path):
    first, again = pixels(make()), pixels(make(root=tmp_path / "elsewhere"))
    assert first.keys() == again.keys()
    for name, picture in first.items():
        np.testing.assert_array_equal(picture, again[name])
    other = pixels(make(seed=1))
    assert any((first[name] != other[name]).any() for name in first.keys() & other.keys())


def test_no_patient_is_in_two_splits(make):
    table = make().load_table()
    of_split = [set(rows["group"]) for _, rows in table.groupby("split")]
    assert [len(groups) for groups in of_split] == [2, 3, 2]  # test, train, valid
    assert len(set.union(*of_split)) == 7


def test_half_the_slices_of_every_patient_are_abnormal(make):
    for _, rows in make().load_table().groupby("group"):
        assert sorted(rows["label_index"]) == [0, 0, 1, 1]


def test_abnormal_slices_have_a_mask_file_and_normal_ones_name_none(make):
    table = make().load_table()
    for row in table.itertuples():
        assert Path(row.image_path).is_file()
        if row.label_index:
            assert np.asarray(Image.open(row.mask_path)).max() == 255
        else:
            assert row.mask_path == ""


def test_the_support_shares_no_patient_with_the_test_split(make):
    data = make()
    data.setup()
    support, test = (set(d.samples["group"]) for d in (data.support_data, data.test_data))
    assert not support & test


def test_pictures_are_drawn_once(make):
    data = make()
    data.prepare_data()
    times = {p: p.stat().st_mtime_ns for p in data.folder.rglob("*.png")}
    make().prepare_data()
    assert times == {p: p.stat().st_mtime_ns for p in data.folder.rglob("*.png")}


def test_other_options_are_other_pictures(make):
    folders = {
        make(**o).folder for o in ({}, {"seed": 1}, {"side": 56}, {"slices": 2}, {"organ": "liver"})
    }
    assert len(folders) == 5


def test_an_interrupted_drawing_leaves_nothing(make, monkeypatch):
    def fail(*_args, **_kwargs):
        msg = "disk full"
        raise OSError(msg)

    data = make()
    monkeypatch.setattr(phantoms.Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        data.prepare_data()
    assert not list(data.root.iterdir())


def test_the_organ_is_what_the_prompt_says_and_where_results_go(make):
    data = make(organ="liver")
    assert (data.object_name, data.category, data.has_masks) == ("liver", "liver", True)


def test_a_model_that_learns_from_normal_images_only_gets_no_abnormal_one(make):
    data = make()
    resize = SimpleNamespace(transform=Compose([MethodResize(32)]))
    data.trainer = SimpleNamespace(
        callbacks=[],
        lightning_module=SimpleNamespace(),
        model=SimpleNamespace(pre_processor=resize),
    )
    data.setup("fit")
    assert list(data.train_data.samples["label_index"]) == [0, 0]
