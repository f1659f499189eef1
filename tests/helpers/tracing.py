"""One trace of each model, which takes seconds, for all its exports to ONNX and to OpenVINO."""

import shutil
from contextlib import contextmanager
from unittest.mock import patch

import torch

from anomalib_medclip.provenance import sha256_of_tensors

Plain = bool | int | float | str | tuple | list | None


def content(model, images, options):
    """All that a graph follows from: two models of the same content are traced to the same file."""
    tensors = {name: value for name, value in model.state_dict().items() if torch.is_tensor(value)}
    plain = {name: value for name, value in vars(model.model).items() if isinstance(value, Plain)}
    told = (
        dict(model.hparams), plain, options, images.shape, model.training, torch.is_grad_enabled()
    )  # fmt: skip
    return repr((model, told)), sha256_of_tensors(tensors)


@contextmanager
def traced_once(folder):
    """Keeps traced files in a folder, and copies that of a model that was traced before.

    All that this package does before and after is done each time.
    """
    trace, made = torch.onnx.export, {}

    def export(model, args, f, **options):
        if not hasattr(model, "hparams"):  # a part of one
            return trace(model, args, f, **options)
        kept = content(model, *args, options)
        if kept not in made:
            (home := folder / str(len(made))).mkdir()
            trace(model=model, args=args, f=str(home / "model.onnx"), **options)
            made[kept] = home
        for file in made[kept].iterdir():
            shutil.copy(file, f.removesuffix("model.onnx") + file.name)
        return None

    with patch.object(torch.onnx, "export", export):
        yield
