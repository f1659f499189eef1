import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch, InferenceBatch, PredictDataset
from anomalib.metrics import AUROC
from anomalib.post_processing import PostProcessor
from dicom_series import write_picture
from hypothesis import given
from hypothesis import strategies as st
from lightning import LightningModule, Trainer
from pictures import channels_first
from PIL import Image as Pillow
from torch.utils.data import DataLoader
from torchmetrics.functional.classification import binary_auroc
from torchvision.tv_tensors import Image, Mask
from written import tiff_page, write_tiff

from anomalib_medclip.components.processors import (
    MedicalPreProcessor,
    RankPreservingPostProcessor,
)
from anomalib_medclip.errors import ImageReadError, IntensityError
from anomalib_medclip.readers.picture import read_image
from anomalib_medclip.readers.resize import MethodResize

# --- after the model


def batch_of(scores, labels=None, maps=None, masks=None):
    scores = torch.as_tensor(scores)
    return ImageBatch(
        image=torch.zeros(len(scores), 3, 4, 4),
        pred_score=scores.clone(),
        gt_label=None if labels is None else torch.as_tensor(labels).bool(),
        anomaly_map=None if maps is None else maps.clone(),
        gt_mask=masks,
    )


def validated(scores, labels, kind=RankPreservingPostProcessor, **options):
    """A post-processor that has found its threshold on validation images."""
    processor = kind(**options)
    processor.on_validation_batch_end(None, None, batch_of(scores, labels))
    processor.on_validation_epoch_end(None, None)
    return processor


def processed(processor, scores, **fields):
    batch = batch_of(scores, **fields)
    processor.on_test_batch_end(None, None, batch)
    return batch


VALIDATION = [0.1, 0.2, 0.3, 0.6, 0.8, 0.9], [0, 0, 0, 1, 1, 1]

grid_scores = st.lists(st.integers(-400, 500), min_size=1, max_size=20).map(
    lambda steps: [step / 100 for step in steps]
)


@given(scores=grid_scores)
def test_normalised_scores_keep_every_rank_within_the_unit_interval(scores):
    found = processed(validated(*VALIDATION), scores).pred_score
    assert found.min() >= 0
    assert found.max() <= 1
    raw, found = torch.tensor(scores), found
    assert torch.equal((raw[:, None] > raw).int(), (found[:, None] > found).int())


def test_the_threshold_becomes_one_half():
    processor = validated(*VALIDATION)
    # Halfway between 0.3 and 0.6: at 0.6, anomalib's, the image that sets it counts as normal.
    assert processor.image_threshold == pytest.approx(0.45)
    assert processor.normalized_image_threshold == 0.5
    at_threshold = processed(processor, [processor.image_threshold.item()])
    assert at_threshold.pred_score.item() == pytest.approx(0.5)


@given(scores=grid_scores, normalised=st.booleans())
def test_labels_are_those_of_the_raw_threshold(scores, normalised):
    processor = validated(*VALIDATION, enable_normalization=normalised)
    raw = torch.tensor(scores)
    found = processed(processor, scores)
    assert torch.equal(found.pred_label, raw > processor.image_threshold)
    if not normalised:
        assert torch.equal(found.pred_score, raw)


def test_without_normalisation_anomalibs_own_compares_raw_scores_with_one_half():
    """Why the raw threshold is handed out here: 0.55 and 0.48 lie on either side of one half."""
    theirs = validated(*VALIDATION, kind=PostProcessor, enable_normalization=False)
    ours = validated(*VALIDATION, enable_normalization=False)
    assert theirs.image_threshold == pytest.approx(0.6)
    assert ours.image_threshold == pytest.approx(0.45)
    assert processed(theirs, [0.55, 0.48]).pred_label.tolist() == [True, False]
    assert processed(ours, [0.55, 0.48]).pred_label.tolist() == [True, True]


@given(scores=grid_scores, normalised=st.booleans())
def test_a_traced_forward_decides_as_a_test_does(scores, normalised):
    processor = validated(*VALIDATION, enable_normalization=normalised)
    found = processor(InferenceBatch(pred_score=torch.tensor(scores)))
    expected = processed(processor, scores)
    assert torch.equal(found.pred_score, expected.pred_score)
    assert torch.equal(found.pred_label, expected.pred_label)


