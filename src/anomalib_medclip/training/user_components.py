"""Processors, evaluator and visualizer that a user has passed, and how a checkpoint keeps them.

A checkpoint holds no objects, but the name of a class and its options. anomalib keeps the options
of its own classes and forgets which class it was.
"""

import inspect
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anomalib.metrics import AnomalibMetric, Evaluator
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.pre_processing.utils.spec import spec_to_transform, transform_to_spec
from anomalib.visualization.base import Visualizer
from lightning import Trainer
from torch import nn
from torchvision.transforms.v2 import Transform

from anomalib_medclip.errors import CheckpointError, ConfigError

logger = logging.getLogger(__name__)

SCORING = ("pre_processor", "post_processor")
"""Components that scores depend on; the others only look at scores."""

_KINDS: dict[str, type] = {
    "pre_processor": PreProcessor,
    "post_processor": PostProcessor,
    "evaluator": Evaluator,
    "visualizer": Visualizer,
}
"""What a checkpoint may name; no other class is made for it."""

_PLAIN = (str, int, float, bool, type(None))
_KNOWN = ("anomalib", "anomalib_medclip", "torchmetrics")
"""Packages whose classes keep nothing but their options that matters."""


class UserComponents:
    """The components that a user has passed to a model, as they were then.

    Args:
        options: The model's: ``True``, ``False`` or an object under each component's name.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._kept: dict[str, Any] = {}
        self._lost: dict[str, str] = {}
        self._chosen = {name for name in _KINDS if options.get(name, True) is not True}
        for name, kind in _KINDS.items():
            component = options.get(name, True)
            if not isinstance(component, bool):
                try:
                    self._kept[name] = _spec(component, kind)
                except Exception as error:  # whatever a constructor of anyone's raises
                    words = f"the {name} {_path(component)} cannot be rebuilt from plain options"
                    self._lost[name] = f"{words}: {error}"

    @property
    def of_images(self) -> str:
        """What tells images that were read through them from others."""
        return str(self._kept.get("pre_processor", self._lost.get("pre_processor", "")))

    def kept(self) -> dict[str, Any]:
        """What a checkpoint holds of them.

        Raises:
            ConfigError: A processor cannot be rebuilt from its class and plain options.
        """
        for name in SCORING:
            if name in self._lost:
                msg = f"{self._lost[name]}, and no checkpoint could hold it; keep each option "
                msg += "under its name in the object, and use transforms that anomalib can save"
                raise ConfigError(msg)
        return self._kept

    def check(self, trainer: Trainer) -> None:
        """Say before a training what its checkpoints, if it saves any, will not hold.

        Raises:
            ConfigError: A processor cannot be rebuilt from its class and plain options.
        """
        if not trainer.checkpoint_callbacks:  # such as a copy that is cross-fitted
            return
        self.kept()
        for lost in self._lost.values():
            logger.warning("%s; a model that is restored has the usual one: pass yours again", lost)

    def restore(self, model: Any, kept: Mapping[str, Any]) -> None:  # noqa: ANN401 - of this package
        """Give a model the components that a checkpoint was made with, but where it has others.

        Args:
            model: Which is being restored, by a trainer or without one.
            kept: What the checkpoint holds of them.

        Raises:
            CheckpointError: A class is not imported, or takes other options; or a trainer has set
                up its data for another pre-processor.
        """
        for name in sorted(kept.keys() & _KINDS.keys()):
            spec, present = kept[name], getattr(model, name)
            if name not in self._chosen:
                _replace(model, name, present, _rebuilt(name, spec, _KINDS[name]))
            elif self._kept.get(name) != spec:
                taken = "none" if present is None else _path(present)
                words = "the checkpoint was made with the %s %s; %s is taken, which was asked for"
                logger.warning(words, name, spec["class_path"], taken)


def _replace(model: Any, name: str, present: Any, component: Any) -> None:  # noqa: ANN401
    """Put a component into a model and, if that is being run, among the trainer's callbacks."""
    trainer = model._trainer
    if trainer is not None and present in trainer.callbacks:
        if name == "pre_processor":
            msg = f"the checkpoint was made with the pre_processor {_path(component)}; the data "
            msg += "are set up for the usual one; pass it to the model, too"
            raise CheckpointError(msg)
        trainer.callbacks[trainer.callbacks.index(present)] = component
        component.setup(trainer, model, trainer.state.stage)
    setattr(model, name, component)


