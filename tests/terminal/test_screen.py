"""False alarms of other packages are left out by their words, and nothing else is."""

import logging
import re
import subprocess
import sys
import warnings

import pytest
from jsonargparse import ArgumentParser

from anomalib_medclip.errors import ImageReadError, UnknownNameError
from anomalib_medclip.terminal.false_alarms import LINES, WARNED
from anomalib_medclip.terminal.screen import ours_in, say, shown_plainly

SAID = (
    ("faiss.loader", "Loading faiss with AVX512 support."),
    ("faiss.loader", "Successfully loaded faiss with AVX512 support."),
    (
        "faiss.loader",
        "Could not load library with AVX512-SPR support due to:\n"
        "ModuleNotFoundError(\"No module named 'faiss.swigfaiss_avx512_spr'\")",
    ),
    ("anomalib.engine.engine", "Overriding num_sanity_val_steps from None with 0 for MVFA"),
    (
        "lightning.fabric.utilities.rank_zero",
        "The following callbacks returned in `LightningModule.configure_callbacks` will override "
        "existing callbacks passed to Trainer: RichModelSummary",
    ),
    ("anomalib.callbacks", "Loading the callbacks"),
    ("anomalib.models.components.base.anomalib_module", "Initializing MVFA model."),
    ("anomalib.callbacks.timer", "Training took 57.12 seconds"),
    ("anomalib.callbacks.timer", "Testing took 4.19 seconds\nThroughput (batch_size=16): 7.6 FPS"),
    ("lightning.fabric.utilities.seed", "Seed set to 111"),
    ("pytorch_lightning.utilities.rank_zero", "Restoring states from the checkpoint path at v0"),
    ("lightning_fabric.utilities.rank_zero", "Loaded model weights from the checkpoint at v0"),
    ("lightning.fabric.utilities.rank_zero", "GPU available: False, used: False"),
    ("lightning.fabric.utilities.rank_zero", "TPU available: False, using: 0 TPU cores"),
    ("lightning.fabric.utilities.rank_zero", "`Trainer.fit` stopped: `max_epochs=12` reached."),
    ("lightning.fabric.utilities.rank_zero", "💡 Tip: For seamless cloud logging and so on"),
)
"""Lines as they came."""

WARNINGS = (
    "Found 42 module(s) in eval mode at the start of training. This may lead to",
    "`isinstance(treespec, LeafSpec)` is deprecated, use `isinstance(treespec, TreeSpec)",
    "Importing from timm.models.layers is deprecated, please import via timm.layers",
    "The anomalib.models.components.dinov2 package is deprecated and will be removed",
)


def test_each_pattern_has_words_that_came():
    for line in LINES:
        loggers = [words for name, words in SAID if re.match(line.logger, name)]
        for pattern in line.words.split("|"):
            assert any(re.match(pattern, words) for words in loggers), pattern
    for one in WARNED:
        assert any(matches(one, words) for words in WARNINGS), one


@pytest.mark.parametrize(("name", "words"), SAID)
def test_a_false_alarm_is_left_out_and_a_warning_of_its_logger_or_another_line_is_not(
    name, words, capsys
):
    logger = logging.getLogger(name)
    with shown_plainly():
        logger.info(words)
        assert capsys.readouterr().err == ""
        logger.warning(words)
        logger.error("a true alarm: %s", words)
    warned, *others = capsys.readouterr().err.split("error: ")
    assert warned == f"warning: {words}\n"
    assert others == [f"a true alarm: {words}\n"]


@pytest.mark.parametrize("words", WARNINGS)
def test_a_warning_that_means_nothing_is_left_out_and_any_other_is_shown_in_a_line(words, capsys):
    kind = next(one.category for one in WARNED if matches(one, words))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with shown_plainly():
            warnings.warn(words, kind, stacklevel=1)
            assert capsys.readouterr().err == ""
            warnings.warn(words, RuntimeWarning, stacklevel=1)
            warnings.warn("Something else is deprecated", kind, stacklevel=1)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("warning: ")
    assert f"RuntimeWarning: {words}" in first
    assert second.endswith(f"{kind.__name__}: Something else is deprecated")


def matches(one, words):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", one.words, one.category)
        warnings.warn(words, one.category, stacklevel=1)
    return not found


def test_what_other_packages_do_is_not_told_and_what_goes_wrong_there_is(capsys):
    logger = logging.getLogger("onnx_ir.passes.common.unused_removal")
    with shown_plainly():
        logger.info("Removed unused node")
        logging.getLogger("anomalib.data").info("reading")
        logging.getLogger("lightning.pytorch").info("GPU available: True (cuda), used: True")
        logger.warning("shape inference failed")
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "reading",
        "GPU available: True (cuda), used: True",
        "warning: shape inference failed",
    ]