def test_auroc_is_that_of_the_raw_scores_where_clipping_would_change_it():
    test_scores = torch.tensor([-2.0, -1.5, 0.3, 2.0, 3.0, 4.0, 5.0])
    labels = torch.tensor([0, 1, 0, 0, 1, 0, 1])
    raw = binary_auroc(test_scores, labels)

    def auroc(kind):
        found = processed(validated(*VALIDATION, kind=kind), test_scores)
        return binary_auroc(found.pred_score, labels)

    assert auroc(RankPreservingPostProcessor) == raw
    assert auroc(PostProcessor) != raw


def test_pixels_are_placed_by_their_own_threshold():
    maps = torch.linspace(0, 10, 32).view(2, 4, 4)
    masks = maps > 7
    processor = RankPreservingPostProcessor()
    processor.on_validation_batch_end(None, None, batch_of([0.1, 0.9], [0, 1], maps, masks))
    processor.on_validation_epoch_end(None, None)
    found = processed(processor, [0.1, 0.9], maps=maps)
    assert torch.equal(found.pred_mask, maps > processor.pixel_threshold)
    assert torch.equal(found.anomaly_map.flatten().argsort(), maps.flatten().argsort())
    assert (found.anomaly_map.min() >= 0) & (found.anomaly_map.max() <= 1)


@pytest.mark.parametrize("normalised", [True, False])
def test_without_a_validation_scores_pass_and_nothing_is_decided(normalised):
    processor = RankPreservingPostProcessor(enable_normalization=normalised)
    maps = torch.rand(3, 4, 4)
    given = InferenceBatch(pred_score=torch.tensor([0.2, 0.5, 0.7]), anomaly_map=maps)
    for found in (processed(processor, [0.2, 0.5, 0.7], maps=maps), processor(given)):
        assert found.pred_score.tolist() == pytest.approx([0.2, 0.5, 0.7])
        assert torch.equal(found.anomaly_map, maps)
        assert found.pred_label is None
        assert found.pred_mask is None


def test_labels_alone_tell_no_threshold_of_pixels():
    processor, maps = validated(*VALIDATION, enable_threshold_matching=False), torch.rand(2, 4, 4)
    given = InferenceBatch(pred_score=torch.tensor([0.2, 0.7]), anomaly_map=maps)
    for found in (processed(processor, [0.2, 0.7], maps=maps), processor(given)):
        assert found.pred_label.shape == (2,)
        assert found.pred_mask is None


def test_without_a_threshold_the_middle_of_the_range_takes_its_place():
    processor = validated(*VALIDATION, enable_thresholding=False)
    assert processor.image_threshold.isnan()
    found = processed(processor, [0.4, 0.5, 0.6])
    assert found.pred_label is None
    assert found.pred_score.tolist() == pytest.approx([1 / 3, 0.5, 2 / 3])


def test_validation_images_of_one_score_leave_no_range_and_still_decide():
    processor = validated([0.4, 0.4], [0, 1])
    found = processed(processor, [0.3, 0.4, 0.5]).pred_score
    assert found.isfinite().all()
    # The best F1 calls both abnormal, so the threshold is the next number below their score.
    assert found[0] < 0.5 < found[1] < found[2]


def test_a_restored_post_processor_decides_alike(tmp_path):
    processor = validated(*VALIDATION)
    torch.save(processor.state_dict(), tmp_path / "state.pt")
    restored = RankPreservingPostProcessor()
    restored.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    scores = [-3.0, 0.59, 0.61, 4.0]
    found, expected = processed(restored, scores), processed(processor, scores)
    assert torch.equal(found.pred_score, expected.pred_score)
    assert restored.image_threshold == processor.image_threshold


@given(scores=grid_scores, data=st.data())
def test_auroc_does_not_depend_on_the_evaluation_batch_size(scores, data):
    """anomalib's metric takes numbers outside [0, 1] for logits, one batch at a time."""
    labels = data.draw(st.lists(st.integers(0, 1), min_size=len(scores), max_size=len(scores)))
    found = processed(validated(*VALIDATION), scores).pred_score

    def auroc(size):
        metric = AUROC(fields=["pred_score", "gt_label"])
        for part, truth in zip(found.split(size), torch.tensor(labels).split(size), strict=True):
            metric.update(batch_of(part, truth))
        return metric.compute()

    assert torch.equal(auroc(1), auroc(16))


# --- before the model


