"""Trainings and exports that are told to stop."""

import signal
import threading
from contextlib import suppress

import pytest
import torch
from lightning.pytorch import Callback
from tiny import CASES

from anomalib_medclip import signals
from anomalib_medclip.baselines import MeanIntensity
from anomalib_medclip.signals import Stopped, stop_if_told, tidy_stop, watch_again

SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143}


@pytest.fixture(scope="module")
def case():
    return next(case for case in CASES if case.name == "MVFA")


@pytest.fixture(autouse=True)
def handlers():
    """Whoever had them has them again."""
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    assert [signal.getsignal(number) for number in SIGNALS] == before


class Tell(Callback):
    """Tells the process to stop, as somebody else would, at the start of an epoch."""

    def __init__(self, number, epoch):
        self.number, self.epoch = number, epoch

    def on_train_epoch_start(self, trainer, pl_module):
        del pl_module
        if trainer.current_epoch == self.epoch:
            # Without a handler the signal would end this process, and all of its tests.
            held = signal.getsignal(self.number), dict(signals._before), threading.current_thread()
            assert callable(held[0]), held
            signal.raise_signal(self.number)

    def on_test_batch_end(self, *args):
        del args
        signal.raise_signal(self.number)


@pytest.mark.parametrize(
    ("number", "epoch", "words"),
    [
        (signal.SIGTERM, 0, "stopped before the first epoch was saved; begin again"),
        (signal.SIGINT, 1, "stopped; training goes on with --ckpt_path {saved}"),
    ],
)
def test_a_training_ends_at_once_and_says_how_it_goes_on(
    number, epoch, words, case, tmp_path, caplog
):
    trained = case.ready(tmp_path, trainer={"callbacks": [Tell(number, epoch)]})
    with pytest.raises(Stopped) as stopped:
        trained.engine.fit(trained.model, datamodule=trained.data)
    assert stopped.value.code == SIGNALS[number]
    assert trained.engine.trainer.current_epoch == epoch
    saved = next(tmp_path.rglob("*.ckpt"), None)
    assert bool(saved) is (epoch > 0)
    assert [one.message for one in caplog.records if "stopped" in one.message] == [
        words.format(saved=saved)
    ]


def test_an_export_leaves_nothing_aside(case, tmp_path, caplog, monkeypatch):
    def tell(*_args, **_options):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("anomalib_medclip.export.parity.compare", tell)
    root = tmp_path / "out"
    with pytest.raises(Stopped):
        case.engine(tmp_path).export(
            case.shallow(), "torch", export_root=root, ckpt_path=case.shallow_checkpoint
        )
    assert list(root.iterdir()) == []
    assert "nothing was written, and the same command begins again" in caplog.text


def test_who_watches_within_who_watches_changes_nothing():
    with pytest.raises(Stopped), tidy_stop("outer"):  # noqa: PT012 - what follows the inner one
        outer = [signal.getsignal(number) for number in SIGNALS]
        with tidy_stop("inner"):
            assert [signal.getsignal(number) for number in SIGNALS] == outer
        signal.raise_signal(signal.SIGTERM)


def test_a_second_signal_leaves_alone_what_ends():
    with pytest.raises(Stopped) as stopped, tidy_stop():  # noqa: PT012 - both are meant
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGTERM)
    assert stopped.value.code == 130


def test_another_error_that_a_stop_has_caused_is_the_stop():
    with pytest.raises(Stopped) as stopped, tidy_stop():  # noqa: PT012 - both are meant
        try:
            signal.raise_signal(signal.SIGTERM)
        except Stopped as error:
            raise RuntimeError from error
    assert stopped.value.code == 143


def test_what_was_told_is_forgotten_once_it_has_ended():
    with pytest.raises(Stopped), tidy_stop():
        signal.raise_signal(signal.SIGTERM)
    stop_if_told()
    with pytest.raises(ZeroDivisionError), tidy_stop():
        1 / 0  # noqa: B018


def test_a_stop_that_python_has_lost_is_not_forgotten_by_what_comes_between():
    """What is raised in a destructor is only printed."""
    children = signal.getsignal(signal.SIGCHLD)
    with pytest.raises(Stopped) as stopped, tidy_stop():  # noqa: PT012 - one after another
        with suppress(Stopped):
            signal.raise_signal(signal.SIGTERM)
        with tidy_stop():
            stop_if_told()
    assert stopped.value.code == 143
    assert signal.getsignal(signal.SIGCHLD) == children


def test_signals_come_back_to_whoever_watches():
    with pytest.raises(Stopped), tidy_stop():  # noqa: PT012 - one after another
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        watch_again()
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_baseline_stops_as_a_method_does(number, case, tmp_path, caplog):
    """A scheduler would take exit status 0 for done."""
    engine = case.engine(tmp_path, callbacks=[Tell(number, -1)])
    with pytest.raises(Stopped) as stopped:
        engine.test(MeanIntensity(32, visualizer=False), datamodule=case.data())
    assert stopped.value.code == SIGNALS[number]
    assert "stopped; the same command begins again" in caplog.text


def test_a_checkpoint_that_is_named_is_the_one_that_is_tested(case, tmp_path):
    """Anomalib's ``train`` alone means what it has resumed."""
    first = case.fit(tmp_path, epochs=1)
    path = first.engine.trainer.checkpoint_callback.best_model_path
    learnt = [value.clone() for value in first.model.state_dict().values()]
    more = case.ready(tmp_path, epochs=2)
    more.engine.fit(more.model, datamodule=more.data, ckpt_path=path)
    assert not all(map(torch.equal, more.model.state_dict().values(), learnt))
    more.engine.test(more.model, datamodule=more.data, ckpt_path=path)
    assert all(map(torch.equal, more.model.state_dict().values(), learnt))
