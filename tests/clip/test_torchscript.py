"""TorchScript archives, read as tensors: as torch reads them, and nothing in them is run."""

import pickle
import warnings
import zipfile

import pytest
import torch
from hostile import Command, write_restoring
from tiny import BACKBONE, OpenAIArchive, traced
from torch import nn

from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.clip.torchscript import is_scripted, read_scripted
from anomalib_medclip.clip.weights import read_weights
from anomalib_medclip.errors import WeightsError


class Odd(nn.Module):
    """What else a module may hold."""

    def __init__(self):
        super().__init__()
        self.below = nn.ModuleList([nn.Linear(2, 3), nn.BatchNorm1d(3)])
        self.turned = nn.Parameter(torch.arange(6.0).view(2, 3).t())
        self.part = nn.Parameter(torch.arange(10.0)[3:7])
        self.register_buffer("whole", torch.tensor([True, False]))
        self.register_buffer("brain", torch.rand(3).bfloat16())
        self.register_buffer("passing", torch.rand(3), persistent=False)
        self.register_parameter("absent", None)
        self.mask = torch.ones(2, 2)  # neither parameter nor buffer

    def forward(self, image):
        return image + self.mask


@pytest.fixture(scope="module")
def openai(tmp_path_factory):
    """An archive as OpenAI made them."""
    archive = OpenAIArchive(Backbone(BACKBONE, None, 32).load().clip.eval()).half()
    path = tmp_path_factory.mktemp("openai") / "ViT-tiny.pt"
    return traced(archive, torch.zeros(1, 3, 32, 32).half(), path)


def assert_as_torch_reads_it(path):
    found, expected = read_scripted(path), torch.jit.load(path, map_location="cpu").state_dict()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
        assert (found[name].dtype, found[name].stride()) == (value.dtype, value.stride()), name
    return found


def test_openais_archive_is_read_as_torch_reads_it(openai):
    found = assert_as_torch_reads_it(openai)
    assert found["visual.conv1.weight"].dtype == torch.float16
    clip = Backbone(BACKBONE, str(openai), 32, seed=7).load().clip
    assert torch.equal(clip.visual.proj, found["visual.proj"].float())


@pytest.mark.parametrize("scripted", [True, False], ids=["scripted", "traced"])
def test_parameters_and_buffers_are_read_whatever_else_there_is(scripted, tmp_path):
    path = tmp_path / "odd.pt"
    if scripted:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.script(Odd().eval()).save(path)
    else:
        traced(Odd().eval(), torch.zeros(2, 2), path)
    found = assert_as_torch_reads_it(path)
    assert "mask" not in found
    assert "passing" in found


def rewritten(path, folder, change):
    """An archive with its pickle changed, as plain bytes."""
    new = folder / f"new_{path.name}"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(new, "w") as archive:
        for name in old.namelist():
            content = old.read(name)
            archive.writestr(name, change(content) if name.endswith("/data.pkl") else content)
    return new


def test_an_archive_saved_on_a_gpu_is_read_without_one(openai, tmp_path):
    def from_gpu(content):
        return content.replace(b"X\3\0\0\0cpu", b"X\6\0\0\0cuda:0")

    on_gpu = rewritten(openai, tmp_path, from_gpu)
    assert on_gpu.read_bytes().count(b"cuda:0") == 1
    found, expected = read_scripted(on_gpu), read_scripted(openai)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_an_archive_that_restores_itself_is_refused_and_does_not(tmp_path):
    written = tmp_path / "written"
    path = write_restoring(tmp_path / "clip.pt", written)
    with pytest.raises(WeightsError, match=r"is no weights file: .*TorchScript .*not run"):
        read_weights(path)
    assert not written.exists()
    torch.jit.load(path)
    assert written.read_bytes() == b"!!!!"


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("deep", [False, True])
def test_a_pickle_in_the_place_of_an_archives_own_is_not_run(protocol, deep, openai, tmp_path):
    command = Command(f"touch {tmp_path / 'written'}")
    evil = pickle.dumps({"deep": [command]} if deep else command, protocol)
    path = rewritten(openai, tmp_path, lambda _: evil)
    assert is_scripted(path)
    with pytest.raises(WeightsError, match=r"tiny.pt is no weights file: a TorchScript"):
        read_weights(path)
    assert not (tmp_path / "written").exists()
    pickle.loads(evil)
    assert (tmp_path / "written").exists()


def test_a_scripted_model_of_something_else_is_refused_by_its_kind(tmp_path):
    path = traced(nn.Linear(2, 2), torch.zeros(1, 2), tmp_path / "other.pt")
    words = r"other.pt is no weights file: a TorchScript archive, but not of CLIP; save the"
    with pytest.raises(WeightsError, match=words):
        read_weights(path)


@pytest.mark.parametrize("part", [0.3, 0.9])
def test_an_archive_that_is_cut_off_is_refused(part, openai, tmp_path):
    cut = tmp_path / "cut.pt"
    cut.write_bytes(openai.read_bytes()[: int(part * openai.stat().st_size)])
    with pytest.raises(WeightsError, match=r"cut.pt is no weights file"):
        read_weights(cut)
