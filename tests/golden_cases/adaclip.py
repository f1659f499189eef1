"""Every array of a golden case of AdaCLIP, computed by this package.

k-means is random, so what it found is an input: the number of each patch's cluster, -1 for patches
that are not among the most abnormal. Which these are is computed, and so compared.
"""

from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from anomalib_medclip.components.anomaly_map import abnormal_map, align
from anomalib_medclip.components.losses import dice, focal
from anomalib_medclip.components.prompts import sentences
from anomalib_medclip.models.adaclip import AdaCLIP
from anomalib_medclip.models.adaclip.released import our_name
from golden_cases.common import EXACT, T1, T2, T3, Computed, Tolerance
from golden_cases.prompt_learners import PromptCase


class AdaCLIPCase(PromptCase):
    """One case of AdaCLIP."""

    fewest = 50
    inputs_pattern = r"raw/.*|input/mask|(gradient|trace)/patch_label(_after)?"
    tolerances = (
        (r"input/image|clip/resized_positional_embedding", Tolerance(1e-6)),
        (r"input/label|text/tokens|hsf/patch_label", EXACT),
        (r"trace/weight_norms_after", Tolerance(5e-5)),
        (r"trace/(map|score)_after", T3),
        (r"(gradient|trace)/.*", T2),
        (r"(text|frozen|dynamic|prompted|projected|logit_|hsf|score|map|train|loss|variant).*", T1),
    )
    method = AdaCLIP
    options: ClassVar = {
        "prompt_length": "prompting_length",
        "prompted_blocks": "prompting_depth",
        "clusters": "k_clusters",
    }
    our_name = staticmethod(our_name)

    def computed(self) -> Computed:
        """Every array this package can compute for the case, by name."""
        with torch.no_grad():
            yield from self.inputs()
            yield "clip/resized_positional_embedding", self.clip.visual.positional_embedding
            yield from self.first_text()
            images = [dict(self.of_image(at)) for at in range(len(self.images))]
            for name in images[0]:
                shown = images[: len(self.golden[name])]
                yield name, torch.stack([one[name] for one in shown])
        yield from self.gradient()
        yield from self.training()

    def first_text(self) -> Computed:
        model, text = self.built.model, self.text_of(0)
        words = model.prompts.words
        name = self.meta["object_names"][0]
        said = sentences(name, words.normal + words.abnormal, words.templates)
        yield "text/tokens", model.text_tower.tokenize(said)
        own = model.dynamic_text(self.feature(0))
        prompts = model.text_prompts
        yield "text/sentence_embed", prompts.sentence_features(model.text_tower, text, own)[0]

    def of_image(self, at: int) -> Computed:
        """What is said of an image, by itself."""
        model = self.with_labels(self.built.model, "hsf/patch_label", at)
        feature = self.feature(at)
        yield "frozen/image_embed", feature[0]
        yield "dynamic/visual", model.dynamic(feature)[0]
        yield "dynamic/text", model.dynamic_text(feature)[0]
        prompted = model.prompted(self.encoded(at)[:, 0], feature)
        yield "prompted/image_embed", prompted.feature[0]
        features = model.features(self.encoded(at), self.text_of(at))
        yield "text/features", features.text[0].T
        yield "projected/cls", features.token[0]
        logits = model.logits(features)
        for level in range(len(logits)):
            yield f"prompted/tokens_{level}", prompted.tokens[level, 0]
            yield f"projected/patch_{level}", features.patches[level, 0]
            yield f"logit_{level}", logits[level, 0]
        yield from self.scores(at, features, logits)
        yield from self.losses(at, model.maps(logits)[:, 0])

    def scores(self, at: int, features: Any, logits: Tensor) -> Computed:
        model = self.built.model
        abnormal = logits.mean(dim=0).softmax(dim=-1)[..., 1]
        yield "hsf/patch_score", abnormal[0]
        yield "hsf/center", model.fusion.centre(features.patches, abnormal)[0]
        picked, labels = model.fusion.chosen(abnormal)[0], self.array("hsf/patch_label")[at]
        yield "hsf/patch_label", torch.full_like(labels, -1).index_copy(0, picked, labels[picked])
        fused = model.fused(features, logits)
        yield "score/feature", fused[0]
        probabilities = align(fused[:, None], features.text)[:, 0].softmax(dim=-1)
        yield "train/score_probability", probabilities[0]
        found = model.score(self.encoded(at), self.text_of(at))
        yield "score", found.pred_score[0]
        yield "map_smoothed", found.anomaly_map[0]
        yield "map", self.plain_map(model, at)
        text = self.text_of(at)
        plain = self.plain.score(self.encoded(at), text)
        yield "variant/no_hsf_score", plain.pred_score[0]
        yield "variant/only_S_no_hsf_score", self.static.score(self.encoded(at), text).pred_score[0]
        yield "variant/only_S_map_mean", self.plain_map(self.static, at).mean()

    def losses(self, at: int, maps: Tensor) -> Computed:
        """Of an image; ``maps`` are those of its levels."""
        mask, model = self.masks[at : at + 1], self.built.model
        yield "train/level_maps", torch.cat([1 - maps, maps], dim=1)
        levels = maps.split(1)
        yield "loss/focal", torch.stack([focal(one, mask) for one in levels])
        yield "loss/dice_abnormal", torch.stack([dice(one, mask, True) for one in levels])
        yield "loss/dice_normal", torch.stack([dice(1 - one, 1 - mask, True) for one in levels])
        yield "loss/dice_abnormal_whole_image", torch.stack([dice(one, mask) for one in levels])
        terms = self.terms(model, at)
        yield "loss/classification", terms.detection
        yield "loss/total", terms.total()

    def gradient(self) -> Computed:
        """That of the loss of image 1, by the authors' names."""
        model = self.with_labels(self.built.model, "gradient/patch_label")
        gradients = dict(self.gradients(model, self.terms(model, 1).total()))
        yield "gradient/norms", torch.stack([one.norm() for one in gradients.values()])
        for name, gradient in gradients.items():
            yield f"gradient/{name}", gradient

    def training(self) -> Computed:
        """Three steps of AdamW, each on an image."""
        method = self.build()
        model, losses, steps = method.model, [], iter(enumerate(self.meta["trace_images"]))

        def step() -> Tensor:
            number, at = next(steps)
            self.with_labels(model, "trace/patch_label", number)
            losses.append(self.terms(model, at).total())
            return losses[-1]

        self.steps(method, step)
        yield "trace/loss", torch.stack(losses)
        self.with_labels(model, "trace/patch_label_after")
        with torch.no_grad():
            yield "trace/map_after", self.plain_map(model, 1)
            yield "trace/score_after", model.score(self.encoded(1), self.text_of(1)).pred_score[0]
        ours, theirs = dict(model.named_parameters()), self.weights("trainable.npz")
        # What has no effect stays as it was.
        kept = [ours.get(self.our_name(n), theirs[n]) for n in self.meta["trainable_order"]]
        yield "trace/weight_norms_after", torch.stack([one.norm() for one in kept])

    def with_labels(self, model: Any, name: str, row: int | None = None) -> Any:
        """The model, whose clusters are those of the case."""
        labels, fusion = self.array(name), model.fusion
        labels = labels if row is None else labels[row]
        choose = type(fusion).chosen

        def chosen(score: Tensor) -> Tensor:
            fusion.picked = choose(fusion, score)
            return fusion.picked

        fusion.chosen, fusion.labels = chosen, lambda _: labels.long()[fusion.picked]
        return model

    def terms(self, model: Any, at: int) -> Any:
        labels, masks = self.labels[at : at + 1], self.masks[at : at + 1]
        return model.loss_terms(self.encoded(at), masks, labels, self.text_of(at))

    def plain_map(self, model: Any, at: int) -> Tensor:
        """Without smoothing."""
        logits = model.logits(model.features(self.encoded(at), self.text_of(at)))
        return abnormal_map(logits.mean(dim=0), model.clip.size)[0, 0]

    def text_of(self, at: int) -> Tensor:
        return self.texts[self.meta["object_names"][at]]

    def feature(self, at: int) -> Tensor:
        return self.clip.pool(self.encoded(at)[:, -1])

    def encoded(self, at: int) -> Tensor:
        return self.every[at : at + 1]

    @cached_property
    def plain(self) -> Any:
        """Without the fusion."""
        return self.build(fusion="none").model

    @cached_property
    def static(self) -> Any:
        """Without dynamic prompts, too."""
        model = self.build(fusion="none").model
        for part in (model.dynamic, model.dynamic_text):
            for weight in part.parameters():
                weight.zero_()
        return model

    @cached_property
    def every(self) -> Tensor:
        return self.built.model.encode(self.images)

    @cached_property
    def texts(self) -> dict[str, Tensor]:
        model = self.built.model
        names = set(self.meta["object_names"])
        return {name: model.prompts(model.text_tower, name.replace("-", " ")) for name in names}
