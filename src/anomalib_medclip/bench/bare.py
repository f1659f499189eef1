"""The timed core where anomalib is not: on a machine with torch, open_clip and numpy alone.

Such is many a GPU that is lent for an hour. There, with ``src`` on Python's path:

    python -m anomalib_medclip.bench.bare --device cuda --precision bf16 --compile --batch-size 8 64

prints a line of JSON for each measurement, in the words of ``bench``: images scored, in turn with
open_clip's image encoder in fp32, and what a plain product reaches in the same precision.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import nn

from anomalib_medclip.files import as_json, from_json

METHODS: dict[str, dict[str, Any]] = {
    "mvfa": {"image_size": 240},
    "madclip": {"image_size": 240},
    "mediclip": {"image_size": 224, "quick_gelu": True, "normalize": True},
    "iqeclip": {"image_size": 240},
}
"""The published methods, and how images enter CLIP in each; see ``clip.backbone.Backbone``."""

COPIES = 11
"""Augmented copies that MVFA's memory bank holds of each image."""


class Answers(NamedTuple):
    """Fields of anomalib's ``InferenceBatch``."""

    pred_score: Any = None
    pred_label: Any = None
    anomaly_map: Any = None
    pred_mask: Any = None


class Shaped:
    """A tensor's type with its shape, without the shape."""

    def __class_getitem__(cls, item: tuple[Any, str]) -> Any:  # noqa: ANN401 - a type
        """The type alone."""
        return item[0]


def stand_in() -> None:
    """Stand in for what torch models take from packages that are missing; none of it computes."""
    shapes = dict.fromkeys(("BFloat16", "Bool", "Float", "Float64", "Int"), Shaped)
    if find_spec("jaxtyping") is None:
        _module("jaxtyping", **shapes)
    if find_spec("faiss") is None:  # then a GPU searches by products, see ``nearest.search``
        _module("faiss")
    if find_spec("anomalib") is None:
        _module("anomalib.data", InferenceBatch=Answers)
        _module("anomalib.models.components.base", DynamicBufferMixin=nn.Module)
        folder = Path(__file__).parent.parent / "models"
        for method in METHODS:  # the methods' packages themselves begin with anomalib
            _module(f"anomalib_medclip.models.{method}", __path__=[str(folder / method)])


def _module(name: str, **values: Any) -> None:  # noqa: ANN401 - anything
    module = ModuleType(name)
    vars(module).update(values)
    sys.modules[name] = module


def build(method: str, backbone: Any, precision: Any) -> Any:  # noqa: ANN401 - any torch model
    """A method's torch model as its Lightning model makes it by default, with random weights."""
    from anomalib_medclip.clip.towers import ImageTower, TextTower
    from anomalib_medclip.components.prompts import ensemble

    module = import_module(f"anomalib_medclip.models.{method}.torch_model")
    torch.manual_seed(0)  # the same adapters in every precision
    tower = ImageTower(backbone, precision)
    if method == "mvfa":
        return module.MVFAModel(tower)
    if method == "madclip":
        return module.MadCLIPModel(tower, ensemble)
    if method == "mediclip":
        return module.MediCLIPModel(tower, ensemble)
    text_tower = TextTower(backbone)
    prompts = import_module("anomalib_medclip.models.iqeclip.image_prompts")
    query = import_module("anomalib_medclip.models.iqeclip.query")
    image_prompts = prompts.ImagePrompts(text_tower, tower.embed_dim)
    return module.IQECLIPModel(tower, text_tower, image_prompts, query.QueryModule(tower.embed_dim))


def measure(options: argparse.Namespace, method: str) -> Iterator[dict[str, Any]]:
    """Rows of a method, one for each batch size."""
    from anomalib_medclip.bench import roofline, scoring, timing
    from anomalib_medclip.clip.backbone import Backbone

    device, entry = options.device, METHODS[method]
    size = options.image_size or entry["image_size"]
    backbone = Backbone(options.backbone, **{**entry, "image_size": size})
    exact = _ready(build(method, backbone, "fp32"), options)
    batches = [scoring.random_images(exact, count).to(device) for count in options.batch_size]
    expected = [scoring.scorer(exact, device, compiled=False)(images) for images in batches]
    del exact  # its memory is not the method's
    model = _ready(build(method, backbone, options.precision), options)
    run = scoring.scorer(model, device, compiled=options.compile)
    work_of_one = roofline.encoder_gflop(backbone)
    product = roofline.product_gflops(options.precision, device)
    for batch_size, images, exactly in zip(options.batch_size, batches, expected, strict=True):
        timing.forget_peak(device)
        work = partial(run, images)
        rounds = timing.alternate(work, scoring.encoder(model, images), device=device)
        found = work()
        row = {
            "what": "score",
            "method": method,
            "k_shot": options.k_shot,
            "runtime": "compile" if options.compile else "eager",
            "precision": options.precision,
            "device": device,
            "image_size": size,
            "batch_size": batch_size,
            **rounds.as_row(batch_size),
            "encoder_gflop": work_of_one,
            "product_gflops": product,
            "peak_gpu_mb": timing.peak_of_gpu_mb(device),
            "score_difference": float((found.pred_score - exactly.pred_score).abs().max()),
            "map_difference": float((found.anomaly_map - exactly.anomaly_map).abs().max()),
        }
        yield {**row, "gflops": work_of_one * row["images_per_second"]}


def _ready(model: Any, options: argparse.Namespace) -> Any:  # noqa: ANN401 - any torch model
    """A torch model on its device, with all that scoring needs."""
    from anomalib_medclip.bench import scoring

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
    stand_in()
    import open_clip

    from anomalib_medclip.bench import machine

    versions = {"torch": torch.__version__, "open_clip_torch": open_clip.__version__}
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    _say({"hardware": machine.hardware(), "gpu": gpu, "versions": versions})
    for method in options.method:
        if method == "iqeclip" and find_spec("scipy") is None:
            _say({"method": method, "left out": "it smooths by scipy, which is not installed"})
            continue
        for row in measure(options, method):
            _say(row)
    return 0


def _say(found: dict[str, Any]) -> None:
    print(as_json(found), flush=True)  # noqa: T201 - what it was asked for


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m anomalib_medclip.bench.bare")
    parser.add_argument("--method", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--backbone", type=_backbone, default="ViT-L-14-336")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--batch-size", type=int, nargs="+", default=[8])
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--k-shot", type=int, default=0)
    return parser


def _backbone(text: str) -> Any:  # noqa: ANN401 - a name, or keyword arguments
    return from_json(text) if text.startswith("{") else text


if __name__ == "__main__":
    sys.exit(main())
