"""RegAD: how maps are moved, Gaussians of few and of many samples, and what one training gives."""

import pytest
import torch
from tiny import RESNET, case_of, small

from anomalib_medclip.baselines import RegAD, SimpleNet
from anomalib_medclip.baselines.regad.copies import TWENTY_TWO
from anomalib_medclip.baselines.regad.gaussian import LEAST, PositionGaussian
from anomalib_medclip.baselines.regad.network import (
    RegistrationNetwork,
    as_matrix,
    back,
    identity,
    moved,
    pair_loss,
)
from anomalib_medclip.errors import (
    BackboneMismatchError,
    CheckpointError,
    ConfigError,
    NotReadyError,
    WeightsError,
)
from anomalib_medclip.training.checkpoints import read_checkpoint

MODES = (
    "rotation_scale", "affine", "translation", "rotation", "scale", "shear",
    "translation_scale", "rotation_translation", "rotation_translation_scale",
)  # fmt: skip


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_leaves_maps_alone_at_first_and_each_number_moves_them(mode):
    still = torch.tensor([identity(mode)])
    maps = torch.rand(1, 2, 9, 9, generator=chance())
    torch.testing.assert_close(moved(maps, as_matrix(still, mode)), maps)
    for number in range(still.shape[1]):
        other = still.clone()
        other[0, number] += 0.3
        assert not torch.allclose(moved(maps, as_matrix(other, mode)), maps, atol=1e-2)


def test_numbers_are_an_angle_then_shifts_then_scales():
    numbers = torch.tensor([[torch.pi / 2, 0.1, 0.2, 3.0, 5.0]])
    found = as_matrix(numbers, "rotation_translation_scale")[0]
    torch.testing.assert_close(found, torch.tensor([[0, -1, 0.1], [1, 0, 0.2]]), atol=1e-6, rtol=0)


def test_what_undoes_a_move_does_so_without_a_gradient():
    matrix = torch.eye(2, 3).repeat(4, 1, 1) + 0.3 * torch.rand(4, 2, 3, generator=chance())
    undone = back(matrix.requires_grad_())
    row = torch.tensor([0.0, 0.0, 1.0]).expand(4, 1, 3)
    whole = torch.cat([undone, row], 1) @ torch.cat([matrix, row], 1)
    torch.testing.assert_close(whole, torch.eye(3).repeat(4, 1, 1), atol=1e-5, rtol=0)
    assert not undone.requires_grad


def test_a_network_that_says_leave_it_gives_the_plain_stages():
    network = small(RegAD).model.network.eval()
    images = torch.rand(2, 3, 32, 32, generator=chance())
    stream = network.stem(images)
    with torch.no_grad():
        found = network(images)
        for stage, maps in zip(network.stages, found.upright(), strict=True):
            stream = stage(stream)
            torch.testing.assert_close(maps, stream, atol=1e-4, rtol=1e-4)
    assert [maps.shape[1] for maps in found.maps] == [8, 16, 24]


def test_there_are_22_copies_the_first_being_the_image():
    image = torch.rand(1, 3, 32, 32, generator=chance())
    copies = [copy(image) for copy in TWENTY_TWO]
    assert len(copies) == 22
    assert torch.equal(copies[0], image)
    assert torch.equal(copies[19], torch.rot90(image, 1, (2, 3)))
    assert len({float(copy[0, 0, 3, 5]) for copy in copies}) == 22


@pytest.mark.parametrize("count", [2, 5, 8, 20])
def test_a_gaussian_of_any_number_of_samples_gives_the_mahalanobis_distance(count):
    samples = torch.randn(count, 3, 8, generator=chance(1))
    maps = torch.randn(4, 3, 8, generator=chance(2))
    found = PositionGaussian.of(samples)
    assert found.rows.shape == (3, min(count, 8), 8)
    distance = found.distance(maps)
    for position in range(3):
        covariance = samples[:, position].double().T.cov() + LEAST * torch.eye(8)
        away = maps[:, position].double() - samples[:, position].double().mean(dim=0)
        expected = (away @ covariance.inverse() * away).sum(dim=1).sqrt().float()
        torch.testing.assert_close(distance[:, position], expected, atol=1e-3, rtol=1e-4)


def test_one_sample_has_no_covariance_but_what_is_added():
    found = PositionGaussian.of(torch.zeros(1, 1, 8))
    torch.testing.assert_close(found.distance(torch.ones(1, 1, 8)), torch.tensor([[800.0**0.5]]))


def test_no_gradient_reaches_what_is_predicted():
    predicted, other = (torch.rand(1, 4, 2, 2, requires_grad=True) for _ in range(2))
    pair_loss(predicted, other).sum().backward()
    assert predicted.grad is not None
    assert other.grad is None


