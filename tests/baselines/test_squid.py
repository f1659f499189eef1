"""SQUID: its windows, its memories, its scores, and what it refuses."""

from types import SimpleNamespace

import pytest
import torch
from anomalib.engine import Engine
from tiny import TRAINING, lesion_data

from anomalib_medclip.baselines import SQUID
from anomalib_medclip.baselines.squid.lightning_model import moved
from anomalib_medclip.baselines.squid.memory import InPainting, Queue, recalled, with_shortcut
from anomalib_medclip.baselines.squid.networks import cut, glued
from anomalib_medclip.errors import ConfigError, NotReadyError

SMALL = {**TRAINING["SQUID"].options, "visualizer": False}
EMPTY = torch.empty(0)


def images(count, channels=3):
    random = torch.Generator().manual_seed(0)
    return torch.rand(count, channels, 64, 64, generator=random)


def test_windows_are_cut_image_by_image_and_glued_again():
    maps = torch.arange(2 * 3 * 4 * 4.0).view(2, 3, 4, 4)
    windows = cut(maps, 2)
    assert torch.equal(windows[1], maps[0, :, :2, 2:])
    assert torch.equal(windows[4], maps[1, :, :2, :2])
    assert torch.equal(glued(windows, 2), maps)


def test_the_fifth_slot_and_all_below_are_forgotten_but_learn():
    slots = torch.eye(7).requires_grad_()
    query = torch.tensor([[7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]])
    found = recalled(query, slots)
    assert (found > 0).sum() == 4
    assert found.sum().item() == pytest.approx(1.0, abs=1e-6)
    found[0, 0].backward()
    assert (slots.grad != 0).any()


def test_of_slots_that_are_alike_some_are_recalled_whatever_rounding_says():
    """Few images fill a memory with the same windows again and again."""
    window, other = torch.rand(2, 8, generator=torch.Generator().manual_seed(0))
    slots = torch.stack([window] * 9 + [other])
    rounded = slots + 1e-7 * torch.randn(slots.shape, generator=torch.Generator().manual_seed(1))
    for kept in (slots, rounded):
        found = recalled(window[None], kept)
        torch.testing.assert_close(found[0], window, atol=1e-5, rtol=0)


def test_a_queue_keeps_the_latest_vectors():
    queue = Queue(slots=3, width=2)
    first, last = torch.full((2, 2), 1.0), torch.tensor([[2.0, 2.0], [3.0, 3.0]])
    queue.push(first)
    queue.push(last)
    assert queue.rows[:, 0].tolist() == [3.0, 1.0, 2.0]
    queue.push(torch.arange(5.0)[:, None].expand(5, 2))
    assert sorted(queue.rows[:, 0].tolist()) == [2.0, 3.0, 4.0]
    assert queue.state_dict()["pointer"] == 9 % 3


def test_a_window_is_made_of_its_neighbours_and_of_its_place():
    torch.manual_seed(0)
    block = InPainting(channels=8, inner=8, side=1, parts=3, slots=6).eval()
    windows = torch.rand(9, 8, 1, 1)
    other = windows.clone()
    other[0] += 1  # a corner: the opposite one is no neighbour
    with torch.no_grad():
        changed = (block(windows)[0] - block(other)[0]).abs().flatten(1).amax(dim=1) > 1e-7
    assert changed.tolist() == [True, True, False, True, True, False, False, False, False]


def test_a_shortcut_is_of_training_alone():
    made, given = torch.ones(1, 2, 40, 40), torch.zeros(1, 2, 40, 40)
    assert torch.equal(with_shortcut(made, given, training=False), made)
    mixed = with_shortcut(made, given, training=True)
    assert 0.9 < mixed.mean() < 0.99
    assert torch.equal(mixed[:, 0], mixed[:, 1])


def test_scores_count_from_the_normal_images_that_may_be_seen():
    model = SQUID(**SMALL).model.eval()
    with pytest.raises(NotReadyError, match="no normal image was seen"):
        model.score(images(1), EMPTY)
    labels, owners = torch.tensor([False, False, True]), torch.tensor([0, 1, 1])
    model.train()
    model.fit_support(images(3), images(2)[None], labels, owners)
    assert model.training
    model.eval()
    assert len(model.logits) == 2
    whole = model.standing(model.logits)
    assert whole.mean().abs() < 1e-5
    apart = model.standing(model.logits, torch.tensor([0, -1]))
    assert apart[0] == (model.logits[0] - model.logits[1]) / model.least_deviation
    assert apart[1] == whole[1]
    model.fit_support(images(1), images(1)[None], torch.tensor([False]), torch.tensor([4]))
    with pytest.raises(NotReadyError, match="leave-one-out needs at least two"):
        model.score(images(1), EMPTY, torch.tensor([4]))


def test_what_looks_less_real_scores_higher():
    model = SQUID(**SMALL).model.eval()
    model.logits = torch.tensor([0.0, 1.0])
    standing = model.standing(torch.tensor([3.0, -3.0]))
    assert standing[0] > 0 > standing[1]
    model.discriminator.forward = lambda _made: torch.tensor([3.0, -3.0])
    scores = model.score(images(2), EMPTY).pred_score
    assert scores[0] < 0.5 < scores[1]


def test_training_images_are_moved_by_a_twentieth():
    one = torch.zeros(1, 1, 64, 64)
    one[..., 30:34, 30:34] = 1
    torch.manual_seed(0)
    for _ in range(8):
        rows, columns = torch.nonzero(moved(one)[0, 0] > 0.5, as_tuple=True)
        assert (rows.float().mean() - 31.5).abs() <= 3.5
        assert (columns.float().mean() - 31.5).abs() <= 3.5


def test_of_two_batches_one_trains_the_generator(lesions, tmp_path):
    method = SQUID(**{**SMALL, "critic": 2})
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", max_epochs=4)
    engine.fit(method, datamodule=lesion_data(lesions, train_batch_size=4))
    assert engine.trainer.global_step == 4 + 2
    assert method.model.generator.inpaint_block.memory[0].pointer == 2 * 2 % SMALL["slots"]


def test_sizes_that_cannot_be_are_refused():
    for side in (32, 80):
        with pytest.raises(ConfigError, match=f"image_size is {side}"):
            SQUID(**{**SMALL, "image_size": side})
    with pytest.raises(ConfigError, match="features is 5, and must be a multiple of 2"):
        SQUID(**{**SMALL, "features": 5})
    with pytest.raises(ConfigError, match="leave backbone out"):
        SQUID(**SMALL, backbone="timm:resnet18")


def test_several_processes_are_refused():
    method = SQUID(**SMALL)
    method._trainer = SimpleNamespace(world_size=2, datamodule=None)
    with pytest.raises(ConfigError, match="learns in one process"):
        method.setup("fit")
