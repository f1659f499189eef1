"""MadCLIP's arrays, computed by this package."""

from collections.abc import Sequence
from functools import partial

import torch
from safetensors.torch import load_file
from torch import Tensor

from anomalib_medclip.components.anomaly_map import to_map
from anomalib_medclip.components.augmentation import all_copies
from anomalib_medclip.components.prompts import NORMAL_STATES, ensemble
from anomalib_medclip.models.madclip import MadCLIP
from anomalib_medclip.models.madclip.jitter import SIXTEEN_FOLD, jitter, with_jitter
from anomalib_medclip.models.madclip.lightning_model import ABNORMAL_PHRASES
from anomalib_medclip.models.madclip.torch_model import siglip
from golden_cases.common import (
    EXACT,
    OBJECTS,
    T1,
    T2,
    T3,
    WITH_MASKS,
    BMADCase,
    Computed,
    Tolerance,
    min_max,
)

GROUPS = ("normal", "abnormal")

TOLERANCES = [
    (r"input/.*|clip/tokens|.*/tokens|.*/state_token_len", EXACT),
    (r"clip/.*|text.*|augment/.*|loss_unit/.*", T1),
    (r"init/test_(seg|cls)/.*", T3),
    (r"init/.*", T1),
    (r"train/.*/step0_grad_norm_adapters", Tolerance(3e-4, scaled=False)),
    (r"train/.*/step0_grad_norm_ctx", T2),
    (r"train/.*/step0_.*", T1),
    (r"train/.*/loss_per_step|train/.*/final_text_features", T2),
    (r"train/.*/final_(normal_fc2_0|abnormal_fc3_3|ctx_normal_end)", Tolerance(1e-3, scaled=False)),
    (r"train/.*", T3),
]


