"""Times scoring where anomalib is not installed: torch, open_clip and jaxtyping are enough.

Such is many a GPU that is lent for an hour. There, from the folder of the repository:

    PYTHONPATH=src python tools/bare_bench.py --device cuda --precision bf16 --batch-size 8 64

prints a line of JSON for each measurement, in the words of ``bench``: images scored, in turn with
open_clip's image encoder in fp32, and what a plain product reaches in the same precision.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pkgutil import resolve_name
from typing import Any, NamedTuple

import torch

from anomalib_medclip.bench import machine, roofline, scoring, timing
from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.clip.blocks import Precision
from anomalib_medclip.clip.towers import ImageTower, TextTower
from anomalib_medclip.components.image_prompts import ImagePrompts
from anomalib_medclip.components.model import ClipModel
from anomalib_medclip.components.prompts import FixedPrompts
from anomalib_medclip.files import as_json, from_json
from anomalib_medclip.models.iqeclip.query import QueryModule
from anomalib_medclip.models.iqeclip.sentences import OBJECT, WORDS
from anomalib_medclip.models.iqeclip.torch_model import IQECLIPModel
from anomalib_medclip.models.madclip.torch_model import MadCLIPModel
from anomalib_medclip.models.mediclip.torch_model import MediCLIPModel
from anomalib_medclip.models.mvfa.torch_model import MVFAModel

COPIES = 11
"""Augmented copies that MVFA's memory bank holds of each image."""


class Method(NamedTuple):
    """What is measured.

    Attributes:
        build: The torch model on an image tower, as its Lightning model makes it by default.
        enters: How images enter CLIP: keyword arguments of ``Backbone``.
        smooths_by: A package that only this method needs.
    """

    build: Callable[[ImageTower], ClipModel]
    enters: Mapping[str, Any] = {"image_size": 240}
    smooths_by: str | None = None


def iqeclip(tower: ImageTower) -> IQECLIPModel:
    """IQE-CLIP, with the text tower, prompts and queries that go with an image tower."""
    text_tower = TextTower(tower.backbone)
    prompts = ImagePrompts(text_tower, tower.embed_dim, WORDS.about(OBJECT))
    return IQECLIPModel(tower, text_tower, prompts, QueryModule(tower.embed_dim))


METHODS = {
    "mvfa": Method(MVFAModel),
    "madclip": Method(lambda tower: MadCLIPModel(tower, FixedPrompts())),
    "mediclip": Method(
        lambda tower: MediCLIPModel(tower, FixedPrompts()),
        {"image_size": 224, "quick_gelu": True, "normalize": True},
    ),
    "iqeclip": Method(iqeclip, smooths_by="scipy"),
}
"""The methods that were made for medical images."""


def build(method: Method, backbone: Backbone, precision: Precision) -> ClipModel:
    """A method's torch model with random weights, the same in every precision."""
    torch.manual_seed(0)
    return method.build(ImageTower(backbone, precision))


def measure(options: argparse.Namespace, name: str, method: Method) -> Iterator[dict[str, Any]]:
    """Rows of a method, one for each batch size."""
    device = options.device
    backbone = Backbone(options.backbone, **method.enters)
    if options.image_size:
        backbone = replace(backbone, image_size=options.image_size)
    exact = _ready(build(method, backbone, "fp32"), options)
    batches = [scoring.random_images(exact, count).to(device) for count in options.batch_size]
    expected = [scoring.scorer(exact, device, compiled=False)(images) for images in batches]
    del exact  # its memory is not the method's
    model = _ready(build(method, backbone, options.precision), options)
    run = scoring.scorer(model, device, compiled=options.compile)
    work_of_one = roofline.encoder_gflop(backbone)
    product = roofline.product_gflops(options.precision, device)
    for images, exactly in zip(batches, expected, strict=True):
        timing.forget_peak(device)
        work = partial(run, images)
        rounds = timing.alternate(work, scoring.encoder(model, images), device=device)
        found = work()
        row = {
            "what": "score",
            "method": name,
            "k_shot": options.k_shot,
            "runtime": "compile" if options.compile else "eager",
            "precision": options.precision,
            "device": device,
            "image_size": backbone.image_size,
            "batch_size": len(images),
            **rounds.as_row(len(images)),
            "encoder_gflop": work_of_one,
            "product_gflops": product,
            "peak_gpu_mb": timing.peak_of_gpu_mb(device),
            "score_difference": float((found.pred_score - exactly.pred_score).abs().max()),
            "map_difference": float((found.anomaly_map - exactly.anomaly_map).abs().max()),
        }
        yield {**row, "gflops": work_of_one * row["images_per_second"]}


def _ready(model: ClipModel, options: argparse.Namespace) -> ClipModel:
    """A torch model on its device, with all that scoring needs."""
    scoring.know_prompts(model.eval())
    model.few_shot = options.k_shot > 0
    scoring.fill_bank(model.to(options.device), options.k_shot, COPIES)
    return model


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked for, a line of JSON for each."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.k_shot and options.device == "cpu" and find_spec("faiss") is None:
        parser.error("a processor searches the memory bank by FAISS, which is not installed")
    versions = {"torch": torch.__version__, "open_clip_torch": version("open_clip_torch")}
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    _say({"hardware": machine.hardware(), "gpu": gpu, "versions": versions})
    for name, method in options.method:
        if method.smooths_by and find_spec(method.smooths_by) is None:
            without = f"it smooths by {method.smooths_by}, which is not installed"
            _say({"method": name, "left out": without})
            continue
        for row in measure(options, name, method):
            _say(row)
    return 0


def _say(found: dict[str, Any]) -> None:
    print(as_json(found), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python tools/bare_bench.py")
    all_four = list(METHODS.items())
    parser.add_argument("--method", nargs="+", type=_method, default=all_four, metavar="NAME")
    parser.add_argument("--backbone", type=_backbone, default="ViT-L-14-336")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--batch-size", type=int, nargs="+", default=[8])
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--k-shot", type=int, default=0)
    return parser


def _method(text: str) -> tuple[str, Method]:
    """A published method, or the torch model of another one as ``package.module:Class``."""
    if text in METHODS:
        return text, METHODS[text]
    try:
        found = resolve_name(text)
        is_model = issubclass(found, ClipModel)
    except (ValueError, ImportError, AttributeError, TypeError):
        is_model = False
    if not is_model:
        msg = f"no method {text!r}; give {', '.join(METHODS)}, or package.module:Class of a "
        msg += "ClipModel that is built from an ImageTower alone"
        raise argparse.ArgumentTypeError(msg)
    return text, Method(found)


def _backbone(text: str) -> Any:  # noqa: ANN401 - a name, or keyword arguments
    return from_json(text) if text.startswith("{") else text


if __name__ == "__main__":
    sys.exit(main())
