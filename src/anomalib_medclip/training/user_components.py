"""Processors, evaluator and visualizer that a user has passed, and how a checkpoint keeps them.

A checkpoint holds no objects, but the name of a class and its options. anomalib keeps the options
of its own classes and forgets which class it was.
"""

import inspect
import logging
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from anomalib.pre_processing.utils.spec import spec_to_transform, transform_to_spec
from lightning.pytorch import Callback
from torch import nn
from torchvision.transforms.v2 import Transform

from anomalib_medclip.errors import CheckpointError, ConfigError

logger = logging.getLogger(__name__)

SCORING = ("pre_processor", "post_processor")
"""Those that scores depend on."""

MEASURING = ("evaluator", "visualizer")
"""Those that only look at scores."""

_ALWAYS_IMPORTED = ("anomalib", "anomalib_medclip")
_PLAIN = (str, int, float, bool, type(None))


class UserComponents:
    """The components that a user has passed to a model, as they were then.

    Args:
        options: The model's: ``True``, ``False`` or an object under each component's name.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._kept: dict[str, Any] = {}
        self._lost: dict[str, str] = {}
        for name in (*SCORING, *MEASURING):
            component = options.get(name, True)
            if not isinstance(component, bool):
                try:
                    self._kept[name] = _spec(component)
                except ValueError as error:
                    words = f"the {name} {_path(component)} cannot be rebuilt from plain options"
                    self._lost[name] = f"{words}: {error}"

    def kept(self) -> dict[str, Any]:
        """What a checkpoint holds of them.

        Raises:
            ConfigError: A processor cannot be rebuilt from its class and plain options.
        """
        for name in SCORING:
            if name in self._lost:
                msg = (
                    f"{self._lost[name]}, and no checkpoint could hold it; keep each option under "
                )
                msg += "its name in the object, and use transforms that anomalib can save"
                raise ConfigError(msg)
        return self._kept

    def check(self) -> None:
        """Say before a training what its checkpoints will not hold.

        Raises:
            ConfigError: A processor cannot be rebuilt from its class and plain options.
        """
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
        for name, spec in kept.items():
            present = getattr(model, name)
            if name in self._kept | self._lost:
                if self._kept.get(name) != spec:
                    words = "the checkpoint was made with the %s %s; %s is taken, which was passed"
                    logger.warning(words, name, spec["class_path"], _path(present))
            else:
                _replace(model, name, present, _rebuilt(name, spec))


def _replace(model: Any, name: str, present: Any, component: Any) -> None:  # noqa: ANN401
    """Put a component into a model and, if that is being run, among the trainer's callbacks."""
    trainer = model._trainer
    if trainer is not None and present in trainer.callbacks:
        if name == "pre_processor":
            msg = (
                f"the checkpoint was made with the pre_processor {_path(component)}, and the data "
            )
            msg += "are set up for the usual one; pass it to the model, too"
            raise CheckpointError(msg)
        trainer.callbacks[trainer.callbacks.index(present)] = component
        component.setup(trainer, model, trainer.state.stage)
    setattr(model, name, component)


def _spec(component: Any) -> dict[str, Any]:  # noqa: ANN401 - a component, or a part of one
    """Class and options of an object.

    Raises:
        ValueError: An object that is made of them is another one.
    """
    kind = type(component)
    options = {
        name: _plain(getattr(component, name))
        for name in whole_signature(kind).parameters
        if hasattr(component, name)
    }
    if _found(_path(component)) is not kind:
        msg = f"{_path(component)} is not found by this name"
        raise ValueError(msg)
    spec = {"class_path": _path(component), "init_args": options}
    if _told(_made(kind, options)) != _told(component):
        msg = f"{kind.__name__}({', '.join(f'{n}={v!r}' for n, v in options.items())}) is another"
        raise ValueError(msg)
    return spec


