"""CutPaste's arrays, computed by this package."""

import json
import math
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from anomalib_medclip.baselines.cutpaste import CutPaste
from anomalib_medclip.baselines.cutpaste.density import ledoit_wolf
from anomalib_medclip.baselines.cutpaste.synthesis import Place, rectangle, scar
from golden_cases.common import EXACT, Computed, Tolerance
from golden_cases.drawn_weights import drawn_weights

FORWARD = Tolerance(5e-5)
SCORES = Tolerance(1e-4)


class CutPasteCase:
    """One case of CutPaste: everything that its arrays hold, computed by this package."""

    fewest = 22
    inputs_pattern = r"source_u8|(normal|scar)\d_draws|normal\d_from_box|train|test|way\d"
    tolerances = (
        (r"(normal|scar)\d_(out_u8|.*_box|.*_corner)", EXACT),
        (r"embed_train|embed_test|logits_test|ledoitwolf_shrinkage", FORWARD),
        (r"mahalanobis|kde_score", SCORES),
        (r"train_logits_first", FORWARD),
        (r"gradnorm|grad_out_bias", SCORES),
        (r"train_losses", Tolerance(1e-2)),
        (r"first_loss", Tolerance(1e-5)),
        (r"embed_test_after_training", Tolerance(0.1)),
    )

    def __init__(self, folder: Path) -> None:
        self.meta = json.loads((folder / "meta.json").read_text())
        self.golden = dict(np.load(folder / "golden.npz"))
        self.golden["first_loss"] = self.golden["train_losses"][:1]  # by a sharper tolerance

    def computed(self) -> Computed:
        """Every array this package can compute for the case, by name."""
        for number, source in enumerate(self.golden["source_u8"]):
            yield from self.pasted(number, Image.fromarray(source))
        with torch.no_grad():
            yield from self.scores()
        yield from self.training()

    def pasted(self, number: int, image: Image.Image) -> Computed:
        """Both kinds of pasted images, of what was drawn."""
        _, row, column, *target = self.golden[f"normal{number}_draws"]
        left, top, right, bottom = self.golden[f"normal{number}_from_box"].tolist()
        source, size = Place(int(row), int(column)), (right - left, bottom - top)
        assert (source.column, source.row) == (left, top)
        to = Place(*map(int, target))
        box = to.column, to.row, to.column + size[0], to.row + size[1]
        yield f"normal{number}_to_box", box
        yield f"normal{number}_out_u8", np.asarray(rectangle(image, size, source, to))
        width, height, row, column, angle, *target = self.golden[f"scar{number}_draws"].tolist()
        source, to = Place(int(row), int(column)), Place(*map(int, target))
        end = source.column + width, source.row + height
        yield f"scar{number}_from_box", (source.column, source.row, *end)
        yield f"scar{number}_to_corner", (to.column, to.row)
        found = scar(image, (width, height), source, to, angle)
        yield f"scar{number}_out_u8", np.asarray(found)

    def scores(self) -> Computed:
        """Features, and distances from those of the training images."""
        model = self.method().model.eval()
        train, tested = (model.encode(self.array(name).float()) for name in ("train", "test"))
        (normal, _), (images, _) = model.features(train), model.features(tested)
        yield "embed_train", normal[:, 0]
        yield "embed_test", images[:, 0]
        yield "logits_test", model.logits(tested)
        count = len(train)
        model.fit_support(train, train[None], torch.zeros(count) > 0, torch.arange(count))
        yield "mahalanobis", model.of_images.distance(images)[:, 0]
        units = [F.normalize(one[:, 0].double(), dim=1) for one in (normal, images)]
        yield "ledoitwolf_shrinkage", ledoit_wolf(units[0] - units[0].mean(dim=0))[1]
        # Of a density that is no option here, since it tells unit vectors hardly apart.
        squares = torch.cdist(units[1], units[0]).square()
        constant = math.log(count) + images.shape[-1] / 2 * math.log(2 * math.pi)
        yield "kde_score", constant - (-squares / 2).logsumexp(dim=1)

    def training(self) -> Computed:
        """Three steps on the images that the case names, class after class."""
        method = self.method()
        model, optimizer = method.model.train(), method.configure_optimizers()
        ways = [self.array(f"way{number}").float() for number in range(self.meta["classes"])]
        labels = torch.arange(len(ways)).repeat_interleave(len(ways[0]))
        encoded, losses = model.encode(torch.cat(ways)), []
        with torch.no_grad():
            state = {name: value.clone() for name, value in model.state_dict().items()}
            yield "train_logits_first", model.logits(encoded)
            model.load_state_dict(state)  # of batch norms
        for _ in range(3):
            optimizer.zero_grad()
            loss = model.loss(encoded, None, labels, torch.empty(0))
            loss.backward()
            if not losses:
                grads = [one.grad.norm() for one in model.parameters() if one.grad is not None]
                yield "gradnorm", torch.stack(grads).norm()
                yield "grad_out_bias", model.out.bias.grad
            optimizer.step()
            losses.append(loss.item())
        yield "train_losses", losses
        yield "first_loss", losses[:1]
        with torch.no_grad():
            tested = model.eval().encode(self.array("test").float())
            yield "embed_test_after_training", model.features(tested)[0][:, 0, ::8]

    def method(self) -> CutPaste:
        """A fresh model with the case's initial weights."""
        layers = len(self.meta["head_layers"]) - 1
        method = CutPaste(image_size=self.meta["image_size"], head_layers=layers)
        state = {self.ours(name): value for name, value in self.weights.items()}
        found = method.model.load_state_dict(state, strict=False)
        assert not found.unexpected_keys
        return method

    @staticmethod
    def ours(name: str) -> str:
        """The name of a weight here."""
        return name.replace("resnet18.", "trunk.")

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        return drawn_weights(self.meta)

    def array(self, name: str) -> Tensor:
        return torch.from_numpy(self.golden[name])
