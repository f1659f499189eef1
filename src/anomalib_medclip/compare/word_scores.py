"""How well each of some sets of words tells the support's classes apart; no test image is read."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from lightning import Trainer
from torch import Tensor, nn

from anomalib_medclip.clip.towers import TextTower
from anomalib_medclip.compare.comparison import ModelEntry, build_model
from anomalib_medclip.compare.word_sets import WordSets
from anomalib_medclip.components.anomaly_map import align
from anomalib_medclip.components.prompts import TEMPLATES, WORDS, FixedPrompts
from anomalib_medclip.components.words import KINDS, AskedWords, Words
from anomalib_medclip.data.batch import CLASS_NAMES
from anomalib_medclip.data.config import build_data
from anomalib_medclip.data.datamodule import MedicalDataModule
from anomalib_medclip.errors import ConfigError, MetricError
from anomalib_medclip.metrics.clustered import Sample, clear_best, clustered_interval, enough
from anomalib_medclip.metrics.influence import of_auroc
from anomalib_medclip.training.cross_fit import FOLDS, HeldOutScores
from anomalib_medclip.training.method import ClipMethod

Passing = Callable[[Iterable[Any], int], Iterable[Any]]
"""Passes on so many items, and shows how far they are."""

_AT_ONCE = 8
"""Images that the tower encodes together."""

_EACH_ALONE = 10
"""Patients up to which each is left out alone, unless it is said how many parts there are."""


class Support(NamedTuple):
    """The images that words are compared on.

    Attributes:
        items: As a dataset gives them.
        labels: 1 for abnormal.
        patients: Whose each is; an image of nobody known counts as a patient's of its own.
        trainings: How often a model was trained with each set, each without patients of its own.
    """

    items: list[Any]
    labels: list[int]
    patients: list[str]
    trainings: int = 0

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Images and patients of each class."""
        owners = list(zip(self.patients, self.labels, strict=True))
        return {
            word: {
                "images": sum(label == own for _, label in owners),
                "patients": len({patient for patient, label in owners if label == own}),
            }
            for own, word in enumerate(CLASS_NAMES)
        }


@dataclass(frozen=True)
class SetFigure:
    """What a set of words is worth on the support.

    Attributes:
        name: Of the set.
        object_name: What its sentences say of the images.
        words: Their states and templates.
        value: AUROC of images.
        low: Border of its 95 % interval over patients; ``None`` where there is none.
        high: The other one.
        reason: Why there is none.
        best: Whether it beats all others on the same patients, p < 0.05 against each.
    """

    name: str
    object_name: str
    words: dict[str, list[str]]
    value: float
    low: float | None = None
    high: float | None = None
    reason: str = ""
    best: bool = False

    def as_plain(self) -> dict[str, Any]:
        """In values that JSON has."""
        return asdict(self)


def compare_words(
    config: WordSets, passing: Passing, device: torch.device
) -> tuple[Support, list[SetFigure]]:
    """Score the support with each set of words, and find its AUROC, the highest first.

    Args:
        config: What is compared.
        passing: Shows how far the work is.
        device: What to compute on.

    Returns:
        The support, and the figures.

    Raises:
        ConfigError: The words, the model or the data do not go together.
        MedclipError: The data cannot be read.
    """
    told = {name: config.data[name] for name in ("class_path", "init_args")}
    data = build_data(told, "the config's data")
    data.setup()
    support = _support_of(data)
    scored: Scored
    if config.train:
        folds = _folds(config.folds, data, len({*support.patients}))
        support = support._replace(trainings=len(folds))
        scored = _trained(config, data, folds, support, passing, device)
    else:
        scored = iter(_frozen(config, data, support, passing, device))
    found = [_figure(name, said, scores, support) for name, said, scores in scored]
    return support, _marked(sorted(found, key=lambda one: -one[0].value))


def _support_of(data: MedicalDataModule) -> Support:
    if data.support_data is None:
        msg = "these data have no support to compare words on; give some with k_shot"
        raise ConfigError(msg)
    items = [data.support_data[index] for index in range(len(data.support_data))]
    labels = [int(bool(item.gt_label)) for item in items]
    if len({*labels}) < len(CLASS_NAMES):
        msg = "the support has one class only, and words are compared by telling two apart"
        raise ConfigError(msg)
    owners = [getattr(item, "group", "") or str(item.image_path) for item in items]
    return Support(items, labels, owners)


class _Said(NamedTuple):
    """A set's words, and what its sentences say of the images."""

    words: Words
    object_name: str


Scored = Iterator[tuple[str, _Said, Sequence[float]]]
"""Name of a set, what it says, and a score for each image of the support."""


