"""Checkpoints that hold what was learnt, and not the backbone it was learnt on."""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from anomalib.engine.plugins import AnomalibCheckpointIO
from anomalib.utils.serialization import anomalib_safe_globals
from lightning import Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from torch import Tensor

from anomalib_medclip.clip.backbone import CLIP_PREFIXES, without_clip
from anomalib_medclip.clip.source import check_names_nothing
from anomalib_medclip.clip.weights import read_plain
from anomalib_medclip.components.familiar import FamiliarImages
from anomalib_medclip.components.finite import refuse_non_finite_state
from anomalib_medclip.decisions.decisions import Decisions
from anomalib_medclip.errors import CheckpointError, UnfinishedError
from anomalib_medclip.files import fault_of
from anomalib_medclip.training.fitting import check_backbone, check_options
from anomalib_medclip.training.kept_words import refuse_named_words, refuse_other_words
from anomalib_medclip.training.schedule import checkpoint_callbacks

logger = logging.getLogger(__name__)

_NAMES_CODE = {"_instantiator", "_class_path"}
"""Options by which Lightning lets a checkpoint say what is to be imported and called."""

_NAMES_FILES = {"dirpath", "best_model_path", "best_k_models"}
"""What is in the state of a callback that saves checkpoints."""

KEY = "anomalib_medclip"
"""Where the notes lie in a checkpoint."""


@dataclass
class Notes:
    """What a checkpoint holds besides the weights.

    Attributes:
        method: Name of the method's class.
        fingerprint: That of its backbone.
        backbone: The same in words.
        object_name: What the images of the target show.
        support_is_stale: Whether it has still to see its support before it scores.
        threshold_from: Which images the threshold was found on.
        probes: Real images ``(image, 3, side, side)`` as uint8, to certify exports with.
        model: ``has_masks`` and ``few_shot`` of the torch model, where they were kept.
        package: Module that the method is imported from.
        is_finished: Whether the training that it was saved in was finished, or had learnt nothing
            yet; ``None`` in files of 0.1.0, which do not say.
        components: Class and options of the components that a user has passed.
        training: How it was trained: zero-shot or few-shot, from which sets, epochs.
        decisions: What volumes and patients are decided by, as ``Decisions.as_plain`` has it.
        familiar: Images like those it was made with: their ``vectors`` and ``owners``.
        words: What its prompts say, as ``Words.as_plain`` has it; ``None`` where that is not known.
    """

    method: str
    fingerprint: str
    backbone: str
    object_name: str
    support_is_stale: bool
    threshold_from: str
    probes: Tensor
    model: dict[str, bool]
    package: str = "anomalib_medclip"
    is_finished: bool | None = None
    components: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    decisions: dict[str, Any] | None = None
    familiar: dict[str, Tensor] | None = None
    words: dict[str, list[str]] | None = None

    @classmethod
    def of(
        cls,
        module: Any,  # noqa: ANN401 - a method, or WinCLIP
        *,
        support_is_stale: bool,
        probes: Tensor,
        model: dict[str, bool],
        is_finished: bool = True,
    ) -> "Notes":
        """What there is to note of a model that is built on a CLIP of ours."""
        clip = module.model.clip
        told = ("decisions", "familiar", "words")
        decisions, familiar, words = (getattr(module, one, None) for one in told)
        return cls(
            method=type(module).__name__,
            fingerprint=clip.fingerprint,
            backbone=str(clip.backbone),
            object_name=module.object_name,
            support_is_stale=support_is_stale,
            threshold_from=module.threshold_from,
            probes=probes,
            model=model,
            package=type(module).__module__.partition(".")[0],
            is_finished=is_finished,
            components=module.user_components.kept(),
            training=dict(module.training_facts),
            decisions=decisions and decisions.as_plain(),
            familiar=familiar and familiar._asdict(),
            words=words and words.as_plain(),
        )

    def hand_to(self, module: Any) -> None:  # noqa: ANN401 - a method, or WinCLIP
        """Give a model back what it knew of its training and its validation."""
        module.threshold_from, module.training_facts = self.threshold_from, self.training
        module.decisions, module.familiar = self.known_decisions, self.known_images

    @property
    def known_decisions(self) -> Decisions | None:
        """What volumes and patients are decided by; ``None`` in files of former versions."""
        return None if self.decisions is None else Decisions.from_plain(self.decisions)

    @property
    def known_images(self) -> FamiliarImages:
        """Images like those it was made with; none in files of former versions."""
        return FamiliarImages.none() if self.familiar is None else FamiliarImages(**self.familiar)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint's tensors and plain values; nothing in the file is run.

    Raises:
        CheckpointError: It is no such file, or asks for code to be imported.
        WeightsError: Its backbone is a folder, or of the hub.
    """
    try:
        with anomalib_safe_globals():
            found = read_plain(path)
    except (ValueError, AttributeError, TypeError) as error:
        msg = f"checkpoint {path} cannot be opened: {error}; pass one of anomalib-medclip"
        raise CheckpointError(msg) from None
    refuse_commands(path, found)
    return dict(found)


def refuse_commands(path: str | Path, found: Any) -> None:  # noqa: ANN401 - whatever a file holds
    """Refuse a checkpoint that says what is to be imported, called, opened or fetched.

    Raises:
        CheckpointError: It does, or is none.
        WeightsError: Its backbone is a folder, or of the hub.
    """
    try:
        options = [found.get(key) or {} for key in ("hyper_parameters", "hparams")]
        named = sorted(_NAMES_CODE & set().union(*options, found.get("module_arguments") or {}))
    except (AttributeError, TypeError) as error:
        msg = f"checkpoint {path} cannot be opened: {error}; pass one of anomalib-medclip"
        raise CheckpointError(msg) from None
    if named:
        msg = f"checkpoint {path} says by {named[0]} what to import and call, which is not done; "
        msg += "train it again by 'anomalib train'"
        raise CheckpointError(msg)
    refuse_named_words(path, options)
    for given in options:
        check_names_nothing(given.get("backbone") or {})


class PlainCheckpointIO(AnomalibCheckpointIO):
    """Lightning's reading and writing of checkpoints, by a reader that runs no code."""

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401 - Lightning's
        """What ``read_checkpoint`` reads, wherever else it should go, and however else be read."""
        del args, kwargs
        found, folder = read_checkpoint(path), Path(path).absolute().parent
        for state in _saving(found):
            # Without "..", by which Lightning would delete what lies elsewhere as an older one.
            _rename_files(state, lambda name: os.path.normpath(folder / name))
            state["dirpath"] = str(folder)
        return found