@pytest.mark.parametrize("stage", ["train", "validation", "test", "predict"])
def test_every_stage_resizes_image_and_mask_as_the_method_does(stage):
    image, mask = Image(torch.rand(2, 3, 20, 30)), Mask(torch.rand(2, 20, 30) > 0.5)
    batch = ImageBatch(image=image, gt_mask=mask)
    trainer = SimpleNamespace(predict_dataloaders=None)
    hook = getattr(MedicalPreProcessor(16), f"on_{stage}_batch_start")
    hook(trainer, None, batch, 0)
    assert torch.equal(batch.image, MethodResize(16)(image))
    assert torch.equal(batch.gt_mask, MethodResize(16)(mask))


def test_called_directly_it_resizes_as_the_method_does():
    images = torch.rand(2, 3, 20, 30)
    resized = MedicalPreProcessor(16)(images)
    assert type(resized) is torch.Tensor
    assert torch.equal(resized, MethodResize(16)(Image(images)).as_subclass(torch.Tensor))


def test_a_traced_graph_leaves_images_of_the_models_size_alone():
    images = torch.rand(1, 3, 16, 16)
    graph = torch.export.export(MedicalPreProcessor(16), (images,)).module()
    assert torch.equal(graph(images), images)


def test_a_traced_graph_resizes_others_as_the_method_does():
    images = torch.randint(0, 256, (1, 3, 20, 30)) / 255
    graph = torch.export.export(MedicalPreProcessor(16), (images,)).module()
    assert torch.equal(graph(images), MedicalPreProcessor(16)(images))


def predict(path, pre_processor):
    """The batches that anomalib's prediction hands to a model, one per file."""
    loader = DataLoader(PredictDataset(path), collate_fn=PredictDataset(path).collate_fn)
    trainer = SimpleNamespace(predict_dataloaders=[loader])
    for index, batch in enumerate(loader):
        module = SimpleNamespace(device=torch.device("cpu"))
        pre_processor.on_predict_batch_start(trainer, module, batch, index)
        yield batch


def save16(path):
    pixels = np.random.default_rng(0).integers(0, 65536, (16, 16)).astype(np.uint16)
    Pillow.fromarray(pixels).save(path)
    return pixels


def test_prediction_on_a_16_bit_file_needs_a_policy(tmp_path):
    save16(tmp_path / "deep.png")
    with pytest.raises(IntensityError, match=r"deep.png holds uint16 .* 'intensity'"):
        list(predict(tmp_path / "deep.png", MedicalPreProcessor(16)))


@pytest.mark.parametrize(("policy", "top"), [("dtype", 65535), ((0, 1000), 1000)])
def test_prediction_on_a_16_bit_file_reads_it_exactly(tmp_path, policy, top):
    expected = (save16(tmp_path / "deep.png") / top).clip(0, 1).astype(np.float32)
    (batch,) = predict(tmp_path / "deep.png", MedicalPreProcessor(16, policy))
    for channel in batch.image[0]:
        assert np.array_equal(channel.numpy(), expected)


def test_prediction_on_a_folder_resizes_each_file_as_training_does(tmp_path):
    for index, size in enumerate([(20, 30), (12, 40), (16, 16)]):
        pixels = np.random.default_rng(index).integers(0, 256, (*size, 3)).astype(np.uint8)
        Pillow.fromarray(pixels).save(tmp_path / f"{index}.png")
    batches = list(predict(tmp_path, MedicalPreProcessor(16)))
    assert len(batches) == 3
    for batch in batches:
        expected = MethodResize(16)(read_image(batch.image_path[0]))
        assert torch.equal(batch.image[0], expected)


class Silent(LightningModule):
    def predict_step(self, batch):
        del batch


def lightning_predicts(folder, pre_processor):
    """Let Lightning predict the pictures of a folder."""
    trainer = Trainer(
        accelerator="cpu",
        callbacks=[pre_processor],
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
    )
    loader = DataLoader(PredictDataset(folder), collate_fn=ImageBatch.collate)
    trainer.predict(Silent(), loader)


@pytest.mark.parametrize("content", [b"", b"not a picture", None])
def test_a_file_that_cannot_be_read_is_named(tmp_path, content):
    save16(tmp_path / "bad.png")
    whole = (tmp_path / "bad.png").read_bytes()
    (tmp_path / "bad.png").write_bytes(whole[:-60] if content is None else content)
    before = signal.getsignal(signal.SIGTERM)
    words = r"cannot read image .*bad\.png|bad\.png holds no byte"
    with pytest.raises(ImageReadError, match=words):
        lightning_predicts(tmp_path, MedicalPreProcessor(16, "dtype"))
    assert signal.getsignal(signal.SIGTERM) is before, "the process could not be told to end"


