"""A method as it is checked: small, offline, trained once for all who only look at it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from anomalib.engine import Engine
from torch import Tensor

from anomalib_medclip.data.folder import MedicalFolder
from anomalib_medclip.testing.small import OPTIONS, SHALLOW, lesion_data, write_lesions
from anomalib_medclip.training.method import ClipMethod


class Trained(NamedTuple):
    """A training run, and what its test found, if it was tested."""

    model: Any
    engine: Engine
    data: MedicalFolder
    metrics: dict[str, float]

    @property
    def checkpoint(self) -> Path:
        """What the run has saved."""
        callback: Any = self.engine.trainer.checkpoint_callback
        return Path(callback.best_model_path)

    @property
    def home(self) -> Path:
        """Where the run has left its results."""
        return Path(self.engine.trainer.default_root_dir)


@dataclass
class MethodCase:
    """A method, and what it needs to learn soon what the pictures show.

    Args:
        method: Its class.
        options: Its own options, besides a small random CLIP; such as a larger ``lr``.
        epochs: After so many it has learnt.
        batch_size: Images of a training batch.
        exempt: Promises that it does not mean to keep, each with the reason.

    Raises:
        ValueError: An exemption has no reason.
    """

    method: type[ClipMethod]
    options: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 3
    batch_size: int = 4
    exempt: Mapping[str, str] = field(default_factory=dict)
    _exported: dict[str, Path] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Look at the exemptions."""
        if unexplained := [name for name, reason in self.exempt.items() if not reason.strip()]:
            msg = f"the exemption from {unexplained[0]} has no reason; say why it is not kept"
            raise ValueError(msg)

    @property
    def name(self) -> str:
        """Of the method's class."""
        return self.method.__name__

    @property
    def side(self) -> int:
        """Side of the images that it takes, in pixels."""
        return int({**OPTIONS, **self.options}["image_size"])

    def small(self, **options: Any) -> Any:  # noqa: ANN401 - the method, whose options are its own
        """A small and offline model of the method, which draws no pictures unless it is asked."""
        usual = {name: value for name, value in OPTIONS.items() if self.takes(name)}
        return self.method(**{**usual, "visualizer": False, **self.options, **options})

    def shallow(self) -> Any:  # noqa: ANN401 - the method
        """The same with half the blocks, if it can be told which to read."""
        return self.small(**(SHALLOW if self.takes("levels") else {}))

    def takes(self, option: str) -> bool:
        """Whether the method has such an option."""
        return option in signature(self.method).parameters

    @cached_property
    def scratch(self) -> TemporaryDirectory[str]:
        """Folder that lasts as long as this case."""
        return TemporaryDirectory(prefix="anomalib_medclip_")

    @cached_property
    def lesions(self) -> Path:
        """Folder of pictures with lesions, and their table."""
        return write_lesions(Path(self.scratch.name) / "lesions").parent

    @contextmanager
    def home(self) -> Iterator[Path]:
        """A folder for a while."""
        with TemporaryDirectory(dir=self.scratch.name) as folder:
            yield Path(folder)

    @cached_property
    def trained(self) -> Trained:
        """A run with masks, to look at and not to change."""
        return self.train(Path(self.scratch.name) / "trained")

    @cached_property
    def shallow_checkpoint(self) -> Path:
        """Of a run with half the blocks, to be exported; where there are none, of the usual one."""
        if not self.takes("levels"):
            return self.trained.checkpoint
        engine = self.engine(Path(self.scratch.name) / "shallow", max_epochs=2)
        engine.fit(self.shallow(), datamodule=self.data(train_batch_size=8))
        callback: Any = engine.trainer.checkpoint_callback
        return Path(callback.best_model_path)

    def exported(self, kind: str) -> Path:
        """That run as a file of another format, made once.

        Args:
            kind: ``torch``, ``onnx`` or ``openvino``.
        """
        if kind not in self._exported:
            root = Path(self.scratch.name) / "exported"
            options: dict[str, Any] = {"export_root": root, "ckpt_path": self.shallow_checkpoint}
            written = self.engine(root).export(self.shallow(), kind, **options)
            self._exported[kind] = Path(str(written))
        return self._exported[kind]

    @cached_property
    def images(self) -> Tensor:
        """All test images of that run, as the model takes them."""
        data = self.trained.data.test_data
        images: list[Any] = [data[index].image for index in range(len(data))]
        return torch.stack(images).as_subclass(Tensor)

    def engine(self, home: Path, **trainer: Any) -> Engine:  # noqa: ANN401 - Lightning's
        """Anomalib's Engine on the processor, without a progress bar."""
        usual = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
        return Engine(default_root_dir=home, **{**usual, **trainer})

    def data(self, **options: Any) -> MedicalFolder:  # noqa: ANN401 - of MedicalFolder
        """A datamodule over the pictures."""
        return lesion_data(self.lesions, **{"train_batch_size": self.batch_size, **options})

    def data_tested_on(self, label: int) -> MedicalFolder:
        """The same, of whose test images only those of a class are tested."""
        data = self.data()
        setup = data.setup

        def without_others(stage: str | None = None) -> None:
            setup(stage)
            if data.test_data is not None:
                table = data.test_data.samples
                data.test_data.samples = table[table["label_index"] == label]

        data.setup = without_others  # type: ignore[method-assign]
        return data

    def train(self, home: Path, **options: Any) -> Trained:  # noqa: ANN401 - as those of ``ready``
        """Train the method, and test it; takes what ``ready`` takes."""
        trained = self.ready(home, **options)
        found: Any = trained.engine.train(trained.model, datamodule=trained.data)
        return trained._replace(metrics=dict(found[0]))

    def fit(self, home: Path, **options: Any) -> Trained:  # noqa: ANN401 - as those of ``ready``
        """Train the method without a test, in few steps; takes what ``ready`` takes."""
        trained = self.ready(home, **{"data": self.data(train_batch_size=16), **options})
        trained.engine.fit(trained.model, datamodule=trained.data)
        return trained

    def ready(
        self,
        home: Path,
        *,
        epochs: int | None = None,
        trainer: Mapping[str, Any] | None = None,
        data: MedicalFolder | None = None,
        **options: Any,  # noqa: ANN401 - the method's
    ) -> Trained:
        """A model, its engine and its data, not trained yet.

        Args:
            home: Where its results go.
            epochs: How many; by default those of the case.
            trainer: Options of Lightning's trainer.
            data: What to train on; by default the pictures.
            **options: Options of the method.
        """
        engine = self.engine(home, **{"max_epochs": epochs or self.epochs, **(trainer or {})})
        return Trained(self.small(**options), engine, data or self.data(), {})