class MadCLIPCase(BMADCase):
    """One case of MadCLIP: everything that its arrays hold, computed by this package."""

    fewest = 70
    inputs_pattern = (
        r"raw/.*|augment/(in_(image|mask)|jitter_.*)|train/.*/jitter_.*"
        r"|loss_unit/(prob|target|logits|label)"
    )
    tolerances = TOLERANCES

    def computed(self) -> Computed:
        """Every array this package can compute for the case, by name."""
        method = self.method()
        yield from self.inputs()
        yield from self.clip_features(method.model.clip)
        brightness, contrast = self.golden["augment/jitter_brightness_contrast"]
        changed = partial(jitter, brightness=brightness, contrast=contrast)
        yield from self.pieces(with_jitter(changed), SIXTEEN_FOLD)
        logits, labels = self.array("loss_unit/logits"), self.array("loss_unit/label") > 0
        yield "loss_unit/siglip", siglip(logits, labels)
        yield "loss_unit/validation", method.model.patch_score(logits[None])
        yield from self.prompts(method)
        yield from self.initial_features(method)
        yield from self.initial_tests(method)
        for name in self.targets("train"):
            yield from self.training(name)

    @torch.no_grad()
    def prompts(self, method: MadCLIP) -> Computed:
        prompts, tower = method.model.prompts, self.text_tower
        for name in self.targets("text"):
            for group in GROUPS:
                phrases = [phrase.format(OBJECTS[name]) for phrase in prompts.phrases[group]]
                stem = f"text/{name}/{group}"
                yield (
                    f"{stem}/tokens",
                    tower.tokenize([f"X X X X X X X X {phrase}." for phrase in phrases]),
                )
                yield f"{stem}/state_token_len", (tower.tokenize(phrases) > 0).sum(dim=1) - 2
                sequences, ends = prompts.sequences(tower, group, OBJECTS[name])
                yield f"{stem}/input_embed_21_firsttok24", sequences[:, :24]
                stream = tower.run(sequences + tower.positional_embedding, causal=False)
                yield f"{stem}/prompt_embed_21", tower.read(stream, ends)
            yield f"text_features/{name}", prompts(tower, OBJECTS[name]).T
        fixed = ensemble(tower, "Brain", NORMAL_STATES, ABNORMAL_PHRASES)
        yield "text_features_fixed_equal/Brain", fixed.T

    @torch.no_grad()
    def initial_features(self, method: MadCLIP) -> Computed:
        model, size = method.model, (self.side, self.side)
        encoded = model.encode(self.test_images)
        yield "init/pooled", model.clip.pool(model.clip.taps(self.test_images, [24])[:, 0])
        for name, adapters, level in (
            ("n0", model.normal_det_adapters, 0),
            ("a3", model.abnormal_det_adapters, 3),
        ):
            tokens = encoded[:2, level]
            detect, segment = adapters[level](tokens)
            yield f"init/adapter_{name}/in", tokens
            yield f"init/adapter_{name}/det_out", detect
            yield f"init/adapter_{name}/seg_out", segment
        text = self.text(method, "Brain")
        scores = model.scores(encoded, text)
        yield "init/det_scores", scores.detect.transpose(0, 1)
        yield "init/seg_scores", scores.segment.transpose(0, 1)
        maps = torch.stack([to_map(s, size).softmax(dim=1) for s in scores.segment], dim=1)
        yield "init/seg_prob_level", maps[[0, 5]]
        yield "init/det_val_level", scores.detect.softmax(dim=-1)[..., 1].mean(dim=2).T
        terms = model.loss_terms(encoded, self.test_masks, self.test_labels, text)
        yield "init/siglip_loss_level_all6", terms.detection
        yield "init/focal_level_all6", terms.focal
        yield "init/dice_level_all6", terms.dice

    @torch.no_grad()
    def initial_tests(self, method: MadCLIP) -> Computed:
        scores, maps = self.tested(method, "Brain")
        yield "init/test_seg/pixel_score", maps
        yield "init/test_seg/image_score", scores
        yield "init/test_seg/pAUC_AUC", [self.pixel_auc(maps), self.image_auc(scores)]
        yield "init/test_seg/text_cos", method.model.text[0] @ method.model.text[1]
        scores, _ = self.tested(method, "Chest")
        yield "init/test_cls/image_score", scores
        yield "init/test_cls/AUC", self.image_auc(scores)

    def training(self, name: str) -> Computed:
        prefix, method = f"train/{name}", self.method()
        model, optimizer = method.model, method.configure_optimizers()
        images, masks, labels = self.augmented(name)
        losses, results = [], []
        for epoch in range(self.meta["epochs"]):
            for first in range(0, len(images), self.meta["batch_size"]):
                part = slice(first, first + self.meta["batch_size"])
                optimizer.zero_grad()
                terms = model.loss_terms(
                    model.encode(images[part]),
                    masks[part] if name in WITH_MASKS else None,
                    labels[part],
                    model.prompts(self.text_tower, OBJECTS[name]),
                )
                terms.total().backward()
                if epoch == first == 0:
                    yield f"{prefix}/step0_siglip", terms.detection
                    if name in WITH_MASKS:
                        yield f"{prefix}/step0_focal", terms.focal
                        yield f"{prefix}/step0_dice", terms.dice
                    yield from self.gradient_norms(prefix, method)
                optimizer.step()
                losses.append(terms.total().item())
            results.append(self.result(method, name))
        yield f"{prefix}/loss_per_step", losses
        yield f"{prefix}/test_result_AUC_pAUC_simtext_per_epoch", results
        yield from self.final_weights(prefix, method, name)

    def augmented(self, name: str) -> tuple[Tensor, Tensor, Tensor]:
        """All training images: abnormal, then normal, each class with its own jitter."""
        normal, abnormal, mask = self.support_images
        factors = self.golden[f"train/{name}/jitter_abnormal_then_normal"]
        copies = [
            all_copies(x, with_jitter(partial(jitter, brightness=b, contrast=c)))
            for x, (b, c) in zip((abnormal, normal), factors, strict=True)
        ]
        masks = (all_copies(mask, SIXTEEN_FOLD) > 0.5).float()
        labels = torch.arange(2 * len(copies[0])) < len(copies[0])
        return torch.cat(copies), torch.cat([masks, torch.zeros_like(masks)]), labels

    def result(self, method: MadCLIP, name: str) -> list[float]:
        scores, maps = self.tested(method, name)
        image = self.image_auc(scores)
        cosine = float(method.model.text[0] @ method.model.text[1])
        if name not in WITH_MASKS:
            return [image, image, image, cosine]
        pixel = self.pixel_auc(maps)
        return [image + pixel, image, pixel, cosine]

    @torch.no_grad()
    def tested(self, method: MadCLIP, name: str) -> tuple[Tensor, Tensor]:
        """Scores and maps stretched over the test images, as the authors do."""
        model = method.model
        model.has_masks, model.text = name in WITH_MASKS, self.text(method, name)
        found = model(self.test_images)
        levels = len(model.levels)  # the authors sum over levels; 1e-4 is of that sum
        maps = min_max(levels * found.anomaly_map, 1e-4)
        if model.has_masks:
            return maps.amax(dim=(-2, -1)), maps
        return min_max(levels * found.pred_score, 1e-4), maps

    @torch.no_grad()
    def text(self, method: MadCLIP, name: str) -> Tensor:
        return method.model.prompts(self.text_tower, OBJECTS[name])

    def gradient_norms(self, prefix: str, method: MadCLIP) -> Computed:
        names = self.meta["grad_norm_names"]
        adapters = dict(method.model.named_parameters())
        yield f"{prefix}/step0_grad_norm_adapters", _norms(adapters, names["adapters"])
        contexts = dict(method.model.prompts.named_parameters())
        yield f"{prefix}/step0_grad_norm_ctx", _norms(contexts, names["ctx"])

    def final_weights(self, prefix: str, method: MadCLIP, name: str) -> Computed:
        model = method.model
        normal, abnormal = model.normal_det_adapters, model.abnormal_det_adapters
        yield f"{prefix}/final_normal_fc1_norm", [a.fc1[0].weight.norm().item() for a in normal]
        yield f"{prefix}/final_abnormal_fc3_norm", [a.fc3[0].weight.norm().item() for a in abnormal]
        yield f"{prefix}/final_normal_fc2_0", normal[0].fc2[0].weight
        yield f"{prefix}/final_abnormal_fc3_3", abnormal[3].fc3[0].weight
        yield f"{prefix}/final_text_features", self.text(method, name).T
        yield f"{prefix}/final_ctx_normal_end", model.prompts.ctx["normal_end"]

    def method(self) -> MadCLIP:
        """A fresh model with the case's initial weights."""
        method = MadCLIP(**self.backbone(), lr=self.meta["lr"])
        weights = load_file(self.folder / "adapters_prompts_init.safetensors")
        contexts = {n: weights.pop(n) for n in list(weights) if n.startswith("ctx.")}
        method.model.prompts.load_state_dict(contexts)
        own = method.model.state_dict()
        assert weights.keys() <= own.keys()
        method.model.load_state_dict(own | weights)
        return method


def _norms(parameters: dict[str, Tensor], names: Sequence[str]) -> list[float]:
    gradients = [parameters[name].grad for name in names]
    return [float("nan") if grad is None else grad.norm().item() for grad in gradients]
