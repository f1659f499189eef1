"""DRA: what its training sees, what its scores are compared with, and what it refuses."""

import copy
import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from conftest import save_picture
from tiny import RESNET, case_of, small

from anomalib_medclip.baselines import DRA
from anomalib_medclip.baselines.dra.losses import Prior, deviation_loss
from anomalib_medclip.baselines.dra.network import HeadScores, top_mean
from anomalib_medclip.baselines.dra.pseudo_anomalies import AREA, Paste, pseudo_anomaly
from anomalib_medclip.baselines.dra.references import References
from anomalib_medclip.baselines.dra.torch_model import routed
from anomalib_medclip.baselines.dra.training_images import (
    NORMAL,
    PSEUDO,
    SEEN,
    TrainingImages,
    Walk,
)
from anomalib_medclip.errors import ConfigError, DataRootError, NotReadyError, WeightsError


def plain(count, value, side=32):
    """Images of one grey level."""
    return torch.full((count, 3, side, side), value)


def test_a_pseudo_anomaly_is_one_piece_pasted_elsewhere():
    random = np.random.default_rng(0)
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    for _ in range(20):
        changed = (pseudo_anomaly(image, random) != image).any(dim=0)
        rows, columns = changed.any(dim=1).nonzero(), changed.any(dim=0).nonzero()
        height, width = (int(one.max() - one.min()) + 1 for one in (rows, columns))
        assert changed.sum() == height * width, "it has hard edges"
        assert 0.8 * AREA[0] < height * width / 64**2 < 1.2 * AREA[1]


def test_pieces_are_taken_and_put_anywhere_and_never_beyond_the_image():
    drawn = [Paste.drawn(32, np.random.default_rng(seed)) for seed in range(300)]
    for one in drawn:
        assert max(one.from_x, one.to_x) + one.width <= 32
        assert max(one.from_y, one.to_y) + one.height <= 32
    assert {one.to_x for one in drawn} >= set(range(22))
    assert len({(one.width > one.height) for one in drawn}) == 2


def test_a_walk_takes_each_number_as_often_as_any_other():
    walk = Walk(5, np.random.default_rng(0))
    taken = [number for _ in range(10) for number in walk.take(3)]
    assert set(Counter(taken).values()) == {6}
    assert sorted(taken[:5]) == list(range(5))


def test_a_batch_is_a_third_seen_anomalies_and_half_the_others_are_made():
    images = TrainingImages(plain(4, 0.2), plain(2, 0.9), torch.empty(0))
    labels = torch.cat([images.draw(48, 5).labels for _ in range(20)])
    counts = [int((labels == kind).sum()) for kind in (NORMAL, SEEN, PSEUDO)]
    assert counts[1] == 320
    assert 270 < counts[0] < 370
    drawn = images.draw(48, 5)
    assert drawn.images.shape == (53, 3, 32, 32)
    seen = drawn.images[5:][drawn.labels == SEEN]
    assert (seen.amax(dim=(1, 2, 3)) == 0.9).all()


def test_half_of_the_references_are_made_as_well():
    outliers = plain(3, 0.6)
    images = TrainingImages(plain(4, 0.2), plain(2, 0.9), outliers)
    levels = torch.cat([images.draw(3, 8).images[:8, 0, 16, 16] for _ in range(20)])
    made = (levels > 0.5).float().mean()
    assert 0.35 < made < 0.65


def test_without_abnormal_images_a_batch_has_none():
    images = TrainingImages(plain(4, 0.2), torch.empty(0, 3, 32, 32), torch.empty(0))
    assert set(images.draw(30, 2).labels.tolist()) == {NORMAL, PSEUDO}


def test_an_epoch_draws_the_same_however_it_came_to_it():
    images = TrainingImages(torch.rand(4, 3, 32, 32), plain(2, 0.9), torch.empty(0))
    drawn = []
    for before in (0, 3):
        for _ in range(before):
            images.draw(6, 2)
        images.begin(np.random.default_rng([7, 3]))
        drawn.append(images.draw(6, 2))
    assert torch.equal(drawn[0].images, drawn[1].images)
    assert torch.equal(drawn[0].labels, drawn[1].labels)


