"""RegAD's arrays, computed by this package."""

import json
import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from anomalib_medclip.baselines.regad import RegAD
from anomalib_medclip.baselines.regad.copies import TWENTY_TWO
from anomalib_medclip.baselines.regad.gaussian import LEAST, PositionGaussian
from anomalib_medclip.baselines.regad.network import pair_loss
from anomalib_medclip.baselines.regad.torch_model import RegADModel, embedding
from golden_cases.common import Computed, Tolerance
from golden_cases.drawn_weights import drawn_weights

NAMES = [
    (r"STN\.(conv1|bn1)\.", r"network.stem.\1."),
    (r"STN\.layer(\d)\.", r"network.stages.\1."),
    (r"STN\.stn(\d)\.", r"network.transformers.\1."),
    (r"ENC\.(conv|bn)(\d)\.", r"encoder.\1\2."),
    (r"PRED\.(conv|bn)(\d)\.", r"predictor.\1\2."),
]
"""The authors' names of modules, and ours but for how they are counted."""

TOLERANCES = [
    (r"distance|anomaly_map", Tolerance(2e-5)),
    (r"pred_score", Tolerance(1e-4)),
    (r"train_first_terms", Tolerance(1e-5)),
    (r"gradnorm_(ENC|PRED)|grad_stn3_.*", Tolerance(1e-4)),
    # These are ill-conditioned: torch's other convolutions move them by 0.3 %, float64 by 2 %.
    (r"gradnorm_STN|grad_stn1_.*", Tolerance(2e-2)),
    (r"train_losses", Tolerance(1e-2)),
    (r"feature_after_training_mean", Tolerance(0.2)),  # of an order of size only
    (r".*", Tolerance(5e-5)),
]


class RegADCase:
    """One case of RegAD: everything that its arrays hold, computed by this package."""

    fewest = 28
    inputs_pattern = r"(train_)?(query|support)"
    tolerances = TOLERANCES

    def __init__(self, folder: Path) -> None:
        self.meta = json.loads((folder / "meta.json").read_text())
        self.golden = dict(np.load(folder / "golden.npz"))
        self.weights = {ours(n): v for n, v in drawn_weights(self.meta).items()}

    def computed(self) -> Computed:
        """Every array this package can compute for the case, by name."""
        with torch.no_grad():
            yield from self.registered(model := self.model())
            yield from self.support(model)
            yield from self.scored(model)
        yield from self.training(self.model())

    def registered(self, model: RegADModel) -> Computed:
        found = model.network(self.array("query"))
        yield "feature", found.maps[-1]
        for stage, (maps, matrix) in enumerate(
            zip(found.upright(), found.matrices, strict=True), start=1
        ):
            yield f"theta_{stage}", matrix
            yield f"aligned_{stage}_mean", maps.mean(dim=(2, 3))
            yield f"aligned_{stage}_first", maps[0, ::8]
        encoded = model.encoder(found.maps[-1])
        predicted = model.predictor(encoded)
        yield "z", encoded[0, ::4]
        yield "p", predicted[0, ::4]
        pairs = (predicted[:1], encoded[1:2]), (predicted[1:2], encoded[:1])
        yield "pair_loss_map", sum(pair_loss(*pair) for pair in pairs) / 2

    def support(self, model: RegADModel) -> Computed:
        copies = torch.stack([copy(self.array("support")) for copy in TWENTY_TWO])
        yield "copies_mean", copies.mean(dim=(2, 3, 4))
        yield "copies_first", copies[:, 0, :, ::4, ::4]
        labels = torch.zeros(copies.shape[1], dtype=torch.bool)
        model.fit_support(copies[0], copies, labels, torch.arange(len(labels)))
        mean = model.mean.T.unflatten(1, (-1, model.network.sides[0]))
        yield "embedding_mean", mean[::8]
        samples = embedding(model._samples)[:, 0, ::16]
        yield "cov_first_position", samples.T.cov()
        assert LEAST == 0.01

    def scored(self, model: RegADModel) -> Computed:
        query = self.array("query")
        found = model.score(query, model.text)
        heat = model.distance_map(query)
        yield "anomaly_map", heat
        yield "pred_score", heat.amax(dim=(1, 2))
        assert torch.equal(found.anomaly_map.flatten(1).argmax(1), heat.flatten(1).argmax(1))
        maps = embedding(model.network(query).upright())
        distance = PositionGaussian(model.mean, model.rows).distance(maps)
        yield "distance", distance.unflatten(1, (-1, model.network.sides[0]))

    def training(self, model: RegADModel) -> Computed:
        model.train()
        query, support = self.array("train_query"), self.array("train_support")
        options = {"lr": self.meta["train_lr"], "momentum": self.meta["train_momentum"]}
        optimizer, losses = torch.optim.SGD(model.parameters(), **options), []
        for step in range(len(self.golden["train_losses"])):
            terms = model.registration_terms(query, support)
            losses.append(sum(terms) / 2)
            optimizer.zero_grad()
            losses[-1].backward()
            if step == 0:
                yield "train_first_terms", [term.item() for term in terms]
                yield from self.gradients(model)
            optimizer.step()
        yield "train_losses", [loss.item() for loss in losses]
        with torch.no_grad():
            maps = model.eval().network(self.array("query")).maps[-1]
        yield "feature_after_training_mean", maps.mean(dim=(2, 3))

    def gradients(self, model: RegADModel) -> Computed:
        for name, part in (("STN", "network"), ("ENC", "encoder"), ("PRED", "predictor")):
            found = [one.grad for one in model.get_submodule(part).parameters()]
            yield f"gradnorm_{name}", torch.cat([one.flatten() for one in found]).norm()
        for stage in (1, 3):
            yield f"grad_stn{stage}_fc2_bias", model.network.transformers[stage - 1].fc[2].bias.grad

    def model(self) -> RegADModel:
        """A fresh model with the case's weights."""
        options = {"image_size": self.meta["image_size"], "mode": self.meta["stn_mode"]}
        model = RegAD(**options, pretrained=None, register=True).model.eval()
        left = model.load_state_dict(self.weights, strict=False)
        assert {*left.unexpected_keys} == {
            n for n in self.weights if n.startswith("encoder.unused")
        }
        assert {*left.missing_keys} <= {"text", "images"}
        return model

    def array(self, name: str) -> Tensor:
        return torch.from_numpy(self.golden[name]).float()


def ours(name: str) -> str:
    """Our name of a weight; a third batch norm of the encoder, which nobody uses, has none."""
    for pattern, mine in NAMES:
        if re.match(pattern, name):
            return _counted(re.sub(pattern, mine, name))
    msg = f"there is no weight {name}"
    raise ValueError(msg)


def _counted(name: str) -> str:
    """Modules by their places, which begin with 0, and not by the authors' numbers."""
    parts = name.split(".")
    if parts[0] == "network" and parts[1] == "stem":
        parts[2] = {"conv1": "0", "bn1": "1"}[parts[2]]
    elif parts[0] == "network":
        parts[2] = str(int(parts[2]) - 1)
    else:
        kind, number = parts[1][:-1], int(parts[1][-1]) - 1
        parts[1] = str(3 * number + (kind == "bn"))
        if kind == "bn" and number == 2:
            parts[1] = f"unused{parts[1]}"
    return ".".join(parts)
