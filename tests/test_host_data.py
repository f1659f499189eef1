"""Every method on every image datamodule of anomalib: fit, train, validate, test, predict, export.

``docs/anomalib.md`` has the table of what comes of it.
"""

import logging
import re
from pathlib import Path

import pytest
from anomalib.data import AnomalibDataModule, Folder, PredictDataset
from anomalib.data.datamodules import image as host_images
from host_data import HOST_DATA, folder, host_data, picture
from tiny import CASES

from anomalib_medclip import Inferencer
from anomalib_medclip.data import MedicalFolder
from anomalib_medclip.errors import DataRootError, EmptySplitError, NotReadyError, SupportError

PAGE = (Path(__file__).parents[1] / "docs" / "anomalib.md").read_text()
GAPS = "anomalib_medclip.training.gaps"
WORDS = {
    "validation": "validation",
    "validation images that are all normal": "normal images",
    "test images": "the test",
    "": "none",
}
CASE = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def table(first):
    """Of each row of a table of the page, what it says by column."""
    [text] = re.findall(rf"^(\| {first} \|(?:.*\n\|)*.*)$", PAGE, re.MULTILINE)
    head, _, *rows = [line[2:-2].split(" | ") for line in text.splitlines()]
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


def read(name, root):
    try:
        return host_data(name, root)
    except (AttributeError, ImportError, RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        pytest.skip(f"anomalib itself cannot read {name} here: {reason}")


def model_of(case, data, **options):
    named = case.method.names_the_object and not data.category.strip("0123456789")
    return case.small(**options, **({"object_name": "part"} if named else {}))


def test_the_page_has_every_image_datamodule_of_anomalib():
    kinds = [found for found in vars(host_images).values() if isinstance(found, type)]
    kinds = {one.__name__ for one in kinds if issubclass(one, AnomalibDataModule)}
    assert kinds == {name.partition(",")[0] for name in HOST_DATA}
    assert list(table("data")) == list(HOST_DATA)


def test_the_page_has_every_method():
    assert sorted(table("method")) == sorted(case.name for case in CASES)
    refused = {name for name, row in table("method").items() if "refused" in row.values()}
    assert refused == {case.name for case in CASES if case.method.needs_abnormal}


@CASE
@pytest.mark.parametrize("name", HOST_DATA)
@pytest.mark.daily_for(case="MVFA", name="MVTecAD")
def test_all_of_anomalibs_verbs_work_as_the_page_says(case, name, tmp_path, caplog):
    data = read(name, tmp_path / "data")
    model, engine = model_of(case, data), case.engine(tmp_path, max_epochs=1)
    if case.method.needs_abnormal:
        with pytest.raises(EmptySplitError, match=f"{case.name} learns from normal and abnormal"):
            engine.fit(model, datamodule=data)
        assert not engine.trainer.global_step
        return
    with caplog.at_level(logging.WARNING, GAPS):
        engine.fit(model, datamodule=data)
    said = [one.message for one in caplog.records if one.name == GAPS]
    alone = any(f"{case.name} learns from normal and abnormal" in one for one in said)
    found = "normal images only" if alone else "works"
    assert table("method")[case.name]["on normal images alone"] == found
    assert table("data")[name]["threshold from"] == WORDS[model.threshold_from.partition(";")[0]]
    path = engine.trainer.checkpoint_callback.best_model_path
    for verb in ("validate", "test", "predict"):
        does = getattr(case.engine(tmp_path), verb)
        does(model_of(case, data), datamodule=data, ckpt_path=path)
    case.engine(tmp_path).export(model_of(case, data), "torch", tmp_path, ckpt_path=path)
    case.engine(tmp_path, max_epochs=1).train(model_of(case, data), datamodule=data)
    image = data.test_data.samples["image_path"].iloc[0]
    assert Inferencer(path).predict(image).label in (True, False)
    options = {"dataset": PredictDataset(image), "ckpt_path": path}
    [found] = case.engine(tmp_path).predict(model_of(case, data), **options)
    assert found.pred_label is not None


@CASE
@pytest.mark.daily_for(case="IQECLIP")
def test_data_without_a_category_need_words_before_the_first_step(case, tmp_path):
    data = folder(tmp_path / "data", num_workers=0)
    engine, model = case.engine(tmp_path / "out", max_epochs=1), case.small()
    if case.method.needs_abnormal and not case.method.names_the_object:
        with pytest.raises(EmptySplitError, match="are all normal"):
            engine.fit(model, datamodule=data)
        return
    if not case.method.names_the_object:
        engine.fit(model, datamodule=data)
        return
    with pytest.raises(NotReadyError, match=r"--model\.object_name"):
        engine.fit(model, datamodule=data)
    assert not engine.trainer.global_step


def mediclip():
    return next(case for case in CASES if case.name == "MediCLIP")


def test_a_few_normal_images_give_scores_and_no_verdict(tmp_path, caplog):
    """Of so few, none is left for validation."""
    for index in range(5):
        picture(tmp_path / "data" / "normal" / f"{index}.png")
    data = Folder(name="few", root=tmp_path / "data", normal_dir="normal", num_workers=0)
    trained = mediclip().fit(tmp_path, epochs=1, data=data)
    assert "no threshold is found" in caplog.text
    assert Inferencer(trained.checkpoint).predict(tmp_path / "data/normal/0.png").label is None


@pytest.fixture
def normal_only(tmp_path):
    """Our own datamodule over normal images."""
    for index in range(30):
        picture(tmp_path / "data" / "normal" / f"{index}.png")
    return MedicalFolder(tmp_path / "data", normal_only=True, num_workers=0)


def test_methods_that_need_both_refuse_normal_images_alone_before_any_step(lesions, tmp_path):
    places = {"abnormal_dir": "abnormal", "mask_dir": "../masks/abnormal", "num_workers": 0}
    for case in (case for case in CASES if case.method.needs_abnormal):
        data = Folder(name="few", root=lesions / "images", normal_dir="normal", **places)
        words = {"object_name": "square"} if case.method.names_the_object else {}
        engine = case.engine(tmp_path / case.name, max_epochs=1)
        said = f"{case.name} learns from .*MedicalFolder, or take a"
        with pytest.raises(EmptySplitError, match=said):
            engine.fit(case.small(**words), datamodule=data)
        assert not engine.trainer.global_step


def test_our_own_folder_takes_normal_images_alone_if_that_is_said(normal_only, tmp_path):
    case, root = mediclip(), tmp_path / "data"
    with pytest.raises(DataRootError, match=r"no images in .*abnormal"):
        MedicalFolder(root).setup()
    trained = case.train(tmp_path, epochs=1, data=normal_only)
    inferencer = Inferencer(trained.checkpoint)
    assert inferencer.origin["threshold_from"].startswith("validation images that are all normal")
    labels = normal_only.val_data.samples["image_path"].map(lambda p: inferencer.predict(p).label)
    assert len(labels) == 5
    assert not labels.any(), "none of those it was found on lies above"
    case.engine(tmp_path).export(case.small(), "torch", tmp_path, ckpt_path=trained.checkpoint)


@CASE
@pytest.mark.daily_for(case="MadCLIP")
def test_normal_images_alone_are_refused_for_methods_that_want_both(case, normal_only, tmp_path):
    if not case.method.wants_abnormal:
        case.fit(tmp_path, epochs=1, data=normal_only)
        return
    with pytest.raises(SupportError, match=f"{case.name} learns from normal and abnormal images"):
        case.fit(tmp_path, data=normal_only)


def test_an_abnormal_image_among_those_called_normal_is_named(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("image,label\na.png,normal\nb.png,abnormal\n")
    with pytest.raises(DataRootError, match=r"b\.png is abnormal.*leave out normal_only"):
        MedicalFolder(table=table, normal_only=True).setup()


def test_a_folder_of_abnormal_images_contradicts_normal_images_alone(lesions):
    with pytest.raises(DataRootError, match=r"abnormal.*is abnormal.*leave out normal_only"):
        MedicalFolder(lesions / "images", normal_only=True).setup()


def test_data_without_a_training_image_are_refused(tmp_path):
    data = folder(tmp_path / "data", num_workers=0)
    data.setup()
    data.train_data.samples = data.train_data.samples.iloc[:0]
    data.setup = lambda stage=None: None
    with pytest.raises(EmptySplitError, match="parts has no images for training"):
        mediclip().fit(tmp_path, data=data)