def _spec(component: Any, kind: type) -> dict[str, Any]:  # noqa: ANN401 - a component
    """Class and options of an object of a kind.

    Raises:
        ValueError: An object that is made of them is another one, or would not be made.
    """
    made_of, path = type(component), _path(component)
    if _found(path, kind) is not made_of:
        msg = f"it is no {kind.__name__} that is found by this name"
        raise ValueError(msg)
    names = [name for name in whole_signature(made_of).parameters if hasattr(component, name)]
    options = {name: _plain(getattr(component, name)) for name in names}
    if _told(_made(made_of, options)) != _told(component):
        said = ", ".join(f"{name}={value!r}" for name, value in options.items())
        msg = f"{made_of.__name__}({said}) is another"
        raise ValueError(msg)
    return {"class_path": path, "init_args": options}


def _plain(value: Any) -> Any:  # noqa: ANN401 - of any kind
    if isinstance(value, Transform):
        return {"transform": transform_to_spec(value)}
    if isinstance(value, nn.ModuleList):
        return {"metrics": [_spec(one, AnomalibMetric) for one in value]}
    if isinstance(value, list | tuple):
        return type(value)(_plain(one) for one in value)
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if not isinstance(value, _PLAIN):
        msg = f"{value!r} is no plain value"
        raise ValueError(msg)
    if isinstance(value, str) and Path(value).is_absolute():
        msg = f"{value} is a place of this machine"
        raise ValueError(msg)
    return value


def _made(kind: type, options: Mapping[str, Any]) -> Any:  # noqa: ANN401 - an object of it
    given = {}
    for name, value in options.items():
        match value:
            case {"transform": spec}:
                given[name] = spec_to_transform(spec)
            case {"metrics": metrics}:
                given[name] = [_rebuilt("metric", one, AnomalibMetric) for one in metrics]
            case _:
                given[name] = value
    return kind(**given)


def _told(component: Any) -> dict[str, Any]:  # noqa: ANN401 - an object
    """Everything that an object knows, lists for tuples; what it has learnt is not.

    Raises:
        ValueError: It keeps what is not plain.
    """
    known = {}
    for name in vars(component).keys() - vars(nn.Module()).keys():
        try:
            known[name] = _listed(_plain(vars(component)[name]))
        except ValueError:
            if _package(component) not in _KNOWN:
                raise
    for name, part in component.named_children() if isinstance(component, nn.Module) else ():
        try:
            known[name] = _listed(_plain(part))
        except ValueError:  # options that are parts were looked at before
            known[name] = repr(part)
    return known


def _listed(value: Any) -> Any:  # noqa: ANN401 - plain values
    if isinstance(value, dict):
        return {name: _listed(one) for name, one in value.items()}
    return [_listed(one) for one in value] if isinstance(value, list | tuple) else value


def _rebuilt(name: str, spec: Any, kind: type) -> Any:  # noqa: ANN401 - plain values; an object
    """An object of a class that is imported already; a file does not say what to import.

    Raises:
        CheckpointError: There is no such class, or it takes other options.
    """
    path = spec.get("class_path") if isinstance(spec, dict) else spec
    found = _found(str(path), kind)
    if found is None:
        msg = f"the checkpoint was made with the {name} {path}, which is no {kind.__name__} that "
        msg += f"is known here; import its module first, or pass a {name} of your own"
        raise CheckpointError(msg)
    try:
        return _made(found, spec["init_args"])
    except Exception as error:
        msg = f"the {name} {path} of the checkpoint takes other options here: {error}; pass a "
        msg += f"{name} of your own"
        raise CheckpointError(msg) from error


def _found(path: str, kind: type) -> type | None:
    """A class of a kind, of a module that is imported already; ``None`` if there is none."""
    module, _, name = path.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    return found if isinstance(found, type) and issubclass(found, kind) else None


def _path(component: Any) -> str:  # noqa: ANN401 - an object
    kind = type(component)
    return f"{kind.__module__}.{kind.__qualname__}"


def _package(component: Any) -> str:  # noqa: ANN401 - an object
    return type(component).__module__.partition(".")[0]


def whole_signature(method: type) -> inspect.Signature:
    """All options of a class by name: those of its parents come first, its own after them.

    A method's constructor says its own options and passes the others on by ``**kwargs``; an editor,
    ``help`` and whoever asks whether a model has an option should see them all.
    """
    found: dict[str, inspect.Parameter] = {}
    left_out = getattr(method, "no_use_for", ())  # of other classes than methods, too
    for parent in reversed(method.__mro__):
        if "__init__" in vars(parent):
            _, *options = inspect.signature(vars(parent)["__init__"]).parameters.values()
            kinds = {one.kind for one in options}
            if inspect.Parameter.VAR_KEYWORD not in kinds:
                found = {}  # what it does not name does not reach its parents
            for one in options:
                if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY):
                    found[one.name] = one.replace(kind=one.KEYWORD_ONLY)
    return inspect.Signature([one for name, one in found.items() if name not in left_out])
