"""Several processes do together what one does: the same steps, figures and files.

They go through the very batches of one process. In training each takes its part of a batch, and
gradients are the mean over processes; a batch that cannot be divided is done whole by all. In
evaluation each takes whole batches in turn, so that no image is counted twice; where there are
fewer batches than processes, all do all of them, and no rate or rank is another for it.
"""

import logging
import os
from abc import abstractmethod
from collections.abc import Iterator
from copy import copy
from functools import partial
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, TypeVar

import torch
from anomalib.engine import engine
from lightning import LightningModule, Trainer
from lightning.fabric.utilities.rank_zero import _get_rank
from lightning.pytorch import Callback
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, Sampler
from torchmetrics import Metric

from anomalib_medclip.errors import ConfigError
from anomalib_medclip.terminal.callers import is_within
from anomalib_medclip.training.run_folder import is_untested, new_run_folder, root_of

logger = logging.getLogger(__name__)

OfBatch = TypeVar("OfBatch")

_VERBS = ("test", "predict")
"""What needs no training, and leaves results."""


class Processes(Callback):
    """Lets ``strategy="ddp"`` change nothing but the time that it takes.

    It comes before any callback that looks for a folder or computes a figure. With one process it
    changes nothing.

    Raises:
        ConfigError: There are several processes by another strategy than DDP; or to train, by a
            fork of this one or with nothing that learns.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Share out folder, batches and gradients, before there are loaders and a DDP module."""
        del stage
        if trainer.world_size > 1:
            _refuse(trainer, pl_module)
        if isinstance(trainer.strategy, DDPStrategy):
            whole: Any = trainer  # of which types know the public part
            strategy = whole.strategy
            whole._default_root_dir = strategy.broadcast(whole.default_root_dir)
            whole._accelerator_connector.use_distributed_sampler = False  # it repeats images
            strategy.process_dataloader = partial(_shared, trainer)
            # A loss need not reach all that could learn: Adam then leaves the rest alone.
            strategy._ddp_kwargs.setdefault("find_unused_parameters", True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute in all processes what the progress bar of the first one has asked for."""
        del pl_module
        _ = trainer.callback_metrics

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let all compute what one has images for, and none what none has: pixels need masks."""
        let_all_compute(trainer, pl_module.device, pl_module)

    on_test_epoch_end = on_validation_epoch_end


def let_all_compute(trainer: Trainer, device: torch.device, holder: nn.Module) -> None:
    """Let all processes compute what one of them has images for, and none what none has.

    Args:
        trainer: Of all.
        device: Where processes exchange numbers.
        holder: Of the metrics.
    """
    metrics = [one for one in holder.modules() if isinstance(one, Metric)]
    counts = torch.tensor([one.update_count for one in metrics], device=device)
    totals: Any = trainer.strategy.reduce(counts, reduce_op="sum")
    for metric, total in zip(metrics, totals.tolist(), strict=True):
        metric._update_count = total
        # One without a figure is asked again by the progress bar, which one process has.
        metric._to_sync = metric.sync_on_compute and total > 0


def _refuse(trainer: Trainer, module: LightningModule) -> None:
    """Refuse what several processes cannot do."""
    name, strategy = type(module).__name__, trainer.strategy
    if type(strategy) is not DDPStrategy:  # DeepSpeed's is one, too
        msg = f"{name} was never tried with {type(strategy).__name__}; pass --trainer.strategy ddp"
        raise ConfigError(msg)
    if trainer.state.fn != "fit":
        return
    if strategy._start_method != "popen":
        msg = f"processes that are begun by {strategy._start_method} give back weights, and not "
        msg += "what goes with them; pass --trainer.strategy ddp, or in a notebook train in one "
        msg += "process (--trainer.devices 1)"
        raise ConfigError(msg)
    if not any(parameter.requires_grad for parameter in module.parameters()):
        msg = f"nothing in {name} learns, so that processes have nothing to share; train it in "
        msg += "one (--trainer.devices 1), and test it in as many as you like"
        raise ConfigError(msg)


class _Share(Sampler[list[int]]):
    """What one process takes of the batches of all.

    Args:
        batches: Those, the same in every process.
        rank: Number of this process.
        world: How many there are.
    """

    def __init__(self, batches: Any, rank: int, world: int) -> None:  # noqa: ANN401 - of any kind
        self._batches, self._rank, self._world = batches, rank, world

    @abstractmethod
    def __iter__(self) -> Iterator[list[int]]: ...

    @abstractmethod
    def __len__(self) -> int: ...


class PartOfEach(_Share):
    """A part of each batch, and all of a batch that cannot be divided."""

    def __iter__(self) -> Iterator[list[int]]:
        """Yield as many batches as there are; parts of one batch have one length."""
        # No function that yields: the order is drawn when one process would draw it.
        return (self._part_of(batch) for batch in self._batches)

    def _part_of(self, batch: list[int]) -> list[int]:
        return batch if len(batch) % self._world else batch[self._rank :: self._world]

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._batches)


