"""Fixtures that several test files use: small trees of images, written to a temporary folder."""

import copy
import gc
import os
import shutil
import sys
from collections import defaultdict
from pathlib import Path

# One thread each: the workers share the processor, and small models gain nothing from more.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# OpenVINO would tell its maker of every conversion, by a process forked from this large one.
sys.modules["openvino_telemetry"] = None

import numpy as np
import pytest
from daily import title, waits
from hypothesis import settings
from PIL import Image

# The same examples on every machine, however slow.
settings.register_profile("house", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("house")


collect_ignore = ["public_names.py"]  # mypy reads it, and it is wrong on purpose

LONG = (
    "test_pages_in_a_copy.py", "test_devices.py", "test_foreign_method.py",
    "test_contract_exports.py", "test_export.py", "test_house.py", "test_bench.py",
    "test_cross_fit.py", "test_contract.py", "test_shared_features.py", "test_runners.py",
    "test_slice.py", "test_cli.py", "test_golden.py", "test_bare_bench.py", "test_run_cell.py",
    "export.md", "test_bulk.py", "test_named_files.py", "test_winclip.py", "test_compare.py",
)  # fmt: skip
"""Files that take longest, the first the most."""

DAYS = pytest.StashKey()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Share out among workers, what takes longest first, so that they end together."""
    days = config.stash[DAYS] = defaultdict(set)
    for item in items:
        given = item.callspec.params if hasattr(item, "callspec") else {}
        if given and item.get_closest_marker("nightly") is None:
            chosen = item.get_closest_marker("daily_for")
            wanted = chosen.kwargs if chosen else {}
            daily = {name: title(given[name]) for name in wanted} == wanted
            daily = daily and not any(map(waits, given.values()))
            daily = daily or item.get_closest_marker("daily") is not None
            days[item.nodeid.partition("[")[0]].add(daily)
            if not daily:
                item.add_marker("nightly")
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(group_of(item)))
        if config.getoption("loadgroup", False) and hasattr(item, "_id"):
            # xdist 3.8 writes the group of a test to where pytest 9.2 no longer looks for it.
            group = item.get_closest_marker("xdist_group").args[0]
            item._id = type(item._id).parse(f"{item.nodeid}@{group}")
    items.sort(key=lambda item: (item.get_closest_marker("slow") is None, rank(item)))


def pytest_collection_finish():
    """Let no collection look through what imports have made; it stays to the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def daily_cases(pytestconfig):
    """Of each test that has cases, whether they run daily."""
    return pytestconfig.stash[DAYS]


def group_of(item):
    """Tests that one worker runs: those that share a training, comparison, server or file."""
    if item.path.name == "test_house.py":
        return "forks"  # with the checks of a copy: one cache of types, and no two writers
    fixtures = getattr(item, "fixturenames", ())
    if "compared" in fixtures:
        return "compared"
    module = getattr(item, "module", None)  # an example in a document has none
    server = getattr(getattr(module, "fresh_process", None), "__name__", "") == "fresh_process"
    if server or "alone" in fixtures:
        return "forks"  # of one server, which takes seconds to import everything
    given = item.callspec.params.values() if hasattr(item, "callspec") else ()
    methods = [one for one in given if hasattr(one, "training_step") or hasattr(one, "exempt")]
    home = item.path.relative_to(item.config.rootpath).as_posix()
    return title(methods[0]) if methods else home


def rank(item):
    """The place of its file among those that take long."""
    return LONG.index(item.path.name) if item.path.name in LONG else len(LONG)


NAMES = {
    "Retina_OCT2017": "CNV-{patient}-{slice}",
    "Chest": "Normal-{patient}{slice}",
    "Histopathology": "{patient}{slice}",
}
MASKED = ("Brain", "Liver", "Retina_RESC")


def save_picture(path: Path, seed: int = 0, size: tuple[int, int] = (20, 24)) -> Path:
    """Write a grey picture of noise, ``size`` being height and width."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 200, size, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def save_mask(path: Path, size: tuple[int, int] = (20, 24)) -> Path:
    """Write a mask with one lesion of 5 x 6 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(size, dtype=np.uint8)
    mask[5:10, 6:12] = 255
    Image.fromarray(mask).save(path)
    return path


@pytest.fixture
def picture():
    """Writes a grey picture: ``picture(path, seed=0, size=(20, 24))``."""
    return save_picture


@pytest.fixture
def mask():
    """Writes a mask: ``mask(path, size=(20, 24))``."""
    return save_mask


def save_bmad(
    category,
    root,
    *,
    after="_AD",
    image_dir="img",
    mask_dir="anomaly_mask",
    ending=".png",
    valid="valid",
    ungood="Ungood",
    count=8,
    splits=("train", "valid", "test"),
    first_test_patient=50,
):
    """Write one set of BMAD in any of the published layouts, and return the root.

    Every split has ``count`` normal and as many abnormal images, two of each patient; normal and
    abnormal images share file names, as Brain's do. Patients of the test split are others.
    """
    for split in splits:
        first = first_test_patient if split == "test" else 0
        for word in ("good",) if split == "train" else ("good", ungood):
            home = root / f"{category}{after}" / (valid if split == "valid" else split) / word
            for i in range(count):
                pattern = NAMES.get(category, "{patient}_{slice}")
                name = pattern.format(patient=first + i // 2, slice=i % 2)
                seed = i + 100 * (word != "good") + 1000 * len(split)
                save_picture(home / image_dir / f"{name}{ending}", seed)
                if word != "good" and category in MASKED:
                    save_mask(home / mask_dir / f"{name}{ending}")
    return root


@pytest.fixture(scope="session")
def bmad_tree():
    """Writes a set of BMAD to any folder: ``bmad_tree(category, root, **layout)``."""
    return save_bmad


@pytest.fixture
def write_bmad(tmp_path):
    """Writes a set of BMAD below the test's folder: ``write_bmad(category, **layout)``."""

    def write(category="Brain", *, root=tmp_path / "BMAD", **layout):
        return save_bmad(category, root, **layout)

    return write


@pytest.fixture(scope="session")
def lesions(tmp_path_factory):
    """A folder of pictures with lesions, and their table."""
    from tiny import write_lesions

    return write_lesions(tmp_path_factory.mktemp("lesions")).parent


@pytest.fixture(scope="session")
def finished(lesions, tmp_path_factory):
    """The checkpoint of a finished run of MVFA, whose support images are gone."""
    from anomalib.engine import Engine
    from tiny import OPTIONS, lesion_data

    from anomalib_medclip.models.mvfa import MVFA

    home = tmp_path_factory.mktemp("finished")
    shutil.copytree(lesions, home / "lesions")
    engine = Engine(
        default_root_dir=home, accelerator="cpu", max_epochs=2, enable_progress_bar=False
    )
    engine.fit(MVFA(**OPTIONS), datamodule=lesion_data(home / "lesions"))
    shutil.rmtree(home / "lesions")
    return engine.trainer.checkpoint_callback.best_model_path


@pytest.fixture
def tiny_config():
    """Keyword arguments of a small ``open_clip.CLIP``, a fresh copy for every test."""
    from tiny import BACKBONE

    return copy.deepcopy(BACKBONE)


@pytest.fixture(scope="session")
def tiny():
    """A random CLIP small enough to build in milliseconds."""
    from tiny import BACKBONE

    from anomalib_medclip.clip.backbone import Backbone

    return Backbone(copy.deepcopy(BACKBONE), image_size=32)


@pytest.fixture(scope="session")
def tiny_clip(tiny):
    """The whole CLIP as open_clip has it, in evaluation mode."""
    return tiny.load().clip.eval()


@pytest.fixture(scope="session")
def tiny_image_tower(tiny):
    from anomalib_medclip.clip.towers import ImageTower

    return ImageTower(tiny)


@pytest.fixture(scope="session")
def tiny_text_tower(tiny):
    from anomalib_medclip.clip.towers import TextTower

    return TextTower(tiny)


@pytest.fixture
def images():
    """Two random images at the size of the small CLIP."""
    import torch

    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="session", autouse=True)
def nothing_anew(tmp_path_factory):
    """Keeps what takes libraries seconds and is the same again; see both helpers."""
    from quick_libraries import remembered
    from tracing import traced_once

    with remembered(), traced_once(tmp_path_factory.mktemp("traced")):
        yield
