"""The card of a model that is shared: what it is, what it learnt from, how often it is wrong.

All of it is from the model's own records. Of data it says the names that were given to sets, and
counts.
"""

import sys
from collections.abc import Mapping
from inspect import getdoc
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from anomalib_medclip.clip.backbone import without_clip
from anomalib_medclip.components.threshold import has_pixel_threshold, has_threshold
from anomalib_medclip.errors import CheckpointError
from anomalib_medclip.files import MISSING, fault_of, read_json
from anomalib_medclip.provenance import NOTICE, sha256_of_tensors, versions
from anomalib_medclip.training.checkpoints import Notes

_TEMPLATE = Path(__file__).with_name("model_card.md")

_TAGS = ["anomaly-detection", "anomalib", "clip", "few-shot", "medical-imaging", "model_hub_mixin"]


def card_facts(
    method: Any,  # noqa: ANN401 - a method
    notes: Notes,
    state: Mapping[str, Any],
    run: str | Path | None,
) -> dict[str, Any]:
    """What a card says of a model.

    Args:
        method: The model.
        notes: What is noted of it.
        state: As a checkpoint has it.
        run: ``run.json`` of a test of it.

    Raises:
        CheckpointError: ``run`` is of another model, or of none.
    """
    post, weights = method.post_processor, sha256_of_tensors(without_clip(state["state_dict"]))
    decisions = notes.decisions or {}
    levels = decisions.get("references", {})
    return {
        "notice": NOTICE,
        "method": notes.method,
        "about": (getdoc(type(method)) or "").partition("\n")[0],
        "package": _home(type(method)),
        "object_name": notes.object_name,
        "backbone": notes.backbone,
        "fingerprint": notes.fingerprint,
        "size": state["hyper_parameters"].get("image_size"),
        "training": notes.training,
        "has_threshold": bool(post) and has_threshold(post),
        "has_pixel_threshold": bool(post) and has_pixel_threshold(post),
        "threshold_from": notes.threshold_from,
        "known": {k: [len(one["normal"]), len(one["abnormal"])] for k, one in levels.items()},
        "known_from": decisions.get("source"),
        "weights_sha256": weights,
        "versions": {k: v for k, v in versions().items() if v != "not installed"},
        "test": None if run is None else _tested(Path(run), notes.method, weights),
    }


def _tested(path: Path, method: str, weights: str) -> dict[str, Any]:
    """What a run has found, if it is of these weights."""
    if fault := fault_of(path):
        remedy = "give the run.json of a test" if fault is MISSING else fault.remedy
        msg = f"{path} {fault.said}; {remedy}"
        raise CheckpointError(msg)
    record = read_json(path)
    found = record.get("method", {}) if isinstance(record, dict) else {}
    if found.get("weights_sha256") != weights:
        msg = f"{path} is no record of a test of this very {method}, whose weights have the "
        msg += f"SHA-256 {weights[:12]}...; test it, and give the run.json of that"
        raise CheckpointError(msg)
    data = record["data"]
    return {
        "data": " ".join(filter(None, (data["name"], data["category"]))),
        "levels": record["test"].get("levels", {}),
        "figures": [(name, *_shown(one)) for name, one in record["figures"].items()],
        "results": {k: one["value"] for k, one in record["figures"].items()},
        "thresholds": [
            (level, one["words"])
            for level, one in record["threshold"].items()
            if isinstance(one, dict) and one["value"] is not None and one.get("words")
        ],
    }


def _shown(found: Mapping[str, Any]) -> tuple[str, str]:
    """A figure, and its interval or why it has none."""
    value, low, high = (found.get(name) for name in ("value", "low", "high"))
    reason, _, _ = (found.get("words") or "none was computed").partition(":")
    interval = reason if low is None else f"{low:.3f} to {high:.3f}"
    return "-" if value is None else f"{value:.3f}", interval


def _home(kind: type) -> str:
    """The package from which a class is imported, as people do."""
    parts = kind.__module__.split(".")
    homes = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return next(one for one in homes if getattr(sys.modules.get(one), kind.__name__, None) is kind)


def card_of(facts: Mapping[str, Any]) -> ModelCard:
    """A card in Markdown, with what the hub reads in front of it."""
    test = facts["test"]
    results = [
        EvalResult(
            task_type="anomaly-detection", dataset_type="other", dataset_name=test["data"],
            metric_type=name, metric_value=round(value, 4),
        )
        for name, value in (test["results"] if test else {}).items()
        if value is not None
    ]  # fmt: skip
    data = ModelCardData(
        library_name="anomalib-medclip",
        license=facts.get("license"),
        tags=[*_TAGS, facts["method"].lower()],
        **({"model_name": facts["method"], "eval_results": results} if results else {}),
    )
    return ModelCard.from_template(data, template_path=str(_TEMPLATE), **facts)
