"""MKD: its networks, its maps in whatever mode they are asked for, and what it refuses."""

import pytest
import torch
from anomalib.engine import Engine
from tiny import VGG, lesion_data
from torchvision.models import vgg16

from anomalib_medclip.baselines import MKD
from anomalib_medclip.baselines.mkd.maps import stretched_to_percentile
from anomalib_medclip.baselines.mkd.networks import guided_relu, narrow
from anomalib_medclip.baselines.mkd.trunk import Vgg, VggSource
from anomalib_medclip.errors import ConfigError, ParityError, WeightsError
from anomalib_medclip.export.parity import read_certificate

SMALL = {"backbone": VGG, "image_size": 32}
EMPTY = torch.empty(0)


def small(**options):
    return MKD(**{**SMALL, "visualizer": False, **options}).model.eval()


def images(count=2):
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_its_large_network_is_torchvisions():
    with torch.device("meta"):
        own, theirs = Vgg(VggSource("timm:vgg16").blocks), vgg16()
    shapes = {name: value.shape for name, value in theirs.state_dict().items()}
    found = {name: value.shape for name, value in own.state_dict().items()}
    assert found == {name: shape for name, shape in shapes.items() if name.startswith("features")}


def test_its_small_network_has_the_published_widths():
    blocks = narrow(VggSource("timm:vgg16").blocks, 16)
    assert blocks == [[16, 16], [16, 128], [16, 16, 256], [16, 16, 512], [16, 16, 512]]


@pytest.mark.parametrize("localisation", ["guided", "gradients", "smooth_grad", "distance"])
def test_maps_are_the_same_in_every_mode_of_autograd(localisation):
    model = small(localisation=localisation)
    found = []
    for mode in (torch.inference_mode, torch.no_grad, torch.enable_grad):
        with mode():
            found.append(model.score(model.encode(images()), EMPTY))
    for other in found[1:]:
        assert torch.equal(found[0].anomaly_map, other.anomaly_map.detach())
    assert found[0].anomaly_map.std() > 0
    assert all(one.grad is None for one in model.parameters())


def test_an_unstretched_map_says_how_much_an_image_differs():
    plain, stretched = (
        small(localisation="gradients", stretch=False),
        small(localisation="gradients"),
    )
    even = torch.cat([images(1), 0.5 + 0.01 * images(1)])
    heights = [m.score(m.encode(even), EMPTY).anomaly_map.amax((1, 2)) for m in (plain, stretched)]
    assert (heights[0][0] / heights[0][1] - 1).abs() > 0.1
    assert heights[0].max() < heights[1].min()


def test_a_map_without_any_gradient_is_empty():
    assert torch.equal(stretched_to_percentile(torch.zeros(1, 4, 4)), torch.zeros(1, 4, 4))


def test_guided_gradients_are_cut_on_both_ways():
    values = torch.tensor([-1.0, 2.0, 3.0], requires_grad=True)
    (guided_relu(values) * torch.tensor([1.0, -1.0, 1.0])).sum().backward()
    assert values.grad.tolist() == [0.0, 0.0, 1.0]


def test_scores_by_direction_alone_do_not_depend_on_the_weight_of_values():
    one, other = (small(direction_only=True, value_weight=w, bias=True) for w in (0.01, 0.5))
    assert torch.equal(
        one.score(one.encode(images()), EMPTY).pred_score,
        other.score(other.encode(images()), EMPTY).pred_score,
    )


def test_kept_features_change_nothing(lesions, tmp_path):
    found = []
    for cache in ("off", "float32"):
        model = MKD(**SMALL, visualizer=False, cache=cache)
        engine = Engine(default_root_dir=tmp_path, accelerator="cpu", max_epochs=2)
        engine.fit(model, datamodule=lesion_data(lesions))
        found.append(model.model.cloner[0].weight)
    torch.testing.assert_close(*found, atol=1e-5, rtol=0)


def test_networks_that_are_no_vgg_are_refused():
    with pytest.raises(WeightsError, match=r"must be 'timm:NAME' of vgg11, vgg13, vgg16, vgg19"):
        MKD(backbone="timm:resnet18", image_size=32)
    with pytest.raises(WeightsError, match="blocks: "):
        MKD(backbone={"timm": "vgg16", "channels": [8]}, image_size=32)
    with pytest.raises(ConfigError, match="take images of at least 32 px"):
        MKD(backbone=VGG, image_size=31)
    with pytest.raises(ConfigError, match="smoothings is -1"):
        MKD(**SMALL, smoothings=-1)


@pytest.mark.nightly(also="tests/baselines/test_mkd.py::test_its_graph_is_refused_before_any_work")
def test_with_maps_of_distances_it_is_exported(lesions, tmp_path):
    model = MKD(**SMALL, localisation="distance", visualizer=False)
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", max_epochs=1)
    engine.fit(model, datamodule=lesion_data(lesions))
    file = engine.export(model, "onnx", export_root=tmp_path)
    assert read_certificate(file)["figures"]["map"] < 1e-4


def test_its_graph_is_refused_before_any_work(tmp_path):
    method = MKD(**SMALL)
    method.exporter.probes = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    with pytest.raises(ParityError, match="train it with localisation distance to export it"):
        method.to_onnx(tmp_path)
    assert not any(tmp_path.iterdir())
