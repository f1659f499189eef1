"""What records and checkpoints say of baselines: where weights are from, what was compared with."""

import pytest
import torch
from tiny import RESNET, case_of

from anomalib_medclip.baselines import DRA, CutPaste, PatchSVDD, RegAD, SimpleNet
from anomalib_medclip.baselines.dra.outlier_folder import NOT_TOLD
from anomalib_medclip.baselines.regad.torch_model import RegADModel
from anomalib_medclip.compare.declared import declared_by
from anomalib_medclip.compare.facts import facts_of
from anomalib_medclip.errors import ConfigError, DataRootError
from anomalib_medclip.files import read_json


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of a narrow network's weights."""
    file = tmp_path_factory.mktemp("weights") / "resnet.pt"
    torch.save(case_of(DRA).small().model.network.trunk.state_dict(), file)
    return file


@pytest.mark.parametrize(
    ("method", "random"), [(SimpleNet, True), (DRA, True), (RegAD, True), (CutPaste, False)]
)
def test_weights_are_random_where_none_are_given_and_some_belong(method, random, weights):
    options = {"backbone": RESNET}
    assert declared_by(case_of(method).small(**options)).untrained is random
    assert not declared_by(case_of(method).small(pretrained=str(weights), **options)).untrained


def test_a_network_that_was_never_to_have_others_weights_is_not_untrained():
    assert not declared_by(case_of(PatchSVDD).small()).untrained


@pytest.fixture(scope="module")
def trained(weights, tmp_path_factory):
    """DRA, from weights of a file that was then lost, with pseudo anomalies of a folder."""
    case, file = case_of(DRA), tmp_path_factory.mktemp("lost") / "resnet.pt"
    file.write_bytes(weights.read_bytes())
    outliers = str(case.lesions / "images" / "abnormal")
    options = {"pretrained": str(file), "outlier_root": outliers}
    found = case.train(tmp_path_factory.mktemp("trained"), epochs=1, draws=12, **options)
    file.unlink()
    return found


def test_run_record_and_checkpoint_say_where_weights_are_from(trained):
    said = read_json(trained.home / "run.json")["model"]["options"]
    assert said["pretrained"] == "resnet.pt"
    restored = DRA.load_from_checkpoint(trained.checkpoint)
    assert restored.hparams["pretrained"] == trained.model.hparams["pretrained"]
    assert not declared_by(restored).untrained
    assert not facts_of(trained.model, trained.data, trained.engine).untrained
    given = DRA.load_from_checkpoint(trained.checkpoint, pretrained=None)
    assert given.hparams["pretrained"] is None


def test_pseudo_anomalies_of_a_folder_never_become_others_in_silence(trained, tmp_path):
    restored, case = DRA.load_from_checkpoint(trained.checkpoint), case_of(DRA)
    assert restored.hparams["outlier_root"] == NOT_TOLD
    with pytest.raises(DataRootError, match="give outlier_root again"):
        restored.outliers()
    engine = case.engine(tmp_path, max_epochs=2)
    with pytest.raises(ConfigError, match="give outlier_root"):
        engine.fit(case.small(), datamodule=case.data(), ckpt_path=trained.checkpoint)


def test_what_registration_was_from_is_said_by_its_name(tmp_path):
    case = case_of(RegAD)
    options = {"register": True, "shots": 1, "epochs": 1}
    registered = case.fit(tmp_path, **options).checkpoint
    given = case_of(RegAD).small(registration=str(registered))
    assert given.hparams["registration"] == registered.name
    assert not declared_by(given).untrained


def test_a_memory_is_of_all_normal_images_that_are_trained_on(tmp_path):
    case = case_of(PatchSVDD)
    found = case.fit(tmp_path, epochs=1, data=case.data(normals="train"))
    images = len(found.data.train_data.samples)
    assert images > found.data.k_shot
    vectors = found.model.model.banks["64"].rows
    assert len(vectors) == images  # of this size an image has one patch
    assert facts_of(found.model, found.data, found.engine).trained_on == images


def test_of_more_normal_images_than_a_memory_takes_it_says_how_many(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(RegADModel, "most_normal", 3)
    case = case_of(RegAD)
    found = case.fit(tmp_path, epochs=1, data=case.data(normals="train"))
    images = len(found.data.train_data.samples)
    assert f"compared with 3 of the {images} normal images of training" in caplog.text
    assert len(found.model.model.images) == 3
    assert facts_of(found.model, found.data, found.engine).trained_on == 3


def test_support_images_are_scored_without_their_patients_images_of_training(tmp_path):
    case = case_of(PatchSVDD)
    found = case.fit(tmp_path, epochs=1, data=case.data(normals="train"))
    owners = found.model.support._owners
    support = found.data.support_data.samples
    assert set(map(str, support["image_path"])) <= owners.keys()
    groups = dict(zip(support["image_path"], support["group"], strict=True))
    train = found.data.train_data.samples
    for path, group in groups.items():
        for other in train["image_path"][train["group"] == group]:
            assert owners[str(other)] == owners[str(path)]
