"""What baselines stand on: where images enter, networks of timm's, options, and the folders."""

import logging
from pathlib import Path

import pytest
import timm
import torch
from daily import RIVALS
from safetensors.torch import save_file
from tiny import RESNET, case_of

from anomalib_medclip import baselines
from anomalib_medclip.baselines import SimpleNet
from anomalib_medclip.baselines.common import NetworkSource, Pixels, Trunk
from anomalib_medclip.compare.comparison import parse_model
from anomalib_medclip.errors import ConfigError, NotReadyError, WeightsError
from anomalib_medclip.score.inferencer import Inferencer

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
PATH = "anomalib_medclip.baselines.SimpleNet"


@pytest.fixture
def weights(tmp_path):
    """A file of a narrow network's weights, with a head that no trunk has."""
    torch.manual_seed(3)
    network = timm.create_model("resnet18", channels=RESNET["channels"], num_classes=5)
    save_file(network.state_dict(), tmp_path / "resnet.safetensors")
    return network.eval(), str(tmp_path / "resnet.safetensors")


def test_every_folder_is_found_by_its_class_and_common_is_none():
    found = {name.lower() for name in baselines.list_baselines()}
    assert found == {*RIVALS, "imagesize", "meanintensity", "medclip", "winclip"}
    assert "common" not in found


def test_images_enter_as_the_weights_were_trained_or_as_they_are():
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (IMAGES - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    source = NetworkSource(None, image_size=32)
    torch.testing.assert_close(Pixels(source)(IMAGES), expected)
    plain = NetworkSource(None, image_size=32, normalize=False)
    assert torch.equal(Pixels(plain)(IMAGES), IMAGES)
    assert Pixels(plain).fingerprint != Pixels(source).fingerprint
    with pytest.raises(ConfigError, match="images of 3 x 32 x 32 came"):
        Pixels(NetworkSource(None, image_size=64))(IMAGES)
    inception = NetworkSource({"timm": "inception_v3"})
    assert inception.stated.mean == (0.5, 0.5, 0.5)


@torch.no_grad()
def test_a_trunk_gives_the_maps_of_its_stages_with_weights_of_a_file(weights):
    network, file = weights
    trunk = Trunk(NetworkSource(RESNET, file, 32, normalize=False), [2, 3])
    first = network.maxpool(network.act1(network.bn1(network.conv1(IMAGES))))
    second = network.layer2(network.layer1(first))
    found = trunk.train().maps(IMAGES)
    torch.testing.assert_close(found, [second, network.layer3(second)])
    assert trunk.channels == [16, 24]
    assert not any(one.requires_grad for one in trunk.parameters())


def test_a_fingerprint_is_of_weights_stages_statistics_and_entry(weights):
    _, file = weights
    trunks = [
        Trunk(NetworkSource(RESNET, file, 32), [2, 3]),
        Trunk(NetworkSource(RESNET, file, 32), [2]),
        Trunk(NetworkSource(RESNET, file, 32), [2, 3], moved_statistics=True),
        Trunk(NetworkSource(RESNET, file, 64), [2, 3]),
        Trunk(NetworkSource(RESNET, None, 32), [2, 3]),
        Trunk(NetworkSource(RESNET, None, 32, seed=1), [2, 3]),
    ]
    assert len({one.fingerprint for one in trunks}) == len(trunks)
    again = Trunk(NetworkSource(RESNET, file, 32), [2, 3])
    assert again.fingerprint == trunks[0].fingerprint


@pytest.mark.parametrize(
    ("model", "word"),
    [
        ("timm:resnet19", "timm knows no network 'resnet19'"),
        ("hf-hub:someone/resnet18", "timm knows no network"),
        ({"timm": "resnet18", "checkpoint_path": "else.pth"}, "it must be a number"),
        ({"timm": "resnet18", "pretrained": True}, "it must be a number"),
        ({"timm": "resnet18", "pretrained": 1}, "multiple values for keyword argument"),
        ({"timm": "resnet18", "layers": [10**9] * 4}, "of at most 10000"),
        ({"timm": "resnet18", "chanels": [8]}, r"timm does not make .*unexpected keyword"),
        ({"timm": "resnet18", "channels": [10_000] * 4}, "parameters, and at most"),
        ({"channels": [8]}, "timm knows no network 'None'"),
    ],
)
def test_a_network_that_cannot_be_is_refused(model, word):
    with pytest.raises(WeightsError, match=word):
        Trunk(NetworkSource(model, image_size=32), [2])


def test_weights_that_do_not_fit_are_refused(weights, tmp_path):
    _, file = weights
    with pytest.raises(WeightsError, match=r"does not fit timm's resnet18: .*size mismatch"):
        Trunk(NetworkSource("timm:resnet18", file, 32), [2])
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "few.safetensors")
    with pytest.raises(WeightsError, match=r"does not fit timm's resnet18: .*it has no bn1\.bias"):
        Trunk(NetworkSource("timm:resnet18", str(tmp_path / "few.safetensors"), 32), [2])
    with pytest.raises(WeightsError, match=r"nowhere\.pth is missing"):
        Trunk(NetworkSource("timm:resnet18", str(tmp_path / "nowhere.pth"), 32), [2])
    with pytest.raises(ConfigError, match=r"layers are \[3, 2\], and must ascend"):
        Trunk(NetworkSource(RESNET, file, 32), [3, 2])
    with pytest.raises(ConfigError, match="layers is 9, and must be a whole number from 0 to 4"):
        Trunk(NetworkSource(RESNET, file, 32), [2, 9])


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("convnext_atto", {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}),
        ("densenet121", {"growth_rate": 4, "block_config": [1, 1, 1, 1]}),
        ("vit_tiny_patch16_224", {"embed_dim": 24, "depth": 3, "num_heads": 2, "img_size": 32}),
    ],
)
def test_a_network_whose_stages_timm_renames_takes_its_own_weights(name, numbers, tmp_path):
    torch.manual_seed(3)
    network = timm.create_model(name, **numbers)
    torch.save(network.state_dict(), tmp_path / "whole.pt")
    whole = {value.flatten()[0].item() for value in network.state_dict().values() if value.ndim > 1}
    trunk = Trunk(NetworkSource({"timm": name, **numbers}, str(tmp_path / "whole.pt"), 32), [1])
    held = [value for value in trunk.network.state_dict().values() if value.ndim > 1]
    assert {value.flatten()[0].item() for value in held} <= whole


