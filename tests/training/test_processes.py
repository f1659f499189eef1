"""Two processes do together what one does; where they cannot, they say so, and all of them end."""

import os
import shutil
import signal
import subprocess
import time
from itertools import product, zip_longest
from pathlib import Path
from subprocess import DEVNULL
from types import SimpleNamespace
from typing import get_args

import pytest
import several
import torch
import yaml
from command import PROGRAM, metrics, pictures
from comparing import lesion_entry
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.strategies import DDPStrategy
from tiny import METHODS, OPTIONS, Training, write_lesions
from torch.utils.data import DataLoader, DistributedSampler

from anomalib_medclip.clip.backbone import without_clip
from anomalib_medclip.components.threshold import CROSS_FITTED
from anomalib_medclip.data.bmad import Category
from anomalib_medclip.errors import ConfigError
from anomalib_medclip.models import get_model
from anomalib_medclip.training.processes import (
    EachInTurn,
    PartOfEach,
    Processes,
    _shared,
    is_shared,
)
from anomalib_medclip.training.stopping import TidyStop

batches = st.lists(st.lists(st.integers(), min_size=1, max_size=9), max_size=9)
worlds = st.integers(1, 5)

LEARNING = [method for method in METHODS if method.learns]
"""Processes cannot train what learns nothing, and say so."""

FROM_LABELS = [
    method for method in LEARNING if "learns_from_labels_alone" not in Training.of(method).exempt
]


@given(batches=batches, world=worlds)
def test_parts_of_a_batch_are_the_batch_and_as_long_as_one_another(batches, world):
    parts = [list(PartOfEach(batches, rank, world)) for rank in range(world)]
    assert {len(PartOfEach(batches, rank, world)) for rank in range(world)} == {len(batches)}
    for batch, of_ranks in zip(batches, zip(*parts, strict=True), strict=True):
        together = [image for part in of_ranks for image in part]
        times = 1 if len(batch) % world == 0 else world
        assert sorted(together) == sorted(batch * times)
        assert len({len(part) for part in of_ranks}) == 1


@given(batches=batches, world=worlds)
def test_batches_are_dealt_out_in_turn_none_twice_and_whole(batches, world):
    dealt = [EachInTurn(batches, rank, world) for rank in range(world)]
    assert [len(one) for one in dealt] == [len(list(one)) for one in dealt]
    turns = zip_longest(*dealt)
    assert [batch for turn in turns for batch in turn if batch is not None] == batches


def trainer(**said):
    usual = {"world_size": 2, "global_rank": 1, "training": False}
    return SimpleNamespace(**{**usual, **said})


def test_fewer_batches_than_processes_are_evaluated_by_all():
    loader = DataLoader(range(5), batch_size=4)
    assert [len(batch) for batch in _shared(trainer(), loader)] == [1]
    assert _shared(trainer(world_size=3), loader) is loader


def test_what_others_have_shared_out_is_not_shared_again():
    sampler = DistributedSampler(range(8), 2, 1)
    loader = DataLoader(range(8), batch_size=2, sampler=sampler)
    assert _shared(trainer(training=True), loader) is loader
    assert is_shared(loader)
    assert not is_shared(DataLoader(range(8)))
    assert _shared(trainer(), ["any", "batches"]) == ["any", "batches"]


def test_a_batch_that_cannot_be_divided_is_told_of(caplog):
    _shared(trainer(training=True), DataLoader(range(8), batch_size=4))
    assert not caplog.text
    _shared(trainer(training=True), DataLoader(range(8), batch_size=1))
    assert "a training batch of 1 cannot be divided among 2 processes" in caplog.text


def refused(strategy, module, verb="fit"):
    """What is said of processes that cannot work together."""
    told = trainer(strategy=strategy, state=SimpleNamespace(fn=verb))
    with pytest.raises(ConfigError) as error:
        Processes().setup(told, module, verb)
    return str(error.value)


def test_what_processes_cannot_do_together_is_refused():
    learns = torch.nn.Linear(1, 1)
    assert "pass --trainer.strategy ddp" in refused(SimpleNamespace(), learns, "test")
    assert "begun by fork give back weights" in refused(DDPStrategy(start_method="fork"), learns)
    assert "nothing in Identity learns" in refused(DDPStrategy(), torch.nn.Identity())


# --- two processes and one


