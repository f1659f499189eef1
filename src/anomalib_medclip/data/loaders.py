"""Loaders whose batches are of one set each."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from anomalib_medclip.data.batch import MedicalDataset
from anomalib_medclip.data.named import NamedDataModule
from anomalib_medclip.option_checks import SEEDS, checked


class OneSetBatchSampler(Sampler[list[int]]):
    """Batches of indices that never mix sets; a method has one prompt a batch.

    Args:
        sets: Name of the set of every item.
        batch_size: Images a batch, fewer in the last one of each set.
        shuffle: Shuffle within the sets, and the batches, by torch's global generator.
    """

    def __init__(self, sets: Sequence[str], batch_size: int, shuffle: bool) -> None:
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.indices = [
            torch.tensor([i for i, name in enumerate(sets) if name == one])
            for one in dict.fromkeys(sets)
        ]

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches of one epoch."""
        batches = [
            batch.tolist()
            for indices in self.indices
            for batch in torch.split(indices[self._order(len(indices))], self.batch_size)
        ]
        return iter([batches[i] for i in self._order(len(batches))])

    def __len__(self) -> int:
        """Return the number of batches."""
        return sum(-(-len(indices) // self.batch_size) for indices in self.indices)

    def _order(self, count: int) -> torch.Tensor:
        return torch.randperm(count) if self.shuffle else torch.arange(count)


def one_set_loader(
    data: MedicalDataset,
    size: int,
    shuffle: bool = False,
    num_workers: int = 0,
    collate_fn: Callable[..., Any] | None = None,
) -> DataLoader[Any]:
    """Batches of one set each, by a loader of keywords only: Lightning builds it again from them.

    Args:
        data: The images.
        size: Images a batch.
        shuffle: Whether to shuffle.
        num_workers: Processes that read, at most one a processor core; none for data in memory.
        collate_fn: How items become a batch, where not as the data say.
    """
    options: dict[str, Any] = {
        "num_workers": 0 if data.in_memory else min(num_workers, os.cpu_count() or 1),
        "collate_fn": collate_fn or data.collate_fn,
    }
    if size > 1 and data.samples["set_name"].nunique() > 1:
        batches = OneSetBatchSampler(data.set_names, size, shuffle)
        return DataLoader(dataset=data, batch_sampler=batches, **options)
    return DataLoader(dataset=data, batch_size=size, shuffle=shuffle, **options)


class OneSetLoaders(NamedDataModule):
    """A data module whose batches are of one set each.

    Args:
        train_batch_size: Images a training batch; 8 by default.
        eval_batch_size: Images a validation or test batch.
        num_workers: Processes that read images.
        seed: Of whatever is drawn.

    Raises:
        ConfigError: A number cannot be.
    """

    def __init__(
        self, train_batch_size: int | None, eval_batch_size: int, num_workers: int, seed: int
    ) -> None:
        size = 8 if train_batch_size is None else train_batch_size
        super().__init__(
            checked("train_batch_size", size, 1, whole=True),
            checked("eval_batch_size", eval_batch_size, 1, whole=True),
            checked("num_workers", num_workers, 0, whole=True),
            seed=checked("seed", seed, 0, SEEDS, whole=True),
        )

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled batches of training images."""
        return self._loader(self.train_data, self.train_batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Batches of validation images."""
        return self._loader(self.val_data, self.eval_batch_size)

    def test_dataloader(self) -> DataLoader[Any]:
        """Batches of test images."""
        return self._loader(self.test_data, self.eval_batch_size)

    def _loader(self, data: Any, size: int, shuffle: bool = False) -> DataLoader[Any]:  # noqa: ANN401
        return one_set_loader(data, size, shuffle, self.num_workers, self.external_collate_fn)
