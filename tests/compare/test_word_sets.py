"""Sets of words are compared on the support alone, and only what is sure is marked."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from lightning import Trainer
from sklearn.metrics import roc_auc_score
from tiny import EVEN, OPTIONS, lesion_data, write_lesions

from anomalib_medclip import cli
from anomalib_medclip.clip.towers import ImageTower, TextTower
from anomalib_medclip.commands.prompts import sentences
from anomalib_medclip.compare.word_scores import (
    SetFigure,
    Support,
    _figure,
    _folds,
    _marked,
    _Said,
    compare_words,
)
from anomalib_medclip.compare.word_sets import read_word_sets
from anomalib_medclip.components.words import Words
from anomalib_medclip.data.config import build_data
from anomalib_medclip.errors import ConfigError, ImageReadError
from anomalib_medclip.metrics.clustered import Sample, difference
from anomalib_medclip.metrics.influence import of_auroc
from anomalib_medclip.models.iqeclip import IQECLIP
from anomalib_medclip.models.mvfa import MVFA
from anomalib_medclip.models.plain_clip import PlainCLIP
from anomalib_medclip.readers.picture import read_image

K = 12
CPU = torch.device("cpu")
SETS = {
    "right": {"normal": ["calm {}"], "abnormal": ["marked {}"], "templates": ["{}"]},
    "synonym": {"normal": ["calm {}"], "abnormal": ["marked, {}"], "templates": ["{}"]},
    "wrong": {"normal": ["red {}"], "abnormal": ["blue {}"], "templates": ["{}"]},
    "own": None,
}


def passing(items, count):
    assert count == len(items)
    return items


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Pictures of 20 patients; those to test on cannot be read."""
    home = tmp_path_factory.mktemp("scans")
    write_lesions(home, count=40)
    data = lesion_data(home, k_shot=K)
    data.setup()
    tested = [Path(path) for path in data.test_data.samples["image_path"]]
    assert tested
    for path in tested:
        path.write_bytes(b"no picture")
        with pytest.raises(ImageReadError):
            read_image(path)
    return home


def config_of(scans, tmp_path, k_shot=K, **more):
    columns = {"mask_column": "mask", "patient_column": "patient", "val_ratio": 0.4}
    data = {
        "class_path": "anomalib_medclip.data.MedicalFolder",
        "init_args": {
            "table": str(scans / "table.csv"), "object_name": "square", "k_shot": k_shot,
            "num_workers": 0, **columns,
        },
    }  # fmt: skip
    model = {"class_path": "anomalib_medclip.MVFA", "init_args": OPTIONS}
    path = tmp_path / "words.yaml"
    said = {"data": data, "model": model, "sets": SETS, **more}
    path.write_text(yaml.safe_dump({key: one for key, one in said.items() if one is not None}))
    return path


@pytest.fixture
def planted(monkeypatch, scans):
    """A text tower that knows, of some words, how abnormal images look to the image tower."""
    data = lesion_data(scans, k_shot=K)
    data.setup()
    method, items = MVFA(**OPTIONS), list(data.support_data)
    clip = method.model.clip
    images = torch.cat([method.pre_processor(item.image[None]) for item in items])
    pooled = F.normalize(clip.pool(clip.taps(images, [clip.depth])[:, 0]), dim=-1)
    labels = torch.tensor([bool(item.gt_label) for item in items])
    chance = torch.randn(len(items), generator=torch.Generator().manual_seed(0))
    towards, astray = (
        F.normalize(torch.linalg.pinv(pooled) @ wanted, dim=0)
        for wanted in (labels.float() * 2 - 1, chance)
    )
    nearly = torch.linalg.pinv(pooled) @ (labels.float() * 2 - 1 + chance)
    known = {
        "marked": towards, "calm": -towards, "blue": astray, "red": -astray,
        "spotted": F.normalize(nearly, dim=0), "plain": -F.normalize(nearly, dim=0),
    }  # fmt: skip

    def encode(self, sentences, chunk=64):
        del self, chunk
        usual = torch.ones(len(towards))
        told = [next((known[w] for w in known if w in one), usual) for one in sentences]
        return F.normalize(torch.stack(told), dim=-1)

    monkeypatch.setattr(TextTower, "encode", encode)
    return pooled, labels, known


def test_the_right_words_come_out_on_top_and_are_marked(planted, scans, tmp_path):
    pooled, labels, known = planted
    sets = {name: SETS[name] for name in ("wrong", "right")}
    config = read_word_sets(config_of(scans, tmp_path, sets=sets))
    support, found = compare_words(config, passing, CPU)
    assert [one.name for one in found] == ["right", "wrong"]
    assert [one.best for one in found] == [True, False]
    expected = roc_auc_score(labels, pooled @ (known["blue"] - known["red"]))
    assert found[1].value == pytest.approx(expected)
    assert found[0].low > found[1].high
    assert support.counts["abnormal"]["images"] == K


