"""Where a model is while it is exported: on the processor, its files in a folder aside."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from anomalib_medclip.export.description import Exportable
from anomalib_medclip.files import told_if_full
from anomalib_medclip.signals import tidy_stop


@contextmanager
def folder_aside(root: Path) -> Iterator[Path]:
    """A folder below another for a while, for what appears there once it is right."""
    root.mkdir(parents=True, exist_ok=True)
    again = "stopped; nothing was written, and the same command begins again"
    with tidy_stop(again), told_if_full(root), TemporaryDirectory(dir=root, prefix=".") as aside:
        yield Path(aside)


@contextmanager
def on_processor(method: Exportable) -> Iterator[None]:
    """A model where graphs are made and files are compared, wherever it was and will be."""
    device = method.device
    method.cpu()
    try:
        yield
    finally:
        method.to(device)
