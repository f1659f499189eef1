import logging
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from anomalib.engine import Engine
from anomalib.models import Patchcore
from torchvision.transforms.v2 import Compose

from anomalib_medclip.data.batch import MedicalBatch
from anomalib_medclip.data.datamodule import MedicalDataModule
from anomalib_medclip.errors import EmptySplitError, SupportError
from anomalib_medclip.readers.resize import MethodResize


class Scans(MedicalDataModule):
    """Data from a ready-made table."""

    object_name = "scan"
    has_masks = False

    def __init__(self, table, **options):
        super().__init__(num_workers=0, **options)
        self.table = table

    def load_table(self):
        return self.table


@pytest.fixture
def table(tmp_path, picture):
    """Normal and abnormal images: 6 to train on, 8 for validation, 6 for test, 2 a patient."""

    def make(train=(6, 0), valid=(8, 8), test=(6, 6)):
        rows = []
        for split, counts in {"train": train, "valid": valid, "test": test}.items():
            for label, count in enumerate(counts):
                for i in range(count):
                    path = picture(tmp_path / "Scans" / split / str(label) / f"{i}.png", seed=i)
                    group = f"{split}{label}{i // 2}"
                    rows.append((str(path), label, split, group))
        return pd.DataFrame(rows, columns=["image_path", "label_index", "split", "group"])

    return make


def test_a_datamodule_has_all_that_is_asked_of_it_before_it_has_read_anything():
    class Bare(MedicalDataModule):
        def load_table(self):
            return pd.DataFrame()

    data = Bare()
    expected = {
        "object_name": "", "object_names": [""], "has_masks": False, "lesion_labels": None,
        "root": Path(), "slicing": None, "zero_shot": False, "published_test": False,
        "in_files": True, "stacks": False, "intensity": None, "support_data": None,
        "support_counts": {}, "validates_on_support": False, "only_normals": False,
    }  # fmt: skip
    assert {name: getattr(data, name) for name in expected} == expected
    assert data.cases() == []


def attach(data, **model):
    """Meet a model that says this about itself, as a trainer would arrange."""
    resize = SimpleNamespace(transform=Compose([MethodResize(8)]))
    data.trainer = SimpleNamespace(
        callbacks=[],
        lightning_module=SimpleNamespace(**model),
        model=SimpleNamespace(pre_processor=resize),
    )
    data.setup("fit")
    return data


def paths(dataset):
    return set(dataset.samples["image_path"])


def test_support_validation_and_test_share_no_image(table):
    data = Scans(table(), k_shot=2)
    data.setup()
    sets = [paths(data.support_data), paths(data.val_data), paths(data.test_data)]
    assert [len(one) for one in sets] == [4, 8, 12]
    assert len(set.union(*sets)) == 24


def test_validation_has_no_patient_of_the_support_as_long_as_there_are_others(table):
    data = Scans(table(), k_shot=2)
    data.setup()
    assert not set(data.support_data.samples["group"]) & set(data.val_data.samples["group"])


def test_a_method_trains_on_every_copy_of_the_support(table):
    data = attach(Scans(table(), k_shot=2), wants_abnormal=True, copies=11, default_batch_size=1)
    assert paths(data.train_data) == paths(data.support_data)
    assert len(data.train_dataloader()) == 2 * 2 * 11
    copies = [int(batch.copy) for batch in data.train_dataloader()]
    assert sorted(copies) == sorted(list(range(11)) * 4)


def test_a_model_that_says_nothing_gets_the_normal_images_of_the_support(table):
    data = attach(Scans(table(), k_shot=3))
    assert list(data.train_data.samples["label_index"]) == [0, 0, 0]
    assert paths(data.train_data) < paths(data.support_data)
    assert data.train_batch_size == 8


def test_or_all_normal_images_of_the_training_split(table):
    data = attach(Scans(table(), k_shot=3, normals="train"))
    assert set(data.train_data.samples["split"]) == {"train"}
    assert len(data.train_data) == 6


def test_normals_train_leaves_a_method_its_support(table):
    data = attach(Scans(table(), k_shot=3, normals="train"), wants_abnormal=True)
    assert paths(data.train_data) == paths(data.support_data)


