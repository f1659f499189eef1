"""Small things that tests share: a random CLIP, pictures with lesions, every method."""

import inspect
import os
import warnings
from dataclasses import dataclass, field
from typing import Any

import daily
import torch
from torch import nn

import anomalib_medclip
from anomalib_medclip import baselines
from anomalib_medclip.testing import MethodCase
from anomalib_medclip.testing.small import BACKBONE, OPTIONS, SHALLOW, lesion_data, write_lesions

EVEN = BACKBONE | {"text_cfg": BACKBONE["text_cfg"] | {"width": 24, "layers": 3}}
"""The same with a deeper text tower, as wide as the space it shares with images."""


@dataclass(frozen=True)
class Training:
    """What a method needs to learn soon what ``write_lesions`` draws; its defaults are for more.

    ``others`` are values for options whose type does not say another that has an effect here;
    ``elsewhere`` says of options that change nothing in a model alone where they do.
    """

    epochs: int = 6
    batch: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    exempt: dict[str, str] = field(default_factory=dict)
    others: dict[str, Any] = field(default_factory=dict)
    elsewhere: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def of(method):
        return TRAINING.get(method.__name__, Training())


RESNET = {"timm": "resnet18", "channels": [8, 16, 24, 32]}
"""A narrow residual network of timm's, for baselines."""

VGG = {"timm": "vgg16", "blocks": [[8, 8], [12, 16], [16, 16, 24], [24, 24, 32], [32, 32, 40]]}
"""A narrow network of VGG's layout, for baselines."""

OF_RIVALS = {
    "runs_nothing_again_that_cannot_have_changed": "it has no blocks and no text of CLIP's",
    "holds_a_text_tower_only_if_images_need_it": "it reads no CLIP",
}
"""Promises about CLIP, of which baselines that are none keep nothing."""

WHOLE_NETWORK = "its network trains, and a checkpoint holds all of it, wherever it began"

OF_NORMS = {"learns_from_a_batch_as_from_its_halves": "a batch norm is of a batch"}

OF_GRAPHS = (
    "traces_to_the_same_numbers",
    "exports_to_onnx_what_it_is",
    "exports_to_openvino_what_it_is",
)
"""Promises about graphs."""

MASKS_ALONE = "it learns from masks alone, and refuses data without them"

