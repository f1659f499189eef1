"""SimpleNet: its embedding, its optimiser, its scores; the contract and the numbers elsewhere."""

import pytest
import torch
import torch.nn.functional as F
from tiny import case_of

from anomalib_medclip.baselines import SimpleNet
from anomalib_medclip.baselines.simplenet.torch_model import embedding


@pytest.fixture(scope="module")
def method():
    return case_of(SimpleNet).small()


def test_a_position_is_the_pooled_values_of_its_neighbourhood_in_every_stage():
    random = torch.Generator().manual_seed(0)
    fine, coarse = (
        torch.rand(1, 2, 6, 6, generator=random),
        torch.rand(1, 4, 3, 3, generator=random),
    )
    found = embedding([fine, coarse], layer_width=6, width=4)
    assert found.shape == (1, 36, 4)
    around = F.pad(fine, (1, 1, 1, 1))[0, :, 1:4, 2:5]  # of the position in row 1 and column 2
    corner = F.pad(coarse, (1, 1, 1, 1))
    taps = torch.stack([corner[0, :, i : i + 3, j : j + 3] for i in range(3) for j in range(3)], 1)
    enlarged = F.interpolate(taps.flatten(0, 1)[None], (6, 6), mode="bilinear")[0, :, 1, 2]
    values = [F.adaptive_avg_pool1d(one.flatten()[None], 6)[0] for one in (around, enlarged)]
    expected = F.adaptive_avg_pool1d(torch.cat(values)[None], 4)[0]
    torch.testing.assert_close(found[0, 8], expected)


def test_its_optimiser_is_adamw_of_the_adaptor_and_adam_of_the_discriminator(method):
    model = case_of(SimpleNet).small(lr=0.02).model
    method = case_of(SimpleNet).small(lr=0.02)
    one = method.configure_optimizers()
    others = [
        torch.optim.AdamW(model.adaptor.parameters(), lr=0.01, weight_decay=0.01),
        torch.optim.Adam(model.discriminator.parameters(), lr=0.02, weight_decay=1e-5),
    ]
    random = torch.Generator().manual_seed(0)
    for _ in range(3):
        pairs = list(zip(model.parameters(), method.model.parameters(), strict=True))
        for theirs, ours in (pair for pair in pairs if pair[0].requires_grad):
            theirs.grad = torch.rand(theirs.shape, generator=random)
            ours.grad = theirs.grad.clone()
        for optimizer in (one, *others):
            optimizer.step()
    for theirs, ours in zip(model.parameters(), method.model.parameters(), strict=True):
        assert torch.equal(theirs, ours)


@torch.no_grad()
def test_the_score_is_the_highest_of_a_position_before_the_map_is_smoothed(method):
    model = method.model.eval()
    encoded = model.encode(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
    found, patches = model.score(encoded, torch.empty(0)), model.patch_scores(encoded)
    torch.testing.assert_close(found.pred_score, patches.amax(dim=1).sigmoid())
    assert (found.anomaly_map.flatten(1).amax(dim=1) < found.pred_score).all()


def test_noise_is_drawn_anew_for_each_step_and_told_by_the_seed(method):
    model = method.model
    encoded, labels = torch.rand(2, 16, 48), torch.zeros(2, dtype=torch.bool)
    losses = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        losses.append(model.loss(encoded, None, labels, torch.empty(0)).item())
    assert losses[0] == losses[1] != losses[2]
