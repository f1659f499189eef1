"""AnoDDPM: its noise, what is brought back, and what it refuses."""

import numpy as np
import pytest
import torch
from tiny import case_of

from anomalib_medclip.baselines import AnoDDPM
from anomalib_medclip.baselines.anoddpm.diffusion import Diffusion, Variances
from anomalib_medclip.baselines.anoddpm.network import MULTIPLES, noise_network
from anomalib_medclip.baselines.anoddpm.simplex import SimplexNoise, octaves
from anomalib_medclip.errors import ConfigError, ParityError


def small(**options):
    return case_of(AnoDDPM).small(**options)


def test_noise_is_smooth_everywhere():
    """Lattice points that are not asked where they say something would make it leap."""
    noise = SimplexNoise(5)
    start = np.random.default_rng(0).uniform(-3, 3, (3, 400))
    direction = np.random.default_rng(1).normal(size=(3, 400))
    along = start[..., None] + direction[..., None] * np.linspace(0, 1e-2, 200)
    steps = np.abs(np.diff(noise(*along), axis=-1))
    assert steps.max() < 2e-3
    assert np.abs(noise(*start)).max() > 0.3


def test_noise_follows_from_its_seed_alone():
    first, again, other = (octaves(SimplexNoise(seed), 16, 3) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)


def test_sizes_halve_and_grow_weaker():
    noise, side = SimplexNoise(1), 32
    coarse = octaves(noise, side, 3, count=1, period=16.0)
    fine = octaves(noise, side, 3, count=1, period=8.0)
    both = octaves(noise, side, 3, count=2, persistence=0.5, period=16.0)
    np.testing.assert_allclose(both, coarse + 0.5 * fine)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_little_is_left_of_an_image_after_all_steps(schedule):
    known = Variances.of(1000, schedule)
    assert (known.kept.diff() < 0).all()
    assert known.kept[0] > 0.999
    assert known.kept[-1] < 1e-4
    assert (known.betas <= 0.999).all()


def test_the_noise_itself_leads_back_to_the_image():
    diffusion = Diffusion(100)
    images, noise = (torch.rand(2, 1, 8, 8) * 2 - 1 for _ in range(2))
    steps = torch.tensor([3, 60])
    noisy = diffusion.noisy(images, steps, noise)
    found = diffusion.before(noisy, steps, noise)
    torch.testing.assert_close(found.image, images, atol=1e-4, rtol=0)
    first = diffusion.before(noisy, torch.zeros(2, dtype=torch.long), noise)
    torch.testing.assert_close(first.mean, first.image, atol=1e-5, rtol=0)


def test_a_network_that_knows_the_noise_brings_images_back():
    model = small(distance=6).model
    images = torch.rand(2, 1, 32, 32) * 2 - 1
    noises = [0.5 * torch.randn(2, 1, 32, 32) for _ in range(6)]

    def estimate(network, noisy, steps):
        kept = model.diffusion.image_part[steps][:, None, None, None]
        return (noisy - kept * images) / model.diffusion.noise_part[steps][:, None, None, None]

    model.average.estimate = estimate
    back = model.brought_back(images, iter(noises))
    torch.testing.assert_close(back, images, atol=1e-3, rtol=0)


@torch.no_grad()
def test_an_image_has_the_same_noise_whenever_and_beside_whatever_it_is_scored():
    model = small(distance=3).model
    images = model.encode(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    both, alone = model.score(images, model.text), model.score(images[1:], model.text)
    torch.testing.assert_close(alone.pred_score, both.pred_score[1:], atol=1e-6, rtol=1e-5)
    # What rounding has made of an image elsewhere does not draw other noise.
    rounded = model.score(images * (1 + 1e-6), model.text)
    torch.testing.assert_close(rounded.anomaly_map, both.anomaly_map, atol=1e-4, rtol=0)


def test_noises_are_as_many_as_steps_and_follow_from_the_seed():
    first, again = (small(distance=3).model.noises for _ in range(2))
    assert first.shape == (3, 1, 32, 32)
    assert torch.equal(first, again)
    others = [first[1], first[2], small(distance=3, seed=9).model.noises[0]]
    assert not any(torch.allclose(first[0], other, atol=0.1) for other in others)


def test_the_average_follows_the_network():
    model = small(average_decay=0.75).model
    weight = next(model.network.parameters())
    before = weight.detach().clone()
    with torch.no_grad():
        weight += 1
    model.average.follow(model.network)
    torch.testing.assert_close(next(model.average.buffers()), before + 0.25)


def test_scores_are_of_the_averaged_weights(tmp_path):
    trained = case_of(AnoDDPM).fit(tmp_path, epochs=1)
    model = trained.model.model.eval()
    given = torch.rand(1, 1, 32, 32), torch.tensor([3])
    with torch.no_grad():
        averaged = model.average.estimate(model.network, *given)
        assert not torch.allclose(averaged, model.network(*given), atol=1e-4)
        model.average.begin(model.network)
        found = model.average.estimate(model.network, *given)
        torch.testing.assert_close(found, model.network(*given), atol=1e-5, rtol=0)


def test_images_enter_as_grey_levels_from_minus_one_to_one():
    model = small().model
    images = torch.zeros(3, 3, 32, 32)
    images[1] = 1
    images[2, 1] = 1
    found = model.encode(images).amax(dim=(1, 2, 3))
    torch.testing.assert_close(found, torch.tensor([-1, 1, 2 * 0.587 - 1]), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"base_channels": 40}, "must be a multiple of 32"),
        ({"heads": 3}, "must be a multiple of 32 and of the 3 heads"),
        ({"channel_multiples": None, "image_size": 48}, r"pass channel_multiples, such as"),
        ({"channel_multiples": [1] * 7}, "cannot be halved 6 times"),
        ({"distance": 51}, "distance is 51"),
        ({"average_decay": 1.5}, "average_decay is 1.5"),
        ({"backbone": "timm:resnet18"}, "has no use for backbone; leave backbone out"),
    ],
)
def test_options_that_cannot_be_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        small(**options)


def test_the_authors_network_has_the_published_number_of_parameters():
    with torch.device("meta"):
        network = noise_network(256, 128, MULTIPLES[256], 2, 2)
    assert round(sum(one.numel() for one in network.parameters()) / 1e6, 1) == 131.6


def test_no_graph_is_made_of_it(tmp_path):
    trained = case_of(AnoDDPM).fit(tmp_path, epochs=1)
    with pytest.raises(ParityError, match="one after the other, and a graph"):
        trained.engine.export(trained.model, "onnx", export_root=tmp_path)
