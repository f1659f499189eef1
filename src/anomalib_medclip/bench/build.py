"""What is timed: a method's scoring, training or search, and what each is compared with.

What training would give is made up. Text features are random: they cost what others do. The search
of a memory bank may depend on its rows, so they are mixed from tokens of images.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import torch
import torch.nn.functional as F
from anomalib.data import AnomalibDataModule
from anomalib.deploy.export import CompressionType
from torch import Tensor

from anomalib_medclip.bench.scoring import RGBImages, know_prompts, random_images
from anomalib_medclip.bench.settings import RUNTIMES, Setting
from anomalib_medclip.bench.timing import TimedCall
from anomalib_medclip.clip.towers import TextTower
from anomalib_medclip.devices import find_device
from anomalib_medclip.errors import ConfigError
from anomalib_medclip.export.pictures import PROBES
from anomalib_medclip.export.runtimes import open_onnx, open_openvino
from anomalib_medclip.models import get_model


def has_bank(name: str) -> bool:
    """Whether a method compares with the support images when it scores."""
    return bool(get_type_hints(get_model(name))["model"].has_memory)


def learns(name: str) -> bool:
    """Whether a method trains anything, and so has epochs to be measured."""
    return bool(getattr(get_model(name), "learns", True))  # those of other packages may not say


def build_method(setting: Setting) -> Any:  # noqa: ANN401 - any method
    """A method's model, ready to score, on its device.

    Raises:
        ConfigError: There is no such device.
        WeightsError: CLIP or its weights cannot be found or read.
    """
    find_device(setting.device)
    given = {"backbone": setting.backbone, "image_size": setting.image_size}
    options = {name: value for name, value in given.items() if value is not None}
    if not RUNTIMES[setting.runtime]:  # what is exported is made in fp32
        options["precision"] = setting.precision
    kind: Any = get_model(setting.method)
    method = kind(**options, pretrained=setting.pretrained).eval()
    model = method.model
    know_prompts(model)
    model.few_shot = setting.k_shot > 0
    return method.to(setting.device)


def export_method(
    method: Any,  # noqa: ANN401 - any method
    setting: Setting,
    folder: Path,
    data: AnomalibDataModule | None = None,
) -> Callable[[], Any]:
    """Write a method for another runtime, certified, and say how to open it.

    Args:
        method: On the processor.
        setting: Which runtime, and at what precision.
        folder: Where the file goes.
        data: What the method has met: it is certified on their support and calibrated with their
            validation images; by default both with random images.

    Returns:
        Opens the file; what comes of it takes images on the processor.

    Raises:
        ParityError: The file gives other answers than the model.
        RuntimeMissingError: The runtime is not installed.
    """
    if data is None:
        method.exporter.probes = (random_images(method.model, PROBES) * 255).to(torch.uint8)
    if setting.runtime == "onnx":
        path = method.to_onnx(folder)
        return lambda: open_onnx(path, setting.device)
    integers = CompressionType.INT8_PTQ if setting.precision == "int8" else None
    path = method.to_openvino(folder, compression_type=integers, datamodule=data)
    # Where there are no integers; by default OpenVINO chooses itself.
    return lambda: open_openvino(path, precision="bf16" if setting.precision == "bf16" else "fp32")


def training_step(method: Any, setting: Setting, images: RGBImages) -> TimedCall:  # noqa: ANN401 - any method
    """A step of training: in the first epoch with the frozen part, in later ones without.

    Half of the images are abnormal, with a square lesion. A method that makes its training images
    anew in each epoch has the frozen part in all of them; the making is not timed.
    """
    method.train()
    model, optimiser = method.model, method.configure_optimizers()
    model.has_masks = True
    labels = torch.arange(len(images), device=images.device) % 2 == 1
    masks = torch.zeros_like(images[:, :1])
    side = images.shape[-1]
    masks[labels, :, side // 4 : side // 2, side // 4 : side // 2] = 1
    prompts = _prompts(method)
    kept = model.encode(images)
    afresh = setting.what == "first-epoch" or method.makes_images

    def work() -> None:
        encoded = model.encode(images) if afresh else kept
        loss = model.loss(encoded, masks, labels, prompts())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return work


def epoch_images(method: Any, k_shot: int) -> int:  # noqa: ANN401 - any method
    """Images of an epoch at K, copies included."""
    classes = 2 if method.wants_abnormal else 1
    return classes * k_shot * len(method.augmentations.masks)


def bank_search(method: Any, images: RGBImages) -> tuple[TimedCall, TimedCall]:  # noqa: ANN401 - any method
    """The memory bank's search for all patches of all levels, and a plain product and maximum.

    The rows of the plain one are unit vectors in float32 already, and all that it gives is the
    largest cosine, which is what the distance is made of.

    Raises:
        ConfigError: The method has no memory bank.
    """
    bank = method.model.memory_bank
    if bank is None or bank.is_empty:
        msg = "there is no memory bank to search; name a method that has one and K above 0"
        raise ConfigError(msg)
    rows = F.normalize(bank.rows.float(), dim=-1)
    with torch.inference_mode():
        tokens = method.model.bank_tokens(method.model.encode(images))
        patches = F.normalize(method.model.clip.patches(tokens), dim=-1)

    @torch.inference_mode()
    def work() -> list[Tensor]:
        return [bank.distance(some, level) for level, some in enumerate(patches)]

    @torch.inference_mode()
    def plain() -> list[Tensor]:
        # Image by image: all cosines of a batch at once need gigabytes.
        pairs = zip(patches, rows, strict=True)
        return [torch.stack([(one @ of.T).amax(dim=-1) for one in some]) for some, of in pairs]

    return work, plain


def _prompts(method: Any) -> Callable[[], Tensor]:  # noqa: ANN401 - any method
    """Text features of a batch: with their gradient, where prompts learn."""
    model = method.model
    if not model.prompts.learns:
        return model.known_text
    tower = None
    if model.prompts.reads_words:
        tower = TextTower(model.clip.backbone).to(model.device)
    return lambda: model.prompts(tower, "organ")
