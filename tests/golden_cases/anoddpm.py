"""AnoDDPM's arrays, computed by this package."""

import json
import re
from pathlib import Path

import numpy as np
import torch
from monai.networks.nets.diffusion_model_unet import get_timestep_embedding
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from anomalib_medclip.baselines.anoddpm import AnoDDPM
from anomalib_medclip.baselines.anoddpm.diffusion import Variances
from anomalib_medclip.baselines.anoddpm.lightning_model import LARGEST_NORM
from anomalib_medclip.baselines.anoddpm.simplex import GRADIENTS, SimplexNoise, octaves
from golden_cases.common import EXACT, Computed, Tolerance
from golden_cases.drawn_weights import drawn_weights

NAMES = [
    (r"in_layers\.0", "norm1"),
    (r"in_layers\.2", "conv1.conv"),
    (r"embed_layers\.1", "time_emb_proj"),
    (r"out_layers\.0", "norm2"),
    (r"out_layers\.3", "conv2.conv"),
    (r"skip_connection", "skip_connection.conv"),
    (r"proj_out", "attn.out_proj"),
]
"""The authors' names of the parts of a block, and MONAI's."""

TOLERANCES = [
    (r"simplex_perm.*", EXACT),
    (r"simplex_.*|betas|alphas_cumprod|posterior_.*", Tolerance(1e-12)),
    (r"train_losses", Tolerance(1e-5)),
    (r"train_gradnorm.*|pred_score_mean", Tolerance(1e-4)),
    (r".*", Tolerance(5e-5)),
]


