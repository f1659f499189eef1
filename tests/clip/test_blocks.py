"""CLIP's blocks run by ourselves: open_clip's numbers, and bf16 where asked."""

import pytest
import torch
from tiny import METHODS, small

import anomalib_medclip
from anomalib_medclip.clip.blocks import Block, SelfAttention
from anomalib_medclip.clip.towers import ImageTower, TextTower
from anomalib_medclip.errors import ParityError


def native(clip, stream, mask=None):
    """The stream after open_clip's own blocks, whatever layout this version has."""
    turned = not getattr(clip, "batch_first", False)
    stream = stream.transpose(0, 1) if turned else stream
    for block in clip.resblocks:
        stream = block(stream, attn_mask=mask)
    return stream.transpose(0, 1) if turned else stream


@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 3])
def test_blocks_give_open_clips_numbers(tiny, tiny_image_tower, batch):
    stream = torch.randn(batch, 17, 32, generator=torch.Generator().manual_seed(batch))
    found = stream
    for block in tiny_image_tower.visual.transformer.resblocks:
        found = block(found)
    expected = native(tiny.load().clip.visual.transformer, stream)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


@torch.no_grad()
def test_a_mask_hides_what_comes_later(tiny, tiny_text_tower):
    stream = torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(0))
    mask = tiny_text_tower.causal_mask[:9, :9]
    expected = native(tiny.load().clip.transformer, stream, mask)
    torch.testing.assert_close(tiny_text_tower.run(stream), expected, rtol=0, atol=2e-6)


@torch.no_grad()
def test_products_in_bf16_and_a_stream_in_float32(tiny, tiny_image_tower, images):
    tower = ImageTower(tiny, "bf16")
    found, exact = tower.taps(images, [1, 4]), tiny_image_tower.taps(images, [1, 4])
    assert found.dtype == torch.float32
    error = (found - exact).norm() / exact.norm()
    assert 0 < error < 0.01
    kept = {n: p.dtype for n, p in tower.named_parameters() if "resblocks" in n}
    low = {name for name, dtype in kept.items() if dtype == torch.bfloat16}
    assert low == {name for name in kept if ".ln_" not in name}


def test_both_precisions_are_of_one_clip(tiny, tiny_image_tower):
    assert ImageTower(tiny, "bf16").fingerprint == tiny_image_tower.fingerprint


def test_weights_are_shared_and_no_chance_is_used(tiny):
    clip = tiny.load().clip
    first = clip.visual.transformer.resblocks[0]
    before = torch.get_rng_state()
    block = Block(first)
    assert torch.equal(torch.get_rng_state(), before)
    assert block.attn.in_proj.weight is first.attn.in_proj_weight
    assert block.mlp.c_fc.weight is first.mlp.c_fc.weight


def test_gradients_flow_through(tiny):
    attention = tiny.load().clip.visual.transformer.resblocks[0].attn
    stream = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(1))
    ours, theirs = (stream.clone().requires_grad_() for _ in range(2))
    SelfAttention(attention)(ours).square().sum().backward()
    plain = torch.nn.MultiheadAttention(32, attention.num_heads, batch_first=True)
    plain.load_state_dict(attention.state_dict())
    plain(theirs, theirs, theirs, need_weights=False)[0].square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@torch.no_grad()
def test_any_version_of_open_clip_says_the_same(tiny, tiny_image_tower, images):
    visual = tiny.load().clip.visual.eval()
    pooled = tiny_image_tower.pool(tiny_image_tower.taps(images, [4])[:, 0])
    torch.testing.assert_close(pooled, visual(images))


@pytest.mark.daily_for(method="MVFA")
@pytest.mark.parametrize("method", [method for method in METHODS if method.learns])
def test_every_method_takes_bf16_and_stays_near(method, images):
    scored = {}
    for precision in ("fp32", "bf16"):
        model = small(method, precision=precision).eval().model
        model.few_shot = False
        tower = model.text_tower or TextTower(model.clip.backbone)
        model.text = model.prompts(tower, "liver").detach()
        with torch.inference_mode():
            scored[precision] = model(images).anomaly_map
    assert scored["bf16"].dtype == torch.float32
    assert 0 < (scored["bf16"] - scored["fp32"]).abs().max() < 0.05


def test_a_model_in_bf16_is_not_traced(tmp_path):
    model = small(anomalib_medclip.MediCLIP, precision="bf16")
    model.exporter.probes = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    with pytest.raises(ParityError, match="load the model with precision fp32"):
        model.to_onnx(tmp_path)
    assert not list(tmp_path.rglob("*.onnx"))
