"""Export to torch, ONNX and OpenVINO, each with a certificate that it is the same model.

A file appears only together with its certificate: everything is written aside first, compared
with the trained model on real images, and moved into place if it passes.
"""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from anomalib.data import AnomalibDataModule
from anomalib.deploy.export import CompressionType
from torch import Tensor

from anomalib_medclip.components.threshold import no_guess
from anomalib_medclip.errors import NotReadyError, UnfinishedError
from anomalib_medclip.export.aside import folder_aside, on_processor
from anomalib_medclip.export.certificate import (
    Format,
    figures_of,
    refuse_graph,
    refuse_uncertifiable,
)
from anomalib_medclip.export.compression import BOUNDS, compress, tidy
from anomalib_medclip.export.description import Description, Entrance, Exportable, describe
from anomalib_medclip.export.metadata import into_onnx, into_openvino
from anomalib_medclip.export.openvino_precision import mark_exact
from anomalib_medclip.export.pictures import of_validation, probes_of
from anomalib_medclip.export.program import write_program
from anomalib_medclip.export.runtimes import (
    open_onnx,
    open_openvino,
    open_program,
    open_torch,
    runtime,
    torch_run,
)
from anomalib_medclip.files import alone_in, as_json, check_writable, sha256


class Writer(Protocol):
    """One of anomalib's exports of a model, all said but the folder it goes to."""

    def __call__(self, folder: Path) -> Path:
        """Write the model below a folder, and return its file."""


class DescribingWriter(Protocol):
    """The same, with a description in the file, where the format has a place for it."""

    def __call__(self, folder: Path, description: Description) -> Path:
        """Write the model below a folder, and return its file."""


