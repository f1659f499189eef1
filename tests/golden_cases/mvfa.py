"""MVFA's arrays, computed by this package."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from anomalib_medclip.components.anomaly_map import align, to_map
from anomalib_medclip.components.augmentation import ELEVEN_FOLD, all_copies
from anomalib_medclip.components.prompts import ensemble
from anomalib_medclip.models.mvfa import MVFA, MVFAModel
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

TOLERANCES = [
    (r"input/.*|clip/tokens|init/memory_shape|.*/pixel_gt", EXACT),
    (r"clip/.*|text_features/.*|augment/.*|loss_unit/.*", T1),
    (r"init/zero_(map|logit)_.*|init/few_test_(seg/.*|cls/raw_.*)", T2),
    (r"init/(few_test_cls|zero_test_seg|zero_test_cls)/.*", T3),
    (r"init/.*", T1),
    (r"train_few/.*/step0_(bce|dice)", T1),
    (r"train_few/.*/step0_.*", T2),
    (r"train_few/.*/final_.*_fc1_\d", Tolerance(5e-3, scaled=False)),
    (r"train_few/.*", T3),
    (r"train_zero/.*/loss_per_step", T2),
    (r"train_zero/.*/test_results", T3),
    (r"train_zero/.*/final_.*", Tolerance(5e-5, scaled=False)),
]


class MVFACase(BMADCase):
    """One case of MVFA: everything that its arrays hold, computed by this package."""

    fewest = 75
    inputs_pattern = r"raw/.*|zero_src/.*|augment/in_(image|mask)|loss_unit/(prob|target)"
    tolerances = TOLERANCES

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.texts: dict[str, Tensor] = {}

    def computed(self) -> Computed:
        """Every array this package can compute for the case, by name."""
        yield from self.inputs()
        yield from self.clip_features(self.model().clip)
        for name in self.targets("text_features"):
            yield f"text_features/{name}", self.text(name).T
        yield from self.pieces(ELEVEN_FOLD, ELEVEN_FOLD)
        yield from self.initial_tokens()
        yield from self.initial_maps()
        yield from self.few_shot_tests()
        yield from self.zero_shot_tests()
        for name in self.targets("train_few"):
            yield from self.few_shot_training(name)
        for name in self.targets("train_zero"):
            yield from self.zero_shot_training(name)

    @torch.no_grad()
    def initial_tokens(self) -> Computed:
        model = self.model()
        adapted = model.adapted_tokens(model.encode(self.test_images))
        yield "init/seg_tokens", adapted.segment.transpose(0, 1)
        yield "init/det_tokens", adapted.detect.transpose(0, 1)
        yield "init/pooled", model.clip.pool(adapted.stream)
        copies = all_copies(self.support_images[0], ELEVEN_FOLD)
        for head in ("seg", "det"):
            model = self.fitted("Brain", has_masks=head == "seg")
            tokens = model.bank_tokens(model.encode(copies)).flatten(1, 2)
            if head == "seg":
                yield "init/seg_memory_rows0_3", tokens[:, :3]
                yield "init/memory_shape", torch.tensor(model.memory_bank.rows.shape[1:])
            yield f"init/{head}_memory_colmean", tokens.mean(dim=1)
            yield f"init/{head}_min_dist", self.distances(model).transpose(0, 1)

    @torch.no_grad()
    def initial_maps(self) -> Computed:
        model = self.fitted("Brain")
        size = (self.side, self.side)
        adapted = model.adapted_tokens(model.encode(self.test_images))
        few = torch.stack([to_map(d[..., None], size)[:, 0] for d in self.distances(model)], dim=1)
        logits = torch.stack(
            [to_map(align(t[:, 1:], model.text), size) for t in adapted.segment], dim=1
        )
        yield "init/few_map_level", few[[0, 5]]
        yield "init/zero_logit_level", logits[[5]]
        yield "init/zero_map_level", logits.softmax(dim=2)[[0, 5], :, 1]
        branches = model.branches(model.encode(self.test_images), model.text)
        yield "init/few_map_sum", branches.memory_map * len(model.levels)
        yield "init/zero_map_sum", branches.text_map * len(model.levels)

    @torch.no_grad()
    def few_shot_tests(self) -> Computed:
        scores, maps = self.transductive(model := self.fitted("Brain"))
        yield "init/few_test_seg/pixel_score", maps
        yield "init/few_test_seg/image_score", scores
        yield "init/few_test_seg/pixel_gt", (self.test_masks > 0).flatten().byte()
        both = torch.tensor([self.pixel_auc(maps), self.image_auc(scores)]).double()
        yield "init/few_test_seg/pAUC_AUC", both
        yield "init/few_test_seg/result", both.sum()
        scores, _ = self.transductive(model := self.fitted("Chest"))
        raw = model.branches(model.encode(self.test_images), model.text)
        yield "init/few_test_cls/raw_zero_score", raw.text_score * len(model.levels)
        yield "init/few_test_cls/raw_few_score", raw.memory_score * len(model.levels)
        yield "init/few_test_cls/image_score", scores
        yield "init/few_test_cls/AUC", self.image_auc(scores)

    def zero_shot_tests(self) -> Computed:
        score, pixels = self.zero_shot(self.model("Brain"))
        yield "init/zero_test_seg/image_score", score
        yield "init/zero_test_seg/pixel_score", pixels
        yield "init/zero_test_seg/AUC_pAUC", [self.image_auc(score), self.pixel_auc(pixels)]
        score, _ = self.zero_shot(self.model("Chest"))
        yield "init/zero_test_cls/image_score", score
        yield "init/zero_test_cls/AUC", self.image_auc(score)

    def few_shot_training(self, name: str) -> Computed:
        prefix = f"train_few/{name}"
        method = self.method(name)
        model, optimizer = method.model, method.configure_optimizers()
        normal, abnormal, mask = (all_copies(x, ELEVEN_FOLD) for x in self.support_images)
        images = torch.cat([abnormal, normal])
        masks = torch.cat([(mask > 0.5).float(), torch.zeros_like(mask)])
        labels = torch.arange(len(images)) < len(abnormal)
        losses = []
        for step, image in enumerate(images.split(1)):
            target = masks[step : step + 1] if name in WITH_MASKS else None
            terms = model.loss_terms(
                model.encode(image), target, labels[step : step + 1], model.text
            )
            losses.append(self.step(model, optimizer, terms.total(), target is not None))
            if step == 0:
                yield f"{prefix}/step0_bce", terms.detection
                if target is not None:
                    yield f"{prefix}/step0_focal", terms.focal
                    yield f"{prefix}/step0_dice", terms.dice
                yield from self.gradient_norms(prefix, method.gradients)
        yield f"{prefix}/loss_per_step", losses
        yield from self.final_weights(prefix, model)
        self.fit(model)
        scores, maps = self.transductive(model)
        pixel = self.pixel_auc(maps) if name in WITH_MASKS else 0.0
        yield f"{prefix}/test_result_after_epoch0", [self.image_auc(scores) + pixel]

    def zero_shot_training(self, target: str) -> Computed:
        prefix = f"train_zero/{target}"
        method = self.method(target, few_shot=False)
        model, optimizer = method.model, method.configure_optimizers()
        samples = [s for name in sorted(OBJECTS) if name != target for s in self.sources(name)]
        losses, results = [], []
        for step, (name, image, mask, label) in enumerate(samples):
            if step % (len(samples) // 5) == 0:
                score, pixels = self.zero_shot(model)
                pixel = self.pixel_auc(pixels) if target in WITH_MASKS else 0.0
                results.append(self.image_auc(score) + pixel)
            loss = model.loss(model.encode(image), mask, torch.tensor([label]), self.text(name))
            losses.append(self.step(model, optimizer, loss, mask is not None))
        yield f"{prefix}/loss_per_step", losses
        yield f"{prefix}/test_results", results
        yield from self.final_weights(prefix, model)

    def sources(self, name: str) -> Iterator[tuple[str, Tensor, Tensor | None, bool]]:
        """Zero-shot training images of one set: abnormal, then good."""
        stem = f"zero_src/{name}/"
        keys = [stem + "ungood_u8", stem + "good_u8", stem + "mask_u8"]
        if keys[0] not in self.golden:
            keys = ["raw/test_ungood_u8", "raw/test_good_u8", "raw/test_mask_u8"]
        abnormal, good = self.read(keys[0]), self.read(keys[1])
        masks: Tensor | None = None
        if name in WITH_MASKS:
            masks = self.read(keys[2], masks=True)
            masks = torch.cat([masks, torch.zeros(len(good), *masks.shape[1:])])
        for index, image in enumerate(torch.cat([abnormal, good]).split(1)):
            mask = None if masks is None else masks[index : index + 1]
            yield name, image, mask, index < len(abnormal)

    @staticmethod
    def step(
        model: MVFAModel, optimizer: torch.optim.Optimizer, loss: Tensor, masks: bool
    ) -> float:
        """One optimiser step as the Lightning module takes it."""
        optimizer.zero_grad()
        loss.backward()
        for parameter in model.idle_parameters(masks):
            parameter.grad = None
        optimizer.step()
        return loss.item()

    def gradient_norms(self, prefix: str, gradients: Callable[[str], list[float]]) -> Computed:
        for head in ("seg", "det"):
            if any(np.isfinite(norms := gradients(head))):
                yield f"{prefix}/step0_grad_norm_{head}", norms

    def final_weights(self, prefix: str, model: MVFAModel) -> Computed:
        for head in ("seg", "det"):
            adapters = getattr(model.adapters, f"{head}_adapters")
            for layer in ("fc1", "fc2"):
                weights = [getattr(adapter, layer)[0].weight for adapter in adapters]
                yield f"{prefix}/final_{head}_{layer}_norm", [w.norm().item() for w in weights]
                if layer == "fc1":
                    for level, weight in enumerate(weights):
                        yield f"{prefix}/final_{head}_fc1_{level}", weight

    def method(self, name: str, few_shot: bool = True) -> "GoldenMVFA":
        """A fresh model with the case's initial weights, for a set."""
        method = GoldenMVFA(
            **self.backbone(),
            few_shot=few_shot,
            lr=self.meta["few_lr" if few_shot else "zero_lr"],
            bank_precision="float32",
        )
        method.names = self.meta["grad_norm_names"]
        weights = load_file(self.folder / "adapters_init.safetensors")
        method.model.adapters.load_state_dict(weights)
        method.model.has_masks = name in WITH_MASKS
        method.model.text = self.text(name)
        return method

    def model(self, name: str = "Brain") -> MVFAModel:
        return self.method(name).model

    def fitted(self, name: str, has_masks: bool | None = None) -> MVFAModel:
        """A fresh model whose memory bank holds the normal support images."""
        model = self.model(name)
        model.has_masks = model.has_masks if has_masks is None else has_masks
        return self.fit(model)

    def fit(self, model: MVFAModel) -> MVFAModel:
        normal, abnormal, _ = self.support_images
        images = torch.cat([normal, abnormal])
        labels = torch.arange(len(images)) >= len(normal)
        copies = model.encode(all_copies(images, ELEVEN_FOLD)).unflatten(0, (11, -1))
        model.fit_support(copies[0], copies[:, ~labels], labels, torch.arange(len(images)))
        return model

    def distances(self, model: MVFAModel) -> Tensor:
        tokens = model.bank_tokens(model.encode(self.test_images))
        return torch.stack(
            [model.memory_bank.distance(t[:, 1:], level) for level, t in enumerate(tokens)]
        )

    @torch.no_grad()
    def transductive(self, model: MVFAModel) -> tuple[Tensor, Tensor]:
        """Scores and maps scaled on the test images themselves, as the authors do."""
        stream = model.encode(self.test_images)
        model.set_scales([(stream, None)])
        return model.fusion(model.branches(stream, model.text), model.has_masks)

    @torch.no_grad()
    def zero_shot(self, model: MVFAModel) -> tuple[Tensor, Tensor]:
        few_shot, model.few_shot = model.few_shot, False
        result = model(self.test_images)
        model.few_shot = few_shot
        return min_max(result.pred_score), min_max(result.anomaly_map)

    def text(self, name: str) -> Tensor:
        words = OBJECTS[name]
        if words not in self.texts:
            self.texts[words] = ensemble(self.text_tower, words)
        return self.texts[words]


class GoldenMVFA(MVFA):
    """MVFA that can list the gradients of its adapters."""

    names: dict[str, list[str]]

    def gradients(self, head: str) -> list[float]:
        parameters = dict(self.model.adapters.named_parameters())
        grads = [parameters[name].grad for name in self.names[head]]
        return [float("nan") if grad is None else grad.norm().item() for grad in grads]
