"""What a bench measures: everything asked for, nothing twice, nothing that makes no sense."""

import pytest

from anomalib_medclip.bench.settings import Setting, plan_settings
from anomalib_medclip.errors import ConfigError


def planned(whats=("score",), methods=("mvfa", "madclip"), runtimes=("eager",), ks=(0,), **base):
    found = plan_settings(Setting(**base), whats, methods, runtimes, ks, (1, 8), "mvfa".__eq__)
    return [(s.what, s.method, s.runtime, s.precision, s.k_shot, s.batch_size) for s in found]


def test_k_is_of_no_matter_to_a_method_without_a_bank():
    of_mvfa = [("score", "mvfa", "eager", "fp32", k, batch) for k in (0, 16) for batch in (1, 8)]
    others = [("score", "madclip", "eager", "fp32", 0, batch) for batch in (1, 8)]
    assert planned(ks=(0, 16)) == of_mvfa + others


def test_search_and_training_are_measured_once_however_many_runtimes_there_are():
    found = planned(("later-epoch", "bank"), runtimes=("eager", "compile"), ks=(4,))
    steps = [("later-epoch", m, "eager", "fp32", 4, b) for m in ("mvfa", "madclip") for b in (1, 8)]
    assert found == steps + [("bank", "mvfa", "eager", "fp32", 4, b) for b in (1, 8)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"runtimes": ("onnx",), "precision": "bf16"}, "such as openvino-bf16"),
        ({"runtimes": ("openvino",), "threads": 2}, "leave --threads out"),
        ({"runtimes": ("openvino",), "device": "cuda"}, "leave --device out"),
        ({"whats": ("bank",), "methods": ("madclip",), "ks": (4,)}, "no memory bank to search"),
        ({"whats": ("bank",)}, "give --k-shot above 0"),
    ],
)
def test_options_that_contradict_one_another_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        planned(**options)
