"""A single mistake in a method shows in its golden numbers: they hold what they should."""

from pathlib import Path

import pytest
import torch
from golden_cases.adaclip import AdaCLIPCase
from golden_cases.anomalyclip import AnomalyCLIPCase
from golden_cases.vcpclip import VCPCLIPCase
from golden_check import check
from torch import nn

from anomalib_medclip.clip.partial_attention import values_of
from anomalib_medclip.clip.towers import ImageTower, TextTower
from anomalib_medclip.clip.value_path import Streams
from anomalib_medclip.components.anomaly_map import align, to_map
from anomalib_medclip.components.deep_prompts import InsertedPrompts, OverwritingPrompts
from anomalib_medclip.components.image_prompts import ImagePrompts
from anomalib_medclip.models.adaclip import AdaCLIP, AdaCLIPModel
from anomalib_medclip.models.adaclip import torch_model as adaclip
from anomalib_medclip.models.adaclip.fusion import Fusion
from anomalib_medclip.models.adaclip.prompts import DynamicPrompts
from anomalib_medclip.models.anomalyclip import AnomalyCLIP, AnomalyCLIPModel
from anomalib_medclip.models.anomalyclip import torch_model as anomalyclip
from anomalib_medclip.models.vcpclip import torch_model as vcpclip
from anomalib_medclip.models.vcpclip.post_prompts import PostPrompts

SHIPPED = Path(__file__).parents[1] / "golden"
MISTAKES = []


def mistake(method):
    """What follows is a mistake in this method, made on a ``monkeypatch``."""

    def kept(make):
        MISTAKES.append(pytest.param(method, make, id=f"{method}-{make.__name__}"))
        return make

    return kept


def built_with(patch, case, **wrong):
    """The case's models have other options."""
    build = case.build
    patch.setattr(case, "build", lambda self, **more: build(self, **{**more, **wrong}))


def wrapped(patch, owner, name, wrapper):
    """A method of a class that is given to its replacement, before the arguments."""
    original = getattr(owner, name)
    patch.setattr(owner, name, lambda *args, **kwargs: wrapper(original, *args, **kwargs))


@mistake("anomalyclip")
def norm_before_the_images_feature(patch):
    wrapped(patch, ImageTower, "project", lambda project, tower, x, norm=True: project(tower, x))


@mistake("anomalyclip")
def logits_enlarged(patch):
    def maps(model, encoded, text):
        levels = model.clip.patches(encoded).unbind(dim=1)
        logits = [align(tokens, text, model.scale) for tokens in levels]
        return [to_map(one, model.clip.size, False).softmax(dim=1)[:, 1:] for one in logits]

    patch.setattr(AnomalyCLIPModel, "maps", maps)


@mistake("anomalyclip")
def corners_aligned(patch):
    patch.setattr(anomalyclip, "to_map", lambda patches, size, corners: to_map(patches, size))


@mistake("anomalyclip")
def bicubic_position_embedding(patch):
    patch.setattr(AnomalyCLIP, "position_resize", "bicubic, antialiased")


@mistake("anomalyclip")
def stream_that_feeds_itself(patch):
    def value_path(tower, images, levels, first):
        stream = values = tower.taps(images, [0])[:, 0]
        found = []
        for number, block in enumerate(tower.blocks, start=1):
            stream = block(stream)
            values = values + values_of(block, values) if number >= first else stream
            found += [values] if number in levels else []
        return Streams(torch.stack(found, dim=1), stream)

    patch.setattr(anomalyclip, "value_path", value_path)


@mistake("anomalyclip")
def second_stream_a_block_later(patch):
    wrapped(
        patch, AnomalyCLIPModel, "__init__",
        lambda init, *args: init(*args[:4], args[4] - 1, *args[5:]),
    )  # fmt: skip


@mistake("anomalyclip")
def exact_gelu(patch):
    def opened(init, case, folder):
        init(case, folder)
        case.config["quick_gelu"] = False

    wrapped(patch, AnomalyCLIPCase, "__init__", opened)


@mistake("anomalyclip")
def deep_prompts_a_block_later(patch):
    wrapped(
        patch, OverwritingPrompts, "forward",
        lambda forward, deep, block, stream: forward(deep, block - 1, stream),
    )  # fmt: skip


@mistake("anomalyclip")
def pixels_weigh_as_images(patch):
    built_with(patch, AnomalyCLIPCase, pixel_weight=1.0)


