"""A row: one setting, built, timed and weighed."""

import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import faiss
import torch

from anomalib_medclip.bench import subjects, timing
from anomalib_medclip.bench.results import Row
from anomalib_medclip.bench.settings import RUNTIMES, Setting
from anomalib_medclip.compare.cost import device_name, model_mb
from anomalib_medclip.components.runtimes import Run


class _Duel(NamedTuple):
    """What is timed, what it is compared with and what that is called, and seconds of loading."""

    subject: timing.Work
    other: timing.Work
    reference: str
    load_s: float


def measure(setting: Setting) -> Row:
    """Time a subject and its reference in turn.

    Raises:
        MedclipError: The setting cannot be measured here: CLIP's weights, the runtime or the memory
            bank are missing, or an export is not the same model.
    """
    if setting.threads:
        torch.set_num_threads(setting.threads)
        faiss.omp_set_num_threads(setting.threads)
    duel, about = _prepared(setting)
    timing.forget_peak(setting.device)
    timed = timing.alternate(
        duel.subject, duel.other, setting.rounds, setting.at_least, setting.device
    ).as_row(setting.batch_size)
    if count := about["epoch_images"]:
        about["epoch_s"] = timed["ms_per_image"] * count / 1e3
    return {
        **about,
        **timed,
        "reference": duel.reference,
        "load_s": duel.load_s,
        "peak_mb": timing.peak_mb(),
        "peak_gpu_mb": timing.peak_of_gpu_mb(setting.device),
    }


def _prepared(setting: Setting) -> tuple[_Duel, Row]:
    """What to time, and what can be said before."""
    start = time.perf_counter()
    method = subjects.build(setting)
    took = time.perf_counter() - start
    backbone, exported = method.hparams["backbone"], bool(RUNTIMES[setting.runtime])
    epoch = subjects.epoch_images(method, setting.k_shot) if "epoch" in setting.what else 0
    about = {
        "what": setting.what,
        "method": setting.method,
        "k_shot": setting.k_shot,
        "runtime": setting.runtime,
        "precision": setting.precision,
        "device": setting.device,
        "device_name": device_name(torch.device(setting.device)),
        "backbone": backbone if isinstance(backbone, str) else json.dumps(backbone),
        "pretrained": setting.pretrained,
        "image_size": method.model.clip.size[0],
        "batch_size": setting.batch_size,
        "threads": None if exported else torch.get_num_threads(),
        "rounds": setting.rounds,
        "epoch_images": epoch or None,
        "model_mb": model_mb(method),
    }
    return _duel(method, setting, took), about


def _duel(method: Any, setting: Setting, took: float) -> _Duel:  # noqa: ANN401 - any method
    images = subjects.random_images(method, setting.batch_size)
    if setting.what == "bank":
        return _Duel(*subjects.search(method, images), "matmul and max", took)
    on_device = images.to(setting.device)
    other, name = subjects.encoder(method, on_device), "open_clip image encoder"
    if setting.what != "score":
        return _Duel(subjects.training(method, setting, on_device), other, name, took)
    if not RUNTIMES[setting.runtime]:
        return _Duel(subjects.scorer(method, setting, on_device), other, name, took)
    run, took = _opened(method, setting)
    return _Duel(lambda: run(images), other, name, took)


def _opened(method: Any, setting: Setting) -> tuple[Run, float]:  # noqa: ANN401 - any method
    """An exported method as a function, and the seconds it takes to open the file."""
    with TemporaryDirectory() as folder:
        open_file = subjects.export(method.cpu(), setting, Path(folder))
        start = time.perf_counter()
        run = open_file()
        took = time.perf_counter() - start
    method.to(setting.device)
    return run, took
