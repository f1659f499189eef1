"""Callbacks that watch a training for those who ask what happened in it."""

from collections import Counter
from typing import Any

import torch
from lightning.pytorch import Callback
from torch import Tensor

from anomalib_medclip.clip.towers import TextTower
from anomalib_medclip.testing.promises.promise import learnt


class StopAt(Callback):
    """Ends training after a step, as early stopping and a time limit do."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:  # noqa: ANN401 - Lightning's
        """Ask the trainer to stop."""
        trainer.should_stop = trainer.global_step >= self.step


class Epochs(Callback):
    """Remembers all that was learnt by the end of each epoch."""

    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401 - Lightning's
        """Keep a copy."""
        del trainer
        self.states.append(learnt(pl_module))


class Encoded(Callback):
    """Counts the images that enter the frozen tower in each epoch, validation included."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401 - Lightning's
        """Stand at the tower's door."""
        del trainer
        embed = pl_module.model.clip._embed

        def counted(images: Tensor) -> Any:  # noqa: ANN401 - as the tower's
            self.counts[-1] += len(images)
            return embed(images)

        pl_module.model.clip._embed = counted

    def on_train_epoch_start(self, *_: Any) -> None:  # noqa: ANN401 - Lightning's
        """Begin to count anew."""
        self.counts.append(0)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401 - Lightning's
        """Leave the tower as it was."""
        del trainer, pl_module.model.clip._embed


class Work(Callback):
    """Counts in each epoch, validation included, how often frozen blocks run and texts are read."""

    def __init__(self) -> None:
        self.epochs: list[Counter[Any]] = []
        self.now: Counter[Any] = Counter()

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401 - Lightning's
        """Watch every block, and the text tower."""
        del trainer
        features = TextTower.features

        def counted(*args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401 - as the tower's
            self.now["text"] += 1
            return features(*args, **kwargs)

        self._features = features
        TextTower.features = counted  # type: ignore[method-assign]
        for number, block in enumerate(pl_module.model.clip.blocks, 1):
            block.register_forward_hook(lambda *_, number=number: self.now.update([number]))

    def on_train_epoch_start(self, *_: Any) -> None:  # noqa: ANN401 - Lightning's
        """Begin to count anew."""
        self.now = Counter()
        self.epochs.append(self.now)

    def on_fit_end(self, *_: Any) -> None:  # noqa: ANN401 - Lightning's
        """Leave the text tower as it was."""
        self.now = Counter()
        TextTower.features = self._features  # type: ignore[method-assign]

    def on_exception(self, *_: Any) -> None:  # noqa: ANN401 - Lightning's
        """Do so, too, where a training breaks off."""
        self.on_fit_end()


class Steps(Callback):
    """Remembers loss and gradients of every step, and the scores of validation."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []
        self.gradients: list[dict[str, Tensor]] = []
        self.scores: list[Tensor] = []

    def on_validation_batch_end(self, _trainer: Any, _module: Any, outputs: Any, *_: Any) -> None:  # noqa: ANN401
        """Keep the scores of a batch."""
        self.scores.append(outputs.pred_score.clone())

    def on_train_batch_end(self, _trainer: Any, _module: Any, outputs: Any, *_: Any) -> None:  # noqa: ANN401
        """Keep the loss of a step, if the batch taught anything."""
        if outputs:
            self.losses.append(outputs["loss"].detach())

    def on_before_optimizer_step(self, _trainer: Any, module: Any, _optimizer: Any) -> None:  # noqa: ANN401
        """Keep the gradients of a step."""
        found = {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}
        self.gradients.append(found)

    def first_gradient(self) -> Tensor:
        """All gradients of the first step, as one vector."""
        return torch.cat([one.flatten() for one in self.gradients[0].values()])


class Fits(Callback):
    """Remembers after how many steps the support was handed to the model."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.last = 0

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401 - Lightning's
        """Stand between the two."""
        fit = pl_module.model.fit_support

        def noted(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as the model's
            self.steps.append(trainer.global_step)
            fit(*args, **kwargs)

        pl_module.model.fit_support = noted

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401 - Lightning's
        """Leave the model as it was."""
        self.last = trainer.global_step
        del pl_module.model.fit_support


class Halves(Callback):
    """Computes the gradient of the first batch, and the mean of those of its halves."""

    whole: Tensor
    of_halves: Tensor

    def on_train_batch_start(self, _trainer: Any, module: Any, batch: Any, _index: int) -> None:  # noqa: ANN401
        """Compute both, before anything is learnt."""
        encoded, masks, labels = module.examples(batch)
        trained = [one for one in module.parameters() if one.requires_grad]

        def gradient(part: slice) -> Tensor:
            text = module.text.of_batch(batch, training=True)
            outlined = None if masks is None else masks[part]
            loss = module.model.loss(encoded[part], outlined, labels[part], text)
            found = torch.autograd.grad(loss, trained, allow_unused=True)
            return torch.cat([one.flatten() for one in found if one is not None])

        half = len(labels) // 2
        self.whole = gradient(slice(None))
        self.of_halves = (gradient(slice(half)) + gradient(slice(half, 2 * half))) / 2
