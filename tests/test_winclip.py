"""WinCLIP under every open_clip: each window alone, anomalib's commands, small checkpoints."""

import json
from itertools import product
from pathlib import Path
from shutil import copyfile, copytree

import open_clip
import pytest
import torch
from anomalib import LearningType
from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.models import UnknownModelError, get_model
from anomalib.models.image.winclip.prompting import create_prompt_ensemble
from anomalib.models.image.winclip.torch_model import WinClipModel
from command import anomalib, metrics, pictures, rows
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from tiny import BACKBONE, OPTIONS, lesion_data

import anomalib_medclip
from anomalib_medclip import Inferencer, baselines
from anomalib_medclip.baselines.winclip import WinCLIP, WinCLIPModel
from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.data.bmad import BMAD_SETS, BMADLeaveOneOut
from anomalib_medclip.errors import BackboneMismatchError, NotReadyError, SupportError
from anomalib_medclip.readers.picture import read_image


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def through_blocks(visual, tokens):
    """One sequence ``(token, width)`` through the transformer, by whatever its attention wants."""
    for block in visual.transformer.resblocks:
        axis = 0 if block.attn.batch_first else 1
        tokens = block(tokens.unsqueeze(axis)).squeeze(axis)
    return tokens


def embedded(visual, image):
    """Class token and patch tokens ``(1 + row x column, width)`` with their positions."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
    patches = visual.conv1(((image - mean) / std)[None])[0].flatten(1).T
    return torch.cat([visual.class_embedding[None], patches]) + visual.positional_embedding


def windows(side, scale):
    """Patch numbers of every window, row by row."""
    for top, left in product(range(side - scale + 1), repeat=2):
        yield [(top + y) * side + left + x for y in range(scale) for x in range(scale)]


@pytest.mark.parametrize(("size", "scales"), [(32, (2, 3)), (40, (1, 4))])
@torch.no_grad()
def test_each_window_is_encoded_as_if_it_were_alone(size, scales):
    model = WinCLIPModel(Backbone(BACKBONE, None, size, normalize=True), scales)
    visual, side = model.clip.visual, size // 8
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    _, found, _ = model.encode_image(images)
    assert [f.shape for f in found] == [(2, (side - scale + 1) ** 2, 24) for scale in scales]
    for scale, of_scale in zip(scales, found, strict=True):
        for image, of_image in zip(images, of_scale, strict=True):
            tokens = embedded(visual, image)
            for patches, embedding in zip(windows(side, scale), of_image, strict=True):
                alone = visual.ln_pre(tokens[[0, *(patch + 1 for patch in patches)]])
                right = visual.ln_post(through_blocks(visual, alone)[0]) @ visual.proj
                torch.testing.assert_close(embedding, right, atol=1e-5, rtol=0)


@torch.no_grad()
def test_images_and_patches_are_encoded_as_a_whole(images):
    model = WinCLIPModel(Backbone(BACKBONE, None, 32, normalize=True))
    visual = model.clip.visual
    pooled, _, patches = model.encode_image(images)
    for image, of_image, of_patches in zip(images, pooled, patches, strict=True):
        tokens = visual.ln_post(through_blocks(visual, visual.ln_pre(embedded(visual, image))))
        torch.testing.assert_close(of_image, tokens[0] @ visual.proj, atol=1e-5, rtol=0)
        torch.testing.assert_close(of_patches, tokens[1:], atol=1e-5, rtol=0)


@torch.no_grad()
def test_anomalibs_windows_are_ours_where_open_clip_takes_tokens_first(images):
    model = WinCLIPModel(Backbone(BACKBONE, None, 32))
    inputs = []
    handle = model.clip.visual.patch_dropout.register_forward_hook(
        lambda _module, taken, _output: inputs.append(taken[0])
    )
    _, ours, _ = model.encode_image(images)
    handle.remove()
    transformer = model.clip.visual.transformer
    if getattr(transformer, "batch_first", False):  # take and give what 2.24 did
        transformer.register_forward_pre_hook(lambda _module, taken: (taken[0].transpose(0, 1),))
        transformer.register_forward_hook(lambda _module, _taken, given: given.transpose(0, 1))
    for mask, of_scale in zip(model.masks, ours, strict=True):
        theirs = WinClipModel._get_window_embeddings(model, inputs[0], mask)
        torch.testing.assert_close(of_scale, theirs, atol=1e-5, rtol=0)


def test_models_of_different_scales_live_side_by_side(images):
    first = WinCLIPModel(Backbone(BACKBONE, None, 32), (2, 3))
    second = WinCLIPModel(Backbone(BACKBONE, None, 32), (4,))
    for model in (first, second):
        model.setup("phantom", images[:1])
        assert len(model.masks) == len(model.visual_embeddings) == len(model.scales)
        assert model(images).anomaly_map.shape == (3, 32, 32)


@pytest.mark.parametrize("scales", [(2, 5), (0,)])
def test_windows_that_do_not_fit_are_refused(scales):
    with pytest.raises(ValueError, match=r"do not fit the 4 x 4 patches .* larger image_size"):
        WinCLIPModel(Backbone(BACKBONE, None, 32), scales)


def silent(home):
    return Engine(default_root_dir=home, accelerator="cpu", enable_progress_bar=False)


def run(folder, home, data=None, **options):
    """A tested baseline: model, engine, datamodule, metrics."""
    model, engine = WinCLIP(**{**OPTIONS, "k_shot": 2, **options}), silent(home)
    datamodule = lesion_data(folder, **(data or {}))
    return model, engine, datamodule, engine.train(model, datamodule=datamodule)[0]


@pytest.fixture(scope="module")
def tested(lesions, tmp_path_factory):
    return run(lesions, tmp_path_factory.mktemp("winclip"))


def test_references_are_the_normal_support_prepared_as_what_is_scored(tested):
    model, _, datamodule, _ = tested
    support = datamodule.support_data
    items = [support[index] for index in range(len(support))]
    normal = torch.stack([i.image for i in items if not i.gt_label]).as_subclass(torch.Tensor)
    assert model.model.k_shot == len(normal) == 2
    assert model.learning_type is LearningType.FEW_SHOT
    with torch.no_grad():
        _, of_windows, patches = model.model.encode_image(normal)
        distance = model.model._compute_few_shot_scores(patches, of_windows)
        _, of_windows, patches = model.model.encode_image(1 - normal)
        others = model.model._compute_few_shot_scores(patches, of_windows)
    assert distance.max() < 1e-5, "a reference image is not its own reference"
    assert others.min() > 1e-5


def test_the_prompts_name_what_the_data_show(tested):
    model = tested[0]
    assert model.object_name == "phantom"
    with torch.no_grad():
        right = [
            model.model.clip.encode_text(open_clip.tokenize(prompts)).mean(dim=0)
            for prompts in create_prompt_ensemble("phantom")
        ]
    torch.testing.assert_close(model.model.text_embeddings, torch.stack(right))


def test_it_gives_the_figures_and_files_that_methods_give(tested):
    _, engine, datamodule, found = tested
    home = Path(engine.trainer.default_root_dir)
    assert {"image_AUROC", "pixel_AUROC", "image_F1Score", "pixel_F1Score"} <= set(found)
    assert found["image_AUROC"] == 1
    assert metrics(home)["image_AUROC"] is None  # of so few patients
    assert metrics(home)["pixel_AUROC"] == found["pixel_AUROC"]
    assert json.loads((home / "run.json").read_text())["command"] == "train"
    table = rows(home / "test_scores.csv")
    assert len(table) == len(datamodule.test_data) == len(pictures(home))
    assert len({row["pred_score"] for row in table.values()}) == len(table), "clipping makes ties"


def test_an_image_scores_the_same_alone_and_in_a_batch(tested, images):
    together = tested[0](images)
    for index, image in enumerate(images):
        for found, wanted in zip(tested[0](image[None]), together, strict=True):
            if wanted is not None:
                torch.testing.assert_close(found[0], wanted[index], atol=1e-5, rtol=0)


def test_sets_with_labels_only_and_no_reference_are_scored_too(lesions, tmp_path):
    model, _, _, found = run(lesions, tmp_path, {"mask_column": None}, k_shot=0)
    assert model.learning_type is LearningType.ZERO_SHOT
    assert model.model.k_shot == 0
    assert "image_AUROC" in found
    assert "pixel_AUROC" not in found


def test_other_data_bring_their_own_words_and_references(lesions, tested, tmp_path):
    model, _, _, _ = run(lesions, tmp_path)
    torch.testing.assert_close(
        model.model.patch_embeddings.sort(dim=0).values,
        tested[0].model.patch_embeddings.sort(dim=0).values,
    )
    before = model.model.patch_embeddings.clone(), model.model.text_embeddings.clone()
    data = lesion_data(lesions, seed=3)
    data.object_name = "liver"
    silent(tmp_path).test(model, datamodule=data)
    assert model.object_name == "liver"
    assert not torch.equal(model.model.patch_embeddings, before[0])
    assert not torch.equal(model.model.text_embeddings, before[1])


def test_a_checkpoint_is_small_and_needs_no_references(tested, images, tmp_path):
    model, engine, _, _ = tested
    path = engine.trainer.checkpoint_callback.best_model_path
    state = torch.load(path, weights_only=True)["state_dict"]
    assert not any(".clip." in name for name in state)
    loaded = WinCLIP.load_from_checkpoint(path).eval()
    torch.testing.assert_close(loaded(images).anomaly_map, model(images).anomaly_map)
    home = Path(engine.trainer.default_root_dir)
    image, row = next(iter(rows(home / "test_scores.csv").items()))
    score = Inferencer(path).predict(image).score
    assert score == pytest.approx(float(row["pred_score"]), abs=1e-5)
    with pytest.raises(BackboneMismatchError, match="trained on another backbone"):
        WinCLIP.load_from_checkpoint(path, backbone_seed=1)


def test_the_seed_decides_which_references_are_drawn(lesions, tmp_path):
    data = {"k_shot": 3, "val_ratio": 0.3, "train_batch_size": 1}
    drawn = []
    for seed in (0, 0, 2):
        torch.rand(len(drawn) + 1)  # whatever else is random
        drawn.append(run(lesions, tmp_path, data, k_shot=1, seed=seed)[0].model.patch_embeddings)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_references_may_come_from_a_folder(lesions, tmp_path, caplog):
    folder = tmp_path / "references"
    copytree(lesions / "images" / "normal", folder)
    files = sorted(folder.iterdir())[:3]
    copyfile(files[0], folder / f"{files[0].stem}_mask.png")
    model = run(lesions, tmp_path, k_shot=3, few_shot_source=str(folder))[0]
    assert model.model.k_shot == 3
    assert model.model.reference_images is None, "an export would hold images of patients"
    stack = torch.cat([model.pre_processor(read_image(file)[None]) for file in files])
    torch.testing.assert_close(model.model.patch_embeddings, model.model.encode_image(stack)[2])
    assert "_mask.png is a mask by its name, and is left out" in caplog.text


def test_data_of_anomalibs_own_bring_references_and_may_be_nameless(lesions, tmp_path):
    folders = {"normal_dir": "images/normal", "abnormal_dir": "images/abnormal"}
    data = Folder("phantom", root=lesions, **folders, num_workers=0)
    model = WinCLIP(**OPTIONS, k_shot=3)
    assert "image_AUROC" in silent(tmp_path).train(model, datamodule=data)[0]
    assert model.model.k_shot == 3
    assert model.object_name == "object"


def test_too_few_references_are_an_error(lesions, tmp_path):
    with pytest.raises(SupportError, match="hold 2 normal images, and k_shot asks for 4; add"):
        run(lesions, tmp_path, k_shot=4)
    with pytest.raises(SupportError, match="nowhere hold 0 normal images"):
        run(lesions, tmp_path, few_shot_source="nowhere")


def test_without_normal_images_of_the_target_there_is_no_reference(write_bmad, tested, tmp_path):
    for category in BMAD_SETS:
        root = write_bmad(category, count=2)
    data = BMADLeaveOneOut(root, "Retina_RESC", num_workers=0)
    engine = silent(tmp_path)
    with pytest.raises(NotReadyError, match=r"no normal image of the target .* set k_shot to 0"):
        engine.train(WinCLIP(**OPTIONS, k_shot=2), datamodule=data)
    zero_shot = WinCLIP(**OPTIONS)
    assert "pixel_AUROC" in engine.train(zero_shot, datamodule=data)[0]
    assert zero_shot.object_name == "retinal OCT"

    loader = data.test_dataloader()
    engine = silent(tmp_path)
    with pytest.raises(NotReadyError, match="no normal image of the target"):
        engine.test(WinCLIP(**OPTIONS, k_shot=2), dataloaders=loader)
    assert "image_AUROC" in engine.test(tested[0], dataloaders=loader)[0]
    assert tested[0].object_name == "phantom"


def test_the_commands_train_test_and_predict(bmad_tree, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bmad_tree("Retina_RESC", root=Path("BMAD"))
    config = {"root": "BMAD", "category": "Retina_RESC", "k_shot": 2, "num_workers": 0}
    data = {"class_path": "anomalib_medclip.data.BMAD", "init_args": config}
    Path("data.yaml").write_text(json.dumps(data))
    small = (
        f"--model anomalib_medclip.baselines.WinCLIP --model.backbone '{json.dumps(BACKBONE)}' "
        "--model.pretrained null --model.image_size 32 --model.k_shot 2 --trainer.accelerator cpu "
        "--model.post_processor "
        "anomalib_medclip.components.processors.RankPreservingPostProcessor"
    )
    anomalib(f"train {small} --data data.yaml", monkeypatch)
    home = Path("results/WinCLIP/BMAD/Retina_RESC/latest")
    found = metrics(home)
    assert {"image_AUROC", "pixel_AUROC", "support"} <= set(found)
    scores = rows(home / "test_scores.csv")
    assert len(scores) == 16
    checkpoint = (home / "weights/lightning/model.ckpt").resolve()

    anomalib(f"test {small} --data data.yaml --ckpt_path {checkpoint}", monkeypatch)
    again = max(Path("results").rglob("test_metrics.json"), key=lambda p: p.stat().st_mtime)
    assert json.loads(again.read_text()) == found
    image = min(Path("BMAD/Retina_RESC_AD/test/Ungood/img").iterdir())
    anomalib(f"predict {small} --data {image} --ckpt_path {checkpoint}", monkeypatch)
    predicted = next(Path("results").rglob("predict_scores.csv"))
    one = float(next(iter(rows(predicted).values()))["pred_score"])
    assert one == pytest.approx(float(scores[image.as_posix()]["pred_score"]), abs=1e-5)


def test_it_is_a_baseline_and_no_method():
    assert "winclip" not in anomalib_medclip.list_models()
    assert baselines.WinCLIP is WinCLIP
    there = ", ".join(baselines.list_baselines())
    with pytest.raises(AttributeError, match=f"baselines has no 'Winclip'; it has {there}"):
        _ = baselines.Winclip


@pytest.mark.parametrize("name", ["baselines.WinCLIP", "MVFA"])
def test_anomalibs_benchmark_refuses_plug_ins(name):
    with pytest.raises(UnknownModelError):
        get_model({"class_path": f"anomalib_medclip.{name}"})