def test_a_set_equal_in_information_is_not_marked_as_the_best(planted, scans, tmp_path):
    config = read_word_sets(config_of(scans, tmp_path))
    _, found = compare_words(config, passing, CPU)
    values = {one.name: one.value for one in found}
    assert values["right"] == values["synonym"] > values["wrong"]
    assert values["own"] == 0.5  # this tower says the same of all other words
    assert not any(one.best for one in found)


def test_the_highest_is_not_marked_where_the_difference_is_not_clear(planted, scans, tmp_path):
    nearly = {"normal": ["plain {}"], "abnormal": ["spotted {}"], "templates": ["{}"]}
    sets = {"nearly": nearly, "right": SETS["right"]}
    pooled, labels, known = planted
    config = read_word_sets(config_of(scans, tmp_path, sets=sets))
    support, (first, second) = compare_words(config, passing, CPU)
    assert (first.name, second.name) == ("right", "nearly")
    assert first.value > second.value
    assert first.low < second.high
    samples = [
        Sample.of([of_auroc(pooled @ (known[a] - known[b]), labels, support.patients)])
        for a, b in (("marked", "calm"), ("spotted", "plain"))
    ]
    assert difference(*samples).p_value > 0.05
    assert not first.best


def test_a_set_is_marked_for_what_it_adds_in_the_same_patients():
    chance = np.random.default_rng(0).normal(size=60)
    labels, patients = [0, 1] * 30, [str(number) for number in range(60)]
    support = Support([], labels, patients)
    said = _Said(Words(("well",), ("ill",)), "")
    better, worse = (chance + np.array(labels) * shift for shift in (1.0, 0.5))
    found = [_figure(name, said, one, support) for name, one in (("b", better), ("w", worse))]
    first, second = _marked(found)
    assert first.low < second.high  # apart from one another, they could not be told apart
    assert (first.best, second.best) == (True, False)


def test_of_few_patients_nothing_is_marked(planted, scans, tmp_path):
    sets = {name: SETS[name] for name in ("wrong", "right")}
    config = read_word_sets(config_of(scans, tmp_path, k_shot=2, sets=sets))
    support, found = compare_words(config, passing, CPU)
    assert min(one["patients"] for one in support.counts.values()) < 5
    assert found[0].name == "right"
    assert not any(one.best for one in found)


