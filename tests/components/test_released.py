"""Files of authors, by the names that their code gives."""

import pytest
import torch
from torch import nn

from anomalib_medclip.components.released import load_trained
from anomalib_medclip.errors import WeightsError


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def ours(name):
    return name.replace("theirs.", "layer.")


@pytest.fixture
def weights():
    return {"theirs.weight": torch.rand(2, 3, 1), "theirs.bias": torch.rand(2)}


def load(model, state, tmp_path, without_effect="idle"):
    torch.save(state, path := tmp_path / "brain.pth")
    load_trained(model, path, "Probe", ours, without_effect)


@pytest.mark.parametrize("below", [False, True])
def test_layers_of_one_pixel_are_linear_and_what_has_no_effect_is_named(
    below, weights, tmp_path, caplog
):
    model, state = Model(), {**weights, "idle": torch.rand(4)}
    with caplog.at_level("INFO"):
        load(model, {"prompt_learner": state} if below else state, tmp_path)
    assert torch.equal(model.layer.weight, weights["theirs.weight"][..., 0])
    assert torch.equal(model.layer.bias, weights["theirs.bias"])
    assert "1 tensors without effect are left out: idle" in caplog.text


def test_a_checkpoint_of_ours_is_called_one_and_what_to_do_with_it_is_said(weights, tmp_path):
    state = {"state_dict": weights, "anomalib_medclip": {"method": "Probe"}}
    with pytest.raises(
        WeightsError, match=r"is a checkpoint of anomalib-medclip: go on .*ckpt_path"
    ):
        load(Model(), state, tmp_path)


@pytest.mark.parametrize("fault", ["missing", "unknown", "of another shape", "turned"])
def test_a_file_that_does_not_fit_is_refused_by_its_name(fault, weights, tmp_path):
    if fault == "missing":
        del weights["theirs.bias"]
    elif fault == "unknown":
        weights["novel"] = torch.rand(1)
    else:
        shape = (3, 2, 1) if fault == "turned" else (2, 4, 1)
        weights["theirs.weight"] = torch.rand(shape)
    with pytest.raises(WeightsError, match=r"(?s)brain.pth does not fit Probe: .*must hold what"):
        load(Model(), weights, tmp_path)
