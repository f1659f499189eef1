"""Export to torch, ONNX and OpenVINO, each with a certificate that it is the same model.

A file appears only together with its certificate: everything is written aside first, compared
with the trained model on real images, and moved into place if it passes.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from anomalib.data import AnomalibDataModule
from anomalib.deploy.export import CompressionType
from lightning import LightningModule
from torch import Tensor

from anomalib_medclip.clip.backbone import without_clip
from anomalib_medclip.components.augmentation import ELEVEN_FOLD, all_copies
from anomalib_medclip.components.finite import refuse_non_finite_state
from anomalib_medclip.components.processors import MedicalPreProcessor
from anomalib_medclip.errors import NotReadyError, ParityError
from anomalib_medclip.export import parity
from anomalib_medclip.export.compression import BOUNDS, compress, tidy
from anomalib_medclip.export.openvino_precision import mark_exact
from anomalib_medclip.export.runtimes import (
    Run,
    open_onnx,
    open_openvino,
    open_torch,
    runtime,
    torch_run,
)
from anomalib_medclip.files import as_json, sha256
from anomalib_medclip.provenance import NOTICE, sha256_of_tensors, versions

logger = logging.getLogger(__name__)

CALIBRATION = 300
"""How many validation images quantisation is calibrated with, at most; as NNCF advises."""

PROBES = 8
"""How many real images a checkpoint keeps to certify exports with."""


class CertifiedExport(LightningModule):
    """anomalib's three exports, certified.

    An export needs no data: its images are kept in the checkpoint, see ``SlimCheckpoints``. What
    has learnt NaN or infinity is refused by a ``NonFiniteError``.
    """

    model: Any
    object_name: str
    pre_processor: Any
    post_processor: Any
    probes: Tensor
    threshold_from: str
    _checkpoint: dict[str, str] | None = None
    _is_writing = False
    _tower_nodes: frozenset[str] | set[str] = frozenset()

    def keep_probes(self, dataset: Any) -> None:  # noqa: ANN401 - any data set of anomalib's
        """Keep a few images of a data set, both classes in turn, and copies where there are few."""
        chosen = in_turn(dataset)[:PROBES]
        images = torch.stack([dataset[index].image for index in chosen]).as_subclass(Tensor)
        copies = all_copies(images, ELEVEN_FOLD)[:PROBES]
        self.probes = (copies.cpu() * 255).round().to(torch.uint8)

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - Lightning's
        """As Lightning's; the certificate will name the file."""
        model = super().load_from_checkpoint(checkpoint_path, *args, **kwargs)
        if isinstance(checkpoint_path, str | Path) and (path := Path(checkpoint_path)).is_file():
            model._checkpoint = {"file": path.name, "sha256": sha256(path)}
        return model

    def to_torch(self, export_root: Path | str, model_file_name: str = "model") -> Path:
        """Write a ``.pt`` file with everything but the images kept to certify exports with.

        Raises:
            ParityError: The file gives other answers than this model.
            NotReadyError: There are no images to compare on.
        """
        exporter: Any = super()

        def write(folder: Path) -> Path:
            probes, self.probes = self.probes, self.probes[:0].clone()
            try:
                path: Path = exporter.to_torch(folder, model_file_name)
            finally:
                self.probes = probes
            return path

        return self._certified(write, export_root, open_torch)

    def to_onnx(  # type: ignore[override]  # anomalib's, not Lightning's
        self,
        export_root: Path | str,
        model_file_name: str = "model",
        input_size: tuple[int, int] | None = None,
        **kwargs: Any,  # noqa: ANN401 - passed on to torch.onnx.export
    ) -> Path:
        """Write an ONNX file for images of the model's size, in batches of any size.

        Args:
            export_root: Folder; the file goes to ``weights/onnx`` in it.
            model_file_name: Its name without ending.
            input_size: Height and width; only the model's own will do.
            **kwargs: Options of ``torch.onnx.export``.

        Raises:
            ParityError: The file gives other answers than this model, or the model is in bf16.
            NotReadyError: There are no images to compare on.
            ValueError: Another input size.
        """
        exporter: Any = super()
        kwargs = {"verbose": False, "opset_version": 18, **kwargs}
        size = self._fixed(input_size)

        def write(folder: Path | str) -> Path:
            if self.model.clip.precision != "fp32":
                msg = "graphs are made in fp32, for any runtime: load the model with precision fp32"
                raise ParityError(msg)
            # A change of mode within the graph would hide the names of the frozen blocks.
            with torch.no_grad():
                path: Path = exporter.to_onnx(folder, model_file_name, size, **kwargs)
            self._tower_nodes = tidy(path)
            return path

        if self._is_writing:  # on the way to OpenVINO, which is certified itself
            return write(export_root)
        runtime("onnxruntime")
        return self._certified(write, export_root, open_onnx)

    def to_openvino(
        self,
        export_root: Path | str,
        model_file_name: str = "model",
        input_size: tuple[int, int] | None = None,
        compression_type: CompressionType | None = None,
        datamodule: AnomalibDataModule | None = None,
        *_acq: Any,  # noqa: ANN401 - for INT8_ACQ, which is refused
        **kwargs: Any,  # noqa: ANN401 - passed on
    ) -> Path:
        """Write an OpenVINO model for images of the model's size, in batches of any size.

        Args:
            export_root: Folder; the files go to ``weights/openvino`` in it.
            model_file_name: Their name without ending.
            input_size: Height and width; only the model's own will do.
            compression_type: ``FP16``, ``INT8`` (weights only) or ``INT8_PTQ``.
            datamodule: Images to calibrate ``INT8_PTQ`` with; by default those in the checkpoint.
            **kwargs: ``ov_kwargs`` and ``onnx_kwargs``, as anomalib's.

        Raises:
            ParityError: The files give other answers than this model, a compressed model leaves
                its bound, or the model is in bf16.
            NotReadyError: There are no images to compare on.
            ValueError: Another input size, or ``INT8_ACQ``, for which there is no bound.
        """
        if compression_type and compression_type not in BOUNDS:
            names = ", ".join(BOUNDS)
            msg = f"compression {compression_type} has no bound to be certified by; take {names}"
            raise ValueError(msg)
        runtime("openvino")
        exporter: Any = super()
        size = self._fixed(input_size)

        def write(folder: Path) -> Path:
            path: Path = exporter.to_openvino(
                folder, model_file_name, size, compression_type, datamodule, **kwargs
            )
            mark_exact(path, self._tower_nodes)
            return path

        also = {"by default": partial(open_openvino, precision=None)}
        if compression_type in (None, CompressionType.FP16):
            also["in bf16"] = partial(open_openvino, precision="bf16")
        return self._certified(write, export_root, open_openvino, compression_type, also)

    def _compress_ov_model(
        self,
        model: Any,  # noqa: ANN401 - an OpenVINO model
        compression_type: CompressionType | None = None,
        datamodule: AnomalibDataModule | None = None,
        *_args: Any,  # noqa: ANN401 - of INT8_ACQ
        **_kwargs: Any,  # noqa: ANN401 - of INT8_ACQ
    ) -> Any:  # noqa: ANN401 - an OpenVINO model
        """As anomalib's, but on images of the model's size, and in CLIP's blocks only."""
        integers = compression_type == CompressionType.INT8
        images = None if integers else self._calibration_images(datamodule)
        return compress(model, self._tower_nodes, images)

    def _calibration_images(self, datamodule: AnomalibDataModule | None) -> list[Tensor]:
        """Images one by one, at the model's size: of validation, or those in the checkpoint."""
        if datamodule is None:
            return list(self._probe_images().split(1))
        datamodule.prepare_data()
        datamodule.setup("fit")
        resize, items = self.pre_processor.resize, datamodule.val_data
        chosen = in_turn(items)[:CALIBRATION]
        return [resize(items[index].image).as_subclass(Tensor)[None] for index in chosen]

    def _certified(
        self,
        write: Callable[[Path], Path],
        export_root: Path | str,
        open_file: Callable[[Path], Run],
        compression: CompressionType | None = None,
        also: Mapping[str, Callable[[Path], Run]] = MappingProxyType({}),
    ) -> Path:
        """Write aside, compare, and move into place together with the certificate.

        Args:
            write: Writes the model below a folder and returns its file.
            export_root: Folder for the model.
            open_file: Opens the file as exactly as its runtime can.
            compression: How the model was compressed, if it was.
            also: Other ways to open it, whose figures are noted for information.
        """
        root, probes = Path(export_root), self._probe_images()
        if not isinstance(self.pre_processor, MedicalPreProcessor) or not self.post_processor:
            msg = "only a model with its own pre- and post-processor can be certified; leave both"
            raise ParityError(msg)
        refuse_non_finite_state(without_clip(self.state_dict()), "the model to export")
        self.eval()
        root.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=root) as aside:
            self._is_writing = True
            try:
                written = write(Path(aside))
            finally:
                self._is_writing = False
            expected = parity.run_in_batches(torch_run(self, self.device), probes, 1)
            differences = parity.compare(expected, open_file(written), probes)
            figures = parity.check(differences, BOUNDS[compression] if compression else None)
            for way, open_so in also.items():
                loose = parity.compare(expected, open_so(written), probes)
                figures[way] = {k: v for k, v in asdict(loose).items() if k != "allowed"}
            paper = {
                **self._description(),
                "format": written.parent.name,
                "compression": compression,
                "images": len(probes),
                "figures": figures,
                "files": {f.name: sha256(f) for f in sorted(written.parent.iterdir())},
            }
            written.with_suffix(".json").write_text(as_json(paper, indent=2) + "\n")
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
        backbone, post = self.model.clip.backbone, self.post_processor
        return {
            "model": type(self).__name__,
            "object_name": self.object_name,
            "input_size": list(self._fixed(None)),
            "resize": "antialiased to the square, by Pillow on whole 255ths",
            "resample": self.pre_processor.resize.resample,
            "intensity": self.pre_processor.intensity,
            "slicing": self.pre_processor.slicing,
            "normalisation": "CLIP's mean and deviation" if backbone.normalize else "none",
            "image_threshold": parity.number(post.normalized_image_threshold),
            "pixel_threshold": parity.number(post.normalized_pixel_threshold),
            "raw_image_threshold": parity.number(post.image_threshold),
            "raw_pixel_threshold": parity.number(post.pixel_threshold),
            "threshold_from": self.threshold_from,
            "backbone": str(backbone),
            "backbone_fingerprint": self.model.clip.fingerprint,
            "checkpoint": self._checkpoint,
            "weights_sha256": sha256_of_tensors(without_clip(self.state_dict())),
            "versions": versions(),
            "notice": NOTICE,
        }


def in_turn(dataset: Any) -> list[int]:  # noqa: ANN401 - any data set of anomalib's
    """Indices of a data set's images, normal and abnormal in turn."""
    abnormal = dataset.samples["label_index"].to_numpy() == 1
    pairs = zip_longest(np.flatnonzero(~abnormal), np.flatnonzero(abnormal))
    return [int(index) for pair in pairs for index in pair if index is not None]