def test_images_are_registered_with_others_of_the_batch_and_never_with_themselves():
    model = small(RegAD, register=True, shots=2).model
    seen = []
    model.registration_terms = lambda query, support: (
        seen.append((query, support)) or (query.mean(), support.mean())
    )
    encoded = torch.arange(5.0).view(5, 1, 1, 1).expand(-1, 3, 32, 32)
    model.loss_terms(encoded, None, torch.zeros(5, dtype=torch.bool), model.text)
    [(_, support)] = seen
    assert support.shape[:2] == (5, 2)
    for number, others in enumerate(support[:, :, 0, 0, 0].tolist()):
        assert number not in others
        assert len(set(others)) == 2


def test_nothing_trains_unless_it_is_asked_to_register():
    assert not any(one.requires_grad for one in small(RegAD).parameters())
    assert any(one.requires_grad for one in small(RegAD, register=True).parameters())
    assert small(RegAD, register=True).default_epochs == 50
    with pytest.raises(ConfigError, match="RegAD trains nothing; leave lr out"):
        small(RegAD, lr=0.1)


def test_a_backbone_that_is_no_residual_network_is_refused():
    with pytest.raises(ConfigError, match="this has no conv1; name one"):
        RegAD(backbone="timm:vgg11", pretrained=None, image_size=32)


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    """The checkpoint of a training to register."""
    case = case_of(RegAD)
    options = {"register": True, "lr": 1e-3, "epochs": 2, "shots": 1}
    return case.fit(tmp_path_factory.mktemp("registered"), **options)


def test_a_training_to_register_changes_the_network_and_scores_with_its_support(registered):
    fresh = small(RegAD, register=True).model.network.state_dict()
    learnt = registered.model.model.network.state_dict()
    assert any(not torch.equal(value, fresh[name]) for name, value in learnt.items())
    assert registered.model.post_processor.image_threshold.isfinite()


def test_what_was_learnt_is_given_to_a_model_that_only_compares(registered):
    given = small(RegAD, registration=str(registered.checkpoint))
    learnt = registered.model.model.network.state_dict()
    for name, value in given.model.network.state_dict().items():
        assert torch.equal(value, learnt[name])
    assert given.hparams["registration"] == registered.checkpoint.name
    assert not given.model.images.numel(), "its support is its own"
    assert not any(one.requires_grad for one in given.parameters())


def test_a_checkpoint_holds_normal_images_and_no_gaussians(registered):
    state = read_checkpoint(registered.checkpoint)["state_dict"]
    assert state["model.images"].shape == (2, 3, 32, 32)
    assert not {"model.mean", "model.rows"} & state.keys()
    restored = RegAD.load_from_checkpoint(registered.checkpoint)
    torch.testing.assert_close(restored.model.mean, registered.model.model.mean)
    assert not restored.model._samples


def test_files_that_teach_no_registration_are_refused(registered, tmp_path):
    def given(path, **options):
        small(RegAD, registration=str(path), **options)

    with pytest.raises(WeightsError, match=r"nowhere\.ckpt cannot be read"):
        given(tmp_path / "nowhere.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(CheckpointError, match="not made by a model of anomalib-medclip"):
        given(tmp_path / "foreign.ckpt")
    compared = case_of(RegAD).fit(tmp_path / "compared", epochs=1).checkpoint
    with pytest.raises(WeightsError, match="not trained to register; give a checkpoint of RegAD"):
        given(compared)
    other = case_of(SimpleNet).fit(tmp_path / "other", epochs=1).checkpoint
    with pytest.raises(WeightsError, match="is of SimpleNet"):
        given(other)
    with pytest.raises(WeightsError, match="does not fit this backbone or mode"):
        given(registered.checkpoint, mode="affine")
    with pytest.raises(BackboneMismatchError, match="trained on another backbone"):
        given(registered.checkpoint, backbone=RESNET | {"channels": [8, 16, 24, 40]})


def test_other_sets_teach_it_and_are_compared_with_where_the_target_has_no_support(
    bmad_tree, tmp_path, caplog
):
    from anomalib.engine import Engine

    from anomalib_medclip.data import BMADLeaveOneOut

    for name in ("Brain", "Liver", "Retina_RESC", "Retina_OCT2017", "Chest", "Histopathology"):
        bmad_tree(name, tmp_path / "BMAD", count=4)
    data = BMADLeaveOneOut(tmp_path / "BMAD", "Liver", num_workers=0)
    engine = Engine(
        default_root_dir=tmp_path, accelerator="cpu", max_epochs=1, enable_progress_bar=False
    )
    model = small(RegAD, register=True, shots=1, visualizer=False)
    engine.fit(model, datamodule=data)
    assert "its scores are distances to other sets" in caplog.text
    assert len(model.model.images) == 16
    compares = small(RegAD, visualizer=False)
    with pytest.raises(NotReadyError, match="take the option register"):
        engine.fit(compares, datamodule=data)


def test_transformers_fit_the_maps_of_their_stages():
    network = RegistrationNetwork(
        small(RegAD).backbone.load({}).network, side=224, mode="rotation_scale"
    )
    assert network.sides == [56, 28, 14]
    assert [one.fc[0].in_features for one in network.transformers] == [
        16 * f**2 for f in (14, 7, 4)
    ]