def read_checkpoints_plainly(trainer: Trainer) -> None:
    """Let a trainer read its ``ckpt_path`` by a reader that runs no code."""
    if isinstance(trainer.strategy.checkpoint_io, TorchCheckpointIO):
        trainer.strategy.checkpoint_io = PlainCheckpointIO()


def slim(checkpoint: dict[str, Any], notes: Notes) -> None:
    """Leave CLIP and the places of files out of a checkpoint, and note what to check and restore.

    Other checkpoints are named from the folder of this one, so that both may be moved.

    Raises:
        NonFiniteError: Something learnt is NaN or infinite.
    """
    checkpoint["state_dict"] = without_clip(checkpoint["state_dict"])
    for state in _saving(checkpoint):
        _rename_files(state, partial(os.path.relpath, start=state["dirpath"]))
        state["dirpath"] = "."
    refuse_non_finite_state(checkpoint["state_dict"], "the model to save")
    checkpoint[KEY] = dict(vars(notes))


def _saving(checkpoint: Mapping[str, Any]) -> list[dict[str, Any]]:
    """States of Lightning's callbacks that save checkpoints, and know where."""
    states = checkpoint.get("callbacks", {}).values()
    return [one for one in states if isinstance(one, dict) and one.keys() >= _NAMES_FILES]


