"""A model does not decide about images that are unlike those it was made with."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from anomalib.engine import Engine
from PIL import Image
from tiny import METHODS, lesion_data, small, write_lesions
from torch import Tensor
from torchvision.tv_tensors import Image as Picture

from anomalib_medclip.cli import main
from anomalib_medclip.components.familiar import MOST, FamiliarImages, cell_vectors, seen_images
from anomalib_medclip.files import read_json
from anomalib_medclip.readers.picture import read_image
from anomalib_medclip.score.inferencer import Inferencer
from anomalib_medclip.training.checkpoints import read_checkpoint


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Pictures of thirty patients."""
    return write_lesions(tmp_path_factory.mktemp("many"), count=60).parent


@pytest.fixture(scope="module", params=METHODS, ids=lambda method: method.__name__)
def trained(request, pictures, tmp_path_factory):
    """A model that was validated on half of the patients, its data, and its checkpoint."""
    home = tmp_path_factory.mktemp(request.param.__name__)
    data = lesion_data(pictures, k_shot=2, val_ratio=0.5, train_batch_size=4)
    model = small(request.param)
    engine = Engine(
        default_root_dir=home, accelerator="cpu", max_epochs=1, enable_progress_bar=False
    )
    engine.fit(model, datamodule=data)
    return model, data, next(home.rglob("*.ckpt"))


def strange(seed=0):
    """Noise in colour."""
    return Picture(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(seed)))


def verdict(inferencer, images):
    found = inferencer.answer(inferencer.resize(images).as_subclass(Tensor))
    return inferencer.decide(found.scores, found.areas, found.vectors, is_volume=False)


@pytest.mark.daily_for(trained="MVFA")
def test_noise_is_abstained_and_most_test_images_are_not(trained):
    _, data, checkpoint = trained
    inferencer = Inferencer(checkpoint)
    paths = data.test_data.samples["image_path"].tolist()
    usual = [inferencer.predict(path) for path in paths]
    abstained = [one.verdict.unlike.abstains for one in usual]
    assert np.mean(abstained) <= 0.2
    for one in usual:
        assert (one.label is None) is one.verdict.unlike.abstains
    for seed in range(3):
        found = verdict(inferencer, strange(seed))
        assert found.unlike.abstains
        assert found.label is None
        assert "abstained" in found.no_label


@pytest.mark.daily_for(trained="MVFA")
def test_the_frozen_tower_is_run_once_and_scores_are_as_ever(trained):
    model, data, checkpoint = trained
    inferencer = Inferencer(checkpoint)
    paths = data.test_data.samples["image_path"].tolist()[:4]
    images = torch.stack([inferencer.resize(read_image(path)) for path in paths])
    images = images.as_subclass(Tensor)
    plain, (found, vectors) = inferencer.run(images), inferencer._run_with_vectors(images)
    for name in ("pred_score", "anomaly_map", "pred_label"):
        assert torch.equal(getattr(plain, name), getattr(found, name))
    tower = model.model.clip
    expected = model.model.middle_patches(model.model.encode(images))
    if type(model).__name__ != "AnomalyCLIP":  # whose tokens come by a way of their own
        level = max(model.model.levels[0], tower.depth // 2)
        assert torch.equal(expected, tower.patches(tower.taps(images, [level])[:, 0]))
    assert torch.allclose(vectors, cell_vectors(expected), atol=1e-6)


@pytest.mark.daily_for(trained="MVFA")
def test_a_checkpoint_holds_vectors_and_no_names(trained):
    model, data, checkpoint = trained
    noted = read_checkpoint(checkpoint)["anomalib_medclip"]["familiar"]
    seen = pd.concat([data.val_data.samples, data.support_data.samples])
    assert len(noted["vectors"]) == min(MOST, len(seen))
    assert len(noted["owners"].unique()) == seen["group"].nunique()
    assert torch.equal(noted["vectors"], model.familiar.vectors)
    assert str(Path(seen["image_path"].iloc[0]).parent).encode() not in checkpoint.read_bytes()


@pytest.mark.daily_for(trained="MVFA")
def test_score_says_why_there_is_no_verdict(trained, tmp_path):
    checkpoint = trained[-1]
    noise = (strange()[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    (tmp_path / "in").mkdir()
    Image.fromarray(noise).save(tmp_path / "in" / "noise.png")
    out = tmp_path / "out"
    assert main(["score", str(tmp_path / "in"), "--ckpt", str(checkpoint), "--out", str(out)]) == 0
    found = read_json(out / "noise" / "scores.json")
    unlike = found["verdict"]["unlike"]
    assert unlike["abstains"] is True
    assert unlike["distance"] > unlike["limit"]
    assert "images that the model was made with would be taken for unlike" in unlike["words"]
    assert found["label"] is None
    assert "abstained" in (out / "scores.csv").read_text()


def without_images(checkpoint, home):
    state = read_checkpoint(checkpoint)
    state["anomalib_medclip"]["familiar"] = None  # as in files of former versions
    torch.save(state, home / "former.ckpt")
    return home / "former.ckpt"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda checkpoint, _: checkpoint, "nobody can say what is unlike 3 patients; 8 can tell"),
        (without_images, "made by a version, model or training that keeps none"),
    ],
    ids=["few patients", "former"],
)
def test_where_strange_images_cannot_be_told_it_is_said(change, words, finished, tmp_path, caplog):
    caplog.set_level("INFO")
    model = Inferencer(change(finished, tmp_path))
    assert caplog.text.count(f"cannot tell strange images: {words}") == 1
    found = verdict(model, strange())
    assert (found.unlike, found.no_unlike, found.label is None) == (None, words, False)
    assert found.as_plain()["no_unlike"] == words
    assert model.no_unlike == words


@pytest.mark.daily_for(trained="MVFA")
def test_who_gives_no_features_is_told_so(trained):
    model = Inferencer(trained[-1])
    found = model.answer(model.resize(strange()).as_subclass(Tensor))
    decided = model.decide(found.scores, found.areas, is_volume=False)
    assert decided.no_unlike == "no features of the images were given to compare"
    assert (model.no_unlike, verdict(model, strange()).no_unlike) == ("", "")


def test_the_images_that_are_kept_do_not_depend_on_their_order():
    batch = SimpleNamespace(
        image_path=[f"{number}.png" for number in range(300)],
        group=[f"p{number // 3}" for number in range(300)],
    )
    seen = seen_images(batch, torch.rand(300, 8))
    kept, again = FamiliarImages.of(seen), FamiliarImages.of([*reversed(seen), *seen])
    assert len(kept.vectors) == MOST
    assert torch.equal(kept.vectors, again.vectors)
    assert torch.equal(kept.owners, again.owners)
    assert FamiliarImages.of([]).vectors.numel() == 0