def test_a_line_is_shown_once_and_files_still_get_it(capsys, tmp_path):
    root = logging.getLogger()
    before = list(root.handlers), root.level, sys.excepthook, list(warnings.filters)
    doubled = [logging.StreamHandler(sys.stderr), logging.FileHandler(tmp_path / "log")]
    for handler in doubled:
        root.addHandler(handler)
    try:
        with shown_plainly():
            logging.getLogger("anomalib").info("once")
    finally:
        for handler in doubled:
            root.removeHandler(handler)
            handler.close()
    assert capsys.readouterr().err == "once\n"
    assert (tmp_path / "log").read_text() == "once\n"
    assert before == (list(root.handlers), root.level, sys.excepthook, list(warnings.filters))


def test_an_error_of_a_process_that_reads_images_is_one_line(capsys):
    said = (
        "Caught ImageReadError in DataLoader worker process 0.\n"
        "Original Traceback (most recent call last):\n"
        '  File "worker.py", line 1, in fetch\n'
        "anomalib_medclip.errors.ImageReadError: a.png is missing; restore it\n"
    )
    say(ImageReadError(said))
    assert capsys.readouterr().err == "error: a.png is missing; restore it\n"


@pytest.mark.parametrize(
    ("error", "ours"),
    [(OSError(28, "No space left"), True), (OSError(2, "none"), False), (KeyError("a"), False)],
)
def test_a_full_disk_is_told_as_our_own_errors_are_and_other_errors_are_not(error, ours):
    assert (ours_in(error) is error) is ours


HOOK = """
import sys
from anomalib_medclip.errors import ConfigError
from anomalib_medclip.terminal.screen import _InOneLine
sys.excepthook = _InOneLine(sys.excepthook)
raise {error}
"""


@pytest.mark.parametrize(
    ("error", "status", "first"),
    [("ConfigError('no')", 2, "error: no\n"), ("KeyError('no')", 1, "Traceback (most recent")],
)
def test_python_itself_ends_by_the_status_of_the_hook(error, status, first):
    script = [sys.executable, "-c", HOOK.format(error=error)]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == status
    assert done.stderr.startswith(first)


class Refusing:
    """What a parser makes of options, and that refuses them."""

    def __init__(self, error: str = "ours"):
        raise UnknownNameError("no such name") if error == "ours" else ZeroDivisionError


@pytest.mark.parametrize("error", ["ours", "theirs"])
def test_an_error_of_ours_is_found_behind_that_of_a_parser_and_no_other(error):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--made", type=Refusing | None)
    given = {"class_path": f"{__name__}.Refusing", "init_args": {"error": error}}
    with pytest.raises(Exception) as raised:  # noqa: PT011 - of whichever kind a parser raises
        parser.instantiate_classes(parser.parse_object({"made": given}))
    assert not isinstance(raised.value, UnknownNameError)
    found = ours_in(raised.value)
    assert isinstance(found, UnknownNameError) == (error == "ours")


UNCHANGED = """
import logging, signal, sys, warnings
import anomalib.cli.cli, anomalib.data, anomalib.engine, anomalib.models

NAMES = ["", *sorted(logging.root.manager.loggerDict)]

def state():
    known = [logging.getLogger(name) for name in NAMES]
    found = {one.name: (one.level, one.propagate, one.disabled, [*one.handlers], [*one.filters])
             for one in known}
    found["hooks"] = sys.stdout, sys.stderr, sys.excepthook, sys.unraisablehook, sys.displayhook
    found["warnings"] = warnings.showwarning, warnings.formatwarning
    found["signals"] = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    return found

before = state()
import anomalib_medclip
from anomalib_medclip import MVFA, Inferencer, data
from anomalib_medclip.terminal import false_alarms, screen, stage_bar
MVFA(backbone={backbone}, pretrained=None, image_size=32, levels=[1, 2])
after = state()
print(*[(name, before[name], after[name]) for name in before if before[name] != after[name]])
listed = {one.words for one in false_alarms.WARNED}
print(*[one for one in warnings.filters if one[1] and one[1].pattern in listed])
"""


def test_an_import_and_a_model_in_somebodys_notebook_change_nothing_global():
    """A new interpreter: a fork would have imported everything already."""
    from tiny import SHALLOW

    script = UNCHANGED.replace("{backbone}", repr(SHALLOW["backbone"]))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