def _rename_files(state: dict[str, Any], rename: Callable[[str], str]) -> None:
    """Give the checkpoints that a callback knows other names."""
    for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
        state[key] = state[key] and rename(state[key])
    state["best_k_models"] = {rename(name): how for name, how in state["best_k_models"].items()}


def complete(checkpoint: dict[str, Any], module: Any) -> Notes:  # noqa: ANN401 - as of Notes
    """Check that a checkpoint is of this module and backbone, and put CLIP back into it.

    Components that a user had passed are rebuilt, unless this module was given others.

    Args:
        checkpoint: As it was read; the module's own CLIP is added.
        module: Which is to be restored.

    Returns:
        What was noted.

    Raises:
        CheckpointError: It is of another method, or was made with other options.
        BackboneMismatchError: It was trained on another backbone.
        NonFiniteError: Something in it is NaN or infinite.
    """
    trainer: Any = module._trainer
    file = (trainer and trainer.ckpt_path) or "the checkpoint"
    notes = notes_of(file, checkpoint)
    module.user_components.restore(module, notes.components)
    check_backbone(file, notes, module.model.clip)
    refuse_non_finite_state(without_clip(checkpoint["state_dict"]), file)
    state = module.state_dict()
    own = {k: v for k, v in state.items() if k.startswith(CLIP_PREFIXES)}
    checkpoint["state_dict"] = {**checkpoint["state_dict"], **own}
    check_options(file, state, checkpoint)
    refuse_other_words(file, notes.words, getattr(module, "words", None))
    if trainer and trainer.training and not checkpoint["optimizer_states"]:
        logger.warning("%s is of a finished run: the optimiser begins anew", file)
    return notes


def notes_of(file: object, checkpoint: Mapping[str, Any]) -> Notes:
    """What is noted in a checkpoint; files that do not say so are finished if a threshold is known.

    Args:
        file: Its name, for messages.
        checkpoint: As it was read.

    Raises:
        CheckpointError: Nothing is, or not all there should be.
    """
    if KEY not in checkpoint:
        msg = f"{file} was not made by a model of anomalib-medclip; pass one that was"
        raise CheckpointError(msg)
    known = {one.name for one in fields(Notes)}  # later versions may note more
    found = {name: value for name, value in checkpoint[KEY].items() if name in known}
    try:
        notes = Notes(**found)
    except TypeError as error:
        msg = f"{file} lacks notes that a checkpoint of anomalib-medclip has ({error}); train it "
        msg += "again"
        raise CheckpointError(msg) from None
    if notes.is_finished is None:
        threshold = checkpoint["state_dict"].get("post_processor._image_threshold")
        return replace(notes, is_finished=threshold is not None and bool(threshold.isfinite()))
    return notes


def refuse_unfinished(path: Path, notes: Notes) -> None:
    """Refuse what was saved before its training was finished, or before it saw its support.

    Raises:
        UnfinishedError: It was.
    """
    if notes.support_is_stale or not notes.is_finished:
        msg = f"{path} {UnfinishedError.reason}"
        raise UnfinishedError(msg)


def switched_off(checkpoint: Mapping[str, Any]) -> dict[str, bool]:
    """Options of a model that was made without a post-processor, whose state it lacks."""
    enabled = checkpoint.get("anomalib_components_enabled") or {}
    return {} if enabled.get("post_processor", True) else {"post_processor": False}


def mark_chosen(trainer: Trainer) -> None:
    """Say of the checkpoints that a callback has kept for a metric that their training is finished.

    They are of former epochs, each with the threshold that its own validation found.
    """
    watching = [one for one in checkpoint_callbacks(trainer) if one.monitor]
    kept = {path for one in watching for path in (*one.best_k_models, one.last_model_path) if path}
    for path in sorted(kept) if trainer.is_global_zero else ():
        if fault := fault_of(path):
            logger.warning("%s %s: it is not marked as finished", path, fault.said)
            continue
        found = read_checkpoint(path)
        found[KEY]["is_finished"] = True
        trainer.strategy.checkpoint_io.save_checkpoint(found, path)
