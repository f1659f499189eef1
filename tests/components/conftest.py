"""A random CLIP small enough to build in milliseconds, and what several files need of it."""

import copy

import pytest
import torch
from tiny import BACKBONE

from anomalib_medclip.components.clip import Backbone
from anomalib_medclip.components.towers import ImageTower, TextTower


@pytest.fixture
def tiny_config():
    """Keyword arguments of a small ``open_clip.CLIP``, a fresh copy for every test."""
    return copy.deepcopy(BACKBONE)


@pytest.fixture(scope="session")
def tiny():
    return Backbone(copy.deepcopy(BACKBONE), image_size=32)


@pytest.fixture(scope="session")
def tiny_clip(tiny):
    """The whole CLIP as open_clip has it, in evaluation mode."""
    return tiny.load().clip.eval()


@pytest.fixture(scope="session")
def tiny_image_tower(tiny):
    return ImageTower(tiny)


@pytest.fixture(scope="session")
def tiny_text_tower(tiny):
    return TextTower(tiny)


@pytest.fixture
def images():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))
