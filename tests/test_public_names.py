"""Public names are listed, and imported when asked for; mypy reads ``public_names.py``."""

import pydoc
import subprocess
import sys

import pytest

import anomalib_medclip
from anomalib_medclip import baselines, data, metrics, models
from anomalib_medclip.errors import UnknownNameError

PACKAGES = [anomalib_medclip, baselines, data, metrics]
METHODS = [models.__name__ + "." + name for name in ("iqeclip", "madclip", "mediclip", "mvfa")]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_every_listed_name_is_there_and_its_own(package):
    for name in package.__all__:
        found = getattr(package, name)
        assert found.__name__.rpartition(".")[2] == name
    assert dir(package) == package.__all__ == sorted(package.__all__)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_a_typo_is_answered_with_what_there_is(package):
    with pytest.raises(AttributeError) as raised:
        _ = package.Nope
    assert f"{package.__name__} has no 'Nope'; it has " in str(raised.value)
    assert all(name in str(raised.value) for name in package.__all__)
    with pytest.raises(ImportError, match="cannot import name 'Nope'"):
        exec(f"from {package.__name__} import Nope")


def test_a_typo_in_a_model_is_answered_with_the_models():
    with pytest.raises(AttributeError, match=r"no 'MVFAA'; .*; models: .*mvfa"):
        _ = anomalib_medclip.MVFAA
    with pytest.raises(AttributeError, match="no 'mvfa'"):  # that is its name, not its class's
        _ = anomalib_medclip.mvfa
    with pytest.raises(UnknownNameError, match=r"no model 'Nope'; there are .*mvfa.*: correct"):
        models.get_model("Nope")


def test_help_shows_models_data_metrics_and_the_inferencer():
    shown = pydoc.render_doc(anomalib_medclip, renderer=pydoc.plaintext)
    for name in ("class IQECLIP", "class Inferencer", "class MVFA", "class MadCLIP"):
        assert name in shown
    assert {"data", "metrics", "models", "Inferencer", "MVFA"} <= set(dir(anomalib_medclip))


def test_a_model_has_one_class_however_it_is_asked_for():
    from anomalib_medclip.models.mvfa.lightning_model import MVFA

    assert models.get_model("mvfa") is models.get_model("MVFA") is anomalib_medclip.MVFA is MVFA
    assert anomalib_medclip.list_models() == models.list_models()


def test_asking_for_a_card_imports_no_model():
    script = (
        f"import sys, {', '.join(METHODS)}\n"
        "sys.exit(', '.join({'torch', 'lightning', 'anomalib'} & set(sys.modules)) or 0)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
