"""Training with frozen blocks in bf16 learns what it learns in fp32, on a processor, too."""

import pytest
import torch
from test_contract import Encoded, Gradients, train
from tiny import METHODS


@pytest.mark.parametrize("method", METHODS)
def test_training_in_bf16_begins_as_in_fp32_and_learns(method, lesions, tmp_path):
    first = {}
    for precision in ("fp32", "bf16"):
        seen, encoded = Gradients(), Encoded()
        model, _, data, _ = train(
            method,
            lesions,
            tmp_path / precision,
            epochs=2,
            precision=precision,
            trainer={"callbacks": [seen, encoded]},
            data={"train_batch_size": 8},
        )
        first[precision] = torch.cat([g.flatten() for g in seen.gradients[0].values()])
    assert first["bf16"].dtype == torch.float32
    # Later steps start from other weights.
    assert 0 < (first["bf16"] - first["fp32"]).norm() < 0.02 * first["fp32"].norm()

    losses = torch.stack(seen.losses)
    before, after = losses.chunk(2)
    assert losses.isfinite().all()
    assert after.mean() < before.mean()

    assert torch.bfloat16 in {weight.dtype for weight in model.model.clip.parameters()}
    trained = set().union(*seen.gradients)
    assert trained
    assert not any(".clip." in name for name in trained)

    makes_new = method.makes_images
    anew = len(data.train_data) if makes_new else 0
    assert encoded.counts[1] == anew + len(data.val_data), "features are kept for later epochs"
