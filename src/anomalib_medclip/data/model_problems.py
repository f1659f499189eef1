"""What a model at hand, or a component of it, could not do with some data."""

from collections.abc import Iterator, Sequence
from typing import Any

from anomalib.metrics import Evaluator
from anomalib.post_processing import PostProcessor
from torch import nn

from anomalib_medclip.data.drawing import undrawable_problems
from anomalib_medclip.data.integrity import Problem, unlearnable_problems
from anomalib_medclip.data.model_needs import needs_of
from anomalib_medclip.errors import MaskError

_INSTEAD: dict[type, str] = {
    Evaluator: "evaluator=anomalib_medclip.training.evaluators.evaluator()",
    PostProcessor: "post_processor=anomalib_medclip.components.processors."
    "RankPreservingPostProcessor()",
}
"""What leaves them out, in the place of a component of anomalib's."""


def model_problems(data: Any, trainer: Any, stage: str | None) -> Iterator[Problem]:  # noqa: ANN401
    """What a trainer's model cannot draw, would count, or could not learn.

    Args:
        data: A ``MedicalDataModule`` that is set up.
        trainer: Lightning's.
        stage: What it is about to do.
    """
    tested = data.test_data.samples
    yield from undrawable_problems(tested, data.name, data.category, trainer.callbacks)
    if data.has_ignored:
        yield from _counting_problems(trainer.callbacks)
        if stage == "fit":
            yield from _learning_problems(trainer.lightning_module)
    if stage == "fit" and data.only_normals and needs_of(trainer).wants_abnormal:
        yield from unlearnable_problems(type(trainer.lightning_module).__name__, data.where)


def _counting_problems(callbacks: Sequence[object]) -> Iterator[Problem]:
    """Metrics of pixels among these callbacks that would count ignored ones, too."""
    for callback in callbacks:
        instead = next((one for kind, one in _INSTEAD.items() if isinstance(callback, kind)), "")
        metrics = callback.modules() if isinstance(callback, nn.Module) and instead else ()
        counting = [type(one).__name__ for one in metrics if _counts_ignored(one)]
        if counting:
            said = f"has a {counting[0]} of pixels, which would count those that ignore_labels says"
            remedy = f"give the model {instead}, or use anomalib-medclip compare"
            yield Problem(
                "ignored pixels counted",
                type(callback).__name__,
                f"{said} are not known",
                remedy,
                error=MaskError,
            )


def _learning_problems(model: Any) -> Iterator[Problem]:  # noqa: ANN401 - anyone's
    """A model that learns from masks, and knows nothing of ignored pixels."""
    step = getattr(type(model).training_step, "__code__", None)
    learns_from_masks = step is not None and "gt_mask" in step.co_names
    if learns_from_masks and not getattr(model, "leaves_out_ignored", False):
        said = "learns from masks, and would take for healthy what ignore_labels says is not known"
        remedy = "use another model; one that leaves it out says so by leaves_out_ignored = True"
        name = type(model).__name__
        yield Problem("ignored pixels learnt", name, said, remedy, error=MaskError)


def _counts_ignored(metric: nn.Module) -> bool:
    of_pixels = "gt_mask" in getattr(metric, "fields", ())
    return of_pixels and not getattr(metric, "leaves_out_ignored", False)
