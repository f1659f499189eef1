"""Every model runs where it is put: on a second GPU, and on a device that is neither, both fake.

No real one was ever at hand; ``fake_device`` says what the fake covers.
"""

import json
from pathlib import Path

import fresh_process
import pytest
from device_life import METHOD_NAMES, OTHERS, OURS, PLACES
from fresh_process import search_path

from anomalib_medclip.score.inferencer import Inferencer

HERE = Path(__file__).parent
MIXED = "RuntimeError: Expected all tensors to be on the same device, but found at least two"
REFUSED = {
    "adds a tensor of the processor": f"{MIXED} devices, {{place}} and cpu!",
    "in the backward pass": f"{MIXED} devices, {{place}} and cpu!",
    "in a thread": f"{MIXED} devices, {{place}} and cpu!",
    "in inference mode": f"{MIXED} devices, {{place}} and cpu!",
    "joins a scalar of the processor": f"{MIXED} devices, {{place}} and cpu!",
    "looks up by the processor": f"{MIXED} devices, {{place}} and cpu!",
    "is an index of the processor's": f"{MIXED} devices, cpu and {{place}}!",
    "becomes an array": "TypeError: can't convert {place} device type tensor to numpy",
    "is taken for an array": "TypeError: can't convert {place} device type tensor to numpy",
    "draws by the processor": "RuntimeError: Expected a '{kind}' device type for generator",
    "is pinned": "RuntimeError: cannot pin a tensor of {place}",
    "is read too soon": "RuntimeError: a copy to the processor that does not block",
    "is not there": "ConfigError: torch sees no device {kind}:{next} here; give one of cpu, ",
}
OF_A_KIND = {
    "cuda": {
        "adds a tensor of another": f"{MIXED} devices, cuda:1 and cuda:0!",
        "has no autocast": "RuntimeError: torch.nn.functional.binary_cross_entropy and",
        "becomes float64": "",
        "comes as float64": "",
    },
    "mps": {
        "adds a tensor of another": "",  # there is one
        "has no autocast": "",
        "becomes float64": "TypeError: Cannot convert a MPS Tensor to float64 dtype",
        "comes as float64": "TypeError: Cannot convert a MPS Tensor to float64 dtype",
    },
}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the main function of a helper in a process of its own."""
    monkeypatch.setenv("PYTHONPATH", search_path(HERE, HERE / "helpers"))

    def start(helper, *words):
        code = f"import {helper}; {helper}.main()"
        return fresh_process.run("-c", code, *words, cwd=tmp_path, timeout=300)

    return start


@pytest.fixture
def live(run, lesions, tmp_path):
    """Takes a model through stages of its life on a device."""

    def through(kind, name, *stages, **options):
        return run("device_life", kind, name, lesions, tmp_path, json.dumps(options), *stages)

    return through


def check(done):
    assert done.returncode == 0, done.stderr[-8000:]


@pytest.mark.parametrize("kind", PLACES)
def test_the_fake_refuses_what_a_device_would(kind, run, tmp_path):
    done = run("device_faults", kind, PLACES[kind].index, tmp_path)
    check(done)
    said, wanted = json.loads(done.stdout), {**REFUSED, **OF_A_KIND[kind]}
    assert said.keys() == wanted.keys()
    words = {"kind": kind, "place": PLACES[kind], "next": PLACES[kind].index + 1}
    for name, begins in wanted.items():
        assert said[name].startswith(begins.format(**words)), (name, said[name])
        assert bool(said[name]) == bool(begins), (name, said[name])


@pytest.mark.parametrize(("fault", "kind"), [("to_numpy", "mps"), ("from_processor", "cuda")])
def test_a_fault_in_a_method_is_found(fault, kind, live):
    done = live(kind, METHOD_NAMES[0], fault)
    said = {
        "to_numpy": "type tensor to numpy",
        "from_processor": "tensors to be on the same device",
    }
    assert done.returncode == 1
    assert said[fault] in done.stderr


@pytest.mark.daily_for(name="MVFA")  # of the others daily below, on a device that refuses more
@pytest.mark.parametrize("name", OURS)
def test_a_model_lives_on_a_gpu_from_training_to_export(name, live, tmp_path):
    check(live("cuda", name, "cell", "files"))
    if name in METHOD_NAMES:
        (checkpoint,) = tmp_path.glob("files/run/**/v0/**/model.ckpt")
        assert b"cuda:1" in checkpoint.read_bytes()
        assert Inferencer(checkpoint).origin["method"] == name, "there is no GPU here"


@pytest.mark.parametrize("name", OURS)
def test_a_model_lives_on_a_device_without_float64(name, live):
    check(live("mps", name, "cell", "files"))


def test_losses_of_probabilities_pass_a_gpus_autocast(live):
    check(live("cuda", "IQECLIP", "half", bce="probabilities"))


def test_the_bench_measures_a_second_gpu(live):
    check(live("cuda", "MVFA", "timed"))


@pytest.mark.nightly(
    also="tests/test_devices.py::test_a_model_lives_on_a_gpu_from_training_to_export"
)
@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("name", METHOD_NAMES)
def test_cross_fitting_mixed_precision_and_graphs_on_a_device(name, kind, live):
    check(live(kind, name, "shared", "half", "graphs", cross_fit=True))


@pytest.mark.nightly(
    also="tests/test_devices.py::test_a_model_lives_on_a_gpu_from_training_to_export"
)
@pytest.mark.parametrize("kind", PLACES)
def test_scaling_by_the_test_set_in_half_precision_on_a_device(kind, live):
    check(live(kind, "MVFA", "cell", transductive=True, precision="bf16"))


@pytest.mark.nightly(
    also="tests/test_devices.py::test_a_model_lives_on_a_gpu_from_training_to_export"
)
@pytest.mark.parametrize(
    ("kind", "name"), [("cuda", name) for name in OTHERS] + [("mps", "PatchCore")]
)
def test_models_of_anomalib_on_a_device(kind, name, live):
    """CFlow has float64 in its training, which MPS has not."""
    check(live(kind, name, "cell"))