def entry(method, **options):
    """A small model; steps of a size at which rounding stays what it is."""
    given = {**OPTIONS, **Training.of(method).options, "lr": 1e-3, "visualizer": False, **options}
    return {"class_path": f"{method.__module__}.{method.__name__}", "init_args": given}


@pytest.fixture(scope="session")
def many(tmp_path_factory):
    """Pictures, and tables of the first so many of them."""
    folder = write_lesions(tmp_path_factory.mktemp("many"), count=20).parent
    lines = (folder / "table.csv").read_text().splitlines()
    for count in (37, 38, 39):
        (folder / f"{count}.csv").write_text("\n".join(lines[: count + 1]))
    return folder


def lesions_of(folder, count=39, **options):
    """The first so many pictures."""
    table = str(folder / f"{count}.csv")
    return lesion_entry(folder, table=table, **{"k_shot": 2, "train_batch_size": 8, **options})


def both(home, **asked):
    """What one process finds, and what two find."""
    return [several.run(home / str(world), world, **asked) for world in (1, 2)]


def assert_alike(one, two, model):
    """Two processes have trained as one does, but for rounding, which Adam makes larger."""
    assert two.of("steps") == one.of("steps")
    assert two.of("folder") == one.of("folder")
    loss = one.of("loss")  # none, where no batch teaches anything
    assert two.of("loss") == (loss if None in loss else pytest.approx(loss, rel=1e-4))
    start = without_clip(several.made(model).state_dict())
    names = [n for n, p in several.made(model).named_parameters() if p.requires_grad]
    way, apart = (
        torch.cat([(found.state[n] - other[n]).flatten() for n in names]).norm()
        for found, other in ((one, start), (two, one.state))
    )
    assert apart <= 5e-3 * way
    assert one.state.keys() == two.state.keys()
    for name in one.state.keys() - set(names):  # thresholds, scales and, in float16, a memory bank
        torch.testing.assert_close(
            two.state[name], one.state[name], atol=1e-3, rtol=0, equal_nan=True, msg=name
        )
    assert_figures(one, two, 1e-5)
    for name, row in one.table().items():
        assert float(two.table()[name]["raw_score"]) == pytest.approx(
            float(row["raw_score"]), abs=1e-4
        )


def assert_figures(one, two, tolerance):
    """Figures and images of two processes are those of one, each image once and in its place."""
    for first, second in zip(one.of("figures"), two.of("figures"), strict=True):
        assert first == [pytest.approx(found, abs=tolerance) for found in second]
    assert list(two.table()) == list(one.table())
    lines = (two.folders[-1] / "test_scores.csv").read_text().splitlines()
    assert len(lines) == 1 + len(one.table())
    assert_metrics(two.folders[-1], one.folders[-1], tolerance)


def assert_metrics(folder, other, tolerance):
    """Both say the same in ``test_metrics.json``, figures within a tolerance."""
    said, expected = metrics(folder), metrics(other)
    assert said.keys() == expected.keys()
    for name, figure in expected.items():
        near = pytest.approx(figure, abs=tolerance) if isinstance(figure, float) else figure
        assert said[name] == near


@pytest.mark.daily_for(method="IQECLIP")
@pytest.mark.parametrize("method", LEARNING)
def test_two_processes_learn_from_many_sets_what_one_does(method, bmad_tree, tmp_path):
    """Masks are all in the first process's batches; of IQE-CLIP no loss reaches everything."""
    for name in get_args(Category):
        bmad_tree(name, tmp_path / "BMAD", count=5)
    options = {
        "root": str(tmp_path / "BMAD"), "category": "Liver", "num_workers": 0,
        "train_batch_size": 4, "eval_batch_size": 16,
    }  # fmt: skip
    data = {"class_path": "anomalib_medclip.data.BMADLeaveOneOut", "init_args": options}
    model, trainer = entry(method, visualizer=True), {"max_epochs": 2, "enable_progress_bar": True}
    one, two = both(tmp_path, model=model, doing=[["train", data, {}]], trainer=trainer)
    assert_alike(one, two, model)
    [run] = two.folders
    assert {place.name for place in run.parent.iterdir()} == {"v0", "latest"}
    assert run.with_name("latest").readlink() == Path("v0")
    assert len(pictures(run)) == len(two.table())


