import gzip
import pickle
import re
import time
import urllib.error
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from huggingface_hub import constants as hub
from open_clip import pretrained as open_clip_weights
from safetensors.torch import save_file
from tiny import OpenAIArchive, traced
from torch import nn

from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.clip.weights import (
    WEIGHTS_OPTIONS,
    WEIGHTS_VARIABLE,
    find_weights,
    read_weights,
)
from anomalib_medclip.errors import WeightsError


@pytest.fixture(autouse=True)
def _no_weights_variable(monkeypatch):
    monkeypatch.delenv(WEIGHTS_VARIABLE, raising=False)


@pytest.fixture(scope="module")
def state(tiny_clip):
    return {name: value.contiguous() for name, value in tiny_clip.state_dict().items()}


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
        assert found[name].dtype == torch.float32, name


# --- reading


def test_a_safetensors_file_is_read(state, tmp_path):
    save_file(state, tmp_path / "clip.safetensors")
    assert_same(read_weights(tmp_path / "clip.safetensors"), state)


@pytest.mark.parametrize("zipped", [True, False], ids=["new format", "old format"])
def test_a_torch_state_dict_is_read(state, tmp_path, zipped):
    torch.save(state, tmp_path / "clip.pt", _use_new_zipfile_serialization=zipped)
    assert_same(read_weights(tmp_path / "clip.pt"), state)


def test_an_open_clip_training_checkpoint_is_read(state, tmp_path):
    wrapped = {f"module.{name}": value for name, value in state.items()}
    torch.save({"epoch": 3, "name": "run", "state_dict": wrapped}, tmp_path / "epoch_3.pt")
    assert_same(read_weights(tmp_path / "epoch_3.pt"), state)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_half_precision_becomes_float32(state, tmp_path, suffix):
    half = {name: value.half() for name, value in state.items()}
    path = tmp_path / f"half{suffix}"
    save_file(half, path) if suffix == ".safetensors" else torch.save(half, path)
    assert_same(read_weights(path), {name: value.float() for name, value in half.items()})


def test_openais_torchscript_archive_is_read(tiny, state, tmp_path):
    archive = OpenAIArchive(tiny.load().clip.eval())
    path = traced(archive, torch.zeros(1, 3, 32, 32), tmp_path / "ViT-tiny.pt")
    assert_same(read_weights(path), state)


def test_a_file_of_every_kind_builds_the_same_clip(tiny_config, state, tmp_path):
    save_file(state, tmp_path / "a.safetensors")
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "b.pt")
    for name in ("a.safetensors", "b.pt"):
        clip = Backbone(tiny_config, str(tmp_path / name), image_size=32, seed=99).load().clip
        assert_same(clip.state_dict(), state)


OTHERS = {
    "page.pt": (b"<!DOCTYPE html><html>404: not found</html>", "it is a web page"),
    "page.safetensors": (b"\n <html>404: not found</html>", "it is a web page"),
    "text.pt": (b"hello", "it is damaged, or no file that torch has written"),
    "empty.pt": (b"", "it holds nothing"),
    "packed.pt": (gzip.compress(b"weights"), "it is a packed file"),
    "pickle.pt": (pickle.dumps(Path, protocol=2), "it names pathlib.*Path, and so"),
    "onnx.pt": (b"\x08\x07\x12\x07pytorch", "it is damaged"),
    "lfs.pt": (b"version https://git-lfs.github.com/spec/v1\noid 0\nsize 9\n", "Git LFS pointer"),
}
FOREIGN = ("weights_only", "pickle_module", "allow_pickle", "Unpickl", "miniz", "enforce fail",
           "deserializ", "\n", "safe_globals", "NoneType")  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_that_holds_no_weights_is_called_what_it_is(tmp_path, name):
    content, words = OTHERS[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=rf"{name}.* {words}.*; ") as raised:
        read_weights(tmp_path / name)
    assert not [word for word in FOREIGN if word in str(raised.value)]


@pytest.mark.parametrize("name", ["cut.pt", "cut.safetensors", "legacy.pt", "archive.zip"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_refused_in_our_words(state, tmp_path, name, share):
    path = tmp_path / name
    if name.endswith("safetensors"):
        save_file(state, path)
    elif name.endswith("zip"):
        with ZipFile(path, "w") as archive:
            archive.writestr("ViT-L-14.pt", bytes(1000))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=name.startswith("cut"))
    if not name.endswith("zip"):
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(WeightsError, match=f"{name} is no weights file: .*; save") as raised:
        read_weights(path)
    assert not [word for word in FOREIGN if word in str(raised.value)]


def test_the_format_of_weights_is_known_by_what_they_hold(state, tmp_path):
    save_file(state, tmp_path / "named.pt")
    torch.save(state, tmp_path / "named.safetensors")
    for name in ("named.pt", "named.safetensors"):
        assert_same(read_weights(tmp_path / name), state)


@pytest.mark.parametrize(
    "content",
    [[1, 2], torch.zeros(3), {"state_dict": torch.zeros(2)}],
    ids=["list", "tensor", "tensor as state dict"],
)
def test_a_torch_file_that_is_no_state_dict_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=r"other.pt is no weights file: "):
        read_weights(tmp_path / "other.pt")


