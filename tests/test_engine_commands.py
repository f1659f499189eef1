"""anomalib's own command and ours, as a person meets them: what they say, and what goes wrong."""

from pathlib import Path

import pytest
import yaml
from command import metrics
from comparing import lesion_entry
from terminal import ANOMALIB, OURS, in_terminal, piped
from tiny import SHALLOW

from anomalib_medclip import cli
from anomalib_medclip.commands import engine
from anomalib_medclip.signals import Stopped

MODEL = {"class_path": "anomalib_medclip.MVFA", "init_args": {**SHALLOW, "cross_fit": False}}
CPU = ["--trainer.accelerator", "cpu"]
DOORS = {"anomalib": ANOMALIB, "ours": OURS}


@pytest.fixture(scope="module")
def home(lesions, tmp_path_factory):
    """A folder with a config of a run, one of its data alone, and a picture that is none."""
    home = tmp_path_factory.mktemp("home")
    data = lesion_entry(lesions, k_shot=2)
    run = {"model": MODEL, "data": data, "trainer": {"max_epochs": 2, "accelerator": "cpu"}}
    (home / "run.yaml").write_text(yaml.safe_dump(run))
    (home / "data.yaml").write_text(yaml.safe_dump(data))
    (home / "broken").mkdir()
    (home / "broken" / "one.png").write_bytes(b"no picture")
    return home


def words_of(door, *options):
    """A training by either door, with options before and after the config."""
    if door == "ours":
        return ["train", *options, "run.yaml", *CPU]
    return ["train", "--config", "run.yaml", *options, *CPU]


@pytest.fixture(scope="module")
def name(lesions):
    """Of the data, in results."""
    return lesions.name


@pytest.fixture(scope="module")
def shown(home):
    """Exit status and lines of a training: of anomalib's in a pipe, of ours on a terminal."""
    return {
        "anomalib": piped(ANOMALIB, words_of("anomalib"), cwd=home),
        "ours": in_terminal(OURS, words_of("ours"), cwd=home),
    }


@pytest.fixture(scope="module")
def checkpoint(home, name, shown):
    """The checkpoint of the second training, as a word of the command line."""
    assert [code for code, _ in shown.values()] == [0, 0], shown
    return f"results/MVFA/{name}/v1/weights/lightning/model.ckpt"


@pytest.mark.parametrize("door", DOORS)
def test_a_training_is_told_in_few_lines_and_none_twice(door, shown, name):
    code, lines = shown[door]
    assert code == 0, lines
    told = [line.strip() for line in lines if line.strip()]
    assert len(lines) <= 40, lines
    logged = told[: told.index(f"MVFA on {name}; research use only")]
    assert len(logged) == len(set(logged)), lines
    whole = "\n".join(lines)
    for word in ("faiss", "FLOPs", "DataLoader 0", "eval mode", "LeafSpec", "callbacks"):
        assert word not in whole
    assert any(line.startswith("pixel") and "AUROC" in line for line in told)
    assert any(line.split()[:3] == ["threshold", "0.500", "from"] for line in told)
    # Of one of the streams, which are read one after the other, it is the last.
    assert [line for line in told if line.startswith(f"in results/MVFA/{name}/v")]


def test_a_terminal_has_one_bar_for_training_and_one_for_the_test(shown):
    bars = [line for line in shown["ours"][1] if "left" in line and "━" in line]
    assert [bar.split()[0] for bar in bars] == ["trained", "testing"], bars
    assert not [line for line in shown["anomalib"][1] if "━" in line]


def test_a_model_comes_from_its_checkpoint_and_data_from_either_config(checkpoint, home, name):
    runs = home / "results" / "MVFA" / name
    before = (runs / "v1" / "run.json").read_bytes()
    code, lines = piped(OURS, ["test", "data.yaml", *CPU, checkpoint], cwd=home)
    assert code == 0, lines
    assert f"in results/MVFA/{name}/test/v0: " in "\n".join(lines)
    assert metrics(runs / "test" / "latest") == metrics(runs / "v1")
    assert (runs / "v1" / "run.json").read_bytes() == before
    assert (runs / "latest").readlink() == Path("v1")


def test_a_prediction_and_an_export_need_a_checkpoint_alone(checkpoint, home, lesions, name):
    picture = next((lesions / "images").iterdir())
    code, lines = piped(OURS, ["predict", checkpoint, picture, *CPU], cwd=home)
    assert code == 0, lines
    assert (home / "results/MVFA/predict/latest/predict_scores.csv").is_file()
    code, lines = piped(OURS, ["export", "--export_type", "torch", checkpoint], cwd=home)
    assert code == 0, lines
    assert len(lines) <= 15, lines
    assert (home / f"results/MVFA/{name}/v1/weights/torch/model.json").is_file()


FULL = """
import errno, sys
from anomalib_medclip import files
def full(path):
    raise OSError(errno.ENOSPC, "No space left on device", str(path))
files.flush = full
sys.argv[0] = "anomalib"
"""
FULL_DOORS = {
    "anomalib": ("-c", FULL + "from anomalib.cli.cli import main; main()"),
    "ours": ("-c", FULL + "from anomalib_medclip.cli import main; sys.exit(main(sys.argv[1:]))"),
}

