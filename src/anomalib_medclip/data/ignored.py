"""Who would count pixels of which nobody knows."""

from collections.abc import Iterator, Sequence

from anomalib.metrics import Evaluator
from anomalib.post_processing import PostProcessor
from torch import nn

from anomalib_medclip.data.integrity import Problem
from anomalib_medclip.errors import MaskError

_INSTEAD: dict[type, str] = {
    Evaluator: "evaluator=anomalib_medclip.training.evaluators.evaluator()",
    PostProcessor: "post_processor=anomalib_medclip.components.processors."
    "RankPreservingPostProcessor()",
}
"""What leaves them out, in the place of a component of anomalib's."""


def counting_problems(callbacks: Sequence[object]) -> Iterator[Problem]:
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


def _counts_ignored(metric: nn.Module) -> bool:
    of_pixels = "gt_mask" in getattr(metric, "fields", ())
    return of_pixels and not getattr(metric, "leaves_out_ignored", False)
