"""Export to torch, ONNX and OpenVINO, each with a certificate that it is the same model.

A file appears only together with its certificate: everything is written aside first, compared
with the trained model on real images, and moved into place if it passes.
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from anomalib.data import AnomalibDataModule
from anomalib.deploy.export import CompressionType
from lightning import LightningModule
from torch import Tensor

from anomalib_medclip.components import certificate
from anomalib_medclip.components.augmentation import Augmentation, all_copies
from anomalib_medclip.components.certificate import Bound
from anomalib_medclip.components.provenance import NOTICE, sha256, versions
from anomalib_medclip.components.runtimes import (
    Run,
    open_onnx,
    open_openvino,
    open_torch,
    torch_run,
)
from anomalib_medclip.errors import NotReadyError
from anomalib_medclip.imaging import MethodResize

logger = logging.getLogger(__name__)

BOUNDS = {
    CompressionType.FP16: Bound(rank_correlation=0.999, score=0.01),
    CompressionType.INT8: Bound(rank_correlation=0.99, score=0.05),
    CompressionType.INT8_PTQ: Bound(rank_correlation=0.99, score=0.05),
}
"""What each compression must satisfy."""

PROBES = 8
"""How many real images a checkpoint keeps to certify exports with."""


class CertifiedExport(LightningModule):
    """anomalib's three exports, certified.

    An export needs no data: its images are kept in the checkpoint, see ``SlimCheckpoints``.
    """

    model: Any
    augmentations: Sequence[Augmentation]
    object_name: str
    pre_processor: Any
    post_processor: Any
    probes: Tensor
    threshold_from: str
    _checkpoint: Path | None = None
    _tower_nodes: frozenset[str] | set[str] = frozenset()

    def keep_probes(self, dataset: Any) -> None:  # noqa: ANN401 - any data set of anomalib's
        """Keep a few images of a data set, both classes in turn, and copies where there are few."""
        abnormal = dataset.samples["label_index"].to_numpy() == 1
        pairs = zip_longest(np.flatnonzero(~abnormal), np.flatnonzero(abnormal))
        chosen = [int(i) for pair in pairs for i in pair if i is not None][:PROBES]
        images = torch.stack([dataset[index].image for index in chosen]).as_subclass(Tensor)
        copies = all_copies(images, self.augmentations)[:PROBES]
        self.probes = (copies.cpu() * 255).round().to(torch.uint8)

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - Lightning's
        """As Lightning's; the file is remembered, for the certificate."""
        model = super().load_from_checkpoint(checkpoint_path, *args, **kwargs)
        model._checkpoint = Path(checkpoint_path)
        return model

    def to_torch(self, export_root: Path | str, model_file_name: str = "model") -> Path:
        """Write a ``.pt`` file with everything, CLIP's image tower included.

        Raises:
            ParityError: The file gives other answers than this model.
            NotReadyError: There are no images to compare on.
        """
        exporter: Any = super()
        write = partial(exporter.to_torch, model_file_name=model_file_name)
        return self._certified(write, export_root, open_torch)

    def to_onnx(  # type: ignore[override]  # anomalib's, not Lightning's
        self,
        export_root: Path | str,
        model_file_name: str = "model",
        input_size: tuple[int, int] | None = None,
        certify: bool = True,
        **kwargs: Any,  # noqa: ANN401 - passed on to torch.onnx.export
    ) -> Path:
        """Write an ONNX file for images of the model's size, in batches of any size.

        Args:
            export_root: Folder; the file goes to ``weights/onnx`` in it.
            model_file_name: Its name without ending.
            input_size: Height and width; only the model's own will do.
            certify: Compare with this model, and write a certificate.
            **kwargs: Options of ``torch.onnx.export``.

        Raises:
            ParityError: The file gives other answers than this model.
            NotReadyError: There are no images to compare on.
            ValueError: Another input size.
        """
        exporter: Any = super()
        write = partial(
            exporter.to_onnx,
            model_file_name=model_file_name,
            input_size=self._fixed(input_size),
            **{"verbose": False, **kwargs},
        )
        if certify:
            return self._certified(write, export_root, open_onnx)
        path: Path = write(export_root)
        self._tower_nodes = _nodes_within(path, "model.clip.visual.transformer.resblocks")
        return path

    def to_openvino(
        self,
        export_root: Path | str,
        model_file_name: str = "model",
        input_size: tuple[int, int] | None = None,
        compression_type: CompressionType | None = None,
        datamodule: AnomalibDataModule | None = None,
        *args: Any,  # noqa: ANN401 - passed on
        onnx_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,  # noqa: ANN401 - passed on
    ) -> Path:
        """Write an OpenVINO model for images of the model's size, in batches of any size.

        Args:
            export_root: Folder; the files go to ``weights/openvino`` in it.
            model_file_name: Their name without ending.
            input_size: Height and width; only the model's own will do.
            compression_type: ``FP16``, ``INT8`` (weights only) or ``INT8_PTQ``.
            datamodule: Images to calibrate ``INT8_PTQ`` with; by default those in the checkpoint.
            *args: As anomalib's.
            onnx_kwargs: Options of ``torch.onnx.export``.
            **kwargs: As anomalib's.

        Raises:
            ParityError: The files give other answers than this model, or a compressed model
                leaves its bound.
            NotReadyError: There are no images to compare on.
            ValueError: Another input size, or ``INT8_ACQ``, for which there is no bound.
        """
        if compression_type and compression_type not in BOUNDS:
            names = ", ".join(BOUNDS)
            msg = f"compression {compression_type} has no bound to be certified by; take {names}"
            raise ValueError(msg)
        exporter: Any = super()
        write = partial(
            exporter.to_openvino,
            model_file_name=model_file_name,
            input_size=self._fixed(input_size),
            compression_type=compression_type,
            datamodule=datamodule,
            onnx_kwargs={"certify": False, **(onnx_kwargs or {})},
            **kwargs,
        )
        return self._certified(
            write,
            export_root,
            open_openvino,
            compression_type,
            by_default=partial(open_openvino, precision=None),
        )

    def _compress_ov_model(
        self,
        model: Any,  # noqa: ANN401 - an OpenVINO model
        compression_type: CompressionType | None = None,
        datamodule: AnomalibDataModule | None = None,
        *_args: Any,  # noqa: ANN401 - of INT8_ACQ
        **_kwargs: Any,  # noqa: ANN401 - of INT8_ACQ
    ) -> Any:  # noqa: ANN401 - an OpenVINO model
        """As anomalib's, but images have the model's size, and only CLIP's blocks become integers.

        They are nearly all of the work. The rest is small and sharpens differences: logits are 100
        times a cosine, and a distance to the memory bank is the small rest to 1.
        """
        import nncf

        operations = [o for o in model.get_ops() if o.get_type_name() != "Constant"]
        names = [operation.get_friendly_name() for operation in operations]
        others = [name for name in names if name.split("/")[0] not in self._tower_nodes]
        scope = nncf.IgnoredScope(names=others, validate=False)
        if compression_type == CompressionType.INT8:
            return nncf.compress_weights(model, ignored_scope=scope)
        images = self._calibration_images(datamodule)
        logger.info("calibrating with %d images", len(images))
        calibration = nncf.Dataset(images, lambda image: image.numpy())
        kind = nncf.ModelType.TRANSFORMER
        return nncf.quantize(model, calibration, model_type=kind, ignored_scope=scope)

    def _calibration_images(self, datamodule: AnomalibDataModule | None) -> list[Tensor]:
        """Images one by one, at the model's size: of validation, or those in the checkpoint."""
        if datamodule is None:
            return list(self._probe_images().split(1))
        datamodule.prepare_data()
        datamodule.setup("fit")
        resize, items = MethodResize(self._fixed(None)[0]), datamodule.val_data
        return [resize(items[i].image).as_subclass(Tensor)[None] for i in range(len(items))]

    def _certified(
        self,
        write: Callable[[Path], Path],
        export_root: Path | str,
        open_file: Callable[[Path], Run],
        compression: CompressionType | None = None,
        by_default: Callable[[Path], Run] | None = None,
    ) -> Path:
        """Write aside, compare, and move into place together with the certificate.

        Args:
            write: Writes the model below a folder and returns its file.
            export_root: Folder for the model.
            open_file: Opens the file as exactly as its runtime can.
            compression: How the model was compressed, if it was.
            by_default: Opens the file as its runtime does by default, for information.
        """
        root, probes = Path(export_root), self._probe_images()
        self.eval()
        root.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=root) as aside:
            written = write(Path(aside))
            expected = certificate.run_in_batches(torch_run(self, self.device), probes, 1)
            differences = certificate.compare(expected, open_file(written), probes)
            figures = certificate.check(differences, BOUNDS[compression] if compression else None)
            if by_default:
                loose = certificate.compare(expected, by_default(written), probes)
                figures["by default"] = {k: v for k, v in asdict(loose).items() if k != "allowed"}
            paper = {
                **self._description(),
                "format": written.parent.name,
                "compression": compression,
                "images": len(probes),
                "figures": figures,
                "files": {f.name: sha256(f) for f in sorted(written.parent.iterdir())},
            }
            written.with_suffix(".json").write_text(json.dumps(paper, indent=2) + "\n")
            home = root / written.parent.relative_to(aside)
            home.mkdir(parents=True, exist_ok=True)
            for file in sorted(written.parent.iterdir()):
                file.replace(home / file.name)
        logger.info(
            "certified on %d images: map within %.1e, score within %.1e, rank correlation %.5f",
            *(len(probes), differences.map, differences.score, differences.rank_correlation),
        )
        return home / written.name

    def _fixed(self, input_size: tuple[int, int] | None) -> tuple[int, int]:
        """The model's own input size: a tower has one grid, and the resize stays outside."""
        side = self.model.clip.backbone.image_size
        if input_size is not None and tuple(input_size) != (side, side):
            msg = f"this model takes images of {side} x {side} pixels only; leave input_size out"
            raise ValueError(msg)
        return side, side

    def _probe_images(self) -> Tensor:
        if not len(self.probes):
            msg = "no images to certify an export with: export a checkpoint of a finished training"
            raise NotReadyError(msg)
        return self.probes.float() / 255

    def _description(self) -> dict[str, Any]:
        """What a reader of the file must know to use it as it was trained."""
        backbone, post, file = self.model.clip.backbone, self.post_processor, self._checkpoint
        return {
            "model": type(self).__name__,
            "object_name": self.object_name,
            "input_size": list(self._fixed(None)),
            "resize": "antialiased bicubic to the square, by Pillow on whole 255ths",
            "intensity": getattr(self.pre_processor, "intensity", None),
            "normalisation": "CLIP's mean and deviation" if backbone.normalize else "none",
            "image_threshold": post and _number(post.image_threshold),
            "pixel_threshold": post and _number(post.pixel_threshold),
            "threshold_from": self.threshold_from,
            "backbone": str(backbone),
            "backbone_fingerprint": self.model.clip.fingerprint,
            "checkpoint": file and {"file": file.name, "sha256": sha256(file)},
            "versions": versions(),
            "notice": NOTICE,
        }


def _nodes_within(path: Path, module: str) -> set[str]:
    """Names of the nodes of an ONNX file that a module of the traced model made."""
    import onnx

    nodes = onnx.load(path, load_external_data=False).graph.node
    return {n.name for n in nodes if any(module in entry.value for entry in n.metadata_props)}


def _number(value: Tensor) -> float | None:
    """A number for JSON, which has no NaN."""
    return float(value) if value.isfinite() else None
