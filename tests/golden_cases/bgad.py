"""BGAD's arrays, computed by this package."""

import json
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score
from torch import Tensor

from anomalib_medclip.baselines.bgad import BGAD
from anomalib_medclip.baselines.bgad.losses import (
    Boundary,
    abnormal_weights,
    flow_loss,
    normal_weights,
)
from anomalib_medclip.baselines.bgad.schedule import cosine, step_size
from anomalib_medclip.baselines.bgad.torch_model import Positions, likelihood_maps
from golden_cases.common import T1, T2, Computed, Tolerance

FIRST_ABNORMAL = 8


class BGADCase:
    """One case of BGAD: everything that its arrays hold, computed by this package."""

    fewest = 35
    inputs_pattern = r"input/.*|train/(batch_index|perm)_.*|loss_unit/(logp|mask)"
    tolerances = (
        (r"init/(anomaly_map|image_score|auroc_image_pixel)", T1),
        (r"init/.*|loss_unit/.*", T1),
        (r"schedule/.*|train/lr", Tolerance(1e-9, scaled=False)),
        (r"train/steps_epoch0", Tolerance(0, scaled=False)),
        (r"(train|final)/.*", T2),
    )

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.meta = json.loads((folder / "meta.json").read_text())
        self.golden = dict(np.load(folder / "golden.npz"))

    def computed(self) -> Computed:
        """Every array this package can compute for the case, by name."""
        with torch.no_grad():
            yield from self.flows()
        yield from self.scores("init")
        yield from self.losses()
        yield from self.training()
        yield from self.scores("final")
        lr, epochs = self.meta["lr"], self.meta["meta_epochs"]
        yield "schedule/cosine_lr_per_epoch", [cosine(lr, one, epochs) for one in range(epochs)]

    def flows(self) -> Computed:
        """Frozen maps, and what the flow of each level makes of the first test image."""
        model = self.method.model
        for level, (flow, features) in enumerate(
            zip(model.level_flows, model.maps(model.encode(self.tested[:3])), strict=True)
        ):
            yield f"init/feature_level{level}", features
            yield f"init/position_level{level}", flow.positions
            latent, determinant = flow(features[0].flatten(1).T, flow.positions)
            kept = len(self.golden[f"init/z_level{level}_image5"])
            yield f"init/z_level{level}_image5", latent[:kept]
            yield f"init/log_jac_det_level{level}_image5", determinant

    def scores(self, when: str) -> Computed:
        """Likelihoods, and the authors' map over all test images together."""
        model = self.method.model.eval()
        with torch.no_grad():
            logp = model.logp(model.encode(self.tested))
            highest = torch.stack([one.max() for one in logp])[:, None]
            total = likelihood_maps(logp, highest, model.clip.size).sum(dim=0)
        for level, values in enumerate(logp):
            yield f"{when}/logp_level{level}", values
        maps = total.max() - total
        scores = maps.amax(dim=(1, 2))
        yield f"{when}/anomaly_map", maps
        yield f"{when}/image_score", scores
        rows = self.golden["input/test_index"]
        lesions = self.golden["input/mask"][rows, 0] > 0
        image = roc_auc_score(rows >= FIRST_ABNORMAL, scores)
        yield f"{when}/auroc_image_pixel", [image, roc_auc_score(lesions.ravel(), maps.flatten())]

    def losses(self) -> Computed:
        """Each loss by itself."""
        logp, abnormal = (self.array(f"loss_unit/{name}") for name in ("logp", "mask"))
        abnormal = abnormal > 0
        weights = torch.where(abnormal, abnormal_weights(logp), normal_weights(logp))
        yield "loss_unit/focal_weights", weights
        yield "loss_unit/boundaries", torch.stack(self.boundary.of(logp[~abnormal]))
        for suffix, focal in (("", False), ("_focal", True)):
            loss = flow_loss(logp, abnormal, self.boundary, focal)
            yield f"loss_unit/ml{suffix}", loss.likelihood
            yield f"loss_unit/spp{suffix}", torch.stack([loss.normal, loss.abnormal])
            if not focal:
                yield "loss_unit/spp_normal_only", loss.normal

    def training(self) -> Computed:
        """Two epochs in the order that the authors' code has drawn."""
        model, optimizer = self.method.model.train(), self.method.configure_optimizers()
        found = {name: [] for name in ("loss", "lr", "norms", "boundary", "terms")}
        for epoch in (0, 1):
            if epoch:
                yield "train/steps_epoch0", len(found["loss"])
            for group, focal in self.groups(epoch):
                rate = step_size(self.meta["lr"], epoch, self.meta["meta_epochs"], 0.0)
                optimizer.param_groups[0]["lr"] = rate
                loss = model.group_loss(group, focal)
                optimizer.zero_grad()
                loss.total(self.meta["lam"]).backward()
                self.note(found, group, loss, rate)
                optimizer.step()
        yield "train/loss", found["loss"]
        yield "train/lr", np.float32(found["lr"])
        yield "train/grad_norm_level", torch.stack(found["norms"])
        yield "train/boundary_step_bn_ba", torch.stack(found["boundary"])
        yield "train/terms_step_normal_abnormal", torch.stack(found["terms"])
        for name in self.golden:
            if name.startswith("train/final/"):
                level, weight = name.removeprefix("train/final/level").split(".", 1)
                yield name, model.level_flows[int(level)].flow.state_dict()[weight]

    def groups(self, epoch: int):
        """Positions of each step of an epoch, and whether they are weighed."""
        size, model = self.meta["positions_per_step"], self.method.model
        batch = self.golden[f"train/batch_index_epoch{epoch}"]
        masks = self.array("input/mask")[batch].float()
        with torch.no_grad():
            whole = model.groups(model.encode(self.images[batch]), masks)
        for level, positions in enumerate(whole):
            order = self.array(f"train/perm_epoch{epoch}_level{level}").long()
            for chosen in order[: len(order) // size * size].split(size):
                yield positions.at(chosen), epoch > 0 and self.meta["focal_weighting"]

    def note(self, found: dict[str, list], group: Positions, loss, rate: float) -> None:
        """Keep what a step was."""
        step = len(found["loss"])
        abnormal = group.abnormal > 0
        if abnormal.any():
            with torch.no_grad():
                logp = group.flow.logp(group.vectors, group.codes)
            numbers = [torch.tensor(float(step)), *self.boundary.of(logp[~abnormal])]
            found["boundary"].append(torch.stack(numbers))
            found["terms"].append(torch.stack([numbers[0], loss.normal, loss.abnormal]).detach())
        if step < 3:
            found["norms"].append(torch.stack([_norm(one) for one in self.method.model.flows]))
        found["loss"].append(loss.total(self.meta["lam"]).item())
        found["lr"].append(rate)

    @cached_property
    def method(self) -> BGAD:
        """The model with the case's initial weights."""
        meta = self.meta
        method = BGAD(
            backbone={"timm": meta["encoder"]["timm"]},
            pretrained=str(self.folder / "encoder.safetensors"),
            image_size=meta["image_size"],
            layers=meta["encoder"]["out_indices"],
            blocks=meta["coupling_layers"],
            code=meta["pos_embed_dim"],
            beta=meta["beta"],
            tau=meta["tau"],
            boundary_weight=meta["lam"],
            focal=meta["focal_weighting"],
            positions=meta["positions_per_step"],
            lr=meta["lr"],
        )
        for level, flow in enumerate(method.model.level_flows):
            prefix = f"level{level}."
            weights = load_file(self.folder / "flows_init.safetensors").items()
            own = {n.removeprefix(prefix): v for n, v in weights if n.startswith(prefix)}
            flow.flow.load_state_dict(own)
        return method

    @property
    def boundary(self) -> Boundary:
        return self.method.model.boundary

    @property
    def images(self) -> Tensor:
        return self.array("input/pool_u8").float() / 255

    @property
    def tested(self) -> Tensor:
        return self.images[self.golden["input/test_index"]]

    def array(self, name: str) -> Tensor:
        return torch.from_numpy(self.golden[name])


def _norm(module: torch.nn.Module) -> Tensor:
    """Norm of all gradients of a module; 0 if it has none."""
    found = [one.grad.norm() for one in module.parameters() if one.grad is not None]
    return torch.stack(found).norm() if found else torch.zeros(())