def test_the_command_says_how_many_were_tried_and_writes_what_it_found(scans, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["prompts", str(config_of(scans, tmp_path)), "--out", str(out)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        f"4 sets of words were tried on the support, {K} normal and {K} abnormal images of" in said
    )
    assert "No test image was read" in said
    assert "CLIP's own weights compared each image with the sentences; nothing was trained" in said
    assert "The highest of 4 figures is higher than it will be on other patients" in said
    record = json.loads((out / "prompts.json").read_text())
    assert {one["name"] for one in record["sets"]} == set(SETS)
    right = next(one for one in record["sets"] if one["name"] == "right")
    assert right["words"] == SETS["right"]
    assert right["object_name"] == "square"
    with (out / "prompts.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [one["name"] for one in record["sets"]]
    assert rows[0]["value"] == str(record["sets"][0]["value"])
    page = (out / "prompts.html").read_text()
    assert all(name in page for name in SETS)
    assert str(scans) not in page.replace(record["command"], "")
    assert not [
        one for one in ("patient", "png") if f'"{one}"' in (out / "prompts.json").read_text()
    ]


def test_by_default_it_is_plain_clip_that_is_asked_and_the_scores_are_its_own(scans, tmp_path):
    config = read_word_sets(config_of(scans, tmp_path, model=None))
    assert config.model["class_path"] == "anomalib_medclip.PlainCLIP"
    config.model["init_args"] = {**config.model["init_args"], **OPTIONS}
    _, found = compare_words(config, passing, CPU)
    data = lesion_data(scans, k_shot=K)
    data.setup()
    items = list(data.support_data)
    for one in found:
        method = PlainCLIP(**config.model["init_args"], prompts=SETS[one.name])
        images = torch.cat([method.pre_processor(item.image[None]) for item in items])
        with torch.no_grad():
            text = method.model.prompts(TextTower(method.backbone), "square")
            scores = method.model.score(method.model.encode(images), text).pred_score
        labels = [bool(item.gt_label) for item in items]
        assert one.value == pytest.approx(roc_auc_score(labels, scores))


def test_images_are_encoded_once_for_all_sets(scans, tmp_path, monkeypatch):
    seen = []
    taps = ImageTower.taps

    def counted(self, images, levels):
        seen.append(len(images))
        return taps(self, images, levels)

    monkeypatch.setattr(ImageTower, "taps", counted)
    compare_words(read_word_sets(config_of(scans, tmp_path)), passing, CPU)
    assert sum(seen) == 2 * K


def test_a_model_may_be_trained_without_each_part_of_the_patients(scans, tmp_path, monkeypatch):
    model = {"class_path": "anomalib_medclip.MVFA", "init_args": OPTIONS, "max_epochs": 1}
    sets = {name: SETS[name] for name in ("right", "own")}
    more = {"train": True, "folds": 2, "model": model, "sets": sets}
    config = read_word_sets(config_of(scans, tmp_path, k_shot=4, **more))
    config.data["init_args"]["train_batch_size"] = 8
    fitted, fit = [], Trainer.fit

    def watched(self, method, datamodule):
        fitted.append((method.words.normal[0], datamodule))
        return fit(self, method, datamodule=datamodule)

    monkeypatch.setattr(Trainer, "fit", watched)
    _, found = compare_words(config, passing, CPU)
    assert {one.name for one in found} == {"right", "own"}
    assert [word for word, _ in fitted] == ["{}", "{}", "calm {}", "calm {}"]
    for _, fold in fitted:
        left = set(fold.val_data.samples["group"])
        assert left.isdisjoint(fold.support_data.samples["group"])


def test_each_patient_is_left_out_alone_where_they_are_few(scans, tmp_path):
    model = {"class_path": "anomalib_medclip.MVFA", "init_args": OPTIONS, "max_epochs": 1}
    config = read_word_sets(config_of(scans, tmp_path, k_shot=4, train=True, model=model))
    data = build_data(config.data, "data")
    data.setup()
    patients = sorted({*data.support_data.samples["group"]})
    assert len(patients) == 4
    for asked in (None, len(patients)):
        folds = _folds(asked, data, len(patients))
        left = [sorted({*fold.val_data.samples["group"]}) for fold in folds]
        assert sorted(left) == [[one] for one in patients]
    assert len(_folds(2, data, len(patients))) == 2
    assert len(_folds(None, data, 11)) == 3
    with pytest.raises(
        ConfigError, match=r"folds is 99, and the support of \d patients can be cut"
    ):
        _folds(99, data, len(patients))


def test_that_scores_of_several_trainings_are_mixed_is_said():
    support = Support([], [0, 1], ["a", "b"], trainings=2)
    figures = [SetFigure(name, "", {}, 0.5) for name in ("one", "other")]
    done, _, best = sentences(support, figures)
    assert "trained 2 times with each set, each time without one patient" in done
    assert "A figure mixes the scores of these models" in done
    assert "its interval does not hold by how much trainings differ" in done
    assert best == "No set is marked as the best: a class has fewer than 5 patients"


def test_the_sentences_compared_are_those_of_training(scans, tmp_path):
    named = SETS["right"] | {"object_name": "liver"}
    options = OPTIONS | {"backbone": EVEN}
    model = {"class_path": "anomalib_medclip.IQECLIP", "init_args": options}
    config = read_word_sets(
        config_of(scans, tmp_path, k_shot=2, model=model, sets={"own": None, "named": named})
    )
    _, found = compare_words(config, passing, CPU)
    for one in found:
        prompts = named if one.name == "named" else None
        assert one.words == IQECLIP(**options, prompts=prompts).words.as_plain()
    config.sets["named"] = SETS["right"]
    with pytest.raises(ConfigError, match="write object_name beside the states"):
        compare_words(config, passing, CPU)
    said = {"prompts": {"normal": ["calm {}"], "templates": ["one {}"]}}
    model = {"class_path": "anomalib_medclip.MVFA", "init_args": OPTIONS | said}
    other = {"abnormal": ["ill {}"]}
    config = read_word_sets(
        config_of(scans, tmp_path, k_shot=2, model=model, sets={"own": None, "other": other})
    )
    for one in compare_words(config, passing, CPU)[1]:
        prompts = said["prompts"] if one.name == "own" else other
        assert one.words == MVFA(**OPTIONS, prompts=prompts).words.as_plain()


WRONG = {
    "sets": ({"sets": None}, "sets are no mapping of two names or more"),
    "one set": ({"sets": {"own": None}}, "sets are no mapping of two names"),
    "a number": ({"sets": {"own": None, "one": 3}}, "sets: 'one' is 3; name a file of words"),
    "no data": ({"data": None}, "it names no data"),
    "a slip": ({"set": {}}, "there is no 'set' among data, sets, .*; did you mean 'sets'"),
    "bad words": ({"sets": {"own": None, "b": {"normal": []}}}, "normal is empty"),
    "no words": (
        {"sets": {"own": None, "b": {"kind": "anchors"}}}, "kind is 'anchors', and must be 'fi",
    ),
    "a kind alone": (
        {"sets": {"own": None, "b": {"kind": "fixed"}}}, "'b' says the kind 'fixed' and no words",
    ),
    "nothing to train": (
        {"model": None, "train": True}, "PlainCLIP trains nothing; leave train out",
    ),
    "no file": ({"sets": {"own": None, "b": "no.yaml"}}, "no.yaml', and there is no such file"),
    "folds": ({"folds": 1}, "folds is 1, and must be a whole number of at least 2"),
    "train": ({"train": "yes!"}, "train is 'yes!', and must be true or false"),
    "a stranger": (
        {"model": {"class_path": "anomalib.models.Patchcore"}}, "has no words; take one of .*mvfa",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_config_is_named(case, scans, tmp_path):
    more, said = WRONG[case]
    with pytest.raises(ConfigError, match=said) as error:
        read_word_sets(config_of(scans, tmp_path, **more))
    assert "words.yaml" in str(error.value)
