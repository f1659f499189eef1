"""Every array of a golden case of AnomalyCLIP, computed by this package."""

from functools import cached_property
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from anomalib_medclip.clip.towers import TextTower
from anomalib_medclip.clip.value_path import value_path
from anomalib_medclip.components.losses import dice
from anomalib_medclip.models.anomalyclip import AnomalyCLIP
from anomalib_medclip.models.anomalyclip.released import our_name
from golden_cases.common import EXACT, T1, T2, Computed, Tolerance
from golden_cases.prompt_learners import PromptCase

KINDS = ("all_levels", "last")
"""Of trained models: with a map of each level, or of the last alone."""


class AnomalyCLIPCase(PromptCase):
    """One case of AnomalyCLIP."""

    fewest = 59
    tolerances = (
        (r"input/image|image/resized_positional_embedding", Tolerance(1e-6)),
        (r"input/label|text/tokens", EXACT),
        (r"(gradient|trace)_.*", T2),
        (r"(dual|image|text|variant|score|similarity|map|loss).*", T1),
    )
    method = AnomalyCLIP
    options: ClassVar = {"context": "n_ctx", "deep_length": "t_n_ctx", "deep_blocks": "depth"}
    our_name = staticmethod(our_name)

    def build(self, **more: object) -> Any:
        return super().build(value_blocks=self.meta["dpam_layer"] - 1, **more)

    def computed(self) -> Computed:
        """Every array this package can compute for the case, by name."""
        with torch.no_grad():
            yield from self.inputs()
            yield from self.streams()
            yield from self.texts()
            yield from self.scores()
        for kind in KINDS:
            yield from self.training(kind)

    def streams(self) -> Computed:
        model, levels, clip = self.built.model, self.meta["levels"], self.clip
        yield "image/resized_positional_embedding", clip.visual.positional_embedding
        taps = clip.taps(self.images, levels)
        values = value_path(clip, self.images, levels, model.first).values
        yield "image/class_embed", self.encoded[:, 0, 0]
        for number, level in enumerate(levels):
            yield f"dual/original_{level}", taps[:, number]
            yield f"dual/new_{level}", values[:, number]
            yield f"image/patch_embed_{level}", clip.project(values[:, number])

    def texts(self) -> Computed:
        prompts, tower = self.built.model.prompts, self.tower
        rows, ends = zip(
            *(prompts.sequences(tower, group) for group in prompts.phrases), strict=True
        )
        phrases = [f"{'X ' * prompts.context}{word}." for word in ("object", "damaged object")]
        yield "text/tokens", tower.tokenize(phrases)
        yield "text/prompts", torch.cat(rows)
        stream = torch.cat(rows) + tower.positional_embedding
        yield "text/embed", tower.features(stream, torch.cat(ends), True, prompts.deep)
        yield "text/features", prompts(tower)
        plain = tower.features(stream, torch.cat(ends), True)
        yield "variant/text_features_without_deep_prompts", F.normalize(plain, dim=-1)
        rounded = self.build().model.prompts
        for vectors in rounded.deep.vectors:
            vectors.copy_(vectors.half())
        yield "text/features_with_half_prompts", rounded(tower)

    def scores(self) -> Computed:
        model, text = self.built.model, self.text_of(self.built)
        found = model.score(self.encoded, text)
        yield "score/logit", model.logits(self.encoded, text)
        yield "score", found.pred_score
        maps, patches = (
            model.maps(self.encoded, text),
            model.patch_probabilities(self.encoded, text),
        )
        for number, level in enumerate(self.meta["levels"]):
            yield f"similarity_{level}", patches[number]
            yield f"map_level_{level}", maps[number][:, 0]
        yield "map_all_levels", torch.stack(maps).sum(dim=0)[:, 0]
        yield "map_all_levels_smoothed", len(maps) * found.anomaly_map
        last = self.build(levels=self.meta["levels"][-1:]).model
        yield "map_last_smoothed", last.score(self.encoded[:, -1:], text).anomaly_map

    def training(self, kind: str) -> Computed:
        """Losses, their gradients, and three steps of Adam on the whole batch."""
        levels = self.meta["levels"] if kind == "all_levels" else self.meta["levels"][-1:]
        method = self.build(levels=levels)
        model, encoded = method.model, self.encoded[:, -len(levels) :]

        def terms() -> Any:
            return model.loss_terms(encoded, self.masks, self.labels, self.text_of(method))

        first = terms()
        yield f"loss/total_{kind}", first.total()
        if kind == "all_levels":
            yield "loss/image", first.detection
            yield "loss/focal", first.focal / self.meta["lam"]
            yield from self.dice_losses(model)
        gradients = dict(self.gradients(model, first.total()))
        yield f"gradient_{kind}/norms", torch.stack([one.norm() for one in gradients.values()])
        for name, gradient in gradients.items():
            as_theirs = self.golden[f"gradient_{kind}/{name}"].shape
            yield f"gradient_{kind}/{name}", gradient.view(as_theirs)
        trace: list[list[float]] = []

        def step() -> Tensor:
            now = terms()
            trace.append([float(now.focal.sum() + now.dice.sum()), float(now.detection)])
            return now.total()

        self.steps(method, step)
        yield f"trace_{kind}/loss_pixel_image", trace
        with torch.no_grad():
            text = self.text_of(method)
            yield f"trace_{kind}/text_features_after", text
            yield f"trace_{kind}/score_after", model.score(encoded, text).pred_score
            maps = torch.stack(model.maps(encoded[:2], text)).sum(dim=0)[:, 0]
            yield f"trace_{kind}/map_sum_after", maps

    def dice_losses(self, model: Any) -> Computed:
        """Of each channel; the model adds them up."""
        maps = model.maps(self.encoded, self.text_of(self.built))
        yield "loss/dice_abnormal", torch.stack([dice(one, self.masks) for one in maps])
        yield "loss/dice_normal", torch.stack([dice(1 - one, 1 - self.masks) for one in maps])

    def text_of(self, method: Any) -> Tensor:
        return method.model.prompts(self.tower)

    @cached_property
    def tower(self) -> TextTower:
        return TextTower(self.clip.backbone)

    @cached_property
    def encoded(self) -> Tensor:
        return self.built.model.encode(self.images)