@mistake("vcpclip")
def scaled_attention(patch):
    def attend(attend, post, *args):
        post.scale = (post.query.out_features // post.heads) ** -0.5
        return attend(post, *args)

    wrapped(patch, PostPrompts, "attend", attend)


@mistake("vcpclip")
def no_norm_after_prompts(patch):
    def forward(forward, prompts, *args):
        norm = prompts.deep._modules["prompt_norm"]
        prompts.deep.__dict__["prompt_norm"] = lambda stream: stream + 0 * norm(stream)
        return forward(prompts, *args)

    wrapped(patch, ImagePrompts, "forward", forward)


@mistake("vcpclip")
def last_class_vector_read(patch):
    wrapped(
        patch, ImagePrompts, "forward",
        lambda forward, prompts, tower, templates, feature: forward(
            prompts, tower, templates[:, : prompts.start], feature
        ),
    )  # fmt: skip


@mistake("vcpclip")
def prompts_after_the_first_word(patch):
    def forward(forward, deep, stream, block):
        found = forward(deep, stream, block)
        count = deep.prompt_embeddings.shape[1]
        words = found[:, 1 + count :]
        return torch.cat([found[:, :1], words[:, :1], found[:, 1 : 1 + count], words[:, 1:]], dim=1)

    wrapped(patch, InsertedPrompts, "forward", forward)


@mistake("vcpclip")
def post_text_of_any_length(patch):
    patch.setattr(vcpclip, "align", lambda tokens, text, scale: scale * tokens @ text.mT)


@mistake("vcpclip")
def keys_of_any_length(patch):
    def forward(post, text, patches):
        found = post.attend(text.repeat(len(patches), 1, 1), patches.flatten(0, 1))
        return nn.functional.normalize(found, dim=-1).unflatten(0, (len(patches), -1))

    patch.setattr(PostPrompts, "forward", forward)


@mistake("vcpclip")
def dice_of_both_channels(patch):
    dice = vcpclip.dice
    patch.setattr(vcpclip, "dice", lambda p, mask: dice(p, mask) + dice(1 - p, 1 - mask))


@mistake("vcpclip")
def half_the_smoothing(patch):
    built_with(patch, VCPCLIPCase, sigma=4.0)


@mistake("adaclip")
def antialiased_position_embedding(patch):
    patch.setattr(AdaCLIP, "position_resize", "bicubic, antialiased")


@mistake("adaclip")
def edges_aligned(patch):
    def abnormal_map(logits, size):
        return to_map(logits[..., 1:] - logits[..., :1], size, corners=False).sigmoid()

    patch.setattr(adaclip, "abnormal_map", abnormal_map)


@mistake("adaclip")
def softmax_before_the_mean(patch):
    def score(score, model, encoded, text):
        logits = model.logits(model.features(encoded, text))
        maps = model.smooth(model.maps(logits).mean(dim=0)[:, 0])
        return score(model, encoded, text)._replace(anomaly_map=maps)

    wrapped(patch, AdaCLIPModel, "score", score)


@mistake("adaclip")
def mean_of_patches(patch):
    built_with(patch, AdaCLIPCase, fusion="mean")


@mistake("adaclip")
def prompts_dropped_after_their_blocks(patch):
    def resume(resume, tower, stream, levels, after):
        count = stream.shape[1]

        def dropped(point, stream):
            found = after(point, stream)
            return found if levels[point] < 4 else found[:, :count]

        return resume(tower, stream, levels, dropped)

    wrapped(patch, ImageTower, "resume", resume)


@mistake("adaclip")
def dynamic_prompts_of_a_unit_feature(patch):
    wrapped(
        patch, DynamicPrompts, "forward",
        lambda forward, prompts, feature: forward(
            prompts, nn.functional.normalize(feature, dim=-1)
        ),
    )  # fmt: skip


@mistake("adaclip")
def no_dynamic_prompts(patch):
    wrapped(
        patch, DynamicPrompts, "forward",
        lambda forward, prompts, feature: 0 * forward(prompts, feature),
    )  # fmt: skip


@mistake("adaclip")
def dice_of_images(patch):
    built_with(patch, AdaCLIPCase, dice="images")


@mistake("adaclip")
def text_that_sees_ahead(patch):
    sees_all = property(lambda tower: torch.zeros_like(tower.own.causal_mask))
    patch.setattr(TextTower, "causal_mask", sees_all)


@mistake("adaclip")
def centres_of_any_length(patch):
    wrapped(
        patch, Fusion, "centre",
        lambda centre, fusion, *args: 0.9 * centre(fusion, *args),
    )  # fmt: skip


@mistake("adaclip")
def no_weight_decay(patch):
    built_with(patch, AdaCLIPCase, weight_decay=0.0)


@pytest.mark.nightly(also="tests/test_golden.py::test_every_array_of_a_case_agrees")
@pytest.mark.parametrize(("method", "make"), MISTAKES)
def test_a_single_mistake_shows(method, make, monkeypatch):
    make(monkeypatch)
    rows = check(SHIPPED / method / "case0")
    assert [name for name, *_, passed in rows if not passed]