def test_one_datamodule_serves_a_method_and_then_a_baseline(table):
    data = attach(Scans(table(), k_shot=2), wants_abnormal=True, copies=11, default_batch_size=1)
    val, test = paths(data.val_data), paths(data.test_data)
    attach(data)
    assert list(data.train_data.samples["label_index"]) == [0, 0]
    assert (data.train_data.copies, data.train_batch_size) == (1, 8)
    assert (paths(data.val_data), paths(data.test_data)) == (val, test)


def test_the_batch_size_that_was_asked_for_is_kept(table):
    data = attach(Scans(table(), k_shot=2, train_batch_size=3), default_batch_size=1)
    assert data.train_batch_size == 3


def test_every_dataset_resizes_as_the_model_does(table):
    data = attach(Scans(table(), k_shot=2))
    for dataset in (data.train_data, data.val_data, data.test_data, data.support_data):
        assert dataset[0].image.shape == (3, 8, 8)


@pytest.mark.parametrize("left", [(3, 3), (3, 2), (2, 3)])
def test_too_few_images_left_are_replaced_by_the_support_and_the_run_says_so(table, left, caplog):
    with caplog.at_level(logging.WARNING):
        data = Scans(table(valid=left), k_shot=2)
        data.setup()
    assert data.validates_on_support
    assert data.val_data is data.support_data
    assert "come from 4 images, of the support" in caplog.text


def test_two_images_of_each_class_are_enough_to_validate_on(table, caplog):
    data = Scans(table(valid=(4, 4)), k_shot=2)
    with caplog.at_level(logging.WARNING):
        data.setup()
    assert not data.validates_on_support
    assert sorted(data.val_data.samples["label_index"]) == [0, 0, 1, 1]
    assert caplog.text == ""


def test_the_support_comes_from_training_where_that_has_both_classes(table):
    data = Scans(table(train=(4, 4)), k_shot=2)
    data.setup()
    assert set(data.support_data.samples["split"]) == {"train"}
    assert len(data.val_data) == 16


def test_a_list_file_names_the_support(table, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("n-0: 7.png 1.png\na-0: 3.png 0.png\n")
    data = Scans(table(), k_shot=4, support_list=path)
    data.setup()
    found = data.support_data.samples[["label_index", "image_path"]].values.tolist()
    assert [(y, p.rsplit("/", 1)[1]) for y, p in found] == [
        (0, "1.png"),
        (0, "7.png"),
        (1, "0.png"),
        (1, "3.png"),
    ]


def test_a_patient_in_support_and_test_is_refused(table):
    shared = table()
    shared.loc[shared["split"] == "test", "group"] = "valid11"
    with pytest.raises(SupportError, match=r"of the same patient is learnt from"):
        Scans(shared, k_shot=8).setup()


def test_a_published_test_split_is_kept_and_its_shared_patients_counted(table, caplog):
    shared = table()
    shared.loc[shared.index[-3:], "group"] = "valid11"
    data = Scans(shared, k_shot=8)
    data.published_test = True
    with caplog.at_level(logging.WARNING):
        data.setup()
    assert len(data.test_data) == 12
    assert "3 of 12 test images of Scans are of 1 patients that the support has" in caplog.text


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"test": (0, 4)}, "the test split of Scans holds no normal image"),
        ({"test": (4, 0)}, "the test split of Scans holds no abnormal image"),
        (
            {"valid": (0, 4)},
            r"the valid split of Scans holds no normal image \(4 images in all\)",
        ),
    ],
)
def test_an_empty_split_is_an_error(table, counts, words):
    with pytest.raises(EmptySplitError, match=words):
        Scans(table(**counts), k_shot=2).setup()


def test_asking_for_a_training_split_that_is_not_there_is_an_error(table):
    with pytest.raises(EmptySplitError, match=r"training .* no normal image.*normals to support"):
        Scans(table(train=(0, 0)), k_shot=2, normals="train").setup()


def test_a_support_given_by_the_data_needs_both_classes(table):
    given = table(train=(4, 0)).replace({"split": {"train": "support"}})
    with pytest.raises(EmptySplitError, match="the support split of Scans holds no abnormal"):
        Scans(given).setup()


