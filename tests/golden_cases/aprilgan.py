"""APRIL-GAN's arrays, computed by this package."""

from functools import cached_property

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torchvision.tv_tensors import Image

from anomalib_medclip.components.anomaly_map import align, to_map
from anomalib_medclip.components.losses import dice, focal
from anomalib_medclip.components.prompts import ensemble
from anomalib_medclip.models.aprilgan import APRILGAN, APRILGANModel
from anomalib_medclip.models.aprilgan.mosaic import mosaic
from golden_cases.common import EXACT, T1, T2, T3, BMADCase, Computed, Tolerance, min_max

TW = Tolerance(3e-4, scaled=False)
"""Adam moves coordinates with a vanishing gradient in a direction that rounding decides."""


class APRILGANCase(BMADCase):
    """One case of APRIL-GAN: everything that its arrays hold, computed by this package.

    Its masks are resized bilinearly, and ours to the nearest neighbour, so that they are inputs.
    """

    fewest = 50
    inputs_pattern = (
        r"raw/.*|loss_unit/(prob|target|dice_single_as_code_rowwise)|.*/pixel_gt"
        r"|input/test_mask_soft|mosaic/(in_.*|out_mask)|train/(raw_.*|label|object|input_mask)"
    )
    tolerances = (
        (r"clip/tokens", EXACT),
        (r"input/.*|clip/.*|text_features/.*|loss_unit/.*|mosaic/.*|init/taps|init/projected", T1),
        (r"few/.*/(bank.*|cosine_.*|min_distance|memory_map_.*)|train/input_image_first", T1),
        (r"few/.*/image_score|.*/pixel_auroc_image_auroc", T3),
        (r"init/.*|zero/.*|few/.*|zero_trained/.*", T2),
        (r"train/weight_.*", TW),
        (r"train/.*", T2),
    )

    def computed(self) -> Computed:
        """Every array this package can compute for the case, by name."""
        yield "input/test_image", self.entered(self.shown())
        yield from self.clip_features(self.model.clip)
        for kind in ("target", "train"):
            for number in range(2):
                yield f"text_features/{kind}{number}", self.text(kind, number).T
        yield from self.of_losses()
        yield from self.initial()
        for number in range(2):
            yield from self.tested(number)
        tiles = [
            Image(one.permute(2, 0, 1).float() / 255) for one in self.array("mosaic/in_image_u8")
        ]
        yield (
            "mosaic/out_image",
            self.entered(self.resize(Image(mosaic(tiles))).as_subclass(Tensor)),
        )
        yield from self.training()

    def of_losses(self) -> Computed:
        """Losses of a stand-alone input."""
        maps, masks = self.array("loss_unit/prob")[:, 1:], self.array("loss_unit/target")
        yield "loss_unit/focal", focal(maps, masks)
        yield "loss_unit/dice", dice(maps, masks)
        yield "loss_unit/dice_single", dice(maps[:1], masks[:1])

    @torch.no_grad()
    def initial(self) -> Computed:
        """What two images of the first object become before any training."""
        model, size, text = self.model, self.model.clip.size, self.text("target", 0)
        yield "init/taps", model.clip.taps(self.shown(), model.text_levels)
        yield "init/projected", torch.stack(model.projected(model.encode(self.shown())), dim=1)
        projected = model.projected(model.encode(self.images(0)))
        logits = torch.stack([align(one, text) for one in projected], dim=1)
        grids = logits.transpose(2, 3)
        side = round(grids.shape[-1] ** 0.5)
        yield "init/zero_logit_grid_all", grids.unflatten(3, (side, side))
        large = torch.stack([to_map(one, size) for one in logits.unbind(dim=1)], dim=1)
        yield "init/zero_logit_level", large[5]
        model.few_shot = False
        maps = model.level_maps(model.encode(self.shown()), text)["text"]
        yield "init/zero_map_level", maps.transpose(0, 1)

    @torch.no_grad()
    def tested(self, number: int) -> Computed:
        """Both settings on the six images of an object."""
        model, text = self.method().model, self.text("target", number)
        encoded, stem = model.encode(self.images(number)), f"object{number}"
        model.few_shot = False
        found = model.score(encoded, text)
        yield f"zero/{stem}/map_sum", found.anomaly_map * len(model.text_levels)
        yield f"zero/{stem}/image_score", found.pred_score
        yield from self.areas(f"zero/{stem}", number, found.anomaly_map, found.pred_score)
        model.few_shot = True
        yield from self.remembered(model, number)
        fused = model.fused_map(encoded, text)
        whole = len(model.text_levels) + 2 * len(model.memory_levels)
        yield f"few/{stem}/map_sum", fused * whole
        yield f"few/{stem}/image_max_map", fused.amax(dim=(1, 2)) * whole
        model.scale.fit(fused.amax(dim=(1, 2)))  # as the authors do, on the images to score
        score = model.averaged_score(model.text_score(encoded, text), fused)
        yield f"few/{stem}/image_score", score
        yield from self.areas(f"few/{stem}", number, fused, score)

    def remembered(self, model: APRILGANModel, number: int) -> Computed:
        """The bank of an object, and distances to it."""
        stem = f"few/object{number}"
        support = model.encode(self.read(f"raw/object{number}/support_u8"))
        bank, owners = model.bank_tokens(support).flatten(1, 2), torch.arange(len(support))
        model.text = self.text("target", number)
        model.fit_support(support, support[None], owners < 0, owners)
        yield f"{stem}/bank", bank
        yield f"{stem}/bank_colmean", bank.mean(dim=1)
        encoded = model.encode(self.images(number))
        patches = model.bank_tokens(encoded)
        cosines = F.normalize(bank[0], dim=-1) @ F.normalize(patches[0, 5], dim=-1).T
        yield f"{stem}/cosine_image5_level0", cosines
        found = [model.memory_bank.distance(one, level) for level, one in enumerate(patches)]
        yield f"{stem}/min_distance", torch.stack(found, dim=1)
        model.uses_layers = False
        maps = 2 * model.level_maps(encoded, model.text)["memory"]
        model.uses_layers = True
        yield f"{stem}/memory_map_level", maps[:, [0, 5]].transpose(0, 1)
        yield f"{stem}/memory_map_sum", maps.sum(dim=0)

    def areas(self, stem: str, number: int, maps: Tensor, scores: Tensor) -> Computed:
        """AUROC of pixels, by the masks of the case, and of images."""
        masks = self.array(f"zero/object{number}/pixel_gt") > 0
        pixel = roc_auc_score(masks.flatten(), min_max(maps).flatten())
        image = roc_auc_score(torch.arange(6) > 2, scores)
        yield f"{stem}/pixel_auroc_image_auroc", [pixel, image]

    def training(self) -> Computed:
        """Three steps on batches with the case's masks, each image with the text of its object."""
        method = self.method()
        model, optimizer = method.model, method.configure_optimizers()
        names = {"focal": [], "dice": [], "loss": [], "grad_norm": []}
        for step in range(3):
            images = self.read_all(self.golden["train/raw_image_u8"][step])
            text = torch.stack(
                [self.text("train", int(n)) for n in self.array("train/object")[step]]
            )
            encoded, masks = model.encode(images), self.array("train/input_mask")[step].float()
            terms = model.loss_terms(encoded, masks, self.array("train/label")[step] > 0, text)
            optimizer.zero_grad()
            terms.total().backward()
            found = (terms.focal, terms.dice, terms.total(), self.gradient_norms(model))
            for values, value in zip(names.values(), found, strict=True):
                values.append(value.detach())
            if step == 0:
                yield "train/input_image_first", self.entered(images[:1])
                yield "train/step0_logits", self.logits(model, encoded, text)
                yield "train/step0_grad/fc.0.weight", model.layers[0].weight.grad.clone()
                yield "train/step0_grad/fc.3.bias", model.layers[3].bias.grad.clone()
            optimizer.step()
            if step == 0:
                yield (
                    "train/weight_after_step1/fc.0.weight",
                    model.layers[0].weight.detach().clone(),
                )
        yield from ((f"train/{name}", torch.stack(values)) for name, values in names.items())
        for name, value in model.layers.state_dict().items():
            yield f"train/weight_after_step3/fc.{name}", value
        yield from self.after_training(model)

    @torch.no_grad()
    def after_training(self, model: APRILGANModel) -> Computed:
        """The zero-shot score does not see what was learnt, and the map does."""
        model.few_shot = False
        for number in range(2):
            encoded, text = model.encode(self.images(number)), self.text("target", number)
            found = model.score(encoded, text)
            yield f"zero_trained/object{number}/image_score", found.pred_score
            if number == 0:
                maps = found.anomaly_map[[0, 5]] * len(model.text_levels)
                yield "zero_trained/object0/map_sum", maps

    def logits(self, model: APRILGANModel, encoded: Tensor, text: Tensor) -> Tensor:
        with torch.no_grad():
            found = [align(one, text).transpose(1, 2) for one in model.projected(encoded)]
        grids = torch.stack(found)
        side = round(grids.shape[-1] ** 0.5)
        return grids.unflatten(3, (side, side))

    def gradient_norms(self, model: APRILGANModel) -> Tensor:
        parameters = {f"fc.{name}": one for name, one in model.layers.named_parameters()}
        return torch.stack([parameters[n].grad.norm() for n in self.meta["grad_norm_names"]])

    def method(self) -> APRILGAN:
        """A fresh model with the case's initial layers."""
        method = APRILGAN(
            **self.backbone(),
            memory_levels=self.meta["few_shot_features"],
            bank_precision="float32",
            lr=self.meta["lr"],
        )
        weights = load_file(self.folder / "linear_init.safetensors")
        layers = {name.removeprefix("fc."): value for name, value in weights.items()}
        method.model.layers.load_state_dict(layers)
        return method

    @cached_property
    def model(self) -> APRILGANModel:
        return self.method().model

    def text(self, kind: str, number: int) -> Tensor:
        """Text features of an object that is tested (target) or trained on."""
        words = self.meta["objects" if kind == "target" else "train_objects"][number]
        if words not in self._texts:
            self._texts[words] = ensemble(self.text_tower, words)
        return self._texts[words]

    @cached_property
    def _texts(self) -> dict[str, Tensor]:
        return {}

    def images(self, number: int) -> Tensor:
        """The test images of an object, three normal ones first."""
        names = (f"raw/object{number}/test_{word}_u8" for word in ("good", "ungood"))
        return torch.cat([self.read(name) for name in names])

    @property
    def test_images(self) -> Tensor:
        """Those of both objects."""
        return torch.cat([self.images(0), self.images(1)])

    def shown(self) -> Tensor:
        """Images 0 and 5 of the first object."""
        return self.images(0)[[0, 5]]

    def entered(self, images: Tensor) -> Tensor:
        """Images as they enter the tower."""
        return (images - self.model.clip.mean) / self.model.clip.std
