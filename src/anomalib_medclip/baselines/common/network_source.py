"""Which network of timm's, with which weights, and how images enter it."""

import logging
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from anomalib_medclip.clip.backbone import fingerprint_of
from anomalib_medclip.clip.configuration import check_timm
from anomalib_medclip.clip.source import TIMM, Stated
from anomalib_medclip.clip.weights import read_weights
from anomalib_medclip.errors import WeightsError
from anomalib_medclip.readers.size_limit import check_parameters

logger = logging.getLogger(__name__)

_MOST = 10_000
"""Of a number that a network is made with, whoever has written it: none takes hours here."""


class LoadedNetwork(NamedTuple):
    """A network, and its fingerprint; see ``LoadedClip``."""

    network: nn.Module
    fingerprint: str


@dataclass(frozen=True)
class NetworkSource:
    """Which network, if any, and how images enter it.

    Attributes:
        model: ``timm:NAME``, or ``{timm: NAME, ...}`` with numbers that timm's function of that
            name takes, such as ``channels``; ``None`` where a baseline has a network of its own.
        pretrained: Local file of weights under timm's names, which of most residual networks are
            torchvision's; ``None`` for random ones. Nothing is downloaded.
        image_size: Side of the square input in pixels.
        normalize: Subtract the mean and divide by the deviation that timm says the weights were
            trained with, which are ImageNet's where nothing else is said.
        seed: Seed of random weights.
    """

    model: str | dict[str, Any] | None
    pretrained: str | None = None
    image_size: int = 224
    normalize: bool = True
    seed: int = 0

    @property
    def name(self) -> str:
        """The network's name, for messages."""
        return f"timm's {self._asked()[0]}" if self.model else "no frozen network"

    def __str__(self) -> str:
        """All that matters, for messages and for files that travel: of a path its last name."""
        told = [self.name]
        if self.model:
            file = self.pretrained and f"weights {Path(self.pretrained).name}"
            told.append(file or f"random seed {self.seed}")
        entry = "ImageNet's normalisation" if self.normalize else "no normalisation"
        return ", ".join([*told, f"{self.image_size} px", entry])

    @property
    def stated(self) -> Stated:
        """How images entered when the weights were trained."""
        said = timm.get_pretrained_cfg(self._asked()[0]) if self.model else None
        mean, std = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
        return Stated(*((said.mean, said.std) if said else (mean, std)))

    def fingerprint(self, **told: Any) -> str:  # noqa: ANN401 - plain data
        """Of images alone, and of what else is told; see ``LoadedClip``."""
        entry = {"image_size": self.image_size, "normalize": self.normalize}
        return fingerprint_of({**entry, "mean": self.stated.mean, "std": self.stated.std, **told})

    def load(self, told: Mapping[str, Any], **options: Any) -> LoadedNetwork:  # noqa: ANN401 - timm's
        """Build the network, and load its weights.

        Args:
            told: What else the fingerprint is of.
            **options: Of ``timm.create_model``, such as ``features_only``.

        Raises:
            WeightsError: timm has no such network or option, or the file cannot be read or does not
                fit.
        """
        planned = self.planned(**options)
        check_parameters(self.name, sum(one.numel() for one in planned.parameters()))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = self.build(**options)
        if self.pretrained is None:
            logger.info("%s has random weights (seed %d)", self.name, self.seed)
            return LoadedNetwork(
                network, self.fingerprint(**told, model=self.model, seed=self.seed)
            )
        return LoadedNetwork(network, self._fill(network, self.pretrained, told))

    def planned(self, **options: Any) -> nn.Module:  # noqa: ANN401 - timm's
        """The network without numbers; see ``load``."""
        try:
            with torch.device("meta"):
                return self.build(**options)
        except WeightsError:
            raise
        except (TypeError, RuntimeError, ValueError, LookupError, AssertionError) as error:
            msg = f"timm does not make {self.model}: {error}; correct backbone"
            raise WeightsError(msg) from error

    def build(self, **options: Any) -> nn.Module:  # noqa: ANN401 - timm's
        """The network with random weights; see ``load``."""
        name, numbers = self._asked()
        network: nn.Module = timm.create_model(name, pretrained=False, **options, **numbers)
        return network

    def _fill(self, network: nn.Module, file: str, told: Mapping[str, Any]) -> str:
        """Load weights from a file that may hold more, and give their fingerprint."""
        own = network.state_dict()
        names = {_told_apart(name): name for name in own}
        state = {
            names.get(_told_apart(n), n): value for n, value in read_weights(Path(file)).items()
        }
        counters = {name for name in own if name.endswith("num_batches_tracked")}
        kept = {name: value for name, value in state.items() if name in own}
        try:
            if missing := sorted(own.keys() - kept.keys() - counters):
                msg = f"it has no {missing[0]}"
                raise KeyError(msg)
            network.load_state_dict(kept, strict=False)
        except (RuntimeError, KeyError) as error:
            reason = textwrap.shorten(str(error), 300, placeholder=" ...")
            msg = f"weights file {file} does not fit {self.name}: {reason}"
            raise WeightsError(msg) from error
        learnt = {name: value for name, value in kept.items() if name not in counters}
        settings = self.fingerprint(**told)
        return fingerprint_of({"settings": settings}, learnt)

    def _asked(self) -> tuple[str, dict[str, Any]]:
        """Timm's name of the network, and the numbers it is made with.

        Raises:
            WeightsError: timm has no such network, or something is no number.
        """
        model = self.model
        if isinstance(model, str):
            name, numbers = model.removeprefix(TIMM), {}
        else:
            numbers = dict(model or {})
            name = str(numbers.pop("timm", None))
        check_timm(name)
        for option, value in numbers.items():
            if not _is_numeric(value):
                msg = f"backbone says {option} is {value!r}, and it must be a number, or a list of "
                msg += f"numbers, of at most {_MOST}; correct it"
                raise WeightsError(msg)
        return name, numbers


def _told_apart(name: str) -> str:
    """A weight's name as it is in a whole network and in one cut to its stages alike.

    timm calls a stage ``stages_0`` there that is ``stages.0`` in a file, or puts ``model`` before.
    """
    return name.removeprefix("model.").replace(".", "_")


def _is_numeric(value: object) -> bool:
    """Whether a value is a number that may be, or a list of such values."""
    if isinstance(value, list | tuple):
        return all(map(_is_numeric, value))
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MOST
