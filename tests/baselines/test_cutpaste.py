"""CutPaste: what it pastes, its Gaussian beside scikit-learn's, its steps."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.covariance import LedoitWolf
from tiny import case_of

from anomalib_medclip.baselines import CutPaste
from anomalib_medclip.baselines.cutpaste.density import Gaussian, ledoit_wolf
from anomalib_medclip.baselines.cutpaste.synthesis import (
    jittered,
    random_rectangle,
    random_scar,
)
from anomalib_medclip.errors import NotReadyError


@pytest.fixture(scope="module")
def image():
    """Noise in colour: wherever something is pasted, pixels change."""
    pixels = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def changed(image, other):
    """Rows and columns in which pixels differ, and how many pixels do."""
    differs = (np.asarray(image) != np.asarray(other)).any(axis=2)
    rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
    return rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1, differs.sum()


def test_rectangles_are_as_large_and_as_long_as_published(image):
    sizes = [
        changed(image, random_rectangle(image, np.random.default_rng(n)))[:2] for n in range(200)
    ]
    areas = np.array([height * width for height, width in sizes]) / 128**2
    aspects = np.array([width / height for height, width in sizes])
    assert 0.018 < areas.min() < 0.03
    assert 0.14 < areas.max() < 0.155
    assert 0.27 < aspects.min() < 0.4
    assert 2.5 < aspects.max() < 3.7
    assert abs(np.log(aspects).mean()) < 0.15, "as often tall as broad"


def test_scars_are_thin_and_turned(image):
    found = [changed(image, random_scar(image, np.random.default_rng(n))) for n in range(200)]
    longest = max(max(height, width) for height, width, _ in found)
    assert longest <= math.ceil(math.hypot(16, 25)) + 1
    assert max(count for *_, count in found) <= 17 * 26
    filled = [count / (height * width) for height, width, count in found]
    assert min(filled) < 0.7, "the box of what is turned is not full"


def test_chance_is_that_of_the_generator_and_grey_images_stay_grey(image):
    for paste in (random_rectangle, random_scar, jittered):
        first, again, other = (paste(image, np.random.default_rng(n)) for n in (1, 1, 2))
        assert first.tobytes() == again.tobytes() != other.tobytes()
    grey = image.convert("L").convert("RGB")
    pixels = np.asarray(random_rectangle(grey, np.random.default_rng(3))).astype(int)
    assert np.ptp(pixels, axis=2).max() <= 1


@pytest.mark.parametrize(("count", "width"), [(8, 32), (3, 16), (200, 8)])
def test_the_covariance_is_scikit_learns(count, width):
    samples = np.random.default_rng(0).normal(size=(count, width))
    expected = LedoitWolf().fit(samples)
    centred = torch.from_numpy(samples - samples.mean(axis=0))
    found, shrinkage = ledoit_wolf(centred)
    assert shrinkage == pytest.approx(expected.shrinkage_, abs=1e-12)
    torch.testing.assert_close(found, torch.from_numpy(expected.covariance_))


def test_distances_are_mahalanobis_and_an_owner_is_left_out():
    random = torch.Generator().manual_seed(0)
    gaussian, normal = Gaussian(), torch.rand(6, 1, 16, generator=random)
    with pytest.raises(NotReadyError, match="no Gaussian of normal images"):
        gaussian.distance(normal)
    gaussian.fill(normal, torch.tensor([0, 0, 1, 1, 2, 2]))
    tested = torch.rand(2, 1, 16, generator=random)
    units = [torch.nn.functional.normalize(one[:, 0], dim=1).numpy() for one in (normal, tested)]
    whole, apart = (LedoitWolf().fit(some) for some in (units[0], units[0][2:]))
    found = gaussian.distance(tested)[:, 0].numpy()
    np.testing.assert_allclose(found**2, whole.mahalanobis(units[1]), rtol=1e-4)
    found = gaussian.distance(tested, torch.tensor([0, -1]))[:, 0].numpy()
    expected = [apart.mahalanobis(units[1][:1])[0], whole.mahalanobis(units[1][1:])[0]]
    np.testing.assert_allclose(found**2, expected, rtol=1e-4)


@pytest.mark.daily_for(pasted="both")
@pytest.mark.parametrize(
    ("pasted", "classes"), [("both", 3), ("rectangle", 2), ("scar", 2), ("union", 2)]
)
def test_a_batch_has_samples_of_each_class_and_others_in_each_epoch(pasted, classes, tmp_path):
    case = case_of(CutPaste)
    trained = case.ready(tmp_path, epochs=1, pasted=pasted, draws=4)
    trained.engine.fit(trained.model, datamodule=trained.data)
    model, (batch,) = trained.model, list(trained.data.train_dataloader())
    encoded, masks, labels = model.examples(batch)
    count = len(batch.image)
    assert labels.tolist() == [number for number in range(classes) for _ in range(count)]
    assert masks is None
    assert encoded.shape == (classes * count, 3, 128, 128)
    assert count == 4, "each of two images twice, with other chances"
    assert torch.equal(encoded, model.examples(batch)[0])
    twice = sorted(range(count), key=lambda index: batch.image_path[index])
    for one, again in (twice[:2], twice[2:]):
        assert torch.equal(batch.image[one], batch.image[again])
        assert not torch.equal(encoded[one], encoded[again])
    model._numbers = {path: number + 5 for path, number in model._numbers.items()}
    assert not torch.equal(encoded, model.examples(batch)[0])


def test_weights_of_a_file_stay_as_they_are_at_first_and_the_step_size_falls(tmp_path):
    case = case_of(CutPaste)
    begun = case.small().model.trunk.state_dict()
    save_file(begun, tmp_path / "trunk.safetensors")
    found = {}
    for steps in (1, 3):
        options = {"pretrained": str(tmp_path / "trunk.safetensors"), "frozen_steps": 2}
        run = case.ready(tmp_path / str(steps), epochs=steps, **options)
        run.engine.fit(run.model, datamodule=run.data)
        (group,) = run.engine.trainer.optimizers[0].param_groups
        assert group["lr"] == pytest.approx(0.015 * (1 + math.cos(math.pi * (steps - 1) / steps)))
        trunk = run.model.model.trunk
        found[steps] = torch.equal(trunk.conv1.weight, begun["conv1.weight"])
        assert not torch.equal(trunk.bn1.running_mean, begun["bn1.running_mean"])
        assert run.model.hparams["pretrained"] == options["pretrained"]
    assert found == {1: True, 3: False}
