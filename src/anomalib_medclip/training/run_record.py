"""What ``run.json`` says of a run: of what, how it was trained, what was found, where it lies."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning import Trainer
from torch import Tensor

from anomalib_medclip.data.batch import CLASS_NAMES
from anomalib_medclip.evaluation.findings import Outcome
from anomalib_medclip.evaluation.levels import UnitScores
from anomalib_medclip.provenance import NOTICE, packages
from anomalib_medclip.training.datamodule_view import DatamoduleView, below

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
        "command": "train" if "seconds" in trained else "test",
        "method": {"name": type(module).__name__, "options": _options(module)},
        "data": _data(data),
        "training": trained,
        "threshold": _thresholds(module, outcome),
        "test": {"seconds": round(seconds, 3), **_test(outcome)},
        "figures": {**{name: {"value": value} for name, value in figures.items()}, **found},
        "other_figures": {name: value for name, value in logged.items() if name not in figures},
        "files": _files(trainer),
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
    return {name: _plain(value) for name, value in options.items() if _is_plain(value)}


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
    """At each level, where a score becomes abnormal; of images and pixels on the model's scale."""
    own = getattr(module, "post_processor", None)
    known = getattr(module, "decisions", None)
    levels = {} if outcome is None else outcome.levels
    return {
        "from": module.threshold_from,
        "of_patients_from": "" if known is None else known.source,
        "image": {"value": _finite(getattr(own, "image_threshold", None))},
        "pixel": {"value": _finite(getattr(own, "pixel_threshold", None))},
        **{
            name: {"value": one.threshold, "words": one.words}
            for name, one in levels.items()
            if name != "image"
        },
    }


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


def _files(trainer: Trainer) -> dict[str, str | None]:
    """Where everything lies, from the run's folder."""
    folder = Path(trainer.default_root_dir).absolute()
    saved = getattr(trainer.checkpoint_callback, "best_model_path", "") or trainer.ckpt_path
    return {
        "metrics": METRICS,
        "scores": SCORES,
        "pictures": PICTURES if (folder / PICTURES).is_dir() else None,
        "checkpoint": below(str(saved), folder) if saved else None,
    }
