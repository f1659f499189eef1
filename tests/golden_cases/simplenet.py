"""SimpleNet's arrays, computed by this package."""

import json
import tempfile
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from anomalib_medclip.baselines.common import NetworkSource, Trunk
from anomalib_medclip.baselines.simplenet import SimpleNet
from golden_cases.common import T1, T2, T3, Computed

NAMES = {
    "pre_projection.layers.0fc": "adaptor",
    "discriminator.body.block1.0": "discriminator.0",
    "discriminator.body.block1.1": "discriminator.1",
    "discriminator.tail": "discriminator.3",
}
"""The authors' names of layers, and ours."""


class SimpleNetCase:
    """One case of SimpleNet: everything that its arrays hold, computed by this package."""

    fewest = 26
    inputs_pattern = r"input/.*|train/(batch_index|noise)|load_quirk/before/.*"
    tolerances = (
        (r"init/.*|load_quirk/after/.*", T1),
        (r"train/(loss|p_true|p_fake|step0_grad_norm)", T2),
        (r"(train/)?final/.*", T3),
    )

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.meta = json.loads((folder / "meta.json").read_text())
        self.golden = dict(np.load(folder / "golden.npz"))

    def computed(self) -> Computed:
        """Every array this package can compute for the case, by name."""
        yield from self.moved_statistics()
        model = self.method.model.eval()
        tested = self.images[self.golden["input/test_index"]]
        for name, found in zip(self.meta["layers"], model.clip.maps(tested), strict=True):
            yield f"init/feature_{name}", found
        encoded = model.encode(tested)
        yield "init/embedding", self.on_grid(encoded)
        yield "init/projected", self.on_grid(model.adaptor(encoded[:2]))
        yield from self.scores("init", tested)
        yield from self.training()
        yield from self.scores("final", tested)

    def scores(self, when: str, images: Tensor) -> Computed:
        """What the trained or untrained model says, on the authors' scale."""
        model = self.method.model.eval()
        with torch.no_grad():
            encoded = model.encode(images)
            found = model.score(encoded, torch.empty(0))
            yield f"{when}/patch_score", model.patch_scores(encoded).unflatten(1, self.meta["grid"])
        yield f"{when}/image_score", found.pred_score.logit()
        yield f"{when}/anomaly_map", found.anomaly_map.logit()

    def training(self) -> Computed:
        """Three steps, with the noise that the authors' code has drawn."""
        model, optimizer = self.method.model.train(), self.method.configure_optimizers()
        found = {"loss": [], "p_true": [], "p_fake": []}
        for batch, drawn in zip(
            self.golden["train/batch_index"], self.array("train/noise"), strict=True
        ):
            encoded = model.encode(self.images[batch])
            normal, noisy = model.judgements(encoded, drawn.view_as(encoded))
            loss = model.hinge(normal, noisy)
            optimizer.zero_grad()
            loss.backward()
            if not found["loss"]:
                yield "train/step0_grad_norm", self.gradient_norms()
            optimizer.step()
            found["loss"].append(loss.item())
            found["p_true"].append((normal >= model.margin).float().mean().item())
            found["p_fake"].append((noisy < -model.margin).float().mean().item())
        for name, values in found.items():
            yield f"train/{name}", values
        for name in self.golden:
            if name.startswith("train/final/"):
                yield name, self.state[self.ours(name.removeprefix("train/final/"))]

    def gradient_norms(self) -> Tensor:
        """Norms of gradients; of the biases before the batch norm they are rounding, as theirs."""
        parameters = dict(self.method.model.named_parameters())
        names = self.meta["grad_norm_names"]
        norms = torch.stack([parameters[self.ours(name)].grad.norm() for name in names])
        theirs = self.array("train/step0_grad_norm")
        return torch.where((theirs < 1e-5) & (norms < 1e-5), theirs, norms)

    def moved_statistics(self) -> Computed:
        """Running statistics after the backbone has seen an image of ones in training mode."""
        before = "load_quirk/before/"
        kept = {n.removeprefix(before): self.array(n) for n in self.golden if n.startswith(before)}
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "before.safetensors"
            save_file(load_file(self.folder / "backbone.safetensors") | kept, file)
            source = NetworkSource(self.backbone, str(file), self.meta["image_size"])
            network = Trunk(source, self.layers, moved_statistics=True).network
        for name in kept:
            yield f"load_quirk/after/{name}", network.state_dict()[name]

    @cached_property
    def method(self) -> SimpleNet:
        """The model with the case's initial weights."""
        meta = self.meta
        method = SimpleNet(
            backbone=self.backbone,
            pretrained=str(self.folder / "backbone.safetensors"),
            image_size=meta["image_size"],
            layers=self.layers,
            layer_width=meta["pretrain_embed_dimension"],
            width=meta["target_embed_dimension"],
            hidden=meta["hidden"],
            noise_std=meta["noise_std"],
            margin=meta["margin"],
        )
        heads = load_file(self.folder / "heads_init.safetensors")
        found = method.model.load_state_dict(
            {self.ours(name): value for name, value in heads.items()}, strict=False
        )
        assert not found.unexpected_keys
        return method

    @property
    def backbone(self) -> dict[str, object]:
        """The case's network of timm's, with its numbers."""
        return {n: v for n, v in self.meta["backbone"].items() if n != "num_classes"}

    @property
    def layers(self) -> list[int]:
        """Numbers of the stages."""
        return [int(name.removeprefix("layer")) for name in self.meta["layers"]]

    @property
    def state(self) -> dict[str, Tensor]:
        return self.method.model.state_dict()

    @property
    def images(self) -> Tensor:
        return self.array("input/pool_u8").float() / 255

    def on_grid(self, patches: Tensor) -> Tensor:
        return patches.unflatten(1, self.meta["grid"])

    def array(self, name: str) -> Tensor:
        return torch.from_numpy(self.golden[name])

    @staticmethod
    def ours(name: str) -> str:
        """The name of a weight here."""
        layer, _, kind = name.rpartition(".")
        return f"{NAMES[layer]}.{kind}"
