"""What a user passes to a model stays: in its checkpoint, and in the model restored from it."""

import sys

import pytest
import torch
from anomalib.metrics import AUROC, Evaluator
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import ImageVisualizer
from tiny import CASES, OPTIONS
from torchvision.transforms import v2

from anomalib_medclip import Inferencer
from anomalib_medclip.baselines import WinCLIP
from anomalib_medclip.components.processors import MedicalPreProcessor
from anomalib_medclip.errors import CheckpointError, ConfigError
from anomalib_medclip.training.checkpoints import read_checkpoint

CASE = next(case for case in CASES if case.name == "MVFA")


class Doubled(PostProcessor):
    """A user's own, whose option can be read back."""

    def __init__(self, factor: float = 2.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def forward(self, predictions):
        found = super().forward(predictions)
        return found._replace(pred_score=found.pred_score * self.factor)


class Forgetful(PostProcessor):
    """One that does not keep its option."""

    def __init__(self, factor: float = 2.0):
        super().__init__()
        self.twice = 2 * factor


def fitted(home, **components):
    return CASE.fit(home, epochs=1, **components)


def restored(trained):
    return CASE.method.load_from_checkpoint(trained.checkpoint)


class Hidden(PostProcessor):
    """One that keeps its option where nothing plain can be read."""

    def __init__(self, factor: float = 2.0):
        super().__init__()
        self._scale = lambda score: score * factor


class Required(PostProcessor):
    """One whose option has another name in the object, and no default."""

    def __init__(self, factor):
        super().__init__()
        self.by = factor


PROCESSORS = {
    "anomalib's": (lambda: PostProcessor(image_sensitivity=0.7), "image_sensitivity", 0.7),
    "a user's": (lambda: Doubled(3.0, enable_normalization=False), "factor", 3.0),
}


@pytest.mark.parametrize("kind", PROCESSORS)
def test_a_post_processor_comes_back(kind, tmp_path):
    make, option, value = PROCESSORS[kind]
    trained = fitted(tmp_path, post_processor=make())
    again = restored(trained)
    assert type(again.post_processor) is type(trained.model.post_processor)
    assert getattr(again.post_processor, option) == value
    images = CASE.images[:3]
    before, after = (model.eval()(images) for model in (trained.model.cpu(), again))
    assert torch.equal(before.pred_score, after.pred_score)
    assert torch.equal(before.pred_label, after.pred_label)
    assert restored(CASE.trained).post_processor.image_sensitivity == 0.5, "the usual one"


def test_a_trainer_restores_it_too(tmp_path):
    trained = fitted(tmp_path, post_processor=Doubled(3.0))
    model = CASE.small()
    options = {"datamodule": CASE.data(), "ckpt_path": trained.checkpoint}
    engine = CASE.engine(tmp_path)
    engine.test(model, **options)
    assert model.post_processor.factor == 3.0
    assert model.post_processor in engine.trainer.callbacks


def test_a_pre_processor_comes_back_and_the_data_must_be_set_up_for_it(tmp_path):
    resize = v2.Compose([v2.Resize((32, 32), antialias=True), v2.Normalize([0.1] * 3, [2.0] * 3)])
    trained = fitted(tmp_path, pre_processor=PreProcessor(resize))
    again = restored(trained)
    image = torch.rand(1, 3, 50, 40)
    assert torch.equal(again.pre_processor(image), trained.model.pre_processor(image))
    data = CASE.data()
    with pytest.raises(CheckpointError, match="pass it to the model, too"):
        CASE.engine(tmp_path).test(CASE.small(), datamodule=data, ckpt_path=trained.checkpoint)
    model = CASE.small(pre_processor=PreProcessor(resize))
    CASE.engine(tmp_path).test(model, datamodule=data, ckpt_path=trained.checkpoint)
    with pytest.raises(CheckpointError, match=r"pre_processor PreProcessor.*anomalib predict"):
        Inferencer(trained.checkpoint)


def test_our_own_pre_processor_comes_back_with_its_options(tmp_path):
    mine = MedicalPreProcessor(32, intensity=(0.0, 900.0), resample="bilinear", masks="area")
    again = restored(fitted(tmp_path, pre_processor=mine)).pre_processor
    assert (again.resample, again.masks, again.intensity) == ("bilinear", "area", (0.0, 900.0))


def test_a_processor_that_no_checkpoint_can_hold_is_refused_before_training(tmp_path):
    class Local(PostProcessor):
        pass

    for one in (Forgetful(3.0), Hidden(3.0), Required(3.0), Local()):
        trained = CASE.ready(tmp_path, post_processor=one, data=CASE.data())
        with pytest.raises(ConfigError, match="cannot be rebuilt from plain options"):
            trained.engine.fit(trained.model, datamodule=trained.data)
        assert not trained.engine.trainer.global_step


def test_an_evaluator_and_a_visualizer_come_back_or_are_said_not_to(tmp_path, caplog):
    kept = fitted(
        tmp_path, evaluator=Evaluator(test_metrics=[AUROC(fields=["pred_score", "gt_label"])]),
        visualizer=ImageVisualizer(field_size=(64, 64)),
    )  # fmt: skip
    again = restored(kept)
    assert [type(one).__name__ for one in again.evaluator.test_metrics] == ["AUROC"]
    assert again.visualizer.field_size == (64, 64)
    assert "cannot be rebuilt" not in caplog.text
    auroc = AUROC(fields=["pred_score", "gt_label"], prefix="val_")
    fitted(tmp_path, evaluator=Evaluator(val_metrics=[auroc]))
    assert caplog.text.count("Evaluator cannot be rebuilt from plain options") == 1


def test_what_is_passed_for_the_restored_model_stays_and_the_change_is_said(tmp_path, caplog):
    visualizer = ImageVisualizer(field_size=(64, 64))
    trained = fitted(tmp_path, post_processor=Doubled(3.0), visualizer=visualizer)
    load = CASE.method.load_from_checkpoint
    model = load(trained.checkpoint, post_processor=PostProcessor(), visualizer=False)
    assert type(model.post_processor) is PostProcessor
    assert model.visualizer is None
    assert "test_user_components.Doubled; anomalib.post_processing" in caplog.text


def test_a_folder_of_this_machine_does_not_travel(tmp_path, caplog):
    trained = fitted(tmp_path, visualizer=ImageVisualizer(output_dir=str(tmp_path / "pictures")))
    assert "is a place of this machine" in caplog.text
    assert str(tmp_path) not in str(read_checkpoint(trained.checkpoint)["anomalib_medclip"])


@pytest.mark.parametrize(
    "spec",
    [
        {"class_path": "antigravity.fly", "init_args": {}},
        {"class_path": "subprocess.Popen", "init_args": {"args": "true"}},
        {"class_path": "torch.nn.modules.linear.Identity", "init_args": {}},
        {"class_path": "anomalib_medclip.models.mvfa.lightning_model.MVFA", "init_args": {}},
        {"class_path": 3},
        7,
    ],
    ids=str,
)
def test_a_checkpoint_chooses_among_processors_alone(spec):
    state = read_checkpoint(CASE.trained.checkpoint)
    state["anomalib_medclip"]["components"] = {"post_processor": spec}
    with pytest.raises(CheckpointError, match="is no PostProcessor that is known here; import"):
        CASE.small().on_load_checkpoint(state)
    assert "antigravity" not in sys.modules


def test_a_checkpoint_replaces_no_other_part_of_a_model():
    state = read_checkpoint(CASE.trained.checkpoint)
    known = {"class_path": "anomalib.post_processing.post_processor.PostProcessor"}
    state["anomalib_medclip"]["components"] = {"text": {**known, "init_args": {}}}
    model = CASE.small()
    text = model.text
    model.on_load_checkpoint(state)
    assert model.text is text


def test_the_memory_is_made_of_images_that_passed_the_pre_processor(tmp_path):
    def memory(**options):
        steps = [v2.Resize((32, 32), antialias=True), v2.Normalize([0.5] * 3, [0.25] * 3)]
        one = PreProcessor(v2.Compose(steps))
        trained = fitted(tmp_path, pre_processor=one, cross_fit=False, **options)
        return trained.model.model.memory_bank.rows

    assert torch.equal(memory(cache="off"), memory(cache="float32"))


def test_a_model_without_a_post_processor_is_scored_and_gives_no_verdict(tmp_path):
    trained = fitted(tmp_path, post_processor=False)
    pictures = sorted((CASE.lesions / "images").rglob("*.png"))
    assert Inferencer(trained.checkpoint).predict(pictures[0]).label is None


def test_the_baseline_keeps_what_a_user_passes_too(tmp_path):
    model = WinCLIP(**OPTIONS, visualizer=False, post_processor=Doubled(3.0), object_name="brain")
    engine = CASE.engine(tmp_path)
    engine.validate(model, datamodule=CASE.data())
    assert model.object_name == "brain"
    engine.trainer.save_checkpoint(tmp_path / "kept.ckpt")
    assert WinCLIP.load_from_checkpoint(tmp_path / "kept.ckpt").post_processor.factor == 3.0
    with pytest.raises(ConfigError, match="class_name and object_name are one option"):
        WinCLIP(**OPTIONS, class_name="brain", object_name="head")


def test_images_of_another_size_get_a_sentence():
    with pytest.raises(ConfigError, match=r"images of 3 x 40 x 32 came .* takes 3 x 32 x 32"):
        CASE.trained.model.model(torch.zeros(1, 3, 40, 32))