TRAINING = {
    # Of clusters no graph is made; they have tests of their own. Maps are small, and so is sigma.
    "AdaCLIP": Training(
        epochs=3, batch=4, options={"fusion": "mean", "sigma": 1.0}, others={"clusters": 2}
    ),
    "AnomalyCLIP": Training(
        epochs=6, batch=4, options={"lr": 1e-1}, others={"deep_length": 0, "value_blocks": 1}
    ),
    "VCPCLIP": Training(
        epochs=3,
        batch=4,
        options={"lr": 3e-3},
        exempt={
            "learns_from_labels_alone": MASKS_ALONE,
            "restores_the_kind_of_model_it_is": MASKS_ALONE,
        },
    ),
    "APRILGAN": Training(
        batch=4,
        options={"lr": 1e-2},
        exempt={"restores_the_kind_of_model_it_is": "zero-shot it learns from masks, or refuses"},
        elsewhere={"mosaic": "among the training images, which tests/models/test_aprilgan.py has"},
    ),
    "IQECLIP": Training(epochs=3, batch=2, options={"lr": 3e-3, "blocks": 1}),
    "MadCLIP": Training(epochs=3, batch=4, options={"lr": 1e-2}),
    "MVFA": Training(epochs=3, batch=4, options={"lr": 3e-3}),
    "CutPaste": Training(
        epochs=10,
        batch=4,
        options={"backbone": RESNET, "image_size": 128, "draws": 2},
        exempt=OF_RIVALS
        | OF_NORMS
        | {
            "encodes_no_image_twice": "of each image others are made, which are encoded, too",
            "encodes_nothing_again_for_the_threshold": "likewise",
            "refuses_another_backbone": WHOLE_NETWORK,
        },
    ),
    # A step costs most of all here: its few go far, so that distances are no rounding.
    "PatchSVDD": Training(
        epochs=2,
        batch=4,
        options={"image_size": 64, "width": 16, "pairs": 1, "lr": 3e-2, "weight": 1e-2},
        exempt=OF_RIVALS
        | {"learns_from_a_batch_as_from_its_halves": "patches are drawn by chance"},
    ),
    # Features of a small random network lie far apart, and so does the noise.
    "SimpleNet": Training(
        epochs=30,
        batch=4,
        options={
            "backbone": RESNET,
            "layers": [1, 2],
            "layer_width": 48,
            "width": 48,
            "hidden": 40,
            "noise_std": 2.0,
            "sigma": 1.0,
            "lr": 5e-2,
        },
        exempt=OF_RIVALS | OF_NORMS,
    ),
    "MKD": Training(
        epochs=30,
        batch=4,
        options={"backbone": VGG, "stretch": False, "sigma": 1.0, "lr": 1e-2},
        exempt=OF_RIVALS
        | OF_NORMS
        | dict.fromkeys(OF_GRAPHS, "its maps are gradients at the image")
        | {"learns_the_same_with_and_without_a_cache": "norms of few pixels magnify float16"},
    ),
    "BGAD": Training(
        epochs=4,
        batch=4,
        options={
            "backbone": {"timm": "test_efficientnet"},
            "layers": [0, 1],
            "blocks": 2,
            "code": 16,
            "positions": 256,
            "sub_epochs": 1,
            "lr": 5e-3,
        },
        exempt=OF_RIVALS
        | {
            "learns_from_labels_alone": MASKS_ALONE,
            "restores_the_kind_of_model_it_is": MASKS_ALONE,
        },
    ),
    "DRA": Training(
        epochs=6,
        batch=12,
        options={
            "backbone": RESNET | {"output_stride": 8},
            "scales": 1,
            "draws": 120,
            "references": 2,
            "lr": 1e-3,
        },
        exempt=OF_RIVALS
        | OF_NORMS
        | {
            "encodes_no_image_twice": "references are encoded beside a batch",
            "encodes_nothing_again_for_the_threshold": "references are encoded beside a batch",
            "refuses_another_backbone": WHOLE_NETWORK,
        },
    ),
    "AnoDDPM": Training(
        epochs=2,
        batch=2,
        options={
            "base_channels": 32,
            "channel_multiples": [1, 1],
            "blocks": 1,
            "steps": 50,
            "distance": 4,
            "average_decay": 0.5,
            "draws": 20,
            "lr": 2e-3,
        },
        exempt=OF_RIVALS
        | {"learns_from_a_batch_as_from_its_halves": "noise is drawn anew for each"}
        | {name: "noise is drawn by what an image shows" for name in OF_GRAPHS},
    ),
    "RegAD": Training(
        epochs=1,
        options={"backbone": RESNET},
        exempt=OF_RIVALS | {"refuses_another_backbone": WHOLE_NETWORK},
    ),
    "SQUID": Training(
        epochs=40,
        batch=4,
        options={"image_size": 64, "features": 4, "slots": 8, "lr": 3e-3, "critic": 1},
        exempt=OF_RIVALS
        | OF_NORMS
        | {
            "leaves_an_owner_out_of_its_memory": "its map compares with nothing; its score does",
            "finishes_what_was_saved_in_the_middle": "norms know too little after one step",
            "learns_the_same_with_and_without_a_cache": "norms of few pixels magnify float16",
        },
    ),
    # It sees its few images once an epoch, not in a dozen copies.
    "MediCLIP": Training(epochs=20, batch=4, others={"tasks": {"Source": 1, "Identity": 1}}),
}

TEST_DATA = os.environ.get("ANOMALIB_MEDCLIP_TEST_DATA")
"""Folder of more golden cases and of real images; see golden/README.md."""


__all__ = [
    "BACKBONE", "CASES", "METHODS", "OPTIONS", "RIVALS", "SHALLOW", "case_of", "lesion_data",
    "small", "write_lesions",
]  # fmt: skip


def small(method, **options):
    """A small and offline model of a method, made for what ``write_lesions`` draws."""
    return method(**{**OPTIONS, **Training.of(method).options, **options})


def shallow(method):
    """The same with half the blocks, if it can be told which to read."""
    told = "levels" in inspect.signature(method).parameters
    return small(method, **(SHALLOW if told else {}))


METHODS = [anomalib_medclip.get_model(name) for name in anomalib_medclip.list_models()]


RIVALS = [
    getattr(baselines, name) for name in baselines.list_baselines() if name.lower() in daily.RIVALS
]
"""Baselines that are a folder."""


def case_of(method):
    """A method, with what it needs to keep its promises soon."""
    found = Training.of(method)
    return MethodCase(method, found.options, found.epochs, found.batch, found.exempt)


CASES = [case_of(method) for method in METHODS]
"""Every method, with what it needs to keep its promises soon."""


class OpenAIArchive(nn.Module):
    """CLIP's towers under OpenAI's names, in half precision, its three numbers as buffers."""

    def __init__(self, clip):
        super().__init__()
        self.visual, self.transformer = clip.visual, clip.transformer
        self.token_embedding, self.ln_final = clip.token_embedding, clip.ln_final
        self.positional_embedding = clip.positional_embedding
        self.text_projection, self.logit_scale = clip.text_projection, clip.logit_scale
        for name, value in (
            ("input_resolution", 32),
            ("context_length", 77),
            ("vocab_size", 49408),
        ):
            self.register_buffer(name, torch.tensor(value))

    def forward(self, image):
        return self.logit_scale * self.visual(image)


def traced(module, image, path):
    """Write a module as TorchScript, and return the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather export than trace
        torch.jit.trace(module, image, check_trace=False).save(path)
    return path
