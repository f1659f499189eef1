import shutil

import pytest
import torch

from anomalib_medclip.provenance import sha256_of_tensors


def content(model, images, options):
    """All that a graph follows from: two models of the same content are traced to the same file."""
    tensors = {name: value for name, value in model.state_dict().items() if torch.is_tensor(value)}
    told = (dict(model.hparams), options, images.shape, model.training, torch.is_grad_enabled())
    return repr((model, told)), sha256_of_tensors(tensors)


@pytest.fixture(scope="session", autouse=True)
def traced_once(tmp_path_factory):
    """Copies the ONNX file of a model that was traced before, as on the way to OpenVINO.

    Tracing takes seconds. All that this package does before and after is done each time.
    """
    trace, made = torch.onnx.export, {}

    def export(model, args, f, **options):
        kept = content(model, *args, options)
        if kept not in made:
            made[kept] = tmp_path_factory.mktemp("traced") / "model.onnx"
            trace(model=model, args=args, f=str(made[kept]), **options)
        for file in made[kept].parent.iterdir():
            shutil.copy(file, f.removesuffix("model.onnx") + file.name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", export)
        yield made