@pytest.mark.daily
@pytest.mark.parametrize(
    ("method", "option", "value"),
    [
        ("SimpleNet", "noise_std", -1),
        ("SimpleNet", "hidden", 0),
        ("SimpleNet", "width", 0),
        ("SimpleNet", "layer_width", 0),
        ("SimpleNet", "margin", -1),
        ("SimpleNet", "sigma", -1),
        ("SimpleNet", "layers", [7]),
        ("SimpleNet", "layers", ["2"]),
        ("SimpleNet", "layers", []),
        ("PatchSVDD", "pairs", 0),
        ("PatchSVDD", "width", 0),
        ("PatchSVDD", "weight", -1),
        ("BGAD", "code", 18),
        ("BGAD", "layers", [9]),
        ("AnoDDPM", "steps", 1),
        ("AnoDDPM", "steps", 20),
        ("AnoDDPM", "channel_multiples", [0]),
        ("DRA", "scales", 7),
    ],
)
def test_a_number_that_cannot_be_is_refused_by_its_option(method, option, value):
    case = case_of(getattr(baselines, method))
    with pytest.raises(ConfigError, match=f"{option} (is|are) .*must"):
        case.small(**{option: value})


@pytest.mark.daily
@pytest.mark.parametrize("name", ["PatchSVDD", "CutPaste", "DRA", "RegAD", "BGAD", "SQUID"])
def test_a_restored_memory_says_that_none_can_be_left_out(name):
    case = case_of(getattr(baselines, name))
    fitted, restored = case.small().model.eval(), case.small().model.eval()
    images = torch.rand(3, 3, case.side, case.side)
    encoded, none = fitted.encode(images), torch.zeros(3, dtype=torch.bool)
    copies = encoded[None] if name != "RegAD" else torch.stack([encoded] * 22)
    fitted.fit_support(encoded, copies, none, torch.arange(3))
    restored.load_state_dict(fitted.state_dict())
    restored.score(encoded, restored.text)
    with pytest.raises(NotReadyError, match="does not say whose its normal images are"):
        restored.score(encoded, restored.text, torch.arange(3))


def test_an_option_of_clip_is_refused_in_python_and_in_a_config():
    with pytest.raises(ConfigError, match="SimpleNet has no use for levels; leave levels out"):
        SimpleNet(levels=[1])
    for name in SimpleNet.no_use_for:
        with pytest.raises(ConfigError, match=f"'{name}' is not accepted"):
            parse_model({"class_path": PATH, "init_args": {name: None}})
    parsed = parse_model({"class_path": PATH, "init_args": {"decide_by": "f1", "margin": 1.0}})
    assert parsed.model.init_args.margin == 1.0


@pytest.mark.daily
@pytest.mark.parametrize(
    ("name", "given", "word"),
    [
        ("SimpleNet", {"noise_std": -1.0}, "noise_std is -1.0, and must be a number of at least 0"),
        ("SimpleNet", {"hidden": 0}, "hidden is 0, and must be a whole number of at least 1"),
        ("PatchSVDD", {"pairs": 1.5}, "pairs is 1.5, and must be a whole number"),
        ("PatchSVDD", {"combine": "max"}, "combine is 'max', and must be one of 'product', 'sum'"),
        ("CutPaste", {"draws": 0}, "draws is 0, and must be a whole number of at least 1"),
        ("CutPaste", {"pasted": "none"}, "pasted is 'none', and must be one of 'both'"),
    ],
)
def test_a_number_or_a_word_that_cannot_be_is_refused(name, given, word):
    with pytest.raises(ConfigError, match=word):
        case_of(getattr(baselines, name)).small(**given)


def test_nothing_is_said_of_options_that_nobody_gave(caplog):
    with caplog.at_level(logging.WARNING):
        case_of(SimpleNet).small()
    assert not caplog.records


def test_a_checkpoint_is_scored(tmp_path):
    case = case_of(SimpleNet)
    picture = case.lesions / "images" / "abnormal" / "1.png"
    found = Inferencer(case.trained.checkpoint).predict(picture)
    assert 0 <= found.score <= 1
    assert found.anomaly_map.shape == (32, 32)


def test_type_checkers_know_every_baseline():
    stub = Path(baselines.__file__).with_suffix(".pyi").read_text()
    for name in baselines.list_baselines():
        assert f" import {name} as {name}\n" in stub, "add it to the stub"
