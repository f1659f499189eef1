"""Words that a user says for a method's prompts: heard by every method, and kept with its model."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from anomalib.engine import Engine
from tiny import EVEN, METHODS, OPTIONS, lesion_data, small

from anomalib_medclip.clip.towers import TextTower
from anomalib_medclip.compare.named_files import named_files
from anomalib_medclip.components.prompts import PromptEncoder
from anomalib_medclip.errors import CheckpointError, ConfigError
from anomalib_medclip.models.iqeclip import IQECLIP
from anomalib_medclip.models.madclip import MadCLIP
from anomalib_medclip.models.mediclip import MediCLIP
from anomalib_medclip.models.mvfa import MVFA
from anomalib_medclip.models.vcpclip import VCPCLIP
from anomalib_medclip.score.inferencer import Inferencer

# One state each, and as many tokens in both, so that IQE-CLIP takes them, too.
SAID = {"normal": ["quiet {}"], "abnormal": ["broken {}"], "templates": ["a scan of a {}."]}


def text_of(method, name="brain"):
    tower = method.model.text_tower or TextTower(method.backbone)
    with torch.no_grad():
        return method.model.prompts(tower, name)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_hears_the_words_and_without_any_says_its_own(method):
    said = SAID | {"object_name": "brain"}
    usual, other = small(method), small(method, prompts=dict(said))
    assert usual.words is not None
    assert (usual.hparams["prompts"], other.hparams["prompts"]) == (None, said)
    assert other.words.normal[0].startswith("quiet ")
    assert text_of(usual).shape[0] == text_of(other).shape[0] == 2
    assert not torch.equal(text_of(usual), text_of(other))


def test_a_method_with_prompts_of_its_own_refuses_others():
    class Deaf(PromptEncoder):
        def forward(self, tower, object_name=""):
            return torch.eye(2)

    class Own(MVFA):
        def assemble(self, model, few_shot=None):
            model.prompts = Deaf()
            super().assemble(model, few_shot)

    assert Own(**OPTIONS).words is None
    for said in (SAID, {"object_name": "brain"}):
        with pytest.raises(ConfigError, match="Own has prompts of its own; leave prompts out"):
            Own(**OPTIONS, prompts=said)


def test_the_words_decide_whether_an_object_is_named():
    for method in (MVFA, MediCLIP):
        assert small(method, prompts=SAID).names_the_object
        plain = {"normal": ["well"], "abnormal": ["ill"]}
        assert not small(method, prompts=plain).names_the_object
        with pytest.raises(ConfigError, match=r"no state has a \{\} for the object 'brain'"):
            small(method, prompts=plain, object_name="brain")
    with pytest.raises(ConfigError, match="the prompts of MediCLIP name no object"):
        small(MediCLIP, object_name="brain")


def test_iqe_clip_says_one_sentence_of_the_object_it_is_told():
    model = IQECLIP(**OPTIONS | {"backbone": EVEN}, prompts=SAID | {"object_name": "liver"}).model
    assert model.prompts.sentences == ["a scan of a quiet liver.", "a scan of a broken liver."]
    assert model.prompts.start == int(
        model.text_tower.tokenize(model.prompts.sentences)[0].argmax()
    )
    two = {**SAID, "object_name": "liver", "normal": ["quiet {}", "still {}"]}
    with pytest.raises(ConfigError, match="two sentences, and prompts have 2 normal, 1 abnormal"):
        small(IQECLIP, prompts=two)
    longer = {**SAID, "object_name": "liver", "abnormal": ["very broken {}"]}
    with pytest.raises(ConfigError, match="take states of equally many tokens"):
        small(IQECLIP, prompts=longer)


@pytest.mark.parametrize("method", [IQECLIP, VCPCLIP])
def test_no_object_is_left_out_in_silence_where_sentences_are_made_before_any_data(method):
    for said in (SAID, {"normal": SAID["normal"], "abnormal": SAID["abnormal"]}):
        with pytest.raises(
            ConfigError, match=r"prompts: the states have \{\} .* write object_name"
        ):
            small(method, prompts=said)
    by_option = small(method, prompts=SAID, object_name="liver")
    among_words = small(method, prompts=SAID | {"object_name": "liver"})
    for told in (by_option, among_words):
        assert "quiet liver" in told.model.prompts.sentences[0]
    without = {"normal": ["quiet"], "abnormal": ["broken"]}
    assert "quiet" in small(method, prompts=without).model.prompts.sentences[0]
    assert small(method, prompts={"templates": ["a scan of a {}"]}).words.templates


def test_a_file_may_name_the_kind_and_templates_of_contexts_are_said_to_do_nothing(caplog):
    fixed = small(MadCLIP, prompts={**SAID, "kind": "fixed"})
    assert not fixed.model.prompts.learns
    assert not caplog.records
    learnt = small(MadCLIP, prompts=SAID)
    assert learnt.model.prompts.learns
    assert "prompts: templates have no effect, as contexts learn" in caplog.text
    assert [len(one) for one in learnt.model.prompts.ctx.values()] == [1] * 6
    with pytest.raises(ConfigError, match="kind is 'fixed', and must be none for this method"):
        small(IQECLIP, prompts={**SAID, "kind": "fixed"})


# --- what is kept


def trained(home, lesions, method=MVFA, **options):
    shutil.copytree(lesions, home / "lesions")
    words = home / "words.yaml"
    words.write_text(yaml.safe_dump(SAID | {"object_name": "square"}))
    engine = Engine(
        default_root_dir=home, accelerator="cpu", max_epochs=2, enable_progress_bar=False
    )
    model = small(method, prompts=str(words), **options)
    engine.train(model, datamodule=lesion_data(home / "lesions"))
    words.unlink()
    return engine


@pytest.fixture(scope="module")
def run(lesions, tmp_path_factory):
    return trained(tmp_path_factory.mktemp("worded"), lesions)


def checkpoint_of(engine):
    return engine.trainer.checkpoint_callback.best_model_path


def test_a_model_is_scored_by_its_words_where_their_file_is_gone(run, lesions):
    path = checkpoint_of(run)
    again = MVFA.load_from_checkpoint(path)
    assert again.words == run.model.words
    assert again.hparams["prompts"] == SAID | {"object_name": "square"}
    assert again.object_name == "square"
    assert torch.equal(again.model.text, run.model.model.text.cpu())
    assert torch.equal(text_of(again, "square"), again.model.text)
    image = next((lesions / "images").rglob("*.png"))
    assert 0 < Inferencer(path).predict(image).score < 1


def test_the_run_says_its_words_in_full(run, capsys):
    said = json.loads((Path(run.trainer.default_root_dir) / "run.json").read_text())
    assert said["method"]["words"] == {"object_name": "square", **SAID}
    assert "prompts" not in said["method"]["options"]


def test_a_checkpoint_goes_on_with_its_own_words_only(run, lesions):
    engine = Engine(default_root_dir=run.trainer.default_root_dir, accelerator="cpu", logger=False)
    data = lesion_data(lesions)
    with pytest.raises(CheckpointError, match=r"was made with other words, of normal: \['quiet"):
        engine.test(small(MVFA), datamodule=data, ckpt_path=checkpoint_of(run))
    found = engine.test(small(MVFA, prompts=SAID), datamodule=data, ckpt_path=checkpoint_of(run))
    assert "image_AUROC" in found[0]


def test_a_checkpoint_that_names_a_file_of_words_opens_none(run, tmp_path):
    path, words = tmp_path / "model.ckpt", tmp_path / "words.yaml"
    words.write_text(yaml.safe_dump(SAID))
    state = torch.load(checkpoint_of(run), weights_only=True)
    state["hyper_parameters"]["prompts"] = str(words)
    torch.save(state, path)
    for load in (MVFA.load_from_checkpoint, Inferencer):
        with pytest.raises(CheckpointError, match=r"words.yaml' as its prompts, and no file is op"):
            load(path)


@pytest.mark.nightly(
    also="tests/training/test_words.py::test_a_model_is_scored_by_its_words_where_their_file_is_gone"
)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_its_words(method, lesions, tmp_path):
    engine = trained(tmp_path, lesions, method)
    again = method.load_from_checkpoint(checkpoint_of(engine))
    assert again.words == engine.model.words
    with torch.no_grad():
        images = torch.rand(2, 3, 32, 32)
        mine, theirs = engine.model.cpu().eval().model(images), again.eval().model(images)
    assert torch.equal(mine.anomaly_map, theirs.anomaly_map)


def test_a_cell_of_a_comparison_knows_its_words_by_what_is_in_their_file(tmp_path):
    path = tmp_path / "words.yaml"
    path.write_text(yaml.safe_dump(SAID))
    model = {"class_path": "anomalib_medclip.MVFA", "init_args": {"prompts": str(path)}}
    before = named_files(model, [], {})
    path.write_text(yaml.safe_dump(SAID | {"object_name": "brain"}))
    assert before.keys() == named_files(model, [], {}).keys() == {str(path)}
    assert before != named_files(model, [], {})


def test_words_change_nothing_that_is_kept_of_images():
    one, other = (small(MVFA, prompts=said).features for said in (None, SAID))
    assert one._scope == other._scope
