"""A training that was killed, moved and resumed is the training that was not."""

import shlex
import shutil
import signal
import time
from pathlib import Path
from subprocess import DEVNULL

import fresh_process
import pytest
import torch
from command import PROGRAM, SMALL, anomalib, metrics
from lightning.pytorch import Callback
from tiny import CASES

from anomalib_medclip.training.epoch_choice import BestEpoch

CONFIGS = Path(__file__).parents[2] / "configs"
FEW = (
    "train --config configs/demo.yaml --data.patients [2,2,2] --data.slices 4 --data.k_shot 2 "
    f"--data.side 32 {SMALL} --model.visualizer false --model.epoch_choice validation "
    "--trainer.max_epochs 12 --default_root_dir "
)
RUN = "MVFA/phantoms/head/latest"


@pytest.fixture
def home(tmp_path, monkeypatch):
    shutil.copytree(CONFIGS, tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def checkpoint(root):
    [found] = Path(root, RUN).glob("weights/lightning/*.ckpt")
    return found


def killed(root):
    """Kill the command once it has saved an epoch."""
    words = shlex.split(FEW + root)
    with fresh_process.start(PROGRAM, *words, stdout=DEVNULL, stderr=DEVNULL) as process:
        while not list(Path(root).rglob("*.ckpt")) and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    assert process.wait() == -signal.SIGKILL


class Watched(Callback):
    """Has the first epoch chosen, and reads what is saved before training ends."""

    def on_train_epoch_start(self, trainer, pl_module):
        del pl_module
        if trainer.current_epoch == 1:
            (choice,) = (one for one in trainer.callbacks if isinstance(one, BestEpoch))
            choice._best = float("inf")

    def on_train_end(self, trainer, pl_module):
        del pl_module
        self.saved = torch.load(trainer.checkpoint_callback.best_model_path)["state_dict"]


def test_a_kill_after_the_last_epoch_does_not_lose_the_best(tmp_path):
    case, watched = next(one for one in CASES if one.name == "MadCLIP"), Watched()
    trainer = {"callbacks": [watched]}
    trained = case.fit(tmp_path, epochs=2, trainer=trainer, epoch_choice="validation")
    learnt = trained.model.state_dict()
    assert watched.saved
    assert all(torch.equal(value, learnt[name]) for name, value in watched.saved.items())


def test_a_killed_command_goes_on_in_a_folder_that_was_moved(home, monkeypatch):
    anomalib(FEW + "whole", monkeypatch)
    killed("first")
    shutil.move("first", "moved")
    anomalib(f"{FEW}moved --ckpt_path {checkpoint('moved')}", monkeypatch)
    whole, resumed = (torch.load(checkpoint(root)) for root in ("whole", "moved"))
    assert whole["global_step"] == resumed["global_step"] > 0
    for name, learnt in whole["state_dict"].items():
        assert torch.equal(learnt, resumed["state_dict"][name]), name
    assert metrics(Path("whole", RUN)) == metrics(Path("moved", RUN))
    assert not Path("first").exists()
    assert str(home) not in str(whole["callbacks"])
