"""PatchSVDD's arrays, computed by this package."""

import json
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from anomalib_medclip.baselines.patchsvdd import PatchSVDD
from anomalib_medclip.baselines.patchsvdd.networks import BIG, SMALL, STRIDES
from anomalib_medclip.baselines.patchsvdd.pairs import cut
from golden_cases.common import Computed, Tolerance
from golden_cases.drawn_weights import drawn_weights

FORWARD, SCORES = Tolerance(5e-5), Tolerance(1e-4)


class PatchSVDDCase:
    """One case of PatchSVDD: everything that its arrays hold, computed by this package."""

    fewest = 18
    inputs_pattern = r".*_u8|(pos|svdd)\d\d_(coords|label)"
    tolerances = (
        (r"mean_image|embed.*|nearest.*|map.*", FORWARD),
        (r"score_.*", SCORES),
        (r"gradnorm_enc|grad_cls64_fc3_bias", Tolerance(1e-4)),
        (r".*_has_grad", Tolerance(0.0)),
        (r"train_losses", Tolerance(1e-3)),
        (r"first_losses", Tolerance(1e-5)),
        (r"logits64_after", Tolerance(1e-2)),
    )

    def __init__(self, folder: Path) -> None:
        self.meta = json.loads((folder / "meta.json").read_text())
        self.golden = dict(np.load(folder / "golden.npz"))
        # What is said of the first step, more sharply than of the others.
        self.golden["first_losses"] = self.golden["train_losses"][:1]

    def computed(self) -> Computed:
        """Every array this package can compute for the case, by name."""
        with torch.no_grad():
            yield from self.scores()
        yield from self.training()

    def scores(self) -> Computed:
        """Vectors, distances and maps of the test images, after training images were kept."""
        model, train = self.method().model.eval(), self.images("train_u8")
        model.mean_image.copy_(train.mean(dim=0))
        yield "mean_image", 255 * model.mean_image.permute(1, 2, 0)
        count = len(train)
        labels, owners = torch.zeros(count, dtype=torch.bool), torch.arange(count)
        model.fit_support(train, train[None], labels, owners)
        tested = self.images("test_u8")
        vectors = {side: found.permute(0, 2, 3, 1) for side, found in model.vectors(tested).items()}
        yield "embed64_test", vectors[BIG]
        yield "embed32_test", vectors[SMALL][:, ::4, ::4]
        yield "embed64_train", model.vectors(train[:1])[BIG].permute(0, 2, 3, 1)
        for side, found in vectors.items():
            distances = model.banks[str(side)].distance(found.flatten(1, 2))
            yield f"nearest{side}", distances.unflatten(1, found.shape[1:3])
        maps = model.distance_maps(tested)
        yield "map64", maps[BIG]
        yield "map32", maps[SMALL]
        for name, combine in (("mult", "product"), ("sum", "sum")):
            model.combine = combine
            found = model.score(tested, torch.empty(0))
            if combine == "product":
                yield "map_mult", _opened(found.anomaly_map)
            yield f"score_{name}", _opened(found.pred_score)

    def training(self) -> Computed:
        """Three steps on the patches that the authors' code has drawn."""
        method = self.method()
        model, optimizer = method.model.train(), method.configure_optimizers()
        losses = []
        for _ in range(3):
            optimizer.zero_grad()
            terms = self.losses(model)
            (total := terms[:2].sum() + model.weight * terms[2:].sum()).backward()
            if not losses:
                grads = [one.grad for one in model.encoder.parameters()]
                yield "gradnorm_enc", torch.stack([one.norm() for one in grads]).norm()
                yield "grad_cls64_fc3_bias", model.classifiers["64"].bias.grad
            losses.append(torch.cat([terms, total[None]]).tolist())
            optimizer.step()
        yield "train_losses", losses
        yield "first_losses", losses[:1]
        learnt = dict(model.named_parameters())
        for side in STRIDES:
            yield f"cls{side}_fc3_weight_has_grad", f"classifiers.{side}.directions" in learnt
        with torch.no_grad():
            yield "logits64_after", model.directions(BIG, *self.pair("pos64", BIG))

    def losses(self, model) -> Tensor:
        """Of places and of nearness, each of both kinds of patches."""
        places, near = [], []
        for side in STRIDES:
            labels = self.array(f"pos{side}_label")
            places.append(model.place_loss(side, *self.pair(f"pos{side}", side), labels))
            coords = self.array(f"svdd{side}_coords")
            sources = self.sources()[:1]
            near.append(model.close_loss(sources, side, coords[:, :2], coords[:, 2:]))
        return torch.stack([*places, *near])

    def pair(self, name: str, side: int) -> tuple[Tensor, Tensor]:
        """Patches of the pairs that a case names."""
        coords = self.array(f"{name}_coords")
        first, second = (cut(self.sources()[:1], one, side) for one in coords.split(2, dim=1))
        return first, second

    def sources(self) -> Tensor:
        """Images that patches are cut from."""
        return self.array("patch_source_u8").float().view(-1, 3, 256, 256) / 255 - 0.5

    def method(self) -> PatchSVDD:
        """A fresh model with the case's initial weights."""
        meta = self.meta
        method = PatchSVDD(
            image_size=meta["image_size"],
            width=meta["embedding"],
            weight=meta["lambda_value"],
            lr=meta["train_lr"],
        )
        state = dict(self.renamed())
        found = method.model.load_state_dict(state, strict=False)
        assert not found.unexpected_keys
        return method

    def renamed(self):
        """The case's weights under our names."""
        for name, value in self.weights.items():
            part, _, rest = name.partition(".")
            layer, _, kind = rest.rpartition(".")
            if part == "enc":
                small = layer.removeprefix("enc.conv")
                names = {"conv1": "join", "conv2": "last"}
                ours = names.get(layer) or f"small.{int(small) - 1}"
                yield f"encoder.{ours}.{kind}", value
                continue
            classifier = f"classifiers.{part.removeprefix('cls')}"
            if layer == "fc3":
                of_columns = kind == "weight"
                ours = "directions" if of_columns else "bias"
                yield f"{classifier}.{ours}", F.normalize(value, dim=0) if of_columns else value
            else:
                yield f"{classifier}.{ {'fc1': 'first', 'fc2': 'second'}[layer] }.{kind}", value

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        return drawn_weights(self.meta)

    def images(self, name: str) -> Tensor:
        return self.array(name).permute(0, 3, 1, 2).float() / 255

    def array(self, name: str) -> Tensor:
        return torch.from_numpy(self.golden[name])


def _opened(values: Tensor) -> Tensor:
    """Distances, of what is d / (1 + d)."""
    return values / (1 - values)