@pytest.mark.nightly(
    also="tests/training/test_processes.py::test_two_processes_learn_from_many_sets_what_one_does"
)
@pytest.mark.parametrize(
    ("method", "masks"), [*product(LEARNING, ["mask"]), *product(FROM_LABELS, [None])]
)
def test_two_processes_learn_what_one_does(method, masks, many, tmp_path):
    model = entry(method, epoch_choice="validation")
    data = lesions_of(many, mask_column=masks)
    trainer = {"max_epochs": 2, "enable_progress_bar": True}
    one, two = both(tmp_path, model=model, doing=[["train", data, {}]], trainer=trainer)
    assert_alike(one, two, model)


@pytest.mark.nightly(
    also="tests/training/test_processes.py::test_two_processes_learn_from_many_sets_what_one_does"
)
@pytest.mark.parametrize("method", LEARNING)
def test_two_processes_find_thresholds_on_the_support_as_one_does(method, many, tmp_path):
    model = entry(method, cross_fit=True)
    data = lesions_of(many, k_shot=4, val_ratio=0.1, train_batch_size=16)
    one, two = both(tmp_path, model=model, doing=[["train", data, {}]], trainer={"max_epochs": 2})
    assert_alike(one, two, model)
    assert metrics(two.folders[0])["threshold_from"] == CROSS_FITTED


@pytest.mark.nightly(
    also="tests/training/test_processes.py::test_two_processes_learn_from_many_sets_what_one_does"
)
def test_what_cannot_be_divided_is_learnt_as_by_one_to_the_bit(many, tmp_path):
    model = entry(get_model("mvfa"))
    doing = [["train", lesions_of(many, k_shot=1, train_batch_size=1), {}]]
    one, two = both(tmp_path, model=model, doing=doing, trainer={"max_epochs": 1})
    assert_alike(one, two, model)
    assert all(torch.equal(value, two.state[name]) for name, value in one.state.items())
    assert list(two.table().items()) == list(one.table().items())


def different_tests(many, **options):
    """Tests of even and odd numbers of images in batches that divide them or do not."""
    sizes = ((39, 1), (38, 3), (37, 4), (39, 16))
    return [
        ["test", lesions_of(many, count, eval_batch_size=size), options] for count, size in sizes
    ]


def assert_same(one, two):
    """Two processes give each image the score that one gives it, to the bit, and the figures."""
    assert two.of("figures") == one.of("figures")
    sizes = [len(one.table(number)) for number in range(len(one.folders))]
    assert {size % 2 for size in sizes} == {0, 1}
    for number in range(len(sizes)):
        assert list(two.table(number).items()) == list(one.table(number).items())
    assert_figures(one, two, 0)


def test_two_processes_test_a_checkpoint_as_one_does(finished, many, tmp_path):
    model = {"class_path": "anomalib_medclip.MVFA", "init_args": {**OPTIONS, "visualizer": False}}
    assert_same(*both(tmp_path, model=model, doing=different_tests(many, ckpt_path=str(finished))))


@pytest.mark.nightly(
    also="tests/training/test_processes.py::test_two_processes_test_a_checkpoint_as_one_does"
)
@pytest.mark.parametrize("method", LEARNING)
def test_whoever_has_trained_the_other_tests_and_goes_on(method, many, tmp_path):
    """A checkpoint of one process is tested by two, and they go on from it; and the reverse."""
    model = entry(method)
    asked = {"model": model, "doing": [["fit", lesions_of(many), {}]], "trainer": {"max_epochs": 1}}
    found = both(tmp_path / "first", **asked)
    for number, first in enumerate(found):
        [checkpoint] = first.home.rglob("*.ckpt")
        doing = different_tests(many, ckpt_path=str(checkpoint))
        assert_same(*both(tmp_path / f"tested {number}", model=model, doing=doing))
        more = [["train", lesions_of(many), {"ckpt_path": str(checkpoint)}]]
        longer = {"model": model, "doing": more, "trainer": {"max_epochs": 2}}
        assert_alike(*both(tmp_path / f"on {number}", **longer), model)