@torch.inference_mode()
def _frozen(
    config: WordSets,
    data: MedicalDataModule,
    support: Support,
    passing: Passing,
    device: torch.device,
) -> list[tuple[str, _Said, Sequence[float]]]:
    """CLIP's own answer to each image: its pooled feature against the two texts."""
    method = _built(config.model, None)
    clip = method.model.clip.to(device)
    pre_processor: Any = method.pre_processor
    resize = pre_processor or nn.Identity()
    resized = [resize(item.image.unsqueeze(0)) for item in support.items]
    parts = torch.cat(resized).as_subclass(Tensor).split(_AT_ONCE)
    encoded = [
        clip.pool(clip.taps(images.to(device), [clip.depth])[:, 0])
        for images in passing(parts, len(parts))
    ]
    pooled = torch.cat(encoded).unsqueeze(1)
    tower = (method.model.text_tower or TextTower(method.backbone)).to(device)
    found: list[tuple[str, _Said, Sequence[float]]] = []
    for name, asked in config.sets.items():
        said = _said(asked, method, data)
        text = FixedPrompts(**vars(said.words))(tower, said.object_name)
        scores = align(pooled, text).softmax(dim=-1)[:, 0, 1]
        found.append((name, said, scores.tolist()))
    return found


def _trained(
    config: WordSets,
    data: MedicalDataModule,
    folds: Sequence[MedicalDataModule],
    support: Support,
    passing: Passing,
    device: torch.device,
) -> Scored:
    """The model's answer to each image, trained with these words and without its patient."""
    work = [(name, fold) for name in config.sets for fold in folds]
    by_set: dict[str, dict[str, float]] = {name: {} for name in config.sets}
    for name, fold in passing(work, len(work)):
        by_set[name] |= _scored_apart(config, config.sets[name], fold, device)
    for name, scores in by_set.items():
        said = _said(config.sets[name], _built(config.model, config.sets[name]), data)
        yield name, said, [scores[str(item.image_path)] for item in support.items]


def _folds(asked: int | None, data: MedicalDataModule, patients: int) -> list[MedicalDataModule]:
    """The support without each patient, or without each of some parts."""
    each = patients <= _EACH_ALONE if asked is None else patients == asked
    parts = FOLDS if asked is None else asked
    found = data.support_folds(None if each else parts)
    if not found:
        msg = "the support has too few patients to leave some out; give more, or leave train out"
        raise ConfigError(msg)
    if asked is not None and len(found) < asked:
        msg = f"folds is {asked}, and the support of {patients} patients can be cut into "
        msg += f"{len(found)} parts with both classes; give folds: {len(found)}, or leave it out"
        raise ConfigError(msg)
    return found


def _scored_apart(
    config: WordSets,
    said: Any,  # noqa: ANN401 - words as ``prompts`` takes them
    fold: MedicalDataModule,
    device: torch.device,
) -> dict[str, float]:
    """Train on a part's support, and score the patients that were left out of it."""
    method, scores = _built(config.model, said), HeldOutScores()
    method.hparams["cross_fit"] = False
    method.post_processor = method.evaluator = None  # of no use, and with words of their own
    epochs = config.model.get("max_epochs", method.default_epochs)
    with TemporaryDirectory() as scratch:
        apart = Trainer(
            max_epochs=epochs,
            accelerator="cpu" if device.type == "cpu" else "gpu",
            devices=1,
            callbacks=[scores],
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=scratch,
        )
        apart.fit(method, datamodule=fold)
    return {path: float(one["pred_score"]) for path, one in scores.found.items()}


def _built(entry: ModelEntry, prompts: Any) -> ClipMethod:  # noqa: ANN401 - as of a method
    options = {**entry["init_args"], **({} if prompts is None else {"prompts": prompts})}
    told = {"class_path": entry["class_path"], "init_args": options}
    method = build_model(told, entry.get("image_size"))
    assert isinstance(method, ClipMethod)  # as the config's reader has seen
    return method


def _said(
    prompts: str | dict[str, Any] | None, method: ClipMethod, data: MedicalDataModule
) -> _Said:
    """What the model's sentences are made of with a set's words, or with its own.

    Methods whose contexts learn have no templates; they get those of plain CLIP.
    """
    asked = method.asked_words if prompts is None else AskedWords.of(prompts, KINDS)
    own, stand_in = method.own_words or (WORDS, None)
    option = method.hparams["object_name"]
    words, name = asked.settled(own, option, stand_in)
    words = replace(words, templates=words.templates or TEMPLATES)
    asked_or_known = data.object_name if name is None else name
    named = words.name_the_object or (stand_in is not None and name is not None)
    return _Said(words, asked_or_known if named else "")


def _figure(
    name: str, said: _Said, scores: Sequence[float], support: Support
) -> tuple[SetFigure, Sample]:
    sample = Sample.of([of_auroc(scores, support.labels, support.patients)])
    told = SetFigure(name, said.object_name, said.words.as_plain(), sample.value)
    try:
        _, low, high = clustered_interval(sample)
    except MetricError as error:  # too few patients
        return replace(told, reason=str(error)), sample
    return replace(told, low=low, high=high), sample


def _marked(found: list[tuple[SetFigure, Sample]]) -> list[SetFigure]:
    """The best is marked where it beats every other, of five patients of each class or more."""
    figures, samples = [figure for figure, _ in found], [sample for _, sample in found]
    if not all(enough(sample, fewest_draws=1) for sample in samples):
        return figures
    try:
        winner = clear_best(samples)
    except MetricError:  # no two patients are of the same kind
        return figures
    return [replace(figure, best=place == winner) for place, figure in enumerate(figures)]
