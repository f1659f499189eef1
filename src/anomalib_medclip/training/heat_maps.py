"""A picture of every image that is tested or predicted, and a sheet of the worst errors."""

from pathlib import Path
from typing import Any

from anomalib.data import ImageBatch, ImageItem, NumpyImageBatch, NumpyImageItem
from anomalib.visualization import ImageVisualizer
from lightning import LightningModule, Trainer
from PIL.Image import Image

from anomalib_medclip.components.threshold import has_pixel_threshold
from anomalib_medclip.files import write_whole
from anomalib_medclip.pictures.plate import draw_plate
from anomalib_medclip.pictures.view import View
from anomalib_medclip.spreadsheet import as_table
from anomalib_medclip.training.datamodule_view import DatamoduleView
from anomalib_medclip.training.picture_names import (
    common_folder,
    loaders_of,
    paths_under_evaluation,
    picture_name,
)
from anomalib_medclip.training.processes import is_shared, of_all
from anomalib_medclip.training.run_record import PICTURES
from anomalib_medclip.training.views import extent_of, scale_of, view_of
from anomalib_medclip.training.worst_cases import COLUMNS, WORST_SHEET, WORST_TABLE, WorstCases

_ASKS_ANOMALIB = (
    "fields", "overlay_fields", "fields_config", "overlay_fields_config", "text_config",
)  # fmt: skip


class HeatMapVisualizer(ImageVisualizer):
    """A picture of each image: as it is, truth and prediction outlined, and under its map.

    A test also leaves the worst misses and false alarms on one sheet, and their paths as CSV.

    anomalib keeps only the last folder of an image's path, so that ``good/img/1.png`` and
    ``Ungood/img/1.png`` overwrite each other; here the path below the common folder is kept.

    Args:
        fields: With this or any other but ``field_size`` and ``output_dir`` pictures are drawn as
            by ``anomalib.visualization.ImageVisualizer``, whose options all of these are.
        overlay_fields: Likewise.
        field_size: Width and height of the box that each panel is fitted into, in pixels.
        fields_config: Likewise.
        overlay_fields_config: Likewise.
        text_config: Likewise.
        output_dir: Where pictures go; by default ``images`` in the folder of the run.
    """

    def __init__(
        self,
        fields: list[str] | None = None,
        overlay_fields: list[tuple[str, list[str]]] | None = None,
        field_size: tuple[int, int] = (256, 256),
        fields_config: dict[str, dict[str, Any]] | None = None,
        overlay_fields_config: dict[str, dict[str, Any]] | None = None,
        text_config: dict[str, Any] | None = None,
        output_dir: str | Path | None = None,
    ) -> None:
        super().__init__(field_size=field_size, output_dir=output_dir)
        # As they were given, so that a checkpoint can hold them: anomalib fills in its defaults.
        given = fields, overlay_fields, fields_config, overlay_fields_config, text_config
        vars(self).update(zip(_ASKS_ANOMALIB, given, strict=True))
        self._worst: list[WorstCases] = []
        self._bases: dict[int, Path] = {}

    def folder(self, trainer: Trainer) -> Path:
        """Where pictures go."""
        return Path(self.output_dir or Path(trainer.default_root_dir) / PICTURES)

    def visualize(
        self, predictions: ImageItem | NumpyImageItem | ImageBatch | NumpyImageBatch
    ) -> Image | list[Image | None] | None:
        """Draw an item, or each of a batch; a batch of one gives one picture, as anomalib has it.

        Its name is that of its file. Where items come without a post-processor, no threshold of
        images is named.
        """
        if self._asked:
            drawer = ImageVisualizer(**self._asked, field_size=self.field_size)
            return drawer.visualize(predictions)
        if isinstance(predictions, ImageItem | NumpyImageItem):
            name = Path(str(predictions.image_path or "")).name
            return self._draw(view_of(predictions, name))
        drawn = [self.visualize(item) for item in predictions]
        return drawn[0] if len(drawn) == 1 else drawn  # type: ignore[return-value]

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to look for the worst."""
        del pl_module
        self._bases = {}
        self._worst = [WorstCases() for _ in loaders_of(trainer)]

    def on_predict_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with data whose common folder nobody knows yet."""
        del trainer, pl_module
        self._bases = {}

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - as Lightning passes it
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write one picture per image of the batch."""
        del outputs, batch_idx
        if not (trainer.is_global_zero or is_shared(loaders_of(trainer)[dataloader_idx])):
            return  # what all processes score, the first one draws
        if dataloader_idx not in self._bases:  # of all paths, so once for all batches
            paths = paths_under_evaluation(trainer, dataloader_idx)
            self._bases[dataloader_idx] = common_folder(paths)
        base = self._bases[dataloader_idx]
        data, processor = DatamoduleView.of(trainer), getattr(pl_module, "post_processor", None)
        for item in batch:
            # Shown from the tensor: opening a 16-bit file again would show it cut to 8 bits.
            path, item.image_path = str(item.image_path), None
            target = picture_name(Path(path), base)
            place = data.place_of(path)
            name = target.as_posix() if place is None else f"{target.parent}, {place.words}"
            extent = extent_of(path) if place is None else place.extent
            view = view_of(item, name, processor, extent)
            self._write(item, view, processor, self.folder(trainer) / target)
            if trainer.testing:
                self._worst[dataloader_idx].add(path, view)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the worst of all processes on one sheet, and their paths in its order."""
        every = zip(self._worst, loaders_of(trainer), strict=True)
        found = [one for own, loader in every for one in of_all([own], loader)]
        self._worst = []
        if not trainer.is_global_zero or not found:
            return
        worst, folder = WorstCases().join(found), Path(trainer.default_root_dir)
        processor: Any = getattr(pl_module, "post_processor", None)
        known = has_pixel_threshold(processor)
        threshold = float(processor.normalized_pixel_threshold) if known else None
        folder.mkdir(parents=True, exist_ok=True)
        worst.draw(folder / WORST_SHEET, threshold)
        write_whole(folder / WORST_TABLE, as_table(worst.rows(), COLUMNS))

    @property
    def _asked(self) -> dict[str, Any]:
        """Options of anomalib's drawing that were given; none asks for ours."""
        every = {name: getattr(self, name) for name in _ASKS_ANOMALIB}
        return {name: option for name, option in every.items() if option is not None}

    def _write(self, item: Any, view: View, processor: Any, target: Path) -> None:  # noqa: ANN401
        picture = self.visualize(item) if self._asked else self._draw(view, processor)
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(picture, Image):  # nothing, if every field is switched off
            picture.save(target, compress_level=1)  # a third of the time, little larger

    def _draw(self, view: View, processor: Any = None) -> Image:  # noqa: ANN401 - anyone's, or none
        return draw_plate(view, scale_of(view, processor), max(self.field_size))