@pytest.fixture
def normals_alone(table):
    """Only the test split has abnormal images, as MediCLIP publishes its sets."""
    return table(valid=(0, 0))


def test_without_abnormal_images_outside_test_the_support_is_normal(normals_alone, caplog):
    with caplog.at_level(logging.WARNING):
        data = attach(Scans(normals_alone, k_shot=4), wants_abnormal=False)
    assert data.only_normals
    assert list(data.support_data.samples["label_index"]) == [0] * 4
    assert set(data.support_data.samples["split"]) == {"train"}
    assert paths(data.train_data) == paths(data.support_data)
    assert data.val_data is data.support_data
    assert data.validates_on_support
    assert len(data.test_data) == 12
    assert "come from 4 normal images alone, of the support" in caplog.text


def test_normal_images_of_a_validation_split_are_validated_on(table, caplog):
    with caplog.at_level(logging.WARNING):
        data = attach(Scans(table(valid=(4, 0)), k_shot=4))
    assert set(data.support_data.samples["split"]) == {"train"}
    assert set(data.val_data.samples["split"]) == {"valid"}
    assert not data.validates_on_support
    assert "come from 4 normal images alone, of the validation split" in caplog.text


def test_a_list_file_may_name_normal_images_alone(normals_alone, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("train/0/1.png\ntrain/0/3.png\n")
    data = attach(Scans(normals_alone, support_list=path))
    assert {p.rsplit("/", 1)[1] for p in paths(data.support_data)} == {"1.png", "3.png"}


def test_the_support_may_be_given_of_normal_images_alone(table):
    given = table(train=(3, 0), valid=(0, 0)).replace({"split": {"train": "support"}})
    assert len(attach(Scans(given)).support_data) == 3


def test_a_method_that_wants_abnormal_images_is_refused_where_there_are_none(normals_alone):
    with pytest.raises(SupportError, match=r"Scans holds only normal images outside .* MediCLIP"):
        attach(Scans(normals_alone, k_shot=4), wants_abnormal=True)


def test_but_it_may_be_tested_there(normals_alone):
    data = Scans(normals_alone, k_shot=4)
    model = SimpleNamespace(wants_abnormal=True, copies=11)
    data.trainer = SimpleNamespace(callbacks=[], lightning_module=model)
    data.setup("test")
    assert len(data.test_data) == 12


def test_more_normal_images_than_there_are_is_an_error(normals_alone):
    with pytest.raises(SupportError, match="8 normal support images are asked for but 6 exist"):
        Scans(normals_alone, k_shot=8).setup()


def test_a_threshold_from_normal_images_is_their_highest_score(normals_alone, tmp_path):
    model = Patchcore(
        backbone="resnet18",
        layers=["layer1"],
        pre_trained=False,
        pre_processor=Patchcore.configure_pre_processor((32, 32)),
    )
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", logger=False)
    engine.fit(model, datamodule=Scans(normals_alone, k_shot=4))
    post = model.post_processor
    assert post.image_threshold.item() == post.image_max.item() > post.image_min.item()


def test_patchcore_trains_on_normal_images_and_draws_every_test_image(table, tmp_path):
    data = Scans(table(), k_shot=2)
    model = Patchcore(
        backbone="resnet18",
        layers=["layer1"],
        pre_trained=False,
        pre_processor=Patchcore.configure_pre_processor((32, 32)),
    )
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", logger=False)
    metrics = engine.train(model, datamodule=data)
    assert 0 <= metrics[0]["image_AUROC"] <= 1
    assert list(data.train_data.samples["label_index"]) == [0, 0]
    pictures = list((tmp_path / "Patchcore" / "Scans").rglob("images/**/*.png"))
    assert len(pictures) == len(data.test_data)


def test_batches_are_medical_batches_of_the_asked_size(table):
    data = Scans(table(), k_shot=2, eval_batch_size=5)
    data.setup()
    batches = list(data.test_dataloader())
    assert all(isinstance(batch, MedicalBatch) for batch in batches)
    assert [len(batch.image) for batch in batches] == [5, 5, 2]
    assert batches[0].object_name == ["scan"] * 5