def _plain(value: Any) -> Any:  # noqa: ANN401 - of any kind
    if isinstance(value, Transform):
        return {"transform": transform_to_spec(value)}
    if isinstance(value, nn.ModuleList):
        return {"parts": [_spec(one) for one in value]}
    if isinstance(value, list | tuple):
        return type(value)(_plain(one) for one in value)
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, _PLAIN):
        return value
    msg = f"{value!r} is no plain value"
    raise ValueError(msg)


def _made(kind: type, options: Mapping[str, Any]) -> Any:  # noqa: ANN401 - an object of it
    given = {}
    for name, value in options.items():
        match value:
            case {"transform": spec}:
                given[name] = spec_to_transform(spec)
            case {"parts": parts}:
                given[name] = [_rebuilt(name, one) for one in parts]
            case _:
                given[name] = value
    return kind(**given)


def _told(component: Any) -> dict[str, Any]:  # noqa: ANN401 - an object
    """Everything plain that an object knows, lists for tuples; what it has learnt is not."""
    own = vars(component).keys() - vars(nn.Module()).keys()
    known = {name: vars(component)[name] for name in own}
    known = {name: _listed(value) for name, value in known.items() if _is_plain(value)}
    if isinstance(component, nn.Module):
        for name, part in component.named_children():
            known[name] = _listed(_plain(part)) if _is_plain(part) else repr(part)
    return known


def _listed(value: Any) -> Any:  # noqa: ANN401 - plain values
    if isinstance(value, dict):
        return {name: _listed(one) for name, one in value.items()}
    return [_listed(one) for one in value] if isinstance(value, list | tuple) else value


def _is_plain(value: Any) -> bool:  # noqa: ANN401 - of any kind
    try:
        _plain(value)
    except ValueError:
        return False
    return True


def _rebuilt(name: str, spec: Mapping[str, Any]) -> Any:  # noqa: ANN401 - an object
    """An object of a class that is imported already; a file does not say what to import.

    Raises:
        CheckpointError: There is no such class, or it takes other options.
    """
    if spec["class_path"].partition(".")[0] in _ALWAYS_IMPORTED:
        import_module(spec["class_path"].rpartition(".")[0])
    found = _found(spec["class_path"])
    if found is None:
        msg = f"the checkpoint was made with the {name} {spec['class_path']}, which is not known "
        msg += f"here; import its module first, or pass a {name} of your own"
        raise CheckpointError(msg)
    try:
        return _made(found, spec["init_args"])
    except (TypeError, ValueError) as error:
        msg = f"the {name} {spec['class_path']} of the checkpoint takes other options here: "
        raise CheckpointError(msg + f"{error}; pass a {name} of your own") from error


def _found(path: str) -> Any:  # noqa: ANN401 - a class, or none
    """A class of a module that is imported already; ``None`` if that has none of this name."""
    module, _, kind = path.rpartition(".")
    found = getattr(sys.modules.get(module), kind, None)
    return found if isinstance(found, type) and issubclass(found, nn.Module | Callback) else None


def _path(component: Any) -> str:  # noqa: ANN401 - an object
    kind = type(component)
    return f"{kind.__module__}.{kind.__qualname__}"


def whole_signature(method: type) -> inspect.Signature:
    """All options of a class by name: those of its parents come first, its own after them.

    A method's constructor says its own options and passes the others on by ``**kwargs``; an editor,
    ``help`` and whoever asks whether a model has an option should see them all.
    """
    found: dict[str, inspect.Parameter] = {}
    for parent in reversed(method.__mro__):
        if "__init__" in vars(parent):
            _, *options = inspect.signature(vars(parent)["__init__"]).parameters.values()
            kinds = {one.kind for one in options}
            if inspect.Parameter.VAR_KEYWORD not in kinds:
                found = {}  # what it does not name does not reach its parents
            for one in options:
                if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY):
                    found[one.name] = one.replace(kind=one.KEYWORD_ONLY)
    return inspect.Signature(list(found.values()))
