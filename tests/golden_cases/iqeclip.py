"""Every array of a golden case of IQE-CLIP, computed by this package.

A case directory holds ``config.json``, ``clip_state.npz``, ``trainable.npz`` by the authors' names,
and ``data.npz``. Gradients below 1e-5 are rounding noise of what has no effect, such as the bias of
a key before a softmax; those of parameters that do not exist here are 0, or not a number where the
authors' have none.
"""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from anomalib_medclip.components.losses import LossTerms
from anomalib_medclip.models.iqeclip import IQECLIP
from anomalib_medclip.models.iqeclip.released import our_name
from golden_cases.common import EXACT, Computed, Tolerance

BRANCHES = ("text", "query")


@dataclass(frozen=True)
class Relative(Tolerance):
    """Largest error as a share of the largest expected number; what is below the floor is noise."""

    floor: float = 0.0

    def allows(self, error: float, expected: np.ndarray) -> bool:
        return error <= max(self.floor, self.largest * np.nan_to_num(np.abs(expected)).max())


FEATURES, MAPS = Tolerance(1e-5, scaled=False), Tolerance(2e-6, scaled=False)
# Tokens reach 19, and the numbers themselves are off by 1.4e-5 from the same in float64.
TOKENS = Tolerance(2e-6)

TOLERANCES = [
    (r"plain_text_tokens|tokens_(normal|abnormal)", EXACT),
    (r"plain_.*_embed|visual_positional_.*|image_features|ln_post_cls", FEATURES),
    (r"class_token|text_embeddings|query_tokens", FEATURES),
    (r"(patch_tokens|dense)_\d", TOKENS),
    (r"(query_feature(_unnorm)?|sim_query|sim_text)_\d", FEATURES),
    (r"patchmean_.*|map_.*|adam3_map_mix|adam3_prompt_temp", MAPS),
    (r"image_score_(zero|few)_unnorm", MAPS),
    # Stretched to [0, 1] by their own range, and errors with them.
    (r"segment_scores|image_score_(zero|few)", Tolerance(1e-4, scaled=False)),
    (r"loss_.*|adam3_losses", Relative(1e-5)),
    (r"grad(norm|norm_detonly)?/.*", Relative(1e-3, floor=1e-5)),
]


