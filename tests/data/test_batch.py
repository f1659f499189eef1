import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.tv_tensors import Image, Mask

from anomalib_medclip.data.batch import (
    MedicalBatch,
    MedicalDataset,
    MedicalItem,
    collate,
)
from anomalib_medclip.data.loaders import OneSetBatchSampler
from anomalib_medclip.errors import MaskError, MissingMaskError
from anomalib_medclip.readers.resize import MethodResize


def item(path="a.png", mask=True, label=1, **options):
    return MedicalItem(
        image=Image(torch.zeros(3, 4, 4)),
        gt_mask=Mask(torch.ones(4, 4, dtype=torch.uint8)) if mask else None,
        gt_label=torch.tensor(label),
        image_path=path,
        **options,
    )


def test_a_batch_knows_words_patient_and_copy_of_every_image():
    batch = collate([item("a.png", group="p", object_name="Brain", copy=2), item("b.png", label=0)])
    assert isinstance(batch, MedicalBatch)
    assert batch.object_name == ["Brain", ""]
    assert batch.group == ["p", ""]
    assert batch.copy.tolist() == [2, 0]
    assert batch.gt_label.tolist() == [True, False]
    assert batch.gt_mask.shape == (2, 4, 4)


def test_a_batch_taken_apart_gives_its_items():
    items = list(collate([item("a.png", group="p", copy=1), item("b.png", group="q")]))
    assert [(i.image_path, i.group) for i in items] == [("a.png", "p"), ("b.png", "q")]


def test_one_missing_mask_never_drops_the_masks_of_a_batch():
    with pytest.raises(MissingMaskError, match=r"no mask for b\.png"):
        collate([item("a.png"), item("b.png", mask=False)])


def test_a_batch_without_any_mask_has_none():
    assert collate([item(mask=False), item(mask=False)]).gt_mask is None


@given(
    sets=st.lists(st.sampled_from("abc"), min_size=1, max_size=40),
    size=st.integers(1, 9),
    shuffle=st.booleans(),
)
def test_a_batch_never_mixes_sets_and_no_image_is_lost(sets, size, shuffle):
    sampler = OneSetBatchSampler(sets, size, shuffle)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert sorted(i for batch in batches for i in batch) == list(range(len(sets)))
    assert all(len({sets[i] for i in batch}) == 1 for batch in batches)
    assert max(len(batch) for batch in batches) <= size


def test_batches_are_shuffled_by_torchs_generator_or_not_at_all():
    sets = ["a", "b"] * 20
    torch.manual_seed(0)
    first, second = (list(OneSetBatchSampler(sets, 4, shuffle=True)) for _ in range(2))
    torch.manual_seed(0)
    assert list(OneSetBatchSampler(sets, 4, shuffle=True)) == first != second
    assert next(iter(OneSetBatchSampler(sets, 4, shuffle=False))) == [0, 2, 4, 6]


@pytest.fixture
def samples(tmp_path, picture, mask):
    """A normal and an abnormal image of a set with masks."""
    return pd.DataFrame(
        {
            "image_path": [str(picture(tmp_path / f"{i}.png", seed=i)) for i in range(2)],
            "label_index": [0, 1],
            "mask_path": ["", str(mask(tmp_path / "mask.png"))],
            "group": ["", "p"],
            "object_name": "Brain",
            "has_masks": True,
            "set_name": "Brain",
            "split": "test",
        }
    )


def test_normal_images_of_a_set_with_masks_have_an_empty_mask(samples):
    normal, abnormal = MedicalDataset(samples)
    assert normal.gt_mask.sum() == 0
    assert normal.gt_mask.shape == normal.image.shape[-2:] == (20, 24)
    assert abnormal.gt_mask.sum() == 30
    assert (abnormal.group, abnormal.object_name) == ("p", "Brain")


def test_sets_without_masks_have_none_whatever_the_label(samples):
    dataset = MedicalDataset(samples.assign(has_masks=False))
    assert [one.gt_mask for one in dataset] == [None, None]
    assert dataset.task == "classification"
    assert MedicalDataset(samples).task == "segmentation"


def test_image_and_mask_are_resized_together(samples):
    dataset = MedicalDataset(samples)
    dataset.augmentations = MethodResize(8)
    assert dataset[1].image.shape == (3, 8, 8)
    assert dataset[1].gt_mask.shape == (8, 8)


def test_copies_of_all_images_follow_one_another(samples):
    dataset = MedicalDataset(samples, copies=3)
    assert len(dataset) == len(dataset.set_names) == 6
    assert [(one.copy, bool(one.gt_label)) for one in dataset] == [
        (copy, label) for copy in range(3) for label in (False, True)
    ]
    assert torch.equal(dataset[1].image, dataset[5].image)


def test_images_in_memory_are_read_once_and_anew_for_another_size(samples, tmp_path, picture):
    dataset = MedicalDataset(samples, in_memory=True)
    before = dataset[0].image
    picture(tmp_path / "0.png", seed=99)
    assert torch.equal(dataset[0].image, before)
    dataset.augmentations = MethodResize(8)
    assert dataset[0].image.shape == (3, 8, 8)


def test_images_not_in_memory_are_read_each_time(samples, tmp_path, picture):
    dataset = MedicalDataset(samples)
    before = dataset[0].image
    picture(tmp_path / "0.png", seed=99)
    assert not torch.equal(dataset[0].image, before)


def test_a_mask_of_another_size_is_an_error_naming_both(samples, tmp_path, mask):
    mask(tmp_path / "mask.png", size=(30, 24))
    with pytest.raises(MaskError, match=r"mask\.png is 30 x 24 pixels but its image is 20 x 24"):
        MedicalDataset(samples)[1]
