"""Numbers that cannot be are refused by the name of their option, before anything is done."""

import pytest
from tiny import CASES, METHODS, lesion_data, small

from anomalib_medclip.data import Volumes
from anomalib_medclip.errors import ConfigError, SupportError

NAN = float("nan")


@pytest.mark.parametrize(
    ("name", "value", "limits"),
    [
        ("seed", -1, "a whole number from 0 to 4294967295"),
        ("seed", 1.5, "a whole number from 0 to 4294967295"),
        ("backbone_seed", 2**32, "a whole number from 0 to 4294967295"),
        ("lr", NAN, "a number of at least 0"),
        ("lr", -1.0, "a number of at least 0"),
        ("lr", "fast", "a number of at least 0"),
        ("cache_memory", float("inf"), "a number of at least 0"),
        ("image_size", 0, "a whole number of at least 1"),
    ],
)
def test_a_number_of_a_model_is_refused_by_name(name, value, limits):
    with pytest.raises(ConfigError, match=f"{name} is {value!r}, and must be {limits}"):
        small(METHODS[0], **{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", -1),
        ("train_batch_size", 0),
        ("eval_batch_size", 0),
        ("val_ratio", NAN),
        ("val_ratio", 1.5),
    ],
)
def test_a_number_of_data_is_refused_by_name(name, value, lesions):
    with pytest.raises(ConfigError, match=f"{name} is {value!r}, and must be "):
        lesion_data(lesions, **{name: value})


def test_workers_cannot_be_fewer_than_none(tmp_path):
    with pytest.raises(ConfigError, match="num_workers is -1, and must be a whole number of"):
        Volumes(tmp_path, [], num_workers=-1)


@pytest.mark.parametrize("k", [-1, 0, 2.5])
def test_a_support_is_of_whole_images(k, lesions):
    data = lesion_data(lesions, k_shot=k)
    with pytest.raises(SupportError, match=f"k_shot is {k}; give a whole number of at least 1"):
        data.setup()


@pytest.mark.parametrize("precision", ["64", "bf16-true", "16-true"])
@pytest.mark.parametrize("verb", ["fit", "test"])
def test_a_trainer_that_casts_everything_is_refused(precision, verb, tmp_path):
    ready = CASES[0].ready(tmp_path, trainer={"precision": precision})
    with pytest.raises(ConfigError, match=r"precision is '.*', and must be one of '32-true', '16-"):
        getattr(ready.engine, verb)(ready.model, datamodule=ready.data)


def test_an_engine_that_has_trained_says_why_it_does_not_train_again(tmp_path, caplog):
    trained = CASES[0].fit(tmp_path, epochs=1)
    assert "nothing is trained" not in caplog.text
    trained.engine.fit(trained.model, datamodule=trained.data)
    assert "nothing is trained: this Engine has trained its 1 epochs; make another" in caplog.text