def test_heads_learn_from_what_they_are_for():
    labels = torch.tensor([NORMAL, SEEN, PSEUDO, NORMAL])
    scores = torch.arange(4.0)
    found = routed(HeadScores(scores, scores, scores, scores), labels)
    assert [one.tolist() for one, _ in found] == [[0, 1, 2, 3], [0, 1, 3], [0, 2, 3], [0, 1, 2, 3]]
    assert [one.tolist() for _, one in found] == [[1, 0, 0, 1], [0, 1, 0], [0, 1, 0], [0, 1, 1, 0]]


def test_of_no_images_the_loss_is_none_and_not_nan():
    assert deviation_loss(torch.empty(0), torch.empty(0), Prior.drawn()) == 0


def test_the_highest_tenth_counts_and_one_position_at_least():
    scores = torch.arange(25.0).view(1, 5, 5)
    assert top_mean(scores, 0.1) == 23.5
    assert top_mean(scores, 0.0) == 24


def test_references_leave_an_owner_out():
    references = References(1)
    with pytest.raises(NotReadyError, match="there are no references"):
        references()
    maps = torch.tensor([1.0, 2.0, 6.0]).view(3, 1, 1, 1)
    references.fill([maps], torch.tensor([0, 0, 1]))
    assert references()[0].flatten() == 3
    found = references(torch.tensor([0, 1, -1]))[0].flatten()
    assert found.tolist() == pytest.approx([6, 1.5, 3])
    references.fill([maps], torch.zeros(3, dtype=torch.long))
    with pytest.raises(NotReadyError, match="leave-one-out needs at least two"):
        references(torch.tensor([0]))


def test_a_network_without_maps_is_refused():
    dra = DRA(backbone="timm:test_vit", pretrained=None, image_size=160)
    with pytest.raises(ConfigError, match="gives no maps; take a convolutional backbone"):
        dra.model.network.features(torch.rand(1, 3, 160, 160))


@pytest.mark.parametrize("options", [{"draws": 0}, {"top_share": 2.0}, {"scales": 0}])
def test_numbers_that_cannot_be_are_refused(options):
    with pytest.raises(ConfigError, match=f"{next(iter(options))} is "):
        small(DRA, **options)


def test_weights_are_read_once_and_a_checkpoint_needs_their_file_no_more(tmp_path):
    first = small(DRA, backbone_seed=3)
    torch.save(first.model.network.trunk.state_dict(), tmp_path / "resnet.pt")
    given = small(DRA, pretrained=str(tmp_path / "resnet.pt"))
    weights = given.model.network.trunk.conv1.weight
    assert torch.equal(weights, first.model.network.trunk.conv1.weight)
    assert given.hparams["pretrained"] == str(tmp_path / "resnet.pt")
    with pytest.raises(WeightsError, match="nowhere"):
        small(DRA, pretrained=str(tmp_path / "nowhere.pt"))


def test_images_of_another_kind_are_the_pseudo_anomalies(tmp_path):
    save_picture(tmp_path / "others" / "fundus.png")
    dra = small(DRA, outlier_root=str(tmp_path / "others"))
    found = copy.deepcopy(dra).outliers()
    assert found.shape == (1, 3, 32, 32)
    assert found.max() <= 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataRootError, match=r"there is no image in .*empty; correct outlier_root"):
        small(DRA, outlier_root=str(tmp_path / "empty")).outliers()


def test_a_file_of_a_model_names_no_folder_of_outliers(tmp_path):
    (tmp_path / "patient_jones").mkdir()
    dra = small(DRA, outlier_root=str(tmp_path / "patient_jones"))
    assert b"patient_jones" not in pickle.dumps(dra)


def test_an_epoch_has_as_many_images_as_are_asked_for(tmp_path):
    case = case_of(DRA)
    trained = case.fit(tmp_path, epochs=1, data=case.data(train_batch_size=12), draws=48)
    assert len(trained.data.support_data) == 4
    assert trained.engine.trainer.global_step == 48 / 12
    steps = case.fit(tmp_path, epochs=1, data=case.data(train_batch_size=12), draws=96)
    assert steps.engine.trainer.global_step == 96 / 12


def test_its_network_reads_the_image_and_its_half():
    dra = DRA(backbone=RESNET, pretrained=None, image_size=64)
    found = dra.model.network.features(torch.rand(2, 3, 64, 64))
    assert [tuple(one.shape) for one in found] == [(2, 32, 2, 2), (2, 32, 1, 1)]
