"""What is measured: one setting for each row."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

from anomalib_medclip.errors import ConfigError

What = Literal["score", "first-epoch", "later-epoch", "bank"]
"""Scoring images, learning from them for the first time and again, or the search in the memory bank
alone."""

RUNTIMES = {
    "eager": None,
    "compile": None,
    "onnx": "fp32",
    "openvino": "fp32",
    "openvino-bf16": "bf16",
    "openvino-int8": "int8",
}
"""Runtimes, and the precision of those that have only one."""

SMALL = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 4, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 1},
}
"""Keyword arguments of a tiny ``open_clip.CLIP``, to try the command out; its figures mean
nothing."""


@dataclass(frozen=True)
class Setting:
    """What a row is measured of.

    Attributes:
        what: See ``What``.
        method: Name of the method's folder, such as ``"mvfa"``.
        runtime: One of ``RUNTIMES``.
        precision: ``"fp32"``, ``"bf16"`` or ``"int8"``.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
        backbone: open_clip name, or keyword arguments of ``open_clip.CLIP``; ``None`` for the
            method's own.
        pretrained: open_clip tag or weights file; ``None`` for random weights.
        image_size: Side of the images in pixels; ``None`` for the method's own.
        batch_size: Images scored or learnt from at once.
        k_shot: Normal images in the memory bank; 0 for zero-shot. For training, K of an epoch.
        threads: Threads of the processor; ``None`` for as many as torch takes.
        rounds: How often subject and reference take turns.
        at_least: Seconds that each turn lasts; short calls are repeated.
        profile: Say also where the time goes.
        images: Data config, on whose test images scores and maps are compared with those in fp32.
    """

    what: What = "score"
    method: str = "mvfa"
    runtime: str = "eager"
    precision: str = "fp32"
    device: str = "cpu"
    backbone: str | dict[str, Any] | None = None
    pretrained: str | None = None
    image_size: int | None = None
    batch_size: int = 8
    k_shot: int = 0
    threads: int | None = None
    rounds: int = 3
    at_least: float = 0.2
    profile: bool = False
    images: str | None = None

    def __str__(self) -> str:
        """In words, for messages."""
        shot = f"K {self.k_shot}" if self.k_shot else "zero-shot"
        return (
            f"{self.what} {self.method}, {shot}, {self.runtime}, {self.precision}, batch "
            f"{self.batch_size}"
        )


def plan_settings(
    base: Setting,
    whats: Sequence[What],
    methods: Sequence[str],
    runtimes: Sequence[str],
    k_shots: Sequence[int],
    batch_sizes: Sequence[int],
    has_bank: Callable[[str], bool],
    learns: Callable[[str], bool] = bool,
) -> list[Setting]:
    """All settings to measure, in order; none twice.

    K is of no matter to the score of a method without a memory bank, which is measured at 0.
    Training and the search are measured in eager torch, whatever the runtimes, and the search in
    fp32, which is all there is of it. What trains nothing has no epochs.

    Args:
        base: What all have in common.
        whats: What to measure.
        methods: Names of method folders.
        runtimes: Some of ``RUNTIMES``.
        k_shots: Numbers of normal support images.
        batch_sizes: Images at once.
        has_bank: Whether a method has a memory bank; asked only where it matters.
        learns: Whether it trains anything; likewise.

    Raises:
        ConfigError: A runtime has no such precision or device, does not take threads, or there is
            no memory bank to search.
    """
    for runtime in runtimes:
        _check(base, runtime)
    found: dict[str, Setting] = {}
    for what in whats:
        trained = methods if not what.endswith("epoch") else filter(learns, methods)
        for method in trained:
            for one in _of(what, replace(base, method=method), runtimes, k_shots, has_bank):
                for batch_size in batch_sizes:
                    setting = replace(one, batch_size=batch_size)
                    found[str(setting)] = setting
    if "bank" in whats and not any(one.what == "bank" for one in found.values()):
        msg = "no memory bank to search: name a method that has one and give --k-shot above 0"
        raise ConfigError(msg)
    return list(found.values())


def _of(
    what: What,
    base: Setting,
    runtimes: Sequence[str],
    k_shots: Sequence[int],
    has_bank: Callable[[str], bool],
) -> Iterator[Setting]:
    """The settings of one method and kind of measurement, at any batch size."""
    if what.endswith("epoch"):
        for k_shot in k_shots:
            yield replace(base, what=what, runtime="eager", k_shot=k_shot, images=None)
        return
    few_shot = any(k_shots) and has_bank(base.method)
    if what == "bank":
        alone = replace(base, what=what, runtime="eager", precision="fp32", images=None)
        for k_shot in filter(None, k_shots if few_shot else ()):
            yield replace(alone, k_shot=k_shot, profile=False)
        return
    for runtime, k_shot in product(runtimes, k_shots if few_shot else (0,)):
        precision = RUNTIMES[runtime] or base.precision
        yield replace(base, what=what, runtime=runtime, precision=precision, k_shot=k_shot)


def _check(base: Setting, runtime: str) -> None:
    if base.profile and runtime != "eager":
        msg = f"--profile looks into eager torch only; leave it out, or {runtime}"
        raise ConfigError(msg)
    if not RUNTIMES[runtime]:
        return
    if runtime.startswith("openvino") and base.device != "cpu":
        msg = f"{runtime} is measured on the processor; leave --device out, or take onnx"
        raise ConfigError(msg)
    if base.precision != "fp32":
        msg = f"--precision {base.precision} is for eager and compile; {runtime} has its own: name "
        msg += "the runtime that has the precision you want, such as openvino-bf16"
        raise ConfigError(msg)
    if base.threads:
        msg = f"{runtime} chooses its threads itself; leave --threads out, and limit the process "
        msg += "by taskset"
        raise ConfigError(msg)
