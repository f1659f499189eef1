"""What records and checkpoints say of baselines: where weights are from, what was compared with."""

from pathlib import Path

import pytest
import torch
from tiny import RESNET, case_of, lesion_data, write_lesions

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


@pytest.mark.daily
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
    said = read_json(trained.home / "run.json")["method"]["options"]
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


@pytest.fixture
def split_data(tmp_path):
    """Pictures of patients in splits, of which all normal ones of training are learnt from."""
    table = write_lesions(tmp_path / "lesions")
    head, *rows = table.read_text().splitlines()
    split = dict.fromkeys(("p0", "p1", "p2"), "train") | {"p3": "valid"}
    rows = [f"{row},{split.get(row.rpartition(',')[2], 'test')}" for row in rows]
    table.write_text("\n".join([f"{head},split", *rows]))
    options = {"split_column": "split", "normals": "train", "train_batch_size": 4}
    return lesion_data(table.parent, **options)


def test_a_memory_is_of_all_normal_images_that_are_trained_on(split_data, tmp_path):
    found = case_of(PatchSVDD).fit(tmp_path, epochs=1, data=split_data)
    assert len(found.data.train_data.samples) == 6
    assert len(found.model.model.banks["64"].rows) == 6  # of this size an image has one patch
    owners = {Path(path).stem: owner for path, owner in found.model.support._owners.items()}
    pairs = {(int(picture) // 4, owner) for picture, owner in owners.items()}
    assert len(pairs) == len({owner for _, owner in pairs}) == 3, "each patient is one owner"
    assert len(owners) == 6 + 2, "abnormal images of the support have no owner"


def test_of_more_normal_images_than_a_memory_takes_it_says_how_many(
    split_data, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(RegADModel, "most_normal", 3)
    found = case_of(RegAD).fit(tmp_path, epochs=1, data=split_data)
    assert "compared with 3 of the 6 normal images of training" in caplog.text
    assert len(found.model.model.images) == 3
    assert facts_of(found.model, found.data, found.engine).trained_on == 3
