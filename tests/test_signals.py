"""Commands that are told to stop end tidily; the next run finds what an undisturbed one does."""

import random
import signal
from functools import cache

import pytest
import signalled

SIGNALS = signal.SIGKILL, signal.SIGTERM, signal.SIGINT


@pytest.fixture(scope="module")
def undisturbed(lesions, finished, tmp_path_factory):
    """A command by its name, with what a whole run of it finds and how many seconds it works."""
    made = {
        "train": (signalled.training, lesions),
        "export": (signalled.exporting, finished),
        "slice": (signalled.slicing,),
        "score": (signalled.scoring, finished),
        "compare": (signalled.comparing, lesions),
    }

    @cache
    def run(name):
        home = tmp_path_factory.mktemp(name)
        make, *given = made[name]
        command = make(home, *given)
        return command, *command.undisturbed(home / "whole")

    return run


def stop_and_go_on(command, whole, span, number, out, chance):
    """Stop a run at some moment of its work, sooner where it had ended, and run it again."""
    for attempt in range(20):
        folder = out / str(attempt)
        delay = chance.random() * span / (1 + attempt / 4)
        all_of_it = number == signal.SIGKILL or chance.random() < 0.5
        if command.stopped(folder, number, delay, whole, all_of_it=all_of_it):
            assert command.again(folder) == whole
            return
    pytest.fail("it had ended, whenever it was told to stop")


# Daily, score is stopped and killed by itself (tests/score/test_bulk.py).
@pytest.mark.parametrize(
    ("name", "number"), [("slice", signal.SIGINT), ("compare", signal.SIGTERM)]
)
def test_a_command_that_is_told_to_stop_ends_tidily_and_goes_on(
    name, number, undisturbed, tmp_path
):
    stop_and_go_on(*undisturbed(name), number, tmp_path, random.Random(name))


# Daily, a training is told by itself (tests/training/test_stopping.py), and killed and resumed.
@pytest.mark.nightly(
    also="tests/test_signals.py::test_a_command_that_is_told_to_stop_ends_tidily_and_goes_on"
)
@pytest.mark.parametrize("name", ["train", "export", "slice", "score", "compare"])
@pytest.mark.parametrize("run", range(12))
def test_whenever_and_however_a_command_is_stopped_it_goes_on(name, run, undisturbed, tmp_path):
    chance = random.Random(f"{name} {run}")
    stop_and_go_on(*undisturbed(name), chance.choice(SIGNALS), tmp_path, chance)