class AnoDDPMCase:
    """One case of AnoDDPM: everything that its arrays hold, computed by this package."""

    fewest = 26
    # Noise in the plane, which the method never draws, is not compared.
    inputs_pattern = r"simplex_(points|noise2)|x0|t|noise|chain_noise|train_(t|noise)"
    tolerances = TOLERANCES

    def __init__(self, folder: Path) -> None:
        self.meta = json.loads((folder / "meta.json").read_text())
        self.golden = dict(np.load(folder / "golden.npz"))
        self.weights = in_monai(drawn_weights(self.meta), self.meta)

    def computed(self) -> Computed:
        """Every array this package can compute for the case, by name."""
        known = Variances.of(self.meta["T"], self.meta["beta_schedule"])
        yield "betas", known.betas
        yield "alphas_cumprod", known.kept
        yield "posterior_variance", known.posterior
        yield "posterior_mean_coef1", known.of_image
        yield "posterior_mean_coef2", known.of_noisy
        yield from self.simplex()
        with torch.no_grad():
            yield from self.one_step(method := self.method())
            yield from self.chain(method)
        yield from self.training(self.method())

    def simplex(self) -> Computed:
        noise = SimplexNoise(self.meta["simplex_seed"])
        yield "simplex_perm", noise.order
        yield "simplex_perm_grad_index3", 3 * (noise.order % len(GRADIENTS))
        yield "simplex_noise3", noise(*self.golden["simplex_points"].T)
        side, names = self.meta["image_size"], ("octaves", "persistence", "frequency")
        yield "simplex_octaves", octaves(noise, side, 37, *(self.meta[n] for n in names))[None]
        yield "simplex_single", octaves(noise, side, 5, 1, period=16)[None]

    def one_step(self, method: AnoDDPM) -> Computed:
        model, images, steps = method.model, self.array("x0"), self.array("t")
        noisy = model.diffusion.noisy(images, steps, self.array("noise"))
        estimate = model.average.estimate(model.network, noisy, steps)
        before = model.diffusion.before(noisy, steps, estimate)
        yield "x_t", noisy
        yield "eps", estimate
        yield "loss_per_image", model.errors(images, steps, self.array("noise"))
        yield "p_mean", before.mean
        yield "p_variance", before.variance
        yield "p_log_variance", before.variance.log()
        yield "p_pred_x_0", before.image
        cosines = get_timestep_embedding(steps, self.meta["base_channels"])
        yield "time_sinusoid", cosines.roll(self.meta["base_channels"] // 2, dims=1)
        yield "time_embedding", model.network.time_embed(cosines)

    def chain(self, method: AnoDDPM) -> Computed:
        images = self.array("x0")
        back = method.model.brought_back(images, iter(self.array("chain_noise")))
        heat = (images - back).square()
        yield "recon", back
        yield "anomaly_map", heat
        yield "pred_score_mean", heat.mean(dim=(1, 2, 3))

    def training(self, method: AnoDDPM) -> Computed:
        model, optimizer = method.model, method.configure_optimizers()
        losses, norms = [], []
        for step, noise in zip(self.array("train_t"), self.array("train_noise"), strict=True):
            losses.append(model.errors(self.array("x0"), step, noise).mean())
            optimizer.zero_grad()
            losses[-1].backward()
            norms.append(clip_grad_norm_(model.network.parameters(), LARGEST_NORM))
            optimizer.step()
            model.average.follow(model.network)
        yield "train_losses", torch.stack(losses)
        yield "train_gradnorm_before_clip", torch.stack(norms)
        given = self.array("x_t")[:1], self.array("t")[:1]
        with torch.no_grad():
            yield "eps_after_training", model.network(*given)
            yield "eps_ema_after_training", model.average.estimate(model.network, *given)

    def method(self) -> AnoDDPM:
        """A fresh model with the case's initial weights."""
        method = AnoDDPM(
            image_size=self.meta["image_size"],
            base_channels=self.meta["base_channels"],
            channel_multiples=self.meta["channel_mults"],
            blocks=self.meta["num_res_blocks"],
            heads=self.meta["n_heads"],
            steps=self.meta["T"],
            distance=self.meta["t_distance"],
            lr=self.meta["lr"],
        )
        method.model.network.load_state_dict(self.weights)
        method.model.average.begin(method.model.network)
        return method

    def array(self, name: str) -> Tensor:
        values = torch.from_numpy(self.golden[name])
        return values.float() if values.is_floating_point() else values


def in_monai(state: dict[str, Tensor], meta: dict) -> dict[str, Tensor]:
    """The authors' weights by MONAI's names, and in its order where that is another."""
    found, places = {}, block_places(len(meta["channel_mults"]), meta["num_res_blocks"])
    for name, value in state.items():
        if name.startswith("time_embedding."):
            number = int(name.split(".")[1]) - 1
            half = value.shape[-1] // 2
            swapped = value.roll(half, dims=1) if name == "time_embedding.1.weight" else value
            found[name.replace(f"time_embedding.{number + 1}", f"time_embed.{number}")] = swapped
            continue
        if name.startswith("out."):
            found[name.replace("out.2", "out.2.conv")] = value
            continue
        before, after = next(pair for pair in places.items() if name.startswith(f"{pair[0]}."))
        rest = name.removeprefix(f"{before}.")
        for pattern, ours in NAMES:
            rest = re.sub(rf"^{pattern}\.", f"{ours}.", rest)
        if "to_qkv" in rest:
            width = value.shape[0] // 3
            parts = value.view(meta["n_heads"], 3, -1, *value.shape[1:]).unbind(dim=1)
            for letter, part in zip("qkv", parts, strict=True):
                key = rest.replace("to_qkv", f"attn.to_{letter}")
                found[f"{after}.{key}"] = part.reshape(width, *value.shape[1:]).squeeze(-1)
        else:
            found[f"{after}.{rest}"] = value.squeeze(-1) if "attn.out_proj" in rest else value
    return found


def block_places(levels: int, blocks: int) -> dict[str, str]:
    """Where the authors' numbered blocks are in MONAI's network, attention being on all levels."""
    places, number = {"down.0.0": "conv_in.conv"}, 1
    for level in range(levels):
        for block in range(blocks):
            places[f"down.{number}.0"] = f"down_blocks.{level}.resnets.{block}"
            places[f"down.{number}.1"] = f"down_blocks.{level}.attentions.{block}"
            number += 1
        if level < levels - 1:
            places[f"down.{number}.0"] = f"down_blocks.{level}.downsampler"
            number += 1
    middle = ("resnet_1", "attention", "resnet_2")
    places |= {f"middle.{at}": f"middle_block.{name}" for at, name in enumerate(middle)}
    for level in range(levels):
        for block in range(blocks + 1):
            number = level * (blocks + 1) + block
            places[f"up.{number}.0"] = f"up_blocks.{level}.resnets.{block}"
            places[f"up.{number}.1"] = f"up_blocks.{level}.attentions.{block}"
        places[f"up.{number}.2"] = f"up_blocks.{level}.upsampler"
    return places