class IQECLIPCase:
    """One case of IQE-CLIP: everything that its arrays hold, computed by this package."""

    fewest = 290
    inputs_pattern = r"images|mask|labels"
    tolerances = TOLERANCES

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = json.loads((folder / "config.json").read_text())
        self.golden = dict(np.load(folder / "data.npz"))

    def computed(self) -> Computed:
        """Every array this package can compute for the case, by name."""
        yield from self.clip_features()
        yield from self.image_features()
        yield from self.scores()
        yield from self.losses()
        yield from self.training()

    @torch.no_grad()
    def clip_features(self) -> Computed:
        clip, text_tower = self.model.clip, self.model.text_tower
        yield "plain_image_embed", clip.pool(clip.taps(self.images, [clip.depth])[:, 0])
        yield "plain_text_tokens", (tokens := text_tower.tokenize(self.config["plain_texts"]))
        yield "plain_text_embed", text_tower(tokens)
        yield "visual_positional_embedding_resized", clip.visual.positional_embedding
        sentences = self.model.prompts.sentences
        for name, sentence in zip(("normal", "abnormal"), sentences, strict=True):
            yield f"tokens_{name}", text_tower.tokenize([sentence])

    @torch.no_grad()
    def image_features(self) -> Computed:
        model, encoded = self.model, self.encoded
        image = model.clip.pool(encoded[:, -1])
        yield "image_features", image
        yield "ln_post_cls", model.clip.visual.ln_post(encoded[:, -1, 0])
        yield "class_token", model.image_prompts.class_tokens(image)
        yield "query_tokens", model.query_module.queries(image)
        features = model.features(encoded, model.text)
        yield "text_embeddings", features.text
        queries = torch.nn.functional.normalize(features.queries, dim=-1)
        for level in range(len(model.levels)):
            yield f"patch_tokens_{level}", encoded[:, level]
            yield f"dense_{level}", features.patches[level]
            yield f"query_feature_unnorm_{level}", features.queries[level]
            yield f"query_feature_{level}", queries[level]

    @torch.no_grad()
    def scores(self) -> Computed:
        model = self.model
        logits = model.logits(model.features(self.encoded, model.text))
        maps, means = model.maps(logits), model.patch_mean(logits)
        for branch, name in enumerate(BRANCHES):
            for level in range(len(model.levels)):
                yield f"sim_{name}_{level}", logits[branch, level]
                yield f"map_{name}_{level}", maps[branch, level]
                yield f"patchmean_{name}_{level}", means[branch, level]
            yield f"map_{name}_mean", maps[branch].mean(dim=0)
        yield "map_mix", model.mix(maps)
        yield from self.set_scores("few", terms=2)
        yield from self.set_scores("zero", terms=2 * len(model.levels))
        smoothed = model.score(self.encoded, self.model.text).anomaly_map
        yield "map_mix_smoothed", smoothed
        yield "segment_scores", _min_max(smoothed)

    def set_scores(self, kind: str, terms: int) -> Computed:
        """Image scores of one of the two kinds; the authors' are sums."""
        self.model.few_shot = kind == "few"
        total = terms * self.model.score(self.encoded, self.model.text).pred_score
        yield f"image_score_{kind}_unnorm", total
        yield f"image_score_{kind}", _min_max(total)

    def losses(self) -> Computed:
        terms = self.terms(self.array("mask"))
        for name in ("focal", "dice"):
            for branch, values in zip(BRANCHES, getattr(terms, name), strict=True):
                yield from ((f"loss_{name}_{branch}_{i}", v) for i, v in enumerate(values))
        for branch, values in zip(BRANCHES, terms.detection, strict=True):
            yield from ((f"loss_bce_{branch}_{i}", v) for i, v in enumerate(values))
        text, query = terms.focal.sum(dim=1) + terms.dice.sum(dim=1)
        yield "loss_text_seg", text
        yield "loss_query_seg", query
        yield "loss_det", terms.detection.sum()
        yield "loss_total", terms.total()
        for prefix, gradient in self.gradients(terms):
            yield f"gradnorm/{prefix}", gradient.norm()
            yield f"grad/{prefix}", gradient
        for prefix, gradient in self.gradients(self.terms(None)):
            yield f"gradnorm_detonly/{prefix}", gradient.norm()

    def training(self) -> Computed:
        """Three steps of Adam on the whole batch."""
        method = self.method()
        optimizer, losses = method.configure_optimizers(), []
        for _ in range(3):
            optimizer.zero_grad()
            truth = self.array("mask"), self.array("labels")
            loss = method.model.loss(self.encoded, *truth, method.model.text)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        yield "adam3_losses", losses
        yield "adam3_prompt_temp", method.model.temperature
        with torch.no_grad():
            features = method.model.features(self.encoded, method.model.text)
            logits = method.model.logits(features)
            yield "adam3_map_mix", method.model.mix(method.model.maps(logits))

    def terms(self, masks: Tensor | None) -> LossTerms:
        return self.model.loss_terms(self.encoded, masks, self.array("labels"), self.model.text)

    def gradients(self, terms: LossTerms) -> Iterator[tuple[str, Tensor]]:
        """Gradients by the authors' names."""
        self.model.zero_grad()
        terms.total().backward()
        ours = dict(self.model.named_parameters())
        for theirs in np.load(self.folder / "trainable.npz"):
            if theirs == "clip.prompt_text_projection":  # never used
                yield theirs, torch.tensor(torch.nan)
            elif our_name(theirs) in ours:
                yield theirs, ours[our_name(theirs)].grad
            else:
                yield theirs, torch.zeros(1)

    def method(self) -> IQECLIP:
        """A fresh model with the case's initial weights."""
        config = self.config
        with tempfile.TemporaryDirectory() as folder:
            clip, trained = Path(folder, "clip.safetensors"), Path(folder, "trained.pt")
            save_file(self.weights("clip_state.npz"), clip)
            torch.save(self.weights("trainable.npz"), trained)
            method = IQECLIP(
                backbone=config["clip"],
                pretrained=str(clip),
                image_size=config["run_image_size"],
                levels=config["features_list"],
                prompt_length=config["prompt_len"],
                deep_prompt_length=config["deep_prompt_len"],
                blocks=config["iqm"]["num_hidden_layers"],
                heads=config["iqm"]["num_attention_heads"],
                feedforward=config["iqm"]["intermediate_size"],
                lr=config["lr"],
                temperature_lr=config["lr_prompt_temp"],
                adapters=str(trained),
            )
        method.model.text = method.model.image_prompts.templates(method.model.text_tower)
        return method

    def weights(self, name: str) -> dict[str, Tensor]:
        arrays = np.load(self.folder / name)
        return {key: torch.from_numpy(arrays[key]).float() for key in arrays}

    @cached_property
    def model(self):
        return self.method().model

    @cached_property
    def images(self) -> Tensor:
        return self.array("images")

    @cached_property
    def encoded(self) -> Tensor:
        return self.model.encode(self.images)

    def array(self, name: str) -> Tensor:
        return torch.from_numpy(self.golden[name])


def _min_max(values: Tensor) -> Tensor:
    return (values - values.min()) / (values.max() - values.min())
