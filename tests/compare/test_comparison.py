"""A config says what is to be compared; whatever it says wrong, it is told where and what to do."""

import pytest
import yaml
from comparing import MVFA, PATCHCORE, SMALL, cells_of, compare, lesion_entry, write_config

from anomalib_medclip.compare.comparison import build_model, read_config
from anomalib_medclip.errors import ConfigError

DATA = {"there": {"class_path": "anomalib_medclip.data.Phantoms", "init_args": {}}}


def test_what_is_not_said_is_by_default(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({"models": {"MVFA": MVFA}, "data": DATA}))
    config = read_config(path)
    assert (config.k_shot, config.draws, config.seeds, config.tests) == ([4], 1, [0], None)
    assert config.trivial
    assert config.feature_cache > 0


def test_draws_may_differ_from_k_to_k(tmp_path):
    path = write_config(
        tmp_path / "c.yaml", {"MVFA": MVFA}, DATA, k_shot=[2, 4], draws={2: 5, 4: 1}
    )
    config = read_config(path)
    assert [config.draws_of(k) for k in config.k_shot] == [5, 1]


@pytest.mark.parametrize("below", [{}, {"model": {}}], ids=["alone", "below model"])
def test_an_entry_stands_above_the_config_it_names(tmp_path, below):
    found = {"class_path": "anomalib_medclip.MVFA", "init_args": {"lr": 1.0, "image_size": 32}}
    (tmp_path / "folder").mkdir()
    whole = {"model": found} if below else found
    (tmp_path / "folder" / "model.yaml").write_text(yaml.safe_dump(whole))
    entry = {"config": "folder/model.yaml", "init_args": {"lr": 0.5}}
    config = read_config(write_config(tmp_path / "c.yaml", {"MVFA": entry}, DATA))
    merged = config.models["MVFA"]
    assert merged["class_path"] == "anomalib_medclip.MVFA"
    assert merged["init_args"] == {"lr": 0.5, "image_size": 32}


WRONG = {
    "an unknown key": ({"modles": 1}, "Option 'modles' is not accepted"),
    "an unknown key of a model": ({"models": {"A": {**MVFA, "epochs": 1}}}, "epochs"),
    "normals there are not": (
        {"models": {"A": {**MVFA, "normals": ["all"]}}},
        "'support', 'train'",
    ),
    "draws of another K": ({"draws": {4: 1}}, r"K of \[4\], and k_shot is \[2\]; name each"),
    "no draw": ({"draws": 0}, "draws from 1 up"),
    "no K": ({"k_shot": []}, "need one or more"),
    "K of nothing": ({"k_shot": [0]}, "K and draws from 1 up"),
    "draws of nothing": ({"draws": None}, "K and draws from 1 up"),
    "no seed": ({"seeds": []}, "need one or more"),
    "a K twice": ({"k_shot": [2, 2]}, "twice; name each once"),
    "a seed twice": ({"seeds": [1, 1]}, "twice; name each once"),
    "tests on unknown data": ({"tests": {"there": ["gone"]}}, "gone, not among data; name some"),
    "tests on nothing": ({"tests": {"there": []}}, "no test data; name some of there"),
    "a number for a name": ({"models": {7: MVFA}}, "the name 7 is no text; put it in quotes"),
    "nothing for a name": ({"tests": {None: ["there"]}}, "the name None is no text"),
    "no data": ({"data": {}}, "compares nothing; give it models and data"),
    "no models": ({"models": {}}, "compares nothing; give it models and data"),
    "no class": (
        {"models": {"A": {"init_args": {}}}},
        "neither class_path nor config; give it one",
    ),
    "a config that is not there": (
        {"models": {"A": {"config": "gone.yaml"}}},
        "correct its 'config'",
    ),
    "a config that is none": ({"models": {"A": {"config": "list.yaml"}}}, "no config of a model"),
    "options that are none": ({"data": {"A": {"config": "options.yaml"}}}, "no config of a data"),
    "a config that is deep": ({"models": {"A": {"config": "deep.yaml"}}}, "nested too deeply"),
    "a config of broken text": ({"data": {"A": {"config": "broken.yaml"}}}, "no config of a data"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_config_is_refused_by_name(case, tmp_path):
    (tmp_path / "list.yaml").write_text("[1, 2]")
    (tmp_path / "broken.yaml").write_text("a: [1")
    (tmp_path / "deep.yaml").write_text("[" * 500)
    (tmp_path / "options.yaml").write_text("{class_path: a.B, init_args: [1, 2]}")
    options, words = WRONG[case]
    path = write_config(tmp_path / "c.yaml", **{"models": {"MVFA": MVFA}, "data": DATA, **options})
    with pytest.raises(ConfigError, match=words) as caught:
        read_config(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1, 2]", "a: [1", "models: 3\ndata: {}"])
def test_a_file_that_is_no_comparison_is_refused_by_name(text, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"(?s)is no comparison: .*; compare it with"):
        read_config(path)


def test_a_missing_config_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r"no config .*nowhere.yaml; give a file like those that"):
        read_config(tmp_path / "nowhere.yaml")


MODELS = {
    "an unknown class": (
        {"class_path": "anomalib_medclip.Nope"},
        "has no 'Nope'; it has .*MVFA.*; models: .*mvfa",
    ),
    "no model at all": ({"class_path": "collections.Counter"}, "not correspond to a subclass"),
    "an unknown option": ({"init_args": {**SMALL, "nope": 1}}, "Option 'nope' is not accepted"),
    "an option of another type": ({"init_args": {**SMALL, "lr": "fast"}}, "lr"),
}


@pytest.mark.parametrize("case", MODELS)
def test_a_model_that_cannot_be_built_is_refused_before_anything_runs(case, lesions, tmp_path):
    wrong, words = MODELS[case]
    models, data = {"Mine": {**MVFA, **wrong}}, {"phantom": lesion_entry(lesions)}
    with pytest.raises(ConfigError, match=rf"(?s)c\.yaml: model Mine: .*{words}.*; correct it"):
        cells_of(tmp_path / "c.yaml", models, data)


def test_a_class_may_be_given_by_its_name_alone(lesions, tmp_path):
    data, found = {"phantom": lesion_entry(lesions)}, []
    for class_path in ("Patchcore", "anomalib.models.Patchcore"):
        model = {"PatchCore": {**PATCHCORE, "class_path": class_path}}
        found.append(cells_of(tmp_path / "c.yaml", model, data))
    assert found[0] == found[1]
    config = found[0][0].model_config
    assert (
        type(build_model({k: config[k] for k in ("class_path", "init_args")})).__name__
        == "Patchcore"
    )


@pytest.mark.parametrize("wrong", ["config", "data", "model"])
def test_the_command_says_what_is_wrong_and_runs_nothing(wrong, lesions, tmp_path, capsys):
    models, data = {"Mine": MVFA}, {"phantom": lesion_entry(lesions)}
    if wrong == "data":
        data = {"phantom": lesion_entry(tmp_path / "gone")}
    if wrong == "model":
        models = {"Mine": {**MVFA, "init_args": {"nope": 1}}}
    path = write_config(tmp_path / "c.yaml", models, data)
    said = {"config": "no config", "data": "no table", "model": "'nope' is not accepted"}[wrong]
    assert compare(tmp_path / "gone.yaml" if wrong == "config" else path, tmp_path / "out") == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [["--shard", "2/2"], ["--shard", "x"], ["--jobs", "0"]])
def test_words_that_fit_nothing_are_refused(words, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        compare(tmp_path / "c.yaml", tmp_path / "out", *words)
    assert caught.value.code == 2
    assert words[0] in capsys.readouterr().err
