"""Whether a faster model still says the same: its maps and scores on real images, beside fp32."""

import math
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from anomalib.data import AnomalibDataModule
from jaxtyping import Float
from lightning import Trainer
from sklearn.metrics import roc_auc_score
from torch import Tensor

from anomalib_medclip.bench import build
from anomalib_medclip.bench.output import Measurement
from anomalib_medclip.bench.settings import Setting
from anomalib_medclip.clip.backbone import without_clip
from anomalib_medclip.components.memory_bank import MemoryBank
from anomalib_medclip.data.config import load_data
from anomalib_medclip.export.parity import rank_correlations, run_in_batches
from anomalib_medclip.export.pictures import in_turn
from anomalib_medclip.export.runtimes import Run, torch_run

IMAGES = 32
"""How many test images are compared, at most; both classes in turn."""


class RealImages(NamedTuple):
    """Test images, what the model in fp32 says of them (its outputs), and the data they are of."""

    images: Float[Tensor, "image 3 side side"]
    abnormal: list[bool]
    expected: Any
    data: AnomalibDataModule


def meet(method: Any, setting: Setting) -> RealImages:  # noqa: ANN401 - any method
    """Make a method ready to score the data of ``setting.images``, without training it.

    The same model in eager fp32 meets the data first: it encodes their prompts, fills the memory
    bank from their support and keeps support images to certify exports with. The method then takes
    its state, so that the two differ in nothing but how they compute.

    Raises:
        DataRootError: There is no such data config.
        MedclipError: What reading the data raises.
    """
    exact = build.build_method(replace(setting, runtime="eager", precision="fp32"))
    device, data = torch.device(setting.device), load_data(str(setting.images))
    data.k_shot = setting.k_shot or data.k_shot
    data.eval_batch_size, data.num_workers = 1, 0
    exact.model.text = torch.empty(0)  # the random ones
    with TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator=device.type,
            devices=1 if device.index is None else [device.index],
            default_root_dir=folder,
            limit_predict_batches=1,  # becoming ready is all that is wanted
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
        )
        trainer.predict(exact, datamodule=data, return_predictions=False)
    exact.model.few_shot = setting.k_shot > 0
    if not (setting.k_shot or exact.model.memory_bank is None):
        exact.model.memory_bank = MemoryBank(exact.model.memory_bank.rows.dtype)
    _take_over(exact.eval().to(setting.device), method)
    images, abnormal = _test_images(exact, data)
    run = torch_run(exact.model, setting.device)
    expected = run_in_batches(run, images, setting.batch_size)
    data.trainer = None  # which holds the model; its memory is not the method's
    return RealImages(images, abnormal, expected, data)


def agreement(run: Run, real: RealImages, batch_size: int) -> Measurement:
    """How the answers of a method compare with those in fp32.

    Returns:
        ``rank_correlation`` and ``rank_correlation_median``: Spearman's correlation of the pixels
        of a map with those in fp32, lowest and median of the images; ``None`` where a map is of one
        value. ``auroc`` and ``auroc_fp32``: of the image scores, in [0, 1]; ``None`` where the
        images are of one class.
    """
    found: Any = run_in_batches(run, real.images, batch_size)
    ranks = rank_correlations(real.expected.anomaly_map, found.anomaly_map.cpu())
    both = len(set(real.abnormal)) == 2
    scores = [one.pred_score.cpu().float() for one in (found, real.expected)]
    areas = [float(roc_auc_score(real.abnormal, s)) if both else None for s in scores]
    correlation = {
        "rank_correlation": float(np.min(ranks)),
        "rank_correlation_median": float(np.median(ranks)),
    }
    # JSON has no NaN.
    known = {name: value if math.isfinite(value) else None for name, value in correlation.items()}
    return {**known, "auroc": areas[0], "auroc_fp32": areas[1]}


def _take_over(exact: Any, method: Any) -> None:  # noqa: ANN401 - any method
    """Give a method the state of another one of its kind, on the same CLIP."""
    method.load_state_dict({**method.state_dict(), **without_clip(exact.state_dict())})
    method.exporter.probes = exact.exporter.probes
    method.model.has_masks, method.model.few_shot = exact.model.has_masks, exact.model.few_shot


def _test_images(method: Any, data: AnomalibDataModule) -> tuple[Tensor, list[bool]]:  # noqa: ANN401
    items = [data.test_data[index] for index in in_turn(data.test_data)[:IMAGES]]
    images = [method.pre_processor.resize(item.image).as_subclass(Tensor) for item in items]
    return torch.stack(images), [bool(item.gt_label) for item in items]
