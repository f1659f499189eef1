"""Writes the table of docs/anomalib_models.md: which of anomalib's models run in a comparison.

    PYTHONPATH=src python tools/host_models.py [MODEL ...]

tries each image model through ``anomalib-medclip compare``, twice, with nothing from the net: as it
comes, and with stand-ins of what it would download, random numbers under the right names, where it
looks for them. It takes an hour of two cores.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from anomalib.models import image
from anomalib.models.image.dsr.torch_model import DsrModel
from anomalib.models.image.efficient_ad.torch_model import SmallPatchDescriptionNetwork
from host_downloads import (
    Download,
    of_timm,
    of_torchvision,
    pictures,
    saved,
    write_anomalyvfm,
    write_winclip,
)

PAGE = Path(__file__).parent.parent / "docs" / "anomalib_models.md"
BEGIN, END = "<!-- written by tools/host_models.py -->", "<!-- end -->"


@dataclass(frozen=True)
class Trial:
    """How one of anomalib's models is tried.

    Attributes:
        downloads: What it wants of the net.
        options: Of its constructor: a smaller network of the same kind, to be tried in minutes.
        entry: What its entry in the comparison says besides.
        cannot: Why it does not run, where downloads are not all that it lacks.
        batch: Images of a training batch.
    """

    downloads: tuple[Download, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    entry: Mapping[str, int] = field(default_factory=dict)
    cannot: str = ""
    batch: int = 8


DRAWN = {"patients": [4, 2, 2], "slices": 4, "num_workers": 0}
"""The drawn heads."""

DINOV2, DINOV3 = "vit_small_patch14_dinov2", "vit_small_patch16_dinov3"
TEXTURES = Download("DTD's pictures, `datasets/dtd`", pictures("datasets/dtd"))
TRIALS = {
    "AnomalyDINO": Trial((of_timm(DINOV2),)),
    "AnomalyVFM": Trial(
        (Download("`MaticFuc/anomalyvfm_radio`, Hugging Face", write_anomalyvfm),),
        entry={"image_size": 256},
    ),
    "Cfa": Trial((of_torchvision("wide_resnet50_2"),)),
    "Cflow": Trial((of_timm("wide_resnet50_2"),)),
    "CFM": Trial(
        (of_timm("vit_base_patch8_224.dino"),),
        cannot="it wants a point cloud or a depth map beside each picture",
    ),
    "Csflow": Trial((of_torchvision("efficientnet_b5"),)),
    "Dfkde": Trial((of_timm("resnet18"),), {"n_pca_components": 2}),
    "Dfm": Trial((of_timm("resnet50"),)),
    "Dinomaly": Trial((of_timm(DINOV2),), {"encoder_name": DINOV2}),
    "Draem": Trial((TEXTURES,)),
    "Dsr": Trial(
        (
            Download(
                "`vq_model_pretrained_128_4096.pckl`, anomalib's cache, `pre_trained/dsr`",
                saved(
                    "dsr/vq_model_pretrained_128_4096.pckl",
                    lambda: DsrModel().discrete_latent_model,
                ),
            ),
        )
    ),
    "EfficientAd": Trial(
        (
            Download(
                "`efficientad_pretrained_weights`, anomalib's cache, `pre_trained`",
                saved(
                    "efficientad_pretrained_weights/pretrained_teacher_small.pth",
                    lambda: SmallPatchDescriptionNetwork(384),
                ),
            ),
            Download(
                "Imagenette's pictures, `datasets/imagenette`", pictures("datasets/imagenette")
            ),
        ),
        batch=1,
    ),
    "Fastflow": Trial((of_timm("resnet18"),)),
    "FoundAD": Trial((of_timm(DINOV2),), {"encoder_name": "dinov2_vit_small_14"}),
    "Fre": Trial((of_timm("resnet50"),)),
    "Ganomaly": Trial(),
    "GeneralAD": Trial((of_timm(DINOV2),), {"backbone": DINOV2, "layers": [12]}),
    "Glass": Trial((of_timm("wide_resnet50_2"),)),
    "InpFormer": Trial((of_timm(DINOV2),), {"encoder_name": DINOV2}),
    "L2BT": Trial((of_timm("vit_base_patch14_reg4_dinov2"),)),
    "MHPatchcore": Trial(
        (of_timm("wide_resnet50_2.tv2_in1k"),), entry={"max_epochs": 3, "record_every": 0}
    ),
    "Padim": Trial((of_timm("resnet18"),)),
    "Patchcore": Trial((of_timm("wide_resnet50_2"),)),
    "Patchflow": Trial((of_timm("tf_efficientnet_b5"),)),
    "Rad": Trial((of_timm(DINOV3),), {"backbone": DINOV3}, entry={"image_size": 256}),
    "ReverseDistillation": Trial((of_timm("wide_resnet50_2"),)),
    "Stfpm": Trial((of_timm("resnet18"),)),
    "SuperADD": Trial((of_timm(DINOV3),), {"backbone": DINOV3}),
    "Supersimplenet": Trial((of_timm("wide_resnet50_2.tv_in1k"),)),
    "Uflow": Trial((of_timm("resnet18"),), {"backbone": "resnet18"}),
    "UniNet": Trial((of_torchvision("wide_resnet50_2"),)),
    "VlmAd": Trial(cannot="it asks a language model about each image: Ollama's, OpenAI's or LLaVA"),
    "WinClip": Trial(
        (
            Download(
                "`timm/vit_base_patch16_plus_clip_240.laion400m_e31`, Hugging Face", write_winclip
            ),
        )
    ),
}


def compared(entries: Mapping[str, Mapping[str, Any]], root: Path, out: str) -> dict[str, str]:
    """What a comparison says of each model: nothing where it ran, else the first line of its error.

    Args:
        entries: The models of the comparison, by name.
        root: Folder of all caches.
        out: Folder of the comparison, below it.
    """
    work = root / "work"
    work.mkdir(exist_ok=True)
    drawn = {"class_path": "anomalib_medclip.data.Phantoms"}
    config = {
        "models": {
            name: {
                "class_path": f"anomalib.models.{name}",
                "max_epochs": 1,
                "normals": ["support"],
                "data": [f"by_{TRIALS[name].batch}"],
                **entry,
            }
            for name, entry in entries.items()
        },
        "data": {
            f"by_{batch}": {
                **drawn,
                "init_args": {**DRAWN, "train_batch_size": batch},
            }
            for batch in sorted({TRIALS[name].batch for name in entries})
        },
        "k_shot": [4],
    }
    (work / f"{out}.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-m", "anomalib_medclip", "compare", f"{out}.yaml", "--out", out]
    subprocess.run(command, cwd=work, env=without_net(root), check=False)
    records = [json.loads(path.read_text()) for path in (work / out / "cells").glob("*.json")]
    said = {record["cell"]["model"]: said_by(record) for record in records}
    return {name: said[name] for name in entries}


def said_by(record: Mapping[str, Any]) -> str:
    """The first line of what a cell raised."""
    error = record.get("error")
    return "" if error is None else f"{error['type']}: {error['message'].strip()}".splitlines()[0]


def without_net(root: Path) -> dict[str, str]:
    """An environment of empty caches, in which nothing can be downloaded."""
    nowhere = "http://127.0.0.1:9"
    return {
        **os.environ,
        "HF_HOME": str(root),
        "HF_HUB_OFFLINE": "1",
        "TORCH_HOME": str(root / "torch"),
        "XDG_CACHE_HOME": str(root),
        **dict.fromkeys(["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"], nowhere),
    }


def table(names: list[str]) -> str:
    """What each model does, as Markdown."""
    with TemporaryDirectory() as folder:
        bare = compared({name: {} for name in names}, Path(folder), "bare")
    with TemporaryDirectory() as folder:
        for name in names:
            for download in TRIALS[name].downloads:
                download.write(Path(folder))
        small = {
            name: {"init_args": dict(TRIALS[name].options), **TRIALS[name].entry} for name in names
        }
        stood_in = compared(small, Path(folder), "stood_in")
    lines = ["| | without network | downloads | with these |", "| --- | --- | --- | --- |"]
    for name in names:
        trial = TRIALS[name]
        given = {**trial.options, **trial.entry}
        options = ", ".join(f"`{key}: {value}`" for key, value in given.items())
        wanted = "; ".join(download.said for download in trial.downloads) or "nothing"
        ran = f"runs with {options}" if options else "runs"
        if said := stood_in[name]:
            ran = f"no: {trial.cannot or said}"
        lines.append(f"| {name} | {'no' if bare[name] else 'runs'} | {wanted} | {ran} |")
    return "\n".join(lines)


def written(page: str) -> str:
    """The page with the table as it is now."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    names = sorted(image.__all__, key=str.lower)
    said = f"Of anomalib {version('anomalib')}'s {len(names)} image models:"
    return f"{before}{BEGIN}\n\n{said}\n\n{table(names)}\n\n{END}{after}"


if __name__ == "__main__":
    if names := sys.argv[1:]:
        print(table(names))
    else:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        print(f"wrote {PAGE}", file=sys.stderr)