def test_a_torch_file_of_numbered_tensors_does_not_fit(tiny_config, tmp_path):
    torch.save({3: torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=r"other.pt does not fit custom CLIP"):
        Backbone(tiny_config, str(tmp_path / "other.pt"), image_size=32).load()


def test_a_whole_pickled_model_is_refused_without_running_it(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(WeightsError, match=r"model.pt is no weights file: it names"):
        read_weights(tmp_path / "model.pt")


def test_a_checkpoint_of_something_else_is_refused_by_what_it_holds(tmp_path):
    torch.save({"epoch": 3, "weights": {"a": torch.zeros(1)}}, tmp_path / "run.pt")
    with pytest.raises(WeightsError, match=r"run.pt holds more than tensors; save .* state_dict"):
        read_weights(tmp_path / "run.pt")


# --- finding


def test_a_local_file_is_taken_as_it_is(tmp_path):
    file = tmp_path / "any name at all"
    file.touch()
    assert find_weights("ViT-L-14-336", str(file)) == file
    assert find_weights({"embed_dim": 1}, str(file)) == file


def test_the_variable_wins_over_a_tag_and_over_a_path_of_another_machine(monkeypatch, tmp_path):
    file = tmp_path / "local.pt"
    file.touch()
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(file))
    assert find_weights("ViT-L-14-336", "openai") == file
    assert find_weights("ViT-L-14-336", "/elsewhere/clip.pt") == file


def test_the_variable_says_so_when_its_file_is_missing(monkeypatch):
    monkeypatch.setenv(WEIGHTS_VARIABLE, "gone")
    with pytest.raises(
        WeightsError, match=rf"weights file gone does not exist.*{WEIGHTS_VARIABLE}"
    ):
        find_weights("ViT-L-14-336", "openai")


@pytest.mark.parametrize("given", ["clip.pt", "clip.safetensors", "models/clip", "/no/where.bin"])
def test_a_missing_local_file_is_named_with_the_remedy(given):
    words = f"weights file {given} does not exist; give a local file by {WEIGHTS_OPTIONS}"
    with pytest.raises(WeightsError, match=re.escape(words)):
        find_weights("ViT-L-14-336", given)


def test_what_to_give_weights_by_is_said_for_every_way_to_run():
    for way in ("'pretrained'", "score --pretrained", "--model.pretrained", WEIGHTS_VARIABLE):
        assert way in WEIGHTS_OPTIONS


def test_an_unknown_tag_lists_the_known_ones():
    words = "no weights 'opneai' for ViT-B-32, its tags are: openai, .*laion2b_s34b_b79k"
    with pytest.raises(WeightsError, match=words):
        find_weights("ViT-B-32", "opneai")


def test_a_model_of_ones_own_has_no_tags():
    with pytest.raises(
        WeightsError,
        match=r"no weights 'openai' .* give a local file by 'pretrained' \(score --pretrained",
    ):
        find_weights({"embed_dim": 24}, "openai")


# --- downloading


class Network:
    """Stands in for the network: counts who knocks, and answers or refuses."""

    def __init__(self, error=None):
        self.error, self.knocks = error, []

    def __call__(self, request, *args, **kwargs):
        self.knocks.append(getattr(request, "full_url", request))
        if self.error:
            raise self.error
        return open("/dev/null", "rb")  # noqa: PTH123


@pytest.fixture
def network(monkeypatch, tmp_path):
    """Puts a network in place, with the caches in an empty folder."""
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", hub.HF_HUB_OFFLINE)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HOME", str(tmp_path))

    def put(error=None):
        net = Network(error)
        monkeypatch.setattr("urllib.request.urlopen", net)
        return net

    return put


@pytest.mark.parametrize(
    "error", [urllib.error.URLError("Name or service not known"), TimeoutError("timed out")]
)
def test_without_network_there_is_one_quick_error_with_the_remedy(network, error, tmp_path):
    net, start = network(error), time.monotonic()
    words = (
        rf"could not download the weights ViT-L-14-336/openai.*{tmp_path / 'hub'}.*~/.cache/clip.*"
        rf"give a local file by {re.escape(WEIGHTS_OPTIONS)}"
    )
    with pytest.raises(WeightsError, match=words):
        find_weights("ViT-L-14-336", "openai")
    assert time.monotonic() - start < 5
    assert len(net.knocks) <= 2  # the hub's door; on open_clip 2.24 also OpenAI's own address


def test_without_network_the_hub_is_not_asked_again_and_again(network, monkeypatch):
    network(urllib.error.URLError("unreachable"))
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    while_downloading = []
    monkeypatch.setattr(
        open_clip_weights,
        "download_pretrained",
        lambda entry: while_downloading.append(hub.HF_HUB_OFFLINE) or "cached.bin",
    )
    assert find_weights("ViT-B-32", "laion2b_s34b_b79k") == Path("cached.bin")
    assert while_downloading == [True]
    assert hub.HF_HUB_OFFLINE is False, "other libraries may try again"


def test_who_wishes_to_stay_offline_is_not_made_to_knock(network, monkeypatch):
    net = network()
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(open_clip_weights, "download_pretrained", lambda entry: "cached.bin")
    assert find_weights("ViT-B-32", "laion2b_s34b_b79k") == Path("cached.bin")
    assert net.knocks == []


@pytest.mark.parametrize("error", [None, urllib.error.HTTPError("u", 503, "busy", None, None)])
def test_a_hub_that_answers_is_asked(network, monkeypatch, error):
    net = network(error)
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(open_clip_weights, "download_pretrained", lambda entry: "new.bin")
    assert find_weights("ViT-B-32", "laion2b_s34b_b79k") == Path("new.bin")
    assert net.knocks == [hub.ENDPOINT]
    assert hub.HF_HUB_OFFLINE is False


def test_what_the_download_says_is_passed_on(network, monkeypatch):
    network()

    def full_disk(entry):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(open_clip_weights, "download_pretrained", full_disk)
    with pytest.raises(WeightsError, match="No space left on device; give a local file"):
        find_weights("ViT-B-32", "openai")
