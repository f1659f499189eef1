"""MKD's arrays, computed by this package."""

import json
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import load_file
from sklearn.metrics import auc, roc_auc_score
from torch import Tensor

from anomalib_medclip.baselines.mkd import MKD
from anomalib_medclip.baselines.mkd.networks import distances, pooled
from golden_cases.common import T1, T2, T3, Computed, Tolerance

FIRST_ABNORMAL = 12
NORM_FREE = Tolerance(1e-2)
"""Where convolutions before a norm have biases: Adam makes steps of the rounding of no gradient."""


class MKDCase:
    """One case of MKD: everything that its arrays hold, computed by this package."""

    fewest = 43
    inputs_pattern = r"input/.*|train/batch_index"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.meta = json.loads((folder / "meta.json").read_text())
        self.golden = dict(np.load(folder / "golden.npz"))
        trained = NORM_FREE if self.meta["cloner_bias"] else T3
        self.tolerances = (
            (r"init/input_gradient", Tolerance(1e-6, scaled=False)),
            (r"init/map_.*", T2),
            (r"init/localization_.*", T3),
            (r"init/.*", T1),
            (r"train/final/.*", T3 if self.meta["cloner_bias"] else T2),
            (r"train/.*", T2),
            (r"final/.*", trained),
        )

    def computed(self) -> Computed:
        """Every array this package can compute for the case, by name."""
        model = self.method.model.eval()
        images, *source = model._parts(model.encode(self.tested[:3]))
        cloned = pooled(model.cloner, images)
        for pool, (a, b) in enumerate(zip(cloned, source, strict=True), start=2):
            yield f"init/cloner_pool{pool}", a
            yield f"init/source_pool{pool}", b
        yield from self.scores("init")
        model.localisation = "guided"
        yield "init/map_gbp", self.map_of(self.abnormal)
        model.localisation = "gradients"
        yield from self.training()
        yield from self.scores("final")

    def scores(self, when: str) -> Computed:
        """What the trained or untrained model says, on the authors' scale."""
        model = self.method.model.eval()
        encoded = model.encode(self.tested)
        with torch.inference_mode():
            images, *source = model._parts(encoded)
            terms = distances(pooled(model.cloner, images), source)
            scores = model.score(encoded, torch.empty(0)).pred_score
        for name, values in zip(("direction", "value"), terms, strict=True):
            for pool, of_images in enumerate(values, start=2):
                yield f"{when}/{name}_pool{pool}", of_images
        yield f"{when}/image_score", scores / (1 - scores)
        abnormal = self.golden["input/test_index"] >= FIRST_ABNORMAL
        yield f"{when}/image_auroc", roc_auc_score(abnormal, scores)
        yield f"{when}/input_gradient", model.input_gradients(model.clip(self.abnormal))
        yield f"{when}/map_gradients", (found := self.map_of(self.abnormal))
        yield f"{when}/localization_auroc_gradients", self.opened_auroc(found.numpy())

    def training(self) -> Computed:
        """Three steps."""
        model, optimizer = self.method.model.train(), self.method.configure_optimizers()
        losses: list[float] = []
        for batch in self.golden["train/batch_index"]:
            encoded, labels = model.encode(self.images[batch]), torch.zeros(len(batch)).bool()
            loss = model.loss(encoded, None, labels, torch.empty(0))
            optimizer.zero_grad()
            loss.backward()
            if not losses:
                yield "train/step0_grad_norm", self.gradient_norms()
            optimizer.step()
            losses.append(loss.item())
        yield "train/loss", losses
        for name in self.golden:
            if name.startswith("train/final/"):
                yield name, model.cloner.state_dict()[name.removeprefix("train/final/features.")]

    def gradient_norms(self) -> Tensor:
        """Norms of gradients; of biases before a batch norm they are rounding, as theirs."""
        parameters = dict(self.method.model.cloner.named_parameters())
        names = [name.removeprefix("features.") for name in self.meta["grad_norm_names"]]
        norms = torch.stack([parameters[name].grad.norm() for name in names])
        theirs = torch.from_numpy(self.golden["train/step0_grad_norm"])
        return torch.where((theirs < 1e-5) & (norms < 1e-5), theirs, norms)

    def opened_auroc(self, maps: np.ndarray) -> float:
        """The authors' pixel AUROC: of abnormal images, thresholded and opened."""
        shape, lesion = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3)), self.lesions
        rates = []
        for threshold in np.arange(0, 1, 0.001):
            pixels = (maps > threshold).astype(np.uint8)
            found = np.stack([cv2.morphologyEx(one, cv2.MORPH_OPEN, shape) for one in pixels]) > 0
            rates.append((found[~lesion].mean(), found[lesion].mean()))
        return float(auc(*np.array(rates).T))

    def map_of(self, images: Tensor) -> Tensor:
        model = self.method.model
        with torch.inference_mode():
            return model.score(model.encode(images), torch.empty(0)).anomaly_map

    @cached_property
    def method(self) -> MKD:
        """The model with the case's initial weights."""
        meta = self.meta
        blocks = [[]]
        for width in meta["source_layers"]:
            blocks += [[]] if width == "M" else []
            blocks[-1] += [] if width == "M" else [width]
        method = MKD(
            backbone={"timm": "vgg16", "blocks": blocks[:-1]},
            pretrained=str(self.folder / "source.safetensors"),
            image_size=meta["image_size"],
            normalize=False,
            cloner_width=meta["cloner_layers"][0],
            bias=meta["cloner_bias"],
            value_weight=meta["lamda"],
            direction_only=meta["direction_loss_only"],
            localisation="gradients",
            smoothings=1,
            lr=meta["learning_rate"],
        )
        weights = load_file(self.folder / "cloner_init.safetensors")
        weights = {name.removeprefix("features."): value for name, value in weights.items()}
        method.model.cloner.load_state_dict(weights)
        return method

    @property
    def images(self) -> Tensor:
        return torch.from_numpy(self.golden["input/pool_u8"]).float() / 255

    @property
    def tested(self) -> Tensor:
        return self.images[self.golden["input/test_index"]]

    @property
    def abnormal(self) -> Tensor:
        return self.images[FIRST_ABNORMAL:]

    @property
    def lesions(self) -> np.ndarray:
        return self.golden["input/mask"][:, 0] > 0