class EachInTurn(_Share):
    """Whole batches, one of as many as there are processes."""

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches of this process."""
        return islice(iter(self._batches), self._rank, None, self._world)

    def __len__(self) -> int:
        """Return their number."""
        return len(range(self._rank, len(self._batches), self._world))


def _shared(trainer: Trainer, loader: Any) -> Any:  # noqa: ANN401 - whatever gives batches
    """What this process takes of a loader; all of it, where it cannot be shared."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return loader
    batches: Any = loader.batch_sampler
    if batches is None or is_shared(loader):
        return loader
    world = trainer.world_size
    if trainer.training:
        _warn_of_idle(getattr(batches, "batch_size", None), world)
        share: _Share = PartOfEach(batches, trainer.global_rank, world)
    elif len(batches) >= world:
        share = EachInTurn(batches, trainer.global_rank, world)
    else:
        return loader
    shared = copy(loader)
    vars(shared)["batch_sampler"] = share  # torch lets nobody set it, in fear for the other options
    return shared


@rank_zero_only
def _warn_of_idle(size: int | None, world: int) -> None:
    if size and size % world:
        logger.warning(
            "a training batch of %d cannot be divided among %d processes: each does all of it, "
            "which gives the same weights and saves no time; with another "
            "--data.train_batch_size it is another training",
            size,
            world,
        )


def is_shared(loader: object) -> bool:
    """Whether this process has batches of its own, dealt out here or by whoever made the loader."""
    batches = getattr(loader, "batch_sampler", None)
    samplers = batches, getattr(batches, "sampler", None), getattr(loader, "sampler", None)
    return any(isinstance(one, EachInTurn | DistributedSampler) for one in samplers)


def of_all(own: list[OfBatch], loader: object) -> list[OfBatch]:
    """What all processes have found of the batches of a loader, in the order of one process.

    Every process has to call it.

    Args:
        own: What this one has found, in the order of its batches.
        loader: Where they came from.
    """
    if not is_shared(loader):
        return own
    found: list[list[OfBatch]] = [[]] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, own)
    turns = zip_longest(*found)  # those of the last turn have no batch, if any lacks one
    return [batch for turn in turns for batch in turn if batch is not None]


def _new_folder(root_dir: str | Path, verb: str = "") -> Path:
    """Make the folder of a run in the first process alone.

    Each would make one of its own, at the same moment, which fails where they meet, and ``latest``
    would lead to any of them. The other processes are told of the folder once they are connected.
    A rank alone says nothing: schedulers number independent runs, too.
    """
    root = Path(root_dir).resolve()
    rank = _get_rank() if int(os.environ.get("WORLD_SIZE", "1")) > 1 else 0
    return root / f"rank{rank}" if rank else new_run_folder(root, verb)


vars(engine)["create_versioned_dir"] = _new_folder


def own_folder(trainer: Trainer) -> None:
    """Give what anomalib's engine tests or predicts without a training a folder of its own.

    The engine takes ``latest``, in which a training has left its results, or makes a folder of that
    name. Here ``test/v0``, ``test/v1`` and so on stand beside ``v0``, with a ``latest`` of theirs.
    """
    verb = trainer.state.fn and trainer.state.fn.value
    if verb not in _VERBS or not is_within(getattr(engine.Engine, verb)):
        return
    folder = Path(trainer.default_root_dir)
    if is_untested(folder):
        return
    whole: Any = trainer  # of which types know the public part
    whole._default_root_dir = _new_folder(root_of(folder), verb)
