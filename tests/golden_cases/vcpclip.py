"""Every array of a golden case of VCP-CLIP, computed by this package."""

from functools import cached_property
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from anomalib_medclip.models.vcpclip import VCPCLIP
from anomalib_medclip.models.vcpclip.released import our_name
from golden_cases.common import EXACT, T1, T2, Computed, Tolerance, min_max
from golden_cases.prompt_learners import PromptCase

BRANCHES = ("pre", "post")
CLASS_WORD = 49408
"""What the authors' tokenizer is extended by."""


class VCPCLIPCase(PromptCase):
    """One case of VCP-CLIP."""

    fewest = 40
    tolerances = (
        (r"input/image|clip/resized_positional_embedding", Tolerance(1e-6)),
        (r"input/label|text/tokens", EXACT),
        (r"gradient/.*|map/smoothed_min_max|trace/(text_features|mixed_map)_after", T2),
        (r"(image|text|variant|pre|post|score|map|loss|trace)/.*", T1),
    )
    method = VCPCLIP
    options: ClassVar = {
        "prompt_length": "prompt_len",
        "deep_prompt_length": "deep_prompt_len",
        "heads": "post_heads",
        "temperature_lr": "lr_temperature",
    }
    our_name = staticmethod(our_name)

    def build(self, **more: object) -> Any:
        method = super().build(top_pixels=self.meta["top_pixels"] / self.side**2, **more)
        method.model.text = method.model.prompts(method.model.text_tower)
        return method

    def computed(self) -> Computed:
        """Every array this package can compute for the case, by name."""
        with torch.no_grad():
            yield from self.inputs()
            yield from self.features()
            yield from self.scores()
        yield from self.losses()
        yield from self.training()

    def features(self) -> Computed:
        model = self.built.model
        yield "clip/resized_positional_embedding", self.clip.visual.positional_embedding
        tokens = model.text_tower.tokenize(
            [f"{sentence} x" for sentence in model.prompts.sentences]
        ).clone()
        tokens[:, model.image_prompts.start] = CLASS_WORD
        yield "text/tokens", tokens
        feature = self.clip.pool(self.encoded[:, -1])
        yield "image/embed", feature
        yield "pre/class_vectors", model.image_prompts.class_tokens(feature)
        found = model.features(self.encoded, model.text)
        yield "text/features", found.text
        plain = self.build().model
        plain.image_prompts.class_tokens.convolution = None
        yield "variant/text_features_no_global", plain.features(self.encoded, model.text).text
        logits, adapted = model.logits(found), F.normalize(found.adapted, dim=-1)
        for level in range(len(model.levels)):
            yield f"image/tokens_{level}", self.encoded[:, level]
            yield f"pre/patch_{level}", adapted[level]
            yield f"post/text_{level}", found.post[level]
            for branch, name in enumerate(BRANCHES):
                yield f"{name}/logit_{level}", logits[branch, level]

    def scores(self) -> Computed:
        model = self.built.model
        maps = self.mean_maps(model)
        for name, one in zip(BRANCHES, maps, strict=True):
            yield f"map/{name}_mean", one
        yield "map/mixed", model.mix(maps)
        found = model.score(self.encoded, model.text)
        yield "map/smoothed", found.anomaly_map
        yield "map/smoothed_min_max", min_max(found.anomaly_map)
        yield "score/top2000_sum", 2 * found.pred_score

    def losses(self) -> Computed:
        model = self.built.model
        terms = self.terms(model)
        for kind in ("focal", "dice"):
            for name, values in zip(BRANCHES, getattr(terms, kind), strict=True):
                yield f"loss/{name}_{kind}", values
        yield "loss/total", terms.total()
        gradients = dict(self.gradients(model, terms.total()))
        # The key's bias has no effect; the authors' gradient of it is rounding.
        gradients["post.k_proj_pre_1.bias"] = torch.zeros(1)
        yield "gradient/norms", torch.stack([one.norm() for one in gradients.values()])

    def training(self) -> Computed:
        """Three steps of Adam on the whole batch."""
        method, losses = self.build(), []
        model = method.model

        def step() -> Tensor:
            losses.append(self.terms(model).total())
            return losses[-1]

        self.steps(method, step)
        yield "trace/loss", torch.stack(losses)
        with torch.no_grad():
            temperatures = [model.temperature, model.post_temperature]
            yield "trace/temperatures_after", torch.stack(temperatures)
            yield "trace/text_features_after", model.features(self.encoded, model.text).text
            yield "trace/mixed_map_after", model.mix(self.mean_maps(model))[:2]

    def terms(self, model: Any) -> Any:
        return model.loss_terms(self.encoded, self.masks, self.labels, model.text)

    def mean_maps(self, model: Any) -> Tensor:
        return model.maps(model.logits(model.features(self.encoded, model.text))).mean(dim=1)

    @cached_property
    def encoded(self) -> Tensor:
        return self.built.model.encode(self.images)