class CertifiedExporter:
    """anomalib's three exports and torch.export's, certified.

    An export needs no data: its images are kept here, and in the checkpoint. What has learnt NaN or
    infinity is refused by a ``NonFiniteError``.

    Attributes:
        probes: Real images ``(image, 3, side, side)`` as uint8, to certify exports with.
        checkpoint: Name and SHA-256 of the file that the model was restored from.
    """

    def __init__(self) -> None:
        self.probes = torch.empty(0, dtype=torch.uint8)
        self.checkpoint: dict[str, str] | None = None
        self._is_writing = False
        self._tower_nodes: frozenset[str] | set[str] = frozenset()

    def keep_probes(self, dataset: Any) -> None:  # noqa: ANN401 - any data set of anomalib's
        """Keep a few images of a data set, both classes in turn, and copies where there are few."""
        self.probes = probes_of(dataset)

    def restored_from(self, path: str | Path) -> None:
        """Name the file that a model was restored from; certificates will."""
        if (file := Path(path)).is_file():
            self.checkpoint = {"file": file.name, "sha256": sha256(file)}

    def to_torch(self, method: Exportable, write: Writer, export_root: Path | str) -> Path:
        """Write a ``.pt`` file with everything but the images kept to certify exports with.

        Args:
            method: The model.
            write: anomalib's export of it.
            export_root: Folder; the file goes to ``weights/torch`` in it.

        Raises:
            ParityError: The file gives other answers than this model.
            NotReadyError: There are no images to compare on.
            UnfinishedError: The training of the model was not finished.
        """

        def without_probes(folder: Path, description: Description) -> Path:
            del description  # the certificate says it
            probes, self.probes = self.probes, self.probes[:0].clone()
            try:
                return write(folder)
            finally:
                self.probes = probes

        torch_, any_size = Format("torch", open_torch), Entrance(any_size=True)
        return self.certified(method, without_probes, export_root, torch_, entrance=any_size)

    def to_pt2(
        self, method: Exportable, name: str, export_root: Path | str, entrance: Entrance
    ) -> Path:
        """Write a program of torch.export for batches of any size.

        Args:
            method: The model.
            name: Of the file, without ending.
            export_root: Folder; the file goes to ``weights/pt2`` in it.
            entrance: How images come into it.

        Raises:
            ParityError: The file gives other answers than this model, or the model is in bf16.
            NotReadyError: There are no images to compare on.
            UnfinishedError: The training of the model was not finished.
        """

        def write(folder: Path, description: Description) -> Path:
            path = folder / "weights" / "pt2" / f"{name}.pt2"
            path.parent.mkdir(parents=True)
            write_program(method, path, description)
            return path

        pt2 = Format("pt2", partial(open_program, trust=True))
        return self.certified(method, write, export_root, pt2, entrance=entrance)

    def to_onnx(
        self,
        method: Exportable,
        write: Writer,
        export_root: Path | str,
        entrance: Entrance = Entrance(),
    ) -> Path:
        """Write an ONNX file for batches of any size.

        Args:
            method: The model.
            write: anomalib's export of it.
            export_root: Folder; the file goes to ``weights/onnx`` in it.
            entrance: How images come into its graph.

        Raises:
            ParityError: The file gives other answers than this model, or the model is in bf16.
            NotReadyError: There are no images to compare on.
            UnfinishedError: The training of the model was not finished.
        """

        def tidied(folder: Path) -> Path:
            # A change of mode within the graph would hide the names of the frozen blocks.
            with torch.no_grad():
                path = write(folder)
            self._tower_nodes = tidy(path)
            return path

        def described(folder: Path, description: Description) -> Path:
            path = tidied(folder)
            into_onnx(path, description)
            return path

        if self._is_writing:  # on the way to OpenVINO, which is certified itself
            return tidied(Path(export_root))
        runtime("onnxruntime")
        onnx = Format("onnx", open_onnx)
        return self.certified(method, described, export_root, onnx, entrance=entrance)

    def to_openvino(
        self,
        method: Exportable,
        write: Writer,
        export_root: Path | str,
        compression: CompressionType | None,
        entrance: Entrance = Entrance(),
    ) -> Path:
        """Write an OpenVINO model for batches of any size.

        Args:
            method: The model.
            write: anomalib's export of it, which comes back to ``to_onnx`` and ``compress``.
            export_root: Folder; the files go to ``weights/openvino`` in it.
            compression: ``FP16``, ``INT8`` (weights only) or ``INT8_PTQ``.
            entrance: How images come into its graph.

        Raises:
            ParityError: The files give other answers than this model, a compressed model leaves
                its bound, or the model is in bf16.
            NotReadyError: There are no images to compare on.
            UnfinishedError: The training of the model was not finished.
            ValueError: ``INT8_ACQ``, for which there is no bound.
        """
        if compression and compression not in BOUNDS:
            names = ", ".join(BOUNDS)
            msg = f"compression {compression} has no bound to be certified by; take {names}"
            raise ValueError(msg)
        runtime("openvino")

        def marked(folder: Path, description: Description) -> Path:
            path = write(folder)
            mark_exact(path, self._tower_nodes)
            into_openvino(path, description)
            return path

        also = {"by default": partial(open_openvino, precision=None)}
        if compression in (None, CompressionType.FP16):
            also["in bf16"] = partial(open_openvino, precision="bf16")
        openvino = Format("openvino", open_openvino, also)
        return self.certified(method, marked, export_root, openvino, compression, entrance)

    def compress(
        self,
        method: Exportable,
        graph: Any,  # noqa: ANN401 - an OpenVINO model
        compression: CompressionType | None,
        datamodule: AnomalibDataModule | None,
    ) -> Any:  # noqa: ANN401 - an OpenVINO model
        """An OpenVINO model with integers in CLIP's blocks only, calibrated at the model's size."""
        images = None
        if compression != CompressionType.INT8:
            given = datamodule and of_validation(datamodule, method.pre_processor.resize)
            images = given or list(self._probe_images(method).split(1))
        return compress(graph, self._tower_nodes, images)

    def certified(
        self,
        method: Exportable,
        write: DescribingWriter,
        export_root: Path | str,
        format_: Format,
        compression: CompressionType | None = None,
        entrance: Entrance = Entrance(),
    ) -> Path:
        """Write aside, compare, and move into place together with the certificate.

        Args:
            method: The model.
            write: Writes it below a folder and returns its file.
            export_root: Folder for the model.
            format_: What the file is, and how it is opened.
            compression: How the model was compressed, if it was.
            entrance: How images come into the graph.
        """
        check_writable(root := Path(export_root))
        probes = self._probe_images(method)
        refuse_uncertifiable(method)
        if format_.name != "torch":
            refuse_graph(method)
        method.eval()
        with folder_aside(root) as aside, on_processor(method), no_guess(method.post_processor):
            says = torch_run(method)(probes[:1])
            about = (self.checkpoint, says, format_.name, compression, entrance)
            description = describe(method, *about)
            self._is_writing = True
            try:
                written = write(aside, description)
            finally:
                self._is_writing = False
            certificate = {
                **asdict(description),
                "images": len(probes),
                "figures": figures_of(method, written, format_, probes, compression, entrance),
                "files": {f.name: sha256(f) for f in sorted(written.parent.iterdir())},
            }
            written.with_suffix(".json").write_text(as_json(certificate, indent=2) + "\n")
            home = root / written.parent.relative_to(aside)
            home.mkdir(parents=True, exist_ok=True)
            with alone_in(home):  # else two exports could leave a file of each
                for file in sorted(written.parent.iterdir()):
                    file.replace(home / file.name)
        return home / written.name

    def _probe_images(self, method: Exportable) -> Tensor:
        known = method.support.readiness
        if (known.has_learnt and known.is_stale) or not method.schedule.is_finished:
            which = self.checkpoint["file"] if self.checkpoint else "the model to export"
            msg = f"{which} {UnfinishedError.reason}"
            raise UnfinishedError(msg)
        if not len(self.probes):
            msg = "no images to certify an export with: export a checkpoint of a finished training"
            raise NotReadyError(msg)
        return self.probes.float() / 255
