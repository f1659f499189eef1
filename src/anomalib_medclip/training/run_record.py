"""What ``run.json`` says of a run: of what, how it was trained, what was found, where it lies."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from anomalib import LearningType
from lightning import Trainer
from torch import Tensor

from anomalib_medclip.components.threshold import has_pixel_threshold, has_threshold
from anomalib_medclip.data.batch import CLASS_NAMES
from anomalib_medclip.evaluation.findings import Outcome
from anomalib_medclip.evaluation.levels import UnitScores
from anomalib_medclip.provenance import NOTICE, packages
from anomalib_medclip.training.datamodule_view import DatamoduleView, below
from anomalib_medclip.training.run_folder import is_of_training, is_untested

METRICS, SCORES, PICTURES = "test_metrics.json", "test_scores.csv", "images"
"""Names in a run's folder."""


def run_record(
    trainer: Trainer,
    module: Any,  # noqa: ANN401 - a method, or a baseline
    outcome: Outcome | None,
    logged: Mapping[str, float | None],
    seconds: float,
) -> dict[str, Any]:
    """All that is known of a run, in values that JSON has; ``docs/running.md`` lists them.

    Args:
        trainer: Which has tested.
        module: What was tested.
        outcome: What was found; ``None`` where no evaluator was wanted.
        logged: Metrics that Lightning was told of, a user's own among them.
        seconds: What the test took.
    """
    data, trained = DatamoduleView.of(trainer), dict(getattr(module, "training_facts", {}))
    found = {} if outcome is None else {k: v._asdict() for k, v in outcome.found.items()}
    figures = {} if outcome is None else outcome.honest
    return {
        "notice": NOTICE,
        "command": "train" if "seconds" in trained or _is_prepared(trainer, module) else "test",
        "method": {
            "name": type(module).__name__,
            "options": _options(module),
            "words": _words(module),
        },
        "data": _data(data),
        "training": trained,
        "threshold": _thresholds(module, outcome),
        "decisions": _decisions(outcome),
        "test": {"seconds": round(seconds, 3), **_test(outcome)},
        "figures": {**{name: {"value": value} for name, value in figures.items()}, **found},
        "other_figures": {name: value for name, value in logged.items() if name not in figures},
        "files": _files(trainer, is_trained="seconds" in trained),
        "versions": packages(),
    }


def training_facts(data: DatamoduleView, epochs: int) -> dict[str, Any]:
    """How a model is trained on some data: from other sets or from a support, which, how long."""
    return {
        "setting": "zero-shot" if data.zero_shot else "few-shot",
        "sets": data.sets_learnt,
        "epochs": epochs,
    }


def flat_metrics(record: Mapping[str, Any]) -> dict[str, Any]:
    """What ``test_metrics.json`` says: figures by name, support, where the threshold is from."""
    metrics = {name: found["value"] for name, found in record["figures"].items()}
    metrics |= record["other_figures"]
    if support := record["data"]["support"]:
        metrics["support"] = support  # what K really means: images and patients by class
    if source := record["threshold"]["from"]:
        metrics["threshold_from"] = source
    return metrics


def _options(module: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
    """Options in plain values; of files the names alone."""
    options: Mapping[str, Any] = getattr(module, "hparams", {})
    given = {name: value for name, value in options.items() if name != "prompts"}  # said by words
    return {name: _plain(value) for name, value in given.items() if _is_plain(value)}


def _words(module: Any) -> dict[str, Any] | None:  # noqa: ANN401 - as above
    """What the prompts say; ``None`` of a model whose words are not known."""
    words = getattr(module, "words", None)
    return None if words is None else {"object_name": module.object_name, **words.as_plain()}


def _is_plain(value: Any) -> bool:  # noqa: ANN401 - of any kind
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float | bool)


def _plain(value: Any) -> Any:  # noqa: ANN401 - as above
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    is_place = isinstance(value, str) and Path(value).name != value
    return Path(value).name if is_place else value


def _data(data: DatamoduleView) -> dict[str, Any]:
    return {
        "name": data.name,
        "category": data.category,
        "object_name": data.object_name,
        "masks": data.has_masks,
        "slicing": data.slicing,
        "support": data.support_counts,
        "support_images": data.support_images,
    }


def _thresholds(module: Any, outcome: Outcome | None) -> dict[str, Any]:  # noqa: ANN401 - as above
    """At each level, where a score becomes abnormal: around one half, and of the model's own."""
    own: Any = getattr(module, "post_processor", None)
    known = getattr(module, "decisions", None)
    levels = {} if outcome is None else outcome.levels
    own_rule = known is None or known.rule.aim == "f1"
    found: dict[str, dict[str, Any]] = {
        "image": {
            "value": float(own.normalized_image_threshold) if has_threshold(own) else None,
            "raw": _finite(getattr(own, "image_threshold", None)) if own_rule else None,
        },
        "pixel": {
            "value": float(own.normalized_pixel_threshold) if has_pixel_threshold(own) else None,
            "raw": _finite(getattr(own, "pixel_threshold", None)),
        },
    }
    for name, one in levels.items():
        said = {"value": one.threshold, "words": one.words}
        found[name] = {**found.get(name, {}), **said}
    source = "" if known is None else known.source
    return {"from": module.threshold_from, "of_patients_from": source, **found}


def _decisions(outcome: Outcome | None) -> dict[str, Any]:
    """At each level, by whom thresholds, p-values and probabilities are known."""
    levels = {} if outcome is None else outcome.levels
    return {
        name: asdict(one.grounds)
        | {"p_words": one.grounds.p_words, "probability_words": one.grounds.probability_words}
        for name, one in levels.items()
        if one.grounds
    }


def _is_prepared(trainer: Trainer, module: Any) -> bool:  # noqa: ANN401 - as above
    """Whether a model that anomalib trains without a fit, by a validation, was trained right now.

    A training has a new folder, and a test without one another.
    """
    folder = Path(trainer.default_root_dir)
    without_fit = {LearningType.ZERO_SHOT, LearningType.FEW_SHOT}
    is_new = is_of_training(folder) and is_untested(folder)
    return is_new and getattr(module, "learning_type", None) in without_fit


def _finite(value: Tensor | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _test(outcome: Outcome | None) -> dict[str, Any]:
    if outcome is None:
        return {}
    return {
        "levels": {name: _counts(one) for name, one in outcome.levels.items()},
        "froc": outcome.froc,
        "images_of_unknown_patients": outcome.images.unknown,
        "aggregated": outcome.aggregated,
    }


def _counts(scored: UnitScores) -> dict[str, Any]:
    return {
        word: {"units": units, "patients": patients}
        for word, units, patients in zip(CLASS_NAMES, scored.counts, scored.patients, strict=True)
    }


def _files(trainer: Trainer, *, is_trained: bool) -> dict[str, str | None]:
    """Where everything lies, from the run's folder."""
    folder = Path(trainer.default_root_dir).absolute()
    written = getattr(trainer.checkpoint_callback, "best_model_path", "")
    saved = written if is_trained else trainer.ckpt_path
    return {
        "metrics": METRICS,
        "scores": SCORES,
        "pictures": PICTURES if (folder / PICTURES).is_dir() else None,
        "checkpoint": below(str(saved), folder) if saved else None,
    }
