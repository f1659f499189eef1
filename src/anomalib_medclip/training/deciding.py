"""What a model will decide by, found on validation: see ``anomalib_medclip.decisions``."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from typing import Any, NamedTuple

import pandas as pd
import torch
from anomalib.data import ImageBatch
from lightning import LightningModule, Trainer
from lightning.pytorch import Callback
from pandas import DataFrame
from torch import Tensor

from anomalib_medclip.components.familiar import (
    FamiliarImages,
    SeenImage,
    chosen_among,
    seen_images,
    shuffled,
)
from anomalib_medclip.components.processors import placed
from anomalib_medclip.components.threshold import has_pixel_threshold, has_threshold
from anomalib_medclip.decisions.aggregation import Choice, Unit, choose, units
from anomalib_medclip.decisions.decisions import Decisions
from anomalib_medclip.decisions.map_tail import MapTail
from anomalib_medclip.decisions.probability import calibrate, why_none
from anomalib_medclip.decisions.reference import LEVELS, Level, Reference, way_at
from anomalib_medclip.decisions.thresholds import Rule
from anomalib_medclip.training.cross_fit import CrossFit
from anomalib_medclip.training.datamodule_view import DatamoduleView
from anomalib_medclip.training.processes import of_all
from anomalib_medclip.training.schedule import is_watched
from anomalib_medclip.training.threshold_source import source_of


class ScoredImage(NamedTuple):
    """An image of validation.

    Attributes:
        path: Its name.
        score: As the model gave it.
        tail: Of its map; ``None`` without one.
    """

    path: str
    score: float
    tail: MapTail | None


class Deciding(Callback):
    """Finds on each validation what the model will decide by, and gives it to the model.

    Any model of anomalib then has the attributes ``decisions`` and ``familiar``.

    Args:
        rule: By which thresholds are chosen where nobody asks for another.
        insist: Whether to give a verdict by a threshold that does not hold what the rule asks for.
    """

    def __init__(self, rule: Rule = Rule(), insist: bool = False) -> None:
        self._nothing = Decisions(rule=rule, insist=insist)
        self._found: list[list[ScoredImage]] = []
        self._seen: list[SeenImage] = []

    @classmethod
    def as_asked(cls, options: Mapping[str, Any]) -> "Deciding":
        """By the options ``decide_by`` and ``insist`` of a method."""
        return cls(Rule.parse(options["decide_by"]), options["insist"])

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        del trainer, pl_module
        self._found, self._seen = [], []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - a batch
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the scores of a batch."""
        del trainer, batch, batch_idx, dataloader_idx
        if outputs.pred_score is not None and outputs.image_path is not None:
            maps = outputs.anomaly_map
            self._found.append(list(_scored(outputs.image_path, outputs.pred_score, maps)))
            vectors = getattr(pl_module, "vectors", None)  # which a foreign model has not
            self._seen = chosen_among([*self._seen, *seen_images(outputs, vectors)])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the model what was found, unless its threshold stays as it was."""
        loaders: Any = trainer.val_dataloaders
        loader = loaders[0] if isinstance(loaders, list) else loaders
        images = [one for batch in of_all(self._found, loader) for one in batch]
        seen = [one for found in of_all([self._seen], loader) for one in found]
        self._found, self._seen = [], []
        keeps = getattr(pl_module.post_processor, "keeps_threshold", False)
        if trainer.sanity_checking or keeps:
            return
        found = {
            "decisions": self._decided(images, trainer, pl_module),
            "familiar": FamiliarImages.of(_familiar(seen, trainer, pl_module)),
        }
        vars(pl_module).update(found)

    def _decided(self, images: Sequence[ScoredImage], trainer: Trainer, module: Any) -> Decisions:  # noqa: ANN401
        data, samples, post = DatamoduleView.of(trainer), None, module.post_processor
        apart = CrossFit.held_out_in(trainer)
        if apart is not None:
            samples, found = pd.concat(apart.samples), apart.held_out.items()
            images = [
                _image(path, one["pred_score"], one.get("anomaly_map")) for path, one in found
            ]
        elif not (data.validates_on_support or data.validates_on_test):
            samples = data.val_samples
        learns_abnormal = bool(getattr(module, "wants_abnormal", False))
        source = source_of(data, module, apart=apart is not None)
        known = float(post.normalized_image_threshold) if has_threshold(post) else None
        pixels = float(post.normalized_pixel_threshold) if has_pixel_threshold(post) else 0.5
        nothing = self._nothing.of_images(known, pixels, source)
        if samples is None or not images or known is None:
            return nothing
        rows = _rows(images, samples, post)
        chooses = getattr(module, "hparams", {}).get("epoch_choice") == "validation"
        approximate = apart is not None or chooses or is_watched(trainer)
        return _decisions(
            nothing, rows, is_approximate=approximate, learns_abnormal=learns_abnormal
        )


def _familiar(
    seen: Sequence[SeenImage],
    trainer: Trainer,
    module: Any,  # noqa: ANN401 - anyone's
) -> Sequence[SeenImage]:
    """What is like the images that a model is made with: validation and support.

    A zero-shot model is meant for images unlike those, and of a test nothing is learnt.
    """
    data, apart = DatamoduleView.of(trainer), CrossFit.held_out_in(trainer)
    if data.zero_shot or data.validates_on_test:
        return []
    if apart is not None:
        return apart.seen
    if not seen or data.validates_on_support:
        return seen
    return [*seen, *module.support.seen(data, module.pre_processor)]


def _scored(paths: Iterable[str], scores: Tensor, maps: Tensor | None) -> Iterable[ScoredImage]:
    of_image = [None] * len(scores) if maps is None else maps
    for path, score, one in zip(paths, scores, of_image, strict=True):
        yield _image(str(path), score, one)


def _image(path: str, score: Tensor, anomaly_map: Tensor | None) -> ScoredImage:
    tail = None if anomaly_map is None else MapTail.of(anomaly_map.detach().float().cpu().numpy())
    return ScoredImage(path, float(score), tail)


def _rows(images: Sequence[ScoredImage], samples: DataFrame, post: Any) -> DataFrame:  # noqa: ANN401
    """A row of each image: its patient, volume and label, its score, its area above the threshold.

    Args:
        images: As scored; of one that was scored twice, the first counts.
        samples: A table of them, with the columns of anomalib and, if it is ours, ``group`` and
            ``volume``; others are left out, since their label is not known.
        post: The post-processor, whose thresholds are found.
    """
    scores = placed(post, torch.tensor([image.score for image in images], dtype=torch.float64))
    threshold = float(post.pixel_threshold) if has_pixel_threshold(post) else None
    rows = DataFrame({"image_path": [image.path for image in images], "score": scores.numpy()})
    rows["area"] = [
        None if image.tail is None or threshold is None else image.tail.share_above(threshold)
        for image in images
    ]
    about = samples.assign(image_path=samples["image_path"].astype(str))
    about = about.drop_duplicates("image_path").set_index("image_path")
    rows = rows[rows["image_path"].isin(about.index)].drop_duplicates("image_path")
    known = about.loc[rows["image_path"]]
    rows["abnormal"] = (known["label_index"] == 1).to_numpy()
    for name in ("group", "volume"):
        rows[name] = known[name].to_numpy() if name in known else ""
    rows["of_ill"] = known["of_ill"].to_numpy(dtype=bool) if "of_ill" in known else False
    rows["owner"] = rows["group"].where(rows["group"] != "", rows["volume"])
    rows["owner"] = rows["owner"].where(rows["owner"] != "", rows["image_path"])
    return rows


def _decisions(
    nothing: Decisions, rows: DataFrame, *, is_approximate: bool, learns_abnormal: bool
) -> Decisions:
    names: dict[Level, str] = {"image": "image_path", "volume": "volume", "patient": "owner"}
    found = {level: of for level in LEVELS if (of := _units(rows, names[level]))}
    choice, rest = _chosen(found["patient"])

    def reference(level: Level, of: Sequence[Unit]) -> Reference:
        return Reference.of(of, way_at(level, choice.aggregation), is_approximate)

    everyone = {level: reference(level, of) for level, of in found.items()}
    kept = {level: [one for one in of if one.owner in rest] for level, of in found.items()}
    reasons = {
        level: why_none(one, learns_abnormal=learns_abnormal) for level, one in everyone.items()
    }
    return nothing.found(
        choice,
        {level: reference(level, of) for level, of in kept.items()},
        {level: calibrate(everyone[level]) for level, reason in reasons.items() if not reason},
        {level: reason for level, reason in reasons.items() if reason},
    )


def _units(rows: DataFrame, name: str) -> list[Unit]:
    areas = None if rows["area"].isna().any() else rows["area"].to_numpy(dtype=float)
    names, owners = rows[name].tolist(), rows["owner"].tolist()
    truth, scores = rows["abnormal"].to_numpy(), rows["score"].to_numpy()
    return list(units(names, owners, truth, scores, areas, rows["of_ill"].to_numpy()))


def _chosen(found: Sequence[Unit]) -> tuple[Choice, set[str]]:
    """How patients are aggregated, and those of them who had no part in the choice.

    Where there is a choice, half of the normal patients make it, and the others are kept for
    p-values and false alarms; the abnormal ones, of whom a sensitivity needs all, take part in
    both, as in a curve of probability everyone does. The halves depend on nothing but names.
    """
    everyone = {one.owner for one in found}
    choice = choose(found)
    if not choice.tried:
        return choice, everyone
    normal = sorted((one.name for one in found if not one.abnormal), key=shuffled)
    asked = set(compress(normal, [number % 2 == 0 for number in range(len(normal))]))
    made = choose([one for one in found if one.abnormal or one.name in asked], fewest=1)
    told = f"{made.reason}; its {len(asked)} normal ones are not counted on for p-values"
    return made._replace(reason=told), everyone - asked