@pytest.mark.nightly(
    also="tests/training/test_processes.py::test_two_processes_test_a_checkpoint_as_one_does"
)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("WinCLIP", {**OPTIONS, "k_shot": 2, "visualizer": False}),
        ("MeanIntensity", {"visualizer": False}),
        ("ImageSize", {"visualizer": False}),
    ],
)
def test_two_processes_test_a_baseline_as_one_does(name, options, many, tmp_path):
    """Two processes cannot train what learns nothing, and say so; WinCLIP needs no training."""
    model = {"class_path": f"anomalib_medclip.baselines.{name}", "init_args": options}
    asked = {"model": model, "doing": [["train", lesions_of(many), {}]]}
    trained = several.run(tmp_path / "trained", 1, **asked)
    if name == "WinCLIP":
        assert_same(*both(tmp_path, model=model, doing=different_tests(many)))
        return
    for status, error in several.ended(several.start(tmp_path / "refused", 2, **asked)):
        assert status == 1
        assert f"nothing in {name} learns" in error.replace("\n", " ")
    [checkpoint] = trained.home.rglob("*.ckpt")
    doing = different_tests(many, ckpt_path=str(checkpoint))
    one, two = both(tmp_path, model=model, doing=doing)
    assert two.of("figures") == one.of("figures")


# --- what ends processes


def test_an_error_stops_the_processes_that_were_begun():
    told = []
    strategy = SimpleNamespace(launcher=SimpleNamespace(kill=told.append))
    handlers = SimpleNamespace(teardown=lambda: None)
    trainer = SimpleNamespace(strategy=strategy, _signal_connector=handlers)
    TidyStop().on_exception(trainer, None, ValueError())
    assert told == [signal.SIGTERM]


def test_what_stops_one_process_stops_both(finished, many, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(many, folder)
    model = {"class_path": "anomalib_medclip.MVFA", "init_args": {**OPTIONS, "visualizer": False}}
    entry_of_data = lesions_of(folder, eval_batch_size=1)
    data = several.made(entry_of_data)
    data.setup()
    second = Path(data.test_data.samples.image_path[1])  # which the second process reads
    second.write_bytes(second.read_bytes()[:60])
    doing = [["test", entry_of_data, {"ckpt_path": str(finished)}]]
    begun_at = time.monotonic()
    (first, _), (status, error) = several.ended(
        several.start(tmp_path / "two", 2, model=model, doing=doing)
    )
    assert first
    assert status
    assert "ImageReadError" in error
    assert time.monotonic() - begun_at < 60


@pytest.mark.nightly(
    also="tests/training/test_processes.py::test_what_stops_one_process_stops_both"
)
def test_the_command_begins_its_processes_and_ends_them(many, tmp_path):
    whole = trained_by_command(tmp_path / "whole", many, "--trainer.devices", "1")
    two = trained_by_command(tmp_path / "two", many, *TWO)
    assert_metrics(two, whole, 1e-5)
    assert {place.name for place in two.parent.iterdir()} == {"v0", "latest"}
    stopped = begun(tmp_path / "stopped", many, *TWO)
    while not list(tmp_path.glob("stopped/**/*.ckpt")) and stopped.poll() is None:
        time.sleep(0.01)
    stopped.terminate()
    assert stopped.wait(several.PATIENCE) == 143
    until_nobody_is_left(stopped)
    [checkpoint] = tmp_path.glob("stopped/**/*.ckpt")
    goes_on = trained_by_command(tmp_path / "on", many, f"--ckpt_path={checkpoint}")
    assert_metrics(goes_on, whole, 1e-5)


TWO = "--trainer.devices", "2", "--trainer.strategy", "ddp"


def begun(home, many, *more):
    """``anomalib train``, as a user begins it, in a session of its own."""
    config = home.with_suffix(".yaml")
    whole = {"model": entry(get_model("mvfa")), "data": lesions_of(many, eval_batch_size=4)}
    config.write_text(yaml.safe_dump(whole))
    words = [
        PROGRAM, "train", "--config", config, "--default_root_dir", home,
        "--trainer.max_epochs", "8", "--trainer.accelerator", "cpu", *more,
    ]  # fmt: skip
    return subprocess.Popen(words, stdout=DEVNULL, stderr=DEVNULL, start_new_session=True)


def trained_by_command(home, many, *more):
    """The folder of a run that was not disturbed."""
    process = begun(home, many, *more)
    try:
        assert process.wait(several.PATIENCE) == 0
    finally:
        until_nobody_is_left(process)
    [run] = home.glob("MVFA/*/latest")
    return run


def until_nobody_is_left(process):
    """Wait until all processes of a session have ended; those that have not, when time is up."""
    for _ in range(200):
        if not left_of(process.pid):
            return
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    pytest.fail("processes are left")


def left_of(session):
    """Processes of a session; dead ones whose parents are dead may stay listed."""
    words = ["ps", "-s", str(session), "-o", "stat="]
    said = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    return [state for state in said.split() if not state.startswith("Z")]
