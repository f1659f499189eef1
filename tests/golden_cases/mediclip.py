"""MediCLIP's arrays, computed by this package."""

import json
import tempfile
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.clip.towers import TextTower
from anomalib_medclip.components.learnable_prompts import LearnablePrompts
from anomalib_medclip.models.mediclip import MediCLIP
from golden_cases import mediclip_synthesis as synthesis
from golden_cases.common import EXACT, Computed, Tolerance

GROUPS = ("normal", "abnormal")


def absolute(largest: float) -> Tolerance:
    return Tolerance(largest, scaled=False)


TOLERANCES = [
    (r".*_tokens|tokenized_.*", EXACT),
    (r"plain_.*|prompt_embed_.*|class_text_.*|text_features", absolute(1e-5)),
    (r"(tokens|necked|adapted|cos_map)_\d", Tolerance(1e-5)),
    (r"anomaly_map|image_score|adam5_anomaly_map", absolute(2e-6)),
    (r"loss_.*|adam5_(losses|text_features)", absolute(1e-5)),
    (r"grad(norm)?/.*", absolute(1e-6)),
    *((f"synthesis/({pattern})", absolute(limit)) for pattern, limit in synthesis.TOLERANCES),
]


class MediCLIPCase:
    """One case of MediCLIP: everything that its arrays hold, computed by this package."""

    fewest = 75
    inputs_pattern = rf"images|mask|mask_soft|labels|trainable/.*|synthesis/({synthesis.INPUTS})"
    tolerances = TOLERANCES

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = json.loads((folder / "config.json").read_text())
        self.data = {n: torch.from_numpy(a) for n, a in _load(folder / "data.npz").items()}
        self.trainable = _load(folder / "trainable.npz")
        self.golden = {n: a.numpy() for n, a in self.data.items()}
        for name in ("trainable", "synthesis"):
            arrays = _load(folder / f"{name}.npz")
            self.golden |= {f"{name}/{n}": array for n, array in arrays.items()}

    def computed(self) -> Computed:
        """Every array this package can compute for the case, by name."""
        method = self.method()
        with torch.no_grad():
            yield from self.plain(method)
            yield from self.prompts(method.model.prompts)
            yield from self.maps(method)
        yield from self.gradients(method)
        yield from self.training(method)
        for name, array in synthesis.computed(self.folder):
            yield f"synthesis/{name}", array

    def plain(self, method: MediCLIP) -> Computed:
        tower = method.model.clip
        yield "plain_image_embed", tower.pool(tower.taps(self.images, [tower.depth])[:, 0])
        tokens = self.text_tower.tokenize(self.config["plain_texts"])
        yield "plain_text_tokens", tokens
        yield "plain_text_embed", self.text_tower(tokens)

    def prompts(self, prompts: LearnablePrompts) -> Computed:
        tower = self.text_tower
        for group in GROUPS:
            names = self.config["prompts"][group]
            words = "X " * self.config["n_ctx"]
            yield f"tokenized_{group}", tower.tokenize([f"{words}{name}." for name in names])
            sequences, ends = prompts.sequences(tower, group)
            yield f"prompt_embed_in_{group}", sequences[:2]
            stream = tower.run(sequences + tower.positional_embedding, causal=False)
            yield f"class_text_embed_{group}", tower.read(stream, ends)
        yield "text_features", prompts(tower).T

    def maps(self, method: MediCLIP) -> Computed:
        model, text = method.model, method.model.prompts(self.text_tower)
        encoded = model.encode(self.images)
        cosines = model.cosines(encoded, text)
        for level, tokens in enumerate(encoded.unbind(dim=1)):
            yield f"tokens_{level}", tokens
            yield f"necked_{level}", _grid(tokens[:, 1:])
            adapted = F.normalize(model.adapters[level](tokens[:, 1:]), dim=-1)
            yield f"adapted_{level}", _grid(adapted).permute(0, 2, 3, 1)
            yield f"cos_map_{level}", _grid(cosines[level])
        result = model.score(encoded, text)
        yield "anomaly_map", _both(result.anomaly_map)
        yield "image_score", result.pred_score

    def gradients(self, method: MediCLIP) -> Computed:
        terms = self.terms(method, self.data["mask"])
        yield "loss_focal", terms.focal
        yield "loss_dice", terms.dice
        yield "loss_total", terms.total()
        soft = self.terms(method, self.data["mask_soft"])
        yield "loss_focal_soft", soft.focal
        yield "loss_dice_soft", soft.dice
        terms.total().backward()
        for level, adapter in enumerate(method.model.adapters):
            weight, bias = adapter.weight.grad, adapter.bias.grad
            yield from _gradient(f"adapter.{level}_adapter.0.weight", weight[..., None, None])
            yield from _gradient(f"adapter.{level}_adapter.0.bias", bias)
        for name, context in method.model.prompts.ctx.items():
            yield from _gradient(f"prompt_learner.ctx.{name}", context.grad)

    def training(self, method: MediCLIP) -> Computed:
        optimizer, losses = method.configure_optimizers(), []
        for _ in range(len(self.data["adam5_losses"])):
            optimizer.zero_grad()
            loss = self.terms(method, self.data["mask"]).total()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        yield "adam5_losses", losses
        with torch.no_grad():
            text = method.model.prompts(self.text_tower)
            result = method.model.score(method.model.encode(self.images), text)
        yield "adam5_text_features", text.T
        yield "adam5_anomaly_map", _both(result.anomaly_map)

    def terms(self, method: MediCLIP, mask: Tensor):
        model = method.model
        encoded, text = model.encode(self.images), model.prompts(self.text_tower)
        return model.loss_terms(encoded, mask[:, None], mask.flatten(1).any(1), text)

    def method(self) -> MediCLIP:
        """A fresh model with the case's initial weights."""
        with tempfile.TemporaryDirectory() as folder:
            options = self.backbone(Path(folder))
            method = MediCLIP(**options, levels=self.config["layers_out"])
        method.model.prompts = LearnablePrompts(
            self.config["clip"]["text_cfg"]["width"],
            self.config["prompts"]["normal"],
            self.config["prompts"]["abnormal"],
            self.config["n_ctx"],
            self.config["class_token_positions"],
            shared=not self.config["CSC"],
        )
        weights = {name: torch.from_numpy(array) for name, array in self.trainable.items()}
        prefix = "prompt_learner."
        method.model.prompts.load_state_dict(
            {n.removeprefix(prefix): v for n, v in weights.items() if n.startswith(prefix)}
        )
        method.model.load_adapters(
            {n.removeprefix("adapter."): v for n, v in weights.items() if n.startswith("adapter.")}
        )
        return method

    def backbone(self, folder: Path) -> dict[str, object]:
        """Options of a method with the case's CLIP; its images are normalised already."""
        weights = {n: torch.from_numpy(a) for n, a in _load(self.folder / "clip_state.npz").items()}
        save_file({n: v.float() for n, v in weights.items()}, folder / "clip.safetensors")
        return {
            "backbone": self.config["clip"],
            "pretrained": str(folder / "clip.safetensors"),
            "image_size": self.config["image_size"],
            "quick_gelu": self.config["clip"]["quick_gelu"],
            "normalize": False,
        }

    @cached_property
    def text_tower(self) -> TextTower:
        with tempfile.TemporaryDirectory() as folder:
            options = self.backbone(Path(folder))
            return TextTower(Backbone(options.pop("backbone"), **options))

    @property
    def images(self) -> Tensor:
        return self.data["images"]


def _load(path: Path) -> dict[str, np.ndarray]:
    return dict(np.load(path))


def _grid(patches: Tensor) -> Tensor:
    """Patches ``(batch, patch, channel)`` on their grid, channels first."""
    side = round(patches.shape[1] ** 0.5)
    return patches.transpose(1, 2).unflatten(2, (side, side))


def _both(abnormal: Tensor) -> Tensor:
    """Probabilities of normal and abnormal."""
    return torch.stack([1 - abnormal, abnormal], dim=1)


def _gradient(name: str, value: Tensor) -> Computed:
    yield f"grad/{name}", value
    yield f"gradnorm/{name}", value.norm()
