"""A row: one setting, built, timed and weighed."""

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import faiss
import torch
from anomalib.data import AnomalibDataModule, InferenceBatch
from torch import Tensor

from anomalib_medclip.bench import build, quality, roofline, scoring, timing
from anomalib_medclip.bench.output import Measurement
from anomalib_medclip.bench.profile import profile_parts
from anomalib_medclip.bench.settings import RUNTIMES, Setting
from anomalib_medclip.clip.blocks import DTYPES
from anomalib_medclip.compare.cost import model_mb
from anomalib_medclip.devices import device_name
from anomalib_medclip.export.runtimes import Run
from anomalib_medclip.files import as_json


class _Duel(NamedTuple):
    """What is timed, what it is compared with and what that is called, and seconds of loading.

    And the subject as a function of images, where these are what it takes.
    """

    subject: timing.TimedCall
    other: timing.TimedCall
    reference: str
    load_s: float
    run: Run | None = None


def measure_setting(setting: Setting) -> Measurement:
    """Time a subject and its reference in turn.

    Raises:
        MedclipError: The setting cannot be measured here: CLIP's weights, the runtime or the memory
            bank are missing, the data cannot be read, or an export is not the same model.
    """
    if setting.threads:
        torch.set_num_threads(setting.threads)
        faiss.omp_set_num_threads(setting.threads)
    start = time.perf_counter()
    method = build.build_method(setting)
    took = time.perf_counter() - start
    real = quality.meet(method, setting) if setting.images else None
    if not real:
        scoring.fill_bank(method.model, setting.k_shot, len(method.augmentations.masks))
    duel = _duel(method, setting, took, real)
    row = {**_about(method, setting), **_timed(duel, setting)}
    if count := row["epoch_images"]:
        row["epoch_s"] = row["ms_per_image"] * count / 1e3
    if setting.what == "score":
        row.update(_share_of_limit(method, row))
    if setting.profile:
        spent = profile_parts(method.model, duel.subject, setting.rounds, setting.device)
        row["parts"] = {part: 1e3 * s / setting.batch_size for part, s in spent.items()}
    if real and duel.run:
        row.update(quality.agreement(duel.run, real, setting.batch_size))
    return row


def _timed(duel: _Duel, setting: Setting) -> Measurement:
    """Times and memory."""
    timing.forget_peak(setting.device)
    rounds = timing.alternate(
        duel.subject, duel.other, setting.rounds, setting.at_least, setting.device
    )
    return {
        **rounds.as_row(setting.batch_size),
        "reference": duel.reference,
        "load_s": duel.load_s,
        "peak_mb": timing.peak_mb(),
        "peak_gpu_mb": timing.peak_of_gpu_mb(setting.device),
    }


def _share_of_limit(method: Any, row: Measurement) -> Measurement:  # noqa: ANN401 - any method
    """The encoder's operations a second, and what a plain product reaches in this precision."""
    count = roofline.encoder_gflop(method.model.clip.backbone)
    done = {"encoder_gflop": count, "gflops": count * row["images_per_second"]}
    if row["precision"] not in DTYPES:
        return done
    return {**done, "product_gflops": roofline.product_gflops(row["precision"], row["device"])}


def _about(method: Any, setting: Setting) -> Measurement:  # noqa: ANN401 - any method
    """What can be said without measuring."""
    backbone, exported = method.hparams["backbone"], bool(RUNTIMES[setting.runtime])
    epoch = build.epoch_images(method, setting.k_shot) if "epoch" in setting.what else 0
    return {
        "what": setting.what,
        "method": setting.method,
        "k_shot": setting.k_shot,
        "runtime": setting.runtime,
        "precision": setting.precision,
        "device": setting.device,
        "device_name": device_name(torch.device(setting.device)),
        "backbone": backbone if isinstance(backbone, str) else as_json(backbone),
        "pretrained": Path(setting.pretrained).name if setting.pretrained else None,
        "image_size": method.model.clip.size[0],
        "batch_size": setting.batch_size,
        "images": Path(setting.images).name if setting.images else None,
        "threads": None if exported else torch.get_num_threads(),
        "rounds": setting.rounds,
        "epoch_images": epoch or None,
        "model_mb": model_mb(method),
    }


def _duel(
    method: Any,  # noqa: ANN401 - any method
    setting: Setting,
    took: float,
    real: quality.RealImages | None,
) -> _Duel:
    images = scoring.random_images(method.model, setting.batch_size)
    if real:
        images = real.images.repeat(-(-len(images) // len(real.images)), 1, 1, 1)[: len(images)]
    on_device = images.to(setting.device)
    if setting.what == "bank":
        return _Duel(*build.bank_search(method, on_device), "matmul and max", took)
    other, name = scoring.encoder(method.model, on_device), "open_clip image encoder"
    if setting.what != "score":
        return _Duel(build.training_step(method, setting, on_device), other, name, took)
    if not RUNTIMES[setting.runtime]:
        compiled = setting.runtime == "compile"
        run = scoring.scorer(method.model, setting.device, compiled=compiled)
        return _Duel(lambda: run(on_device), other, name, took, _as_exported(run))
    run, took = _opened(method, setting, real and real.data)
    return _Duel(lambda: run(images), other, name, took, run)


def _as_exported(run: Callable[[Tensor], Any]) -> Run:
    """A model in torch whose answers have the names that those of an exported one have."""
    return lambda images: InferenceBatch(**run(images)._asdict())


def _opened(
    method: Any,  # noqa: ANN401 - any method
    setting: Setting,
    data: AnomalibDataModule | None,
) -> tuple[Run, float]:
    """An exported method as a function, and the seconds it takes to open the file."""
    with TemporaryDirectory() as folder:
        open_file = build.export_method(method.cpu(), setting, Path(folder), data)
        start = time.perf_counter()
        run = open_file()
        took = time.perf_counter() - start
    method.to(setting.device)
    return run, took
