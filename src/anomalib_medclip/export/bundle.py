"""An export as a bundle of MONAI's: a folder that its tools verify and run, without this package.

The network is TorchScript, since that is what MONAI's tools load by themselves: they move it to a
device and call ``eval``, which a program of torch.export refuses, and a class that runs ONNX would
have to be installed wherever the bundle is. Nor does a TorchScript file hold Python that is run
when it is opened. MONAI wants one tensor out of a network, so map and score are its channels.
"""

import warnings
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from anomalib.data import InferenceBatch
from jaxtyping import Float
from torch import Tensor, nn

from anomalib_medclip.export.certificate import Format
from anomalib_medclip.export.description import Description, Entrance, Exportable
from anomalib_medclip.export.runtimes import Run
from anomalib_medclip.files import as_json, read_json, write_whole
from anomalib_medclip.provenance import NOTICE, versions

_FILES = Path(__file__).with_name("bundle_files")

_SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)


class _AsChannels(nn.Module):
    """A model whose map and score are the channels of one tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Float[Tensor, "1 3 side side"]) -> Float[Tensor, "1 2 side side"]:
        found: Any = self.model(image)
        heat = found.anomaly_map.reshape(1, 1, *image.shape[-2:])
        return torch.cat([heat, found.pred_score.reshape(1, 1, 1, 1).expand_as(heat)], dim=1)


class _OneByOne(nn.Module):
    """A network for one image as a network for batches: a trace has a batch of one size only."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:  # of any batch; TorchScript reads its types
        return torch.cat([self.network(one) for one in images.split(1)])


def write_network(method: Exportable, path: Path) -> None:
    """Write a model as TorchScript, by way of torch.export, which other exports go, too.

    Of the file, what names places of this machine is left out: lines of code, for debuggers.
    """
    example = torch.zeros(1, 3, *method.model.clip.size)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather export than trace
        program = torch.export.export(_AsChannels(method), (example,))
        traced = torch.jit.trace(program.module(), example, check_trace=False)
        torch.jit.save(torch.jit.script(_OneByOne(traced)), whole := BytesIO())
    with ZipFile(whole) as found, ZipFile(path, "w") as kept:
        for name in found.namelist():
            if not name.endswith(".debug_pkl"):
                kept.writestr(name, found.read(name))


def write_bundle(method: Exportable, export_root: Path | str, name: str) -> Path:
    """Write a bundle of MONAI's, whose network is certified.

    Args:
        method: The model.
        export_root: Folder; the bundle is ``weights/monai/NAME`` in it.
        name: Of the bundle's folder.

    Returns:
        Path: The bundle's folder.

    Raises:
        ParityError: The network gives other answers than this model, or the model is in bf16.
        NotReadyError: There are no images to compare on.
        UnfinishedError: The training of the model was not finished.
    """

    def write(folder: Path, description: Description) -> Path:
        del description  # the certificate says it
        path = folder / "weights" / "monai" / name / "models" / "model.ts"
        path.parent.mkdir(parents=True)
        write_network(method, path)
        return path

    threshold = float(method.post_processor.normalized_image_threshold)
    monai = Format("monai", partial(open_network, threshold=threshold))
    entrance = Entrance("image")
    network: Path = method.exporter.certified(method, write, export_root, monai, entrance=entrance)
    bundle = network.parents[1]
    says = read_json(network.with_suffix(".json"))
    write_whole(bundle / "configs" / "metadata.json", as_json(_metadata(says), indent=4) + "\n")
    for file, folder in (("inference.json", "configs"), ("pictures.py", "scripts")):
        write_whole(bundle / folder / file, (_FILES / file).read_text(encoding="utf-8"))
    page = (_FILES / "README.md").read_text(encoding="utf-8")
    page = page.replace("METHOD", says["model"]).replace("NOTICE", NOTICE.capitalize())
    write_whole(bundle / "docs" / "README.md", page)
    return bundle


def open_network(path: Path, device: str = "cpu", *, threshold: float) -> Run:
    """Open a bundle's network as a function like the others.

    Args:
        path: The ``.ts`` file.
        device: Where it computes.
        threshold: Score above which an image is abnormal.
    """
    network = torch.jit.load(str(path), map_location=device).eval()

    def run(images: Tensor) -> InferenceBatch:
        with torch.inference_mode():
            maps, scores = network(images.to(device)).cpu().unbind(dim=1)
        score = scores[:, 0, 0]
        return InferenceBatch(score, score > threshold, maps)

    return run


def _metadata(says: dict[str, Any]) -> dict[str, Any]:
    """What MONAI's tools and people read of a bundle.

    Args:
        says: The certificate.
    """
    made = versions()
    side, _ = size = says["input_size"]
    of_image = {"is_patch_data": False, "dtype": "float32", "spatial_shape": size}
    return {
        "schema": _SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": "exported"},
        "monai_version": made["monai"],
        "pytorch_version": made["torch"],
        "numpy_version": made["numpy"],
        "required_packages_version": {"pillow": made["pillow"]},
        "name": f"{says['model']}: {says['object_name'] or 'images'}, normal or abnormal",
        "task": "few-shot anomaly detection",
        "description": f"{says['model']} of anomalib-medclip on {says['backbone']}",
        "authors": "exported by anomalib-medclip",
        "copyright": "that of its weights and of the images they were learnt from",
        "intended_use": f"{NOTICE}; not for clinical use",
        "data_type": "png, jpeg",
        "image_classes": "RGB or grey of 8 bits, in [0, 1]",
        "pred_classes": "0 is as normal, 1 as abnormal as it gets",
        "input": {"side": side, "resample": says["resample"]},
        "decision": {key: says[key] for key in _DECISION},
        "weights_sha256": says["weights_sha256"],
        "network_data_format": {
            "inputs": {
                "image": {
                    **of_image, "type": "image", "format": "RGB", "num_channels": 3,
                    "value_range": [0, 1], "channel_def": {"0": "R", "1": "G", "2": "B"},
                }
            },
            "outputs": {
                "pred": {
                    **of_image, "type": "image", "format": "anomaly map and score",
                    "num_channels": 2, "value_range": [0, 1],
                    "channel_def": {"0": "anomaly_map", "1": "pred_score"},
                }
            },
        },
    }  # fmt: skip


_DECISION = ("image_threshold", "pixel_threshold", "threshold_from")
"""Of a certificate, what is said of decisions."""
