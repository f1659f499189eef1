"""anomalib's Engine by anomalib's own command line, from fewer words.

A model is read from its checkpoint, a data config from its file, wherever they stand among the
options. anomalib's parser gets one config of both, and then the options, in their order.
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from anomalib.cli.cli import AnomalibCLI
from jsonargparse import ArgumentParser

from anomalib_medclip.data.config import read_config
from anomalib_medclip.errors import CheckpointError, ConfigError
from anomalib_medclip.files import MISSING, as_json, fault_of
from anomalib_medclip.models import get_model, list_models
from anomalib_medclip.score.method_class import method_class
from anomalib_medclip.terminal.screen import ours_in
from anomalib_medclip.training.checkpoints import notes_of, read_checkpoint, switched_off
from anomalib_medclip.training.user_components import whole_signature

_NO_VALUE = ("-h", "--help", "--print_config")
_CHECKPOINT, _DATA = ("--ckpt_path", "--ckpt"), ("--data",)


class Words(NamedTuple):
    """What a command line says.

    Attributes:
        places: Files and folders, in their order.
        options: All others, each with its value.
    """

    places: Sequence[str]
    options: Sequence[str]

    @classmethod
    def of(cls, arguments: Sequence[str]) -> "Words":
        """Tell files and folders from options, which have one value each.

        Example:
            >>> Words.of(["--data.k_shot", "2", "my.yaml", "--trainer.max_epochs=3"])
            Words(places=['my.yaml'], options=['--data.k_shot', '2', '--trainer.max_epochs=3'])
        """
        places, options = [], []
        words = iter(arguments)
        for word in words:
            if not word.startswith("-"):
                places.append(word)
                continue
            options.append(word)
            if "=" not in word and word not in _NO_VALUE:
                options += [value for value in [next(words, None)] if value is not None]
        return cls(places, options)

    def take(self, *names: str) -> tuple[str | None, "Words"]:
        """The value of an option by any of its names, and the other words.

        Example:
            >>> Words([], ["--model", "MVFA", "--seed", "1"]).take("--model")
            ('MVFA', Words(places=[], options=['--seed', '1']))
        """
        found, rest = None, []
        options = iter(self.options)
        for word in options:
            name, is_joined, value = word.partition("=")
            if name in names:
                found = value if is_joined else next(options, "")
            else:
                rest.append(word)
        return found, self._replace(options=rest)

    def take_places(self, usage: str) -> tuple[str, str | None, "Words"]:
        """The checkpoint and, if they were given, the data; and the options.

        Args:
            usage: How the command is used, for messages.

        Raises:
            ConfigError: There is no checkpoint, or there is more than is needed.
        """
        checkpoint, words = self.take(*_CHECKPOINT)
        data, words = words.take(*_DATA)
        checkpoints = [one for one in self.places if is_checkpoint(one)]
        others = [one for one in self.places if not is_checkpoint(one)]
        checkpoints += [checkpoint] if checkpoint else []
        others += [data] if data else []
        if len(checkpoints) != 1 or len(others) > 1:
            named = " and ".join([*checkpoints, *others]) or "nothing"
            msg = f"{named} was given; give one checkpoint, a file that ends in .ckpt: {usage}"
            raise ConfigError(msg)
        return checkpoints[0], next(iter(others), None), words._replace(places=[])


class RaisingCLI(AnomalibCLI):
    """anomalib's command line, whose parser raises and does not end the process."""

    @staticmethod
    def init_parser(**kwargs: Any) -> ArgumentParser:  # noqa: ANN401 - as anomalib's
        """Make a parser."""
        return AnomalibCLI.init_parser(exit_on_error=False, **kwargs)


def run_engine(verb: str, config: Mapping[str, Any] | str, options: Sequence[str]) -> None:
    """Have anomalib's Engine do something.

    Args:
        verb: One of anomalib's commands.
        config: What it is to be done with, or a file that says so.
        options: As anomalib's command takes them.

    Raises:
        ConfigError: An option does not exist, or cannot be what was given.
    """
    given = config if isinstance(config, str) else as_json(config, default=str)
    try:
        cli = RaisingCLI([verb, "--config", given, *options], run=False)
    except argparse.ArgumentError as error:
        raise ours_in(error) or ConfigError(_fault_of(error, verb)) from error
    cli._run_subcommand()


def model_of(checkpoint: str) -> dict[str, Any]:
    """Class and options of the model in a checkpoint.

    Raises:
        CheckpointError: It is no checkpoint of this package.
    """
    path = Path(checkpoint)
    if fault := fault_of(path):
        said = f"there is no checkpoint {path}" if fault is MISSING else f"{path} {fault.said}"
        msg = f"{said}; give the model.ckpt that a training has left in weights/lightning"
        raise CheckpointError(msg)
    state = read_checkpoint(path)
    found = method_class(path, notes_of(path, state))
    options = {**state.get("hyper_parameters", {}), **switched_off(state)}
    # Files that it began from it holds itself.
    wanted = [*{*whole_signature(found).parameters} - {*getattr(found, "begins_from", ())}]
    known = {name: options[name] for name in sorted(wanted) if name in options}
    return {"class_path": _path(found), "init_args": known}


def model_named(name: str) -> str:
    """The class of a method by its short name; any other word as it is.

    Example:
        >>> model_named("mvfa"), model_named("anomalib.models.Patchcore")
        ('anomalib_medclip.models.mvfa.lightning_model.MVFA', 'anomalib.models.Patchcore')
    """
    return _path(get_model(name)) if name.lower() in list_models() else name


def data_of(config: str) -> dict[str, Any]:
    """Class and options of the data that a config describes, below ``data`` or not.

    Raises:
        DataRootError: There is no such file, or it describes no data.
    """
    options = read_config(config)
    found: dict[str, Any] = options.get("data", options)
    return found


def is_checkpoint(place: str) -> bool:
    """Whether a place is named as a checkpoint is."""
    return Path(place).suffix == ".ckpt"


def is_config(place: str) -> bool:
    """Whether a place is named as a config is."""
    return Path(place).suffix in (".yaml", ".yml", ".json")


def _path(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _fault_of(error: Exception, verb: str) -> str:
    """What is wrong, in one line of jsonargparse's many."""
    said = " ".join(str(error).split())
    found = re.search(r"Unrecognized arguments: (.+)|Option '(\S+)' is not accepted", said)
    if found and (name := found[1] or found[2]):
        return (
            f"there is no option {name}; `anomalib {verb} --help` lists them, and --model.help "
            "CLASS and --data.help CLASS those of a class"
        )
    said = re.sub(r"Parser key \"([\w.]+)\":", r"--\1:", said, count=1)
    return f"{said}; `anomalib {verb} --help` says what it takes"