def test_prediction_shows_a_picture_the_way_up_that_training_does(tmp_path):
    turned = Pillow.Exif()
    turned[274] = 8
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Pillow.fromarray(pixels).save(tmp_path / "a.png", exif=turned)
    (batch,) = predict(tmp_path / "a.png", MedicalPreProcessor(16))
    assert torch.equal((batch.image[0] * 255).byte(), channels_first(np.rot90(pixels)))
    assert torch.equal(batch.image[0], read_image(tmp_path / "a.png"))


def test_a_file_that_only_anomalib_cannot_read_is_named_with_the_way_out(tmp_path):
    numbers = np.arange(16, dtype=np.uint32).reshape(4, 4, 1)
    path = write_tiff(tmp_path / "odd.tif", tiff_page(numbers, 32, 1, ">"), order=">")
    assert read_image(path, (0, 15)).max() == 1
    with pytest.raises(ImageReadError, match=r"odd.tif is read by this package, .*give it to"):
        lightning_predicts(tmp_path, MedicalPreProcessor(16, (0, 15)))


def test_a_policy_of_the_users_own_wins_over_the_checkpoints():
    config = MedicalPreProcessor(16, (0, 1000)).checkpoint_config()
    given = MedicalPreProcessor(16, "dtype")
    given.load_checkpoint_config(config)
    assert given.intensity == "dtype"


def test_a_checkpoint_keeps_the_intensity_policy():
    config = MedicalPreProcessor(16, (0, 1000)).checkpoint_config()
    restored = MedicalPreProcessor(16)
    restored.load_checkpoint_config(config)
    assert restored.intensity == (0, 1000)
    assert restored.transform.side == 16


# --- what anomalib lists


def warned(folder, caplog, given=None):
    """What is said of a prediction of a folder, or of what else was given."""
    loader = DataLoader(PredictDataset(given or folder))
    caplog.clear()
    MedicalPreProcessor(32).on_predict_start(SimpleNamespace(predict_dataloaders=loader), None)
    return [record.getMessage().removeprefix(f"{folder}/") for record in caplog.records]


@pytest.fixture
def mixed(tmp_path, picture):
    """A folder of pictures and masks, and of files that anomalib lists none of."""
    for name in ("1.png", "1_mask.png", "P2/2.jpg", "P2/masks/2.png", "P2/3.gif"):
        picture(tmp_path / name)
    write_picture(tmp_path / "P3" / "4.dcm", np.zeros((8, 8), np.uint8))
    write_picture(tmp_path / "P3" / "IM5", np.zeros((8, 8), np.uint8))
    (tmp_path / "5.jp2").write_bytes(b"\0\0\0\x0cjP  \r\n")
    for name in ("head.nii.gz", "notes.txt", ".hidden"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def test_of_a_folder_it_is_said_what_anomalib_does_not_predict_and_which_masks_it_does(
    mixed, caplog
):
    words = "anomalib's prediction does not list, and is left out"
    here = "give it to anomalib-medclip score or to anomalib_medclip.Inferencer"
    assert warned(mixed, caplog) == [
        "5.jp2 ends in .jp2, as no picture that is read does, and is left out; save it as PNG if "
        "it is an image",
        f"P2/3.gif is GIF, which {words}; {here}",
        f"P3/4.dcm is DICOM, which {words} (1 of 2 such); {here}",
        f"head.nii.gz is NIfTI, which {words}; {here}",
        "notes.txt ends in .txt, as no picture that is read does, and is left out; save it as PNG "
        "if it is an image",
        "1_mask.png is a mask by its name (1 of 2 such), and is predicted as an image; move masks "
        "to another folder, or give this one to anomalib-medclip score, which leaves them out",
    ]


def test_of_one_picture_among_others_nothing_is_said(mixed, picture, caplog):
    assert not warned(mixed, caplog, given=mixed / "1.png")
    (mixed / "P3" / "IM5").unlink()
    picture(mixed / "P3" / "6.png")
    [said] = warned(mixed / "P3", caplog)  # the only picture there is, so perhaps the folder's
    assert said.startswith("4.dcm is DICOM, which ")
