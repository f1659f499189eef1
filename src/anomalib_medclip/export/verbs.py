"""anomalib's verbs of export, handed on to whoever certifies."""

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib.data import AnomalibDataModule
from anomalib.deploy.export import CompressionType

from anomalib_medclip.export.description import Entrance, fixed_size
from anomalib_medclip.export.exporter import CertifiedExporter
from anomalib_medclip.option_checks import checked_name

logger = logging.getLogger(__name__)

_checked = partial(checked_name, "model_file_name")

if TYPE_CHECKING:
    from anomalib.models.components.base import AnomalibModule as Base
else:  # a mixin, because anomalib takes every direct subclass of AnomalibModule for a model
    Base = object


class ExportVerbs(Base):
    """A model of anomalib whose exports are certified.

    A ``model_file_name`` that leads out of the folder is refused by a ``ConfigError``.

    Attributes:
        exporter: Who certifies.
    """

    exporter: CertifiedExporter

    def to_torch(self, export_root: Path | str, model_file_name: str = "model") -> Path:
        """Write a ``.pt`` file; see ``CertifiedExporter``."""
        write = partial(super().to_torch, model_file_name=_checked(model_file_name))
        return _told(self.exporter.to_torch(self, write, export_root))

    def to_pt2(
        self, export_root: Path | str, model_file_name: str = "model", any_size: bool = False
    ) -> Path:
        """Write a ``.pt2`` file of torch.export; see ``CertifiedExporter``.

        Args:
            export_root: Folder; the file goes to ``weights/pt2`` in it.
            model_file_name: Its name without ending.
            any_size: As of ``to_onnx``.
        """
        name, entrance = _checked(model_file_name), Entrance("images", any_size)
        return _told(self.exporter.to_pt2(self, name, export_root, entrance))

    def to_onnx(  # type: ignore[override]  # anomalib's, not Lightning's
        self,
        export_root: Path | str,
        model_file_name: str = "model",
        input_size: tuple[int, int] | None = None,
        any_size: bool = False,
        **kwargs: Any,  # noqa: ANN401 - passed on to torch.onnx.export
    ) -> Path:
        """Write an ONNX file; see ``CertifiedExporter``.

        Args:
            export_root: Folder; the file goes to ``weights/onnx`` in it.
            model_file_name: Its name without ending.
            input_size: Height and width; only the model's own will do.
            any_size: Whether the graph takes images of any size, and resizes them as training did.
            **kwargs: Options of ``torch.onnx.export``.
        """
        size = fixed_size(self, input_size)
        entrance = Entrance(kwargs.get("input_names", ["input"])[0], any_size)
        kwargs = {"verbose": False, "opset_version": 18, **kwargs}
        write = partial(
            super().to_onnx,
            model_file_name=_checked(model_file_name),
            input_size=None if any_size else size,
            **kwargs,
        )
        return _told(self.exporter.to_onnx(self, write, export_root, entrance))

    def to_openvino(
        self,
        export_root: Path | str,
        model_file_name: str = "model",
        input_size: tuple[int, int] | None = None,
        compression_type: CompressionType | None = None,
        datamodule: AnomalibDataModule | None = None,
        *_acq: Any,  # noqa: ANN401 - for INT8_ACQ, which is refused
        onnx_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,  # noqa: ANN401 - passed on
    ) -> Path:
        """Write an OpenVINO model; see ``CertifiedExporter``.

        Args:
            export_root: Folder; the files go to ``weights/openvino`` in it.
            model_file_name: Their name without ending.
            input_size: Height and width; only the model's own will do.
            compression_type: ``FP16``, ``INT8`` (weights only) or ``INT8_PTQ``.
            datamodule: Images to calibrate ``INT8_PTQ`` with; by default those in the checkpoint.
            onnx_kwargs: Options of ``to_onnx``, among them ``any_size``.
            **kwargs: ``ov_kwargs``, as anomalib's.
        """
        asked = onnx_kwargs or {}
        entrance = Entrance(asked.get("input_names", ["input"])[0], asked.get("any_size", False))
        write = partial(
            super().to_openvino,
            model_file_name=_checked(model_file_name),
            input_size=fixed_size(self, input_size),
            compression_type=compression_type,
            datamodule=datamodule,
            onnx_kwargs=onnx_kwargs,
            **kwargs,
        )
        return _told(
            self.exporter.to_openvino(self, write, export_root, compression_type, entrance)
        )

    def _compress_ov_model(
        self,
        model: Any,  # noqa: ANN401 - an OpenVINO model
        compression_type: CompressionType | None = None,
        datamodule: AnomalibDataModule | None = None,
        *_args: Any,  # noqa: ANN401 - of INT8_ACQ
        **_kwargs: Any,  # noqa: ANN401 - of INT8_ACQ
    ) -> Any:  # noqa: ANN401 - an OpenVINO model
        """As anomalib's, but on images of the model's size, and in CLIP's blocks only."""
        return self.exporter.compress(self, model, compression_type, datamodule)


def _told(path: Path) -> Path:
    """Say where an export lies."""
    logger.info("in %s", path)
    return path
