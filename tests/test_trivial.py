"""What has seen no lesion: the mean of an image and its size, with a sign from the support."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from anomalib.data import InferenceBatch
from anomalib.engine import Engine
from conftest import save_picture
from PIL import Image
from sklearn.metrics import roc_auc_score
from tiny import lesion_data
from torchvision.tv_tensors import Image as Tensors
from torchvision.tv_tensors import Mask

from anomalib_medclip.baselines.trivial import ImageSize, MeanIntensity, SizeAsBrightness
from anomalib_medclip.compare.evaluator import GalleryFindings
from anomalib_medclip.data import MedicalFolder


def write(root, brightness, size):
    """Ten normal and ten abnormal pictures without patients, of these means and sizes."""
    for label, word in enumerate(("normal", "abnormal")):
        for number in range(10):
            picture = save_picture(root / word / f"{number}.png", number, size(label, number))
            pixels = np.asarray(Image.open(picture)) // 4 + brightness(label, number)
            Image.fromarray(pixels.astype(np.uint8)).save(picture)
    return MedicalFolder(root=root, k_shot=2, val_ratio=0.0, num_workers=0)


def fitted(model, data, home):
    model.evaluator, model.visualizer = GalleryFindings(), None
    engine = Engine(
        default_root_dir=home, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    engine.fit(model, datamodule=data)
    assert engine.trainer.current_epoch == 1
    engine.test(model, datamodule=data, verbose=False)
    return model


def truth(data, of_picture):
    """Labels of the test images, and a number of each as the file has it."""
    table = data.test_data.samples
    return list(table["label_index"]), [of_picture(Image.open(p)) for p in table["image_path"]]


@pytest.mark.parametrize("darker", [False, True])
def test_mean_intensity_is_the_mean_with_the_sign_of_the_support(darker, tmp_path):
    def brightness(label, number):
        return 60 + 3 * number + (-8 if darker else 8) * label

    data = write(tmp_path / "pictures", brightness, lambda *_: (40, 40))
    model = fitted(MeanIntensity(image_size=40), data, tmp_path)
    labels, means = truth(data, lambda picture: np.asarray(picture).mean())
    support = data.support_data.samples
    by_label = [
        np.mean([np.asarray(Image.open(path)).mean() for path in rows["image_path"]])
        for _, rows in support.groupby("label_index")
    ]
    sign = 1 if by_label[1] >= by_label[0] else -1
    assert float(model.model.sign) == sign
    expected = roc_auc_score(labels, sign * np.array(means))
    assert 0 < expected < 1
    assert model.evaluator.result.figures["image_AUROC"] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("smaller", [False, True])
def test_image_size_is_the_number_of_pixels(smaller, tmp_path):
    def size(label, number):
        larger = 4 * (label != smaller)
        return 30 + 2 * number + larger, 40 + number

    data = write(tmp_path / "pictures", lambda *_: 60, size)
    model = fitted(ImageSize(), data, tmp_path)
    labels, pixels = truth(data, lambda picture: picture.width * picture.height)
    sign = float(model.model.sign)
    expected = roc_auc_score(labels, sign * np.array(pixels))
    assert 0 < expected < 1
    assert model.evaluator.result.figures["image_AUROC"] == pytest.approx(expected, abs=1e-9)


def test_images_of_one_size_tell_nothing(tmp_path):
    data = write(tmp_path / "pictures", lambda *_: 60, lambda *_: (40, 48))
    model = fitted(ImageSize(), data, tmp_path)
    assert model.evaluator.result.figures["image_AUROC"] == 0.5


def test_the_sign_comes_from_the_support_alone(tmp_path):
    """Abnormal images of the support are darker, those for test brighter: so the score is wrong."""
    rows = ["image,label,split"]
    for split in ("support", "test"):
        for number in range(8):
            label = number % 2
            level = 100 + (20 if split == "test" else -20) * label
            name = f"{split}{number}.png"
            save_picture(tmp_path / name, number, (32, 32))
            Image.fromarray(np.full((32, 32), level + number // 2, np.uint8)).save(tmp_path / name)
            rows.append(f"{name},{label},{split}")
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    data = MedicalFolder(table=tmp_path / "table.csv", split_column="split", num_workers=0)
    model = fitted(MeanIntensity(), data, tmp_path)
    assert float(model.model.sign) == -1
    assert model.evaluator.result.figures["image_AUROC"] == 0.0


def test_a_second_fit_forgets_the_sign_of_the_first(lesions, tmp_path):
    model = MeanIntensity(image_size=32)
    model.model.sign.fill_(-1)
    fitted(model, lesion_data(lesions), tmp_path)
    assert float(model.model.sign) == 1


def test_a_map_of_mean_intensity_is_the_image():
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = MeanIntensity().model(images)
    assert torch.equal(found.anomaly_map, images.mean(dim=1))
    torch.testing.assert_close(found.pred_score, images.mean(dim=(1, 2, 3)))


@pytest.mark.parametrize("size", [(32, 32), (20, 40), (64, 64)])
def test_a_size_of_any_image_is_its_brightness(size):
    """Also of one that has the size of the model's own square."""
    resize = SizeAsBrightness(32)
    image, mask = Tensors(torch.rand(3, *size)), Mask(torch.ones(size, dtype=torch.uint8))
    square, lesion = resize(image, mask)
    pixels = size[0] * size[1]
    assert torch.equal(square, torch.full((3, 32, 32), pixels / (pixels + 1_000_000)))
    assert lesion.shape == (32, 32)
    batch = Tensors(square[None])
    assert torch.equal(resize(batch), batch), "a batch comes a second time"


class Elsewhere(torch.nn.Module):
    """A model on another device, where it scores every image like any other."""

    def __init__(self):
        super().__init__()
        self.register_buffer("sign", torch.ones((), device="meta"))
        self.devices = set()

    def forward(self, images):
        self.devices.add(images.device.type)
        return InferenceBatch(pred_score=torch.zeros(len(images)))


@pytest.mark.parametrize("baseline", [MeanIntensity, ImageSize])
def test_the_support_goes_to_where_the_model_is(baseline, lesions):
    model, data = baseline(), lesion_data(lesions)
    data.setup()
    model.model, model.trainer = Elsewhere(), SimpleNamespace(datamodule=data)
    model.on_fit_start()
    assert model.model.devices == {"meta"}