WRONG = {
    "missing weights": (["--model.pretrained", "nowhere.pt"], "nowhere.pt"),
    "missing data": (["--data.table", "nowhere.csv"], "nowhere.csv"),
    "no such value": (["--data.k_shot", "1000"], "k_shot"),
    "full disk": ([], "takes no more: No space left on device; make room"),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("fault", WRONG)
def test_an_error_of_ours_is_one_line_at_the_end(fault, door, home):
    options, named = WRONG[fault]
    doors = FULL_DOORS if fault == "full disk" else DOORS
    given = [*options, "--default_root_dir", "aside"]
    code, lines = piped(doors[door], words_of(door, *given), cwd=home)
    assert code == 2, lines
    assert lines[-1].startswith("error: ")
    assert named in lines[-1]
    assert "Traceback" not in "\n".join(lines)
    assert len(lines) <= 12 or fault == "full disk", lines


def test_a_broken_image_is_one_line_wherever_it_is_read(home, lesions, tmp_path):
    """Processes that read images send their traceback along."""
    table = (lesions / "table.csv").read_text()
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("images", "masks"):
        (folder / name).symlink_to(lesions / name)
    first, *_ = [line for line in table.splitlines()[1:]]
    bad = first.split(",")[0]
    (folder / "broken.png").write_bytes((lesions / bad).read_bytes()[:40])
    (folder / "table.csv").write_text(table.replace(bad, "broken.png"))
    entry = lesion_entry(folder, k_shot=2, num_workers=2)
    config = {"model": MODEL, "data": entry, "trainer": {"max_epochs": 1, "accelerator": "cpu"}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    for door, program in DOORS.items():
        code, lines = piped(program, words_of(door), cwd=tmp_path)
        assert code == 2, lines
        assert lines[-1].startswith("error: ")
        assert "broken.png" in lines[-1]
        assert "Traceback" not in "\n".join(lines)


REFUSED = {
    "wrong flag": (["train", "run.yaml", "--data.k_shto", "2"], "there is no option k_shto"),
    "no such option": (["train", "run.yaml", "--nonsense", "2"], "there is no option --nonsense"),
    "no number": (["train", "run.yaml", "--trainer.max_epochs", "few"], "trainer.max_epochs"),
    "no config": (["train"], "no config was given; give one config: anomalib-medclip train"),
    "missing config": (["train", "none.yaml"], "no data config none.yaml"),
    "no model": (["train", "data.yaml"], "add --model MVFA"),
    "no checkpoint": (["test", "data.yaml"], "give one checkpoint, a file that ends in .ckpt"),
    "missing checkpoint": (["test", "none.ckpt", "data.yaml"], "there is no checkpoint none.ckpt"),
    "no data": (["test", "CKPT"], "give a data config"),
    "missing images": (["predict", "CKPT", "none.png"], "there is no picture or folder none.png"),
    "broken image": (["predict", "CKPT", "broken", *CPU], "one.png"),
    "no kind": (["export", "CKPT"], "give --export_type"),
}


@pytest.fixture
def in_home(home, monkeypatch):
    monkeypatch.chdir(home)


@pytest.mark.parametrize("fault", REFUSED)
def test_what_is_wrong_is_said_in_one_line_with_a_remedy(fault, checkpoint, in_home, capsys):
    words, said = REFUSED[fault]
    assert cli.main([checkpoint if word == "CKPT" else word for word in words]) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("error: ")
    assert said in last


def test_a_traceback_is_shown_only_if_it_is_asked_for(in_home, capsys):
    assert cli.main(["test", "--debug", "data.yaml"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("Traceback")
    assert told.splitlines()[-1].startswith("error: ")
    assert cli.main(["test", "data.yaml"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_an_error_of_another_package_is_not_made_less(monkeypatch):
    def fails(*given):
        raise ZeroDivisionError

    monkeypatch.setattr(engine, "fault_of", fails)
    with pytest.raises(ZeroDivisionError):
        cli.main(["test", "a.ckpt", "--data", "data.yaml"])


@pytest.mark.parametrize(
    ("is_said", "told"), [(True, ""), (False, "stopped; the same command begins again")]
)
def test_a_stop_says_once_how_to_go_on(is_said, told, monkeypatch, capsys):
    def stopped(*given):
        raise Stopped(2, is_said=is_said)

    monkeypatch.setattr(engine, "read_checkpoint", stopped)
    monkeypatch.setattr(engine, "fault_of", lambda path: None)
    assert cli.main(["test", "a.ckpt", "data.yaml"]) == 130
    assert capsys.readouterr().err.strip() == told


@pytest.mark.parametrize("verb", cli.ENGINE)
def test_help_says_how_it_is_used(verb, capsys):
    assert cli.main([verb, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: anomalib-medclip {verb} C")
